"""A command as a process of its own with all that it starts: they are found, killed and stopped here.

Linux only: who started whom is read from /proc.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

# What is killed, or only told to stop.
KINDS = (GROUP, WORKER, SERVER, STOP) = ("all killed", "a worker killed", "the forkserver killed", "told to stop")

POLL_SECONDS = 0.01


class Run:
    """A command under way, in a session of its own, which tells its processes from all others.

    Parameters
    ----------
    command : list of str
    environment : dict
    log : Path
        Where what it says goes: a pipe could fill up.
    """

    def __init__(self, command, environment, log):
        self.log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Whoever runs the tests in the background has these ignored, which children inherit.
                preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGTERM)],
            )

    @property
    def said(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def is_running(self):
        return self.process.poll() is None

    def wait(self, limit):
        """Return the exit status; None if it took too long and was killed."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.end()
            return None

    def end(self):
        """Kill all there is of it."""
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def send(self, number):
        """Send a signal to all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def strike(self, kind, rng):
        """Kill or stop, once what is to be killed is there; return whether it ever was."""
        while self.is_running():
            chosen = self._targets(kind)
            if chosen:
                number = signal.SIGTERM if kind == STOP else signal.SIGKILL
                victims = chosen if kind == GROUP else [rng.choice(chosen)]
                with contextlib.suppress(ProcessLookupError):
                    for pid in victims:
                        os.kill(pid, number)
                return True
            time.sleep(POLL_SECONDS)
        return False

    def members(self):
        """Return the processes of its session that live, and of each the one that started it."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    state, parent, _, session = (
                        (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
                    )
                    if int(session) == self.process.pid and state not in "ZX":
                        found[int(entry.name)] = int(parent)
        return found

    def orphans(self, seconds):
        """Return the command lines of processes that are there when it has ended, and still so many seconds later."""
        limit = time.monotonic() + seconds
        while (left := self.members()) and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)
        lines = [_command_line(pid) for pid in left]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return lines

    def _targets(self, kind):
        main = self.process.pid
        if kind == STOP:
            return [main]
        members = self.members()
        if kind == GROUP:
            return sorted(members)
        servers = [pid for pid, parent in members.items() if parent == main and "forkserver" in _command_line(pid)]
        return servers if kind == SERVER else sorted(pid for pid, parent in members.items() if parent in servers)


def _command_line(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
