"""Images made to do harm, or that nobody can make sense of: refused in words, and no other program is started."""

import os
import subprocess
import zlib
from importlib import import_module

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from emcurate.errors import InputError
from emcurate.images.reading import SeveralImagesError, read_image
from emcurate.images.sections import read_section, read_size
from emcurate.images.tiff_directories import MOST_PAGES
from tests.textures import make_texture
from tests.torture.crafted_images import png_bytes, png_chunk
from tests.torture.crafted_tiffs import a_page, chain_of_pages, tiff_bytes
from tests.torture.originals import image_bytes

PIXELS = make_texture((1, 48, 40))[0]


def refusal(path, data):
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    return str(caught.value)


@pytest.mark.parametrize(
    "tags",
    [
        *(a_page(bits=bits) for bits in (0, 77, 65535)),
        a_page(0, 4),
        a_page(4, 0),
        a_page(sampleformat=(3, [77])),
    ],
)
def test_tiff_whose_numbers_make_no_sense(tmp_path, tags):
    data = tiff_bytes(tags, bytes(16))
    refusal(tmp_path / "a.tif", data)
    with pytest.raises(InputError):
        read_section((tmp_path / "a.tif").rename(tmp_path / "a.tiff"))


@pytest.mark.timeout(60)
def test_lists_of_pages_without_end(tmp_path):
    assert "leads back to itself" in refusal(tmp_path / "a.tif", chain_of_pages(150, back_to=120))
    assert "pages, found more" in refusal(tmp_path / "b.tif", chain_of_pages(MOST_PAGES + 1))


def test_every_flipped_bit_of_a_png_is_found(tmp_path):
    data = image_bytes(PIXELS, "PNG")
    path = tmp_path / "a.png"
    for bit in np.random.default_rng(3).choice(range(64, 8 * len(data)), 300, replace=False):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        refusal(path, bytes(damaged))
    for length in (20, 33, 40, len(data) - 13, len(data) - 4, len(data) - 1):
        refusal(path, data[:length])
    path.write_bytes(data + b"what a camera appends")
    np.testing.assert_array_equal(read_image(path), PIXELS)


def test_a_checksum_is_that_of_zlib(tmp_path):
    text = png_chunk(b"tEXt", b"Comment\0hello")
    assert text[-4:] == zlib.crc32(b"tEXtComment\0hello").to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(png_bytes(extra=text))
    assert read_image(tmp_path / "a.png").shape == (4, 4)


def test_postscript_in_disguise_starts_no_other_program(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: started.append(a))
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    for suffix in ("png", "jpg", "bmp", "gif"):
        refusal(tmp_path / f"a.{suffix}", postscript)
    assert not started
    # Left to itself, Pillow would have:
    with Image.open(tmp_path / "a.png") as image, pytest.raises(OSError):
        image.load()
    assert started


def test_a_tiff_by_another_name_is_read_by_the_same_rules(tmp_path):
    (tmp_path / "a.png").write_bytes(tiff_bytes(a_page(), bytes(range(16))))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").ravel(), range(16))
    assert "leads back to itself" in refusal(tmp_path / "b.png", tiff_bytes(a_page(), bytes(16), after=8))


@pytest.mark.timeout(30)
def test_frames_are_not_counted(tmp_path):
    gif = image_bytes(PIXELS, "GIF")
    block = gif[gif.index(b",") : -1]
    (tmp_path / "a.gif").write_bytes(gif[:-1] + block * 100_000 + b";")
    with pytest.raises(SeveralImagesError):
        read_image(tmp_path / "a.gif")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", ["tif", "png", "tiff"])
def test_pipes_are_refused_by_whatever_reads(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    os.mkfifo(path)
    for read in (read_image, read_section, read_size):
        with pytest.raises(InputError, match="found a pipe, a socket or a device"):
            read(path)


def test_links_that_lead_round_and_unlucky_names_stop_no_other_image(tmp_path, capsys):
    images = tmp_path / "images"
    (images / "group").mkdir(parents=True)
    Image.fromarray(PIXELS).save(images / "good.png")
    for directory in (images, images / "group"):
        (directory / "loop.png").symlink_to("loop.png")
    for name in ("x" * 251, "é" * 120):
        (images / f"{name}.png").write_bytes((images / "good.png").read_bytes())
    assert import_module("raw.cleanup2d").main([str(images), str(tmp_path / "out"), "-p", "1"]) == 1
    failed = capsys.readouterr().err.partition("Failed:")[2]
    for path in (images / "loop.png", images / "group" / "loop.png"):
        assert f"{path}: expected" in failed and "remove the link that leads to itself" in failed
    assert "x.png: expected a name of at most 200 bytes, since the results' are longer, found 251 bytes" in failed
    assert "é.png: expected a name of at most 200 bytes, since the results' are longer, found 240 bytes" in failed
    assert [path.name for path in (tmp_path / "out").glob("*.tiff")] == ["good-LOC-2d.tiff"]
