"""Computing where the patches are: what the workers of a cluster do for `emcurate.classifier.computing`.

A worker reads a batch and runs it through the very network that this machine would use. It loads the weights once for
each of its processes.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.classifier.batches import BatchJob, BatchJobs, read_batch
from emcurate.classifier.card import Weights
from emcurate.classifier.inference import BatchRunner, choose_device, choose_precision, use_threads
from emcurate.classifier.loading import load_runner
from emcurate.errors import InputError
from emcurate.outputs import hash_file
from emcurate.running.made import MadeWhenAsked

# A process computes one batch at a time, with all its threads, as a run on one machine does; its other threads read.
_computing = threading.Lock()


@dataclass(frozen=True)
class BatchToRun:
    """A batch to read and to compute, and how: as `emcurate.classifier.computing.Computing`."""

    batch: BatchJob
    weights: Weights
    device: str
    precision: str
    model: str | None

    @property
    def name(self) -> str:
        return self.batch.name


@dataclass(frozen=True)
class DoneBatch:
    """What came of the patches of a batch that could be read, by position, and why others could not."""

    positions: npt.NDArray[np.int64]
    values: npt.NDArray[Any]
    errors: tuple[str, ...]


@dataclass(frozen=True)
class BatchesToRun(MadeWhenAsked[BatchToRun]):
    """A job for each of some batches, made when asked for."""

    batches: BatchJobs
    weights: Weights
    device: str
    precision: str
    model: str | None

    def __len__(self) -> int:
        return len(self.batches)

    def make(self, index: int) -> BatchToRun:
        """Return a job."""
        return BatchToRun(self.batches[index], self.weights, self.device, self.precision, self.model)


def choose_computing(asked: tuple[str, str]) -> tuple[str, str]:
    """Return the device and the number type that this machine takes where these are asked for."""
    device = choose_device(asked[0])
    return device, choose_precision(device, asked[1])


def run_batch(job: BatchToRun) -> DoneBatch:
    """Read a batch and run it through the network.

    Raises
    ------
    InputError
        If the weights are not those that were meant, or the device is not there.
    """
    batch = read_batch(job.batch)
    with _computing:
        use_threads(_threads_of_worker())
        runner = _load(job.weights, job.device, job.precision, job.model)
        values = runner.run(batch.pixels) if len(batch.positions) else np.zeros(0, np.float32)
        return DoneBatch(batch.positions, values, batch.errors)


@functools.lru_cache(maxsize=2)  # a fast number type, and float32 for what it leaves in doubt
def _load(weights: Weights, device: str, precision: str, model: str | None) -> BatchRunner:
    choose_device(device)
    if (found := hash_file(weights.path)) != weights.sha256:
        expected = f"the weights with the SHA-256 {weights.sha256[:12]}…"
        raise InputError(weights.path, expected, f"others, with {found[:12]}…", "run the same command again")
    return load_runner(weights, device, precision, model)


def _threads_of_worker() -> int:
    """Return how many threads the Dask worker has that this runs in; one outside of any."""
    try:
        from distributed import get_worker

        return int(get_worker().state.nthreads)
    except (ImportError, ValueError):
        return 1
