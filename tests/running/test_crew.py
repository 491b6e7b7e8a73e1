"""Whatever dies, every input ends done or named, in bounded time, and no process is left over."""

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emcurate.partials import partial_path, remove_stale_partials
from emcurate.running import crew as crew_module
from emcurate.running.crew import Crew, WorkerDiedError
from emcurate.running.jobs import Workers
from emcurate.running.report import Report


def double(number):
    return 2 * number


def doze(number):
    time.sleep(0.01)
    return number


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_even(number):
    if number % 2 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_the_first_time(path):
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def leave_a_partial_file_the_first_time(directory):
    if not any(Path(directory).iterdir()):
        partial_path(Path(directory)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return directory


def count_threads(_):
    import cv2
    import numpy
    from threadpoolctl import threadpool_info

    numpy.ones((64, 64)) @ numpy.ones((64, 64))
    return [pool["num_threads"] for pool in threadpool_info()], cv2.getNumThreads(), dict(os.environ)


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def raise_unpicklable(_):
    raise Unpicklable("one", "two")


def return_unpicklable(_):
    return threading.Lock()


def children():
    """Process numbers of the workers: children of this process's forkserver."""
    from multiprocessing import forkserver

    parent = str(forkserver._forkserver._forkserver_pid)
    found = subprocess.run(["ps", "--ppid", parent, "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


needs_forkserver = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="this system has no forkserver"
)


def test_jobs_are_done_and_processes_are_reused():
    with Crew(2) as crew:
        futures = [crew.submit(double, n) for n in range(20)]
        assert [future.result() for future in futures] == list(range(0, 40, 2))
        assert len(crew._workers) <= 2


@needs_forkserver
def test_no_process_is_left_over():
    with Crew(2) as crew:
        list(crew.map(double, range(4)))
    assert not children()


@needs_forkserver
def test_an_error_in_the_block_ends_what_is_running_at_once():
    start = time.monotonic()
    with pytest.raises(ZeroDivisionError), Crew(2) as crew:
        running = [crew.submit(time.sleep, 600) for _ in range(5)]
        while not running[0].running():
            time.sleep(0.01)
        raise ZeroDivisionError
    assert time.monotonic() - start < 60
    assert not children()


def test_a_dead_process_costs_one_job_and_the_next_gets_another():
    with Crew(1) as crew:
        assert crew.submit(double, 1).result() == 2
        with pytest.raises(WorkerDiedError):
            crew.submit(die, 0).result()
        assert crew.submit(double, 2).result() == 4


@pytest.mark.parametrize(("function", "error"), [(raise_unpicklable, "one two"), (return_unpicklable, "pickle")])
def test_what_cannot_be_pickled_is_an_error_of_its_job(function, error):
    with Crew(1) as crew:
        with pytest.raises(Exception, match=error):
            crew.submit(function, 0).result(timeout=60)
        assert crew.submit(double, 2).result() == 4


def test_jobs_that_cannot_be_sent_are_named():
    report = Report("test")
    assert not list(Workers(2).run(lambda job: job, range(3), report))
    assert len(report.failures) == 3


def test_libraries_in_workers_use_one_thread_and_this_process_keeps_its_own():
    before = dict(os.environ)
    with Crew(1) as crew:
        pools, opencv, variables = crew.submit(count_threads, 0).result()
    assert set(pools) == {1}
    assert opencv == 1
    assert variables.items() >= crew_module.SINGLE_THREADED.items()
    assert dict(os.environ) == before


def test_jobs_whose_worker_always_dies_are_named_and_the_others_done():
    report = Report("test")
    done = dict(Workers(3).run(die_at_even, range(30), report))
    assert sorted(done) == list(range(1, 30, 2))
    assert len(report.failures) == 15
    assert all("was killed" in failure for failure in report.failures)


def test_a_job_whose_worker_died_once_is_tried_again(tmp_path):
    report = Report("test")
    paths = [str(tmp_path / str(n)) for n in range(6)]
    assert sorted(job for job, _ in Workers(2).run(die_the_first_time, paths, report)) == paths
    assert not report.failures


def test_what_a_killed_worker_was_writing_is_swept_away_by_the_run_itself(tmp_path):
    directories = [tmp_path / str(number) for number in range(4)]
    for directory in directories:
        remove_stale_partials(directory)  # as each run does before it writes there
        directory.mkdir()
    report = Report("test")
    assert len(dict(Workers(2).run(leave_a_partial_file_the_first_time, list(map(str, directories)), report))) == 4
    assert not report.failures
    assert not [path for directory in directories for path in directory.iterdir()]


@needs_forkserver
@pytest.mark.parametrize("seed", range(5))
def test_no_job_is_lost_when_workers_are_killed_at_random_while_results_are_used_slowly(seed):
    report, random_number, stop = Report("test"), random.Random(seed), threading.Event()

    def kill_now_and_then():
        while not stop.wait(random_number.random() * 0.05):
            if pids := children():
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(random_number.choice(pids), signal.SIGKILL)

    killer = ThreadPoolExecutor(1).submit(kill_now_and_then)
    seen = []
    try:
        for number, _ in Workers(2).run(doze, range(30), report):
            time.sleep(0.01)
            seen.append(number)
    finally:
        stop.set()
        killer.result()
    named = [int(failure.partition(":")[0]) for failure in report.failures]
    assert sorted(seen + named) == list(range(30))
    assert not children()


@needs_forkserver
def test_a_killed_forkserver_costs_nothing():
    from multiprocessing import forkserver

    report, seen = Report("test"), []
    for number, _ in Workers(2).run(doze, range(40), report):
        seen.append(number)
        if len(seen) in (5, 15):
            os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    assert sorted(seen) == list(range(40))
    assert not report.failures


INTERRUPTED = """
import sys, time
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

def sleep(number):
    time.sleep(600)

if __name__ == "__main__":
    print("started", flush=True)
    try:
        list(Workers(2).run(sleep, range(10), Report("sleep")))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupted_run_ends_soon_and_takes_its_workers_with_it(tmp_path, root):
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    process.stdout.readline()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130


HEARING = """
import re, signal, time
from multiprocessing import forkserver
from pathlib import Path
from emcurate.running.crew import Crew, warm_up

{first}
server = forkserver._forkserver
while server._forkserver_pid is None:
    time.sleep(0.01)
told = Path(f"/proc/{{server._forkserver_pid}}/status").read_text()
blocked = int(re.search(r"SigBlk:\\t(\\w+)", told)[1], 16)
print([blocked >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGHUP)])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell what processes hear")
@pytest.mark.parametrize("first", ["warm_up()", "with Crew(1) as crew: crew.submit(len, ()).result()"])
def test_what_starts_workers_hears_no_interrupt_from_its_first_moment_on(root, first):
    """Where it is the first process that multiprocessing starts: only then another is started before it."""
    command = [sys.executable, "-c", HEARING.format(first=first)]
    assert subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip() == "[1, 1]"
