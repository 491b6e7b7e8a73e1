"""The nearest of other hashes, and covering patches in all their orientations: each against one-by-one loops."""

import imagehash
import numpy as np
import pytest
from PIL import Image

from emcurate.patches import duplicates, exemplars, nearest, substrings
from emcurate.patches.duplicates import Cover, cover_greedily, find_groups
from emcurate.patches.hashing import pack_hashes
from emcurate.patches.names import as_names
from emcurate.patches.nearest import find_nearest
from emcurate.patches.orientations import hash_orientations
from tests.textures import make_texture


def hash_naively(patch, side, kind=imagehash.dhash):
    """Imagehash's of a patch in the eight orientations, turned by Pillow."""
    image = Image.fromarray(patch)
    turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return [
        kind(seen if turn is None else seen.transpose(turn), hash_size=side).hash
        for seen in (image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        for turn in turns
    ]


@pytest.mark.parametrize("side", [8, 5, 9])
@pytest.mark.parametrize("size", [64, 37])
def test_hashes_of_orientations_are_those_of_imagehash(side, size):
    for patch in make_texture((4, size, size)):
        assert (hash_orientations(patch, size, side) == hash_naively(patch, side)).all()


def test_an_odd_patch_is_resized_first_and_any_hash_can_be_asked_for():
    patch = make_texture((1, 30, 64))[0]
    for kind, function in (("phash", imagehash.phash), ("dhash", imagehash.dhash)):
        found = hash_orientations(patch, 64, 8, kind)
        # Turned first, and then brought to the size of a patch.
        for hashed, turned in zip(found[:4], (np.rot90(patch, k) for k in range(4)), strict=True):
            image = Image.fromarray(np.ascontiguousarray(turned)).resize((64, 64), Image.Resampling.BILINEAR)
            assert (hashed == function(image).hash).all()


def make_seen(rng, count, side):
    """Hashes in clouds, each in eight orientations, of which some are near to another cloud's."""
    centres = rng.random((max(2, count // 8), side, side)) < 0.5
    seen = rng.random((count, 8, side, side)) < 0.5
    which = rng.integers(0, 8, count)
    seen[np.arange(count), which] = centres[rng.integers(0, len(centres), count)]
    seen[np.arange(count), which] ^= rng.random((count, side, side)) < 0.06
    return seen


def pack(seen):
    packed = pack_hashes(seen.reshape(-1, *seen.shape[-2:]))
    return packed.reshape(*seen.shape[:-2], -1)


def cover_naively(seen, distance):
    """A patch that is close in any orientation to an exemplar, as that is, belongs to the first such."""
    owner, kept = [], []
    for i, turned in enumerate(seen):
        close = (k for k in kept if (turned != seen[k][0]).sum(axis=(1, 2)).min() <= distance)
        owner.append(next(close, i))
        if owner[-1] == i:
            kept.append(i)
    return owner


@pytest.mark.parametrize("side", [6, 8, 10])
def test_orientations_are_covered_as_by_the_naive_loop(side, monkeypatch):
    rng = np.random.default_rng(side)
    seen = make_seen(rng, 400, side)
    distance = side * side // 8
    expected = cover_naively(seen, distance)
    assert 10 < len(set(expected)) < 390
    words = pack(seen)
    assert Cover(distance).find(words).tolist() == expected  # by numpy
    assert cover_greedily(words, distance, threads=2).tolist() == expected
    monkeypatch.setattr(duplicates, "BLOCK", 32)
    monkeypatch.setattr(exemplars, "TABLES_FROM", 20)
    monkeypatch.setattr(exemplars, "THREADS_FROM", 0)
    monkeypatch.setattr(exemplars, "PART_QUERIES", 7)
    monkeypatch.setattr(substrings, "GAIN", 0)
    assert cover_greedily(words, distance, threads=2).tolist() == expected
    order = rng.permutation(len(seen))
    groups = find_groups(as_names(map(str, range(len(seen)))), words, order, Cover(distance))
    for i, (k, bits) in enumerate(zip(groups.exemplar, groups.distance, strict=True)):
        assert bits == (seen[i] != seen[k][0]).sum(axis=(1, 2)).min() <= distance


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("side", [8, 9])
def test_the_nearest_is_that_of_the_naive_loop(side, turned, monkeypatch):
    rng = np.random.default_rng(side)
    seen = make_seen(rng, 150, side)
    others = np.concatenate([seen[::3, 0] ^ (rng.random((50, side, side)) < 0.05), seen[:40, 0], seen[:20, 3]])
    asked = seen if turned else seen[:, 0]
    differing = (seen[:, :, None] != others[None, None]).sum(axis=(3, 4))
    differing = differing.min(axis=1) if turned else differing[:, 0]
    distance = 9
    near = differing.min(axis=1) <= distance
    assert 20 < near.sum() < 150
    place, bits = np.where(near, differing.argmin(axis=1), -1), np.where(near, differing.min(axis=1), 0)
    assert len(set(bits.tolist())) > 3

    def found():
        return [each.tolist() for each in find_nearest(pack(asked), pack(others), distance, threads=2)]

    expected = [place.tolist(), bits.tolist()]
    assert found() == expected
    monkeypatch.setattr(nearest, "AT_ONCE", 1)
    assert found() == expected
    monkeypatch.setattr(nearest, "COMPARISONS", 0)
    assert found() == expected
    monkeypatch.setattr(exemplars, "TABLES_FROM", 0)
    monkeypatch.setattr(exemplars, "PART_QUERIES", 7)
    monkeypatch.setattr(substrings, "GAIN", 0)
    assert found() == expected


def test_nothing_is_near_where_there_is_nothing():
    none = np.zeros((0, 1), np.uint64)
    for first, second in ((none, none), (none, none + 1), (np.ones((2, 1), np.uint64), none)):
        place, bits = find_nearest(first, second, 3)
        assert place.tolist() == [-1] * len(first) and bits.tolist() == [0] * len(first)
