"""The workers of a Dask cluster, as those who do a stage's chunks of jobs.

Dask starts a task again elsewhere when its worker dies, and hands out what workers that join can do. What is watched
here: that there is a scheduler and that it stays, that there are workers, and that each of them, also one that joins
later, has this emcurate and sees these files.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import platform
import queue
import sys
import time
import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emcurate import __version__
from emcurate.errors import InputError
from emcurate.partials import partial_path
from emcurate.running import cluster_worker
from emcurate.running.chunks import Answer, WorkerDiedError
from emcurate.running.ledger_file import LEDGER_DIRECTORY

# Tasks at the scheduler for each thread of the workers, so that none waits, and at most, so that a scheduler keeps up:
# each costs it about a thousandth of a second and some kilobytes.
TASKS_PER_THREAD = 3
TASKS_MOST = 5000

# Seconds of work in a task: a thousand threads then ask a scheduler for a thousand tasks a second, which it can give.
TASK_SECONDS = 1.0

# Seconds between two looks at who is there.
LOOK_SECONDS = 2.0

# Seconds until an answer that went with its worker is asked for again, while others are working it out once more.
AGAIN_SECONDS = 0.1

# Seconds a scheduler has to answer: at first, where the address may be wrong; and later, when it may be busy.
GREETING_SECONDS = 10.0
ANSWER_SECONDS = 60.0

# Seconds without any worker after which nobody is waited for any more. A rented machine needs minutes to start.
NO_WORKERS_SECONDS = 600.0

# Jobs whose files each worker is asked for.
EXAMPLES = 3

PYTHON = ".".join(platform.python_version_tuple()[:2])  # code travels between machines only of the same

ENVIRONMENT_ADVICE = "give the workers the same environment: the same Python, pip install of the same emcurate"
FILES_ADVICE = "put inputs and results on a file system that all machines have under the same path"
LOST_ADVICE = "start it and its workers and run the same command again: it goes on where it stopped"


@contextlib.contextmanager
def connect(address: str, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Cluster]:
    """Give the cluster at an address, with at least one worker, and every worker fit to do these jobs.

    Raises
    ------
    InputError
        If there is no scheduler, there are no workers, or a worker lacks emcurate or does not see the jobs' files.
    """
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise InputError(
            address, "the package distributed, which --scheduler needs", "none", "pip install distributed"
        ) from None
    # What is wrong is said below, once; Dask's many loggers say it many times.
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    cluster = None
    try:
        _greet(address)
        paths = _example_paths(jobs)
        with _proofs_in(paths) as proofs:
            cluster = Cluster(address, function, paths, proofs)
            cluster.wait_for_workers()
            yield cluster
    finally:
        if cluster is not None:
            cluster.close()
        logging.disable(before)


class Cluster:
    """A connection to a cluster; see `emcurate.running.chunks.Pool`.

    Parameters
    ----------
    address : str
        Of a scheduler that has answered.
    function : callable of one argument
        What its tasks will do.
    paths, proofs : list of str
        What its workers must see: files and directories of the jobs, and files that show which directories these are.
    """

    def __init__(self, address: str, function: Callable[[Any], Any], paths: list[str], proofs: list[str]) -> None:
        import cloudpickle
        from distributed import Client

        self.address = address
        if not function.__module__.startswith("emcurate."):
            # A stage is a script, which the workers cannot import by name: it travels with its code.
            cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
        self._pack, self._unpack = cloudpickle.dumps, cloudpickle.loads
        self._run_task = _with_code(cluster_worker.run_task)
        self._look_around = _with_code(cluster_worker.look_around)
        self._function: bytes = cloudpickle.dumps(function)
        self._name = getattr(function, "__name__", "job")
        self._paths, self._proofs = paths, proofs
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: dict[str, Any] = {}
        self._missing: list[Any] = []  # tasks that had ended, and whose answers went with their workers
        self._known: set[str] = set()
        self._threads = 0
        self._deserted = self._gone = False
        self._looked = self._peopled = time.monotonic()
        try:
            # Not the default client: dask would send it everything else that is computed here, too.
            self._client = Client(address, timeout=GREETING_SECONDS, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise self._lost(str(error)) from None

    def wait_for_workers(self) -> None:
        """Return when there is a worker."""
        self._look()
        while not self._threads:
            time.sleep(LOOK_SECONDS / 4)
            self._look()

    def room(self) -> int:
        """Return how many tasks may be at the scheduler at once."""
        return max(1, min(TASKS_MOST, self._threads * TASKS_PER_THREAD))

    def submit(self, function: Callable[[Any], Any], jobs: Sequence[Any], seconds: float) -> Hashable:
        """Hand out a task; return its key. The function is that of `connect`."""
        key = f"{self._name}-{uuid.uuid4().hex}"
        with self._talking():
            future = self._client.submit(
                self._run_task, self._function, self._pack(list(jobs)), seconds, key=key, pure=False
            )
            future.add_done_callback(self._ended.put)
        self._running[key] = future
        return key

    def wait(self) -> list[tuple[Hashable, Answer | Exception]]:
        """Wait until some tasks have ended; return their keys and answers, or what kept a worker from answering."""
        while True:
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._look()
            if answers := self._collect(self._take_ended()):
                return answers

    def ask(self, function: Callable[[Any], Any], question: Any) -> list[Any]:
        """Return what each worker answers to a question."""
        with self._talking():
            packed = self._client.run(self._run_task, self._function, self._pack([question]), 0, on_error="return")
        values = []
        for worker, answer in packed.items():
            if isinstance(answer, Exception):
                raise InputError(worker, "an answer", f"{type(answer).__name__}: {answer}", "see the worker's log")
            outcome = self._unpack(answer).outcomes[0]
            if outcome.error is not None:
                raise InputError(worker, "an answer", outcome.error, "mend that, or take the worker away")
            values.append(outcome.value)
        return values

    def close(self) -> None:
        """Leave the cluster to others; what is still at it is given up."""
        with contextlib.suppress(Exception):  # whatever a scheduler that is going makes of it
            if self._running and not self._gone:
                self._sync(functools.partial(self._client.cancel, list(self._running.values()), asynchronous=True))
        with contextlib.suppress(Exception):
            self._client.close(timeout=GREETING_SECONDS)

    def _take_ended(self) -> list[Any]:
        """Wait a while for tasks to end; return those that have, and those whose answers were missing before."""
        ended, self._missing = self._missing, []
        with contextlib.suppress(queue.Empty):
            ended.append(self._ended.get(timeout=AGAIN_SECONDS if ended else LOOK_SECONDS))
            while not self._ended.empty():
                ended.append(self._ended.get())
        return ended

    def _collect(self, ended: list[Any]) -> list[tuple[Hashable, Answer | Exception]]:
        from distributed.scheduler import KilledWorker

        done = []
        answers: list[tuple[Hashable, Answer | Exception]] = []
        with self._talking():
            for future in ended:
                status = future.status  # asked once: it changes meanwhile
                if status == "cancelled":
                    raise self._lost("a task was cancelled")
                if status == "finished":
                    done.append(future)
                elif status == "error":
                    error = future.exception()
                    if isinstance(error, KilledWorker):
                        error = WorkerDiedError(f"every worker that began it died, last {error.last_worker.address}")
                    else:
                        self._check(None)  # of what is raised outside of jobs, an unfit worker is the likeliest cause
                    answers.append((future.key, error))
                else:  # lost: its worker died after it had ended, and others do it once more
                    self._missing.append(future)
            packed: dict[str, bytes] = {}
            # Where a worker has died that had an answer, others give it once more, if there are any: hence a limit.
            with contextlib.suppress(TimeoutError):
                futures = {future.key: future for future in done}
                packed = self._sync(functools.partial(self._client.gather, futures, errors="skip", asynchronous=True))
            for future in done:
                if packed.get(future.key) is not None:
                    answers.append((future.key, self._unpack(packed[future.key])))
                else:
                    self._missing.append(future)
        for key, _ in answers:
            del self._running[str(key)]
        return answers

    def _look(self) -> None:
        """See who is there; raise `InputError` if nobody is, or somebody who cannot do the work."""
        self._looked = time.monotonic()
        with self._talking():
            scheduler: Any = self._client.scheduler
            threads: dict[str, int] = self._sync(scheduler.ncores)
        new = threads.keys() - self._known
        if new:
            self._check(sorted(new))
        self._known, self._threads = set(threads), sum(threads.values())
        if self._threads:
            self._peopled, self._deserted = self._looked, False
        elif not self._deserted:
            self._deserted = True
            tqdm.write(f"{self.address} has no workers; waiting for some", file=sys.stderr)
        elif self._looked - self._peopled > NO_WORKERS_SECONDS:
            found = f"none for {NO_WORKERS_SECONDS:.0f} seconds"
            raise InputError(self.address, "workers", found, f"start some: dask worker {self.address}")

    def _check(self, workers: list[str] | None) -> None:
        """Raise `InputError` if any of the workers, or of all, cannot do the work."""
        with self._talking():
            found = self._client.run(
                self._look_around,
                PYTHON,
                self._function,
                [*self._paths, *self._proofs],
                workers=workers,
                on_error="return",
            )
        unfit = {}
        for worker, state in found.items():
            if isinstance(state, OSError):
                continue  # it is gone already
            if error := self._judge(worker, state):
                unfit[worker] = error
        if unfit:
            error = unfit[min(unfit)]
            if len(unfit) > 1:
                error = InputError(error.path, error.expected, error.found, f"{error.advice} ({len(unfit):,} workers)")
            raise error

    def _judge(self, worker: str, state: Any) -> InputError | None:
        """Return what keeps a worker from doing the work, None if nothing does."""
        subject = f"the worker {worker}"
        if isinstance(state, Exception):
            found = f"{type(state).__name__}: {state}"
            return InputError(subject, "to say which emcurate it has", found, ENVIRONMENT_ADVICE)
        for wanted, found in (("emcurate", __version__), ("python", PYTHON)):
            if state[wanted] != found:
                return InputError(subject, f"{wanted} {found}, as here", state[wanted], ENVIRONMENT_ADVICE)
        if state["lacks"]:
            return InputError(subject, f"all that {self._name} needs", state["lacks"], ENVIRONMENT_ADVICE)
        if state["hidden"]:
            path = next((path for path in state["hidden"] if path not in self._proofs), None)
            # A directory that is there but another: what was put into it to tell is not.
            path = path or str(Path(state["hidden"][0]).parent.parent)
            return InputError(subject, f"to see {path}, as this machine does", "nothing of it", FILES_ADVICE)
        return None

    def _sync(self, function: Callable[[], Any]) -> Any:
        return self._client.sync(function, callback_timeout=ANSWER_SECONDS)

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        """Turn whatever Dask raises when the scheduler is gone into one error for users."""
        try:
            yield
        except InputError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # Dask says it in a dozen ways
            raise self._lost(f"{type(error).__name__}: {error}") from None

    def _lost(self, why: str) -> InputError:
        self._gone = True
        words = " ".join(why.split())
        return InputError(self.address, "the Dask scheduler to stay", f"no answer any more ({words})", LOST_ADVICE)


def _with_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that travels with its code, to where its module may not be."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
    # Dask asks plain pickle first, which would send a name; what is defined in a function it cannot name.
    return lambda *arguments: function(*arguments)


def _greet(address: str) -> None:
    """Raise `InputError` if no scheduler answers at an address.

    Dask's own client cannot be asked: one whose start fails lingers for twenty seconds and complains when it goes.
    """
    from distributed.core import rpc
    from distributed.security import Security

    async def ask() -> Any:
        async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
            return await scheduler.identity()

    expected, advice = "a Dask scheduler at this address", "check --scheduler, which is such as tcp://host:8786"
    try:
        found = asyncio.run(asyncio.wait_for(ask(), GREETING_SECONDS))["type"]
    except TimeoutError:
        raise InputError(address, expected, f"no answer in {GREETING_SECONDS:.0f} seconds", advice) from None
    except Exception as error:  # of any type: whatever answers there may answer anything
        raise InputError(address, expected, str(error) or type(error).__name__, advice) from None
    if found != "Scheduler":
        raise InputError(address, expected, f"a {found}", advice)


def _example_paths(jobs: Sequence[Any]) -> list[str]:
    """Return files and directories of some of the jobs, those that are here."""
    step = max(1, len(jobs) // EXAMPLES)
    examples = [jobs[index] for index in range(0, len(jobs), step)][:EXAMPLES]
    return list(dict.fromkeys(path for job in examples for path in _paths_in(job) if os.path.lexists(path)))


@contextlib.contextmanager
def _proofs_in(paths: Sequence[str]) -> Iterator[list[str]]:
    """Give hidden files that lie, for the time of the block, in those of the directories that stages write to.

    A directory of the same name may be on every machine, and on each be another.
    """
    proofs = []
    try:
        for path in paths:
            ledgers = Path(path, LEDGER_DIRECTORY)
            with contextlib.suppress(OSError):  # results of others, which may only be read
                if ledgers.is_dir():
                    proof = partial_path(ledgers)
                    proof.touch()
                    proofs.append(proof)
        yield [str(proof) for proof in proofs]
    finally:
        for proof in proofs:
            with contextlib.suppress(OSError):
                proof.unlink(missing_ok=True)


def _paths_in(value: Any) -> Iterator[str]:
    """Yield the absolute paths that a job speaks of; of several in a row, the first."""
    if isinstance(value, str | Path):
        if Path(value).is_absolute():
            yield str(value)
    elif isinstance(value, tuple | list):
        if value:
            yield from _paths_in(value[0])
    elif is_dataclass(value):
        for item in fields(value):
            yield from _paths_in(getattr(value, item.name))
