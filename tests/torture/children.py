"""Run the mains of stages in child processes: all is loaded already; time is limited, and memory measured."""

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass

# From linux/capability.h.
CAPABILITIES_VERSION, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 0x20080522, 1, 2

# What stands for the answer of a child that had to be killed, or died.
HUNG = "did not end within {limit:g} s"
DIED = "died of signal {signal}"


@dataclass(frozen=True)
class Answer:
    """What came of a command: its exit status, or None with the reason in `err`; its output; the child's memory.

    `loaded` are the names of the modules that the child had to load for it.
    """

    status: int | None
    out: str
    err: str
    seconds: float
    peak_bytes: int = 0
    loaded: tuple[str, ...] = ()


def run_all(commands, limit):
    """Run (module, argv) commands one after another, and yield (index, `Answer`) of each.

    One that takes more than `limit` seconds, or kills its process, is named, and the others go on in another process.
    """
    index = 0
    while index < len(commands):
        for answer in _run_child(commands[index:], limit):
            yield index, answer
            index += 1


def _run_child(commands, limit):
    """Yield the answers of commands up to the first that hangs or dies, that one included."""
    child, reader = start(commands)
    waiting = b""
    started = time.monotonic()
    answered = 0
    try:
        while answered < len(commands):
            left = started + limit - time.monotonic()
            ready = select.select([reader], [], [], max(0, left))[0]
            if not ready:
                os.kill(child, signal.SIGKILL)
                yield Answer(None, "", HUNG.format(limit=limit), limit)
                return
            data = os.read(reader, 1 << 16)
            if not data:
                status = os.waitpid(child, 0)[1]
                child = 0
                number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else "none"
                yield Answer(None, "", DIED.format(signal=number), time.monotonic() - started)
                return
            waiting += data
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                yield read_answer(line)
                answered += 1
                started = time.monotonic()
    finally:
        os.close(reader)
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def read_answer(line):
    """Return an answer from what a child wrote."""
    return Answer(**json.loads(line))


def start(commands, enter=None):
    """Have a child run commands; return it and a pipe to which it writes the answers, each a line of JSON.

    `enter` is what the child does first.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            _serve(commands, writer, enter)
        finally:
            os._exit(0)
    os.close(writer)
    return child, reader


def _serve(commands, writer, enter):
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what C libraries say is no matter here
        os.dup2(nowhere, descriptor)
    give_up_override()
    if enter is not None:
        enter()
    forget_room()
    before = _peak_bytes()
    for module, argv in commands:
        out, err = io.StringIO(), io.StringIO()
        start, known = time.monotonic(), set(sys.modules)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = importlib.import_module(module).main(argv)
            except SystemExit as error:
                status = error.code
            except BaseException:  # noqa: BLE001 - it is what is looked for
                traceback.print_exc()
                status = None
        seconds, loaded = time.monotonic() - start, tuple(sys.modules.keys() - known)
        answer = Answer(status, out.getvalue(), err.getvalue(), seconds, _peak_bytes() - before, loaded)
        data = json.dumps(vars(answer)).encode() + b"\n"
        while data:
            data = data[os.write(writer, data) :]


def forget_room():
    """Give back what the parent left: room that is there already hides as much of what a command takes."""
    gc.freeze()  # what is still to be collected stays
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # what was freed among what is used goes
        libc.malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the most memory so far is what there is now


def give_up_override():
    """Let the superuser, as which containers run tests, read no more than others may; elsewhere it does nothing."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice
    if libc.capget(header, sets) == 0:
        sets[0] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
        libc.capset(header, sets)


def _peak_bytes():
    """Return the most memory this process has had, in bytes; what it shares with its parent is in it."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
