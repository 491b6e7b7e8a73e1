"""Features of patches: look up those that were computed before, and compute the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate.classifier.computing import Computing, compute_values, make_store_directory
from emcurate.classifier.score_store import FeatureStore, Keys
from emcurate.running.report import Report


def embed_patches(
    paths: Sequence[str], keys: Keys, computing: Computing, stores: Path, report: Report
) -> tuple[FeatureStore, npt.NDArray[np.int64]]:
    """Compute the features of the patches that the stores do not have; return those of all.

    Parameters
    ----------
    paths : sequence of n str
    keys : (n,) uint64
    computing : Computing
        With a `model`.
    stores : Path
        Directory of what was computed before.
    report : Report

    Returns
    -------
    store : FeatureStore
    places : (n,) int64
        Where in its records each patch is; -1 of those that cannot be read.
    """
    from emcurate.classifier.encoding import count_features
    from emcurate.classifier.inference import use_threads
    from emcurate.classifier.loading import load_runner

    use_threads(computing.workers.cores)
    weights = computing.weights
    # Here, whatever the workers of a cluster have.
    runner = load_runner(weights, "cpu", "float32", computing.model)
    width = count_features(runner, weights.input_format.image_size)
    directory = make_store_directory(stores, computing)
    store = FeatureStore(directory, width)
    todo = np.flatnonzero(store.find(keys) < 0)
    report.count("patches embedded", 0)
    report.count("embedded before", len(paths) - len(todo))
    for done, _ in compute_values(paths, keys, todo, computing, store, report):
        report.count("patches embedded", len(done))
    if len(todo):
        store = FeatureStore(directory, width)
    return store, store.find(keys)
