"""Names for files while they are written, which no listing shows, and the sweeping away of what killed runs left.

Such a name tells which process of which machine it belongs to, and is drawn so that no two processes ever have the
same, wherever they run: containers share host names and count their processes from 1.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import secrets
import shutil
import socket
from pathlib import Path

import xxhash

_NAME = re.compile(r"\.emcurate-(?P<machine>.*)-(?P<pid>\d+)-(?P<token>[^-]*)\.partial")
_counter = itertools.count()

# The directories that were swept, in which this run may write, those that were not there yet among them.
_swept: set[Path] = set()


def partial_path(directory: Path) -> Path:
    """Return a fresh hidden name in `directory` that no listing shows and that the next run may sweep away."""
    return directory / partial_name()


def partial_name() -> str:
    """Return a fresh hidden name; see `partial_path`."""
    pid = os.getpid()
    return f".emcurate-{_machine()}-{pid}-{_process(pid)}.{next(_counter):x}.partial"


def remove_stale_partials(directory: Path, *, alone: bool = False) -> None:
    """Remove the partial files that killed processes left in a directory.

    Parameters
    ----------
    directory : Path
        It need not be there yet.
    alone : bool
        Whether nobody else is writing there, so that those of other machines, too, are nobody's any more. One of this
        machine is left as long as its process runs.
    """
    _swept.add(directory)
    try:
        with os.scandir(directory) as entries:
            hidden = [entry.name for entry in entries if entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in hidden:
        match = _NAME.fullmatch(name)
        if match and _is_dead(match, alone):
            path = directory / name
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def sweep_again() -> None:
    """Remove what processes that have died since left in the directories that were swept."""
    for directory in sorted(_swept):
        remove_stale_partials(directory)


def _is_dead(match: re.Match[str], alone: bool) -> bool:
    if match["machine"] != _machine():
        return alone
    return not _is_running(int(match["pid"]), match["token"].partition(".")[0])


@functools.cache
def _machine() -> str:
    """Return what tells this machine, and what counts processes on it, from others."""
    host = re.sub(r"[^\w.]", "_", socket.gethostname())
    said = [host]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            said.append(str(Path(path).readlink()) if "/ns/" in path else Path(path).read_text(encoding="ascii"))
    return f"{host}.{xxhash.xxh32_hexdigest(''.join(said).encode())}"


@functools.lru_cache(maxsize=1)
def _process(pid: int) -> str:
    """Return when a process started, by which it is told from a later one of its number, and what it drew by lot."""
    return f"{_started(pid) or 0:x}.{secrets.token_hex(8)}"


def _is_running(pid: int, started: str) -> bool:
    if Path("/proc/self/stat").exists():
        now = _started(pid)
        return now is not None and started in (f"{now:x}", "0")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _started(pid: int) -> int | None:
    """Return when a process started, in ticks since the machine did; None if it is gone, or nobody can tell."""
    try:
        # The state follows the command's name in brackets. A zombie is dead, though it still has a number.
        state, *rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in "ZX" else int(rest[18])
    except (OSError, ValueError, IndexError):
        return None
