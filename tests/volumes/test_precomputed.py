"""Neuroglancer's precomputed volumes: written by hand, and as cloud-volume and tensorstore write and read them."""

from __future__ import annotations

import gzip
import json
import pickle

import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.running.report import Report
from emcurate.volumes.corpus import find_volumes
from emcurate.volumes.views import View
from emcurate.volumes.volume import open_volume
from tests.volumes.precomputed_volumes import write_precomputed

VOXELS = np.random.default_rng(8).integers(0, 256, (11, 20, 27)).astype(np.uint8)
LEVELS, SIZES = [VOXELS, VOXELS[:, ::2, ::2]], [(4, 8, 30), (8, 16, 30)]


def edit_info(path, change):
    info = json.loads((path / "info").read_text())
    change(info)
    (path / "info").write_text(json.dumps(info))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16"])
@pytest.mark.parametrize("packed", [False, True])
def test_voxels_are_as_they_were_written_whatever_their_offset(tmp_path, dtype, packed):
    levels = [level.astype(dtype) for level in LEVELS]
    path = write_precomputed(tmp_path / "fly", levels, SIZES, offset=(100, 20, 3), packed=packed)
    volume = open_volume(path)
    assert (volume.name, volume.shape, volume.dtype) == ("fly", VOXELS.shape, dtype)
    assert (volume.voxel_size_nm, volume.levels) == ((30, 8, 4), 2)
    np.testing.assert_array_equal(volume.read(), levels[0])
    box = slice(2, 9, 3), slice(5, 17), slice(1, 27, 5)
    np.testing.assert_array_equal(volume.read(*box), levels[0][box])
    assert volume.read(slice(3, 3)).shape == (0, 20, 27)
    sent = pickle.dumps(volume)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent).read(slice(4, 5)), levels[0][4:5])  # noqa: S301 - written above


def test_levels_are_numbered_from_the_finest_and_named_by_their_sizes(tmp_path):
    path = write_precomputed(tmp_path / "fly.precomputed", LEVELS, SIZES)
    coarse = open_volume(path, view=View(level=1))
    assert (coarse.name, coarse.voxel_size_nm) == ("fly", (30, 16, 8))
    np.testing.assert_array_equal(coarse.read(), LEVELS[1])
    for size, level in ((7.9, 0), (16, 1), (1, 0), (100, 1)):
        assert open_volume(path, view=View(pixel_size_nm=size)).shape == LEVELS[level].shape
    with pytest.raises(InputError, match=r"a level 2, found 2 \(0 \(4_8_30\): 30 × 8 × 4 nm, 1 .*--level"):
        open_volume(path, view=View(level=2))


def test_one_of_several_channels_is_chosen(tmp_path):
    path = write_precomputed(tmp_path / "fly", [np.stack([VOXELS, 255 - VOXELS], axis=-1)], SIZES[:1])
    with pytest.raises(InputError, match="found 2 along axis c; choose one with --channel 0 to 1"):
        open_volume(path)
    np.testing.assert_array_equal(open_volume(path, view=View(channel=1)).read(), 255 - VOXELS)
    with pytest.raises(InputError, match="a channel 2, found 2"):
        open_volume(path, view=View(channel=2))


def test_a_chunk_that_is_not_there_is_0(tmp_path):
    path = write_precomputed(tmp_path / "fly", [np.maximum(VOXELS, 1)], SIZES[:1])
    (path / "4_8_30" / "0-16_0-8_0-4").unlink()
    found = open_volume(path).read()
    assert not found[:4, :8, :16].any() and found[4:].all() and found[:, 8:].all()


def test_damaged_chunks_are_errors(tmp_path):
    path = write_precomputed(tmp_path / "fly", LEVELS, SIZES)
    packed = write_precomputed(tmp_path / "packed", LEVELS, SIZES, packed=True)
    (path / "4_8_30" / "0-16_0-8_0-4").write_bytes(b"<html>")
    (packed / "4_8_30" / "0-16_0-8_0-4.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    for volume in (open_volume(path), open_volume(packed)):
        with pytest.raises(InputError):
            volume.read()


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.update(scales=[]),
        lambda info: info.update(scales=3),
        lambda info: info.update(data_type="object"),
        lambda info: info.update(num_channels="many"),
        lambda info: info["scales"][0].update(key="../other"),
        lambda info: info["scales"][0].update(key="https://elsewhere/x"),
        lambda info: info["scales"][0].update(size=[10**7] * 3),
        lambda info: info["scales"][0].update(size=[0, 1, 1]),
        lambda info: info["scales"][0].update(encoding="unheard of"),
        lambda info: info["scales"][0].pop("key"),
    ],
)
def test_an_info_that_makes_no_sense_or_leads_elsewhere_is_refused(tmp_path, change):
    write_precomputed(tmp_path / "other", LEVELS, SIZES)
    path = write_precomputed(tmp_path / "fly", LEVELS, SIZES)
    edit_info(path, change)
    with pytest.raises(InputError):
        open_volume(path)


def test_a_corpus_holds_precomputed_directories_and_a_file_info_alone_makes_none(tmp_path):
    path = write_precomputed(tmp_path / "fly", LEVELS, SIZES)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "info").write_text("about these data")
    corpus = find_volumes(tmp_path, Report("test"))
    assert [source.path for source in corpus.sources] == [path]


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "compressed_segmentation"])
@pytest.mark.parametrize("compress", [False, True])
def test_what_cloud_volume_writes_reads_as_it_reads_it(tmp_path, encoding, compress):
    cloudvolume = pytest.importorskip("cloudvolume")
    kind, dtype = ("segmentation", "uint32") if encoding == "compressed_segmentation" else ("image", "uint8")
    info = cloudvolume.CloudVolume.create_new_info(
        num_channels=1,
        layer_type=kind,
        data_type=dtype,
        encoding=encoding,
        resolution=(4, 8, 30),
        voxel_offset=(7, 5, 3),
        chunk_size=(16, 8, 4),
        volume_size=VOXELS.shape[::-1],
    )
    written = cloudvolume.CloudVolume(f"file://{tmp_path}/fly", info=info, compress=compress, progress=False)
    written.commit_info()
    written[:] = VOXELS.T.astype(dtype)[..., None]
    expected = np.asarray(written[:])[..., 0].T
    volume = open_volume(tmp_path / "fly")
    assert volume.voxel_size_nm == (30, 8, 4)
    np.testing.assert_array_equal(volume.read(), expected)
    np.testing.assert_array_equal(volume.read(slice(1, 6), slice(9, 10), slice(3, 20)), expected[1:6, 9:10, 3:20])


def test_sharded_volumes_read_as_cloud_volume_reads_them(tmp_path):
    cloudvolume = pytest.importorskip("cloudvolume")
    write_sharded(tmp_path / "fly")
    expected = np.asarray(cloudvolume.CloudVolume(f"file://{tmp_path}/fly", progress=False)[:])[..., 0].T
    np.testing.assert_array_equal(expected, VOXELS)
    np.testing.assert_array_equal(open_volume(tmp_path / "fly").read(), expected)


def write_sharded(path):
    import tensorstore

    sharding = {"@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": 1, "hash": "identity"}
    sharding |= {"minishard_bits": 1, "shard_bits": 2, "minishard_index_encoding": "gzip", "data_encoding": "gzip"}
    scale = {"key": "4_8_30", "size": VOXELS.shape[::-1], "resolution": (4, 8, 30), "chunk_size": (8, 8, 8)}
    specification = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "multiscale_metadata": {"type": "image", "data_type": "uint8", "num_channels": 1},
        "scale_metadata": {**scale, "encoding": "raw", "sharding": sharding},
        "create": True,
    }
    tensorstore.open(specification).result()[..., 0].write(VOXELS.T).result()
    return path
