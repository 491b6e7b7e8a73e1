"""A process that asks before it changes a file: each change is let through, refused, or is what the process dies of.

The system itself asks (seccomp_unotify(2)): whatever library makes the call, in whatever process or thread of those
that were started, none goes by unseen. Linux on x86-64 only, 5.5 and newer.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
from dataclasses import dataclass
from pathlib import Path

# Numbers of the calls that change files or wait for the disk (asm/unistd_64.h), and where their arguments say which
# file: a path, a directory and a path below it, or an open file. Of two paths the second is what comes to be.
PATH, BELOW, OPENED = "path", "below", "opened"
CALLS = {
    1: ("write", OPENED, 0),
    18: ("write", OPENED, 0),
    20: ("write", OPENED, 0),
    296: ("write", OPENED, 0),
    328: ("write", OPENED, 0),
    40: ("write", OPENED, 0),  # sendfile
    326: ("write", OPENED, 2),  # copy_file_range
    285: ("allocate", OPENED, 0),
    77: ("truncate", OPENED, 0),
    76: ("truncate", PATH, 0),
    2: ("open", PATH, 0),
    257: ("open", BELOW, 0),
    85: ("open", PATH, 0),  # creat
    82: ("rename", PATH, 1),
    264: ("rename", BELOW, 2),
    316: ("rename", BELOW, 2),
    87: ("unlink", PATH, 0),
    263: ("unlink", BELOW, 0),
    84: ("rmdir", PATH, 0),
    83: ("mkdir", PATH, 0),
    258: ("mkdir", BELOW, 0),
    86: ("link", PATH, 1),
    265: ("link", BELOW, 2),
    88: ("link", PATH, 1),  # symlink
    266: ("link", BELOW, 1),
    90: ("chmod", PATH, 0),
    91: ("chmod", OPENED, 0),
    268: ("chmod", BELOW, 0),
    74: ("fsync", OPENED, 0),
    75: ("fsync", OPENED, 0),
    306: ("syncfs", OPENED, 0),
}
OPENING = {2: 1, 257: 2}  # the argument that says whether to write
FILES_OF_STREAMS = 2  # standard input, output, error: numbers up to this

# From linux/{prctl,seccomp,audit,fcntl,filter}.h.
PR_SET_NO_NEW_PRIVS = 38
PIDFD_GETFD, WRITE = 438, 1
SECCOMP, SET_MODE_FILTER, NEW_LISTENER = 317, 1, 1 << 3
ALLOW, ASK = 0x7FFF0000, 0x7FC00000
ARCHITECTURE = 0xC000003E
RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
NOTICE, ANSWER = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")
AT_FDCWD = 0xFFFFFF9C
LOAD, EQUAL, GREATER, ANY_OF, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16
LONGEST_PATH = 4096


def are_seen():
    """Return whether the system can ask here."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    child = os.fork()
    if not child:
        with_filter = False
        try:
            os.close(ask_before_changes())
            with_filter = True
        finally:
            os._exit(0 if with_filter else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def ask_before_changes():
    """Have the system ask about every change from now on, for as long as this process lives and those it starts.

    Returns
    -------
    int
        The open file that answers come from; another process must take it, since this one waits for them.
    """
    program = b"".join(struct.pack("<HBBI", *line) for line in _program())
    lines = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many lines, and where they are.
    where = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(lines)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    listener = libc.syscall(SECCOMP, SET_MODE_FILTER, NEW_LISTENER, where)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def _program():
    """Return the lines of a BPF program that asks about the calls above, as far as their arguments may matter."""
    yield LOAD, 0, 0, ARCHITECTURE_AT
    yield EQUAL, 1, 0, ARCHITECTURE
    yield RETURN, 0, 0, ALLOW
    yield LOAD, 0, 0, NUMBER_AT
    for number, (name, _, argument) in CALLS.items():
        if number in OPENING:
            # Four lines that are only for this call.
            yield EQUAL, 0, 4, number
            yield LOAD, 0, 0, ARGUMENTS_AT + 8 * OPENING[number]
            yield ANY_OF, 1, 0, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
            yield RETURN, 0, 0, ALLOW
            yield RETURN, 0, 0, ASK
        elif name == "write":
            yield EQUAL, 0, 4, number
            yield LOAD, 0, 0, ARGUMENTS_AT + 8 * argument
            yield GREATER, 1, 0, FILES_OF_STREAMS
            yield RETURN, 0, 0, ALLOW
            yield RETURN, 0, 0, ASK
        else:
            yield EQUAL, 0, 1, number
            yield RETURN, 0, 0, ASK
    yield RETURN, 0, 0, ALLOW


@dataclass(frozen=True)
class Change:
    """A change that is about to happen: what is asked for, of which file, by which process; the call's own words."""

    name: str
    path: str
    pid: int
    number: int
    arguments: tuple[int, ...]

    @property
    def is_plain_write(self):
        """Whether it is write(2) itself, of which half can be done."""
        return self.number == WRITE


class Listener:
    """What asks; used as long as the processes live."""

    def __init__(self, opened):
        self.opened = opened

    def receive(self):
        """Return the ticket and the `Change` of the next question; None if who asked is gone."""
        notice = bytearray(NOTICE.size)
        try:
            fcntl.ioctl(self.opened, RECEIVE, notice)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        ticket, pid, _, number, _, _, *arguments = NOTICE.unpack(notice)
        name, way, place = CALLS[number]
        return ticket, Change(name, _find_path(pid, way, arguments[place:]), pid, number, tuple(arguments))

    def allow(self, ticket):
        """Let a change happen."""
        self._answer(ticket, 0, 0, CONTINUE)

    def refuse(self, ticket, number):
        """Have it fail with a number of an error instead."""
        self._answer(ticket, 0, -number, 0)

    def write_half(self, ticket, change):
        """Let half of the bytes be written, as systems do that find the disk full on the way."""
        self._answer(ticket, write_half(change), 0, 0)

    def _answer(self, ticket, value, error, flags):
        try:
            fcntl.ioctl(self.opened, SEND, ANSWER.pack(ticket, value, error, flags))
        except OSError as error:
            if error.errno != errno.ENOENT:  # who asked is gone
                raise

    def close(self):
        """Ask no more; who would be asked about gets an error."""
        os.close(self.opened)


def write_half(change):
    """Write half of what a process is about to write, rounded up, in its place; return how many bytes."""
    if not change.is_plain_write:
        return 0
    place, address, count = change.arguments[:3]
    with open(f"/proc/{change.pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        data = memory.read((count + 1) // 2)
    process = os.pidfd_open(change.pid)
    libc = ctypes.CDLL(None, use_errno=True)
    opened = libc.syscall(PIDFD_GETFD, process, place, 0)  # the same open file, with its place in it
    os.close(process)
    if opened < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        return os.write(opened, data)
    finally:
        os.close(opened)


def _find_path(pid, way, arguments):
    """Return the path that a call's arguments tell, as the process sees it; an empty one where it is gone."""
    try:
        if way == OPENED:
            return str(Path(f"/proc/{pid}/fd/{arguments[0]}").readlink())
        text = _read_text(pid, arguments[1 if way == BELOW else 0])
        directory = arguments[0] & 0xFFFFFFFF if way == BELOW else AT_FDCWD
        start = Path(f"/proc/{pid}/cwd" if directory == AT_FDCWD else f"/proc/{pid}/fd/{directory}").readlink()
        return os.path.normpath(start / text)
    except OSError:
        return ""


def _read_text(pid, address):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return os.fsdecode(memory.read(LONGEST_PATH).partition(b"\0")[0])
