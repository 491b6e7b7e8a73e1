"""Chunks of inputs: enough of them to be worth the way to a worker and back, few enough that little is lost with it."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from emcurate.errors import (
    InputError,
    TooLittleMemoryError,
    describe_os_error,
    is_for_want_of_memory,
)
from emcurate.running.disk import NO_PLACE, NO_ROOM
from emcurate.running.hearing import hear

# Set to see where an unexpected error came from.
TRACEBACK_VARIABLE = "EMCURATE_TRACEBACK"

# Inputs of a chunk at most: what is lost with a worker stays small, and so does a message.
CHUNK_MOST = 1000

# A chunk that takes so many times as long as it was meant to is broken off, and the rest of it handed out anew.
PATIENCE = 2


class WorkerDiedError(Exception):
    """The process that worked on a chunk was killed, or never came to life."""


@dataclass(frozen=True)
class Outcome:
    """What becomes of an input: a value or an error in words, and the warnings emitted on the way.

    `alone` tells that it is to be tried once more by itself: its worker died, or memory was not to be had. `no_place`
    is what the system answered where it may answer the same to every other job.
    """

    value: Any = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    alone: bool = False
    no_place: OSError | None = None


@dataclass(frozen=True)
class Answer:
    """What comes back of a chunk: the outcomes of its inputs, of the first at least, and the seconds they took."""

    outcomes: list[Outcome]
    seconds: float


class Pool(Protocol):
    """Those who do chunks: the processes of a crew, or the workers of a cluster."""

    def room(self) -> int:
        """Return how many chunks may be handed out at once, so that nobody waits for work."""

    def submit(self, function: Callable[[Any], Any], jobs: Sequence[Any], seconds: float) -> Hashable:
        """Hand out a chunk, to be done with `run_chunk`; return its ticket."""

    def wait(self) -> Iterable[tuple[Hashable, Answer | Exception]]:
        """Wait until some chunks have ended; return their tickets and answers, or why there is none."""


class Pace:
    """How many inputs make a chunk, learnt from the time that they take.

    Parameters
    ----------
    seconds : float
        What a chunk is meant to take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._size = 1
        self._each: float | None = None  # seconds an input took lately

    def size(self, left: int, room: int) -> int:
        """Return how many inputs the next chunk has; the last ones are shared out evenly."""
        return max(1, min(self._size, left // room))

    def learn(self, answer: Answer) -> None:
        """Take account of the time that a chunk took."""
        each = answer.seconds / len(answer.outcomes)
        self._each = each if self._each is None else (self._each + each) / 2
        fitting = self.seconds / max(self._each, 1e-9)
        self._size = int(max(1, min(fitting, 2 * self._size, CHUNK_MOST)))


def feed(
    pool: Pool, function: Callable[[Any], Any], inputs: Sequence[Any], order: Sequence[int], pace: Pace | None
) -> Iterator[tuple[int, Outcome]]:
    """Yield the index and the outcome of each input as it ends; the pool always has enough to do, and no more.

    Whatever goes wrong with a chunk as a whole, its worker's death above all, is found out input by input.

    Parameters
    ----------
    pool : Pool
    function : callable of one argument
    inputs : sequence
    order : sequence of int
        Which of the inputs, in the order in which they are to be begun.
    pace : Pace or None
        None: one input at a time, alone.
    """
    waiting = iter(order)
    left = len(order)
    again: deque[int] = deque()  # what a chunk did not get to
    singly: deque[int] = deque()  # what a chunk cannot have been without: nobody knows which of it was to blame
    running: dict[Hashable, list[int]] = {}

    def next_chunk(room: int) -> list[int]:
        if singly:
            return [singly.popleft()]
        size = pace.size(left, room) if pace else 1
        chunk = [again.popleft() for _ in range(min(size, len(again)))]
        return chunk or list(islice(waiting, size))

    while True:
        room = pool.room() if pace else 1
        while len(running) < room and (chunk := next_chunk(room)):
            left -= len(chunk)
            seconds = PATIENCE * pace.seconds if pace else 0
            running[pool.submit(function, [inputs[index] for index in chunk], seconds)] = chunk
        if not running:
            return
        for ticket, answer in pool.wait():
            chunk = running.pop(ticket)
            if isinstance(answer, Answer):
                if pace:
                    pace.learn(answer)
                again.extend(chunk[len(answer.outcomes) :])
                left += len(chunk) - len(answer.outcomes)
                yield from zip(chunk, answer.outcomes, strict=False)
            elif isinstance(answer, WorkerDiedError):
                for index in chunk:
                    error = f"{_subject(inputs[index])}: {str(answer) or 'the process working on it was killed'}"
                    yield index, Outcome(error=f"{error}, perhaps for want of memory", alone=True)
            elif len(chunk) > 1:
                singly.extend(chunk)
                left += len(chunk)
            else:  # what a job cannot be sent with, or its value
                yield chunk[0], Outcome(error=_describe_unexpected(function, inputs[chunk[0]], answer))


def run_chunk(function: Callable[[Any], Any], jobs: Sequence[Any], seconds: float) -> Answer:
    """Do jobs one after another, the first at least, until there are no more or the time is up."""
    start = time.monotonic()
    outcomes = []
    for job in jobs:
        outcomes.append(run_job(function, job))
        if time.monotonic() - start > seconds:
            break
    return Answer(outcomes, time.monotonic() - start)


def run_job(function: Callable[[Any], Any], job: Any) -> Outcome:
    """Do one job, whatever comes of it."""
    with hear() as heard:
        value, error, no_place, alone = None, None, None, False
        try:
            value = function(job)
        except InputError as problem:
            error, alone = str(problem), isinstance(problem, TooLittleMemoryError)
        except Exception as problem:
            error, alone = _describe_unexpected(function, job, problem), is_for_want_of_memory(problem)
            if isinstance(problem, OSError) and problem.errno in (*NO_ROOM, *NO_PLACE):
                no_place = problem
    return Outcome(value, error, tuple(heard), alone, no_place)


def _describe_unexpected(function: Callable[[Any], Any], job: Any, problem: Exception) -> str:
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(problem)
    if isinstance(problem, OSError) and problem.errno is not None:
        return str(describe_os_error(problem, _subject(job)))
    if is_for_want_of_memory(problem):
        return str(TooLittleMemoryError.of(_subject(job), problem))
    name = getattr(function, "__name__", "job")
    return (
        f"{_subject(job)}: {name} failed with {type(problem).__name__}: {problem}; "
        f"set {TRACEBACK_VARIABLE}=1 to see where, and please report it"
    )


def _subject(job: Any) -> str:
    return str(getattr(job, "path", None) or getattr(job, "name", None) or job)
