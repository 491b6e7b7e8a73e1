import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from emcurate.errors import DataWarning, InputError
from emcurate.partials import partial_path, remove_stale_partials
from emcurate.running.jobs import Workers
from emcurate.running.report import Report


def square(number):
    if number == 3:
        raise InputError("three.tif", "a number that is not 3", "3", "leave it out")
    if number == 5:
        raise ZeroDivisionError("five")
    if number % 2:
        warnings.warn("odd numbers occur", DataWarning, stacklevel=1)
    warnings.warn("chatter", UserWarning, stacklevel=1)
    return number**2


def die_at_four(number):
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize(("processes", "in_threads"), [(1, False), (2, False), (2, True), (3, True)])
def test_failures_and_warnings_are_collected_and_the_others_go_on(processes, in_threads):
    report = Report("test")
    done = dict(Workers(processes).run(square, range(8), report, in_threads=in_threads))
    assert done == {n: n**2 for n in range(8) if n not in (3, 5)}
    assert report.warnings == ["odd numbers occur"]
    assert len(report.failures) == 2
    assert "three.tif: expected a number that is not 3, found 3; leave it out" in report.failures
    assert any("ZeroDivisionError: five" in failure for failure in report.failures)


def test_a_killed_worker_costs_only_its_own_input():
    report = Report("test")
    done = dict(Workers(2).run(die_at_four, range(40), report))
    assert sorted(done) == [n for n in range(40) if n != 4]
    assert len(report.failures) == 1
    assert "was killed" in report.failures[0]


def begin_a_file(job):
    """Leave a file begun, and take a while, if it is the first job; the others are done at once."""
    number, directory = job
    if number == 0:
        partial_path(directory).touch()
        time.sleep(60)
    return number


@pytest.mark.parametrize("end", [KeyboardInterrupt, InputError("x", "x", "x", "x")], ids=["stopped", "broken off"])
def test_workers_that_are_killed_as_a_run_is_broken_off_leave_nothing_begun(tmp_path, end):
    remove_stale_partials(tmp_path)  # as a stage does with the directory of its results
    jobs = [(number, tmp_path) for number in range(20)]

    def break_off():
        for _ in Workers(2).run(begin_a_file, jobs, Report("test")):
            while not any(tmp_path.iterdir()):
                time.sleep(0.01)
            raise end

    with pytest.raises((KeyboardInterrupt, InputError)):
        break_off()
    assert not any(tmp_path.iterdir())


def test_threads_keep_what_their_jobs_warn_of_apart_and_leave_the_filters_as_they_were():
    before = warnings.filters[:]
    outcomes = list(Workers(4)._run(warn_slowly, range(40), in_threads=True))
    assert len(outcomes) == 40
    assert {index: outcome.warnings for index, outcome in outcomes} == {
        n: (f"first {n}", f"last {n}") for n in range(40)
    }
    assert warnings.filters == before


def warn_slowly(number):
    warnings.warn(f"first {number}", DataWarning, stacklevel=1)
    time.sleep(0.002)
    warnings.warn(f"last {number}", DataWarning, stacklevel=1)


def test_a_warning_of_the_main_thread_is_none_of_a_job():
    with pytest.warns(DataWarning, match="of the main thread"):
        for index, outcome in Workers(2)._run(warn_slowly, range(20), in_threads=True):
            warnings.warn(f"of the main thread {index}", DataWarning, stacklevel=1)
            assert len(outcome.warnings) == 2


def test_threads_run_in_this_process_and_side_by_side():
    done = dict(Workers(3).run(meet, range(3), Report("test"), in_threads=True))
    assert set(done.values()) == {os.getpid()}


MEETING = threading.Barrier(3, timeout=60)


def meet(_):
    MEETING.wait()
    return os.getpid()


def test_processes_that_were_warmed_up_do_the_same():
    workers = Workers(2)
    workers.warm_up()
    assert dict(workers.run(abs, [-1, -2, -3], Report("test"))) == {-1: 1, -2: 2, -3: 3}


def test_no_inputs():
    report = Report("test")
    assert list(Workers().run(square, [], report)) == []
    assert not report.failures


def test_jobs_run_on_a_dask_cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        report = Report("test")
        done = dict(Workers(scheduler=cluster.scheduler_address).run(square, range(20), report))
    assert done == {n: n**2 for n in range(20) if n not in (3, 5)}
    assert len(report.failures) == 2
    assert report.warnings == ["odd numbers occur"]


def test_no_scheduler_at_the_address():
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="--scheduler"):
        list(Workers(scheduler="not an address").run(square, [1], Report("test")))


SLEEPER = """
import os, sys, time
sys.path.insert(0, {root!r})
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

def sleep(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    list(Workers(2).run(sleep, [sys.argv[1] + "/1", sys.argv[1] + "/2"], Report("sleep")))
"""


def test_workers_end_when_the_main_process_is_killed(tmp_path, root):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER.format(root=str(root)))
    main = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.DEVNULL)
    pids = [int(read_when_there(tmp_path / name)) for name in ("1", "2")]
    main.kill()
    main.wait()
    for pid in pids:
        wait_until(lambda pid=pid: not is_running(pid))


def read_when_there(path):
    wait_until(lambda: path.exists() and path.read_text())
    return path.read_text()


def is_running(pid):
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else not os.kill(pid, 0)
        )
    except OSError:
        return False


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
