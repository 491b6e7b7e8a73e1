"""Run one function over many inputs, in processes or on a Dask cluster, and collect what failed.

A job is a top-level function of one argument. What it raises is noted against its input and the other inputs go
on; a `DataWarning` it emits reaches the user whichever process it was emitted in.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from tqdm import tqdm

from emcurate.errors import DataWarning, InputError

Input = TypeVar("Input")
Value = TypeVar("Value")

# Jobs handed out ahead of the workers: enough that none waits, few enough that a million inputs need no memory.
JOBS_AHEAD_PER_PROCESS = 4

# A bar redraws often where a person watches; in a log file every redraw is a line.
BAR_SECONDS_TERMINAL = 0.2
BAR_SECONDS_LOG = 15.0

# Set to see where an unexpected error came from.
TRACEBACK_VARIABLE = "EMCURATE_TRACEBACK"


@dataclass
class Report:
    """What a run did: counts by noun, warnings, and failures, each a line for the user."""

    stage: str
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def count(self, noun: str, number: int = 1) -> None:
        """Add to a count; nouns are reported in the order in which they were first counted."""
        self.counts[noun] = self.counts.get(noun, 0) + number

    def fail(self, error: InputError | str) -> None:
        """Note a failure; the run goes on and ends with status 1."""
        self.failures.append(str(error))

    def warn(self, message: str) -> None:
        """Note a warning once, however many inputs gave it."""
        if message not in self.warnings:
            self.warnings.append(message)

    def note(self, message: str) -> None:
        """Add a line to the closing report, such as where a picture was written."""
        self.notes.append(message)


@dataclass(frozen=True)
class _Outcome:
    """What comes back from a worker: a value or an error in words, and the warnings emitted on the way."""

    value: Any = None
    error: str | None = None
    warnings: tuple[str, ...] = ()


def default_processes() -> int:
    """Return the number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(
    function: Callable[[Input], Value],
    inputs: Sequence[Input],
    report: Report,
    *,
    processes: int | None = None,
    scheduler: str | None = None,
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
    processes : int, optional
        Worker processes; all usable cores by default. With 1, or one input, jobs run in this process.
    scheduler : str, optional
        Address of a Dask scheduler, ``tcp://host:8786``; jobs then run on that cluster.
    unit : str
        What the progress bar counts.
    """
    processes = min(processes or default_processes(), len(inputs))
    if scheduler is not None:
        outcomes = _run_on_cluster(function, inputs, scheduler)
    elif processes <= 1:
        outcomes = ((i, _run_job(function, job)) for i, job in enumerate(inputs))
    else:
        outcomes = _run_in_processes(function, inputs, processes)
    for index, outcome in progress(outcomes, total=len(inputs), label=report.stage, unit=unit):
        for message in outcome.warnings:
            report.warn(message)
        if outcome.error is None:
            yield inputs[index], outcome.value
        else:
            report.fail(outcome.error)


def progress(iterable: Any, *, total: int | None, label: str, unit: str) -> tqdm[Any]:
    """Wrap an iterable in the progress bar every stage shows, on standard error."""
    seconds = BAR_SECONDS_TERMINAL if sys.stderr.isatty() else BAR_SECONDS_LOG
    return tqdm(
        iterable, total=total, desc=label, unit=unit, mininterval=seconds, dynamic_ncols=True, disable=total == 0
    )


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
        traceback.print_exc()
    subject = getattr(job, "path", None) or getattr(job, "name", None) or job
    if isinstance(problem, OSError) and problem.filename is not None:
        return f"{problem.filename}: {problem.strerror or problem}"
    if isinstance(problem, MemoryError):
        return f"{subject}: out of memory ({problem}); try fewer processes with -p"
    name = getattr(function, "__name__", "job")
    return (
        f"{subject}: {name} failed with {type(problem).__name__}: {problem}; "
        f"set {TRACEBACK_VARIABLE}=1 to see where, and please report it"
    )


def _run_in_processes(
    function: Callable[[Any], Any], inputs: Sequence[Any], processes: int
) -> Iterator[tuple[int, _Outcome]]:
    waiting = iter(range(len(inputs)))
    suspects: list[int] = []
    finished_feeding = False
    while not finished_feeding:
        running: dict[Future[_Outcome], int] = {}
        with _process_pool(processes) as pool:
            try:
                while True:
                    while len(running) < processes * JOBS_AHEAD_PER_PROCESS:
                        index = next(waiting, None)
                        if index is None:
                            finished_feeding = True
                            break
                        running[pool.submit(_run_job, function, inputs[index])] = index
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        yield running.pop(future), outcome
            except BrokenProcessPool:
                # A worker was killed, most often for want of memory. Its pool is lost and does not say which
                # input was to blame, so every input that was under way is tried again by itself.
                suspects.extend(running.values())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for index in suspects:
            yield index, _run_alone(function, inputs[index])
        suspects.clear()


def _run_alone(function: Callable[[Any], Any], job: Any) -> _Outcome:
    with _process_pool(1) as pool:
        try:
            return pool.submit(_run_job, function, job).result()
        except BrokenProcessPool:
            subject = getattr(job, "path", None) or getattr(job, "name", None) or job
            return _Outcome(error=f"{subject}: the process working on it was killed, perhaps for want of memory")


def _process_pool(processes: int) -> Executor:
    # Not fork: a forked child of a process that has used threads (OpenCV, numba, torch) can hang for ever.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_worker)


def _prepare_worker() -> None:
    # One process a core is the parallelism; libraries that start threads of their own would only get in its way.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = "1"
    cv2 = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.setNumThreads(1)
    logging.disable(logging.ERROR)
    # Ctrl-C reaches every process of a terminal; the main process alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the main process is gone, killed perhaps, and end this one: nobody waits for its work any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _run_on_cluster(
    function: Callable[[Any], Any], inputs: Sequence[Any], scheduler: str
) -> Iterator[tuple[int, _Outcome]]:
    try:
        import cloudpickle
        from distributed import Client, as_completed
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
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            scheduler, "a Dask scheduler at this address", str(error) or "no answer", "check --scheduler"
        ) from None
    with client:
        workers = max(1, sum(client.nthreads().values()))
        waiting = iter(range(len(inputs)))
        job = partial(_run_job, function)
        indices: dict[Any, int] = {}
        completed = as_completed(loop=client.loop)
        for index in waiting:
            future = client.submit(job, inputs[index], pure=False)
            indices[future.key] = index
            completed.add(future)
            if len(indices) >= workers * JOBS_AHEAD_PER_PROCESS:
                break
        for future in completed:
            index = indices.pop(future.key)
            yield index, _cluster_outcome(future, inputs[index])
            following = next(waiting, None)
            if following is not None:
                future = client.submit(job, inputs[following], pure=False)
                indices[future.key] = following
                completed.add(future)


def _cluster_outcome(future: Any, job: Any) -> _Outcome:
    try:
        outcome: _Outcome = future.result()
        return outcome
    except Exception as error:  # the worker died or could not load the job: of any type a cluster may raise
        return _Outcome(error=f"{job}: the cluster could not run it: {error}")
