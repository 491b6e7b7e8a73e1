"""Sockets between processes, whose paths the system wants short, however long TMPDIR is."""

from __future__ import annotations

import os
import tempfile
from multiprocessing import util
from pathlib import Path

# Bytes of a socket's path at most (sockaddr_un on macOS, with its end; Linux takes 4 more), and what multiprocessing
# appends to the directory for temporary files, as in "/pymp-a1b2c3d4/listener-a1b2c3d4".
MOST_PATH_BYTES = 103
APPENDED_BYTES = 40

SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")


def shorten_socket_paths() -> None:
    """Have multiprocessing put its sockets where their paths are short, if TMPDIR is too long for them.

    It makes one directory a process, at the first call that needs it, and removes it at the end.
    """
    if len(os.fsencode(tempfile.gettempdir())) + APPENDED_BYTES <= MOST_PATH_BYTES:
        return
    place = next((place for place in SHORT_PLACES if Path(place).is_dir() and os.access(place, os.W_OK)), None)
    if place is None:
        return
    before = tempfile.tempdir
    tempfile.tempdir = place
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = before
