"""Scoring where the patches are: what the workers of a cluster do for `emcurate.classifier.scoring`.

A worker reads a batch and scores it, with the very network that this machine would use. It loads the weights once for
each of its processes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from emcurate.classifier.batches import BatchJob, BatchJobs, read_batch
from emcurate.classifier.card import Weights
from emcurate.classifier.inference import Scorer, choose_device, choose_precision, use_threads
from emcurate.classifier.network import load_classifier
from emcurate.errors import InputError
from emcurate.files import hash_file

# A process scores one batch at a time, with all its threads, as a run on one machine does; its other threads read.
_scoring = threading.Lock()


@dataclass(frozen=True)
class ScoreJob:
    """A batch to read and to score, and how."""

    batch: BatchJob
    weights: Weights
    device: str
    precision: str

    @property
    def name(self) -> str:
        return self.batch.name


@dataclass(frozen=True)
class ScoredBatch:
    """The scores of the patches of a batch that could be read, by position, and why others could not."""

    positions: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    errors: tuple[str, ...]


@dataclass(frozen=True)
class ScoreJobs(Sequence[ScoreJob]):
    """A job for each of some batches, made when asked for."""

    batches: BatchJobs
    weights: Weights
    device: str
    precision: str

    def __len__(self) -> int:
        return len(self.batches)

    @overload
    def __getitem__(self, index: int) -> ScoreJob: ...
    @overload
    def __getitem__(self, index: slice) -> list[ScoreJob]: ...
    def __getitem__(self, index: int | slice) -> ScoreJob | list[ScoreJob]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return ScoreJob(self.batches[index], self.weights, self.device, self.precision)

    def __iter__(self) -> Iterator[ScoreJob]:
        return (self[i] for i in range(len(self)))


def choose_computing(asked: tuple[str, str]) -> tuple[str, str]:
    """Return the device and the number type that this machine takes where these are asked for."""
    device = choose_device(asked[0])
    return device, choose_precision(device, asked[1])


def score_batch(job: ScoreJob) -> ScoredBatch:
    """Read a batch and score it.

    Raises
    ------
    InputError
        If the weights are not those that were meant, or the device is not there.
    """
    batch = read_batch(job.batch)
    with _scoring:
        use_threads(_threads_of_worker())
        scorer = _load_scorer(job.weights, job.device, job.precision)
        return ScoredBatch(batch.positions, scorer.score(batch.pixels), batch.errors)


@functools.lru_cache(maxsize=2)  # a fast number type, and float32 for what it leaves in doubt
def _load_scorer(weights: Weights, device: str, precision: str) -> Scorer:
    choose_device(device)
    if (found := hash_file(weights.path)) != weights.sha256:
        expected = f"the weights with the SHA-256 {weights.sha256[:12]}…"
        raise InputError(weights.path, expected, f"others, with {found[:12]}…", "run the same command again")
    return Scorer(load_classifier(weights.path), weights.input_format, device, precision)


def _threads_of_worker() -> int:
    """Return how many threads the Dask worker has that this runs in; one outside of any."""
    try:
        from distributed import get_worker

        return int(get_worker().state.nthreads)
    except (ImportError, ValueError):
        return 1
