"""TIFF pages of every kind of colours as grey, 2D images and slices of stacks alike."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from emcurate.errors import InputError
from emcurate.images.colours import cielab_values, icclab_values, lab_to_rgb
from emcurate.images.pixels import to_grey
from emcurate.images.reading import peek_image, read_image
from emcurate.volumes.volume import open_volume

RNG = np.random.default_rng(8)
HEIGHT, WIDTH = 18, 23
SAMPLES = RNG.integers(0, 256, (HEIGHT, WIDTH, 4)).astype(np.uint8)


def pillows_grey(path):
    with Image.open(path) as image:
        return to_grey(np.asarray(image.convert("RGB")))


def assert_both_readers_give(path, expected, tolerance=0):
    """A page is read alike as a 2D image and as each slice of a stack of three such pages."""
    found = read_image(path)
    assert found.dtype == expected.dtype
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= tolerance
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        compression = "zlib" if page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE else None
        if page.is_subsampled:
            return
        pixels, photometric, planar = page.asarray(), page.photometric, page.planarconfig
        extra = page.extrasamples
    stack = path.with_name("stack.tif")
    tifffile.imwrite(
        stack,
        np.stack([pixels] * 3),
        photometric=photometric,
        planarconfig=planar if pixels.ndim > 2 else None,
        extrasamples=extra or None,
        compression=compression,
    )
    volume = open_volume(stack)
    assert volume.dtype == expected.dtype
    np.testing.assert_array_equal(volume.read(), np.stack([found] * 3))


def write_strips(path, photometric, strips, shape, *, compression=1, tags=()):
    """Write a TIFF page byte by byte: strips of 8-bit samples as given, and tags (number, type, values)."""
    rows_per_strip = strips[0][0]
    data = [zlib.compress(strip) if compression == 8 else strip for _, strip in strips]
    offsets = (8 + np.cumsum([0, *map(len, data)])).tolist()
    body = b"".join(data)
    entries = [
        (256, 4, [shape[1]]),
        (257, 4, [shape[0]]),
        (258, 3, [8, 8, 8]),
        (259, 3, [compression]),
        (262, 3, [photometric]),
        (273, 4, offsets[:-1]),
        (277, 3, [3]),
        (278, 4, [rows_per_strip]),
        (279, 4, [len(strip) for strip in data]),
        *tags,
    ]
    directory, values = b"", b""
    start = offsets[-1] + len(body) % 2
    after = start + 2 + 12 * len(entries) + 4
    for number, kind, numbers in sorted(entries):
        packed = (
            struct.pack(f"<{len(numbers)}{'xxxHI'[kind]}", *numbers)
            if kind < 5
            else struct.pack(f"<{len(numbers)}I", *numbers)
        )
        count = len(numbers) // (2 if kind == 5 else 1)
        if len(packed) > 4:
            place = struct.pack("<I", after + len(values))
            values += packed + bytes(len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        directory += struct.pack("<HHI", number, kind, count) + place
    head = struct.pack("<2sHI", b"II", 42, start)
    body += bytes(len(body) % 2)
    path.write_bytes(head + body + struct.pack("<H", len(entries)) + directory + bytes(4) + values)
    return path


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg", "quality": 100}])
def test_cmyk_is_turned_as_pillow_turns_it(tmp_path, options):
    path = tmp_path / "a.tif"
    Image.fromarray(SAMPLES, "CMYK").save(path, **options)
    assert_both_readers_give(path, pillows_grey(path))


def test_cmyk_in_planes_with_alpha_and_of_16_bits(tmp_path):
    path = tmp_path / "a.tif"
    expected = to_grey(np.asarray(Image.fromarray(SAMPLES, "CMYK").convert("RGB")))
    tifffile.imwrite(path, np.moveaxis(SAMPLES, -1, 0), photometric="separated", planarconfig="separate")
    assert_both_readers_give(path, expected)
    alpha = np.concatenate([SAMPLES, SAMPLES[..., :1]], axis=-1)
    tifffile.imwrite(path, alpha, photometric="separated", extrasamples=["unassalpha"])
    assert_both_readers_give(path, expected)
    tifffile.imwrite(path, SAMPLES.astype(np.uint16) * 257, photometric="separated")
    assert np.abs(read_image(path) / 257 - expected).max() <= 1


def test_cmyk_without_colour_is_white_paper_and_full_black_is_black(tmp_path):
    inks = np.zeros((2, 2, 4), np.uint8)
    inks[1, :, 3] = 255
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    assert read_image(tmp_path / "a.tif").tolist() == [[255, 255], [0, 0]]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "jpeg"])
def test_ycbcr_is_turned_as_pillow_turns_it(tmp_path, compression):
    path = tmp_path / "a.tif"
    smooth = Image.fromarray(SAMPLES[..., :3]).resize((90, 80), 2).convert("YCbCr")
    smooth.save(path, compression=compression)
    # libtiff, which Pillow leaves packed files to, knows what older Pillows misread in plain ones.
    packed = tmp_path / "packed.tif"
    smooth.save(packed, compression="tiff_lzw" if compression is None else compression)
    expected = pillows_grey(packed)
    found = read_image(path)
    assert np.abs(found.astype(int) - expected).max() <= 1
    if compression != "jpeg":
        assert_both_readers_give(path, expected, tolerance=1)


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("sharing", [(2, 2), (2, 1), (4, 2), (1, 2)])
def test_ycbcr_with_shared_chroma(tmp_path, sharing, compression):
    horizontal, vertical = sharing
    across, rows = -(-WIDTH // horizontal), 8
    strips = []
    for start in range(0, HEIGHT, rows):
        down = -(-min(rows, HEIGHT - start) // vertical)
        strips.append((rows, RNG.bytes(down * across * (horizontal * vertical + 2))))
    reference = [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1]
    tags = [(530, 3, list(sharing)), (532, 5, reference)]
    path = write_strips(tmp_path / "a.tif", 6, strips, (HEIGHT, WIDTH), compression=compression, tags=tags)
    # Pillow hands packed strips to libtiff, which joins the chroma; plain ones it takes for RGB.
    other = write_strips(tmp_path / "packed.tif", 6, strips, (HEIGHT, WIDTH), compression=8, tags=tags)
    assert np.abs(read_image(path).astype(int) - pillows_grey(other)).max() <= 1


def test_stack_of_ycbcr_with_shared_chroma(tmp_path):
    page = write_strips(tmp_path / "a.tif", 6, [(4, RNG.bytes(2 * 3 * 6))], (4, 6), tags=[(530, 3, [2, 2])])
    with Image.open(page):
        pass
    data = bytearray(page.read_bytes())
    # A second directory, the same again, makes a stack of two pages.
    start = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, start)[0]
    length = 2 + 12 * entries
    struct.pack_into("<I", data, start + length, len(data))
    page.write_bytes(bytes(data) + bytes(data[start : start + length]) + bytes(4))
    volume = open_volume(page)
    first = tmp_path / "first.tif"
    struct.pack_into("<I", data, start + length, 0)
    first.write_bytes(data)
    np.testing.assert_array_equal(volume.read(), np.stack([read_image(first)] * 2))


def test_ycbcr_with_shared_chroma_in_tiles_or_cut_off_is_named(tmp_path):
    path = write_strips(tmp_path / "a.tif", 6, [(4, bytes(35))], (4, 6), tags=[(530, 3, [2, 2])])
    with pytest.raises(InputError, match=r"a\.tif: expected a readable TIFF file"):
        read_image(path)
    tags = [(530, 3, [2, 2]), (284, 3, [2])]
    path = write_strips(tmp_path / "a.tif", 6, [(4, bytes(36))] * 3, (4, 6), tags=tags)
    with pytest.raises(InputError, match="chroma stands for several pixels in plain 8-bit strips"):
        read_image(path)


@pytest.mark.parametrize(("photometric", "values_of"), [("cielab", cielab_values), ("icclab", icclab_values)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lab_becomes_the_grey_of_its_srgb(tmp_path, photometric, values_of, dtype):
    samples = RNG.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric=photometric)
    assert_both_readers_give(tmp_path / "a.tif", to_grey(lab_to_rgb(values_of(samples), np.dtype(dtype))))


def test_lab_that_pillow_wrote(tmp_path):
    lightness = np.linspace(0, 255, 256).astype(np.uint8)[None]
    Image.merge("LAB", [Image.fromarray(band) for band in (lightness, *np.full((2, 1, 256), 128, np.uint8))]).save(
        tmp_path / "a.tif"
    )
    found = read_image(tmp_path / "a.tif")[0].astype(int)
    assert found[0] == 0 and found[-1] == 255 and (np.diff(found) >= 0).all()
    assert found[128] == pytest.approx(0.4663 * 255, abs=1.5)  # L* 50


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (SAMPLES.astype(np.float32), {"photometric": "separated"}, "SEPARATED pixels of 8 or 16 bits, found float32"),
        (
            SAMPLES[..., :3].astype(np.float32),
            {"photometric": "cielab"},
            "CIELAB pixels of 8 or 16 bits, found float32",
        ),
        (SAMPLES, {"photometric": "separated", "extratags": [(332, 3, 1, 2, True)]}, "cyan, magenta, yellow, black"),
        (SAMPLES[..., :3], {"photometric": 10}, "found ITULAB pixels; save it as grey or RGB"),
    ],
)
def test_colours_that_cannot_be_turned_are_refused_before_any_page_is_decoded(tmp_path, samples, options, message):
    tifffile.imwrite(tmp_path / "a.tif", samples, **options)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "s.tif", np.stack([samples] * 2), **options)
    with pytest.raises(InputError, match=message):
        open_volume(tmp_path / "s.tif")


def test_fewer_inks_than_four_are_refused(tmp_path):
    path = write_strips(tmp_path / "a.tif", 5, [(4, bytes(72))], (4, 6))
    with pytest.raises(InputError, match="cyan, magenta, yellow, black, found 3 others"):
        read_image(path)


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_turned_beside_alpha_too(tmp_path, planarconfig, dtype):
    pixels = RNG.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, 2)).astype(dtype)
    stored = pixels if planarconfig == "contig" else np.moveaxis(pixels, -1, 0)
    options = {"photometric": "miniswhite", "planarconfig": planarconfig, "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    assert_both_readers_give(tmp_path / "a.tif", np.iinfo(dtype).max - pixels[..., 0])


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    "extra", [("unspecified",), ("unspecified",) * 2, ("unspecified",) * 4, ("unspecified", "unassalpha")]
)
def test_several_grey_samples_a_pixel_are_refused(tmp_path, photometric, planarconfig, compression, extra):
    samples = 1 + len(extra)
    pixels = RNG.integers(0, 256, (HEIGHT, WIDTH, samples)).astype(np.uint8)
    stored = pixels if planarconfig == "contig" else np.moveaxis(pixels, -1, 0)
    options = {"photometric": photometric, "planarconfig": planarconfig, "compression": compression}
    message = f"found {samples} samples a pixel that are no colours; save one channel a file, colours as RGB"
    tifffile.imwrite(tmp_path / "a.tif", stored, extrasamples=extra, **options)
    for read in (read_image, peek_image):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "s.tif", np.stack([stored] * 3), extrasamples=extra, **options)
    with pytest.raises(InputError, match=message):
        open_volume(tmp_path / "s.tif")


def test_several_grey_samples_of_which_the_file_says_nothing_are_refused(tmp_path):
    path = write_strips(tmp_path / "a.tif", 1, [(4, bytes(72))], (4, 6))
    with pytest.raises(InputError, match="found 3 samples a pixel that are no colours"):
        read_image(path)


@pytest.mark.parametrize("alpha", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("samples", [2, 4])
def test_declared_alpha_is_dropped_beside_grey_and_colours(tmp_path, samples, planarconfig, alpha):
    pixels = SAMPLES[..., :samples]
    stored = pixels if planarconfig == "contig" else np.moveaxis(pixels, -1, 0)
    options = {"photometric": "minisblack" if samples == 2 else "rgb", "planarconfig": planarconfig}
    tifffile.imwrite(tmp_path / "a.tif", stored, extrasamples=[alpha], **options)
    assert_both_readers_give(tmp_path / "a.tif", to_grey(pixels))


def test_white_is_zero_of_12_bits_is_turned_within_12_bits(tmp_path):
    values = RNG.integers(0, 4096, (HEIGHT, 24)).astype(np.uint16)
    # Two values in three bytes, the highest bits first.
    first, second = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8)
    path = tmp_path / "a.tif"
    for photometric, expected in ((0, 4095 - values), (1, values)):
        write_strips(path, photometric, [(HEIGHT, packed.tobytes())], (HEIGHT, 24))
        data = bytearray(path.read_bytes())
        make_one_channel(data, bits=12)
        path.write_bytes(data)
        np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_spread_over_eight_as_pillow_does(tmp_path, bits, photometric):
    path = write_strips(tmp_path / "a.tif", photometric, [(HEIGHT, RNG.bytes(HEIGHT * 3 * bits))], (HEIGHT, 24))
    data = bytearray(path.read_bytes())
    make_one_channel(data, bits)
    path.write_bytes(data)
    with Image.open(path) as image:
        expected = np.asarray(image)
    assert expected.max() == 255
    np.testing.assert_array_equal(read_image(path), expected)


def make_one_channel(data, bits):
    """Turn the tags of a file that `write_strips` wrote into those of one channel of so many bits."""
    start = struct.unpack_from("<I", data, 4)[0]
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        number = struct.unpack_from("<H", data, at)[0]
        if number in (258, 277):
            struct.pack_into("<IHH", data, at + 4, 1, bits if number == 258 else 1, 0)
