"""Loops kept as machine code: the same as numba's own, made anew where nothing whole is kept, loaded without numba."""

import ctypes
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from emcurate.patches import machine_code, measures

LOOPS = """
import numba
from numba.core import types


@numba.njit(error_model="numpy")
def half(values, at):
    return values[at] // 2


def add_halves(values, count):
    array, total = numba.carray(values, (count,)), 0
    for at in range(count):
        total += half(array, at)
    return total


add_halves = numba.cfunc(types.int64(types.CPointer(types.int64), types.int64), error_model="numpy")(add_halves)
"""
KIND = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)


@pytest.fixture
def loops(tmp_path, monkeypatch):
    """A module of its own with loops, in a directory and with a home where nothing is kept yet."""
    (tmp_path / "loops_of_a_test.py").write_text(LOOPS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    sys.modules.pop("loops_of_a_test", None)
    machine_code._paths.cache_clear()
    machine_code.load.cache_clear()


def load(again=True):
    if again:
        machine_code.load.cache_clear()
    return machine_code.load("loops_of_a_test", "add_halves", KIND)


def check(function):
    values = np.arange(-50, 1000, dtype=np.int64)
    assert function(values.ctypes.data, len(values)) == (values // 2).sum()


def kept(place):
    return sorted(place.rglob("loops_of_a_test-*.o"))


def forbid(monkeypatch):
    monkeypatch.setattr(machine_code, "_emit", lambda *_: pytest.fail("compiled again"))


def test_what_was_compiled_is_kept_and_loaded_from_there(loops, monkeypatch):
    assert not machine_code.is_kept("loops_of_a_test")
    check(load())
    assert machine_code.is_kept("loops_of_a_test") and len(kept(loops / "__pycache__")) == 1
    forbid(monkeypatch)
    check(load())


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_what_is_damaged_is_made_again(loops, damage):
    check(load())
    (path,) = kept(loops)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    path.write_bytes(bytes(flipped) if damage is None else damage)
    assert not machine_code.is_kept("loops_of_a_test")
    check(load())
    assert path.read_bytes() == whole


def test_a_changed_module_has_code_of_its_own(loops):
    check(load())
    (loops / "loops_of_a_test.py").write_text(LOOPS.replace("// 2", "// 3"))
    sys.modules.pop("loops_of_a_test")
    machine_code._paths.cache_clear()
    values = np.arange(100, dtype=np.int64)
    assert load()(values.ctypes.data, len(values)) == (values // 3).sum()
    assert len(kept(loops)) == 2


def test_where_one_place_cannot_be_written_the_next_is_taken_and_without_any_it_runs_as_well(loops, monkeypatch):
    (loops / "__pycache__").write_text("in the way")
    check(load())
    assert [path.parent for path in kept(loops)] == [loops / "cache" / "emcurate"]
    forbid(monkeypatch)
    check(load())
    monkeypatch.undo()
    kept(loops)[0].unlink()
    (loops / "cache" / "emcurate").rmdir()
    (loops / "cache" / "emcurate").write_text("in the way")
    check(load())
    assert not kept(loops)


def test_measures_are_compiled_once_and_then_need_no_compiler(tmp_path, root):
    """In processes of their own, since this one has numba loaded for other tests."""
    code = (
        "import sys, numpy as np\n"
        "from emcurate.patches import measures\n"
        "section = np.random.default_rng(0).integers(0, 256, (80, 90)).astype(np.uint8)\n"
        "places = np.array([[0, 0, 80, 90], [3, 5, 31, 40]] * 600, np.int32)\n"
        "found = measures.measure_places(section, places)\n"
        "alone = [list(measures.measure_patch(section[y:y + h, x:x + w]).values()) for y, x, h, w in places[:2]]\n"
        "assert (found[:2] == alone).all() and (found[-2:] == alone).all()\n"
        "print('numba' in sys.modules, measures._choose_loops(0, 90).__name__)\n"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert found[1] == ["False", "add_up_all_compiled"]


def test_places_outside_a_section_are_refused_before_a_pointer_goes_there():
    section, places = np.zeros((20, 30), np.uint8), np.array([[0, 0, 20, 30], [1, 0, 20, 30]], np.int32)
    counts, edges = np.zeros((2, 256), np.int64), np.zeros((2, 2, 2), np.int64)
    for place in ([1, 0, 20, 30], [0, 1, 20, 30], [-1, 0, 5, 5]):
        places[1] = place
        with pytest.raises(ValueError, match="outside a section"):
            measures.add_up_all_compiled(section, places, counts, edges)


@pytest.mark.parametrize(
    "view",
    [np.asarray, np.asfortranarray, lambda s: s[::2, ::3], lambda s: s[::-1], lambda s: s[:, ::-1], lambda s: s.T],
)
def test_sections_of_any_layout_are_measured_alike(view):
    section = view(np.random.default_rng(1).integers(0, 256, (90, 120)).astype(np.uint8))
    height, width = (side // 2 for side in section.shape)
    places = np.array([[0, 0, height, width], [height, width, height, width], [1, 2, 3, 4], [5, 5, 1, 9]], np.int32)
    found = []
    for add_up in (measures.add_up_all_compiled, measures.add_up_all_plainly):
        counts, edges = np.zeros((4, 256), np.int64), np.zeros((4, 2, 2), np.int64)
        add_up(section, places, counts, edges)
        found.append((counts.tolist(), edges.tolist()))
    assert found[0] == found[1]


def test_a_section_of_one_row_is_measured_whatever_its_stride_says():
    row = np.random.default_rng(2).integers(0, 256, 200).astype(np.uint8)
    places = np.array([[0, 0, 1, 16], [0, 16, 1, 24]], np.int32)
    tall = row[:80].reshape(2, 40)
    for section in (np.lib.stride_tricks.as_strided(row, (1, 40), (1, 1)), tall[::-1][:1], tall[1:][::-1]):
        counts, edges = np.zeros((2, 256), np.int64), np.zeros((2, 2, 2), np.int64)
        measures.add_up_all_compiled(section, places, counts, edges)
        assert [np.bincount(section[0, x : x + w], minlength=256).tolist() for _, x, _, w in places] == counts.tolist()


@pytest.mark.parametrize("error", [OSError("Could not find/load shared object file 'libllvmlite.so'"), MemoryError()])
def test_where_machine_code_cannot_be_loaded_numpy_does_the_same(monkeypatch, error):
    section = np.random.default_rng(0).integers(0, 256, (60, 90)).astype(np.uint8)
    places = np.array([[0, 0, 30, 30], [30, 60, 30, 30], [5, 7, 40, 60]], np.int32)
    expected = measures.measure_places(section, places)

    def fail(*_):
        raise error

    monkeypatch.setattr(machine_code, "load", fail)
    monkeypatch.setattr(measures, "LOOPS", replace(measures.LOOPS, compiled_from=0, _function=None))
    assert np.array_equal(measures.measure_places(section, places), expected)
