"""N5 directories, written by hand after the format's description, and what is refused of them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.volumes.views import View
from emcurate.volumes.volume import open_volume
from tests.volumes.n5_volumes import write_n5_array
from tests.volumes.test_hdf5 import write_bigdataviewer_xml

VOXELS = np.random.default_rng(7).integers(0, 256, (11, 20, 27)).astype(np.uint8)


@pytest.mark.parametrize("compression", ["raw", "gzip"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_voxels_are_as_they_were_written(tmp_path, dtype, compression):
    volume = open_volume(write_n5_array(tmp_path / "a.n5", VOXELS.astype(dtype), compression=compression))
    assert (volume.name, volume.shape, volume.dtype, volume.voxel_size_nm) == ("a", VOXELS.shape, dtype, None)
    np.testing.assert_array_equal(volume.read(), VOXELS.astype(dtype))
    np.testing.assert_array_equal(volume.read(slice(2, 9, 3), slice(4, 5), slice(1, 20, 2)), VOXELS[2:9:3, 4:5, 1:20:2])


TRANSFORM = {"axes": ["z", "y", "x"], "scale": [30, 8, 4], "translate": [5, 5, 5], "units": ["nm", "nm", "nm"]}


@pytest.mark.parametrize(
    "attributes",
    [
        {"pixelResolution": {"dimensions": [4, 8, 30], "unit": "nm"}},
        {"pixelResolution": {"dimensions": [0.004, 0.008, 0.03], "unit": "um"}},
        {"pixelResolution": {"dimensions": [2, 8, 10], "unit": "nm"}, "downsamplingFactors": [2, 1, 3]},
        {"transform": TRANSFORM},
        {"transform": {**TRANSFORM, "axes": ["x", "y", "z"], "scale": [4, 8, 30]}},
    ],
)
def test_voxel_sizes_come_from_the_attributes(tmp_path, attributes):
    volume = open_volume(write_n5_array(tmp_path / "a.n5", VOXELS, attributes))
    assert volume.voxel_size_nm == pytest.approx((30, 8, 4))


@pytest.mark.parametrize(
    "resolution", [[4, 8, 30], {"dimensions": [4, 8, 30]}, {"dimensions": [4, 0, 1], "unit": "nm"}]
)
def test_a_resolution_without_a_unit_or_sense_is_unknown(tmp_path, resolution):
    path = write_n5_array(tmp_path / "a.n5", VOXELS, {"pixelResolution": resolution})
    assert open_volume(path).voxel_size_nm is None


def write_levels(path, attributes):
    for level in range(3):
        write_n5_array(path / "em" / "raw" / f"s{level}", VOXELS[:: level + 1])
    (path / "em" / "raw" / "attributes.json").write_text(json.dumps(attributes))
    return path


def test_of_several_resolutions_the_full_one_is_read_with_the_groups_voxel_size(tmp_path):
    path = write_levels(tmp_path / "a.n5", {"pixelResolution": {"dimensions": [4, 8, 30], "unit": "nm"}})
    volume = open_volume(path)
    assert volume.voxel_size_nm == (30, 8, 4)
    np.testing.assert_array_equal(volume.read(), VOXELS)


def test_several_volumes_are_listed_with_their_shapes(tmp_path):
    path = write_levels(tmp_path / "a.n5", {})
    write_n5_array(path / "labels", VOXELS[:3])
    with pytest.raises(InputError, match=r"found 2: em/raw/s0 \(11 × 20 × 27\), labels \(3 × 20 × 27\)"):
        open_volume(path)


def test_a_block_that_is_not_stored_is_zero(tmp_path):
    path = write_n5_array(tmp_path / "a.n5", np.maximum(VOXELS, 1))
    (path / "0" / "0" / "0").unlink()
    found = open_volume(path).read()
    assert not found[:4, :8, :16].any() and found[4:].all()


def test_links_out_of_the_directory_and_claims_beyond_it_are_refused(tmp_path):
    path = write_n5_array(tmp_path / "a.n5", VOXELS)
    shutil.copytree(path, tmp_path / "b.n5")
    (path / "1").rename(tmp_path / "elsewhere")
    (path / "1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="a link"):
        open_volume(path)
    attributes = json.loads((path / "attributes.json").read_text())
    for change in ({"dimensions": [10**7] * 3}, {"dimensions": [0, 1, 1]}, {"dataType": "object"}, {"blockSize": 3}):
        (tmp_path / "b.n5" / "attributes.json").write_text(json.dumps(attributes | change))
        with pytest.raises(InputError):
            open_volume(tmp_path / "b.n5")


def test_a_damaged_block_and_a_directory_without_a_volume_are_errors(tmp_path):
    path = write_n5_array(tmp_path / "a.n5", VOXELS)
    (path / "0" / "1" / "0").write_bytes(b"\0\0\0\3")
    with pytest.raises(InputError, match="chunks that can be decoded"):
        open_volume(path).read()
    (tmp_path / "b.n5").mkdir()
    with pytest.raises(InputError, match="one volume, found none"):
        open_volume(tmp_path / "b.n5")


def test_levels_setups_and_timepoints_are_chosen(tmp_path):
    for time, setup, level in [(0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0)]:
        array = VOXELS[:: level + 1] if (time, setup) == (0, 0) else VOXELS[time:, setup:]
        write_n5_array(tmp_path / "a.n5" / f"setup{setup}" / f"timepoint{time}" / f"s{level}", array)
        about = {"downsamplingFactors": [[1, 1, 1], [1, 1, 2]]}
        (tmp_path / "a.n5" / f"setup{setup}" / "attributes.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="found 2 along axis setup; choose one with --channel 0 to 1"):
        open_volume(tmp_path / "a.n5")
    write_bigdataviewer_xml(tmp_path / "a.xml")
    coarse = open_volume(tmp_path / "a.n5", view=View(channel=0, time=0, level=1))
    assert coarse.voxel_size_nm == pytest.approx((60, 8, 4))
    np.testing.assert_array_equal(coarse.read(), VOXELS[::2])
    np.testing.assert_array_equal(open_volume(tmp_path / "a.n5", view=View(channel=0, time=1)).read(), VOXELS[1:])
    with pytest.raises(InputError, match="a setup 1 at timepoint 1, found none"):
        open_volume(tmp_path / "a.n5", view=View(channel=1, time=1))
    np.testing.assert_array_equal(open_volume(tmp_path / "a.n5::/setup1/timepoint0/s0").read(), VOXELS[:, 1:])


def test_a_sparse_array_whose_blocks_are_spread_over_it_is_believed(tmp_path):
    for name in ("spread.n5", "corner.n5"):
        write_n5_array(tmp_path / name, np.ones((4, 8, 16), np.uint8), {"dimensions": [16 * 64, 8 * 64, 4 * 64]})
        for at in range(0, 64, 4):
            place = (at, at, at) if name == "spread.n5" else (0, 0, at)
            target = tmp_path.joinpath(name, *map(str, place))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / name / "0" / "0" / "0", target) if any(place) else None
    assert open_volume(tmp_path / "spread.n5").read().sum() == 16 * 512
    with pytest.raises(InputError, match="at least one in 1,000"):
        open_volume(tmp_path / "corner.n5")
