"""The file in which a stage notes what it made in an output directory: ``OUTDIR/.emcurate/{stage}.jsonl``.

JSON lines, only ever appended to. A header line tells the stage, its version and its parameters; the others tell,
input by input, where it lay, its fingerprint, the parameters it was treated with, and every file that came of it. A
later line for an input replaces an earlier one, and a line that cannot be read, cut off by a kill perhaps, is as good
as not written.

What lines say is true even after a power cut: those that begin an input are on the disk before any file of it is
written, and those that end one only follow when the disk has its files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from emcurate.durability import sync_outputs, sync_path
from emcurate.files import Output, check_regular, digest_bytes, write_bytes

LEDGER_DIRECTORY = ".emcurate"

# States of an input. Its results are being made; are made; were made and have been altered since. Or its results are
# being made where files of its name lay before, of which nobody knows whose they are. A dropped input has none.
BEGUN, DONE, SPOILT, STRANGE, DROPPED = "begun", "done", "spoilt", "strange", "dropped"
STATES = (BEGUN, DONE, SPOILT, STRANGE, DROPPED)

# A name that no system takes for a path: nearly all are, and a path object for each of many costs more than reading it.
_PLAIN_NAME = re.compile(r"[^/\\:\0]+")

NO_OUTPUTS = b"[]"  # as JSON

# A file of more lines than this, and twice as many as it has inputs, is written anew without those replaced.
LINES_WORTH_COMPACTING = 1000


class Line(msgspec.Struct, omit_defaults=True):
    """A line of the file: a header where `stage` is set, else about one input."""

    stage: str = ""
    product: str = ""
    version: str = ""
    parameters: dict[str, Any] | None = None
    among_inputs: bool = False

    input: str = ""
    state: str = ""
    made_with: str = ""  # the digest of the parameters
    source: str = ""
    root: str = ""
    fingerprint: str = ""
    dataset: str = ""
    owner: str = ""
    settings: dict[str, Any] = {}
    is_part: bool = False
    wanted: str = ""  # what of its results was
    details: dict[str, Any] = {}
    strangers: list[str] = []
    outputs: msgspec.Raw = msgspec.Raw(NO_OUTPUTS)  # decoded one input at a time: there may be millions

    @property
    def made_anything(self) -> bool:
        """Whether any file is noted."""
        return len(bytes(self.outputs)) > len(NO_OUTPUTS)


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
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: Line | None = None
        self.entries: dict[str, Line] = {}
        self.parameters: dict[str, dict[str, Any]] = {}
        self._lines = 0
        self._taken: list[Line] = []
        for line in read_lines(path):
            self._take(line)
        if self.header is None:
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

    def write_taken(self) -> None:
        """Write the lines that were only taken, once the disk has the files that they tell of."""
        lines, self._taken = self._taken, []
        if lines:
            names = (output.name for line in lines for output in read_outputs(line))
            sync_outputs(self.directory, names)
            self._write(lines)

    def _write(self, lines: list[Line]) -> None:
        is_new = not os.path.lexists(self.path)
        if not is_new:
            check_regular(self.path)  # to open a pipe would wait for ever
        self.path.parent.mkdir(exist_ok=True)
        with open(self.path, "ab") as file:
            # A leading newline too: after a line cut off by a kill, this one still starts afresh.
            file.write(b"\n" + b"\n".join(map(msgspec.json.encode, lines)) + b"\n")
        sync_path(self.path)
        if is_new:
            for directory in (self.path.parent, self.directory):
                sync_path(directory)

    def compact(self) -> None:
        """Write the file anew where most of its lines have been replaced by later ones."""
        if self.header is None or self._lines < max(LINES_WORTH_COMPACTING, 2 * len(self.entries)):
            return
        used = {line.made_with for line in self.entries.values()}
        earlier = [
            Line(stage=self.header.stage, product=self.header.product, parameters=parameters)
            for digest, parameters in self.parameters.items()
            if digest in used and parameters != self.header.parameters
        ]
        lines = [*earlier, self.header, *self.entries.values()]
        write_bytes(self.path, b"\n".join(map(msgspec.json.encode, lines)) + b"\n", durable=True)
        self._lines = len(lines)

    def _take(self, line: Line) -> None:
        self._lines += 1
        if line.stage:
            self.header = line
            self.parameters[digest_parameters(line.parameters or {})] = line.parameters or {}
        elif line.state == DROPPED:
            self.entries.pop(line.input, None)
        else:
            self.entries[line.input] = line


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a ledger that can be read and believed."""
    if not path.is_file():
        return
    decoder = msgspec.json.Decoder(Line)
    with open(path, "rb") as file:  # line by line: of millions of files it is hundreds of megabytes
        for text in file:
            if not text.strip():
                continue
            try:
                line = decoder.decode(text)
                names = [output.name for output in read_outputs(line)]
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if (line.stage or line.state in STATES) and all(map(_is_inside, [*names, *line.strangers])):
                yield line


def read_outputs(line: Line) -> list[Output]:
    """Return the files that came of an input."""
    if bytes(line.outputs) == NO_OUTPUTS:
        return []
    return msgspec.json.decode(line.outputs, type=list[Output])


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
    headers = []
    for path in ledger_paths(directory):
        if path.is_file():
            with open(path, "rb") as file:
                text = next(filter(None, map(bytes.strip, file)), b"")
            try:
                headers.append(msgspec.json.decode(text, type=Line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                headers.append(Line())
    return headers


def read_ledgers(directory: Path) -> Iterator[LedgerFile]:
    """Yield the ledger of each stage in a directory."""
    for path in ledger_paths(directory):
        ledger = LedgerFile(path)
        if ledger.header is not None:
            yield ledger


def digest_parameters(parameters: Mapping[str, Any]) -> str:
    """Return what changes when any parameter does."""
    return digest_bytes(json.dumps(parameters, sort_keys=True).encode())


def _is_inside(name: str) -> bool:
    """Return whether a file's name stays in the directory: a ledger may come from anywhere."""
    if _PLAIN_NAME.fullmatch(name):
        return name != ".."
    path = PurePath(name)
    return bool(name) and "\0" not in name and not path.anchor and ".." not in path.parts
