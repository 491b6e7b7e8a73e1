"""Run one function over many inputs, in processes or on a Dask cluster, and collect what failed.

A job is a top-level function of one argument. What it raises is noted against its input and the other inputs go on;
a `DataWarning` it emits reaches the user whichever process it was emitted in. Whatever dies, every input ends as done
or as failed: one whose worker was killed is tried once more, alone, and then named.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from emcurate.errors import DataWarning, InputError, describe_os_error
from emcurate.running.crew import Crew, WorkerDiedError
from emcurate.running.report import Report

Input = TypeVar("Input")
Value = TypeVar("Value")

# Jobs handed out ahead of the workers: enough that none waits, few enough that a million inputs need no memory.
JOBS_AHEAD_PER_WORKER = 4

# A bar redraws often where a person watches; in a log file every redraw is a line.
BAR_SECONDS_TERMINAL = 0.2
BAR_SECONDS_LOG = 15.0

# Seconds after which a scheduler that does not answer is taken for gone.
SCHEDULER_TIMEOUT = "10s"

# Set to see where an unexpected error came from.
TRACEBACK_VARIABLE = "EMCURATE_TRACEBACK"


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

    def run(
        self,
        function: Callable[[Input], Value],
        inputs: Sequence[Input],
        report: Report,
        unit: str = "file",
    ) -> Iterator[tuple[Input, Value]]:
        """Yield ``(input, function(input))`` as jobs finish, with a progress bar; failures go to `report`.

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

        Raises
        ------
        InputError
            If there is no scheduler at the address given.
        """
        outcomes = self._run(function, inputs)
        for index, outcome in progress(outcomes, total=len(inputs), label=report.stage, unit=unit):
            for message in outcome.warnings:
                report.warn(message)
            if outcome.error is None:
                yield inputs[index], outcome.value
            else:
                report.fail(outcome.error)

    def _run(self, function: Callable[[Any], Any], inputs: Sequence[Any]) -> Iterator[tuple[int, _Outcome]]:
        if not inputs:
            return
        if self.scheduler is not None:
            with _cluster(self.scheduler, function) as (executor, workers):
                yield from _feed(executor, function, inputs, range(len(inputs)), workers * JOBS_AHEAD_PER_WORKER)
            return
        processes = min(self.cores, len(inputs))
        if processes == 1:
            yield from ((i, _run_job(function, job)) for i, job in enumerate(inputs))
            return
        suspects: list[int] = []
        with Crew(processes) as crew:
            ahead = processes * JOBS_AHEAD_PER_WORKER
            for index, outcome in _feed(crew, function, inputs, range(len(inputs)), ahead):
                if outcome.died:
                    suspects.append(index)
                else:
                    yield index, outcome
        if suspects:
            # Alone: a job killed for want of memory, the commonest case, then has all there is.
            with Crew(1) as crew:
                yield from _feed(crew, function, inputs, suspects, ahead=1)


def progress(iterable: Any, *, total: int | None, label: str, unit: str) -> tqdm[Any]:
    """Wrap an iterable in the progress bar every stage shows, on standard error."""
    seconds = BAR_SECONDS_TERMINAL if sys.stderr.isatty() else BAR_SECONDS_LOG
    return tqdm(
        iterable, total=total, desc=label, unit=unit, mininterval=seconds, dynamic_ncols=True, disable=total == 0
    )


@dataclass(frozen=True)
class _Outcome:
    """What comes back from a worker: a value or an error in words, and the warnings emitted on the way."""

    value: Any = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    died: bool = False


def _feed(
    executor: Executor, function: Callable[[Any], Any], inputs: Sequence[Any], order: Sequence[int], ahead: int
) -> Iterator[tuple[int, _Outcome]]:
    """Yield the index and outcome of each input as its job ends, keeping `ahead` jobs at the executor."""
    waiting = iter(order)
    running: dict[Future[_Outcome], int] = {}
    while True:
        while len(running) < ahead and (index := next(waiting, None)) is not None:
            running[executor.submit(_run_job, function, inputs[index])] = index
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            index = running.pop(future)
            try:
                outcome = future.result()
            except WorkerDiedError:
                error = f"{_subject(inputs[index])}: the process working on it was killed, perhaps for want of memory"
                outcome = _Outcome(error=error, died=True)
            except Exception as problem:  # of any type: what a job cannot be sent with, or a cluster raises
                outcome = _Outcome(error=_describe_unexpected(function, inputs[index], problem))
            yield index, outcome


def _run_job(function: Callable[[Any], Any], job: Any) -> _Outcome:
    with warnings.catch_warnings(record=True) as caught:
        # Libraries chatter about files that are fine; what matters is said by a DataWarning.
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", DataWarning)
        value, error = None, None
        try:
            value = function(job)
        except InputError as problem:
            error = str(problem)
        except Exception as problem:
            error = _describe_unexpected(function, job, problem)
    return _Outcome(value, error, tuple(str(w.message) for w in caught if issubclass(w.category, DataWarning)))


def _describe_unexpected(function: Callable[[Any], Any], job: Any, problem: Exception) -> str:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(problem)
    if isinstance(problem, OSError) and problem.errno is not None:
        return str(describe_os_error(problem, _subject(job)))
    if isinstance(problem, MemoryError):
        return f"{_subject(job)}: out of memory ({problem}); try fewer processes with -p"
    name = getattr(function, "__name__", "job")
    return (
        f"{_subject(job)}: {name} failed with {type(problem).__name__}: {problem}; "
        f"set {TRACEBACK_VARIABLE}=1 to see where, and please report it"
    )


def _subject(job: Any) -> str:
    return str(getattr(job, "path", None) or getattr(job, "name", None) or job)


@contextlib.contextmanager
def _cluster(scheduler: str, function: Callable[[Any], Any]) -> Iterator[tuple[Executor, int]]:
    """Give an executor that runs jobs on a Dask cluster, and the number of its threads."""
    try:
        import cloudpickle
        from distributed import Client
    except ImportError:
        raise InputError(
            scheduler, "the package distributed, which --scheduler needs", "none", "pip install distributed"
        ) from None
    module = sys.modules[function.__module__]
    if not function.__module__.startswith("emcurate."):
        # A stage is a script: the workers cannot import it by name, so it travels with its code.
        cloudpickle.register_pickle_by_value(module)
    try:
        # Not the default client: dask would send it everything else that is computed here, too.
        client = Client(scheduler, timeout=SCHEDULER_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            scheduler, "a Dask scheduler at this address", str(error) or "no answer", "check --scheduler"
        ) from None
    with client:
        executor = client.get_executor(pure=False)
        try:
            yield executor, max(1, sum(client.nthreads().values()))
        finally:
            executor.shutdown(wait=False)
