"""The place that results go to: that there is no room, or that it is gone, is said once, and ends the run."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from emcurate.errors import InputError

# What a system answers when there is no room, for anybody or for this user.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

# What it answers, too, when the directory of the results was moved away, or its disk is gone or read-only now.
NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO)

UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")

# Where the present stage's results go, and how much room there was, by where that disk is mounted.
_directory: Path | None = None
_free_at_first: dict[Path, int] = {}


class NoRoomError(InputError):
    """A disk without room, for which a run stops: nothing that it would go on with can be written either."""


def remember_room(directory: Path) -> None:
    """Remember how much room there is for results before any of them is written."""
    global _directory
    _directory = directory
    _free_at_first[find_mount(directory)] = shutil.disk_usage(directory).free


def forget_room() -> None:
    """Have no directory for results, until the next stage says which."""
    global _directory
    _directory = None


def find_no_place(error: OSError, done: int, total: int, unit: str) -> InputError | None:
    """Return why no other job can do its work either, after one that met an error; None if others may.

    There may be no room, or nothing can be written into the directory of the results any more.
    """
    if error.errno in NO_ROOM:
        return describe_no_room(error, done, total, unit)
    if error.errno not in NO_PLACE or _directory is None:
        return None
    if os.access(_directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return None
    gone = not os.path.lexists(_directory)
    found = "that it is gone" if gone else f"that it is not any more ({error.strerror})"
    advice = "put it back" if gone else "have it be writable"
    return InputError(
        _directory,
        "a directory that can be written to",
        f"{found}, with {done:,} of {total:,} {unit}s done",
        f"{advice} and run the same command again: it goes on where it stopped",
    )


def describe_no_room(error: OSError, done: int = 0, total: int = 0, unit: str = "job") -> NoRoomError:
    """Return the error of a disk without room, met when so many jobs of all were done.

    Where the error names no file, as of one that is open already, the directory of the results is meant.
    """
    named = isinstance(error.filename, str) and os.path.isabs(error.filename)  # noqa: PTH117 - may be a number
    mount = find_mount(Path(error.filename) if named else _directory or Path())
    usage = shutil.disk_usage(mount)
    used = max(0, _free_at_first.get(mount, usage.free) - usage.free)
    quota = (
        "your quota is used up" if error.errno == errno.EDQUOT else f"no space left ({spell_bytes(usage.free)} free)"
    )
    found = f"{quota}, with {done:,} of {total:,} {unit}s done" if total else quota
    if done and used:
        found += f" in {spell_bytes(used)}; the rest takes about {spell_bytes(used * (total - done) // done)}"
    advice = "make room there and run the same command again: it goes on where it stopped"
    return NoRoomError(mount, "room for the results", found, advice)


def find_mount(path: Path) -> Path:
    """Return the directory that the disk with a path is mounted at."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - of what need not exist
    while not path.exists() or not path.is_mount():
        if path == path.parent:
            break
        path = path.parent
    return path


def spell_bytes(count: float) -> str:
    """Return a number of bytes in words.

    >>> spell_bytes(999), spell_bytes(1_500_000)
    ('999 bytes', '1.5 MB')
    """
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == UNITS[0] else f"{count:.1f} {unit}"
