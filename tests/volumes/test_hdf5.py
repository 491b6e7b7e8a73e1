"""HDF5 files in the layouts that are known, as h5py reads them, and what is refused of them."""

from __future__ import annotations

import json
import os
import pickle

import h5py
import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.running.report import Report
from emcurate.volumes.corpus import list_volumes
from emcurate.volumes.views import View
from emcurate.volumes.volume import open_volume

VOXELS = np.random.default_rng(6).integers(0, 256, (11, 20, 27)).astype(np.uint8)


def write(path, datasets, attributes=None, **options):
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file.create_dataset(name, data=array, **options).attrs.update(attributes or {})
    return path


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">i2", "<f4", ">f8"])
@pytest.mark.parametrize("options", [{}, {"chunks": (4, 8, 8), "compression": "gzip", "shuffle": True}])
def test_the_only_3d_dataset_is_read_as_h5py_reads_it(tmp_path, dtype, options):
    others = {"notes/line": np.arange(5), "notes/image": VOXELS[0]}
    path = write(tmp_path / "a.h5", others)
    with h5py.File(path, "a") as file:
        file.create_dataset("deep/er/em", data=VOXELS.astype(dtype), **options)
    volume = open_volume(path)
    with h5py.File(path) as file:
        expected = file["deep/er/em"][:]
    assert (volume.name, volume.shape, volume.voxel_size_nm) == ("a", VOXELS.shape, None)
    assert volume.dtype == np.dtype(dtype).newbyteorder("=") == volume.read().dtype
    np.testing.assert_array_equal(volume.read(), expected)
    np.testing.assert_array_equal(
        volume.read(slice(3, 9, 2), slice(5, 17), slice(1, 27, 5)), expected[3:9:2, 5:17, 1::5]
    )
    np.testing.assert_array_equal(list(volume.voxels.iter_planes(4, 7)), expected[4:7])
    np.testing.assert_array_equal(volume.read(slice(3, 3)), expected[3:3])


def test_of_a_cremi_file_the_raw_data_are_read_with_their_resolution(tmp_path):
    path = write(tmp_path / "a.hdf5", {"volumes/raw": VOXELS}, {"resolution": [40.0, 4.0, 4.0]}, chunks=(4, 8, 8))
    with h5py.File(path, "a") as file:
        file["volumes/labels/neuron_ids"] = VOXELS.astype(np.uint64)
    volume = open_volume(path)
    assert volume.voxel_size_nm == (40.0, 4.0, 4.0)
    np.testing.assert_array_equal(volume.read(), VOXELS)


def test_element_sizes_are_micrometres(tmp_path):
    path = write(tmp_path / "a.h5", {"data": VOXELS}, {"element_size_um": np.array([0.04, 0.008, 0.004], "f4")})
    assert open_volume(path).voxel_size_nm == pytest.approx((40, 8, 4))


@pytest.mark.parametrize("sizes", [[0, 4, 4], [4.0, 4.0], "4", [[1, 2, 3]], [np.nan, 1, 1], [-1, 1, 1]])
def test_a_resolution_that_makes_no_sense_is_unknown(tmp_path, sizes):
    assert open_volume(write(tmp_path / "a.h5", {"raw": VOXELS}, {"resolution": sizes})).voxel_size_nm is None


def write_imaris(path, channels=1):
    """As the format's description has it: text letter by letter, voxels padded to whole chunks."""
    padded = np.zeros((16, 24, 32), np.uint8)
    padded[tuple(map(slice, VOXELS.shape))] = VOXELS
    depth, height, width = VOXELS.shape
    texts = {"X": width, "Y": height, "Z": depth, "Unit": "um", "ExtMin0": 1.0, "ExtMin1": 2.0, "ExtMin2": 3.0}
    texts |= {"ExtMax0": 1 + width * 0.004, "ExtMax1": 2 + height * 0.008, "ExtMax2": 3 + depth * 0.05}
    with h5py.File(path, "w") as file:
        for level, step in ((0, 1), (1, 2)):
            for channel in range(channels):
                name = f"DataSet/ResolutionLevel {level}/TimePoint 0/Channel {channel}/Data"
                file.create_dataset(name, data=padded[::step, ::step, ::step], chunks=(8, 8, 8))
        attributes = file.create_group("DataSetInfo/Image").attrs
        for name, value in texts.items():
            attributes[name] = np.array([letter.encode() for letter in str(value)], "S1")
    return path


def test_imaris_voxels_come_without_padding_and_with_their_size(tmp_path):
    volume = open_volume(write_imaris(tmp_path / "a.ims"))
    assert volume.voxel_size_nm == pytest.approx((50, 8, 4))
    np.testing.assert_array_equal(volume.read(), VOXELS)


def test_several_imaris_channels_are_refused(tmp_path):
    path = write_imaris(tmp_path / "a.ims", channels=2)
    with pytest.raises(InputError, match=r"found 2 along axis Channel; choose one with --channel 0 to 1"):
        open_volume(path)
    np.testing.assert_array_equal(open_volume(path, view=View(channel=1)).read(), VOXELS)


def test_of_a_bigdataviewer_file_the_full_resolution_is_read_and_several_views_are_listed(tmp_path):
    levels = {f"t00000/s00/{level}/cells": VOXELS[:: level + 1] for level in range(3)}
    tables = {"s00/resolutions": np.ones((3, 3)), "s00/subdivisions": np.ones((3, 3), np.int32)}
    path = write(tmp_path / "a.h5", {**levels, **tables})
    np.testing.assert_array_equal(open_volume(path).read(), VOXELS)
    with h5py.File(path, "a") as file:
        file["t00001/s00/0/cells"] = VOXELS
        file["t00001/s00/1/cells"] = VOXELS[:3]
    with pytest.raises(InputError, match=r"found 2 along axis timepoint; choose one with --time 0 to 1"):
        open_volume(path)
    np.testing.assert_array_equal(open_volume(path, view=View(time=1, level=1)).read(), VOXELS[:3])


def test_several_datasets_are_listed_with_their_shapes_and_one_can_be_named(tmp_path):
    path = write(tmp_path / "a.h5", {"em": VOXELS, "mask/of it": VOXELS[:5] // 2})
    with pytest.raises(InputError, match=r"2: /em \(11 × 20 × 27\), /mask/of it \(5 × 20 × 27\).*a\.h5::/em"):
        open_volume(path)
    volume = open_volume(tmp_path / "a.h5::/mask/of it")
    assert volume.name == "a"
    np.testing.assert_array_equal(volume.read(), VOXELS[:5] // 2)
    for name in ("mask", "nothing", "em/em", "../em"):
        with pytest.raises(InputError):
            open_volume(tmp_path / f"a.h5::/{name}")


def test_two_names_of_one_dataset_and_groups_that_lead_round_are_looked_at_once(tmp_path):
    path = write(tmp_path / "a.h5", {"group/em": VOXELS})
    with h5py.File(path, "a") as file:
        file["again"] = file["group/em"]
        file["group/round"] = file["group"]
        file["soft"] = h5py.SoftLink("/group/em")
    np.testing.assert_array_equal(open_volume(path).read(), VOXELS)


def test_nothing_outside_of_the_file_is_read(tmp_path):
    write(tmp_path / "secret.h5", {"volumes/raw": VOXELS})
    (tmp_path / "secret.bin").write_bytes(VOXELS.tobytes())
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["volumes"] = h5py.ExternalLink("secret.h5", "/volumes")
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("raw", VOXELS.shape, np.uint8, external=[(str(tmp_path / "secret.bin"), 0, VOXELS.size)])
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(VOXELS.shape, np.uint8)
        layout[:] = h5py.VirtualSource("secret.h5", "volumes/raw", VOXELS.shape)
        file.create_virtual_dataset("raw", layout)
    for name in ("link", "external", "virtual"):
        with pytest.raises(InputError, match="other files"):
            open_volume(tmp_path / f"{name}.h5")
    with pytest.raises(InputError, match="a link"):
        open_volume(tmp_path / "link.h5::/volumes/raw")


def test_chunks_never_written_hold_the_fill_value_but_one_in_a_thousand_must_be_there(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        sparse = file.create_dataset("raw", (16, 16, 16), np.uint8, chunks=(4, 4, 4), fillvalue=9)
        sparse[:4, :4, :4] = 1
        file.create_dataset("empty", (16, 16, 16), np.uint8, chunks=(4, 4, 4))
        file.create_dataset("huge", (10**6,) * 3, np.uint8, chunks=(4, 4, 4))[:4, :4, :4] = 1
    found = open_volume(tmp_path / "a.h5::/raw").read()
    assert (found[:4, :4, :4] == 1).all() and found.sum() == 64 + 9 * (16**3 - 64)
    for name in ("empty", "huge"):
        with pytest.raises(InputError, match="at least one in 1,000"):
            open_volume(tmp_path / f"a.h5::/{name}")


@pytest.mark.parametrize("keep", [0, 7, 100, 3000])
def test_a_file_that_is_cut_off_is_an_error(tmp_path, keep):
    path = write(tmp_path / "a.h5", {"raw": VOXELS})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError):
        open_volume(path)


def test_a_damaged_chunk_is_an_error(tmp_path):
    path = write(tmp_path / "a.h5", {"raw": VOXELS}, chunks=(4, 8, 8), compression="gzip", fletcher32=True)
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["raw"].id.get_chunk_info(3)
    data[chunk.byte_offset + chunk.size // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError):
        open_volume(path).read()


def test_files_without_a_volume_are_refused(tmp_path):
    for name, array in (("two", VOXELS[0]), ("four", VOXELS[None]), ("text", np.array([[[b"a"]]]))):
        with pytest.raises(InputError, match="a 3D dataset of numbers, found none"):
            open_volume(write(tmp_path / f"{name}.h5", {"data": array}))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(InputError, match="a pipe"):
        open_volume(tmp_path / "a.h5")


def test_a_handle_holds_no_file_open(tmp_path):
    path = write(tmp_path / "a.h5", {"raw": VOXELS})
    volume = open_volume(path)
    volume.read()
    sent = pickle.dumps(volume)
    assert len(sent) < 2000
    with h5py.File(path, "r+") as file:  # refused while it is open for reading
        file["raw"][0] = 0
    again = pickle.loads(sent)  # noqa: S301 - written above
    assert (again.read()[0] == 0).all()


def test_a_corpus_holds_hdf5_files(tmp_path):
    paths = [write(tmp_path / name, {"raw": VOXELS}) for name in ("a.h5", "b.HDF5", "c.ims")]
    assert list_volumes(tmp_path, Report("test")) == paths


def axistags(names):
    return json.dumps({"axes": [{"key": name, "typeFlags": 1, "resolution": 0, "description": ""} for name in names]})


@pytest.mark.parametrize("names", ["zyxc", "tzyxc", "xyz", "cxzyt"])
def test_of_ilastiks_arrays_the_axes_are_as_they_are_named(tmp_path, names):
    sides = {"z": 11, "y": 20, "x": 27, "c": 2, "t": 3}
    array = np.random.default_rng(1).integers(0, 256, [sides[name] for name in names]).astype(np.uint8)
    path = write(tmp_path / "a.h5", {"data": array}, {"axistags": axistags(names)})
    view = View(channel=1 if "c" in names else None, time=2 if "t" in names else None)
    index = tuple({"c": 1, "t": 2}.get(name, slice(None)) for name in names)
    expected = array[index].transpose([[n for n in names if n in "zyx"].index(name) for name in "zyx"])
    volume = open_volume(path, view=view)
    np.testing.assert_array_equal(volume.read(), expected)
    np.testing.assert_array_equal(
        volume.read(slice(1, 9, 3), slice(4, 5), slice(0, 20, 2)), expected[1:9:3, 4:5, 0:20:2]
    )
    if view != View():
        with pytest.raises(InputError, match="choose one with --"):
            open_volume(path)


@pytest.mark.parametrize("tags", ["{", "[]", '{"axes": 3}', axistags("yxc"), axistags("zy"), "[" * 100_000])
def test_names_of_axes_that_make_no_sense_are_passed_over(tmp_path, tags):
    path = write(tmp_path / "a.h5", {"data": VOXELS}, {"axistags": tags})
    if tags == axistags("yxc"):
        with pytest.raises(InputError, match="a 3D dataset of numbers"):
            open_volume(path)
    else:
        np.testing.assert_array_equal(open_volume(path).read(), VOXELS)


def write_bigdataviewer_xml(path, unit="um", size="0.004 0.008 0.03"):
    voxel = f"<voxelSize><unit>{unit}</unit><size>{size}</size></voxelSize>"
    setups = "".join(f"<ViewSetup><id>{number}</id><size>27 20 11</size>{voxel}</ViewSetup>" for number in (1, 0))
    path.write_text(
        f"<SpimData><SequenceDescription><ViewSetups>{setups}</ViewSetups></SequenceDescription></SpimData>"
    )


def test_bigdataviewers_voxel_sizes_come_from_the_xml_beside(tmp_path):
    levels = {f"t00000/s00/{level}/cells": VOXELS[:: level + 1] for level in range(2)}
    path = write(tmp_path / "a.h5", {**levels, "s00/resolutions": np.array([[1.0, 1, 1], [1, 1, 2]])})
    assert open_volume(path).voxel_size_nm is None
    write_bigdataviewer_xml(tmp_path / "a.xml")
    assert open_volume(path).voxel_size_nm == pytest.approx((30, 8, 4))
    assert open_volume(path, view=View(level=1)).voxel_size_nm == pytest.approx((60, 8, 4))
    assert open_volume(path, view=View(pixel_size_nm=60)).shape == VOXELS[::2].shape
    declaring = (tmp_path / "a.xml").read_text().replace("<SpimData>", "<!DOCTYPE x [<!ENTITY e 'x'>]><SpimData>")
    for text in ("<", declaring, "<x/>", ""):
        (tmp_path / "a.xml").write_text(text)
        assert open_volume(path).voxel_size_nm is None


def test_levels_of_imaris_have_their_own_sides_and_sizes(tmp_path):
    path = write_imaris(tmp_path / "a.ims")
    assert open_volume(path).levels == 2
    with h5py.File(path, "a") as file:
        attributes = file["DataSet/ResolutionLevel 1/TimePoint 0/Channel 0"].attrs
        for name, side in zip("ZYX", VOXELS[::2, ::2, ::2].shape, strict=True):
            attributes[f"ImageSize{name}"] = np.array([letter.encode() for letter in str(side)], "S1")
    volume = open_volume(path, view=View(level=1))
    np.testing.assert_array_equal(volume.read(), VOXELS[::2, ::2, ::2])
    assert volume.voxel_size_nm == pytest.approx((50 * 11 / 6, 16, 4 * 27 / 14))


def test_a_sparse_dataset_whose_chunks_are_spread_over_it_is_believed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        spread = file.create_dataset("spread", (4 * 64,) * 3, np.uint8, chunks=(4, 4, 4))
        corner = file.create_dataset("corner", (4 * 64,) * 3, np.uint8, chunks=(4, 4, 4))
        for at in range(0, 256, 16):
            spread[at, at, at] = 1
            corner[0, 0, at // 4 * 4] = 1
    assert open_volume(tmp_path / "a.h5::/spread").read().sum() == 16
    with pytest.raises(InputError, match="at least one in 1,000"):
        open_volume(tmp_path / "a.h5::/corner")
