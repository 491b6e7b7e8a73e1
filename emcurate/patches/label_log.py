"""The log of a label file: who gave which patch which label, and when, one JSON object a line.

The log is only ever appended to, and each change is on the disk before it is shown as made. It is the truth of which
the label file is a copy in the order of one list: the log names patches, so labels follow them to any other list, on
any other machine.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import xxhash

from emcurate.errors import InputError
from emcurate.files import open_at_once
from emcurate.patches.labels import LABELS, NONE
from emcurate.patches.list_names import patch_name, tell_apart
from emcurate.running.locks import wait_for_lock

# Who labels found in the file but not in the log are put down to.
FROM_FILE = "(file)"

Action = Literal["label", "undo", "import", "list", "carry"]

# Bytes before where reading stopped that are looked at again, to notice a log that another has taken the place of.
SEEN_BYTES = 256


@dataclass(frozen=True)
class Record:
    """One line of the log.

    ``label``: a person gave the label. ``import``: the label was found in the file, typed in by hand. ``undo``: a
    person took an act back, and `label` is what then stood again. ``list``: from here on the label file is in the order
    of another list. ``carry`` occurs in logs of version 0.1 alone: a label restated for another list.

    Attributes
    ----------
    time : str
        When, in ISO 8601; never before a time that stood in the log already.
    annotator : str
        Who.
    action : str
        One of `Action`.
    act : str
        What was done in one go; all its lines have the same.
    patch : str
        The patch, as `emcurate.patches.list_names.ListNames` names it.
    label, previous : str
        What it was labelled, and what the file said before.
    undoes : str
        The act taken back.
    digest, count : str, int
        The list, for ``list``.
    path : str
        Where the patch lay, in logs of version 0.1, which named no patch otherwise.
    index : int
        Its place in the list then.
    """

    time: str
    annotator: str
    action: Action
    act: str = ""
    patch: str = ""
    label: str = NONE
    previous: str = NONE
    undoes: str = ""
    digest: str = ""
    count: int = 0
    path: str = ""
    index: int = -1

    @property
    def moment(self) -> datetime:
        """The time as a time."""
        return parse_time(self.time)

    @property
    def is_old(self) -> bool:
        """Whether it is a line of version 0.1, which had no acts."""
        return not self.act


class Reading(NamedTuple):
    """What was read of a log: its sound records, and after each how many bytes had been read."""

    records: list[Record]
    ends: list[int]


class LabelLog:
    """An append-only log that several people may write to at once.

    Parameters
    ----------
    path : Path
        The log; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0  # bytes read so far
        self.damaged = 0  # lines that could not be read
        self._seen = b""  # the last of them
        self._digest = xxhash.xxh3_128()

    @property
    def digest(self) -> str:
        """The digest of what was read so far."""
        return self._digest.hexdigest()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other sessions, on this machine or on one that shares the directory, from writing."""
        try:
            file = open(self.path, "ab")  # noqa: SIM115
        except OSError as error:
            raise InputError(
                self.path, "a log that can be written to", error.strerror or str(error), "check its permissions"
            ) from None
        with file:
            wait_for_lock(file)
            yield

    def read_new(self) -> Reading:
        """Return what was written since the last call, by anybody; a line still being written is left for later.

        Raises
        ------
        InputError
            If the log is not the one that was read before, as when an older version of it was put back.
        """
        try:
            with open(self.path, "rb", opener=open_at_once) as file:
                file.seek(self.offset - len(self._seen))
                seen = file.read(len(self._seen))
                data = file.read()
        except FileNotFoundError:
            seen, data = b"", b""
        except OSError as error:
            raise InputError(
                self.path, "a log that can be read", error.strerror or str(error), "check its permissions"
            ) from None
        if seen != self._seen:
            raise InputError(
                self.path,
                "the log this session has read and written",
                "another, or part of it",
                "run the cell again: what the log lacks is taken from the label file",
            )
        complete = data[: data.rfind(b"\n") + 1]
        records: list[Record] = []
        ends = []
        end = self.offset
        for line in complete.splitlines(keepends=True):
            end += len(line)
            if line.strip(b"\0\r\n "):
                record = _parse(line)
                if record is None:
                    self.damaged += 1
                else:
                    records.append(record)
                    ends.append(end)
        self.offset += len(complete)
        self._seen = (self._seen + complete)[-SEEN_BYTES:]
        self._digest.update(complete)
        return Reading(_name_patches(records), ends)

    def holds_start(self, size: int, digest: str) -> bool:
        """Return whether the log's first bytes, as many as these, have this digest."""
        try:
            with open(self.path, "rb", opener=open_at_once) as file:
                start = file.read(size)
        except OSError:
            return False
        return len(start) == size and xxhash.xxh3_128_hexdigest(start) == digest

    def append(self, records: Iterable[Record]) -> None:
        """Write records and wait until the disk has them; call it locked, and `read_new` afterwards.

        Raises
        ------
        InputError
            If they could not be written; then none of them was.
        """
        lines = [json.dumps(_plain(record), ensure_ascii=False) for record in records]
        # Paths that are no valid Unicode come from the file system as surrogates, and go back as the same bytes.
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        # Appending is left to the system: where a network file system knows no locks, nobody's lines are written over.
        with open(self.path, "a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end and not _ends_in_newline(file, end):
                # A session was killed within a line, which was therefore never acknowledged.
                data = b"\n" + data
            try:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), end)
                raise InputError(
                    self.path,
                    "room for the log of labels",
                    error.strerror or str(error),
                    "free some space and label again; the last label was not kept",
                ) from None


def parse_time(text: str) -> datetime:
    """Return an ISO 8601 time; one without a zone is taken for UTC.

    Raises
    ------
    ValueError
        If it is none.
    """
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _ends_in_newline(file: Any, end: int) -> bool:
    file.seek(end - 1)
    return bool(file.read(1) == b"\n")


def _plain(record: Record) -> dict[str, Any]:
    """Return a record without what says nothing of its action."""
    given = {field.name: getattr(record, field.name) for field in fields(record)}
    of_patch = record.action in ("label", "import", "undo")
    kept = {"time", "annotator", "action", "act"} | (
        {"patch", "label", "previous"} if of_patch else {"digest", "count"}
    )
    if record.undoes:
        kept.add("undoes")
    return {name: value for name, value in given.items() if name in kept}


_TEXTS = ("time", "annotator", "action", "act", "patch", "label", "previous", "undoes", "digest", "path")
_NAMES = frozenset(field.name for field in fields(Record))


def _parse(line: bytes) -> Record | None:
    try:
        found = json.loads(line.decode("utf-8", "surrogateescape"))
        # What a later version may add is left out.
        record = Record(**{name: value for name, value in found.items() if name in _NAMES})
        sound = (
            all(isinstance(getattr(record, name), str) for name in _TEXTS)
            and type(record.index) is int
            and type(record.count) is int
            and record.label in LABELS
            and record.action in get_args(Action)
            and bool(record.patch or record.path or record.action in ("list", "carry"))
        )
        return record if sound and record.moment else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _name_patches(records: Sequence[Record]) -> list[Record]:
    """Return records of which those of version 0.1, which hold paths, name their patches too.

    Between two lines that say that the list changed, all paths are those of one list, so that two of one name are two
    patches.
    """
    named: list[Record] = []
    for _, group in itertools.groupby(records, lambda record: record.action if record.action == "list" else ""):
        lines = list(group)
        # Lines that were carried over are of the list that follows.
        names = {
            is_carried: _name_all({r.path for r in lines if r.path and (r.action == "carry") == is_carried})
            for is_carried in (False, True)
        }
        named += [replace(r, patch=names[r.action == "carry"][r.path]) if r.path and not r.patch else r for r in lines]
    return named


def _name_all(paths: Iterable[str]) -> dict[str, str]:
    groups: dict[str, list[str]] = {}
    for path in sorted(paths):
        groups.setdefault(patch_name(path), []).append(path)
    return {path: name for group in groups.values() for path, name in tell_apart(group).items()}
