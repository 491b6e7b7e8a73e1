import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from emcurate.contents import npy_bytes
from emcurate.errors import InputError
from emcurate.patches.hashing import compute_dhash, hamming_distance, pack_hashes, read_hash

RNG = np.random.default_rng(0)


def make_patch(height, width):
    noise = RNG.integers(0, 256, (height, width)).astype(np.uint8)
    ramp = np.add.outer(np.arange(height), np.arange(width)) % 256
    return ((noise + ramp) // 2).astype(np.uint8)


@pytest.mark.parametrize("hash_size", range(2, 17))
@pytest.mark.parametrize(("shape", "crop"), [((224, 224), 224), ((224, 131), 224), ((64, 40), 64), ((9, 300), 128)])
def test_hash_equals_imagehash(shape, crop, hash_size):
    patch = make_patch(*shape)
    expected = imagehash.dhash(Image.fromarray(patch).resize((crop, crop), resample=2), hash_size).hash
    bits = compute_dhash(patch, crop, hash_size)
    assert bits.dtype == np.bool_
    assert np.array_equal(bits, expected)


def test_real_patches_hash_like_imagehash(real_data):
    for path in sorted((real_data / "images2d" / "mixed_patches").iterdir()):
        patch = np.asarray(Image.open(path).convert("L"))
        expected = imagehash.dhash(Image.fromarray(patch).resize((224, 224), resample=2), 8).hash
        assert np.array_equal(compute_dhash(patch, 224, 8), expected)


@given(side=st.integers(2, 17), data=st.data())
def test_distance_counts_differing_bits(side, data):
    first, second = (data.draw(hnp.arrays(bool, (3, side, side))) for _ in range(2))
    expected = (first != second).sum(axis=(1, 2))
    assert np.array_equal(hamming_distance(pack_hashes(first), pack_hashes(second)), expected)


@pytest.mark.parametrize("side", [2, 8, 11, 16])
def test_hash_files_are_read_whoever_wrote_them(tmp_path, side):
    bits = RNG.random((side, side)) < 0.5
    path = tmp_path / "a.npy"
    path.write_bytes(npy_bytes(bits))
    assert np.array_equal(read_hash(path), bits)
    np.save(path, np.asfortranarray(bits))
    assert np.array_equal(read_hash(path), bits)
    with open(path, "wb") as file:
        np.lib.format.write_array(file, bits, version=(2, 0))
    assert np.array_equal(read_hash(path), bits)


@pytest.mark.parametrize("array", [np.zeros((8, 8)), np.zeros((8, 9), bool), np.zeros(64, bool)])
def test_other_arrays_are_no_hashes(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match="square boolean array"):
        read_hash(tmp_path / "a.npy")


@pytest.mark.parametrize("kept", [0, 5, 60, 150])
def test_truncated_hash(tmp_path, kept):
    path = tmp_path / "a.npy"
    path.write_bytes(npy_bytes(np.ones((8, 8), bool))[:kept])
    with pytest.raises(InputError, match=r"a\.npy"):
        read_hash(path)
