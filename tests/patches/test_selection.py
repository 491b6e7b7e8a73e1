"""What a path list names of each section, against a plain reading of the names."""

from collections import defaultdict

import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.patches.pathlists import write_path_list
from emcurate.patches.selection import Selection


@pytest.fixture
def select(tmp_path):
    def select(paths):
        write_path_list(tmp_path / "list", paths)
        return Selection(tmp_path / "list")

    return select


def test_patches_of_each_section_are_found_whatever_they_lie_in(select):
    random = np.random.default_rng(0)
    sections = ["fly-LOC-0_007", "fly-LOC-1_7", "a b_1-LOC-2d", "ö.x-LOC-2d-_3_4", "fly-LOC-2d"]
    expected = defaultdict(list)
    paths = []
    for _ in range(200):
        section = sections[random.integers(4)]
        y, x = (int(n) for n in random.integers(0, 3000, 2))
        if (y, x) not in expected[section]:
            expected[section].append((y, x))
            place = ("/p/", "/p/fly-00003.tar/", "c:\\p\\")[random.integers(3)]
            paths.append(f"{place}{section}_{y}_{x}.tiff")
    selection = select(paths)
    np.save(selection.path / "0.npy", np.array(paths))  # as Windows has them, where all are absolute
    selection = Selection(selection.path)
    assert set(selection.sections()) == expected.keys()
    assert len(selection) == len(paths)
    for section in sections:
        assert selection.has_any(section) == bool(expected[section])
        corners = selection.corners(section)
        assert corners.shape == (len(expected[section]), 2)
        assert corners.tolist() == sorted(map(list, expected[section]))


def test_a_patch_that_is_named_twice_counts_once(select):
    names = ["/p/a-LOC-2d_0_16.tiff", "/p/a-00000.tar/a-LOC-2d_0_16.tiff", "/p/a-LOC-2d_0_0.tiff"]
    twice, once = select(names), select(names[1:])
    assert len(twice) == 2
    assert twice.corners("a-LOC-2d").tolist() == [[0, 0], [0, 16]]
    assert twice.digest("a-LOC-2d") == once.digest("a-LOC-2d")


def test_the_digest_tells_other_patches_of_a_section_and_not_their_order(select):
    names = [f"/p/{section}_{y}_0.tiff" for section in ("a-LOC-2d", "b-LOC-2d") for y in (0, 16, 32)]
    all_of_them, turned = select(names), select(names[::-1])
    fewer = select(names[1:])
    for section in ("a-LOC-2d", "b-LOC-2d"):
        assert all_of_them.digest(section) == turned.digest(section)
        assert (all_of_them.digest(section) == fewer.digest(section)) == (section == "b-LOC-2d")


@pytest.mark.parametrize(
    "name", ["holiday.png", "a-LOC-2d_0.tiff", "a-LOC-2d_0_-4.tiff", "a-LOC-2d_0_99999999999.tiff"]
)
def test_what_is_no_patch_is_named(select, name):
    with pytest.raises(InputError) as caught:
        select(["/p/a-LOC-2d_0_0.tiff", f"/p/{name}"])
    assert name in str(caught.value)
