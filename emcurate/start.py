"""What a script needs from its first moment on, before anything larger is loaded; every script imports this first.

A Ctrl-C while libraries are loaded ends it with one line, as at any other moment. And the three standard streams exist,
if need be as the null device: else the first file to be opened would take the place of a closed one, and get what
libraries have to say.
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


def _end_quietly(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write(f"\n{Path(sys.argv[0]).stem}: interrupted before anything was done\n")
    else:
        sys.__excepthook__(kind, error, where)


_open_standard_streams()
sys.excepthook = _end_quietly
