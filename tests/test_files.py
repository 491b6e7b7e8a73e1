import os
import stat
import subprocess
import sys
import time

import pytest

from emcurate import files, partials
from emcurate.errors import InputError


def test_natural_order():
    names = ["10.png", "2.png", "a1b10", "a1b9", "01.png", "1.png", "ä.png", ""]
    assert sorted(names, key=files.natural_key) == ["", "01.png", "1.png", "2.png", "10.png", "a1b9", "a1b10", "ä.png"]


def test_listing_leaves_out_hidden_files_directories_and_other_suffixes(tmp_path):
    for name in ["b.TIF", "a.tif", ".hidden.tif", "c.txt"]:
        (tmp_path / name).touch()
    (tmp_path / "d.tif").mkdir()
    assert [path.name for path in files.list_files(tmp_path, [".tif"])] == ["a.tif", "b.TIF"]


def test_partial_files_of_a_zombie_are_swept_away(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    child.stdout.read()  # at its end the child has exited, but until wait() its number is taken
    left = tmp_path / partials.partial_path(tmp_path).name.replace(f"-{os.getpid()}-", f"-{child.pid}-")
    left.touch()
    time.sleep(0.2)
    files.make_output_directory(tmp_path)
    child.wait()
    assert not left.exists()


def test_partial_files_of_dead_processes_are_swept_away_and_no_others(tmp_path):
    alive = partials.partial_path(tmp_path)
    alive.touch()
    # No process has this number: the kernel's own limit is 2**22.
    dead = tmp_path / alive.name.replace(str(os.getpid()), str(2**22 + 1))
    dead.touch()
    elsewhere = tmp_path / ".emcurate-otherhost-1-0.partial"
    elsewhere.touch()
    files.make_output_directory(tmp_path)
    assert alive.exists()
    assert elsewhere.exists()
    assert not dead.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_directory_without_write_permission(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="no write permission"):
        files.make_output_directory(tmp_path)


def test_output_directory_that_is_a_file(tmp_path):
    (tmp_path / "f").touch()
    for path in (tmp_path / "f", tmp_path / "f" / "below"):
        with pytest.raises(InputError, match="expected a directory"):
            files.make_output_directory(path)


def test_room_is_that_of_the_next_directory_that_is_there(tmp_path):
    assert files.free_bytes(tmp_path / "not" / "yet") == pytest.approx(files.free_bytes(tmp_path), rel=0.01)
