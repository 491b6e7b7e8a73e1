"""What is said on the terminal: that it cannot be, since a pipe was closed or a disk is full, stops no work."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO


class Voice:
    """A text stream that falls silent when it cannot be written to, and remembers why.

    Parameters
    ----------
    stream : text stream or None
        None is what Python has for one that was closed when it started.

    Attributes
    ----------
    error : OSError or None
        What the system answered.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.error: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no text, or none the terminal has

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        if self._stream is not None and self.error is None:
            with self._attempt():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Have what was written shown."""
        if self._stream is not None and self.error is None:
            with self._attempt():
                self._stream.flush()

    @contextlib.contextmanager
    def _attempt(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            # What is still held back goes nowhere, or Python would try again at its end.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)

    def fileno(self) -> int:
        """Return the stream's number; raises `OSError` if it has none."""
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether a person may be watching."""
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def speak() -> Iterator[tuple[Voice, Voice]]:
    """Let standard output and standard error fail without harm in a block; give both."""
    before = sys.stdout, sys.stderr
    voices = Voice(before[0]), Voice(before[1])
    sys.stdout, sys.stderr = voices
    try:
        yield voices
    finally:
        for voice in voices:
            voice.flush()
        sys.stdout, sys.stderr = before


class Speech:
    """How what a run says reaches its user.

    Attributes
    ----------
    quiet : bool
        Whether only what is wrong is said, and no progress is shown.
    """

    def __init__(self) -> None:
        self.quiet = False
        self._log: Voice | None = None

    def keep_log(self, path: Path, command: str) -> None:
        """Add whatever is said from now on to a file, after a line with the time and the command.

        Raises
        ------
        OSError
            If that file cannot be written to.
        """
        self._log = Voice(open(path, "a", encoding="utf-8"))  # noqa: SIM115 - `end` closes it
        self.note(f"{datetime.now().astimezone().isoformat(timespec='seconds')} $ {command}")

    def note(self, text: str) -> None:
        """Write a text into the log, if one is kept."""
        if self._log is not None:
            self._log.write(f"{text}\n")
            self._log.flush()

    def end(self) -> OSError | None:
        """Go back to how it was at first; return why the log could not be written, if so."""
        error = None
        if self._log is not None:
            error = self._log.error
            self._log.close()
        self.quiet, self._log = False, None
        return error


# This process's.
speech = Speech()
