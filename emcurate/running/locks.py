"""One run at a time writes into an output directory, and one process at a time into a shared file."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any

from emcurate.errors import InputError
from emcurate.files import check_regular, open_regular

try:
    import fcntl
except ImportError:  # not on Windows, where two runs at once are simply not told apart
    fcntl = None  # type: ignore[assignment]

# What file systems answer that know no locks, such as some network ones: there, runs are not told apart either. The
# last is what NFS says of a directory.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF)

_held: dict[Path, int] = {}

# What is done before locks are released, each with the lock that it belongs to.
_ends: list[tuple[Path, Callable[[], None]]] = []


def hold_lock(path: Path, directory: Path) -> None:
    """Lock a file, or an existing directory itself, until `release_locks` or this process ends, however it ends.

    Raises
    ------
    InputError
        If another process has locked it; `directory` is what it stands for.
    """
    if fcntl is None or path in _held:
        return
    if path.is_dir():
        file = os.open(path, os.O_RDONLY)
    else:
        path.parent.mkdir(exist_ok=True)
        if os.path.lexists(path):
            check_regular(path)  # to open a pipe would wait for ever
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno in _NO_LOCKS:
            return
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        found = "another that is under way"
        raise InputError(directory, "no other run that writes there", found, "wait until it has ended") from None
    _held[path] = file


def holds_alone(path: Path) -> bool:
    """Return whether this process holds a lock and nobody else one beside it: whoever writes there takes one first."""
    if path not in _held:
        return False
    return all(map(_is_free, set(path.parent.glob(f"*{path.suffix}")) - _held.keys()))


def _is_free(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            _let_go(file.fileno())
    except (OSError, InputError):
        return False
    return True


def _let_go(file: int) -> None:
    """Unlock a file before it is closed: a process that is just being started has it open as well, for a moment."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def wait_for_lock(file: IO[Any]) -> None:
    """Wait until no other process has locked an open file, and lock it until it is closed.

    Some network file systems know no locks, and Windows none of these: there the file goes unlocked.
    """
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


def before_release(path: Path, end: Callable[[], None]) -> None:
    """Have something done before a lock is released, and by `settle`."""
    _ends.append((path, end))


def settle(path: Path) -> None:
    """Do what is to be done before a lock is released: somebody else comes to hold it in this process."""
    for other, end in _ends:
        if other == path:
            end()


def release_locks(but: Collection[Path] = ()) -> None:
    """Let other processes write where this one did, except where it holds the locks named.

    Raises
    ------
    OSError
        If what was to be done before could not be; the locks are released in any case.
    """
    ends = [end for path, end in _ends if path not in but]
    _ends[:] = [(path, end) for path, end in _ends if path in but]
    try:
        while ends:
            ends.pop()()
    finally:
        for path in [path for path in _held if path not in but]:
            _let_go(_held[path])
            os.close(_held.pop(path))


def held_locks() -> frozenset[Path]:
    """Return the locks that this process holds."""
    return frozenset(_held)
