"""Run one function over many inputs, in processes or on a Dask cluster, and collect what failed.

A job is a top-level function of one argument. What it raises is noted against its input and the other inputs go on;
a `DataWarning` it emits reaches the user whichever process it was emitted in. Whatever dies, every input ends as done
or as failed: one whose worker was killed, or for which memory was not to be had, is tried once more, alone, and then
named.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from emcurate.partials import sweep_again
from emcurate.running.chunks import Answer, Outcome, Pace, feed, run_chunk, run_job
from emcurate.running.crew import Crew, warm_up
from emcurate.running.disk import find_no_place
from emcurate.running.hearing import start_threads
from emcurate.running.report import Report
from emcurate.running.streams import speech

Input = TypeVar("Input")
Value = TypeVar("Value")

# Chunks handed out ahead of the processes: enough that none waits, few enough that a million inputs need no memory.
CHUNKS_AHEAD = 4

# Seconds of work in a chunk. The way to a process and back takes a fraction of a thousandth; what a killed process
# leaves undone, and what the progress bar does not show, is not worth mention.
CHUNK_SECONDS = 0.05

# A bar redraws often where a person watches; in a log file every redraw is a line.
BAR_SECONDS_TERMINAL = 0.2
BAR_SECONDS_LOG = 15.0


def default_processes() -> int:
    """Return the number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Workers:
    """Who does a stage's jobs: processes of this machine, or the workers of a Dask cluster.

    Parameters
    ----------
    processes : int, optional
        Worker processes; all usable cores by default. With 1, or one input, jobs run in this process.
    scheduler : str, optional
        Address of a Dask scheduler, ``tcp://host:8786``; jobs then run on that cluster.
    """

    processes: int | None = None
    scheduler: str | None = None

    @property
    def cores(self) -> int:
        """How many cores of this machine may be used, for work that is not divided into jobs."""
        return self.processes or default_processes()

    def warm_up(self) -> None:
        """Begin to start processes, in the background, for a stage that will want them but has first to look around."""
        if self.scheduler is None and self.cores > 1:
            warm_up()

    def run(
        self,
        function: Callable[[Input], Value],
        inputs: Sequence[Input],
        report: Report,
        unit: str = "file",
        *,
        in_threads: bool = False,
        bar: bool = True,
    ) -> Iterator[tuple[Input, Value]]:
        """Yield ``(input, function(input))`` as jobs finish, with a progress bar; failures go to `report`.

        Inputs that take little time are sent in chunks; that changes neither what is yielded nor what fails.

        Parameters
        ----------
        function : callable of one argument
            A top-level function, so that it can be sent to another process.
        inputs : sequence
            Small picklable descriptions of the work, not pixels.
        report : Report
            Receives the failures and the jobs' `DataWarning` messages.
        unit : str
            What the progress bar counts.
        in_threads : bool
            Whether threads of this process take the place of processes, which need a third of a second to start: for
            jobs that let go of Python's lock most of the time and decode nothing that could end the process.
        bar : bool
            Whether progress is shown; of work that is one step of many only theirs is.

        Raises
        ------
        InputError
            If there is no scheduler at the address given, or it is lost, or its workers cannot do the work; or if the
            disk is full, or the directory of the results is gone or may not be written to any more, so that no other
            job could do its work either.
        """
        done = 0
        # Closed here, not when its last reference goes: an error's traceback may hold that for long.
        with contextlib.closing(self._run(function, inputs, in_threads)) as outcomes:
            total = len(inputs) if bar else 0
            for index, outcome in progress(outcomes, total=total, label=report.stage, unit=unit):
                for message in outcome.warnings:
                    report.warn(message)
                if outcome.no_place and (stop := find_no_place(outcome.no_place, done, len(inputs), unit)):
                    raise stop
                if outcome.error is None:
                    done += 1
                    yield inputs[index], outcome.value
                else:
                    report.fail(outcome.error)

    def ask(self, function: Callable[[Input], Value], question: Input) -> list[Value]:
        """Return ``function(question)`` as each worker of the cluster answers it; without a cluster, this process.

        Raises
        ------
        InputError
            As `run`, and whatever a worker raises.
        """
        if self.scheduler is None:
            return [function(question)]
        from emcurate.running.cluster import connect

        with connect(self.scheduler, function, [question]) as cluster:
            return cluster.ask(function, question)

    def _run(
        self, function: Callable[[Any], Any], inputs: Sequence[Any], in_threads: bool
    ) -> Generator[tuple[int, Outcome], None, None]:
        if not inputs:
            return
        if self.scheduler is not None:
            yield from self._run_on_cluster(function, inputs)
            return
        processes = min(self.cores, len(inputs))
        if processes == 1:
            yield from ((i, run_job(function, job)) for i, job in enumerate(inputs))
            return
        if in_threads:
            with start_threads(processes) as threads:
                pool = _ExecutorPool(threads, processes)
                yield from feed(pool, function, inputs, range(len(inputs)), Pace(CHUNK_SECONDS))
            return
        suspects: list[int] = []
        with _sweeping_up(suspects):
            with Crew(processes) as crew:
                pool = _ExecutorPool(crew, processes)
                yield from _set_aside(feed(pool, function, inputs, range(len(inputs)), Pace(CHUNK_SECONDS)), suspects)
            if suspects:
                # Alone: a job killed for want of memory, the commonest case, then has all there is.
                with Crew(1) as crew:
                    yield from feed(_ExecutorPool(crew, 1), function, inputs, suspects, pace=None)

    def _run_on_cluster(self, function: Callable[[Any], Any], inputs: Sequence[Any]) -> Iterator[tuple[int, Outcome]]:
        from emcurate.running.cluster import TASK_SECONDS, connect

        suspects: list[int] = []
        with _sweeping_up(), connect(self.scheduler or "", function, inputs) as cluster:
            outcomes = feed(cluster, function, inputs, range(len(inputs)), Pace(TASK_SECONDS))
            yield from _set_aside(outcomes, suspects)
            yield from feed(cluster, function, inputs, suspects, pace=None)


@contextlib.contextmanager
def _sweeping_up(suspects: Sequence[int] | None = None) -> Iterator[None]:
    """Remove at the end what processes left that were killed: they clear up nothing, and no run may come after this.

    That is so where work was broken off, and where there were suspects; whether a cluster lost a worker nobody says.
    """
    is_broken_off = True
    try:
        yield
        is_broken_off = False
    finally:
        if is_broken_off or suspects is None or suspects:
            with contextlib.suppress(OSError):  # the next run does it
                sweep_again()


def progress(iterable: Any, *, total: int | None, label: str, unit: str) -> tqdm[Any]:
    """Wrap an iterable in the progress bar every stage shows, on standard error."""
    seconds = BAR_SECONDS_TERMINAL if sys.stderr.isatty() else BAR_SECONDS_LOG
    return tqdm(
        iterable,
        total=total,
        desc=label,
        unit=unit,
        mininterval=seconds,
        dynamic_ncols=True,
        disable=total == 0 or speech.quiet,
    )


def byte_progress(total: int, label: str) -> tqdm[Any]:
    """Return a progress bar of bytes, to be told of those that are there."""
    seconds = BAR_SECONDS_TERMINAL if sys.stderr.isatty() else BAR_SECONDS_LOG
    return tqdm(
        total=total,
        desc=label,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        mininterval=seconds,
        dynamic_ncols=True,
        disable=total == 0,
    )


def _set_aside(outcomes: Iterable[tuple[int, Outcome]], suspects: list[int]) -> Iterator[tuple[int, Outcome]]:
    """Yield the outcomes of inputs, but add the index of each that is to be tried once more to the suspects."""
    for index, outcome in outcomes:
        if outcome.alone:
            suspects.append(index)
        else:
            yield index, outcome


class _ExecutorPool:
    """The processes of a crew, or some threads, as `feed` wants them."""

    def __init__(self, executor: Executor, workers: int) -> None:
        self._executor = executor
        self._room = workers * CHUNKS_AHEAD
        self._ended: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()

    def room(self) -> int:
        return self._room

    def submit(self, function: Callable[[Any], Any], jobs: Sequence[Any], seconds: float) -> Hashable:
        future: Future[Answer] = self._executor.submit(run_chunk, function, jobs, seconds)
        future.add_done_callback(self._ended.put)
        return future

    def wait(self) -> Iterator[tuple[Hashable, Answer | Exception]]:
        future = self._ended.get()
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        yield future, error if error is not None else future.result()
