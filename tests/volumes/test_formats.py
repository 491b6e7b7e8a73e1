"""What each volume format has of its own: layouts, voxel sizes, sign rules, and what is refused."""

from __future__ import annotations

import mrcfile
import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from emcurate.errors import DataWarning, InputError
from emcurate.images.units import nanometres_per
from emcurate.running.report import Report
from emcurate.volumes.corpus import list_volumes
from emcurate.volumes.formats import mrc as mrc_format
from emcurate.volumes.formats import nrrd as nrrd_format
from emcurate.volumes.formats import tiff as tiff_format
from emcurate.volumes.formats.mrc import read_header
from emcurate.volumes.volume import open_volume

SHAPE = (5, 9, 12)
RNG = np.random.default_rng(11)
BYTES = RNG.integers(0, 256, SHAPE).astype(np.uint8)
COLOURS = RNG.integers(0, 256, (*SHAPE, 3)).astype(np.uint8)


def luminance(rgb):
    red, green, blue = np.moveaxis(rgb.astype(int), -1, 0)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


def tiff(path, array=BYTES, **options):
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    return path


# TIFF


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_tiff_colour_becomes_luminance(tmp_path, compression, planarconfig):
    array = COLOURS if planarconfig == "contig" else np.moveaxis(COLOURS, -1, 1)
    path = tiff(tmp_path / "c.tif", array, photometric="rgb", planarconfig=planarconfig, compression=compression)
    volume = open_volume(path)
    assert (volume.shape, volume.dtype) == (SHAPE, np.uint8)
    found = volume.read(slice(1, 4), slice(2, 9, 3), slice(5, 6))
    np.testing.assert_array_equal(found, luminance(COLOURS)[1:4, 2:9:3, 5:6])


def test_tiff_of_one_colour_in_three_channels_keeps_its_grey(tmp_path):
    path = tiff(tmp_path / "g.tif", np.stack([BYTES] * 3, axis=-1), photometric="rgb")
    np.testing.assert_array_equal(open_volume(path).read(), BYTES)


def test_tiff_white_is_zero_and_palettes_are_turned_to_grey(tmp_path):
    np.testing.assert_array_equal(open_volume(tiff(tmp_path / "w.tif", photometric="miniswhite")).read(), 255 - BYTES)
    ramp = (np.arange(256, dtype=np.uint16)[::-1] * 257)[None].repeat(3, axis=0)
    np.testing.assert_array_equal(
        open_volume(tiff(tmp_path / "p.tif", photometric="palette", colormap=ramp)).read(), 255 - BYTES
    )


def test_tiff_bilevel(tmp_path):
    path = tiff(tmp_path / "b.tif", BYTES > 99)
    volume = open_volume(path)
    assert volume.dtype == bool
    np.testing.assert_array_equal(volume.read(), BYTES > 99)


def test_tiff_uncompressed_stacks_are_mapped_and_compressed_ones_are_not(tmp_path):
    assert open_volume(tiff(tmp_path / "a.tif")).random_access
    assert open_volume(tiff(tmp_path / "b.tif", imagej=True)).random_access
    assert not open_volume(tiff(tmp_path / "c.tif", compression="lzw")).random_access


def test_tiff_thumbnails_and_pyramids_are_left_out(tmp_path):
    path = tmp_path / "p.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(BYTES, photometric="minisblack", subifds=1, metadata={"axes": "ZYX"})
        writer.write(BYTES[:, ::2, ::2], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(open_volume(path).read(), BYTES)


def test_tiff_of_one_page_is_a_2d_image(tmp_path):
    with pytest.raises(InputError, match=r"a single 2D image; move it to the 2D corpus and run raw/cleanup2d.py"):
        open_volume(tiff(tmp_path / "one.tif", BYTES[0]))


@pytest.mark.parametrize("voxel_size", [None, (40, 5, 4)])
@pytest.mark.parametrize("name", ["s.tif", "s.nrrd", "s.mrc"])
def test_a_stack_of_one_slice_that_we_wrote_is_a_volume(tmp_path, name, voxel_size):
    path = tmp_path / name
    if name == "s.tif":
        assert tiff_format.write_stack(path, iter(BYTES[:1]), voxel_size, None) == 1
        with tifffile.TiffFile(path) as file:
            assert file.is_imagej
    elif name == "s.nrrd":
        assert nrrd_format.write_stack(path, iter(BYTES[:1]), voxel_size) == 1
    else:
        assert mrc_format.write_stack(path, iter(BYTES[:1]), voxel_size, "a label") == 1
    volume = open_volume(path)
    assert volume.shape == (1, 9, 12)
    assert volume.voxel_size_nm == (voxel_size and pytest.approx(voxel_size))
    np.testing.assert_array_equal(volume.read(), BYTES[:1])
    itk = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(itk.reshape(9, 12), BYTES[0])


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"imagej": True, "metadata": {"unit": "nm"}}])
def test_a_2d_image_of_imagej_is_no_volume(tmp_path, options):
    with pytest.raises(InputError, match="a single 2D image"):
        open_volume(tiff(tmp_path / "one.tif", BYTES[0], **options))
    tiff(tmp_path / "one.tif", BYTES[0], description="ImageJ=1.53t\nunit=nm\n", metadata=None)
    with pytest.raises(InputError, match="a single 2D image"):
        open_volume(tmp_path / "one.tif")


@pytest.mark.parametrize("shape", [(1, 9, 12), (5, 1, 12), (5, 9, 1), (2, 1, 1)])
def test_tiff_with_a_side_of_1(tmp_path, shape):
    array = RNG.integers(0, 256, shape).astype(np.uint8)
    for options in ({}, {"compression": "zlib"}) if shape[2] > 1 else ({},):
        volume = open_volume(tiff(tmp_path / "s.tif", array, **options))
        np.testing.assert_array_equal(volume.read(), array)


def test_tiff_of_unequal_pages_and_of_channels_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "u.tif") as writer:
        writer.write(BYTES[0], photometric="minisblack")
        writer.write(BYTES[1, :4], photometric="minisblack")
    with pytest.raises(InputError, match=r"one stack of equal pages, found 2 \(9 × 12, 4 × 12"):
        open_volume(tmp_path / "u.tif")
    many = np.stack([BYTES, BYTES], axis=1)
    tiff(tmp_path / "c.tif", many, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(InputError, match=r"a stack of more axes \(Z 5, C 2, Y 9, X 12\); save one channel"):
        open_volume(tmp_path / "c.tif")


@pytest.mark.parametrize(
    ("unit", "nanometres"),
    [
        ("nm", 1),
        ("um", 1e3),
        ("µm", 1e3),
        ("micron", 1e3),
        ("microns", 1e3),
        ("\\u00B5m", 1e3),
        ("mm", 1e6),
        ("Å", 0.1),
        ("pixel", None),
        ("inch", 2.54e7),
        (None, None),
    ],
)
def test_imagej_voxel_size(tmp_path, unit, nanometres):
    path = tmp_path / "i.tif"
    lines = ["ImageJ=1.53t", "images=5", "slices=5", "spacing=0.04"] + ([f"unit={unit}"] if unit else [])
    with tifffile.TiffWriter(path) as writer:
        for plane in BYTES:
            writer.write(
                plane,
                contiguous=True,
                photometric="minisblack",
                description="\n".join(lines).encode("latin-1" if unit == "µm" else "utf-8", "replace"),
                resolution=(1 / 0.005, 1 / 0.008),
                resolutionunit="none",
                metadata=None,
            )
    size = open_volume(path).voxel_size_nm
    expected = (
        None if nanometres is None else pytest.approx((0.04 * nanometres, 0.008 * nanometres, 0.005 * nanometres))
    )
    assert size == expected


def test_imagej_voxel_size_as_tifffile_writes_it(tmp_path):
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 0.03}
    path = tiff(tmp_path / "i.tif", imagej=True, resolution=(200, 100), metadata=metadata)
    assert open_volume(path).voxel_size_nm == pytest.approx((30, 10, 5))
    tiff(path, imagej=True, resolution=(200, 100), metadata={**metadata, "spacing": 0.0})
    assert open_volume(path).voxel_size_nm is None


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"PhysicalSizeX": 0.004, "PhysicalSizeY": 0.005, "PhysicalSizeZ": 0.04}, (40, 5, 4)),  # micrometres
        (
            {
                "PhysicalSizeX": 4,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 50,
                "PhysicalSizeYUnit": "Å",
                "PhysicalSizeZ": 0.00004,
                "PhysicalSizeZUnit": "mm",
            },
            (40, 5, 4),
        ),
        ({"PhysicalSizeX": 4, "PhysicalSizeY": 4}, None),
        ({"PhysicalSizeX": 1, "PhysicalSizeY": 1, "PhysicalSizeZ": 1, "PhysicalSizeZUnit": "pixel"}, None),
    ],
)
def test_ome_voxel_size(tmp_path, metadata, expected):
    path = tiff(tmp_path / "o.ome.tif", metadata={"axes": "ZYX", **metadata})
    assert open_volume(path).voxel_size_nm == (expected and pytest.approx(expected))


def test_plain_tiff_has_no_voxel_size(tmp_path):
    assert open_volume(tiff(tmp_path / "a.tif", resolution=(300, 300), resolutionunit="inch")).voxel_size_nm is None


# MRC


def mrc(path, array=BYTES.astype(np.int8), *, stamp=None, low=None, high=None, **fields):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(array)
        for name, value in fields.items():
            file.header[name] = value
        if low is not None:
            file.header.dmin, file.header.dmax = low, high
    if stamp is not None:
        patch(path, 152, np.array([1146047817, stamp], "<i4"))
    return path


def patch(path, at, values):
    data = bytearray(path.read_bytes())
    data[at : at + values.nbytes] = values.tobytes()
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("stamp", "low", "high", "signed", "why"),
    [
        (1, 0, 200, True, "IMOD stamp with the signed bit set"),
        (0, -5, 5, False, "IMOD stamp with the signed bit clear"),
        (4, -5, 5, False, "IMOD stamp with the signed bit clear"),
        (5, 0, 0, True, "IMOD stamp with the signed bit set"),
        (None, -5, 127, True, "only signed bytes are negative"),
        (None, 0, 128, False, "only unsigned bytes reach 128"),
        (None, -100, 200, True, "the minimum is further out"),  # 100 > 72
        (None, -72, 200, False, "the maximum is further out"),  # 72 is not more than 72
        (None, 0, 127, False, "nothing speaks for signed bytes"),
        (None, 0, 0, False, "nothing speaks for signed bytes"),
        (None, float("nan"), float("nan"), False, "nothing speaks for signed bytes"),
    ],
)
def test_mrc_sign_rule(tmp_path, stamp, low, high, signed, why):
    path = mrc(tmp_path / "m.mrc", stamp=stamp, low=low, high=high)
    header = read_header(path)
    assert header.signed == signed
    assert why in header.reason
    volume = open_volume(path)
    assert volume.dtype == (np.int8 if signed else np.uint8)
    np.testing.assert_array_equal(volume.read(), BYTES.view(volume.dtype))


@pytest.mark.parametrize("dtype", ["i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_mrc_byte_orders(tmp_path, dtype, order):
    array = BYTES.astype(np.dtype(dtype).newbyteorder(order))
    path = mrc(tmp_path / "m.mrc", array)
    assert read_header(path).byte_order == order
    np.testing.assert_array_equal(open_volume(path).read(), array)
    patch(path, 208, np.zeros(8, np.uint8))  # neither "MAP " nor a machine stamp, as old programs left it
    np.testing.assert_array_equal(open_volume(path).read(), array)


def test_mrc_extended_header_is_skipped_and_voxel_size_read(tmp_path):
    path = tmp_path / "m.mrc"
    with mrcfile.new(path) as file:
        file.set_data(BYTES.astype(np.int16))
        file.set_extended_header(np.frombuffer(bytes(range(160)), "V160"))
        file.voxel_size = (4, 5, 40)
    volume = open_volume(path)
    assert volume.voxel_size_nm == pytest.approx((4.0, 0.5, 0.4))
    np.testing.assert_array_equal(volume.read(), BYTES)


def test_mrc_voxel_size_is_cell_over_intervals_axis_by_axis(tmp_path):
    path = mrc(tmp_path / "m.mrc", mx=10, my=20, mz=40, cella=(10, 40, 160), mapc=3, mapr=1, maps=2)
    assert open_volume(path).voxel_size_nm == pytest.approx((0.4, 0.2, 0.1))
    with mrcfile.open(path, permissive=True) as file:
        assert [file.voxel_size[axis].item() / 10 for axis in "zyx"] == pytest.approx([0.4, 0.2, 0.1])


@pytest.mark.parametrize("fields", [{"cella": (0, 0, 0)}, {"cella": (5, -5, 5)}, {"mz": 0}, {"cella": (1, np.nan, 1)}])
def test_mrc_voxel_size_unknown(tmp_path, fields):
    assert open_volume(mrc(tmp_path / "m.mrc", **{"cella": (9, 9, 9), **fields})).voxel_size_nm is None


@pytest.mark.parametrize(
    ("at", "values", "message"),
    [
        (12, np.array([4], "<i4"), r"mode 4 \(complex 32-bit floats\)"),
        (12, np.array([101], "<i4"), r"mode 101 \(4-bit integers\)"),
        (12, np.array([77], "<i4"), "mode 77"),
        (0, np.array([0], "<i4"), "sides of at least 1 voxel, found 5 × 9 × 0"),
        (0, np.array([10**6], "<i4"), "1,024 bytes|bytes, enough for|45,001,024"),
        (92, np.array([-5], "<i4"), "extended header"),
        (0, np.full(60, -1, "<i4"), "make no sense"),
    ],
)
def test_mrc_headers_that_are_refused(tmp_path, at, values, message):
    path = mrc(tmp_path / "m.mrc")
    patch(path, at, values)
    with pytest.raises(InputError, match=message):
        open_volume(path)


def test_mrc_truncated_names_both_sizes(tmp_path):
    path = mrc(tmp_path / "m.mrc", BYTES.astype(np.int16))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"expected 2,104 bytes, enough for 5 × 9 × 12 .* found 2,103 bytes"):
        open_volume(path)


def test_mrc_stack_of_volumes_is_refused(tmp_path):
    path = tmp_path / "m.mrc"
    with mrcfile.new(path) as file:
        file.set_data(np.zeros((2, 3, 4, 5), np.int16))
    with pytest.raises(InputError, match="a stack of 2 volumes of 3 sections"):
        open_volume(path)


def test_mrc_rgb_of_imod(tmp_path):
    path = mrc(tmp_path / "m.mrc")
    patch(path, 12, np.array([16], "<i4"))
    path.write_bytes(path.read_bytes()[:1024] + COLOURS.tobytes())
    np.testing.assert_array_equal(open_volume(path).read(), luminance(COLOURS))


# NRRD


def itk(path, array=BYTES, spacing=(1, 1, 1), compress=False):
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), compress)
    return path


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"space directions": np.diag([4, 5, 40.0]), "space units": ["nm"] * 3, "space dimension": 3}, (40, 5, 4)),
        (
            {
                "space directions": np.array([[0, 3, 4], [5, 0, 0], [0, 0, -40.0]]),
                "space units": ["nm"] * 3,
                "space dimension": 3,
            },
            (40, 5, 5),
        ),
        ({"space directions": np.diag([1, 1, 2.0]), "space units": ["um"] * 3, "space dimension": 3}, (2e3, 1e3, 1e3)),
        ({"spacings": [4, 5, 40], "units": ["nm"] * 3}, (40, 5, 4)),
        ({"spacings": [4, 5, 40]}, (40e6, 5e6, 4e6)),  # no unit: millimetres, as ITK means
        ({"spacings": [1, 1, 1]}, None),  # no unit, and steps that say nothing
        ({"spacings": [4, np.nan, 40], "units": ["nm"] * 3}, None),
        ({"spacings": [4, 0, 40], "units": ["nm"] * 3}, None),
        ({"spacings": [4, 5, 40], "units": ["pixel"] * 3}, None),
        ({}, None),
    ],
)
def test_nrrd_voxel_size(tmp_path, header, expected):
    path = tmp_path / "n.nrrd"
    nrrd.write(str(path), BYTES.T, header)
    assert open_volume(path).voxel_size_nm == (expected and pytest.approx(expected))


def test_nrrd_of_itk_keeps_the_ratio_of_its_spacing(tmp_path):
    z, y, x = open_volume(itk(tmp_path / "n.nrrd", spacing=(4, 5, 40))).voxel_size_nm
    assert (z / x, y / x) == pytest.approx((10, 1.25))


def nrrd_of_samples(path, samples, kinds=None, encoding="raw"):
    """Write (z, y, x, samples) voxels, of which the fastest axis is of some kind."""
    header = {} if kinds is None else {"kinds": [kinds, "domain", "domain", "domain"]}
    nrrd.write(str(path), samples.T, {"encoding": encoding, **header})
    return path


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("kind", ["RGB-color", "rgb-color", "3-color", "???", "none", None])
def test_nrrd_colour(tmp_path, kind, encoding):
    path = nrrd_of_samples(tmp_path / "c.nrrd", COLOURS, kind, encoding)
    np.testing.assert_array_equal(open_volume(path).read(), luminance(COLOURS))


@pytest.mark.parametrize("kind", ["RGBA-color", "4-color", None])
def test_nrrd_colour_with_alpha(tmp_path, kind):
    array = np.concatenate([COLOURS, BYTES[..., None]], axis=-1).astype(np.uint16)
    path = nrrd_of_samples(tmp_path / "c.nrrd", array, kind)
    np.testing.assert_array_equal(open_volume(path).read(), luminance(COLOURS))


@pytest.mark.parametrize(
    ("kind", "samples", "dtype", "message"),
    [
        ("list", 2, "u1", r"found 4 axes, 5 × 9 × 12 × 2, the fastest of kind list; save one volume a file$"),
        ("list", 3, "u1", r"kind list; save one volume a file, or colours with RGB-color as the first of its kinds"),
        ("vector", 2, "u1", r"kind vector; save one volume a file$"),
        ("vector", 3, "f4", r"kind vector; save one volume a file, or colours with RGB-color as the first"),
        ("time", 3, "u1", "the fastest of kind time"),
        ("3-vector", 3, "f4", "the fastest of kind 3-vector"),
        ("HSV-color", 3, "u1", "the fastest of kind HSV-color"),
        ("RGB-color", 4, "u1", "the fastest of kind RGB-color"),
        ("complex", 2, "f4", "voxels that are one number, found complex numbers; convert them"),
        (None, 2, "u1", "found 4 axes, 5 × 9 × 12 × 2; save one volume a file"),
        (None, 3, "f4", "found 4 axes, 5 × 9 × 12 × 3; save one volume a file, or colours"),
    ],
)
def test_nrrd_of_several_samples_a_voxel_that_are_no_colours_is_refused(tmp_path, kind, samples, dtype, message):
    path = nrrd_of_samples(tmp_path / "d.nrrd", np.stack([BYTES] * samples, axis=-1).astype(dtype), kind)
    with pytest.raises(InputError, match=message):
        open_volume(path)


@pytest.mark.parametrize("compress", [False, True])
def test_nrrd_of_itk_says_vector_of_colours_and_of_anything_else_so_that_a_warning_tells(tmp_path, compress):
    path = itk(tmp_path / "c.nrrd", COLOURS, compress=compress)
    with pytest.warns(DataWarning, match="the 3 samples of each voxel, a vector by its kind, are taken for colours"):
        np.testing.assert_array_equal(open_volume(path).read(), luminance(COLOURS))


def test_nrrd_skips(tmp_path):
    (tmp_path / "d.raw").write_bytes(b"two\nlines\nabc" + BYTES.astype(">u2").tobytes())
    header = "NRRD0004\ntype: ushort\ndimension: 3\nsizes: 12 9 5\nendian: big\nencoding: raw\ndata file: d.raw\n"
    for skips in ("line skip: 2\nbyte skip: 3\n", "byte skip: -1\n"):
        (tmp_path / "d.nhdr").write_text(header + skips)
        np.testing.assert_array_equal(open_volume(tmp_path / "d.nhdr").read(), BYTES)


# The micro sign, and the Greek letter, which Latin-1 lacks.
@pytest.mark.parametrize(("unit", "encoding"), [("µm", "utf-8"), ("μm", "utf-8"), ("µm", "latin-1")])
@pytest.mark.parametrize("field", ["units", "space units"])
def test_nrrd_micrometres_with_their_letter(tmp_path, unit, encoding, field):
    lines = ["NRRD0004", "type: uint8", "dimension: 3", "sizes: 12 9 5", "encoding: raw", "# größer"]
    steps = {
        "units": "spacings: 0.004 0.005 0.04",
        "space units": "space directions: (0.004,0,0) (0,0.005,0) (0,0,0.04)",
    }
    lines += ["space dimension: 3"] * (field == "space units") + [steps[field]]
    lines += [f"{field}: " + " ".join([f'"{unit}"'] * 3), "", ""]
    path = tmp_path / "n.nrrd"
    path.write_bytes("\n".join(lines).encode(encoding) + BYTES.tobytes())
    volume = open_volume(path)
    assert volume.voxel_size_nm == pytest.approx((40, 5, 4))
    np.testing.assert_array_equal(volume.read(), BYTES)


def test_nrrd_data_file_with_letters_of_a_language(tmp_path):
    (tmp_path / "größe.raw").write_bytes(BYTES.tobytes())
    header = "NRRD0004\r\ntype: uint8\r\ndimension: 3\r\nsizes: 12 9 5\r\nencoding: raw\r\ndata file: größe.raw\r\n"
    (tmp_path / "d.nhdr").write_bytes(header.encode())
    np.testing.assert_array_equal(open_volume(tmp_path / "d.nhdr").read(), BYTES)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nrrd_that_skips_more_lines_than_there_are(tmp_path, encoding):
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 12 9 5\nencoding: {encoding}\nline skip: 99999999999\n\n"
    (tmp_path / "n.nrrd").write_bytes(header.encode() + b"1\n2\n3")
    with pytest.raises(InputError, match="expected 99,999,999,999 lines to skip, as line skip says, found 2 lines"):
        open_volume(tmp_path / "n.nrrd")


def test_nrrd_header_without_an_end_is_refused(tmp_path):
    header = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 12 9 5\nencoding: raw\n#"
    (tmp_path / "n.nrrd").write_bytes(header + b"x" * (3 << 20))
    with pytest.raises(InputError, match="no end of it in 1,048,576 bytes"):
        open_volume(tmp_path / "n.nrrd")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("data file: /etc/passwd", "a data file in the header's own directory, found data file: /etc/passwd"),
        ("data file: ../d.raw", "in the header's own directory"),
        ("data file: C:\\d.raw", "in the header's own directory"),
        ("data file: missing.raw", "its data file missing.raw beside it, found no such file"),
        ("data file: LIST\na.raw\nb.raw", "one data file, found data spread over"),
        ("data file: slice%03d.raw 1 5 1", "one data file, found data spread over"),
        ("encoding: hex", "encoding raw, gzip or bzip2"),
        ("encoding: text", "encoding raw, gzip or bzip2"),
        ("type: block", "type: block"),
        ("endian: middle", "endian"),
        ("sizes: 12 9 5 7", "axes"),
        ("sizes: 108 5", "3 axes"),
    ],
)
def test_nrrd_headers_that_are_refused(tmp_path, field, message):
    fields = {"type": "ushort", "dimension": "3", "sizes": "12 9 5", "endian": "little", "encoding": "raw"}
    name, value = field.split(": ", 1)
    if name == "sizes":
        fields["dimension"] = str(len(value.split()))
    fields[name] = value
    lines = [f"{key}: {value}" for key, value in fields.items() if key != "data file"]
    lines += [f"data file: {fields['data file']}"] if "data file" in fields else []
    directory = tmp_path / "inner"
    directory.mkdir()
    (tmp_path / "d.raw").write_bytes(bytes(2000))
    (directory / "d.nhdr").write_bytes("\n".join(["NRRD0004", *lines, "", ""]).encode() + bytes(2000))
    with pytest.raises(InputError, match=message):
        open_volume(directory / "d.nhdr")


# NIfTI


def test_nifti_slope_and_intercept_are_applied(tmp_path):
    for name in ("n.nii", "n.nii.gz"):
        image = nibabel.Nifti1Image(BYTES.astype(np.int16).T, np.eye(4))
        image.header.set_slope_inter(0.5, -3)
        image.to_filename(tmp_path / name)
        volume = open_volume(tmp_path / name)
        assert volume.dtype == np.float64
        expected = np.asarray(nibabel.load(tmp_path / name).dataobj).T
        np.testing.assert_array_equal(volume.read(), expected)
        np.testing.assert_array_equal(volume.read(slice(1, 5, 2), slice(3), slice(4, 6)), expected[1:5:2, :3, 4:6])


@pytest.mark.parametrize(
    ("unit", "zooms", "expected"),
    [
        ("mm", (4e-6, 5e-6, 4e-5), (40, 5, 4)),
        ("micron", (0.004, 0.005, 0.04), (40, 5, 4)),
        ("meter", (4e-9, 5e-9, 4e-8), (40, 5, 4)),
        ("unknown", (4, 5, 40), (40e6, 5e6, 4e6)),
        ("unknown", (1, 1, 1), None),
        ("mm", (1, 0, 1), None),
    ],
)
def test_nifti_voxel_size(tmp_path, unit, zooms, expected):
    header = nibabel.Nifti1Header()
    header.set_xyzt_units(unit)
    image = nibabel.Nifti1Image(BYTES.T, None, header)
    image.header["pixdim"][1:4] = zooms
    path = tmp_path / "n.nii"
    image.to_filename(path)
    assert open_volume(path).voxel_size_nm == (expected and pytest.approx(expected, rel=1e-5))


def test_nifti_2_single_time_point_and_2d(tmp_path):
    path = tmp_path / "n.nii"
    nibabel.Nifti2Image(BYTES.T[..., None], np.eye(4)).to_filename(path)
    np.testing.assert_array_equal(open_volume(path).read(), BYTES)
    nibabel.Nifti1Image(BYTES[0].T, np.eye(4)).to_filename(path)
    np.testing.assert_array_equal(open_volume(path).read(), BYTES[:1])


def test_nifti_time_series_is_refused(tmp_path):
    path = tmp_path / "n.nii.gz"
    nibabel.Nifti1Image(np.stack([BYTES.T, BYTES.T], axis=-1), np.eye(4)).to_filename(path)
    with pytest.raises(InputError, match=r"one volume of 3 axes, found 12 × 9 × 5 × 2"):
        open_volume(path)


def test_nifti_colour(tmp_path):
    path = tmp_path / "n.nii"
    rgb = np.ascontiguousarray(COLOURS.transpose(2, 1, 0, 3)).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.Nifti1Image(rgb, np.eye(4)).to_filename(path)
    np.testing.assert_array_equal(open_volume(path).read(), luminance(COLOURS))


def test_nifti_complex_is_refused(tmp_path):
    path = tmp_path / "n.nii"
    nibabel.Nifti1Image(BYTES.astype(np.complex64).T, np.eye(4)).to_filename(path)
    with pytest.raises(InputError, match="complex64"):
        open_volume(path)


# Directories of slices


def slices(directory, planes):
    directory.mkdir(exist_ok=True)
    for name, plane in planes.items():
        Image.fromarray(plane).save(directory / name)
    return directory


def test_slices_are_taken_in_natural_order(tmp_path):
    directory = slices(tmp_path / "v", {f"{index}.png": BYTES[index % 5] for index in range(12)})
    np.testing.assert_array_equal(open_volume(directory).read(), BYTES[np.arange(12) % 5])


def test_slices_of_another_size_or_type_are_named(tmp_path):
    directory = slices(tmp_path / "v", {"0.png": BYTES[0, :4], "1.png": BYTES[1], "2.tif": BYTES[2]})
    with pytest.raises(InputError, match=r"0.png: expected 9 × 12 pixels, as the other slices have, found 4 × 12"):
        open_volume(directory)
    slices(directory, {"0.png": BYTES[0], "2.tif": BYTES[2].astype(np.uint16)})
    with pytest.raises(InputError, match=r"2.tif: expected 9 × 12 pixels of uint8.*found 9 × 12 of uint16"):
        open_volume(directory).read()


def test_damaged_slices_are_named(tmp_path):
    directory = slices(tmp_path / "v", {"0.png": BYTES[0], "1.png": BYTES[1]})
    (directory / "2.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2.png: expected a 2D image, found an empty file"):
        open_volume(directory)
    tifffile.imwrite(directory / "2.tif", BYTES, photometric="minisblack")
    (directory / "2.png").unlink()
    with pytest.raises(InputError, match=r"2.tif: expected a 2D slice, found a TIFF of 5 pages; a directory is read"):
        open_volume(directory).read()


def test_colour_slices_and_a_single_slice(tmp_path):
    directory = slices(tmp_path / "v", {"a.png": COLOURS[0]})
    assert list_volumes(tmp_path, Report("test")) == [directory]
    np.testing.assert_array_equal(open_volume(directory).read(), luminance(COLOURS)[:1])


@pytest.mark.parametrize(
    ("unit", "nanometres"),
    [
        ("nm", 1),
        ("NM", 1),
        ('"nm"', 1),
        ("μm", 1e3),
        ("A", 0.1),
        ("\u212b", 0.1),
        ("cm", 1e7),
        ("", None),
        (None, None),
    ],
)
def test_units(unit, nanometres):
    assert nanometres_per(unit) == nanometres
