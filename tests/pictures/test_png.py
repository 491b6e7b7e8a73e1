"""PNGs as other programs read them."""

import io

import cv2
import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emcurate.pictures.png import encode_png


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1), st.sampled_from(["noise", "flat", "ramp"]))
def test_pillow_opencv_and_libspng_read_the_same_pixels(height, width, seed, kind):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    ramp = np.arange(height * width * 3, dtype=np.uint32).reshape(noise.shape).astype(np.uint8)
    pixels = {"noise": noise, "flat": np.full_like(noise, seed % 256), "ramp": ramp}[kind]
    data = encode_png(pixels, {"Source": "tests"})
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.mode, image.info) == ("RGB", {"Source": "tests"})
        assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], pixels)
    assert np.array_equal(imagecodecs.spng_decode(data), pixels)


def test_a_part_of_a_picture_is_written_as_that_part():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    part = pixels[5:30:2, 7:50]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(part, {})))), part)


def test_without_libdeflate_zlib_packs_them(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    monkeypatch.setattr(imagecodecs.DEFLATE, "available", False)
    monkeypatch.setattr(imagecodecs, "deflate_encode", lambda *_, **__: pytest.fail("there is none"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels, {})))), pixels)
