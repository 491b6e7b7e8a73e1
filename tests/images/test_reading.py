import struct

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from emcurate.errors import InputError
from emcurate.images.reading import SeveralImagesError, read_image
from emcurate.images.sections import encode_section, read_section, read_size, write_section

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (37, 53)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (37, 53)).astype(np.uint16)


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "tiff", "gif", "webp", "jp2", "pgm", "PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    options = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(extension, {})
    Image.fromarray(GREY).save(path, **options)
    assert np.array_equal(read_image(path), GREY)


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bits_stay_sixteen(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    cv2.imwrite(str(path), DEEP)
    pixels = read_image(path)
    assert pixels.dtype.itemsize == 2
    assert np.array_equal(pixels, DEEP)


def test_sixteen_bits_stay_sixteen_in_older_pillows(tmp_path, monkeypatch):
    # Pillow 10.1 has this in its table of modes, and so gives 16-bit grey as signed 32-bit integers.
    monkeypatch.setitem(PngImagePlugin._MODES, (16, 0), ("I", "I;16B"))
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), DEEP)
    with Image.open(path) as image:
        assert np.asarray(image).dtype == np.int32
    pixels = read_image(path)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, DEEP)


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_grey_stored_as_colour_png(tmp_path, channels):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.repeat(DEEP[..., None], channels, axis=-1))
    assert np.array_equal(read_image(path), DEEP)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_grey_in_other_modes(tmp_path, mode, extension):
    path = tmp_path / f"a.{extension}"
    Image.fromarray(GREY).convert(mode).save(path)
    assert np.array_equal(read_image(path), GREY)


def test_colour_palette_is_looked_up(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    for name in ("a.png", "a.tif", "a.gif"):
        image.save(tmp_path / name)
        # 0.299 * 255 and 0.587 * 255, rounded
        assert read_image(tmp_path / name).tolist() == [[76, 150]]


def test_one_bit_image(tmp_path):
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), bits)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float16", "float32", "float64"])
def test_tiff_keeps_its_type(tmp_path, dtype):
    pixels = RNG.normal(0, 50, (11, 13)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == dtype
    assert np.array_equal(read, pixels)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "zstd", "packbits", "jpeg2000"])
def test_compressed_tiff(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", GREY, compression=compression)
    assert np.array_equal(read_image(tmp_path / "a.tif"), GREY)


def test_planar_and_white_is_zero_tiff(tmp_path):
    planar = np.stack([GREY] * 3)
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_image(tmp_path / "planar.tif"), GREY)
    tifffile.imwrite(tmp_path / "white.tif", GREY, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "white.tif"), 255 - GREY)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "white.tif")), 255 - GREY)


def test_thumbnail_beside_the_image_is_ignored(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(GREY)
        tiff.write(GREY[::4, ::4], subfiletype=1)
    assert np.array_equal(read_image(tmp_path / "a.tif"), GREY)


@pytest.mark.parametrize("imagej", [False, True])
def test_stacks_are_sent_to_the_3d_corpus(tmp_path, imagej):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY] * 5), imagej=imagej, photometric="minisblack")
    with pytest.raises(SeveralImagesError, match=r"a\.tif: expected a 2D image, found a TIFF of 5 pages.*3D corpus"):
        read_image(tmp_path / "a.tif")


def test_animation_is_refused(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(SeveralImagesError, match="an animation of several frames"):
        read_image(tmp_path / "a.gif")


@pytest.mark.parametrize(
    "name", ["a.png", "a.tif", "lzw.tif", "a.jpg", "a.bmp", "a.webp", "a.jp2", "deep.png", "tiled.tif"]
)
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.9])
def test_truncated_files_are_named(tmp_path, name, kept):
    path = tmp_path / name
    smooth = cv2.GaussianBlur(np.tile(GREY, (6, 6)), (0, 0), 3)
    if name == "lzw.tif":
        tifffile.imwrite(path, smooth, compression="lzw", rowsperstrip=16)
    elif name == "tiled.tif":
        tifffile.imwrite(path, smooth, tile=(64, 64))
    elif name == "deep.png":
        cv2.imwrite(str(path), np.repeat(np.tile(DEEP, (6, 6))[..., None], 3, axis=-1))
    else:
        Image.fromarray(smooth).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match=name):
        read_image(path)


@pytest.mark.parametrize("extension", ["tif", "png", "bmp", "gif"])
def test_a_header_that_claims_billions_of_pixels(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    Image.fromarray(GREY).save(path)
    data = bytearray(path.read_bytes())
    width_at, height_at, form = {"png": (16, 20, ">I"), "bmp": (18, 22, "<i"), "gif": (6, 8, "<H")}.get(
        extension, (0, 0, "")
    )
    if extension == "tif":
        with tifffile.TiffFile(path) as tiff:
            width_at, height_at = (tiff.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength"))
            form = "<H"
    size = struct.calcsize(form)
    for at in (width_at, height_at):
        data[at : at + size] = struct.pack(form, 65000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=path.name):
        read_image(path)


@pytest.mark.parametrize("extension", ["tif", "png", "jpg", "jp2", "bmp", "webp"])
def test_damaged_headers_never_end_in_another_error(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    Image.fromarray(GREY).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, min(300, len(data)), 3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            read_image(path)
        except InputError:
            refused += 1
    assert refused


def test_text_that_calls_itself_an_image(tmp_path):
    for name in ("a.png", "a.tif", "a.jpg"):
        (tmp_path / name).write_text("dear microscope, " * 20)
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (224, 224), (37, 53)])
def test_sections_are_read_back_by_anyone(tmp_path, shape):
    pixels = RNG.integers(0, 256, shape).astype(np.uint8)
    path = tmp_path / "a.tiff"
    assert write_section(path, pixels) is True
    assert write_section(path, pixels) is False
    for read in (tifffile.imread, lambda p: np.asarray(Image.open(p)), lambda p: cv2.imread(str(p), -1), read_section):
        assert np.array_equal(read(path), pixels)
    assert read_size(path) == shape


def test_a_section_is_encoded_from_any_memory_order():
    assert encode_section(GREY.T) == encode_section(np.ascontiguousarray(GREY.T))


def test_real_broken_tiff(real_data):
    with pytest.raises(InputError, match="corrupt_2byte"):
        read_image(real_data / "images2d" / "ti_tem" / "corrupt_2byte.tif")


def test_real_micrographs_equal_pillows_grey(real_data):
    for path in sorted((real_data / "images2d").glob("*/*.[jp]*g")):
        with Image.open(path) as image:
            expected = np.asarray(image.convert("RGB").convert("L"), dtype=int)
        assert np.abs(read_image(path) - expected).max() <= 1
