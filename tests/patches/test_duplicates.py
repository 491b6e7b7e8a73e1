import csv
import io
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emcurate.errors import InputError
from emcurate.patches import duplicates as groups
from emcurate.patches import exemplars, substrings
from emcurate.patches.duplicates import Cover, Groups, Largest, cover_greedily, find_groups, read_largest
from emcurate.patches.hashing import pack_hashes
from emcurate.patches.names import as_names


def naive_cover(hashes, order, distance):
    """The rule as SPEC words it, one patch and one exemplar at a time."""
    exemplar, kept = {}, []
    for i in order:
        for k in kept:
            if np.count_nonzero(hashes[i] != hashes[k]) <= distance:
                exemplar[i] = k
                break
        else:
            kept.append(i)
            exemplar[i] = i
    return [exemplar[i] for i in range(len(hashes))]


def published_loop(hashes, order, distance):
    """Take the first that is left, remove all that are close to it, go on with what is left."""
    exemplar, left = {}, list(order)
    while left:
        first = left[0]
        close = [i for i in left if np.count_nonzero(hashes[i] != hashes[first]) <= distance]
        exemplar |= dict.fromkeys(close, first)
        left = [i for i in left if i not in exemplar]
    return [exemplar[i] for i in range(len(hashes))]


def make_hashes(rng, count, side=6):
    """Hashes in clouds: copies of a few with some bits flipped, so that there is something to cover."""
    centres = rng.random((max(1, count // 6), side, side)) < 0.5
    return centres[rng.integers(0, len(centres), count)] ^ (rng.random((count, side, side)) < 0.08)


def make_difficult_hashes(rng, kind, count, side):
    """Hashes that are as unlike those of pictures as can be, or as like."""
    if kind == "clouds":
        return make_hashes(rng, count, side)
    if kind == "equal":
        return np.repeat(rng.random((1, side, side)) < 0.5, count, axis=0)
    if kind == "random":
        return rng.random((count, side, side)) < 0.5
    if kind == "few bits vary":
        return (rng.random((count, side, side)) < 0.5) & (np.arange(side) < 2)
    assert kind == "sparse"
    return rng.random((count, side, side)) < 0.03


KINDS = st.sampled_from(["clouds", "equal", "random", "few bits vary", "sparse"])


@contextmanager
def constants(**values):
    """Other values for constants of the modules that search, for as long as the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            (module,) = (each for each in (groups, exemplars, substrings) if name in vars(each))
            patch.setattr(module, name, value)
        yield


@settings(deadline=None, max_examples=300)
@given(data=st.data(), kind=KINDS, side=st.integers(2, 17), count=st.integers(1, 80), threads=st.integers(1, 3))
def test_cover_equals_both_naive_loops_however_it_is_found(data, kind, side, count, threads):
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    distance = data.draw(st.one_of(st.integers(0, min(14, side * side - 1)), st.integers(0, side * side - 1)))
    hashes, order = make_difficult_hashes(rng, kind, count, side), rng.permutation(count)
    chosen = {
        "COMPARISONS": data.draw(st.sampled_from([0, 100_000, 700_000_000])),  # 0: compiled at once
        "COVERED_PART": data.draw(st.sampled_from([0, 1 / 4, 2])),
        "BLOCK": data.draw(st.integers(1, 30)),
        "TABLES_FROM": data.draw(st.sampled_from([1, 5, 20, 50_000])),
        "GAIN": data.draw(st.sampled_from([0, 3])),  # 0: tables, whether they are any use or not
        "UNLISTED_PART": data.draw(st.sampled_from([0, 0.5, 3])),
        "THREADS_FROM": data.draw(st.sampled_from([1, 4_000_000])),
        "PART_QUERIES": data.draw(st.integers(1, 10)),
    }
    with constants(**chosen):
        found = find_groups(as_names(map(str, range(count))), pack_hashes(hashes), order, Cover(distance, threads))
    assert found.exemplar.tolist() == naive_cover(hashes, order, distance)
    assert found.exemplar.tolist() == published_loop(hashes, order, distance)
    assert found.distance.tolist() == [np.count_nonzero(hashes[i] != hashes[e]) for i, e in enumerate(found.exemplar)]


def test_threads_tables_and_block_borders_change_nothing():
    packed = pack_hashes(make_hashes(np.random.default_rng(5), 9000, side=8))
    expected = cover_greedily(packed, 6)
    assert 100 < len(np.unique(expected)) < 8900
    for block, tables_from, threads in [(64, 10**9, 1), (1000, 10**9, 2), (1000, 500, 1), (300, 100, 3)]:
        with constants(BLOCK=block, TABLES_FROM=tables_from, THREADS_FROM=1, GAIN=0):
            assert np.array_equal(cover_greedily(packed, 6, threads), expected)


@pytest.mark.parametrize("words", [1, 2, 4])
def test_as_many_exemplars_as_tables_are_meant_for(words):
    """Random hashes with a twin each: what is found is known without any search."""
    count, rng = 70_000, np.random.default_rng(words)
    firsts = rng.integers(0, 2**64, (count, words), np.uint64)
    firsts &= ~np.uint64(0xFFF)
    firsts[:, 0] |= np.arange(count, dtype=np.uint64) & np.uint64(0xFFF)
    twins = firsts.copy()
    twins[:, -1] ^= np.uint64(0b11 << 40)
    with constants(TABLES_FROM=10_000):
        owner = cover_greedily(np.concatenate([firsts, twins]), 2, threads=2)
    assert np.array_equal(owner[:count], np.arange(count))
    assert np.array_equal(owner[count:], np.arange(count))


def test_nothing_to_cover():
    assert cover_greedily(np.empty((0, 1), np.uint64), 3).tolist() == []
    assert Cover(3).find(np.empty((0, 1), np.uint64)).tolist() == []


def test_many_sets_are_covered_alike_before_and_after_the_compiler_is_worth_it(monkeypatch):
    rng, compiled = np.random.default_rng(1), []
    monkeypatch.setattr(groups, "cover_greedily", lambda *arguments: compiled.append(0) or cover_greedily(*arguments))
    with constants(COMPARISONS=2_000_000, FEW=100):
        cover = Cover(5)
        for count in (30, 1, 101, *[60] * 20):
            hashes = make_hashes(rng, count)
            assert cover.find(pack_hashes(hashes)).tolist() == naive_cover(hashes, range(count), 5)
    assert 2 <= len(compiled) <= 21


@pytest.mark.parametrize("module", ["emcurate.patches.duplicates", "emcurate.patches.datasets"])
def test_the_compiler_is_not_loaded_before_there_is_something_to_cover(module):
    code = f"import sys, {module}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def three_groups():
    return Groups(as_names(["a", "b", "c, d", "e", "f"]), np.array([0, 1, 0, 0, 1]), np.array([0, 0, 2, 5, 1]))


def test_exemplars_and_table(three_groups):
    assert three_groups.exemplars.tolist() == [0, 1]
    rows = list(csv.reader(io.StringIO(b"".join(three_groups.table()).decode())))
    assert rows == [
        ["patch", "exemplar", "distance"],
        ["a", "a", "0"],
        ["c, d", "a", "2"],
        ["e", "a", "5"],
        ["b", "b", "0"],
        ["f", "b", "1"],
    ]


def test_largest_groups_show_what_differs_most(three_groups):
    assert three_groups.largest(5, 5) == [(3, [("a", 0), ("e", 5), ("c, d", 2)]), (2, [("b", 0), ("f", 1)])]
    assert three_groups.largest(1, 1) == [(3, [("a", 0), ("e", 5)])]
    assert Groups(as_names(["a"]), np.array([0]), np.array([0])).largest(3, 3) == []


def test_largest_of_several_datasets_are_those_of_a_stable_sort():
    found, sizes = Largest(3), {"b": [5, 4, 4], "a": [4, 2], "c": [9], "d": []}
    for dataset, each in sizes.items():
        found.add(dataset, [(size, [(f"{dataset}{rank}", 0)]) for rank, size in enumerate(each)])
    assert [group[0][0] for group in found.groups] == ["c0", "b0", "a0"]


LETTERS = st.sampled_from("ab ,;\"'\r\n\tö𝄞")


@given(
    names=st.lists(st.text(LETTERS, max_size=4), min_size=1, max_size=12),
    rows=st.integers(1, 5),
    data=st.data(),
)
def test_the_table_is_what_the_csv_module_writes(names, rows, data):
    count = len(names)
    exemplar = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=count, max_size=count)))
    distance = np.array(data.draw(st.lists(st.integers(0, 99), min_size=count, max_size=count)))
    order = sorted(range(count), key=lambda i: (exemplar[i], exemplar[i] != i, distance[i], i))
    expected = io.StringIO()
    writer = csv.writer(expected, lineterminator="\n")
    lines = [["patch", "exemplar", "distance"], *([names[i], names[exemplar[i]], str(distance[i])] for i in order)]
    writer.writerows(lines)
    with constants(ROWS_AT_ONCE=rows):
        written = b"".join(Groups(as_names(names), exemplar, distance).table())
    assert list(csv.reader(io.StringIO(written.decode(), newline=""))) == lines
    if not any("\r" in name for name in names):  # which the module, before Python 3.13, writes so that it is lost
        assert written == expected.getvalue().encode()


def draw_groups(data, letters=LETTERS):
    """Groups as a cover finds them, with names in order."""
    names = sorted(data.draw(st.sets(st.text(letters, min_size=1, max_size=5), min_size=1, max_size=15)))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    kept = np.flatnonzero(rng.random(len(names)) < 0.4)
    kept = kept if kept.size else np.array([0])
    exemplar = rng.choice(kept, len(names))
    exemplar[kept] = kept
    distance = np.where(exemplar == np.arange(len(names)), 0, rng.integers(0, 4, len(names)))
    return names, Groups(as_names(names), exemplar, distance)


@given(data=st.data(), rows=st.integers(1, 5), before=st.sampled_from(["", "/a/ö/", "/\udce9/"]))
def test_the_file_of_exemplars_is_what_numpy_saves(data, rows, before):
    names, found = draw_groups(data)
    expected = io.BytesIO()
    exemplars = [name for i, name in enumerate(names) if found.exemplar[i] == i]
    np.save(expected, np.array([f"{before}{name}.tiff" for name in exemplars]))
    with constants(ROWS_AT_ONCE=rows):
        assert b"".join(found.exemplars_npy(before, ".tiff")) == expected.getvalue()


def naive_largest(names, found, groups, members):
    """Group by group, as Python sorts."""
    largest = []
    for e in sorted(set(found.exemplar.tolist())):
        others = [i for i in range(len(names)) if found.exemplar[i] == e and i != e]
        farthest = sorted(others, key=lambda i: -found.distance[i])[:members]
        if others:
            largest.append((len(others) + 1, [(names[i], int(found.distance[i])) for i in (e, *farthest)]))
    return sorted(largest, key=lambda group: -group[0])[:groups]


@given(data=st.data(), count=st.integers(1, 5), members=st.integers(1, 5))
def test_largest_groups_equal_a_naive_search(data, count, members):
    names, found = draw_groups(data)
    assert found.largest(count, members) == naive_largest(names, found, count, members)


@settings(deadline=None)
@given(data=st.data(), count=st.integers(1, 5), members=st.integers(1, 5), size=st.sampled_from([60, 300, 1 << 20]))
def test_largest_groups_are_read_back_from_the_table(data, count, members, size, tmp_path_factory):
    # Which versions of Python quote a carriage return differs.
    names, found = draw_groups(data, LETTERS.filter(lambda letter: letter != "\r"))
    path = tmp_path_factory.mktemp("table") / "a_groups.csv"
    path.write_bytes(b"".join(found.table()))
    with constants(CSV_BYTES_AT_ONCE=size):
        assert read_largest(path, count, members) == naive_largest(names, found, count, members)


@pytest.mark.parametrize(
    "content",
    [b"", b"mine", b"patch,exemplar\na,a\n", b"patch,exemplar,distance\na,a,far\n", b"patch,exemplar,distance\na,\n"],
)
def test_what_is_no_table_of_groups_is_named(tmp_path, content):
    path = tmp_path / "a_groups.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a table of patch, exemplar and distance"):
        read_largest(path, 3, 3)
