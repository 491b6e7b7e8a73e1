"""Being told to stop: by Ctrl-C, by the system, by a batch queue whose time is up, by a terminal that is closed."""

from __future__ import annotations

from emcurate.start import end_at_once

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# What asks a process to end and lets it choose how. A queue sends the second some seconds before it kills.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

# What a shell reports for a process that a signal ended: this and the signal's number.
STATUS_BASE = 128


class Stopped(KeyboardInterrupt):
    """The end of a run that was told to stop; whatever cleans up after a Ctrl-C does so after any of these."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status."""
        return STATUS_BASE + self.number

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name


# The signals that came since the run began.
told: list[int] = []


def raise_if_told() -> None:
    """Raise `Stopped` if this process was told to stop, whatever became of the first."""
    if told:
        raise Stopped(told[0])


@contextlib.contextmanager
def stop_when_told() -> Iterator[None]:
    """Raise `Stopped` in the main thread when this process is told to stop; told again, it ends at once.

    A signal that whoever started the process had it ignore, as nohup does, stays ignored. `Stopped` also takes the
    place of whatever else is raised then: libraries that are being loaded make an `ImportError` of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    told.clear()
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _stop)
        yield
    except Exception:
        raise_if_told()
        raise
    finally:
        for number, handler in before.items():
            # What was for the time before the run would say after it that nothing was done.
            signal.signal(number, signal.SIG_DFL if handler is end_at_once else handler)


def _stop(number: int, _: FrameType | None) -> None:
    told.append(number)
    for other in SIGNALS:
        if signal.getsignal(other) is _stop:
            signal.signal(other, signal.SIG_DFL)
    raise Stopped(number)
