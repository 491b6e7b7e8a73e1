"""The label file is kept a copy of its log: written anew with every change, or for long lists by a thread."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from emcurate.errors import InputError
from emcurate.outputs import fingerprint
from emcurate.patches.label_files import CodeArray, LabelFiles
from emcurate.patches.label_log import LabelLog
from emcurate.patches.labels import write_codes
from emcurate.writing import atomic_path

# Up to this many labels, 5 MB, the file is written before a change is acknowledged: about 20 ms on a local disk.
LABELS_WRITTEN_AT_ONCE = 100_000


class LabelWriter:
    """Writes a label file, and notes of which list and how much of the log it is a copy.

    Parameters
    ----------
    files : LabelFiles
        Where it is, and what belongs to it.
    digest : str
        The list of whose patches the labels are.
    log : LabelLog
        The log; whoever writes holds it.
    tell : callable
        Takes what the annotator should know.
    """

    def __init__(self, files: LabelFiles, digest: str, log: LabelLog, tell: Callable[[str], None]) -> None:
        self.files = files
        self.guard = threading.Lock()  # between changes of the labels and the thread that writes them
        self._list = digest
        self._log = log
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, "labels")
        self._pending: Future[None] | None = None

    def write(self, codes: CodeArray, *, is_known: bool = False) -> None:
        """Write all labels; a file that another program has changed is kept aside, unless what it says `is_known`.

        Raises
        ------
        InputError
            If it could not be written.
        """
        with self._explained():
            with atomic_path(self.files.labels) as partial:
                write_codes(partial, codes)
                if not is_known:
                    self._keep_foreign_version()
            self.mark(self._log.offset, self._log.digest)

    def write_soon(self, codes: CodeArray) -> None:
        """Have all labels written as they will be when the thread comes to it."""
        pending = self._pending
        if pending is not None and pending.done() and pending.exception() is not None:
            self._tell(f"{pending.exception()}; trying again")
        # A writer that has not started yet will see this change as well.
        if pending is None or pending.running() or pending.done():
            self._pending = self._thread.submit(self._write_snapshot, codes)

    def flush(self) -> None:
        """Return when what was to be written soon is written; raise `InputError` if it could not be."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def mark(self, offset: int, digest: str) -> None:
        """Note of which list and how much of the log the label file is a copy."""
        mark = {"list": self._list, "applied": offset, "log": digest, "file": fingerprint(self.files.labels)}
        self.files.write_state({**self.files.read_state(), **mark})

    def back_up(self) -> Path:
        """Copy the label file to a name that tells the time; return which."""
        path = self.files.labels
        stamp = datetime.now().strftime("%Y-%m-%dT%H%M%S.%f")
        backup = path.with_name(f"{path.name.removesuffix('.npy')}.{stamp}.npy")
        shutil.copy2(path, backup)
        return backup

    def _write_snapshot(self, codes: CodeArray) -> None:
        with self.guard:
            offset, digest, codes = self._log.offset, self._log.digest, codes.copy()
        with self._explained(), contextlib.suppress(_SupersededError), contextlib.ExitStack() as stack:
            with atomic_path(self.files.labels) as partial:
                write_codes(partial, codes)
                # Held until the file has taken its place and the state says so.
                stack.enter_context(self._log.locked())
                state = self.files.read_state()
                if state.get("list", self._list) != self._list or state.get("applied", 0) > offset:
                    raise _SupersededError
                self._keep_foreign_version()
            self.mark(offset, digest)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                self.files.labels,
                "a label file that can be written",
                error.strerror or str(error),
                f"put that right and label on; {self.files.log.name} has every label and brings the file up to date",
            ) from None

    def _keep_foreign_version(self) -> None:
        path, written = self.files.labels, self.files.read_state().get("file")
        if written is not None and path.exists() and written != fingerprint(path):
            self._tell(f"{path} was changed by another program; its version is kept as {self.back_up()}")


class _SupersededError(Exception):
    """Another session has written a newer label file meanwhile."""
