"""Locks end with what they are for, whichever process has been started meanwhile."""

import os
import subprocess
import sys

import pytest

from emcurate.errors import InputError
from emcurate.running.locks import hold_lock, holds_alone, release_locks

HOLD = """
import sys
from pathlib import Path
from emcurate.running.locks import hold_lock
hold_lock(Path(sys.argv[1]), Path())
"""


@pytest.fixture
def lock(tmp_path):
    yield tmp_path / ".emcurate" / "stage.lock"
    release_locks()


@pytest.fixture
def child():
    """Gives what starts a process that has all files open that this one has, as one has between fork and exec."""
    children = []

    def start():
        number = os.fork()
        if not number:
            os.read(reader, 1)
            os._exit(0)
        children.append(number)

    reader, writer = os.pipe()
    yield start
    os.write(writer, b"x" * len(children))
    for number in children:
        os.waitpid(number, 0)
    os.close(reader)
    os.close(writer)


def test_a_lock_that_was_released_is_free_while_another_process_has_its_file_open(lock, child, root):
    hold_lock(lock, lock.parent)
    child()
    held = subprocess.run([sys.executable, "-c", HOLD, str(lock)], cwd=root, capture_output=True, text=True)
    assert held.returncode == 1 and InputError.__name__ in held.stderr
    release_locks()
    done = subprocess.run([sys.executable, "-c", HOLD, str(lock)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    hold_lock(lock, lock.parent)


def test_to_look_whether_a_lock_is_free_takes_it_from_nobody(lock, child, monkeypatch):
    import fcntl

    hold_lock(lock, lock.parent)
    other = lock.with_name("other.lock")
    other.touch()
    real, seen = fcntl.flock, []

    def flock(file, how):
        real(file, how)
        if how == fcntl.LOCK_SH | fcntl.LOCK_NB:
            seen.append(how)
            child()  # in that very moment

    monkeypatch.setattr(fcntl, "flock", flock)
    assert holds_alone(lock) and seen
    hold_lock(other, other.parent)
