"""Run patches through a network, batch by batch: on this machine or a cluster; what is said of them is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from emcurate.classifier.batches import BatchJobs, read_batch
from emcurate.classifier.card import Weights
from emcurate.classifier.score_store import Keys, RecordStore
from emcurate.errors import InputError
from emcurate.files import make_output_directory, read_regular
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.writing import write_once

if TYPE_CHECKING:
    # Where all patches were looked at before, PyTorch is not needed.
    import torch

# Reading a patch takes under a twentieth of the time that scoring it on a CPU core takes: one thread is enough for
# these many cores, and spares starting processes. Beyond, each process that decodes serves as many.
CORES_PER_DECODER = 8

Value = TypeVar("Value")
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Computing:
    """How scores or features are computed: with which weights, where, in which number type, and by whom.

    `model` is the network whose features are wanted, as `emcurate.classifier.backbones` names it; None for the
    classifier's scores.
    """

    weights: Weights
    device: str
    precision: str
    workers: Workers
    model: str | None = None


def choose_for_all(workers: Workers, device: str, precision: str) -> tuple[str, str]:
    """Return the device and the number type to compute in, the same for all who will.

    Raises
    ------
    InputError
        If the workers of a cluster would not choose the same: their scores would differ in the last digits.
    """
    from emcurate.classifier.remote import choose_computing

    chosen = sorted(set(workers.ask(choose_computing, (device, precision))))
    if len(chosen) > 1:
        found = " and ".join(f"{number_type} on {where}" for where, number_type in chosen)
        advice = "name one that all have with --device and --precision, or take the others away"
        raise InputError(workers.scheduler or "", "workers that would compute alike", found, advice)
    return chosen[0]


def make_store_directory(parent: Path, computing: Computing) -> Path:
    """Return the directory for what these very weights say, computed in the same way; it is made."""
    weights = computing.weights
    way = f"{computing.precision} on {computing.device}"
    settings = {"weights_sha256": weights.sha256, **asdict(weights.input_format), "computed_in": way}
    if computing.model is not None:
        settings["features_of"] = computing.model
    text = json.dumps(settings, indent=2)
    directory = make_output_directory(parent / hashlib.sha256(text.encode()).hexdigest()[:16])
    write_once(directory / "settings.json", text.encode(), overwrite=True)
    return directory


def compute_values(
    paths: Sequence[str], keys: Keys, todo: Positions, computing: Computing, store: RecordStore, report: Report
) -> Iterator[tuple[Positions, npt.NDArray[Any]]]:
    """Yield positions and scores, or features, of some patches of a list, batch by batch; keep them in a store.

    Patches that cannot be read are reported.

    Parameters
    ----------
    paths : sequence of n str
    keys : (n,) uint64
    todo : (m,) int64
        Which patches.
    computing : Computing
    store : RecordStore
        Where a cluster's workers also find the weights meanwhile.
    report : Report

    Raises
    ------
    InputError
        If a network says what is no number.
    """
    from emcurate.classifier.inference import choose_batch_size

    image_size = computing.weights.input_format.image_size
    jobs = BatchJobs(paths, todo, choose_batch_size(computing.device, image_size), image_size)
    is_here = computing.workers.scheduler is None
    run = run_here if is_here else partial(run_on_cluster, directory=store.directory.parent)
    try:
        for done, found in run(jobs, computing, report):
            if not np.isfinite(found).all():
                what = "scores" if computing.model is None else f"features below {np.finfo(found.dtype).max:,.0f}"
                advice = "try --precision float32; if that is of no help, these weights are not to be used"
                wanted = f"weights whose {what} are numbers"
                raise InputError(computing.weights.path, wanted, "NaN or infinities", advice)
            store.add(keys[done], found)
            yield done, found
    finally:
        store.flush()


def run_here(jobs: BatchJobs, computing: Computing, report: Report) -> Iterator[tuple[Positions, npt.NDArray[Any]]]:
    """Yield positions and values of each batch as this machine computes it; what cannot be read is reported."""
    from emcurate.classifier.inference import use_threads
    from emcurate.classifier.loading import load_runner

    processes = computing.workers.cores
    use_threads(processes)
    if computing.device == "cpu":
        # Decoding takes a small part of the CPU's time, and each process that decodes takes memory.
        processes = max(1, processes // CORES_PER_DECODER)
    runner = load_runner(computing.weights, computing.device, computing.precision, computing.model)
    # One batch behind, so that a GPU computes while the next batch is fetched from the processes that decode.
    under_way: deque[tuple[Positions, torch.Tensor]] = deque()
    for _, batch in run_ahead(Workers(processes).run(read_batch, jobs, report, unit="batch")):
        report.fail_all(batch.errors)
        if len(batch.positions):
            under_way.append((batch.positions, runner.start(batch.pixels)))
        if len(under_way) > 1:
            done, started = under_way.popleft()
            yield done, runner.finish(started)
    for done, started in under_way:
        yield done, runner.finish(started)


def run_on_cluster(
    jobs: BatchJobs, computing: Computing, report: Report, directory: Path
) -> Iterator[tuple[Positions, npt.NDArray[Any]]]:
    """Yield positions and values of each batch as a cluster's workers compute it; else as `run_here`.

    `directory` is where they find the weights meanwhile: what was downloaded into this user's cache is not for others
    to see, the results' own directory is.
    """
    from emcurate.classifier.remote import BatchesToRun, run_batch

    copy = directory / f"{computing.weights.sha256}.pth"
    write_once(copy, read_regular(computing.weights.path), overwrite=True)
    try:
        weights = replace(computing.weights, path=copy)
        tasks = BatchesToRun(jobs, weights, computing.device, computing.precision, computing.model)
        for _, done in computing.workers.run(run_batch, tasks, report, unit="batch"):
            report.fail_all(done.errors)
            if len(done.positions):
                yield done.positions, done.values
    finally:
        copy.unlink(missing_ok=True)


def run_ahead(iterable: Iterable[Value], ahead: int = 2) -> Iterator[Value]:
    """Yield what an iterable yields while a thread already fetches the next `ahead` items.

    For work that waits or leaves the interpreter, such as decoding, beside work that does too, such as a network.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(item: tuple[bool, Any]) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def fetch() -> None:
        try:
            for value in iterable:
                put((True, value))
                if stopped.is_set():
                    return
            put((False, None))
        except BaseException as error:  # raised again where it is waited for
            put((False, error))

    threading.Thread(target=fetch, daemon=True).start()
    try:
        while (item := ready.get())[0]:
            yield item[1]
        if item[1] is not None:
            raise item[1]
    finally:
        stopped.set()
