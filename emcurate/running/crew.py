"""Worker processes of which any may die at any moment without harm to the others.

`concurrent.futures.ProcessPoolExecutor` shares its queues among all processes: it is lost as a whole with any of
them, does not say which job was to blame, and can wait for ever for one killed while it started. Here each process
has a pipe of its own, held by one thread of a `ThreadPoolExecutor`, and nothing in common with the others.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any

from emcurate.running.chunks import WorkerDiedError
from emcurate.running.sockets import shorten_socket_paths

# Not fork: a forked child of a process that has used threads (OpenCV, numba, torch) can hang for ever.
_CONTEXT: Any = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)

# One process a core is the parallelism; libraries that start threads of their own would only get in its way. They
# look once, when they are loaded, which in a worker is before the first line of ours runs.
SINGLE_THREADED = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
        *("NUMBA_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"),
    ),
    "1",
)

# What workers find loaded when they are forked; and what is too large for that, or only one stage's.
PACKAGE = "emcurate"
LOADED_LATE = (
    *(f"{PACKAGE}.classifier", f"{PACKAGE}.labeling", f"{PACKAGE}.trimming"),
    *(f"{PACKAGE}.patches.search", f"{PACKAGE}.patches.substrings", f"{PACKAGE}.patches.exemplars"),
)

# Tries to start a process. One fails if what starts processes is itself killed just then.
START_TRIES = 3

# Seconds a process has to end by itself when there is no more work, or to be gone after it was killed.
END_SECONDS = 5.0

# What reaches every process of a terminal: Ctrl-C, and that it is closed.
_OF_TERMINALS = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]

# Held while a process is started: its environment meanwhile belongs to all threads.
_starting = threading.Lock()


class Crew(Executor):
    """An executor of processes that each take one job at a time; a job is one function of some arguments.

    A job whose process dies raises `WorkerDiedError`; the next job gets a fresh process. At the end of a ``with``
    block, or when it is left by an error, every process is gone.

    Parameters
    ----------
    processes : int
        How many there are at most; each is started when there is a job for it.
    """

    def __init__(self, processes: int) -> None:
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="crew")
        self._here = threading.local()
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Hand out a job; the future has its value, or what it raised."""
        return self._threads.submit(self._call, function, arguments, named)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: once all jobs are done, or with `cancel_futures` at once, whatever they are doing."""
        if cancel_futures:
            with self._lock:
                self._closed = True
                for worker in self._workers:
                    worker.process.kill()  # whose thread then ends, and clears up after it
        self._threads.shutdown(wait=wait or cancel_futures, cancel_futures=cancel_futures)
        with self._lock:
            self._closed = True
            idle, self._workers = self._workers, set()
        for worker in idle:
            worker.connection.close()  # all at once, so that they end side by side
        for worker in idle:
            worker.dismiss()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=kind is not None)

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        worker: _Worker | None = getattr(self._here, "worker", None)
        if worker is None:
            worker = self._here.worker = self._hire()
        try:
            return worker.call(function, arguments, named)
        except WorkerDiedError:
            self._here.worker = None
            with self._lock:
                self._workers.discard(worker)
            worker.process.kill()
            worker.dismiss()
            raise

    def _hire(self) -> _Worker:
        for _ in range(START_TRIES):
            with self._lock:
                if self._closed:
                    raise WorkerDiedError
                with contextlib.suppress(OSError, EOFError):
                    worker = _Worker()
                    self._workers.add(worker)
                    return worker
        raise WorkerDiedError


class _Worker:
    """One process and the pipe to it."""

    def __init__(self) -> None:
        self.connection, theirs = multiprocessing.connection.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
        try:
            with _starting, _environment(SINGLE_THREADED), _no_interrupts():
                _load_once()
                self.process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        job = ForkingPickler.dumps((function, arguments, named))
        try:
            self.connection.send_bytes(job)
            # The pipe ends with the process, unless the process left one of its own behind that holds it open.
            ready = multiprocessing.connection.wait([self.connection, self.process.sentinel])
            if self.connection not in ready:
                raise WorkerDiedError
            answer = self.connection.recv_bytes()
        except (OSError, EOFError):
            raise WorkerDiedError from None
        value, error = ForkingPickler.loads(answer)
        if error is not None:
            raise error
        return value

    def dismiss(self) -> None:
        """Close the pipe, which ends a process that waits for work, and wait until it is gone."""
        self.connection.close()
        self.process.join(END_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(END_SECONDS)


def warm_up() -> None:
    """Start the process that workers are forked from, in a thread; it takes as long as this one took to load."""
    if _CONTEXT.get_start_method() == "forkserver":
        threading.Thread(target=_start_server, name="warm-up", daemon=True).start()


def _start_server() -> None:
    from multiprocessing import forkserver

    with _starting, contextlib.suppress(OSError, EOFError), _environment(SINGLE_THREADED), _no_interrupts():
        _load_once()
        forkserver.ensure_running()


def _load_once() -> None:
    """Let the process that workers are forked from load what this one has of emcurate, so that no worker has to.

    It counts only before the first worker is started. PyTorch is left to the workers that want it.
    """
    if _CONTEXT.get_start_method() != "forkserver":
        return
    shorten_socket_paths()
    loaded = [name for name in sys.modules if name.startswith(f"{PACKAGE}.") and not name.startswith(LOADED_LATE)]
    _CONTEXT.set_forkserver_preload(loaded)


def _serve(connection: Connection) -> None:
    """Do jobs until the pipe is closed; what runs in a worker process."""
    logging.disable(logging.ERROR)
    # Ctrl-C reaches every process of a terminal; the main process alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError, EOFError):
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))


def _answer(job: bytes) -> Any:
    """Return the pickled value of a pickled job, or the error it ended in."""
    try:
        function, arguments, named = ForkingPickler.loads(job)
        return ForkingPickler.dumps((function(*arguments, **named), None))
    except Exception as error:  # of any type: it is raised again where the job came from
        try:
            answer = ForkingPickler.dumps((None, error))
            ForkingPickler.loads(answer)
            return answer
        except Exception:  # an error that pickle cannot carry travels in words
            return ForkingPickler.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


def _end_with_parent() -> None:
    """Wait until the main process is gone, killed perhaps, and end this one: nobody waits for its work any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Let processes started meanwhile not hear what a terminal tells all of them: the main one answers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
    try:
        resource_tracker.ensure_running()  # as multiprocessing does before any other: it lets this thread hear again
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
