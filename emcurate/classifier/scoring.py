"""Score patches: look up those scored before, compute the others, and keep their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emcurate.classifier.computing import Computing, Positions, compute_values, make_store_directory
from emcurate.classifier.score_store import Keys, Scores, ScoreStore
from emcurate.running.report import Report

# Scores this near the threshold are computed again in float32. On real patches bfloat16 moved no score of a trained
# network by more than 0.007.
RECHECK_MARGIN = 0.03


def score_patches(
    paths: Sequence[str], keys: Keys, computing: Computing, threshold: float, stores: Path, report: Report
) -> Scores:
    """Return every patch's score, NaN for those that cannot be read; compute only those not in the stores.

    What a fast number type leaves near the threshold is computed again in float32, so that no decision hangs on it.

    Parameters
    ----------
    paths : sequence of n str
    keys : (n,) uint64
        Of `patch_keys`.
    computing : Computing
    threshold : float
        What decides, for the part of the scores that is computed again.
    stores : Path
        Directory of what was scored before.
    report : Report
    """
    for noun in ("patches scored", "scored before"):
        report.count(noun, 0)
    scores = look_up_or_compute(paths, keys, np.arange(len(paths)), computing, stores, report)
    exact = replace(computing, precision="float32")
    if exact != computing:
        near = np.flatnonzero(np.abs(scores - threshold) < RECHECK_MARGIN)
        again = Report(report.stage)
        checked = look_up_or_compute(paths, keys, near, exact, stores, again)
        report.fail_all(again.failures)
        scores[near] = np.where(np.isnan(checked), scores[near], checked)
        report.count("of them again in float32", len(near))
    return scores


def look_up_or_compute(
    paths: Sequence[str],
    keys: Keys,
    positions: Positions,
    computing: Computing,
    stores: Path,
    report: Report,
) -> Scores:
    """Return the scores of some patches of a list; compute and keep those that the store has not."""
    store = open_store(stores, computing)
    scores = np.full(len(paths), np.nan, np.float32)
    scores[positions] = store.look_up(keys[positions])
    todo = positions[np.isnan(scores[positions])]
    report.count("scored before", len(positions) - len(todo))
    if not len(todo):
        return scores[positions]

    for done, found in compute_values(paths, keys, todo, computing, store, report):
        scores[done] = found
        report.count("patches scored", len(done))
    return scores[positions]


def open_store(parent: Path, computing: Computing) -> ScoreStore:
    """Open the scores these very weights have given before, computed in the same way."""
    return ScoreStore(make_store_directory(parent, computing))
