"""Patches by their paths: files and members of shards give the same pixels, sizes and complaints."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from emcurate.errors import InputError
from emcurate.images.sections import encode_section, find_shape, write_section
from emcurate.patches.reading import fingerprint_patch, patch_exists, read_patch, read_patch_size, stat_patch
from tests.patch_sets import pack

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (37, 53), dtype=np.uint8)


def write_kind(path, kind):
    match kind:
        case "ours":
            path.write_bytes(encode_section(GREY))
        case "lzw":
            Image.fromarray(GREY).save(path, compression="tiff_lzw")
        case "big":
            tifffile.imwrite(path, GREY, bigtiff=True)
        case "tiled":
            tifffile.imwrite(path, GREY, tile=(16, 16), compression="zlib")
        case "white is zero":
            tifffile.imwrite(path, 255 - GREY, photometric="miniswhite")
        case "rgb":
            tifffile.imwrite(path, np.repeat(GREY[..., None], 3, -1), photometric="rgb")


@pytest.fixture
def both(tmp_path):
    """Return a function that packs a file, and returns its path and that of the member."""

    def make(path):
        return path, pack([path], tmp_path / "shards")[0]

    return make


@pytest.mark.parametrize("kind", ["ours", "lzw", "big", "tiled", "white is zero", "rgb"])
def test_files_and_members_give_the_pixels_that_were_written(tmp_path, both, kind):
    path = tmp_path / "a-LOC-0_0_0_0.tiff"
    write_kind(path, kind)
    for place in both(path):
        pixels = read_patch(place)
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable and pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, GREY)
        assert read_patch_size(place) == GREY.shape
        assert patch_exists(place)


def damage(path, kind):
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "half":
            path.write_bytes(encode_section(GREY)[: GREY.size // 2])
        case "a byte short":
            path.write_bytes(encode_section(GREY)[:-1])
        case "noise":
            path.write_bytes(RNG.bytes(3000))
        case "16 bits":
            cv2.imwrite(str(path), GREY.astype(np.uint16))
        case "two pages":
            tifffile.imwrite(path, np.stack([GREY, GREY]), photometric="minisblack")
        case "claims":
            # 60,000 x 60,000 pixels in a file of as many bytes as before.
            data = bytearray(encode_section(GREY))
            for place in (18, 30, 102):
                data[place : place + 4] = (60_000).to_bytes(4, "little")
            data[114:118] = (3_600_000_000).to_bytes(4, "little")
            path.write_bytes(data)


@pytest.mark.parametrize("kind", ["empty", "half", "a byte short", "noise", "16 bits", "two pages", "claims"])
def test_what_is_wrong_is_said_of_a_member_as_of_a_file(tmp_path, both, kind):
    path = tmp_path / "a-LOC-0_0_0_0.tiff"
    damage(path, kind)
    file, member = both(path)
    errors = []
    for place in (file, member):
        with pytest.raises(InputError) as error:
            read_patch(place)
        assert error.value.path == str(place)
        errors.append((type(error.value), error.value.expected, error.value.found, error.value.advice))
    assert errors[0] == errors[1]


@pytest.mark.filterwarnings("ignore:Tag data larger")
@pytest.mark.parametrize("kind", ["ours", "lzw"])
def test_damaged_bytes_anywhere_are_read_alike_or_refused_alike(tmp_path, both, kind):
    path = tmp_path / "a-LOC-0_0_0_0.tiff"
    for place in range(0, 200, 3):
        write_kind(path, kind)
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(b"\xf1")
        outcomes = []
        for where in both(path):
            for read in (read_patch, read_patch_size):
                try:
                    outcomes.append(np.asarray(read(where)).tolist())
                except InputError as error:
                    outcomes.append((error.expected, error.found, error.advice))
        assert outcomes[:2] == outcomes[2:]


def test_what_is_not_there_does_not_exist(tmp_path, both):
    path = tmp_path / "a-LOC-0_0_0_0.tiff"
    write_section(path, GREY)
    _, member = both(path)
    for missing in (tmp_path / "b.tiff", member.replace("_0.tiff", "_1.tiff"), member.replace(".tar", "x.tar")):
        assert not patch_exists(missing)
        for read in (read_patch, read_patch_size):
            with pytest.raises(InputError, match="no such"):
                read(missing)
    with pytest.raises(OSError):
        stat_patch(member.replace(".tar", "x.tar"))
    (tmp_path / "c.tiff").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="leads nowhere"):
        read_patch(tmp_path / "c.tiff")
    os.mkfifo(tmp_path / "d.tiff")
    with pytest.raises(InputError, match="a pipe"):
        read_patch(tmp_path / "d.tiff")


def test_a_fingerprint_is_that_of_the_file_or_the_shard_that_holds_the_patch(tmp_path, both):
    path = tmp_path / "dir.tar" / "a-LOC-0_0_0_0.tiff"
    path.parent.mkdir()
    write_section(path, GREY)
    file, member = both(path)
    shard = member.rpartition("/")[0]
    for place, holder in ((str(file), file), (member, shard)):
        assert stat_patch(place) == Path(holder).stat()
        before = fingerprint_patch(place)
        os.utime(holder, ns=(1, 1))
        assert fingerprint_patch(place) != before
    np.testing.assert_array_equal(read_patch(file), GREY)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (224, 224), (128, 64), (3, 70_000), (70_000, 2), (2048, 2048)])
def test_the_head_is_that_which_tifffile_writes_for_the_shape(tmp_path, shape):
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tiff", pixels, photometric="minisblack", metadata=None, software=False)
    data = (tmp_path / "a.tiff").read_bytes()
    assert encode_section(pixels) == data
    assert find_shape(data[:512], len(data)) == shape
    assert find_shape(data[:512], len(data) + 1) is None
    np.testing.assert_array_equal(read_patch(tmp_path / "a.tiff"), pixels)
