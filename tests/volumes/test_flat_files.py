"""Volumes that are mapped as a whole, and stay mapped, are read as they are now."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.volumes import layouts
from emcurate.volumes.layouts import FlatFile

RNG = np.random.default_rng(0)
SHAPE = (7, 11, 13)
MAPS = Path("/proc/self/maps")
HEAD = 5  # bytes before the voxels


def write(path, voxels):
    path.write_bytes(b"head!" + voxels.tobytes())
    return voxels


def make_voxels(dtype="<u2"):
    return RNG.integers(0, 250, SHAPE).astype(dtype)


def flat(path, dtype="<u2"):
    return FlatFile(path, SHAPE, np.dtype(dtype), (HEAD,))


BOXES = [
    (slice(None),) * 3,
    (slice(2, 5), slice(0, 11, 3), slice(4, 5)),
    (slice(6, 7), slice(3, 9), slice(None, None, 2)),
]


@pytest.fixture(params=["kept", "piece by piece"])
def kept(request, monkeypatch):
    monkeypatch.setattr(layouts, "KEPT_BYTES", 1 << 20 if request.param == "kept" else 0)
    return request.param == "kept"


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f4"])
def test_boxes_are_those_of_the_array(tmp_path, kept, dtype):
    voxels = write(tmp_path / "a.raw", make_voxels(dtype))
    layout = flat(tmp_path / "a.raw", dtype)
    for box in BOXES * 2:
        found = layout.read(*box)
        assert found.dtype == layout.dtype and found.flags.writeable
        np.testing.assert_array_equal(found, voxels[box])


def test_a_file_that_another_has_replaced_is_read_anew(tmp_path, kept):
    path = tmp_path / "a.raw"
    before = write(path, make_voxels())
    layout = flat(path)
    np.testing.assert_array_equal(layout.read(*BOXES[0]), before)
    after = write(tmp_path / "b.raw", make_voxels())
    (tmp_path / "b.raw").replace(path)
    np.testing.assert_array_equal(layout.read(*BOXES[0]), after)


def test_a_file_that_was_written_over_is_read_anew(tmp_path, kept):
    path = tmp_path / "a.raw"
    write(path, make_voxels())
    layout = flat(path)
    layout.read(*BOXES[0])
    time.sleep(0.02)
    after = write(path, make_voxels())
    np.testing.assert_array_equal(layout.read(*BOXES[0]), after)


def test_a_file_that_shrank_is_refused_and_ends_no_process(tmp_path, kept):
    path = tmp_path / "a.raw"
    write(path, make_voxels())
    layout = flat(path)
    layout.read(*BOXES[0])
    os.truncate(path, 100)
    with pytest.raises(InputError, match="it shrank while it was read"):
        layout.read(*BOXES[0])


def test_what_is_mapped_stays_in_its_process_and_counts_in_no_comparison(tmp_path, kept):
    path = tmp_path / "a.raw"
    voxels = write(path, make_voxels())
    layout, other = flat(path), flat(path)
    small = len(pickle.dumps(layout))
    layout.read(*BOXES[0])
    assert layout == other and hash(layout) == hash(other) and repr(layout) == repr(other)
    assert len(pickle.dumps(layout)) == small
    np.testing.assert_array_equal(copy.deepcopy(layout).read(*BOXES[1]), voxels[BOXES[1]])


@pytest.mark.skipif(not MAPS.exists(), reason="this system does not tell what is mapped")
def test_only_small_volumes_stay_mapped(tmp_path, kept):
    path = tmp_path / "a.raw"
    write(path, make_voxels())
    layout = flat(path)
    layout.read(*BOXES[0])
    assert (str(path) in MAPS.read_text()) == kept


@pytest.mark.skipif(not MAPS.exists(), reason="this system does not tell what is mapped")
def test_few_volumes_stay_mapped_the_last_ones_and_none_that_nobody_uses(tmp_path, monkeypatch):
    size = np.prod(SHAPE) * 2
    monkeypatch.setattr(layouts, "KEPT_BYTES", 3 * size)
    paths = [tmp_path / f"{i}.raw" for i in range(6)]
    volumes = {path: write(path, make_voxels()) for path in paths}
    used = {path: flat(path) for path in paths}

    def mapped():
        return [path for path in paths if str(path) in MAPS.read_text()]

    for path, layout in used.items():
        np.testing.assert_array_equal(layout.read(*BOXES[1]), volumes[path][BOXES[1]])
        assert path in mapped() and len(mapped()) <= 3
    assert mapped() == paths[3:]
    np.testing.assert_array_equal(used[paths[0]].read(*BOXES[0]), volumes[paths[0]])
    assert mapped() == [paths[0], *paths[4:]]
    monkeypatch.setattr(layouts, "KEPT_MAPPINGS", 2)
    used[paths[1]].read(*BOXES[0])
    assert mapped() == paths[:2]
    del used[paths[0]], layout
    gc.collect()
    assert mapped() == [paths[1]]


def test_threads_that_take_one_anothers_room_read_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "KEPT_MAPPINGS", 1)
    paths = [tmp_path / f"{i}.raw" for i in range(4)]
    volumes = {path: write(path, make_voxels()) for path in paths}
    used = {path: flat(path) for path in paths}

    def read(number):
        path = paths[number % 4]
        return np.array_equal(used[path].read(*BOXES[0]), volumes[path])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(2000)))


@pytest.mark.skipif(not MAPS.exists(), reason="this system does not tell what is mapped")
def test_many_volumes_take_few_open_files(tmp_path, root):
    resource = pytest.importorskip("resource")
    directory, out = tmp_path / "volumes", tmp_path / "out"
    directory.mkdir()
    for number in range(60):
        with mrcfile.new(directory / f"v{number:02d}.mrc") as mrc:
            mrc.set_data(RNG.integers(-100, 100, (40, 40, 40)).astype(np.int8))
    command = [sys.executable, str(root / "raw" / "crop_patches.py"), str(directory), str(out), "--from-volumes"]
    run = subprocess.run(
        [*command, "--hashes-only", "-cs", "20", "-p", "2"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)),
    )
    assert run.returncode == 0, run.stderr
    assert len(list(out.glob("*_patches.parquet"))) == 60
