"""Damage to packed volumes is found by their own checksums: Python's gzip and bz2 are the independent judges."""

import bz2
import gzip
import struct
import zlib
from importlib import import_module

import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile

from emcurate.errors import InputError
from emcurate.volumes.layouts import MOST_APPENDED_BYTES
from emcurate.volumes.volume import open_volume
from tests.textures import make_texture

VOXELS = make_texture((4, 20, 24))
NRRD_HEADER = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 24 20 4\nencoding: %s\n\n"


def mrc_bytes(directory):
    with mrcfile.new(directory / "plain.mrc", overwrite=True) as mrc:
        mrc.set_data(VOXELS.astype(np.uint16))
    return (directory / "plain.mrc").read_bytes()


def nifti_bytes(directory):
    path = directory / "plain.nii"
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(VOXELS.T), np.eye(4)), path)
    return path.read_bytes()


def in_members(data):
    """As bgzip and parallel programs write it: several members one after another."""
    return b"".join(gzip.compress(data[start : start + 700], mtime=0) for start in range(0, len(data), 700))


def make_packed(directory):
    """Each packed volume: its file name, what stands before the stream, the stream, and its judge."""
    mrc, nifti, voxels = mrc_bytes(directory), nifti_bytes(directory), VOXELS.tobytes()
    return {
        "mrc.gz": (b"", gzip.compress(mrc, mtime=0), gzip.decompress),
        "mrc.bz2": (b"", bz2.compress(mrc), bz2.decompress),
        "nii.gz": (b"", gzip.compress(nifti, mtime=0), gzip.decompress),
        "nrrd": (NRRD_HEADER % b"gzip", gzip.compress(voxels, mtime=0), gzip.decompress),
        "bz2.nrrd": (NRRD_HEADER % b"bzip2", bz2.compress(voxels), bz2.decompress),
        "members.mrc.gz": (b"", in_members(mrc), gzip.decompress),
    }


FORMATS = ["mrc.gz", "mrc.bz2", "nii.gz", "nrrd", "bz2.nrrd", "members.mrc.gz"]


def voxels_in(path):
    """Return a volume's voxels, or None where it is refused."""
    try:
        return open_volume(path).read()
    except InputError as error:
        assert str(error).startswith(str(path))
        return None


def is_refused(judge, stream):
    try:
        judge(stream)
    except (OSError, EOFError, zlib.error, ValueError, struct.error):
        return True
    return False


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_judge_refuses_is_refused_and_what_is_taken_has_the_same_voxels(tmp_path, name):
    head, stream, judge = make_packed(tmp_path)[name]
    path = tmp_path / f"v.{name}"
    path.write_bytes(head + stream)
    np.testing.assert_array_equal(voxels_in(path), VOXELS)
    rng = np.random.default_rng(7)
    refused = 0
    for bit in rng.choice(8 * len(stream), 150, replace=False):
        flipped = bytearray(stream)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(head + flipped)
        found = voxels_in(path)
        if is_refused(judge, bytes(flipped)):
            refused += 1
            assert found is None, f"bit {bit}"
        elif found is not None:  # a bit of no consequence, such as one of the time in gzip's header
            np.testing.assert_array_equal(found, VOXELS)
    assert refused > 100


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_cut_off_anywhere_is_refused_even_after_its_last_voxel(tmp_path, name):
    head, stream, _ = make_packed(tmp_path)[name]
    path = tmp_path / f"v.{name}"
    for length in {0, 1, 9, 10, 11, len(stream) // 2, *range(len(stream) - 12, len(stream))}:
        path.write_bytes(head + stream[:length])
        assert voxels_in(path) is None, f"{length} of {len(stream)} bytes"


@pytest.mark.parametrize("name", ["mrc.gz", "nii.gz", "nrrd"])
def test_bytes_after_a_gzip_stream_that_are_no_other_are_refused(tmp_path, name):
    head, stream, _ = make_packed(tmp_path)[name]
    path = tmp_path / f"v.{name}"
    path.write_bytes(head + stream + b"what is this?")
    assert voxels_in(path) is None
    path.write_bytes(head + stream + bytes(100))  # gzip's documentation has zeros as padding, of tapes
    np.testing.assert_array_equal(voxels_in(path), VOXELS)


@pytest.mark.parametrize("z", [slice(0, 1), slice(1, 3), slice(3, 4)])
def test_no_part_of_a_volume_is_given_before_its_checksum_is_right(tmp_path, z):
    stream = bytearray(gzip.compress(mrc_bytes(tmp_path), mtime=0))
    stream[-8] ^= 1  # of the checksum
    (tmp_path / "v.mrc.gz").write_bytes(stream)
    with pytest.raises(InputError, match="CRC"):
        open_volume(tmp_path / "v.mrc.gz").read(z)


def test_a_stream_that_goes_on_after_its_voxels_is_not_followed_for_ever(tmp_path):
    path = tmp_path / "v.mrc.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(mrc_bytes(tmp_path))
        file.write(bytes(1000))
    np.testing.assert_array_equal(voxels_in(path), VOXELS)
    with gzip.open(path, "ab", compresslevel=1) as file:
        for _ in range(MOST_APPENDED_BYTES >> 24):
            file.write(bytes(1 << 24))
    with pytest.raises(InputError, match="found more than 268,435,456 bytes after them"):
        open_volume(path).read()


@pytest.mark.parametrize(("name", "compress"), [("v.mrc.gz", gzip.compress), ("v.mrc.bz2", bz2.compress)])
def test_a_header_that_claims_more_than_its_stream_can_hold_is_refused_at_once(tmp_path, name, compress):
    data = bytearray(mrc_bytes(tmp_path))
    data[:12] = struct.pack("<3i", 1 << 23, 1 << 23, 1 << 23)
    (tmp_path / name).write_bytes(compress(bytes(data)))
    with pytest.raises(InputError, match="expected a header of as many voxels as"):
        open_volume(tmp_path / name)


@pytest.mark.parametrize("value", [0, 127])
def test_blank_volumes_which_pack_best_of_all_are_taken(tmp_path, value):
    header = NRRD_HEADER.replace(b"24 20 4", b"1000 1000 40")
    voxels = bytes([value]) * 40_000_000
    for name, encoding, stream in (("g", b"gzip", gzip.compress(voxels)), ("b", b"bzip2", bz2.compress(voxels))):
        (tmp_path / f"{name}.nrrd").write_bytes(header % encoding + stream)
        assert open_volume(tmp_path / f"{name}.nrrd").shape == (40, 1000, 1000)


def test_a_damaged_packed_volume_is_named_and_its_neighbours_are_cut(tmp_path, capsys):
    volumes, sections = tmp_path / "volumes", tmp_path / "sections"
    volumes.mkdir()
    tifffile.imwrite(volumes / "good.tif", VOXELS, photometric="minisblack")
    for number, (name, (head, stream, _)) in enumerate(make_packed(tmp_path).items()):
        (volumes / f"whole{number}.{name}").write_bytes(head + stream)
        damaged = bytearray(stream)
        damaged[-6] ^= 4
        (volumes / f"damaged{number}.{name}").write_bytes(head + damaged)
    main = import_module("raw.cross_section3d").main
    assert main([str(volumes), str(sections), "--axes", "0", "-p", "1"]) == 1
    failed = capsys.readouterr().err.partition("Failed:")[2]
    cut = {path.name.partition("-LOC-")[0].partition(".")[0] for path in sections.glob("*-LOC-0_0.tiff")}
    assert cut == {"good", *(f"whole{number}" for number in range(len(FORMATS)))}
    for number, name in enumerate(FORMATS):
        assert f"damaged{number}.{name}: expected a complete" in failed
        assert f"whole{number}" not in failed
