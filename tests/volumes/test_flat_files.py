"""Volumes that are mapped as a whole, and stay mapped, are read as they are now."""

import copy
import os
import pickle
import time
from pathlib import Path

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
