"""The order in which patches that look alike are neighbours."""

import numpy as np
import pytest
from PIL import Image

from emcurate.images.sections import write_section
from emcurate.labeling.order import order_by_similarity
from emcurate.labeling.similarity import describe_patch, describe_patches
from emcurate.patches.hashing import hamming_distance, pack_hashes

imagehash = pytest.importorskip("imagehash")


def spread(features, order, page=12):
    """The mean distance, squared, of two patches on one page."""
    pages = [features[order[i : i + page]] for i in range(0, len(order) - page, page)]
    return np.mean([np.square(rows[:, None] - rows).sum(-1).sum() / (page * (page - 1)) for rows in pages])


def blobs(generator, kinds, each, dimensions=64, noise=4):
    """Random hashes, each with some near-duplicates, as +-0.5; and which belong together."""
    centres = generator.random((kinds, dimensions)) < 0.5
    bits = np.repeat(centres, each, axis=0)
    for row in bits:
        row[generator.choice(dimensions, noise, replace=False)] ^= True
    shuffled = generator.permutation(len(bits))
    return (bits[shuffled] - np.float32(0.5)).astype(np.float32), np.repeat(np.arange(kinds), each)[shuffled]


def test_near_duplicates_are_neighbours():
    features, kind = blobs(np.random.default_rng(0), kinds=60, each=20)
    order = order_by_similarity(features)
    assert sorted(order) == list(range(1200))
    assert np.mean(kind[order[1:]] == kind[order[:-1]]) > 0.85
    assert spread(features, order) < 0.5 * spread(features, np.arange(1200))


def test_the_order_is_that_of_the_list_whatever_it_is_run_on_and_equal_patches_keep_theirs():
    features, _ = blobs(np.random.default_rng(1), kinds=10, each=30)
    assert order_by_similarity(features).tolist() == order_by_similarity(features.copy()).tolist()
    same = np.zeros((100, 64), np.float32)
    assert order_by_similarity(same).tolist() == list(range(100))


def test_patches_that_cannot_be_read_come_last_and_few_or_none_are_no_trouble():
    features, _ = blobs(np.random.default_rng(2), kinds=5, each=10)
    features[[3, 30]] = np.nan
    assert order_by_similarity(features)[-2:].tolist() == [3, 30]
    assert order_by_similarity(features[:0]).tolist() == []
    assert order_by_similarity(features[:1]).tolist() == [0]
    assert order_by_similarity(np.full((3, 64), np.nan, np.float32)).tolist() == [0, 1, 2]


def test_a_hundred_thousand_patches_are_ordered_without_comparing_each_with_each(monkeypatch):
    from emcurate.labeling import order as module

    compared = []
    chain = module._chain
    monkeypatch.setattr(module, "_chain", lambda some, before: compared.append(len(some)) or chain(some, before))
    features = np.random.default_rng(3).random((100_000, 8)).astype(np.float32)
    assert np.array_equal(np.sort(order_by_similarity(features)), np.arange(100_000))
    assert sum(compared) == 100_000 and max(compared) <= module.CHAINED


def test_distances_are_those_of_imagehashs_hashes_where_contrast_is_the_same():
    generator = np.random.default_rng(4)
    patches = [generator.integers(0, 256, (8, 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8) for _ in range(6)]
    rows = np.array([describe_patch(patch) for patch in patches])
    hashes = pack_hashes(np.array([imagehash.dhash(Image.fromarray(patch)).hash for patch in patches]))
    squared = np.square(rows[:, None, :-1] - rows[:, :-1]).sum(-1)
    assert squared.astype(int).tolist() == hamming_distance(hashes[:, None], hashes).tolist()


def test_empty_patches_lie_together_though_their_hashes_have_nothing_in_common(tmp_path):
    generator = np.random.default_rng(5)
    patches, resin = [], generator.permutation(400) < 100
    for empty in resin:
        coarse = generator.integers(0, 256, (8, 8)).repeat(8, 0).repeat(8, 1)
        patch = generator.normal(180, 6, (64, 64)) if empty else coarse + generator.normal(0, 6, (64, 64))
        patches.append(np.clip(patch, 0, 255).astype(np.uint8))
    paths = []
    for number, patch in enumerate(patches):
        paths.append(str(tmp_path / f"fly-LOC-0_{number:03d}_0_0.tiff"))
        write_section(tmp_path / f"fly-LOC-0_{number:03d}_0_0.tiff", patch)
    told = []
    features = describe_patches([*paths, str(tmp_path / "gone.tiff")], lambda done, total: told.append((done, total)))
    assert told[-1] == (401, 401)
    assert np.isnan(features[-1]).all() and not np.isnan(features[:-1]).any()
    placed = resin[order_by_similarity(features)[:-1]]
    whole_pages = sum(placed[i : i + 10].all() for i in range(0, 400, 10))
    assert whole_pages >= 8, "of ten pages' worth of resin"
