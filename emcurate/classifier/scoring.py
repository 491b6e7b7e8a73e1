"""Score patches: look up those scored before, compute the others batch by batch, and keep their scores."""

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
from emcurate.classifier.score_store import Keys, Scores, ScoreStore
from emcurate.errors import InputError
from emcurate.files import write_once
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

if TYPE_CHECKING:
    # Where all patches were scored before, PyTorch is not needed.
    import torch

# Scores this near the threshold are computed again in float32. On real patches bfloat16 moved no score of a trained
# network by more than 0.007.
RECHECK_MARGIN = 0.03

# Reading a patch takes under a twentieth of the time that scoring it on a CPU core takes: one thread is enough for
# these many cores, and spares starting processes. Beyond, each process that decodes serves as many.
CORES_PER_DECODER = 8

Value = TypeVar("Value")
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Computing:
    """How scores are computed: with which weights, where, in which number type, and by whom."""

    weights: Weights
    device: str
    precision: str
    workers: Workers


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
    positions: npt.NDArray[np.int64],
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

    from emcurate.classifier.inference import choose_batch_size

    image_size = computing.weights.input_format.image_size
    jobs = BatchJobs(paths, todo, choose_batch_size(computing.device, image_size), image_size)
    score = score_here if computing.workers.scheduler is None else partial(score_on_cluster, directory=stores)
    try:
        for done, found in score(jobs, computing, report):
            if np.isnan(found).any():
                advice = "try --precision float32; if that is of no help, these weights are not to be used"
                raise InputError(computing.weights.path, "weights whose scores are numbers", "NaN", advice)
            scores[done] = found
            store.add(keys[done], found)
            report.count("patches scored", len(done))
    finally:
        store.flush()
    return scores[positions]


def score_here(jobs: BatchJobs, computing: Computing, report: Report) -> Iterator[tuple[Positions, Scores]]:
    """Yield positions and scores of each batch as this machine scores it; patches that cannot be read are reported."""
    from emcurate.classifier.inference import Scorer, use_threads
    from emcurate.classifier.network import load_classifier

    weights, processes = computing.weights, computing.workers.cores
    use_threads(processes)
    if computing.device == "cpu":
        # Decoding takes a small part of the CPU's time, and each process that decodes takes memory.
        processes = max(1, processes // CORES_PER_DECODER)
    scorer = Scorer(load_classifier(weights.path), weights.input_format, computing.device, computing.precision)
    # One batch behind, so that a GPU computes while the next batch is fetched from the processes that decode.
    under_way: deque[tuple[Positions, torch.Tensor]] = deque()
    for _, batch in run_ahead(Workers(processes).run(read_batch, jobs, report, unit="batch")):
        report.fail_all(batch.errors)
        if len(batch.positions):
            under_way.append((batch.positions, scorer.start(batch.pixels)))
        if len(under_way) > 1:
            done, started = under_way.popleft()
            yield done, scorer.finish(started)
    for done, started in under_way:
        yield done, scorer.finish(started)


def score_on_cluster(
    jobs: BatchJobs, computing: Computing, report: Report, directory: Path
) -> Iterator[tuple[Positions, Scores]]:
    """Yield positions and scores of each batch as a cluster's workers score it; else as `score_here`.

    `directory` is where they find the weights meanwhile: what was downloaded into this user's cache is not for others
    to see, the results' own directory is.
    """
    from emcurate.classifier.remote import ScoreJobs, score_batch

    copy = directory / f"{computing.weights.sha256}.pth"
    write_once(copy, computing.weights.path.read_bytes(), overwrite=True)
    try:
        weights = replace(computing.weights, path=copy)
        tasks = ScoreJobs(jobs, weights, computing.device, computing.precision)
        for _, scored in computing.workers.run(score_batch, tasks, report, unit="batch"):
            report.fail_all(scored.errors)
            if len(scored.positions):
                yield scored.positions, scored.scores
    finally:
        copy.unlink(missing_ok=True)


def open_store(parent: Path, computing: Computing) -> ScoreStore:
    """Open the scores these very weights have given before, computed in the same way."""
    weights = computing.weights
    way = f"{computing.precision} on {computing.device}"
    settings = {"weights_sha256": weights.sha256, **asdict(weights.input_format), "computed_in": way}
    text = json.dumps(settings, indent=2)
    store = ScoreStore(parent / hashlib.sha256(text.encode()).hexdigest()[:16])
    write_once(store.directory / "settings.json", text.encode(), overwrite=True)
    return store


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
