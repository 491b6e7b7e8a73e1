"""What a script needs from its first moment on, before anything larger is loaded; every script imports this first.

A Ctrl-C while libraries are loaded ends it with one line, as at any other moment, and so do the other signals that ask
to end. The three standard streams exist,
if need be as the null device: else the first file to be opened would take the place of a closed one, and get what
libraries have to say. And names of files are read as UTF-8, whatever the locale says: else a name would be another one
in ledgers, tables and lists when the same command is given where LANG is not set.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as type checkers have it, without loading typing before anything is guarded
if TYPE_CHECKING:
    from types import FrameType, TracebackType


def _say_interrupted() -> None:
    name = sys.argv[0].replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    sys.stderr.write(f"\n{name}: interrupted before anything was done\n")
    sys.stderr.flush()


def _end_quietly(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _say_interrupted()
    else:
        sys.__excepthook__(kind, error, where)


sys.excepthook = _end_quietly  # first of all, so that what follows here can be interrupted too

import os  # noqa: E402
import signal  # noqa: E402

STANDARD_STREAMS = 3


def end_at_once(number: int, _: FrameType | None) -> None:
    """Handle a Ctrl-C, or what else asks to end, while libraries load: some catch what Python raises, and go on."""
    _say_interrupted()
    os._exit(128 + number)  # as a shell reports it


def _is_loaded_by_a_script() -> bool:
    """Return whether the script that was started imports this itself, and not something else that it imports."""
    frame: FrameType | None = sys._getframe(2)  # past this module's own code
    while frame is not None and frame.f_globals.get("__name__", "").startswith("importlib."):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") == "__main__"


def _answer_signals() -> None:
    """Answer what asks to end, unless whoever started this has it ignored, as nohup does."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end_at_once)


def _open_standard_streams() -> None:
    while (place := os.open(os.devnull, os.O_RDWR)) < STANDARD_STREAMS:
        os.set_inheritable(place, True)
    os.close(place)


def _read_names_as_utf8() -> None:
    """Begin this script anew in Python's UTF-8 mode (PEP 540) where names of files would be read otherwise."""
    if sys.getfilesystemencoding().lower() != "utf-8" and os.name != "nt":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


_open_standard_streams()
if _is_loaded_by_a_script():
    _answer_signals()
    _read_names_as_utf8()
