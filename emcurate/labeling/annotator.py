"""Who labels, where nobody has said: the login and the machine, told apart from others who share both."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import socket
import tempfile
from pathlib import Path

from emcurate.errors import InputError
from emcurate.outputs import digest_bytes
from emcurate.running.locks import hold_lock


def find_login() -> str:
    """Return the login and the machine, as ``sara@em-lab-3``; two machines often have a ``user`` each."""
    try:
        login = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may run as a number that has no name
        login = f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"
    return f"{login}@{socket.gethostname().partition('.')[0]}"


def name_annotator(labels: Path) -> str:
    """Return a name for whoever opens a label file without one: the login, numbered while others use it there.

    A laboratory may have one account for all: whoever labels in a second notebook at the same time is then taken for a
    second person. One notebook that opens its labels again stays the same person.
    """
    login = find_login()
    for number in itertools.count(1):
        name = login if number == 1 else f"{login} ({number})"
        place = digest_bytes(f"{labels.absolute()}\0{name}".encode("utf-8", "surrogateescape"))
        # Beside others' temporary files: only processes of one machine can have one login and one machine.
        lock = Path(tempfile.gettempdir()) / f"emcurate-labels-{place}.lock"
        with contextlib.suppress(InputError):
            with contextlib.suppress(OSError):
                hold_lock(lock, labels)
            return name
    raise AssertionError
