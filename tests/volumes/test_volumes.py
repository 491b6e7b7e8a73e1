"""The volume reader: every format against an independent reader, box by box; names, limits and scratch copies."""

from __future__ import annotations

import bz2
import gzip
import os
import pickle
import tracemalloc
import warnings
from pathlib import Path

import mrcfile
import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from emcurate.errors import DataWarning, InputError
from emcurate.images.pixels import Rescale, convert, to_uint8
from emcurate.partials import partial_path
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.volumes import scratch
from emcurate.volumes import volume as volumes
from emcurate.volumes.corpus import fingerprint_volume, list_volumes, refuse_bad_names
from emcurate.volumes.formats import tiff
from emcurate.volumes.limits import find_limits
from emcurate.volumes.scratch import all_unpacked, unpacked
from emcurate.volumes.volume import dataset_name, is_anisotropic, open_volume

SHAPE = (6, 11, 17)
RNG = np.random.default_rng(7)
BYTES = RNG.integers(0, 256, SHAPE).astype(np.uint8)
SHORTS = RNG.integers(-3000, 3000, SHAPE).astype(np.int16)


def write_tiff(path, array, **options):
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})


def write_pages(path, array):
    with tifffile.TiffWriter(path) as writer:
        for plane in array:
            writer.write(plane, contiguous=False, metadata=None, photometric="minisblack")


def write_mrc(path, array, packed=None):
    plain = path.parent / "plain.mrc.tmp"
    with mrcfile.new(plain, overwrite=True) as file:
        file.set_data(array)
    data = plain.read_bytes()
    plain.unlink()
    path.write_bytes({"gz": gzip.compress, "bz2": bz2.compress}[packed](data) if packed else data)


def write_slices(path, array):
    path.mkdir()
    for index, plane in enumerate(array):
        Image.fromarray(plane).save(path / f"s{index + 3}.png")


def write_itk(path, array, compress=False):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), compress)


def write_nifti(path, array):
    nibabel.Nifti1Image(array.T, np.eye(4)).to_filename(path)


def read_tiff(path):
    return tifffile.imread(path)


def read_mrc(path):
    with mrcfile.open(path) as file:
        return np.array(file.data)


def read_itk(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def read_nrrd(path):
    return nrrd.read(str(path))[0].T


def read_nifti(path):
    return np.asarray(nibabel.load(path).dataobj).T


def read_slices(path):
    return np.stack([np.asarray(Image.open(path / f"s{index + 3}.png")) for index in range(SHAPE[0])])


FORMATS = {
    "plain.tif": (BYTES, write_tiff, read_tiff),
    "short.tiff": (SHORTS, write_tiff, read_tiff),
    "big-endian.tif": (SHORTS, lambda p, a: write_tiff(p, a, byteorder=">"), read_tiff),
    "imagej.tif": (BYTES, lambda p, a: write_tiff(p, a, imagej=True, metadata={"axes": "ZYX"}), read_tiff),
    "imagej-film.tif": (BYTES, lambda p, a: write_tiff(p, a, imagej=True, metadata={"axes": "TYX"}), read_tiff),
    "ome.ome.tif": (SHORTS, lambda p, a: write_tiff(p, a, metadata={"axes": "ZYX"}), read_tiff),
    "bigtiff.tif": (BYTES, lambda p, a: write_tiff(p, a, bigtiff=True), read_tiff),
    "pages.tif": (SHORTS, write_pages, read_tiff),
    "lzw.tif": (SHORTS, lambda p, a: write_tiff(p, a, compression="lzw", predictor=True), read_tiff),
    "deflate.tif": (BYTES, lambda p, a: write_tiff(p, a, compression="zlib"), read_tiff),
    "zstd.tif": (BYTES, lambda p, a: write_tiff(p, a, compression="zstd"), read_tiff),
    "jpeg.tif": (BYTES, lambda p, a: write_tiff(p, a, compression="jpeg"), read_tiff),
    "tiled.tif": (BYTES, lambda p, a: write_tiff(p, a, tile=(16, 16)), read_tiff),
    "one-directory.tif": (BYTES, lambda p, a: write_tiff(p, a, imagej=True, truncate=True), read_tiff),
    "float.mrc": (SHORTS.astype(np.float32) / 7, write_mrc, read_mrc),
    "short.rec": (SHORTS, write_mrc, read_mrc),
    "ushort.st": (BYTES.astype(np.uint16) * 200, write_mrc, read_mrc),
    "half.map": (BYTES.astype(np.float16), write_mrc, read_mrc),
    "signed.mrcs": (BYTES.astype(np.int8), write_mrc, read_mrc),
    "packed.mrc.gz": (SHORTS, lambda p, a: write_mrc(p, a, "gz"), read_mrc),
    "packed.map.bz2": (SHORTS, lambda p, a: write_mrc(p, a, "bz2"), read_mrc),
    "itk.nrrd": (SHORTS, write_itk, read_itk),
    "itk-gzip.nrrd": (BYTES, lambda p, a: write_itk(p, a, True), read_itk),
    "detached.nhdr": (SHORTS, write_itk, read_itk),
    "detached-gzip.nhdr": (SHORTS, lambda p, a: write_itk(p, a, True), read_itk),
    "pynrrd.nrrd": (SHORTS.astype(float), lambda p, a: nrrd.write(str(p), a.T), read_nrrd),
    "bzip2.nrrd": (SHORTS, lambda p, a: nrrd.write(str(p), a.T, {"encoding": "bzip2"}), read_nrrd),
    "plain.nii": (SHORTS, write_nifti, read_nifti),
    "packed.nii.gz": (SHORTS.astype(np.float32), write_nifti, read_nifti),
    "big-endian.nii": (
        SHORTS,
        lambda p, a: nibabel.Nifti1Image(a.T, None, nibabel.Nifti1Header(endianness=">")).to_filename(p),
        read_nifti,
    ),
    "slices": (BYTES, write_slices, read_slices),
}
BOXES = [
    (slice(None), slice(None), slice(None)),
    (slice(2, 3), slice(None), slice(None)),
    (slice(None), slice(4, 5), slice(None)),
    (slice(None), slice(None), slice(16, 17)),
    (slice(1, 6, 2), slice(0, 11, 5), slice(3, 4)),
    (slice(0, 0), slice(None), slice(None)),
]


@pytest.fixture(params=FORMATS)
def written(request, tmp_path):
    array, write, read = FORMATS[request.param]
    path = tmp_path / request.param
    write(path, array)
    return path, array, read


def test_boxes_equal_those_of_an_independent_reader(written):
    path, array, read = written
    volume = pickle.loads(pickle.dumps(open_volume(path)))  # noqa: S301 - as it travels to a worker
    expected = read(path)
    assert volume.shape == SHAPE == expected.shape
    assert volume.dtype == expected.dtype.newbyteorder("=")
    for box in BOXES:
        found = volume.read(*box)
        assert found.dtype == volume.dtype
        np.testing.assert_array_equal(found, expected[box])
    if "jpeg" not in path.name:
        np.testing.assert_array_equal(volume.read(), array)


def test_unpacked_gives_random_access_and_leaves_nothing_behind(written, tmp_path):
    path, _, read = written
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with unpacked(open_volume(path), scratch) as volume:
        assert volume.random_access
        assert volume.path == path
        for box in BOXES:
            np.testing.assert_array_equal(volume.read(*box), read(path)[box])
    assert not list(scratch.iterdir())


def test_opening_a_volume_does_not_read_its_voxels(tmp_path):
    path = tmp_path / "huge.mrc"
    write_mrc(path, BYTES.astype(np.int16))
    header = bytearray(path.read_bytes()[:1024])
    sides = (3000, 4000, 5000)
    header[:12] = np.array(sides[::-1], "<i4").tobytes()
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(1024 + 2 * 3000 * 4000 * 5000)  # sparse: 120 GB of zeros that take no room
    volume = open_volume(path)
    assert volume.shape == sides
    assert volume.read(slice(2999, 3000), slice(0, 2), slice(0, 2)).tolist() == [[[0, 0], [0, 0]]]


def test_list_volumes_takes_files_and_slice_directories_in_natural_order(tmp_path):
    for name in ("v10.mrc", "v2.TIF", "v1.nii.gz", "note.txt", "picture.png", ".hidden.mrc"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("v3", "no slices", "output"):
        (tmp_path / name).mkdir()
        Image.fromarray(BYTES[0]).save(tmp_path / name / ("0.png" if name != "no slices" else ".0.png"))
    listed = [path.name for path in list_volumes(tmp_path, Report("test"), exclude=[tmp_path / "output"])]
    assert listed == ["v1.nii.gz", "v2.TIF", "v3", "v10.mrc"]


def test_slices_are_found_one_directory_deeper_and_whatever_else_is_there_is_named(tmp_path):
    report = Report("test")
    for name in ("fly/slices", "mouse/Raw", "worm/data", "worm/slices", "other/deep", "plain", "plain/more"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(BYTES[0]).save(tmp_path / name / "0.png")
    for name in ("fly/a.mrc", "fly/read me.md", "b.czi", "c.png", "plain/d.tif.txt", "e.h5.xml", "f.mp4", "g.raw"):
        (tmp_path / name).write_bytes(b"x")
    nrrd.write(str(tmp_path / "v.nhdr"), BYTES, detached_header=True)
    paths = list_volumes(tmp_path, report)
    found = {path.relative_to(tmp_path).as_posix(): dataset_name(path) for path in paths}
    assert found == {
        "fly/slices": "fly",
        "mouse/Raw": "mouse",
        "plain": "plain",
        "v.nhdr": "v",
        "worm/data": "worm",
        "worm/slices": "worm",
    }
    assert not report.failures
    told = {item.path.relative_to(tmp_path).as_posix(): item for item in report.left_out}
    # The data file of an .nhdr is a part of it.
    assert set(told) == {"b.czi", "c.png", "e.h5.xml", "f.mp4", "fly/a.mrc", "fly/read me.md", "g.raw"} | {
        *("other/deep/0.png", "plain/d.tif.txt", "plain/more/0.png")
    }
    assert told["fly/a.mrc"].advice == f"name {tmp_path / 'fly'} itself"
    assert told["other/deep/0.png"].advice == f"name {tmp_path / 'other'} itself"
    assert "vid2stack" in told["f.mp4"].advice and "cleanup2d" in told["c.png"].advice
    # What bears one name twice is refused, and both are named.
    good = refuse_bad_names(paths, report)
    assert [path for path in paths if path not in good] == [tmp_path / "worm" / "data", tmp_path / "worm" / "slices"]
    assert len(report.failures) == 2
    # What its advice says is read there.
    (tmp_path / "other" / "deep" / "0.png").rename(tmp_path / "other" / "deep" / "1.png")
    assert list_volumes(tmp_path / "other", Report("test")) == [tmp_path / "other" / "deep"]


def test_volumes_of_one_name_are_refused_in_one_line_or_one_is_preferred(tmp_path):
    for name in ("a.tif", "a.mrc", "a.nii.gz", "b.mrc"):
        (tmp_path / name).write_bytes(b"x")
    report = Report("test")
    assert list_volumes(tmp_path, report) == [tmp_path / "b.mrc"]
    (failure,) = report.failures
    assert "a.mrc and a.nii.gz and a.tif" in failure and "--prefer mrc or --prefer nii.gz or --prefer tif" in failure
    for extension, name in (("nii.gz", "a.nii.gz"), ("tiff", "a.tif"), ("mrc", "a.mrc")):
        report = Report("test")
        assert list_volumes(tmp_path, report, prefer=extension) == [tmp_path / name, tmp_path / "b.mrc"]
        assert len(report.left_out) == 2 and not report.failures
    report = Report("test")
    assert list_volumes(tmp_path, report, prefer="rec") == [tmp_path / "b.mrc"] and report.failures


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_directory_of_slices_named_itself_is_explained(tmp_path, suffix):
    directory = tmp_path / "sample"
    directory.mkdir()
    for index in range(3):
        Image.fromarray(BYTES[index]).save(directory / f"{index}.{suffix}")
    with pytest.raises(InputError, match=f"3 2D images directly in it; name {tmp_path} instead"):
        list_volumes(directory, Report("test"))
    assert open_volume(directory).shape == (3, 11, 17)


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("a b.ö.tif", "a b.ö"),
        ("x.nii.gz", "x"),
        ("x.ome.tif", "x"),
        ("x.mrc.bz2", "x"),
        ("x.v2.nhdr", "x.v2"),
    ],
)
def test_dataset_name_of_files(name, dataset):
    assert dataset_name(Path("/d") / name) == dataset


def test_dataset_name_of_a_directory_keeps_its_dots(tmp_path):
    (tmp_path / "sample 1.5").mkdir()
    assert dataset_name(tmp_path / "sample 1.5") == "sample 1.5"


def test_bad_names_are_refused_with_their_rivals():
    report = Report("test")
    paths = [Path(name) for name in ("d/a.tif", "d/a.mrc", "d/b-LOC-0.tif", "d/c.tif")]
    assert refuse_bad_names(paths, report) == [Path("d/c.tif")]
    first, second, third = report.failures
    assert "d/a.tif" in first and "d/a.mrc of the same name" in first
    assert second.startswith("d/a.mrc") and "d/a.tif of the same name" in second
    assert "without '-LOC-'" in third


@pytest.mark.parametrize(
    ("one", "other", "but_for"),
    [
        ("d/Cell.mrc", "d/cell.tif", " but for upper and lower case"),
        ("d/caf\u00e9.mrc", "d/cafe\u0301.tif", " but for how Unicode composes their letters"),
        ("d/Caf\u00e9.mrc", "d/cafe\u0301.tif", " but for upper and lower case"),
        ("d/caf\u00e9.mrc", "d/caf\u00e9.tif", ""),
    ],
)
def test_what_tells_names_apart_that_some_disks_take_for_one_is_said(one, other, but_for):
    report = Report("test")
    assert not refuse_bad_names([Path(one), Path(other)], report)
    assert f"found {other} of the same name{but_for};" in report.failures[0]


def test_unknown_suffix_and_complex_voxels_are_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"x")
    with pytest.raises(InputError, match="another kind of file"):
        open_volume(tmp_path / "a.raw")
    tifffile.imwrite(tmp_path / "c.tif", BYTES.astype(np.complex64), photometric="minisblack")
    with pytest.raises(InputError, match="complex64 pixels"):
        open_volume(tmp_path / "c.tif")


@pytest.mark.parametrize("name", sorted({Path(name).suffix for name in FORMATS} - {""}))
def test_an_empty_file_of_any_format_is_named(tmp_path, name):
    path = tmp_path / f"empty{name}"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        open_volume(path)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("slices",)])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.97])
def test_a_truncated_file_is_never_read_as_a_whole_one(tmp_path, name, part):
    array, write, _ = FORMATS[name]
    path = tmp_path / name
    write(path, array)
    victim = max(tmp_path.iterdir(), key=lambda p: p.stat().st_size)  # the data file of a detached header
    data = victim.read_bytes()
    victim.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError) as caught:
        open_volume(path).read()
    assert str(tmp_path) in str(caught.value)


def test_random_bytes_are_refused_not_crashed_on(tmp_path):
    for suffix in (".tif", ".mrc", ".nrrd", ".nhdr", ".nii", ".nii.gz", ".mrc.gz"):
        path = tmp_path / f"noise{suffix}"
        path.write_bytes(RNG.bytes(5000))
        with pytest.raises(InputError):
            open_volume(path)


@pytest.mark.parametrize("name", [name for name in FORMATS if "slices" not in name])
def test_damaged_headers_are_refused_or_read_never_crashed_on(tmp_path, name):
    array, write, _ = FORMATS[name]
    path = tmp_path / name
    write(path, array)
    intact = path.read_bytes()
    rng = np.random.default_rng(len(name))
    for _ in range(25):
        data = bytearray(intact)
        for at in rng.integers(0, min(len(data), 400), 6):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            volume = open_volume(path)
            if volume.size < 10**7:
                assert volume.read().shape == volume.shape
        except InputError as error:
            assert error.advice


@pytest.mark.parametrize(
    ("voxel", "threshold", "anisotropic"),
    [
        (None, 0.2, False),
        ((10, 10, 10), 0.2, False),
        ((12, 10, 10), 0.2, False),  # a fifth is not more than a fifth
        ((12.1, 10, 10), 0.2, True),
        ((7.9, 10, 10), 0.2, True),
        ((8.1, 10, 10), 0.2, False),
        ((10, 99, 10), 0.2, False),
        ((11, 10, 10), 0.0, True),
    ],
)
def test_is_anisotropic(voxel, threshold, anisotropic):
    assert is_anisotropic(voxel, threshold) == anisotropic


def write_sized(path, z, x):
    """Write a volume of any format with voxels of z x x x x nm, by a library that is not ours."""
    if path.suffix == ".tif":
        metadata = {"axes": "ZYX", "unit": "nm", "spacing": z}
        write_tiff(path, BYTES, imagej=True, resolution=(1 / x, 1 / x), metadata=metadata)
    elif path.suffix == ".mrc":
        with mrcfile.new(path) as file:
            file.set_data(SHORTS)
            file.voxel_size = (10 * x, 10 * x, 10 * z)
    elif path.suffix == ".nrrd":
        directions = {"space directions": np.diag([x, x, z]), "space units": ["nm"] * 3, "space dimension": 3}
        nrrd.write(str(path), BYTES.T, directions)
    else:
        image = nibabel.Nifti1Image(BYTES.T, np.diag([x / 1000, x / 1000, z / 1000, 1]))
        image.header.set_xyzt_units("micron")
        image.to_filename(path)
    return open_volume(path)


@pytest.mark.parametrize("name", ["v.tif", "v.mrc", "v.nrrd", "v.nii"])
@pytest.mark.parametrize("x", [10, 5, 4, 8, 3.3, 7.7, 13, 0.3, 25])
def test_exactly_a_fifth_is_no_more_than_a_fifth_in_any_format(tmp_path, name, x):
    for times, anisotropic in ((1.2, False), (0.8, False), (1.201, True), (0.799, True)):
        volume = write_sized(tmp_path / f"{times}{name}", times * x, x)
        assert volume.voxel_size_nm == pytest.approx((times * x, x, x), rel=1e-5)
        assert is_anisotropic(volume.voxel_size_nm, 0.2) == anisotropic


@pytest.mark.parametrize("x", [10, 13, 40])
def test_exactly_a_fifth_in_a_file_of_imagejs(tmp_path, x):
    # ImageJ writes pixels per unit as a whole number of millionths.
    resolution = (int(1e6 / x), 10**6)
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 1.2 * x}
    write_tiff(tmp_path / "v.tif", BYTES, imagej=True, resolution=(resolution, resolution), metadata=metadata)
    assert not is_anisotropic(open_volume(tmp_path / "v.tif").voxel_size_nm, 0.2)


def test_volumes_of_one_slice_are_no_slices_of_one_volume(tmp_path):
    for name in ("a.tif", "b.tif"):
        tiff.write_stack(tmp_path / name, iter(BYTES[:1]), None, None)
    assert [path.name for path in list_volumes(tmp_path, Report("test"))] == ["a.tif", "b.tif"]


def test_override_of_the_voxel_size(tmp_path):
    path = tmp_path / "a.tif"
    write_tiff(path, BYTES, imagej=True, resolution=(100, 100), metadata={"axes": "ZYX", "unit": "um", "spacing": 0.01})
    assert open_volume(path).voxel_size_nm == pytest.approx((10, 10, 10))
    assert open_volume(path, (40, 4, 4)).voxel_size_nm == (40, 4, 4)


# Processes make no difference to a method, so one of them is enough for two.
@pytest.mark.parametrize(("method", "processes"), [("dtype", 1), ("minmax", 1), ("percentile", 1), ("percentile", 2)])
@pytest.mark.parametrize(
    "array",
    [
        SHORTS,
        np.abs(SHORTS),
        np.where(BYTES == 7, np.nan, SHORTS).astype(np.float32),
        np.full(SHAPE, 3.5, np.float32),
        BYTES,
    ],
    ids=["short", "positive short", "float with nan", "constant", "byte"],
)
def test_limits_block_by_block_equal_those_of_the_whole(tmp_path, monkeypatch, method, array, processes):
    monkeypatch.setattr(volumes, "BLOCK_BYTES", 3 * 11 * 17)  # one to three planes a block
    path = tmp_path / "v.tif"
    write_tiff(path, array)
    volume, rescale, report = open_volume(path), Rescale(method), Report("test")
    limits = find_limits([volume], rescale, report, Workers(processes))[path]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        expected = to_uint8(array, rescale, path)
    np.testing.assert_array_equal(convert(volume.read(), limits), expected)
    assert report.warnings == [str(w.message) for w in caught]


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_limits_of_many_volumes_are_not_found_with_all_their_samples_in_memory(tmp_path, monkeypatch, dtype, blocks):
    array = RNG.integers(0, 60000, (16, 128, 256)).astype(dtype)
    for index in range(16):
        tifffile.imwrite(tmp_path / f"{index}.tif", array, photometric="minisblack")
    monkeypatch.setattr(volumes, "BLOCK_BYTES", array.nbytes // blocks)
    opened = [open_volume(tmp_path / f"{index}.tif") for index in range(16)]
    tracemalloc.start()
    limits = find_limits(opened, Rescale("percentile"), Report("test"), Workers(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    low, high = np.percentile(array.astype(np.float64), (0.1, 99.9)).tolist()
    assert list(limits) == [volume.path for volume in opened]
    assert {(found.low, found.high) for found in limits.values()} == {(low, high)}
    # One volume as stored, its sample, and the sample in float64: not 16 of them.
    assert peak < 8 * array.size * 4


def test_limits_and_warnings_come_in_the_order_of_the_volumes(tmp_path):
    paths = [tmp_path / f"{index}.tif" for index in range(4)]
    for index, path in enumerate(paths):
        write_tiff(path, np.zeros(SHAPE, np.uint8) if index == 1 else np.abs(SHORTS) % (1 + index * 10))
    report = Report("test")
    limits = find_limits([open_volume(path) for path in paths], Rescale(), report, Workers(2))
    assert list(limits) == paths
    assert [message.partition(":")[0] for message in report.warnings] == [str(paths[2]), str(paths[3])]


def test_a_volume_that_cannot_be_read_is_left_out_of_limits_and_copies(tmp_path):
    good, bad = tmp_path / "good.nii.gz", tmp_path / "bad.nii.gz"
    write_nifti(good, SHORTS)
    data = good.read_bytes()
    bad.write_bytes(data[: len(data) * 2 // 3])
    opened, report = [open_volume(bad), open_volume(good)], Report("test")
    assert list(find_limits(opened, Rescale(), report, Workers(1))) == [good]
    assert len(report.failures) == 1 and str(bad) in report.failures[0]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with all_unpacked(opened, scratch, Report("test"), Workers(1)) as ready:
        assert [volume.path for volume in ready] == [good]
        np.testing.assert_array_equal(ready[0].read(), SHORTS)
    assert not list(scratch.iterdir())


def test_scratch_copies_lie_under_hidden_names(tmp_path):
    path = tmp_path / "v.tif"
    write_tiff(path, BYTES, compression="zlib")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with unpacked(open_volume(path), scratch):
        (name,) = os.listdir(scratch)
        assert name.startswith(".emcurate-") and name.endswith(".partial")
        assert partial_path(scratch).name.split("-")[1] == name.split("-")[1]


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    path = tmp_path / "v.tif"
    write_tiff(path, BYTES, compression="zlib")
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with (
        pytest.raises(InputError, match=r"v.tif: expected room for 1,122 bytes in .*, to unpack it, found 10 bytes"),
        unpacked(open_volume(path), tmp_path),
    ):
        pass


def test_fingerprint_of_a_detached_header_covers_its_data(tmp_path):
    path = tmp_path / "v.nhdr"
    write_itk(path, BYTES)
    before = fingerprint_volume(path)
    with open(tmp_path / "v.raw", "ab") as file:
        file.write(b"more")
    assert fingerprint_volume(path) != before


def test_five_packings_of_real_slices_give_the_same_voxels(real_data, tmp_path):
    slices = open_volume(real_data / "flyem_medulla_slices")
    assert slices.shape == (250, 250, 250)
    assert slices.dtype == np.uint8
    array = slices.read()
    write_tiff(tmp_path / "v.tif", array, compression="zlib")
    write_mrc(tmp_path / "v.mrc", array.astype(np.uint16))
    write_itk(tmp_path / "v.nrrd", array)
    write_itk(tmp_path / "v.nii.gz", array)
    for name in ("v.tif", "v.mrc", "v.nrrd", "v.nii.gz"):
        np.testing.assert_array_equal(open_volume(tmp_path / name).read(), array)


@pytest.mark.parametrize("name", ["EMD-3001.map", "EMD-3197.map", "EMD-3197.map.bz2", "emd_3197.map.gz"])
def test_real_maps_are_read_as_mrcfile_reads_them(real_data, name):
    volume = open_volume(real_data / "mrc" / name)
    with mrcfile.open(real_data / "mrc" / name, permissive=True) as file:
        np.testing.assert_array_equal(volume.read(), file.data)
        expected = [file.voxel_size[axis].item() / 10 for axis in "zyx"]
    assert volume.voxel_size_nm == pytest.approx(expected, rel=1e-5)
