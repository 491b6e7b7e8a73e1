"""A full disk: one line that names it and says what is wanted, and no further work."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emcurate import cli
from emcurate.errors import InputError
from emcurate.running.disk import NoRoomError, describe_no_room, find_mount, remember_room
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from tests.kills import differing, tree
from tests.torture.children import give_up_override


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


def lose(job):
    """Write a result; with the fifth the directory goes, or may not be written to any more."""
    number, out, how = job
    if number == 5 and how == "gone":
        out.rename(out.with_name("elsewhere"))
    elif number == 5:
        out.chmod(0o500)
    give_up_override()
    (out / str(number)).write_text("x")
    return number


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("how", "found"), [("gone", "found that it is gone"), ("read-only", "found that it is not any more")]
)
def test_a_directory_that_is_lost_ends_the_run_with_one_line(root, tmp_path, processes, how, found):
    out = tmp_path / "out"
    out.mkdir()
    # In a process of its own, which gives up what only the superuser may do.
    code = f"from tests.running.test_disk import *; print(lose_in_a_run({str(out)!r}, {processes}, {how!r}))"
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    (tmp_path / "elsewhere" if how == "gone" else out).chmod(0o700)
    (line,) = said.stdout.splitlines()
    assert line.startswith(f"{out}: expected a directory that can be written to, {found}"), said
    assert "of 300 files done" in line
    assert line.endswith("and run the same command again: it goes on where it stopped")


def lose_in_a_run(out, processes, how):
    out = Path(out)
    give_up_override()
    remember_room(out)
    report = Report("test")
    try:
        list(Workers(processes).run(lose, [(number, out, how) for number in range(300)], report))
    except InputError as error:
        return error if not report.failures else report.failures
    return report.failures


def test_one_file_that_is_missing_ends_no_run(tmp_path):
    remember_room(tmp_path)
    report = Report("test")
    jobs = [tmp_path / name for name in "abc"]
    (tmp_path / "b").touch()
    assert [job.name for job, _ in Workers(1).run(os.stat, jobs, report)] == ["b"]
    assert len(report.failures) == 2


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


@pytest.mark.parametrize(
    ("store", "most", "named"),
    [
        ("files", 2000, ".emcurate/crop_patches.jsonl"),
        ("files", 4000, "cell-LOC-0_0_0_0.tiff"),
        ("tar", 20_000, "cell-00000.tar"),
    ],
)
def test_what_would_be_too_large_a_file_is_named(root, tmp_path, store, most, named):
    resource = pytest.importorskip("resource")
    sections, out = tmp_path / "sections", tmp_path / "out"
    sections.mkdir()
    for z in range(3):
        tifffile.imwrite(sections / f"cell-LOC-0_{z}.tiff", np.full((200, 200), z, np.uint8))
    command = [sys.executable, str(root / "raw" / "crop_patches.py"), str(sections), str(out)]
    run = subprocess.run(
        [*command, "-cs", "70", "-p", "1", "--store", store],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "found file too large; allow larger files there (ulimit -f), or write to another disk" in run.stderr
    assert f"{out / named}: expected a place" in run.stderr, run.stderr
    assert not [path for path in out.rglob("*") if "partial" in path.name]
