"""Scores are kept under keys that change when a patch does, whatever is killed while they are written."""

import os
import subprocess
import sys

import numpy as np
import pytest

from emcurate.classifier import score_store
from emcurate.classifier.score_store import RECORD, SCORES_FILE, ScoreStore, patch_keys


def keep(directory, **scores):
    """Keep scores under the keys in their names, in a store of their own."""
    store = ScoreStore(directory)
    store.add(keys_of(*(int(name[1:]) for name in scores)), np.array(list(scores.values()), np.float32))
    store.flush()


def keys_of(*numbers):
    return np.array(numbers, np.uint64)


def test_kept_scores_are_found_in_any_order_and_others_are_nan(tmp_path):
    store = ScoreStore(tmp_path)
    store.add(keys_of(7, 3), np.array([0.7, 0.3], np.float32))
    store.add(keys_of(2**64 - 1), np.array([0.1], np.float32))
    store.flush()
    found = ScoreStore(tmp_path).look_up(keys_of(2**64 - 1, 5, 3, 7, 0))
    np.testing.assert_array_equal(found, np.array([0.1, np.nan, 0.3, 0.7, np.nan], np.float32))


def test_an_empty_store_knows_nothing(tmp_path):
    assert np.isnan(ScoreStore(tmp_path / "new").look_up(keys_of(1, 2))).all()
    assert ScoreStore(tmp_path / "new").look_up(keys_of()).shape == (0,)


def test_scores_reach_the_disk_after_a_while(tmp_path, monkeypatch):
    store = ScoreStore(tmp_path)
    store.add(keys_of(1), np.array([0.5], np.float32))
    assert np.isnan(ScoreStore(tmp_path).look_up(keys_of(1)))
    monkeypatch.setattr(score_store, "FLUSH_SECONDS", 0.0)
    store.add(keys_of(2), np.array([0.25], np.float32))
    assert ScoreStore(tmp_path).look_up(keys_of(1, 2)).tolist() == [0.5, 0.25]


def test_a_key_stays_where_a_patch_is_moved_but_two_of_whole_seconds_are_told_apart(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tiff").write_bytes(b"same")
    paths = [str(tmp_path / name / "a.tiff") for name in ("one", "two")]
    for path in paths:
        os.utime(path, ns=(0, 1_000_000_001))
    assert len(set(patch_keys(paths, 2).tolist())) == 1
    for path in paths:
        os.utime(path, ns=(0, 1_000_000_000))
    assert len(set(patch_keys(paths, 2).tolist())) == 2
    # As they are listed is what tells, wherever they are now.
    assert len(set(patch_keys(paths, 2, ["/old/a.tiff", "/old/a.tiff"]).tolist())) == 1


def test_a_key_changes_with_name_size_and_time(tmp_path):
    path = tmp_path / "a.tiff"
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 10))
    twin = tmp_path / "b.tiff"
    twin.write_bytes(b"one")
    os.utime(twin, ns=(0, 10))
    keys = set(patch_keys([str(path), str(twin), str(tmp_path / "missing.tiff")], 3).tolist())
    os.utime(path, ns=(0, 11))
    keys |= set(patch_keys([str(path)], 1).tolist())
    path.write_bytes(b"longer")
    os.utime(path, ns=(0, 11))
    keys |= set(patch_keys([str(path)], 1).tolist())
    assert len(keys) == 5
    assert patch_keys([str(path)], 1) == patch_keys([str(path)], 1)


@pytest.mark.parametrize("cut", range(1, RECORD.itemsize + 1))
def test_a_record_cut_off_by_a_kill_is_left_out_and_the_next_one_takes_its_place(tmp_path, cut):
    keep(tmp_path, k1=0.25, k2=0.5, k3=0.75)
    path = tmp_path / SCORES_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    np.testing.assert_array_equal(ScoreStore(tmp_path).look_up(keys_of(1, 2, 3)), np.float32([0.25, 0.5, np.nan]))
    keep(tmp_path, k4=1.0, k3=0.75)
    assert ScoreStore(tmp_path).look_up(keys_of(1, 2, 3, 4)).tolist() == [0.25, 0.5, 0.75, 1.0]
    assert path.stat().st_size == 4 * RECORD.itemsize
    assert path.read_bytes()[: 2 * RECORD.itemsize] == whole[: 2 * RECORD.itemsize]


def test_a_record_is_a_key_and_a_score_low_byte_first(tmp_path):
    keep(tmp_path, k258=0.5)
    assert (tmp_path / SCORES_FILE).read_bytes() == bytes([2, 1, 0, 0, 0, 0, 0, 0]) + bytes([0, 0, 0, 0x3F])


def test_of_two_records_with_one_key_the_first_counts(tmp_path):
    keep(tmp_path, k1=0.25)
    keep(tmp_path, k1=0.75, k2=0.5)
    assert ScoreStore(tmp_path).look_up(keys_of(1, 2)).tolist() == [0.25, 0.5]


def test_the_shards_of_version_0_1_0_are_not_read(tmp_path):
    np.save(tmp_path / "000000.npy", np.array([(1, 0.5)], RECORD))
    assert np.isnan(ScoreStore(tmp_path).look_up(keys_of(1)))


APPEND = """
import sys
from pathlib import Path
import numpy as np
from emcurate.classifier import score_store

score_store.FLUSH_SECONDS = 0.0
first = int(sys.argv[2])
store = score_store.ScoreStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for start in range(first, first + 30_000, 30):
    keys = np.arange(start, start + 30, dtype=np.uint64)
    store.add(keys, keys.astype(np.float32))
"""


def test_two_processes_can_append_at_once(tmp_path):
    command = [sys.executable, "-c", APPEND, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([*command, str(first)], **pipes) for first in (0, 30_000)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        process.communicate(timeout=120)
        assert process.returncode == 0
    keys = np.arange(60_000, dtype=np.uint64)
    np.testing.assert_array_equal(ScoreStore(tmp_path).look_up(keys), keys.astype(np.float32))
