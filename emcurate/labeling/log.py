"""The log of a label file: who gave which patch which label, and when, one JSON object a line.

The log is only ever appended to, and each change is on the disk before it is shown as made. It is the journal
from which an interrupted session is restored, the memory that undo works through, and, since it holds paths, what
labels are carried over from when a path list grows or is re-ordered.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from emcurate.errors import InputError
from emcurate.patches.labels import LABELS, NONE
from emcurate.running.locks import wait_for_lock

# Who labels found in the file but not in the log are put down to.
FROM_FILE = "(file)"

Key = TypeVar("Key", bound=Hashable)
Action = Literal["label", "undo", "import", "list", "carry"]


@dataclass(frozen=True)
class Record:
    """One line of the log.

    ``label``: a person gave the label. ``undo``: a person took the last such action back; `label` is what the file
    then held again. ``import``: the label was found in the file. ``carry``: the label was carried over to another list.
    ``list``: the last `index` lines did so for all labels, and from here on indices are those of that list; lines
    without it were cut short by the end of their session and do not count.
    """

    time: str
    annotator: str
    action: Action
    index: int
    path: str = ""
    label: str = NONE
    previous: str = NONE


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

    def read_new(self) -> list[Record]:
        """Return what was written since the last call, by anybody; a line still being written is left for later."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self.offset += len(complete)
        records = [_parse(line) for line in complete.splitlines() if line]
        self.damaged += sum(record is None for record in records)
        return [record for record in records if record is not None]

    def append(self, records: Iterable[Record]) -> None:
        """Write records and wait until the disk has them; call it locked and after `read_new`.

        Raises
        ------
        InputError
            If they could not be written; then none of them was.
        """
        lines = [json.dumps(asdict(record), ensure_ascii=False) for record in records]
        # Paths that are no valid Unicode come from the file system as surrogates, and go back as the same bytes.
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        with open(self.path, "r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end > self.offset:
                # A session was killed within a line, which was therefore never acknowledged.
                data = b"\n" + data
            try:
                file.write(data)
                file.flush()
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
        self.offset = end + len(data)


class History(Generic[Key]):
    """What a log adds up to: the last label of each patch, by anybody and by each annotator, and what can be undone.

    Parameters
    ----------
    key : callable
        By what of a record patches are told apart, index or path.
    one_list : bool
        Count only what was logged since the list last changed, as indices must.
    """

    def __init__(self, key: Callable[[Record], Key], *, one_list: bool) -> None:
        self._key = key
        self._one_list = one_list
        self.merged: dict[Key, Record] = {}
        self.own: dict[str, dict[Key, str]] = {}
        # Each action that can be undone: its records, and what the annotator said of the patches before.
        self.undoable: dict[str, list[list[tuple[Record, str]]]] = {}
        self._carried: list[Record] = []

    def apply(self, records: Iterable[Record]) -> None:
        """Take in records in the order in which they were logged."""
        for (annotator, _, action), group in itertools.groupby(records, lambda r: (r.annotator, r.time, r.action)):
            batch = list(group)
            if action == "carry":
                self._carried += batch
                continue
            if action == "list":
                self._change_list(batch[0].index)
                continue
            own = self.own.setdefault(annotator, {})
            undoable = self.undoable.setdefault(annotator, [])
            if action == "label":
                undoable.append([(record, own.get(self._key(record), NONE)) for record in batch])
            before = {}
            if action == "undo" and undoable:
                before = {self._key(record): label for record, label in undoable.pop()}
            for record in batch:
                key = self._key(record)
                self.merged[key] = record
                own[key] = before.get(key, record.label)

    def _change_list(self, count: int) -> None:
        if self._one_list:
            self.merged, self.own, self.undoable = {}, {}, {}
        for record in self._carried[len(self._carried) - count :]:
            self.merged[self._key(record)] = record
            self.own.setdefault(record.annotator, {})[self._key(record)] = record.label
        self._carried = []

    def annotators(self) -> list[str]:
        """Return who gave labels that still stand, in order of name."""
        return sorted(a for a, own in self.own.items() if a != FROM_FILE and any(v != NONE for v in own.values()))


def _parse(line: bytes) -> Record | None:
    try:
        record = Record(**json.loads(line.decode("utf-8", "surrogateescape")))
    except (ValueError, TypeError):
        return None
    sound = (
        isinstance(record.index, int)
        and isinstance(record.path, str)
        and isinstance(record.annotator, str)
        and record.label in LABELS
        and record.action in ("label", "undo", "import", "list", "carry")
    )
    return record if sound else None
