"""Scores are kept under keys that change when a patch does."""

import os
import time

import numpy as np
import pytest

from emcurate.classifier import scoring as scores
from emcurate.classifier.scoring import ScoreStore, patch_keys, run_ahead
from emcurate.errors import InputError


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
    monkeypatch.setattr(scores, "SHARD_SECONDS", 0.0)
    store.add(keys_of(2), np.array([0.25], np.float32))
    assert ScoreStore(tmp_path).look_up(keys_of(1, 2)).tolist() == [0.5, 0.25]


def test_many_shards_become_one(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "SHARD_SECONDS", 0.0)
    monkeypatch.setattr(scores, "SHARDS_AT_MOST", 3)
    store = ScoreStore(tmp_path)
    for number in range(5):
        store.add(keys_of(number), np.array([number / 8], np.float32))
    assert len(list(tmp_path.glob("*.npy"))) == 5
    expected = [number / 8 for number in range(5)]
    for _ in range(2):
        assert ScoreStore(tmp_path).look_up(keys_of(*range(5))).tolist() == expected
        assert len(list(tmp_path.glob("*.npy"))) == 1


def test_a_key_changes_with_path_size_and_time(tmp_path):
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


def test_what_is_no_shard_is_refused(tmp_path):
    np.save(tmp_path / "000000.npy", np.zeros(3))
    with pytest.raises(InputError, match="delete it; its patches are scored again"):
        ScoreStore(tmp_path)


def test_running_ahead_keeps_order_and_errors():
    def count():
        yield from range(5)
        raise ZeroDivisionError

    seen = []
    with pytest.raises(ZeroDivisionError):
        for number in run_ahead(count()):
            seen.append(number)
    assert seen == list(range(5))
    assert list(run_ahead(range(100))) == list(range(100))


def test_running_ahead_fetches_no_more_than_asked():
    fetched = []
    ahead = run_ahead((fetched.append(i) or i for i in range(1000)), ahead=3)
    assert next(ahead) == 0
    wait_until(lambda: len(fetched) >= 4)
    ahead.close()
    time.sleep(0.3)
    assert len(fetched) < 10


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
