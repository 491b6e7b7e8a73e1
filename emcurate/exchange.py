"""Two paths that exchange what lies there in one step, so that nobody ever finds nothing: Linux' renameat2(2)."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

# From linux/fs.h and linux/fcntl.h: paths relative to the working directory, and what is to be done with them.
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def exchange(path: Path, other: Path) -> bool:
    """Exchange two files or directories; return False where the system or the file system cannot."""
    call = _renameat2()
    return call is not None and not call(AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


@functools.cache
def _renameat2() -> Any:
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
