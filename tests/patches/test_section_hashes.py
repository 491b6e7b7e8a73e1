from concurrent.futures import ThreadPoolExecutor

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emcurate.patches import section_hashes
from emcurate.patches.hashing import HASHES
from emcurate.patches.section_hashes import _borrow_memory, hash_by_loops, hash_by_products, hash_section
from tests.textures import make_texture

RNG = np.random.default_rng(0)

# Pixels of 0 and 255 side by side drive the Lanczos kernel out of a byte's range, where Pillow clips.
PICTURES = {
    "noise": lambda shape: RNG.integers(0, 256, shape),
    "black and white noise": lambda shape: RNG.integers(0, 2, shape) * 255,
    "nearly constant": lambda shape: RNG.integers(127, 129, shape),
    "black": np.zeros,
    "white": lambda shape: np.full(shape, 255),
    "gradient": lambda shape: np.add.outer(np.arange(shape[0]), 2 * np.arange(shape[1])) % 256,
    "checkerboard": lambda shape: np.add.outer(np.arange(shape[0]) // 7, np.arange(shape[1]) // 7) % 2 * 255,
    "edge": lambda shape: np.add.outer(np.arange(shape[0]), np.arange(shape[1])) // (sum(shape) // 2) * 255,
    "texture": lambda shape: make_texture((1, *shape))[0],
}


def make_picture(name, shape):
    return PICTURES[name](shape).astype(np.uint8)


WAYS = [hash_by_loops, hash_by_products]
in_both_ways = pytest.mark.parametrize("hash_patches", WAYS, ids=["loops", "products"])


def corners(rows, columns):
    return np.array([(row, column) for row in rows for column in columns], np.int32).reshape(-1, 2)


def hash_by_imagehash(section, rows, columns, crop, hash_size):
    return np.array(
        [
            imagehash.dhash(Image.fromarray(section[row : row + crop, column : column + crop]), hash_size).hash
            for row in rows
            for column in columns
        ]
    )


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("hash_size", [2, 3, 8, 11, 16, 64])
@pytest.mark.parametrize("crop", [2, 9, 17, 64, 128, 224])
def test_patches_hash_like_imagehash(crop, hash_size, name):
    section = make_picture(name, (2 * crop + 3, 3 * crop))
    rows, columns = [0, crop], [0, crop, 2 * crop]
    expected = hash_by_imagehash(section, rows, columns, crop, hash_size)
    for hash_patches in WAYS:
        hashes = hash_patches(section, corners(rows, columns), crop, hash_size)
        assert (hashes.dtype, hashes.shape) == (bool, (6, hash_size, hash_size))
        assert np.array_equal(hashes, expected)


@given(
    crop=st.integers(2, 150),
    hash_size=st.integers(2, 64),
    name=st.sampled_from(sorted(PICTURES)),
    spare=st.tuples(st.integers(0, 80), st.integers(0, 80)),
    data=st.data(),
)
def test_any_sizes_and_places_hash_like_imagehash(crop, hash_size, name, spare, data):
    section = make_picture(name, (crop + spare[0], crop + spare[1]))
    rows, columns = (data.draw(st.lists(st.integers(0, s), min_size=1, max_size=3)) for s in spare)
    expected = hash_by_imagehash(section, rows, columns, crop, hash_size)
    for hash_patches in WAYS:
        assert np.array_equal(hash_patches(section, corners(rows, columns), crop, hash_size), expected)


@in_both_ways
@pytest.mark.parametrize(("crop", "hash_size", "side"), [(16, 8, 1600), (700, 64, 700), (1300, 8, 1300)])
def test_more_than_one_batch_or_one_product_holds(crop, hash_size, side, hash_patches):
    section = RNG.integers(0, 256, (side, side)).astype(np.uint8)
    starts = range(0, side, crop)
    expected = hash_by_imagehash(section, starts, starts, crop, hash_size)
    assert np.array_equal(hash_patches(section, corners(starts, starts), crop, hash_size), expected)


@in_both_ways
@pytest.mark.parametrize(
    "view",
    [np.asfortranarray, np.transpose, lambda a: a[::-1, ::2], lambda a: np.stack([a, a], axis=-1)[..., 1]],
    ids=["columns first", "transposed", "every other pixel", "one channel"],
)
def test_sections_lie_in_memory_as_they_like(view, hash_patches):
    section = view(RNG.integers(0, 256, (100, 200)).astype(np.uint8))
    expected = hash_by_imagehash(np.ascontiguousarray(section), [0, 40], [0, 30, 50], 50, 8)
    assert np.array_equal(hash_patches(section, corners([0, 40], [0, 30, 50]), 50, 8), expected)


def test_corners_outside_a_section_are_refused_before_a_pointer_goes_there():
    section = np.zeros((20, 30), np.uint8)
    for row, column in ((1, 0), (0, 11), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="outside a section"):
            hash_by_loops(section, corners([0, row], [0, column]), 20, 8)


def test_loops_are_taken_once_they_pay(monkeypatch):
    section, some = make_picture("noise", (64, 64)), corners([0, 32], [0, 32])
    taken = []
    for way in WAYS:
        monkeypatch.setattr(section_hashes, way.__name__, lambda *a, way=way: taken.append(way) or way(*a))
    monkeypatch.setattr(section_hashes.LOOPS, "_function", None)
    monkeypatch.setattr(section_hashes.LOOPS, "_done", 0)
    monkeypatch.setattr(section_hashes.LOOPS, "loaded_from", 8)
    monkeypatch.setattr(section_hashes.LOOPS, "compiled_from", 8)
    found = [section_hashes.hash_patches(section, some, 32, 8) for _ in range(4)]
    assert taken == [hash_by_products, hash_by_loops, hash_by_loops, hash_by_loops]
    assert all(np.array_equal(hashes, found[0]) for hashes in found)


def test_threads_share_no_memory():
    with ThreadPoolExecutor(1) as thread:
        theirs = thread.submit(_borrow_memory, 4, 5).result()
        assert not np.shares_memory(theirs, _borrow_memory(4, 5))


@in_both_ways
@pytest.mark.parametrize(("rows", "columns"), [([], [0]), ([0], []), ([], [])])
def test_no_patches_have_no_hashes(rows, columns, hash_patches):
    assert hash_patches(np.zeros((10, 10), np.uint8), corners(rows, columns), 50, 8).shape == (0, 8, 8)


@in_both_ways
def test_real_patches_hash_like_imagehash(real_data, hash_patches):
    for path in sorted((real_data / "images2d").rglob("*.[jp][pn]g"))[::4]:
        section = np.asarray(Image.open(path).convert("L"))
        rows, columns = (range(0, min(side, 900) - 127, 97) for side in section.shape)
        for hash_size in (8, 16):
            expected = hash_by_imagehash(section, rows, columns, 128, hash_size)
            assert np.array_equal(hash_patches(section, corners(rows, columns), 128, hash_size), expected)


@pytest.mark.parametrize("kind", HASHES)
@pytest.mark.parametrize("shape", [(64, 64), (130, 200), (120, 250), (64, 40), (40, 64), (20, 20), (1, 300)])
def test_whole_sections_hash_like_imagehash(shape, kind):
    # Crop 64: some end in a smaller patch on one side or on both, some are smaller than one patch.
    function = {"ahash": imagehash.average_hash}.get(kind) or getattr(imagehash, kind)
    section = make_picture("texture", shape)
    rows, columns = (max(1, round(side / 64)) for side in shape)
    expected = [
        function(Image.fromarray(section[64 * i :, 64 * j :][:64, :64]).resize((64, 64), resample=2), 8).hash
        for i in range(rows)
        for j in range(columns)
    ]
    hashes = hash_section(section, 64, 8, kind)
    assert hashes.dtype == bool
    assert np.array_equal(hashes, expected)
