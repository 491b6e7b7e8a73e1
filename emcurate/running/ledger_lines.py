"""The lines of a ledger: what they tell, and how it is known that they are as they were written.

A line is JSON and ends with ``"check"``, the digest of all that stands before it. One that another hand has changed, or
a failing disk, does not check, and is believed in nothing: what it told of counts as not done. Ledgers of version 0.1.0
have no checks; after the first line that has one, all must.

A line that a kill cut off is no JSON and has no check, and is as good as not written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from emcurate.outputs import Output, digest_bytes

# States of an input. Its results are being made; are made; were made and have been altered since. Or its results are
# being made where files of its name lay before, of which nobody knows whose they are. A dropped input has none.
BEGUN, DONE, SPOILT, STRANGE, DROPPED = "begun", "done", "spoilt", "strange", "dropped"
STATES = (BEGUN, DONE, SPOILT, STRANGE, DROPPED)

NO_OUTPUTS = b"[]"  # as JSON

# A name that no system takes for a path: nearly all are, and a path object for each of many costs more than reading it.
_PLAIN_NAME = re.compile(r"[^/\\:\0]+")

_CHECK, _END = b',"check":"', b'"}'
_CHECK_BYTES = len(_CHECK) + len(digest_bytes(b"")) + len(_END)


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

    def count_of(self, noun: str) -> int:
        """Return a count among the details; 0 where none is noted, or what no stage would note."""
        count = self.details.get(noun, 0)
        return count if type(count) is int and count >= 0 else 0


class _Told(msgspec.Struct):
    check: Any = None


_CHECK_OF = msgspec.json.Decoder(_Told)


def spell_line(line: Line) -> bytes:
    """Return a line as it stands in the file, without a newline."""
    text = msgspec.json.encode(line)[: -len(b"}")]
    return text + _spell_check(text)


def read_lines(path: Path, altered: list[int] | None = None) -> Iterator[Line]:
    """Yield the lines of a ledger that can be read and believed.

    `altered` receives the numbers, from 1, of those that are not as they were written.
    """
    altered = [] if altered is None else altered
    if not path.is_file():
        return
    decoder = msgspec.json.Decoder(Line)
    has_checks = False
    with open(path, "rb") as file:  # line by line: of millions of files it is hundreds of megabytes
        for number, text in enumerate(map(bytes.strip, file), start=1):
            check = text[-_CHECK_BYTES:]
            if not check.startswith(_CHECK):
                is_whole, is_believed = _judge_unchecked(text, has_checks)
            else:
                is_whole, is_believed = True, check == _spell_check(text[:-_CHECK_BYTES])
                has_checks |= is_believed
            if is_believed and (line := _read_line(text, decoder)) is not None:
                yield line
            elif is_whole and not is_believed:
                altered.append(number)


def _judge_unchecked(text: bytes, has_checks: bool) -> tuple[bool, bool]:
    """Return whether a line that does not end in a check is whole, and whether it is of an older version's ledger."""
    try:
        told = _CHECK_OF.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False, False
    return True, told.check is None and not has_checks


def _read_line(text: bytes, decoder: msgspec.json.Decoder[Line]) -> Line | None:
    """Return what a line tells; None if it cannot be read, or names files that are none of its directory's."""
    try:
        line = decoder.decode(text)
        names = [output.name for output in read_outputs(line)]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if (line.stage or line.state in STATES) and all(map(_is_inside, [*names, *line.strangers])):
        return line
    return None


def _spell_check(text: bytes) -> bytes:
    return _CHECK + digest_bytes(text).encode() + _END


def read_outputs(line: Line) -> list[Output]:
    """Return the files that came of an input."""
    if bytes(line.outputs) == NO_OUTPUTS:
        return []
    return msgspec.json.decode(line.outputs, type=list[Output])


def digest_parameters(parameters: Mapping[str, Any]) -> str:
    """Return what changes when any parameter does."""
    return digest_bytes(json.dumps(parameters, sort_keys=True).encode())


def _is_inside(name: str) -> bool:
    """Return whether a file's name stays in the directory: a ledger may come from anywhere."""
    if _PLAIN_NAME.fullmatch(name):
        return name != ".."
    path = PurePath(name)
    return bool(name) and "\0" not in name and not path.anchor and ".." not in path.parts
