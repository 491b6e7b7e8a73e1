"""Names of patches in lists: the same wherever a list lies, and never one name for two patches."""

from __future__ import annotations

import numpy as np
import pytest

from emcurate.patches.list_names import ListNames, hash_names, patch_name, tell_apart


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/fly-LOC-2d_0_0.tiff", "fly-LOC-2d_0_0.tiff"),
        ("fly-LOC-2d_0_0.tiff", "fly-LOC-2d_0_0.tiff"),
        ("/a/fly-00000.tar/fly-LOC-2d_0_0.tiff", "fly-LOC-2d_0_0.tiff"),
        (r"D:\a b\fly-LOC-2d_0_0.tiff", "fly-LOC-2d_0_0.tiff"),
        (r"\\server\share\fly-LOC-2d_0_0.tiff", "fly-LOC-2d_0_0.tiff"),
        (r"/a/odd\name-LOC-2d_0_0.tiff", r"odd\name-LOC-2d_0_0.tiff"),
    ],
)
def test_a_name_is_the_last_component(path, name):
    assert patch_name(path) == name


def test_names_are_found_by_a_plain_loop_and_by_the_index_alike():
    random = np.random.default_rng(0)
    paths = [f"/p/{random.integers(4)}/{random.integers(3)}/{random.integers(60)}.png" for _ in range(400)]
    names = ListNames(paths)
    for index, path in enumerate(paths):
        same = [i for i, other in enumerate(paths) if other == path]
        assert names.find(names[index]) == same
        assert f"/{path}".endswith(f"/{names[index]}")
        # No other patch of the list can be meant by the name.
        assert [i for i, other in enumerate(paths) if other.endswith(f"/{names[index]}")] == same
    assert names.find("none such.png") == names.find("9/9/9.png") == []
    assert names.places_of(hash_names(["none such.png", names[7]])).tolist() == [-1, paths.index(paths[7])]


def test_the_digest_knows_names_and_order_but_no_directory():
    digest = ListNames(["/a/1.png", "/a/2.png"]).digest
    assert ListNames(["/b/c/1.png", "/d/2.png"]).digest == digest
    assert ListNames(["/a/2.png", "/a/1.png"]).digest != digest
    assert ListNames(["/a/1.png", "/a/3.png"]).digest != digest
    assert ListNames(["/a/1.png", "/b/1.png"]).digest != ListNames(["/b/1.png", "/a/1.png"]).digest


def test_no_paths_have_no_names():
    names = ListNames([])
    assert len(names) == 0 and names.find("x") == [] and names.places_of(hash_names(["x"])).tolist() == [-1]


def test_where_a_patch_lay_chooses_among_several_of_its_name_if_it_can():
    names = ListNames(["/new/a.tiff", "/new/p/b.tiff", "/other/q/b.tiff"])
    assert names.find("a.tiff", "/old/a.tiff") == [0]
    assert names.find("b.tiff", "/old/b.tiff") == [], "no reason to guess"
    assert names.find("b.tiff", "/old/q/b.tiff") == [2]
    assert names.find("q/b.tiff") == [2] and names.find("b.tiff") == []


def test_as_many_components_as_it_takes_tell_paths_apart():
    assert tell_apart(["/x/1/a", "/y/1/a", "/y/2/b"]) == {"/x/1/a": "x/1/a", "/y/1/a": "y/1/a", "/y/2/b": "y/2/b"}
    assert tell_apart(["/a", "a"]) == {"/a": "/a", "a": "a"}
    assert tell_apart([]) == {}
