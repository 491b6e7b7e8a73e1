"""Header parsers on anything at all: a volume that can be read, or an `InputError` that names the file."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emcurate.contents import read_npy
from emcurate.errors import InputError
from emcurate.images.png_chunks import PNG_SIGNATURE
from emcurate.images.reading import read_image
from emcurate.volumes.containers import find_missing
from emcurate.volumes.volume import open_volume
from tests.torture.crafted_lists import npy_with_header
from tests.torture.crafted_tiffs import a_page, tiff_bytes
from tests.torture.crafted_volumes import mrc_bytes, nifti_bytes, nrrd_bytes

ANYWHERE = settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

# Numbers as headers hold them, among them those that headers must not hold.
WORDS = st.integers(-(1 << 31), (1 << 31) - 1) | st.sampled_from([0, 1, -1, 2, 1 << 24, (1 << 31) - 1, -(1 << 31)])
NUMBERS = st.integers(-5, 60).map(str) | st.sampled_from(["nan", "inf", "-1", "1e400", "9" * 25, "x", ""])
FIELDS = ["type", "dimension", "sizes", "encoding", "endian", "spacings", "units", "space", "kinds", "lineskip"]
FIELDS += ["line skip", "byte skip", "space directions", "space units", "space dimension", "data file", "datafile", "a"]
VALUES = ["raw", "gzip", "uint8", "float", "block", "little", "(1,0,0) (0,1,0) (0,0,1)", '"nm" "nm" "nm"']
LINES = st.dictionaries(
    st.sampled_from(FIELDS),
    st.lists(NUMBERS, max_size=4).map(" ".join) | st.sampled_from(VALUES) | st.text(max_size=12),
    max_size=8,
)

TAG_NUMBERS = [256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 284, 317, 320, 322, 323, 330, 338, 339, 530, 50838]
TAG_VALUES = st.lists(st.integers(0, 20) | st.sampled_from([64, 127]), max_size=4)
TAGS = st.dictionaries(
    st.sampled_from(TAG_NUMBERS), st.tuples(st.sampled_from([1, 3, 4, 8, 9, 16]), TAG_VALUES), max_size=4
)

NPY_TYPES = ["|b1", "<f8", "|O", "<U3", "", "x", ">i2", "V5"]
SIDES = st.integers(-3, 9) | st.sampled_from([1 << 40, 1 << 70])
NPY_HEADERS = st.text(max_size=80) | st.builds(
    "{{'descr': {!r}, 'fortran_order': {}, 'shape': {}}}".format,
    st.sampled_from(NPY_TYPES),
    st.booleans(),
    st.lists(SIDES, max_size=3).map(tuple),
)


def check(path, data, read):
    path.write_bytes(data)
    try:
        found = read(path)
    except InputError as error:
        assert error.path == str(path) and error.expected and error.found and error.advice
    else:
        assert found is not None


def read_volume(path):
    volume = open_volume(path)
    voxels = volume.read()
    assert voxels.shape == volume.shape and voxels.dtype == volume.dtype and voxels.ndim == 3
    assert volume.voxel_size_nm is None or all(np.isfinite(size) and size > 0 for size in volume.voxel_size_nm)
    return voxels


@ANYWHERE
@given(st.lists(st.tuples(st.integers(0, 1016).map(lambda at: at // 4 * 4), WORDS), max_size=6))
def test_mrc(tmp_path, changes):
    check(tmp_path / "v.mrc", mrc_bytes({at: ("i", word) for at, word in changes}), read_volume)


@ANYWHERE
@given(st.lists(st.tuples(st.integers(0, 346), st.integers(-(1 << 15), (1 << 15) - 1)), max_size=6))
def test_nifti(tmp_path, changes):
    check(tmp_path / "v.nii", nifti_bytes({at: ("h", word) for at, word in changes}), read_volume)


@ANYWHERE
@given(LINES)
def test_nrrd(tmp_path, lines):
    fields = {name: value.encode("utf-8", "replace").decode() for name, value in lines.items()}
    check(tmp_path / "v.nrrd", nrrd_bytes(fields), read_volume)


@ANYWHERE
@given(st.binary(max_size=300))
def test_nrrd_of_any_bytes(tmp_path, data):
    check(tmp_path / "v.nrrd", b"NRRD000" + data, read_volume)


TAGS = st.dictionaries(
    st.sampled_from(
        [256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 284, 317, 320, 322, 323, 330, 338, 339, 530, 50838]
    ),
    st.tuples(
        st.sampled_from([1, 3, 4, 8, 9, 16]), st.lists(st.integers(0, 20) | st.sampled_from([127, 64, 0]), max_size=4)
    ),
    max_size=4,
)


@ANYWHERE
@given(TAGS, st.booleans())
def test_tiff(tmp_path, tags, big):
    data = tiff_bytes({**a_page(), **tags}, bytes(64), big=big)
    check(tmp_path / "v.tif", data, read_volume)
    check(tmp_path / "a.tif", data, read_image)


@ANYWHERE
@given(st.binary(max_size=200))
def test_png_of_any_chunks(tmp_path, data):
    check(tmp_path / "a.png", PNG_SIGNATURE + data, read_image)


@ANYWHERE
@given(NPY_HEADERS, st.binary(max_size=100), st.sampled_from([1, 2, 3, 7]))
def test_npy(tmp_path, text, data, version):
    text = text.encode("latin1", "replace").decode("latin1")
    check(tmp_path / "a.npy", npy_with_header(text, data, version), read_npy)


@ANYWHERE
@given(st.sampled_from([b"RIFF", b"\0\0\0\x10ftyp", b""]), st.binary(max_size=200))
def test_video_containers(tmp_path, start, data):
    check(tmp_path / "a.mp4", start + data, find_missing)


@pytest.mark.parametrize("name", ["v.mrc", "v.nrrd", "v.nii", "v.tif", "v.mrc.gz", "v.nii.gz"])
@ANYWHERE
@given(data=st.binary(max_size=120))
def test_any_bytes(tmp_path, name, data):
    check(tmp_path / name, data, read_volume)
