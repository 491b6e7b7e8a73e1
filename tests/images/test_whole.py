"""Whether a file is the whole image that it should be."""

import gzip
import io

import numpy as np
import pytest
from PIL import Image

from emcurate.errors import InputError
from emcurate.images.whole import check_whole_image


def encode(kind, width=40, height=30, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


KINDS = ["JPEG", "PNG", "WEBP", "BMP"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [None, (40, 30)])
@pytest.mark.parametrize("to_its_end", [False, True])
def test_a_whole_image_passes(tmp_path, kind, size, to_its_end):
    (tmp_path / "a").write_bytes(encode(kind))
    check_whole_image(tmp_path / "a", size, to_its_end=to_its_end)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9])
def test_part_of_an_image_is_none(tmp_path, kind, part):
    data = encode(kind)
    (tmp_path / "a").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match="expected an image of 40 × 30 pixels"):
        check_whole_image(tmp_path / "a", (40, 30))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("lacking", [1, 2, 5])
def test_last_bytes_that_hold_no_pixel_are_missed_where_nothing_else_tells_the_length(tmp_path, kind, lacking):
    (tmp_path / "a").write_bytes(encode(kind)[: -lacking - (6 if kind == "PNG" else 0)])
    with pytest.raises(InputError, match="expected an image"):
        check_whole_image(tmp_path / "a", to_its_end=True)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", r"an empty file \(0 bytes\)"),
        (b"<html>not found</html>", "of another kind, b'<html>"),
        (gzip.compress(encode("JPEG")), r"of another kind, b'\\x1f\\x8b"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n", "of another kind, b'%!PS"),
        (encode("JPEG", 30, 40), "one of 30 × 40"),
    ],
    ids=["empty", "page", "gzip", "postscript", "size"],
)
def test_other_things_are_named(tmp_path, data, found):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError, match=f"http://x/a: expected an image of 40 × 30 pixels .*, found .*{found}"):
        check_whole_image(tmp_path / "a", (40, 30), subject="http://x/a")


@pytest.mark.parametrize(("orientation", "passes"), [(1, False), (3, False), (6, True), (8, True)])
def test_an_image_that_is_to_be_turned_has_both_sizes(tmp_path, orientation, passes):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 30)).save(tmp_path / "a", "JPEG", exif=exif)
    check_whole_image(tmp_path / "a", (40, 30))
    if passes:
        check_whole_image(tmp_path / "a", (30, 40))
    else:
        with pytest.raises(InputError, match="one of 40 × 30"):
            check_whole_image(tmp_path / "a", (30, 40))


def test_a_header_that_claims_a_billion_pixels_is_not_believed(tmp_path):
    data = bytearray(encode("BMP"))
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError, match="found a header that claims 10,800,000,000 bytes"):
        check_whole_image(tmp_path / "a")
