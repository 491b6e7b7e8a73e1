"""OME-Zarr directories as zarr-python writes and reads them, and what is refused of them."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import zarr

from emcurate.errors import InputError
from emcurate.running.report import Report
from emcurate.volumes.corpus import find_volumes, fingerprint_volume
from emcurate.volumes.volume import open_volume
from tests.volumes.chunked_volumes import write_ome_zarr

RNG = np.random.default_rng(5)
VOXELS = RNG.integers(0, 256, (11, 20, 27)).astype(np.uint8)


def edit_json(path, change):
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">i2", "<f4"])
def test_ome_zarr_0_4_reads_as_zarr_python_reads_it(tmp_path, dtype):
    path = write_ome_zarr(tmp_path / "a.ome.zarr", (VOXELS * 1).astype(dtype))
    volume = open_volume(path)
    expected = zarr.open_array(path / "s0", mode="r")[:]
    assert (volume.name, volume.shape, volume.voxel_size_nm) == ("a", VOXELS.shape, (30.0, 8.0, 8.0))
    assert volume.dtype == np.dtype(dtype).newbyteorder("=") == volume.read().dtype
    np.testing.assert_array_equal(volume.read(), expected)
    np.testing.assert_array_equal(
        volume.read(slice(3, 9, 2), slice(5, 17), slice(1, 27, 5)), expected[3:9:2, 5:17, 1::5]
    )
    np.testing.assert_array_equal(list(volume.voxels.iter_planes(4, 7)), expected[4:7])


@pytest.mark.parametrize("shards", [None, (16, 16, 16)])
def test_ome_zarr_0_5_reads_as_zarr_python_reads_it(tmp_path, shards):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS.astype(np.uint16) * 200, version="0.5", shards=shards)
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read(), zarr.open_array(path / "s0", mode="r")[:])
    assert (volume.dtype, volume.voxel_size_nm) == (np.uint16, (30.0, 8.0, 8.0))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["xyz", "yzx", "czyx", "tczyx", "zcyxt"])
def test_axes_come_in_any_order_and_those_of_one_index_are_dropped(tmp_path, axes, version):
    steps, sides = {"z": 30.0, "y": 8.0, "x": 4.0}, dict(zip("zyx", VOXELS.shape, strict=True))
    array = VOXELS.transpose(["zyx".index(name) for name in axes if name in "zyx"])
    array = array.reshape([sides.get(name, 1) for name in axes])
    path = write_ome_zarr(tmp_path / "a.zarr", array, axes, [steps.get(name, 1.0) for name in axes], version)
    volume = open_volume(path)
    assert volume.voxel_size_nm == (30.0, 8.0, 4.0)
    np.testing.assert_array_equal(volume.read(), VOXELS)
    np.testing.assert_array_equal(volume.read(slice(2, 5), slice(0, 20, 3), slice(7, 8)), VOXELS[2:5, ::3, 7:8])


@pytest.mark.parametrize(
    ("unit", "more", "expected"),
    [
        ("micrometer", None, (30e3, 8e3, 8e3)),
        ("angstrom", None, (3.0, 0.8, 0.8)),
        (None, None, None),
        ("furlong", None, None),
        ("nanometer", {"coordinateTransformations": [{"type": "scale", "scale": [2, 2, 3]}]}, (60.0, 16.0, 24.0)),
    ],
)
def test_voxel_sizes_come_from_all_scales_and_units(tmp_path, unit, more, expected):
    volume = open_volume(write_ome_zarr(tmp_path / "a.zarr", VOXELS, unit=unit, more=more))
    assert volume.voxel_size_nm == (None if expected is None else pytest.approx(expected))


def test_a_plain_array_of_three_axes_is_a_volume_of_unknown_voxel_size(tmp_path):
    for version in (2, 3):
        zarr.create_array(tmp_path / f"{version}.zarr", data=VOXELS, chunks=(4, 8, 8), zarr_format=version)
        volume = open_volume(tmp_path / f"{version}.zarr")
        assert volume.voxel_size_nm is None
        np.testing.assert_array_equal(volume.read(), VOXELS)


def test_the_one_image_of_a_bioformats2raw_directory_is_found_and_several_are_listed(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    write_ome_zarr(tmp_path / "a.zarr" / "0", VOXELS)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.zarr").read(), VOXELS)
    shutil.copytree(tmp_path / "a.zarr" / "0", tmp_path / "a.zarr" / "1")
    with pytest.raises(InputError, match=r"expected one image, found 2: 0, 1; name one, such as .*a\.zarr::/0"):
        open_volume(tmp_path / "a.zarr")


def test_a_handle_is_small_and_reads_wherever_it_was_sent(tmp_path):
    volume = open_volume(write_ome_zarr(tmp_path / "a.zarr", VOXELS))
    volume.read(slice(0, 1))
    sent = pickle.dumps(volume)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent).read(), VOXELS)  # noqa: S301 - written one line above


@pytest.mark.parametrize(("axes", "shape", "flag"), [("czyx", (2, 3, 4, 5), "channel"), ("tzyx", (2, 3, 4, 5), "time")])
def test_several_channels_or_times_are_refused(tmp_path, axes, shape, flag):
    path = write_ome_zarr(tmp_path / "a.zarr", np.ones(shape, np.uint8), axes, [1.0] * 4)
    with pytest.raises(InputError, match=f"found 2 along axis {axes[0]}.*--{flag}"):
        open_volume(path)


def test_a_2d_image_is_refused_with_advice(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS[0], "yx", [1.0, 1.0])
    with pytest.raises(InputError, match=r"without z; save it as a 2D image for cleanup2d\.py"):
        open_volume(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_missing_chunk_is_the_fill_value(tmp_path, version):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS + 1 - (VOXELS == 255), version=version, fill_value=7)
    shutil.rmtree(path / "s0" / "c" / "0") if version == "0.5" else (path / "s0" / "0.0.0").unlink()
    found = open_volume(path).read()
    np.testing.assert_array_equal(found, zarr.open_array(path / "s0", mode="r")[:])
    assert (found[:8, :8, :8] == 7).all()


def test_a_missing_chunk_is_an_error_where_the_format_gives_no_fill_value(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    edit_json(path / "s0" / ".zarray", lambda metadata: metadata.update(fill_value=None))
    np.testing.assert_array_equal(open_volume(path).read(), VOXELS)
    (path / "s0" / "1.1.1").unlink()
    with pytest.raises(InputError, match="chunks that can be decoded"):
        open_volume(path).read()


def test_a_damaged_chunk_is_an_error(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    chunk = path / "s0" / "0.1.1"
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(InputError, match="chunks that can be decoded"):
        open_volume(path).read()


@pytest.mark.parametrize("name", ["../b.zarr/s0", "/etc", "file:///etc", "s0/../../b.zarr/s0", "C:\\x", 3, None])
def test_metadata_lead_nowhere_outside_of_the_directory(tmp_path, name):
    write_ome_zarr(tmp_path / "b.zarr", VOXELS)
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    edit_json(path / ".zattrs", lambda metadata: metadata["multiscales"][0]["datasets"][0].update(path=name))
    with pytest.raises(InputError, match="an array in its own directory"):
        open_volume(path)


@pytest.mark.parametrize("what", ["s0", "s0/0.0.0", "s0/.zarray", ".zattrs"])
def test_links_out_of_the_directory_are_refused(tmp_path, what):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    (path / what).rename(tmp_path / "elsewhere")
    (path / what).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="a link"):
        open_volume(path)


def test_a_link_to_the_directory_itself_is_its_owners(tmp_path):
    write_ome_zarr(tmp_path / "far" / "a.zarr", VOXELS)
    (tmp_path / "b.zarr").symlink_to(tmp_path / "far" / "a.zarr")
    np.testing.assert_array_equal(open_volume(tmp_path / "b.zarr").read(), VOXELS)


def test_a_pipe_among_the_chunks_is_refused_and_not_waited_for(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    (path / "s0" / "0.0.0").unlink()
    os.mkfifo(path / "s0" / "0.0.0")
    with pytest.raises(InputError, match="a pipe"):
        open_volume(path)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**6] * 3},
        {"shape": [10**9, 20, 27]},
        {"chunks": [10**4] * 3},
        {"shape": [0, 20, 27]},
        {"shape": "x"},
    ],
)
def test_metadata_that_claim_more_than_the_files_can_hold_are_refused(tmp_path, change):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    edit_json(path / "s0" / ".zarray", lambda metadata: metadata.update(change))
    with pytest.raises(InputError):
        open_volume(path)


def test_an_array_without_any_chunk_is_refused(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    for chunk in (path / "s0").glob("[0-9]*"):
        chunk.unlink()
    with pytest.raises(InputError, match="found 0 files"):
        open_volume(path)


@pytest.mark.parametrize(
    "metadata",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"multiscales": 3}',
        b'{"multiscales": [{}]}',
        b'{"multiscales": [{"datasets": []}]}',
        b"[" * 10**5,
    ],
)
def test_metadata_that_make_no_sense_are_refused(tmp_path, metadata):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    (path / ".zattrs").write_bytes(metadata)
    with pytest.raises(InputError):
        open_volume(path)


def test_an_array_replaced_by_another_is_read_anew(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS)
    open_volume(path).read()
    write_ome_zarr(path, VOXELS[:, ::-1] // 2)
    np.testing.assert_array_equal(open_volume(path).read(), VOXELS[:, ::-1] // 2)


def test_the_fingerprint_changes_with_any_chunk(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", VOXELS, version="0.5")
    seen = {fingerprint_volume(path)}
    assert fingerprint_volume(path) in seen
    chunk = path / "s0" / "c" / "1" / "2" / "0"
    os.utime(chunk, ns=(1, 1))
    seen.add(fingerprint_volume(path))
    chunk.rename(chunk.with_name("9"))
    seen.add(fingerprint_volume(path))
    (path / "s0" / "c" / "1" / "2" / "9").unlink()
    seen.add(fingerprint_volume(path))
    assert len(seen) == 4


def test_a_corpus_holds_zarr_directories_as_volumes_and_one_can_be_named_alone(tmp_path):
    path = write_ome_zarr(tmp_path / "a.ome.zarr", VOXELS)
    for root in (tmp_path, path):
        corpus = find_volumes(root, Report("test"))
        assert [(source.name, source.path) for source in corpus.sources] == [("a", path)]
