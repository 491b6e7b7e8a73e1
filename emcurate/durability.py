"""Having the disk keep what was written: a power cut takes whatever the system has not put there yet.

The rule of every stage is: what its ledger says is done has reached the disk before the ledger says so. It is paid a
batch, not a file: one call writes out all that a file system still holds back, at a tenth of what file by file takes.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class _Wanted:
    value = True


def do_without() -> None:
    """Leave it to the system when the disk gets what is written, from now on: for directories that may be lost."""
    _Wanted.value = False


def is_wanted() -> bool:
    """Return whether anything is waited for."""
    return _Wanted.value


def sync_outputs(directory: Path, names: Iterable[str]) -> None:
    """Wait until the disk has files that were written below a directory, and the names they got there.

    Raises
    ------
    OSError
        If the disk could not take them: what a full one or a quota answers only now.
    """
    if not _Wanted.value:
        return
    call = _syncfs()
    if call is None:  # not on Linux
        paths = [directory / name for name in names]
        for path in [*paths, *{path.parent for path in paths}, directory]:
            sync_path(path)
        return
    place = os.open(directory, os.O_RDONLY)
    try:
        if call(place):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
    finally:
        os.close(place)


def sync_path(path: Path) -> None:
    """Wait until the disk has one file, or the names in one directory."""
    if not _Wanted.value or (os.name == "nt" and path.is_dir()):
        return
    place = os.open(path, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


@functools.cache
def _syncfs() -> Any:
    """Return Linux' syncfs(2), which Python does not have; None elsewhere."""
    try:
        return ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError, TypeError):
        return None
