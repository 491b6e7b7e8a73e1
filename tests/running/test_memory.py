"""Too little memory: an input that needs more is tried once more, alone, and then named; the others are done."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from emcurate.errors import describe_damage
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from tests.clusters import wait_until
from tests.textures import make_texture
from tests.torture.crafted_chunked import packed_zeros
from tests.torture.crafted_tiffs import a_page, tiff_bytes

GROUPS = Path("/sys/fs/cgroup/memory")
GROUP_BYTES, ADDRESSES_KIB = 700 << 20, 1_400_000
SMALL = 6
HUGE_HEIGHT, HUGE_WIDTH = 3 << 13, 1 << 15  # 1.6 GB of 16-bit pixels


@pytest.fixture
def images(tmp_path):
    """Small images, and one that packs more than a gigabyte of pixels into a megabyte and a half."""
    directory = tmp_path / "images"
    directory.mkdir()
    for number in range(SMALL):
        Image.fromarray(make_texture((1, 40, 40), seed=number)[0]).save(directory / f"{number}.png")
    data = packed_zeros(2 * HUGE_HEIGHT * HUGE_WIDTH)
    page = a_page(HUGE_WIDTH, HUGE_HEIGHT, bits=16, compression=(3, [8]), counts=(4, [len(data)]))
    (directory / "huge.tif").write_bytes(tiff_bytes(page, data))
    return directory


def clean_up(root, images, shell):
    command = [sys.executable, str(root / "raw" / "cleanup2d.py"), str(images), str(images.parent / "out"), "-p", "2"]
    return subprocess.run(["bash", "-c", shell, "bash", *command], capture_output=True, text=True, timeout=120)


def check(images, ended, found):
    assert ended.returncode == 1, ended.stderr
    failed = ended.stderr.partition("Failed:\n")[2].splitlines()
    assert len(failed) == 1 and failed[0].startswith(f"  {images / 'huge.tif'}: ") and found in failed[0]
    assert "Traceback" not in ended.stderr
    out = images.parent / "out"
    assert sorted(path.name for path in out.glob("*.tiff")) == [f"{number}-LOC-2d.tiff" for number in range(SMALL)]
    assert not list(out.glob(".emcurate-*"))


def test_an_image_for_which_memory_cannot_be_had_is_named(root, images):
    check(images, clean_up(root, images, f'ulimit -v {ADDRESSES_KIB}; exec "$@"'), "expected enough memory for")


def needs_memory(job):
    """Do a job for which there is memory only once no other job is under way."""
    tries = job.parent / f"tries of {job.name}"
    count = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (count + 1))
    if job.name.startswith(("lacks", "never")) and (count == 0 or job.name.startswith("never")):
        if "mapping" in job.name:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        if "damaged" in job.name:
            raise describe_damage(MemoryError("9 GiB"), job, "an image", "look at it")
        if "threads" in job.name:
            raise RuntimeError("can't start new thread")
        raise MemoryError
    return count


def test_what_lacks_memory_is_tried_once_more_alone_and_then_named(tmp_path):
    names = [
        *(f"{what} {how}" for what in ("lacks", "never") for how in ("numbers", "mapping", "damaged", "threads")),
        "fine",
        "b",
    ]
    report = Report("test")
    jobs = [tmp_path / name for name in names]
    done = {job.name: count for job, count in Workers(2).run(needs_memory, jobs, report)}
    assert done == {"fine": 0, "b": 0, "lacks numbers": 1, "lacks mapping": 1, "lacks damaged": 1, "lacks threads": 1}
    assert len(report.failures) == 4
    for failure in report.failures:
        assert "never " in failure and "expected enough memory for" in failure
        assert "use fewer processes with -p where several run" in failure
        assert "()" not in failure


@pytest.fixture
def group():
    """A group of processes that may have so much memory together."""
    place = GROUPS / f"emcurate-{os.getpid()}"
    try:
        place.mkdir()
        (place / "memory.limit_in_bytes").write_text(str(GROUP_BYTES))
    except OSError:
        pytest.skip("no right to limit the memory of a group of processes here")
    yield place
    wait_until(lambda: not (place / "cgroup.procs").read_text())
    wait_until(lambda: is_removed(place))


def is_removed(place):
    """Remove a group of processes, unless the system is still at it."""
    try:
        place.rmdir()
    except OSError as error:
        assert error.errno == errno.EBUSY
        return False
    return True


def test_an_image_that_a_worker_is_killed_over_for_want_of_memory_is_named(root, images, group):
    ended = clean_up(root, images, f'echo $$ >{group}/cgroup.procs; exec "$@"')
    check(images, ended, "the process working on it was killed, perhaps for want of memory")
