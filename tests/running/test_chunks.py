"""Chunks change how many messages it takes, and nothing else: not what comes out, nor what fails, nor what is lost."""

import threading
import time
from collections import deque

import pytest

from emcurate.errors import InputError
from emcurate.running.chunks import CHUNK_MOST, Answer, Outcome, Pace, WorkerDiedError, feed, run_chunk
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

SECONDS = 1.0


class Pool:
    """A pool without processes, on a clock of its own: an input takes the seconds that it says."""

    def __init__(self, room=4, deadly=(), unsendable=()):
        self.rooms = room if isinstance(room, list) else [room]
        self.deadly, self.unsendable = set(deadly), set(unsendable)
        self.chunks = []
        self.most = 0
        self._waiting = deque()

    def room(self):
        return self.rooms.pop(0) if len(self.rooms) > 1 else self.rooms[0]

    def submit(self, function, jobs, seconds):
        self.chunks.append(list(jobs))
        self._waiting.append((len(self.chunks), jobs, seconds))
        self.most = max(self.most, len(self._waiting))
        return len(self.chunks)

    def wait(self):
        ticket, jobs, limit = self._waiting.popleft()
        if self.deadly & set(jobs):
            return [(ticket, WorkerDiedError())]
        if self.unsendable & set(jobs):
            return [(ticket, TypeError("cannot pickle"))]
        spent, outcomes = 0, []
        for job in jobs:
            outcomes.append(Outcome(job))
            spent += job
            if spent > limit:
                break
        return [(ticket, Answer(outcomes, spent))]


def drain(pool, inputs, pace=True):
    return dict(feed(pool, None, inputs, range(len(inputs)), Pace(SECONDS) if pace else None))


def test_many_quick_inputs_take_few_messages_and_each_comes_out_once():
    pool = Pool()
    done = drain(pool, [0.0001] * 100_000)
    assert sorted(done) == list(range(100_000))
    assert len(pool.chunks) < 200
    assert max(map(len, pool.chunks)) == CHUNK_MOST
    assert pool.most <= 4


def test_inputs_that_take_long_go_one_by_one():
    pool = Pool()
    assert len(drain(pool, [5.0] * 20)) == 20
    assert {len(chunk) for chunk in pool.chunks} == {1}


def test_the_last_inputs_are_shared_out():
    pool = Pool(room=8)
    drain(pool, [0.001] * 2000)
    assert max(map(len, pool.chunks[-8:])) <= 8


def test_a_chunk_that_turns_out_slow_gives_the_rest_back():
    inputs = [0.001] * 1000 + [10.0] * 30
    pool = Pool(room=2)
    done = drain(pool, inputs)
    assert [done[i].value for i in range(len(inputs))] == inputs
    assert sum(map(len, pool.chunks)) > len(inputs)


def test_what_goes_wrong_with_a_chunk_is_found_out_input_by_input():
    inputs = [0.001 + i * 1e-9 for i in range(2000)]
    pool = Pool(unsendable=[inputs[700]])
    done = drain(pool, inputs)
    assert sorted(done) == list(range(2000))
    assert [i for i, outcome in done.items() if outcome.error] == [700]
    assert "cannot pickle" in done[700].error


def test_a_death_costs_its_own_chunk_only():
    inputs = [0.001 + i * 1e-9 for i in range(2000)]
    pool = Pool(deadly=[inputs[700]])
    done = drain(pool, inputs)
    (lost,) = [chunk for chunk in pool.chunks if inputs[700] in chunk]
    assert {i for i, outcome in done.items() if outcome.alone} == {inputs.index(job) for job in lost}
    assert len(lost) < 1000


def test_alone_means_one_input_at_a_time():
    pool = Pool(room=50)
    drain(pool, [0.001] * 30, pace=False)
    assert pool.most == 1
    assert {len(chunk) for chunk in pool.chunks} == {1}


def test_workers_that_join_are_given_work():
    pool = Pool(room=[1, 1, 1, 40])
    drain(pool, [1.0] * 200)
    assert pool.most == 40


def doze(seconds):
    time.sleep(seconds)
    return seconds


def test_a_chunk_ends_when_its_time_is_up_but_does_one_job_at_least():
    assert len(run_chunk(doze, [0.01] * 1000, 0.05).outcomes) < 100
    assert len(run_chunk(doze, [0.01] * 3, 0).outcomes) == 1


def square(number):
    if number % 500 == 3:
        raise InputError(f"{number}.tif", "another number", "this", "leave it out")
    if number == 1005:
        return threading.Lock()
    return number**2


@pytest.mark.parametrize("processes", [1, 3])
def test_failures_stay_with_their_inputs(processes):
    report = Report("test")
    done = dict(Workers(processes).run(square, range(3000), report))
    if processes > 1:
        assert report.failures.pop(next(i for i, f in enumerate(report.failures) if f.startswith("1005: square")))
    done.pop(1005, None)
    assert done == {n: n**2 for n in range(3000) if n % 500 != 3 and n != 1005}
    assert sorted(failure.partition(".")[0] for failure in report.failures) == sorted(
        str(n) for n in range(3, 3000, 500)
    )
