import csv
import errno
import io
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emcurate import files, partials
from emcurate.errors import InputError
from emcurate.exchange import exchange


def test_natural_order():
    names = ["10.png", "2.png", "a1b10", "a1b9", "01.png", "1.png", "ä.png", ""]
    assert sorted(names, key=files.natural_key) == ["", "01.png", "1.png", "2.png", "10.png", "a1b9", "a1b10", "ä.png"]


def test_listing_leaves_out_hidden_files_directories_and_other_suffixes(tmp_path):
    for name in ["b.TIF", "a.tif", ".hidden.tif", "c.txt"]:
        (tmp_path / name).touch()
    (tmp_path / "d.tif").mkdir()
    assert [path.name for path in files.list_files(tmp_path, [".tif"])] == ["a.tif", "b.TIF"]


def test_atomic_path_leaves_nothing_when_writing_fails(tmp_path):
    target = tmp_path / "result"
    target.write_text("before")
    with pytest.raises(RuntimeError), files.atomic_path(target) as partial:
        partial.write_text("half")
        assert target.read_text() == "before"
        raise RuntimeError
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["result"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is always full is Linux'")  # noqa: PTH110
@pytest.mark.parametrize("count", [10, 100_000])
def test_an_array_that_a_full_disk_does_not_take_is_heard_of(count):
    with pytest.raises(OSError, match="No space left") as caught, files.create_for_arrays(Path("/dev/full")) as file:
        np.save(file, np.zeros(count))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space left"), files.create_for_arrays(Path("/dev/full")) as file:
        tifffile.imwrite(file, np.zeros((count, 1), np.uint8))


def test_atomic_path_replaces_a_directory(tmp_path):
    target = tmp_path / "list"
    target.mkdir()
    (target / "old").touch()
    with files.atomic_path(target) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["list"]


def test_pieces_are_written_once_and_digested_on_the_way(tmp_path):
    target = tmp_path / "table.csv"
    output = files.write_pieces(target, iter([b"one", memoryview(b", two"), b""]))
    assert target.read_bytes() == b"one, two"
    assert output == files.note_output(target, tmp_path)
    assert files.write_pieces(target, [b"one, ", b"two"]) == output
    with pytest.raises(InputError, match=r"table\.csv: expected no such file"):
        files.write_pieces(target, [b"two"])
    assert target.read_bytes() == b"one, two"
    assert files.write_pieces(target, [b"two"], overwrite=True) == files.note_output(target, tmp_path)
    (tmp_path / "directory").mkdir()
    with pytest.raises(InputError, match="a directory of that name"):
        files.write_pieces(tmp_path / "directory", [b"one"], overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["directory", "table.csv"]


def test_pieces_that_break_off_leave_nothing(tmp_path):
    def pieces():
        yield b"one"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write_pieces(tmp_path / "table.csv", pieces())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("array", [np.array(["a", "öß"]), np.zeros(0, "<U3"), np.arange(1000), np.zeros(10**6, bool)])
def test_the_head_of_an_npy_file_is_numpys(array):
    assert files.npy_header(array.dtype, len(array)) + array.tobytes() == files.npy_bytes(array)


def test_of_several_files_one_that_is_taken_is_named_before_any_is_written(tmp_path):
    (tmp_path / "same").write_bytes(b"one")
    wanted = {"same": b"one", "new": b"two"}
    files.refuse_different(tmp_path, wanted)
    for name, make in (("taken", lambda path: path.write_bytes(b"yours")), ("directory", lambda path: path.mkdir())):
        make(tmp_path / name)
        with pytest.raises(InputError, match="--overwrite to replace it") as error:
            files.refuse_different(tmp_path, wanted | {name: b"three"})
        assert error.value.path == str(tmp_path / name)
    assert not (tmp_path / "new").exists()


def test_write_once_never_replaces_other_content(tmp_path):
    target = tmp_path / "a"
    assert files.write_once(target, b"one") is True
    assert files.write_once(target, b"one") is False
    with pytest.raises(InputError, match="--overwrite"):
        files.write_once(target, b"two")
    assert target.read_bytes() == b"one"
    assert files.write_once(target, b"two", overwrite=True) is True
    assert target.read_bytes() == b"two"


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


def test_npy_with_objects_is_never_unpickled(tmp_path):
    path = tmp_path / "a.npy"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="only pickle can read"):
        files.read_npy(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text"])
def test_damaged_npy(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy"):
        files.read_npy(path)


def test_fingerprint_changes_with_a_file_of_a_directory(tmp_path):
    (tmp_path / "1.png").write_bytes(b"a")
    before = files.fingerprint(tmp_path)
    assert files.fingerprint(tmp_path) == before
    (tmp_path / "2.png").write_bytes(b"b")
    assert files.fingerprint(tmp_path) != before


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|x", "'+cmd|x"),
        ("-rf", "'-rf"),
        ("\t=1", "'\t=1"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        ("a=b", "a=b"),
        ("", ""),
        (-3, "-3"),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_marked_as_text(cell, written):
    rows = list(csv.reader(io.StringIO(files.csv_bytes(["name", cell], [[cell, 1]]).decode(), newline="")))
    assert rows == [["name", written], [written, "1"]]
    # Written once more, it stays as it is.
    assert files.csv_bytes([written], []) == files.csv_bytes([cell], [])


def test_room_is_that_of_the_next_directory_that_is_there(tmp_path):
    assert files.free_bytes(tmp_path / "not" / "yet") == pytest.approx(files.free_bytes(tmp_path), rel=0.01)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_is_replaced_whole(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(files, "exchange", lambda path, other: False)
    target = tmp_path / "list"
    for content in ("first", "second"):
        with files.atomic_path(target) as partial:
            partial.mkdir()
            (partial / content).touch()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["list"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is Linux'")
def test_whoever_looks_meanwhile_always_finds_a_directory(tmp_path):
    target, other = tmp_path / "list", tmp_path / "probe"
    target.mkdir()
    other.mkdir()
    if not exchange(target, other):
        pytest.skip("this file system cannot exchange directories")
    found, done = [], threading.Event()

    def look():
        while not done.is_set():
            found.append(target.is_dir())

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(500):
        with files.atomic_path(target) as partial:
            partial.mkdir()
    done.set()
    watcher.join()
    assert all(found) and len(found) > 500
