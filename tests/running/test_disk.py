"""A full disk: one line that names it and says what is wanted, and no further work."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from emcurate import cli
from emcurate.running.disk import NoRoomError, describe_no_room, find_mount, remember_room
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from tests.kills import differing, tree


def fill(number):
    if number >= 5:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return number


@pytest.mark.parametrize(("processes", "in_threads"), [(1, False), (2, False), (2, True)])
def test_the_first_job_without_room_ends_the_run(tmp_path, processes, in_threads):
    remember_room(tmp_path)
    done = []
    with pytest.raises(NoRoomError) as caught:
        for number, _ in Workers(processes).run(fill, range(1000), Report("test"), in_threads=in_threads):
            done.append(number)
    assert set(done) <= set(range(5))
    assert str(caught.value).startswith(f"{find_mount(tmp_path)}: expected room for the results, found")
    assert f"with {len(done)} of 1,000 files done" in str(caught.value)
    assert "run the same command again" in str(caught.value)


def test_a_quota_is_named_as_one(tmp_path):
    remember_room(tmp_path)
    assert "your quota is used up" in str(describe_no_room(OSError(errno.EDQUOT, "Disk quota exceeded")))


@pytest.fixture
def tiny(tmp_path):
    """A file system of 1 MB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(root, tmp_path, tiny, processes):
    sections = tmp_path / "sections"
    sections.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (400, 400), np.uint8)
        tifffile.imwrite(sections / f"cell-LOC-0_{number:02d}.tiff", pixels, photometric="minisblack")
    command = [sys.executable, str(root / "raw" / "crop_patches.py"), str(sections)]
    flags = ["-cs", "100", "-p", processes]
    ended = subprocess.run([*command, str(tiny / "out"), *flags], capture_output=True, text=True)
    assert ended.returncode == 1
    failed = ended.stderr.split("Failed:\n")[1].splitlines()
    assert len(failed) == 1 and failed[0].startswith(f"  {tiny}: expected room for the results")
    assert "Traceback" not in ended.stdout + ended.stderr
    subprocess.run(["mount", "-o", "remount,size=20M", str(tiny)], check=True)
    assert subprocess.run([*command, str(tiny / "out"), *flags], capture_output=True).returncode == 0
    assert subprocess.run([*command, str(tmp_path / "whole"), *flags], capture_output=True).returncode == 0
    assert not differing(tree(tiny / "out"), tree(tmp_path / "whole"))


def test_a_stage_that_breaks_off_still_says_what_it_did(capsys):
    def run():
        report = Report("stage")
        report.count("files written", 7)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert cli.close(run, "stage") == 1
    said = capsys.readouterr()
    assert "stage: 7 files written, 1 failed." in said.out
    assert "expected room for the results" in said.err
