"""The file in which a stage notes what it made in an output directory: ``OUTDIR/.emcurate/{stage}.jsonl``.

JSON lines, only ever appended to. A header line tells the stage, its version and its parameters; the others tell,
input by input, where it lay, its fingerprint, the parameters it was treated with, and every file that came of it. A
later line for an input replaces an earlier one, and a line that cannot be read, cut off by a kill perhaps, is as good
as not written; `emcurate.running.ledger_lines` says which are believed.

What lines say is true even after a power cut: those that begin an input are on the disk before any file of it is
written, and those that end one only follow when the disk has its files.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from emcurate.durability import sync_outputs, sync_path
from emcurate.files import check_regular
from emcurate.running.ledger_lines import DROPPED, Line, digest_parameters, read_lines, read_outputs, spell_line
from emcurate.writing import telling, write_bytes

LEDGER_DIRECTORY = ".emcurate"

# A file of more lines than this, and twice as many as it has inputs, is written anew without those replaced.
LINES_WORTH_COMPACTING = 1000

# Numbers of lines that a message shows before it only counts the rest.
LINES_SHOWN = 5

# Ledgers whose lines are kept in memory for the next that asks, and how large they may be.
KEPT_LEDGERS, KEPT_BYTES = 16, 1 << 22

# A file changed less long ago than this could change again without its time telling so: the kernel's clock has steps.
SURELY_LATER_NS = 50_000_000

# What `take_altered` gives.
_altered: dict[Path, str] = {}


class LedgerFile:
    """A ledger's file as it was read, and what has been appended since.

    Attributes
    ----------
    header : Line or None
        The last header; None where there is no file, or one of another version.
    entries : dict of str to Line
        By input, those dropped left out.
    parameters : dict of str to dict
        All that any header had, by their digest.
    altered : list of int
        The numbers of lines that are not as they were written, and not believed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: Line | None = None
        self.entries: dict[str, Line] = {}
        self.parameters: dict[str, dict[str, Any]] = {}
        self._lines = 0
        self._taken: list[Line] = []
        self.altered: list[int] = []
        for line in _read_all(path, self.altered):
            self._take(line)
        if self.altered:
            _altered[path] = self.describe_altered()
        elif self.header is None:
            self.entries = {}

    @property
    def directory(self) -> Path:
        """Where the results are that it tells of."""
        return self.path.parent.parent

    def append(self, lines: Iterable[Line]) -> None:
        """Add lines, and have them on the disk."""
        lines = list(lines)
        if not lines:
            return
        for line in lines:
            self._take(line)
        self._write(lines)

    def take(self, line: Line) -> None:
        """Go by a line that is not written yet; `write_taken` does that."""
        self._take(line)
        self._taken.append(line)

    def write_taken(self, judge: Callable[[list[Line]], list[Line]] = list) -> None:
        """Write the lines that were only taken, once the disk has the files that they tell of.

        `judge` may give others for some of them, which count in their place.
        """
        lines, self._taken = judge(self._taken), []
        self.entries.update((line.input, line) for line in lines)
        if lines:
            names = (output.name for line in lines for output in read_outputs(line))
            sync_outputs(self.directory, names)
            self._write(lines)

    def _write(self, lines: list[Line]) -> None:
        is_new = not os.path.lexists(self.path)
        if not is_new:
            check_regular(self.path)  # to open a pipe would wait for ever
        self.path.parent.mkdir(exist_ok=True)
        with telling(self.path), open(self.path, "ab") as file:
            # A leading newline too: after a line cut off by a kill, this one still starts afresh.
            file.write(b"\n" + b"\n".join(map(spell_line, lines)) + b"\n")
        sync_path(self.path)
        if is_new:
            for directory in (self.path.parent, self.directory):
                sync_path(directory)

    def compact(self) -> None:
        """Write the file anew where lines were altered, or most of them have been replaced by later ones."""
        is_long = self._lines >= max(LINES_WORTH_COMPACTING, 2 * len(self.entries))
        if self.header is None or not (is_long or self.altered):
            return
        used = {line.made_with for line in self.entries.values()}
        earlier = [
            Line(stage=self.header.stage, product=self.header.product, parameters=parameters)
            for digest, parameters in self.parameters.items()
            if digest in used and parameters != self.header.parameters
        ]
        lines = [*earlier, self.header, *self.entries.values()]
        write_bytes(self.path, b"\n".join(map(spell_line, lines)) + b"\n", durable=True)
        self._lines = len(lines)
        self.altered = []

    def describe_altered(self) -> str:
        """Return which lines are not as they were written, in words."""
        shown = ", ".join(map(str, self.altered[:LINES_SHOWN]))
        more = f" and {len(self.altered) - LINES_SHOWN:,} more" if len(self.altered) > LINES_SHOWN else ""
        return f"line {shown}" if len(self.altered) == 1 else f"lines {shown}{more}"

    def _take(self, line: Line) -> None:
        self._lines += 1
        if line.stage:
            self.header = line
            self.parameters[digest_parameters(line.parameters or {})] = line.parameters or {}
        elif line.state == DROPPED:
            self.entries.pop(line.input, None)
        else:
            self.entries[line.input] = line


def _read_all(path: Path, altered: list[int]) -> Iterable[Line]:
    """Yield a ledger's lines as `read_lines` does; of one that was read and is still the same, what was read then.

    The stages of one run read one another's ledgers several times.
    """
    status = path.stat() if path.is_file() else None
    if status is None or status.st_size > KEPT_BYTES or time.time_ns() - status.st_mtime_ns < SURELY_LATER_NS:
        return read_lines(path, altered)
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    lines, numbers = _read_once(path, state)
    altered += numbers
    return lines


@functools.lru_cache(KEPT_LEDGERS)
def _read_once(path: Path, _: tuple[int, ...]) -> tuple[tuple[Line, ...], tuple[int, ...]]:
    altered: list[int] = []
    return tuple(read_lines(path, altered)), tuple(altered)


def ledger_path(directory: Path, stage: str) -> Path:
    """Return where a stage notes what it made in a directory."""
    return directory / LEDGER_DIRECTORY / f"{stage}.jsonl"


def lock_path(directory: Path, stage: str) -> Path:
    """Return the file that a run of a stage locks while it writes into a directory."""
    return ledger_path(directory, stage).with_suffix(".lock")


def ledger_paths(directory: Path) -> list[Path]:
    """Return the ledgers of all stages in a directory."""
    return sorted((directory / LEDGER_DIRECTORY).glob("*.jsonl"))


def read_headers(directory: Path) -> list[Line]:
    """Return the first header of each stage's ledger in a directory; of one of another version, an empty one."""
    return [
        next((line for line in read_lines(path) if line.stage), Line())
        for path in ledger_paths(directory)
        if path.is_file()
    ]


def read_ledgers(directory: Path) -> Iterator[LedgerFile]:
    """Yield the ledger of each stage in a directory."""
    for path in ledger_paths(directory):
        ledger = LedgerFile(path)
        if ledger.header is not None:
            yield ledger


def take_altered() -> dict[Path, str]:
    """Return the ledgers with altered lines that were read since the last call, and which lines these are."""
    found = dict(_altered)
    _altered.clear()
    return found
