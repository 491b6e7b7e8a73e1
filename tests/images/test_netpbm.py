"""Netpbm images of 16-bit values against OpenCV, which keeps them as stored."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emcurate.errors import DataWarning, InputError
from emcurate.images.pixels import Rescale, to_uint8
from emcurate.images.reading import read_image

DEEP = np.random.default_rng(1).integers(0, 65536, (7, 9)).astype(np.uint16)


def pgm(path, values, most, header=b"P5\n9 7\n%d\n"):
    path.write_bytes(header % most + values.astype(">u2").tobytes())
    return path


def assert_as_opencv_reads(path, dtype=np.uint16):
    expected = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    found = read_image(path)
    assert found.dtype == expected.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("header", [b"P5\n9 7\n%d\n", b"P5\n# by a microscope\n9 7\n%d\n", b"P5 9 7 %d "])
@pytest.mark.parametrize("bits", [16, 12, 9])
def test_grey_of_more_than_8_bits_is_uint16_as_stored(tmp_path, header, bits):
    values = DEEP >> (16 - bits)
    path = pgm(tmp_path / "a.pgm", values, (1 << bits) - 1, header)
    assert_as_opencv_reads(path)
    np.testing.assert_array_equal(read_image(path), values)


def test_sixteen_bits_fill_the_grey_range(tmp_path):
    path = pgm(tmp_path / "a.pgm", DEEP, 65535)
    expected = np.rint(DEEP * 255.0 / 65535)
    np.testing.assert_array_equal(to_uint8(read_image(path), Rescale(), path), expected)


def test_twelve_bits_are_not_stretched_but_noticed(tmp_path):
    path = pgm(tmp_path / "a.pgm", DEEP >> 4, 4095)
    with pytest.warns(DataWarning, match="--rescale percentile"):
        to_uint8(read_image(path), Rescale(), path)


@pytest.mark.parametrize("most", [65535, 4095])
def test_plain_text_values(tmp_path, most):
    values = np.minimum(DEEP, most)
    path = tmp_path / "a.pgm"
    text = "\n".join(" ".join(map(str, row)) for row in values.tolist())
    path.write_text(f"P2\n9 7\n{most}\n{text}\n")
    assert_as_opencv_reads(path)


def test_deep_colours_keep_their_bits(tmp_path):
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6\n9 7\n65535\n" + np.repeat(DEEP[..., None], 3, axis=-1).astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(path), DEEP)
    cv2.imwrite(str(path), np.stack([DEEP, DEEP // 2, DEEP // 3], axis=-1))
    blue, green, red = np.moveaxis(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(int), -1, 0)
    np.testing.assert_array_equal(read_image(path), (299 * red + 587 * green + 114 * blue + 500) // 1000)


@pytest.mark.parametrize("suffix", ["pgm", "pnm", "ppm"])
def test_the_extension_makes_no_difference(tmp_path, suffix):
    np.testing.assert_array_equal(read_image(pgm(tmp_path / f"a.{suffix}", DEEP, 65535)), DEEP)


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n9 7\n65535\n" + bytes(2 * 63 - 1),
        b"P5\n9 7\n65535\n",
        b"P5\n999999999 999999999\n65535\n" + bytes(100),
        b"P2\n9 7\n65535\n1 2 3",
        b"P2\n3 1\n65535\n1 2 70000",
        b"P2\n3 1\n65535\n1 2 x",
        b"P5\n0 7\n65535\n" + bytes(100),
        b"P5\n9 7\n65536\n" + bytes(400),
        b"P5" + b"\n#" * 3000,
    ],
)
def test_damaged_files_are_named(tmp_path, data):
    (tmp_path / "a.pgm").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.pgm"):
        read_image(tmp_path / "a.pgm")
