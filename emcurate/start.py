"""What a script needs from its first moment on, before anything larger is loaded; every script imports this first.

A Ctrl-C while libraries are loaded ends it with one line, as at any other moment. The three standard streams exist,
if need be as the null device: else the first file to be opened would take the place of a closed one, and get what
libraries have to say. And names of files are read as UTF-8, whatever the locale says: else a name would be another one
in ledgers, tables and lists when the same command is given where LANG is not set.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

STANDARD_STREAMS = 3


def _open_standard_streams() -> None:
    while (place := os.open(os.devnull, os.O_RDWR)) < STANDARD_STREAMS:
        os.set_inheritable(place, True)
    os.close(place)


def _read_names_as_utf8() -> None:
    """Begin this script anew in Python's UTF-8 mode (PEP 540) where names of files would be read otherwise."""
    if sys.getfilesystemencoding().lower() == "utf-8" or os.name == "nt":
        return
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and Path(script).resolve().is_relative_to(Path(__file__).resolve().parents[1]):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _end_quietly(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(f"\n{Path(sys.argv[0]).stem}: interrupted before anything was done\n")
    else:
        sys.__excepthook__(kind, error, where)


_open_standard_streams()
_read_names_as_utf8()
sys.excepthook = _end_quietly
