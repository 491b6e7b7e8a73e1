"""Every stage that reads volumes gets by with 1 GB of memory, its workers included, however large the volume."""

import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest

GIGABYTE = 1 << 30
SIDE = 1600  # of unsigned bytes: 4.1 GB
FLOAT_SIDE = 1000  # of float32: 4 GB

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process holds is asked of /proc")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Volumes that take no room on disk: holes, but for the first and the last voxel."""
    made = {}
    for name, side, mode in (("bytes", SIDE, np.int8), ("floats", FLOAT_SIDE, np.float32)):
        directory = tmp_path_factory.mktemp(name)
        path = directory / f"{name}.mrc"
        with mrcfile.new(path, data=np.zeros((1, side, side), mode)) as mrc:
            mrc.voxel_size = 80.0
            mrc.header.nz = mrc.header.mz = side
            mrc.header.cella.z = 80.0 * side
            mrc.header.dmax = 127
        size = 1024 + side**3 * np.dtype(mode).itemsize
        with open(path, "r+b") as file:
            file.truncate(size)
            for place in (1024, size - np.dtype(mode).itemsize):
                file.seek(place)
                file.write(np.array(99, mode).tobytes())
        if path.stat().st_blocks * 512 > GIGABYTE:
            pytest.skip("this file system writes holes out")
        made[name] = directory
    return made


@pytest.mark.parametrize(
    ("corpus", "script", "words"),
    [
        ("bytes", "raw/cross_section3d.py", ["-s", "800"]),
        ("bytes", "raw/crop_patches.py", ["--from-volumes", "-s", "800", "--store", "tar"]),
        ("floats", "raw/crop_patches.py", ["--from-volumes", "-s", "500", "--hashes-only"]),
    ],
)
def test_a_volume_of_four_gigabytes_takes_less_than_one(corpora, root, tmp_path, corpus, script, words):
    command = [sys.executable, root / script, corpora[corpus], tmp_path / "out", *words, "-p", "2"]
    peak, code, said = run_and_watch([str(word) for word in command], tmp_path)
    assert code == 0, said
    print(f"{peak / 1e6:.0f} MB at most")
    assert peak < GIGABYTE


def run_and_watch(command, directory):
    """Run a command; return the most memory that its processes held at once, its exit status, and what it said.

    Pages of files that are mapped do not count: the system takes them back when it needs them.
    """
    with open(directory / "said", "w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, held_by_session(process.pid))
            time.sleep(0.02)
        said.seek(0)
        return peak, process.returncode, said.read()


def held_by_session(leader):
    """Return the bytes of memory that no file backs of all processes of a session."""
    held = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            session = int((path / "stat").read_text().rpartition(")")[2].split()[3])
            if session != leader:
                continue
            lines = (path / "status").read_text().splitlines()
        except (OSError, IndexError, ValueError):
            continue  # it has ended meanwhile
        fields = dict(line.split(":", 1) for line in lines)
        held += sum(int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssShmem") if name in fields)
    return held
