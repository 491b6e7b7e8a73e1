"""Several sections examined at once tell what each tells by itself."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emcurate.patches import examining
from emcurate.patches.cuts import pack_bits
from emcurate.patches.cutting import list_places
from emcurate.patches.examining import examine, in_groups, stack
from emcurate.patches.hashing import HASHES
from emcurate.patches.measures import measure_places
from emcurate.patches.orientations import hash_places_turned
from emcurate.patches.section_hashes import hash_places

RNG = np.random.default_rng(0)
CROP = 16


@dataclass(frozen=True)
class Section:
    pixels: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class How:
    hash: str = HASHES[0]
    orientations: bool = False
    crop_size: int = CROP
    hash_size: int = 8


def make(*shapes):
    pixels = [RNG.integers(0, 256, shape).astype(np.uint8) for shape in shapes]
    return [Section(p, list_places(*p.shape, CROP, 3)) for p in pixels]


def check(group, how):
    for section, found in zip(group, examine(group, how, measured=True), strict=True):
        arguments = (section.pixels, section.places, CROP, 8, how.hash)
        if how.orientations:
            turned = hash_places_turned(*arguments)
            assert np.array_equal(found.hashes, turned[:, 0])
            packed = [pack_bits(hashes).ravel() for hashes in turned]
            assert found.packed.tolist() == [bits.tolist() for bits in packed]
        else:
            assert np.array_equal(found.hashes, hash_places(*arguments))
            assert np.array_equal(found.packed, pack_bits(found.hashes))
        np.testing.assert_array_equal(found.measures, measure_places(section.pixels, section.places))


@pytest.mark.parametrize("orientations", [False, True])
@pytest.mark.parametrize("kind", HASHES)
def test_sections_of_any_heights_are_examined_as_by_themselves(kind, orientations):
    check(make((40, 50), (16, 50), (2, 50), (70, 50)), How(kind, orientations))


@given(st.lists(st.sampled_from([(40, 50), (33, 50), (16, 16), (2, 50), (1, 1)]), max_size=8), st.integers(1, 6000))
def test_groups_hold_all_sections_in_their_order(shapes, most):
    sections = make(*shapes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examining, "GROUP_PIXELS", most)
        groups = list(in_groups(sections))
    assert [section for group in groups for section in group] == sections
    for group in groups:
        assert len({section.pixels.shape[1] for section in group}) == 1
        assert len(group) == 1 or sum(section.pixels.size for section in group) <= most
        check(group, How())


def test_sections_of_a_slab_are_not_copied():
    slab = RNG.integers(0, 256, (6, 40, 50)).astype(np.uint8)
    tall, rows = stack([slab[4], slab[1], slab[5]])
    assert np.shares_memory(tall, slab) and rows == [160, 40, 200]
    places = list_places(40, 50, CROP, 3)
    check([Section(slab[i], places) for i in (4, 1, 5)], How())


@pytest.mark.parametrize(
    "sections",
    [
        lambda slab: [slab[0, :30], slab[1, :30]],
        lambda slab: [slab[:, 3], slab[:, 4]],
        lambda slab: [slab[0][::-1], slab[1]],
        lambda slab: [slab[0].T, slab[1].T],
        lambda slab: [slab[0], slab[1].copy()],
        lambda slab: [np.asfortranarray(slab)[0], np.asfortranarray(slab)[1]],
        lambda slab: [np.frombuffer(slab.tobytes(), np.uint8).reshape(slab.shape)[i] for i in (2, 3)],
    ],
    ids=["parts", "another axis", "upside down", "turned", "one of another", "columns first", "of bytes"],
)
def test_sections_that_lie_otherwise_are_the_same(sections):
    some = sections(RNG.integers(0, 256, (6, 40, 50)).astype(np.uint8))
    tall, rows = stack(some)
    for section, row in zip(some, rows, strict=True):
        assert np.array_equal(tall[row : row + len(section)], section)
    check([Section(section, list_places(*section.shape, CROP, 3)) for section in some], How())
