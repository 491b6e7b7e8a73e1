"""Datasets covered together, and leaks, also where the blank share of patches counts: against one-by-one loops."""

import numpy as np
import pytest

from emcurate.patches.covering import Covered, cover_each, cover_together
from emcurate.patches.datasets import Hashes
from emcurate.patches.duplicates import Cover
from emcurate.patches.leaks import find_leaks
from emcurate.patches.names import as_names
from emcurate.patches.other_sets import OtherSet
from tests.patches.test_nearest import make_seen, pack

DISTANCE = 8


def make_datasets(turned):
    """Three datasets whose hashes are near to each other's, with blank shares."""
    rng = np.random.default_rng(1)
    seen = make_seen(rng, 300, 8)
    if not turned:
        centres = rng.random((40, 1, 8, 8)) < 0.5
        seen = centres[rng.integers(0, 40, 300)] ^ (rng.random((300, 1, 8, 8)) < 0.06)
    blank = rng.choice([0.0, 0.02, 0.3, 0.31, 0.8], len(seen))
    datasets = []
    for number, name in enumerate(("wing", "eye", "fly")):
        part = slice(100 * number, 100 * (number + 1))
        names = as_names(f"{name}-LOC-0_{i:03d}_0_0" for i in range(100))
        words = pack(seen[part])
        of_all = words if turned else None
        datasets.append((name, Hashes(names, words[:, 0].copy(), 8, saturated=blank[part], turned=of_all)))
    return datasets, seen, blank


def allow(blank):
    return round(DISTANCE * (1 - blank))


@pytest.mark.parametrize("guards", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_datasets_together_are_covered_as_one(turned, guards):
    datasets, seen, blank = make_datasets(turned)
    order = [*range(100, 200), *range(200, 300), *range(100)]  # by name: eye, fly, wing
    owner, kept = {}, []
    for i in order:
        for k in kept:
            bits = (seen[i] != seen[k][0]).sum(axis=(1, 2)).min()
            if bits <= (allow(blank[i]) if guards else DISTANCE) and (not guards or allow(blank[i]) == allow(blank[k])):
                owner[i] = (k, bits)
                break
        else:
            owner[i] = (i, 0)
            kept.append(i)
    assert any(i // 100 != k // 100 for i, (k, _) in owner.items()) and len(kept) < 290
    names = [name for _, read in datasets for name in read.names.to_pylist()]
    expected = {names[i]: (names[k], bits) for i, (k, bits) in owner.items()}
    found, masked = {}, 0
    for each in cover_together(datasets, "name", 0, Cover(DISTANCE), blank_guard=guards):
        groups = each.groups
        found |= {
            groups.patches[i].as_py(): (groups.patches[int(groups.exemplar[i])].as_py(), int(groups.distance[i]))
            for i in groups.places.tolist()
        }
        masked += each.count_masked(DISTANCE)
        assert [groups.patches[i].as_py() for i in groups.exemplars.tolist()] == [
            name for name in each.read.names.to_pylist() if expected[name][0] == name
        ]
    assert found == expected
    too_far = sum(bits > allow(max(blank[i], blank[k])) for i, (k, bits) in owner.items())
    assert masked == too_far and (masked == 0) == guards


def test_the_largest_groups_are_told_of_by_the_dataset_of_their_exemplar():
    datasets, _, _ = make_datasets(False)
    covered = list(cover_together(datasets, "random", 3, Cover(DISTANCE)))
    whole = covered[0].whole
    of_each = [group for each in covered for group in each.largest(400, 400)]
    assert sorted(map(str, of_each)) == sorted(map(str, whole.largest(400, 400)))
    for each in covered:
        for size, members in each.largest(400, 400):
            assert members[0][0].startswith(f"{each.name}-LOC-") and members[0][1] == 0 and size == len(members)
    alone = list(cover_each(datasets, "random", 3, Cover(DISTANCE)))
    assert isinstance(alone[0], Covered) and all(each.whole is each.groups for each in alone)


def test_leaks_are_fewer_bits_away_the_more_is_blank():
    datasets, seen, blank = make_datasets(True)
    _, read = datasets[0]
    rng = np.random.default_rng(2)
    others = seen[:100:2, 0] ^ (rng.random((50, 8, 8)) < 0.05)
    other = OtherSet(None, True, as_names(map(str, range(50))), np.full((50, 2), -1, np.int32), pack(others))
    distances = np.array([[(hashes != there).sum(axis=(1, 2)).min() for there in others] for hashes in seen[:100]])
    for shares, allowed in ((None, np.full(100, DISTANCE)), (blank[:100], np.array(list(map(allow, blank[:100]))))):
        leaks = find_leaks(read.names, read.seen, other, DISTANCE, 1, shares)
        expected = np.flatnonzero(distances.min(axis=1) <= allowed)
        assert leaks.rows.tolist() == expected.tolist() and 0 < len(expected) < 100
        assert leaks.bits.tolist() == distances.min(axis=1)[expected].tolist()
        assert leaks.place.tolist() == distances.argmin(axis=1)[expected].tolist()
