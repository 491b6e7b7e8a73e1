"""The torture of bad input in its short form; and that it would notice."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from tests.torture import bad_input, children
from tests.torture.damage import CUT, cut_off, flip, seeded
from tests.torture.originals import SAME, SAME_IF_CUT, Original
from tests.torture.readers import GOOD, Reader

# About 450 broken files of all formats; all of them are tried by `make torture`.
SHARE = "0.05"

MISBEHAVING = "tests.torture.misbehaving"
DATA = bytes(range(200))


@pytest.mark.timeout(300)
def test_no_stage_trips_over_a_sample_of_broken_files(root):
    command = [sys.executable, "-m", "tests.torture.bad_input", "--seed", "0", "--share", SHARE]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    assert "0 findings" in done.stdout


# What the torture notices.


def put(tmp_path, monkeypatch, way, kind=CUT, promise=SAME_IF_CUT):
    """Put two damaged files, beside a good one, before a stage that misbehaves in a way; return what is found."""
    seconds = 1 if way == "hang" else 60
    monkeypatch.setattr(bad_input, "BATCH_SECONDS", 2 * seconds)
    monkeypatch.setattr(bad_input, "CASE_SECONDS", seconds)
    monkeypatch.setattr(bad_input, "MOST_BYTES", 200 << 20)
    ways = iter(["take all as it is"])  # of whole files; thereafter it misbehaves
    monkeypatch.setattr(Reader, "words", lambda self, inputs, out, root: [next(ways, way), str(inputs), str(out)])
    reader = Reader(MISBEHAVING, "", {f"{GOOD}.x": DATA})
    original = Original("a format", "a stage", {"CASE00.x": DATA}, (), promise)
    torture = bad_input.Torture(0, 1.0, tmp_path, None)
    torture.root, torture.originals = tmp_path, [original]
    torture.learn("a stage", reader)
    cases = [
        bad_input.Case(f"c1000{n}", "a stage", "a format", kind, "damage", original.with_data(data), promise)
        for n, data in enumerate([DATA[:100], DATA[:50]])
    ]
    for case in cases:
        case.original = original
    torture.put(reader, cases)
    return "\n".join(torture.findings)


@pytest.mark.parametrize(
    ("way", "found"),
    [
        ("hang", "did not end within 1 s"),
        ("die", "died of signal 9"),
        ("raise", "RuntimeError: a bug"),
        ("stop at the first", "the good neighbours of 2 cases were not done"),
        ("stop at the first", "c10001]: neither done nor named"),
        ("say nothing", "neither done nor named"),
        ("name all and return 0", "exit 0 with some named"),
        ("take all as it is", "taken without a word, with other results than the whole file's"),
        ("eat memory", "MiB of memory"),
    ],
)
def test_a_stage_that_misbehaves_is_found_out(tmp_path, monkeypatch, way, found):
    assert found in put(tmp_path, monkeypatch, way)


def test_flipped_bits_may_give_other_pixels_where_nothing_tells_but_not_where_a_checksum_does(tmp_path, monkeypatch):
    assert put(tmp_path / "a", monkeypatch, "take all as it is", "flip") == ""
    assert "taken without a word" in put(tmp_path / "b", monkeypatch, "take all as it is", "flip", SAME)


@pytest.fixture(autouse=True)
def directories(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()


def test_what_a_command_says_is_heard_and_the_ones_after_a_lost_one_are_run(tmp_path):
    (tmp_path / "a" / "c1.x").write_bytes(DATA)
    ways = ["take all as it is", "die", "raise", "stop at the first", "hang"]
    commands = [(MISBEHAVING, [way, str(tmp_path / "a"), str(tmp_path / "b")]) for way in ways]
    answers = [answer for _, answer in children.run_all(commands, 5)]
    assert [answer.status for answer in answers] == [0, None, None, 1, None]
    assert "c1.x: expected another" in answers[3].err


def test_what_the_parent_leaves_to_be_collected_hides_nothing_of_the_memory_that_a_command_takes(tmp_path):
    class Garbage:
        def __init__(self):
            self.me, self.data = self, np.ones(200 << 17)

    (tmp_path / "a" / "c1.x").write_bytes(DATA)
    Garbage()
    commands = [(MISBEHAVING, ["eat memory", str(tmp_path / "a"), str(tmp_path / "b")])]
    assert [answer.peak_bytes > 250 << 20 for _, answer in children.run_all(commands, 30)] == [True]


def test_room_that_the_parent_has_left_among_its_own_hides_nothing_either(tmp_path):
    (tmp_path / "a" / "c1.x").write_bytes(DATA)
    bytearray(31 << 20)  # from then on such pieces come of one heap, in which those that are freed stay in memory
    pieces = [bytearray(30 << 20) for _ in range(20)]
    del pieces[:-1]
    commands = [(MISBEHAVING, ["eat memory", str(tmp_path / "a"), str(tmp_path / "b")])]
    assert [answer.peak_bytes > 250 << 20 for _, answer in children.run_all(commands, 30)] == [True]
    assert len(pieces) == 1


def test_the_same_seed_gives_the_same_damage_and_another_another():
    def damage(seed):
        rng = seeded(seed, "a", "b")
        return [*cut_off(DATA, (7, 9), rng, 5), *flip(DATA, (7, 9), rng, 20)]

    assert damage(1) == damage(1) != damage(2)
    assert all(len(data) < len(DATA) for _, data in damage(1)[:5])
    assert np.mean([data != DATA for _, data in damage(1)]) > 0.9


def test_every_reader_has_good_files_beside_the_broken_ones_or_runs_of_its_own(tmp_path):
    root = bad_input.make_root(tmp_path / "root")
    originals = bad_input.make_originals(root)
    readers = bad_input.make_readers(originals)
    assert {original.reader for original in originals} == set(readers)
    for reader in readers.values():
        assert callable(importlib.import_module(reader.module).main)
        assert reader.takes_many == bool(reader.neighbours)
