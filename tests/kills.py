"""A kill, played inside this process: from a given moment on nothing changes any file, nor is anything cleared up.

Unlike a real one it can be repeated at every moment of a run. A full disk is played in the same way.
"""

import contextlib
import errno
import os

import pytest

from emcurate import writing
from emcurate.reporting.page import REPORT_NAME
from emcurate.running.ledger_file import LedgerFile
from emcurate.running.locks import release_locks

# What changes a directory.
CHANGES = [(os, name) for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "write")] + [
    (LedgerFile, "_write"),
    (writing, "exchange"),
]


class Killed(BaseException):
    """What stands for the end of the process."""


def full_disk():
    """Return what a system answers when there is no room."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def killed_after(changes, end=Killed, of=CHANGES):
    """Let so many changes of files happen in a block, and nothing after that; give the list of what happened.

    `end` makes the exception that each change after them raises; `of` are the functions that count as changes.
    """
    happened = []

    def wrap(name, change):
        def changed(*arguments, **named):
            if len(happened) >= changes:
                raise end()
            happened.append(name)
            return change(*arguments, **named)

        return changed

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in of:
            patch.setattr(owner, name, wrap(name, getattr(owner, name)))
        with contextlib.suppress(Killed):
            yield happened
    release_locks()


def tree(directory):
    """The bytes of every file below a directory, whatever was left of unfinished ones too.

    Not the ledgers, nor the report, which says how long all took.
    """
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
        and (path.parent.name != ".emcurate" or path.suffix == ".partial")
        and path.name != REPORT_NAME
    }


def differing(tree, other):
    """The names of the files that are not the same in two trees. To show how they differ takes pytest minutes."""
    return sorted(name for name in tree.keys() | other.keys() if tree.get(name) != other.get(name))
