"""A command in a process of its own, of which any change of a file can be made the last one, or fail."""

import contextlib
import errno
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field

from tests.torture import children, syscalls

DIE = -1
READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Fault:
    """What happens at a change of a file.

    Attributes
    ----------
    error : int
        The number of the error that it ends with; `DIE` for the end of the process.
    words : tuple of str
        Of which a run that goes on must say one.
    hits : frozenset of str
        The changes it can happen at, by name; none: all.
    lasts : bool
        Whether all of them end so from then on.
    cuts_power, names_stay : bool
        Whether the disk loses what it was not made to keep, and whether names are not among that.
    """

    error: int = DIE
    words: tuple[str, ...] = ()
    hits: frozenset = frozenset()
    lasts: bool = False
    cuts_power: bool = False
    names_stay: bool = False

    def can_hit(self, change):
        """Return whether a change can end so."""
        return not self.hits or change.name in self.hits


TAKING_ROOM = frozenset({"open", "write", "allocate", "truncate", "mkdir", "link", "rename", "fsync", "syncfs"})
OF_DIRECTORIES = frozenset({"open", "mkdir", "rmdir", "link", "unlink", "rename"})
FAULTS = {
    "the process dies": Fault(),
    "the power is cut": Fault(cuts_power=True),
    "the power is cut, names stay": Fault(cuts_power=True, names_stay=True),
    "the disk is full": Fault(errno.ENOSPC, ("no space left",), TAKING_ROOM, lasts=True),
    "the disk fails": Fault(errno.EIO, ("input/output error",)),
    "access is denied": Fault(errno.EACCES, ("permission denied", "no write permission"), OF_DIRECTORIES, lasts=True),
}


@dataclass
class Course:
    """How a run went: the changes it was about to make, and what it answered, None if it did not live to do so."""

    changes: list = field(default_factory=list)
    answer: children.Answer | None = None
    hung: bool = False


def run_watched(command, out, limit, fault=None, moment=0, disk=None, meanwhile=None):
    """Run a command in a child; return its `Course`.

    Parameters
    ----------
    command : (module, argv)
    out : Path
        Of changes elsewhere nothing is seen.
    limit : float
        Seconds.
    fault : Fault, optional
        What happens, to the change of number `moment`, from 0, among those that it can happen to.
    disk : tests.power.Disk, optional
        Is told what is waited for.
    meanwhile : callable, optional
        Is called before that change, while the command waits.
    """
    course = Course()
    child, reader, listener = _start(command)
    below, said, end, hit = f"{out}/", b"", time.monotonic() + limit, 0
    poll = select.poll()
    for opened in (reader, listener.opened):
        poll.register(opened, select.POLLIN)
    try:
        while not said.endswith(b"\n"):
            ready = dict(poll.poll(max(0, end - time.monotonic()) * 1000))
            course.hung = not ready
            if course.hung:
                break
            if ready.get(listener.opened, 0) & select.POLLIN:
                if (question := listener.receive()) is None:
                    continue
                ticket, change = question
                if not f"{change.path}/".startswith(below):
                    listener.allow(ticket)
                    continue
                course.changes.append(change)
                if meanwhile is not None and len(course.changes) - 1 == moment:
                    meanwhile()
                is_hit = fault is not None and fault.can_hit(change)
                hit += is_hit
                if not is_hit or hit - 1 < moment or (hit - 1 > moment and not fault.lasts):
                    if disk is not None:
                        disk.meet(change.name, change.path)
                    listener.allow(ticket)
                elif fault.error == DIE:
                    with contextlib.suppress(OSError):
                        syscalls.write_half(change)
                    break
                elif fault.error == errno.ENOSPC and hit - 1 == moment and change.is_plain_write:
                    listener.write_half(ticket, change)
                else:
                    listener.refuse(ticket, fault.error)
            elif reader in ready:
                data = os.read(reader, READ_BYTES)
                if not data:
                    break
                said += data
    finally:
        _end(child)  # before the listener: what asks in vain is told that there is no such call
        listener.close()
        os.close(reader)
    if said.endswith(b"\n"):
        course.answer = children.read_answer(said)
    return course


def _start(command):
    """Start a child that asks before it changes a file; return it, the pipe of its answer, and who is asked."""
    ours, theirs = socket.socketpair()

    def enter():
        os.setsid()
        opened = syscalls.ask_before_changes()
        socket.send_fds(theirs, [b"x"], [opened])
        for left in (ours, theirs):
            left.close()
        os.close(opened)

    child, reader = children.start([command], enter)
    theirs.close()
    with ours:
        _, (opened,), *_ = socket.recv_fds(ours, 1, 1)
    return child, reader, syscalls.Listener(opened)


def _end(child):
    """Kill a child and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
