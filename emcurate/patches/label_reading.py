"""What a label file and the files beside it say together: the label of each patch of any list.

The log beside the labels is the truth, and the label file a copy of it in the order of one list. `read_labels` finds
out which list that was, what somebody typed into the file since it was written, and what all that says of the patches
of another list. It writes nothing.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emcurate.errors import InputError
from emcurate.outputs import digest_bytes
from emcurate.patches.label_files import CodeArray, LabelFiles, noted_without_log
from emcurate.patches.label_history import History
from emcurate.patches.label_log import LabelLog, Record
from emcurate.patches.labels import CODE_NONE, LABELS, NONE, encode_labels, load_labels
from emcurate.patches.list_names import ListNames, hash_names
from emcurate.patches.listed import Listed, read_listed, read_names


@dataclass
class LabelReading:
    """What a label file, its log and a list add up to.

    Attributes
    ----------
    codes : (n,) uint8 array
        The label of each patch of the list.
    history : History
        What was said in the log.
    in_file : (m,) uint8 array or None
        The label file, if there is one.
    corrections : dict
        Labels that are in the file only, by the patch's name: typed in by hand, and counted in `codes`.
    overruled : int
        Labels of the file that were typed in too and are not in `codes`: somebody has said something else since, or
        nothing tells of which patches they are.
    is_same_list : bool
        Whether the file is in the order of this list.
    is_verified : bool
        Whether anything but the number of patches says so.
    is_guessed : bool
        Whether it had to be guessed how much of the log the file holds.
    absent : int
        Labelled patches that the list does not have.
    listed : Listed or None
        The patches that were listed when the file was written, if they are known.
    damaged : int
        Lines of the log that could not be read.
    """

    codes: CodeArray
    history: History
    in_file: CodeArray | None
    corrections: dict[str, str] = field(default_factory=dict)
    overruled: int = 0
    is_same_list: bool = True
    is_verified: bool = True
    is_guessed: bool = False
    absent: int = 0
    listed: Listed | None = None
    damaged: int = 0

    def describe(self) -> list[str]:
        """Return what a person should know of how the labels came together, a sentence each without a full stop."""
        told = []
        if self.damaged:
            told.append(f"{self.damaged:,} damaged lines of its log were passed over")
        if not self.is_same_list:
            kept = int(np.count_nonzero(self.codes != CODE_NONE))
            sentence = f"the list has changed since it was labelled: {kept:,} labels were carried over to their patches"
            if self.absent:
                sentence += f"; {self.absent:,} belong to patches no longer listed and wait in the log"
            told.append(sentence)
        if self.overruled:
            told.append(
                f"{self.overruled:,} labels typed into the file are not used: they were given anew since, or nothing "
                "tells of which patches they are"
            )
        return told


def read_labels(files: LabelFiles, names: ListNames, log: LabelLog) -> LabelReading:
    """Return the labels of a list's patches; `log` is read to its end.

    Raises
    ------
    InputError
        If the label file is damaged or is of another list, and nothing tells which labels can be carried over.
    """
    _refuse_twin(files)
    # Against the order in which they are written, so that what a session writes meanwhile is at most half seen as
    # what is in the log only, which counts anyway.
    state = files.read_state()
    in_file = encode_labels(load_labels(files.labels)) if files.labels.exists() else None
    listed = read_listed(files.listed)
    records, ends = log.read_new()
    history = History(key_in(names))
    history.apply(records)
    reading = LabelReading(
        np.full(len(names), CODE_NONE, np.uint8),
        history,
        in_file,
        listed=listed,
        damaged=log.damaged,
    )
    order = _find_order(files, names, records, state, reading)
    if in_file is not None and order is not None:
        _find_corrections(order, names, records, _find_mark(log, state, ends), reading)
    labels = {**history.labels(), **reading.corrections}
    for name, label in labels.items():
        places = names.find(name)
        reading.codes[places] = LABELS.index(label)
        reading.absent += not places and label != NONE
    if in_file is not None and order is None:
        known = sum(label != NONE for label in labels.values())
        reading.overruled = max(int(np.count_nonzero(in_file != CODE_NONE)) - known, 0)
    _refuse_strangers(files, names, labels, reading)
    return reading


def key_in(names: ListNames) -> Callable[[Record], str]:
    """Return what finds by which name a list knows a record's patch; of a patch that is not listed, its own."""
    known: dict[tuple[str, str], str] = {}

    def key(record: Record) -> str:
        called = record.patch, record.path
        if called not in known:
            places = names.find(*called)
            known[called] = names[places[0]] if places else record.patch
        return known[called]

    return key


class _Order:
    """Which patch each label of the file is of: all those of a list, or those that are known."""

    def __init__(self, names: ListNames | None, known: Mapping[int, str] | None = None) -> None:
        self._names, self._known = names, known or {}
        self._places = {name: [place] for place, name in self._known.items()}

    def name(self, place: int) -> str | None:
        return self._known.get(place) if self._names is None else self._names[place]

    def find(self, name: str) -> list[int]:
        return self._places.get(name, []) if self._names is None else self._names.find(name)

    def spread(self, labels: Mapping[str, str], count: int) -> CodeArray:
        """Return labels by name as those of a file of so many."""
        codes = np.full(count, CODE_NONE, np.uint8)
        for name, label in labels.items():
            codes[self.find(name)] = LABELS.index(label)
        return codes


def _find_order(
    files: LabelFiles, names: ListNames, records: Sequence[Record], state: Mapping[str, Any], reading: LabelReading
) -> _Order | None:
    """Find out in which list's order the file is; say in `reading` whether it is that of `names`."""
    in_file, listed = reading.in_file, reading.listed
    if in_file is None:
        reading.is_same_list = (listed.digest if listed else _noted_list(records, state)) in ("", names.digest)
        return None
    if listed is not None:
        is_unwritten = listed.replaces == digest_bytes(in_file.tobytes()) and state.get("list") != listed.digest
        fits = len(in_file) == listed.count and not is_unwritten
        reading.is_same_list = fits and listed.digest == names.digest
        if not fits:
            # Of labels that were to be written anew all that there was to learn is in the log; see `Listed.replaces`.
            return None
        return _Order(names if reading.is_same_list else ListNames(listed.in_order(read_names(files.listed))))
    if digest := _noted_list(records, state) or noted_without_log(in_file, state):
        reading.is_same_list = digest == names.digest and len(in_file) == len(names)
        return _Order(names) if reading.is_same_list else None
    # As version 0.1 left it, whose log says of the patches in it where they were in the list.
    places = {place: reading.history.key(record) for place, record in _old_places(records).items()}
    fits = all(place < len(names) and names[place] == name for place, name in places.items())
    reading.is_same_list = fits and len(in_file) == len(names)
    reading.is_verified = bool(places)
    if reading.is_same_list:
        return _Order(names)
    return _Order(None, {place: name for place, name in places.items() if place < len(in_file)})


def _noted_list(records: Sequence[Record], state: Mapping[str, Any]) -> str:
    """Return the digest of the list that the file was last written for, empty where nothing says so."""
    in_state = state.get("list")
    in_log = next((record.digest for record in reversed(records) if record.digest), "")
    if isinstance(in_state, str) and in_state and in_log not in ("", in_state):
        # A session was killed between the two, and the file may be of either list.
        return "of one or the other"
    return in_log or (in_state if isinstance(in_state, str) else "")


def _old_places(records: Sequence[Record]) -> dict[int, Record]:
    """Return of the patches that version 0.1 logged since the list last changed their places in it."""
    changes = [i for i, record in enumerate(records) if record.action == "list"]
    since = records[changes[-1] + 1 :] if changes else records
    # What was carried over before that line is of the new list already.
    carried = records[max(changes[-1] - records[changes[-1]].index, 0) : changes[-1]] if changes else []
    lines = [*carried, *(record for record in since if record.action != "carry")]
    return {record.index: record for record in lines if record.is_old and record.index >= 0}


def _find_mark(log: LabelLog, state: Mapping[str, Any], ends: Sequence[int]) -> int | None:
    """Return how many records of the log the file holds, or None where that is not known."""
    offset, digest = state.get("applied"), state.get("log")
    if type(offset) is not int or not isinstance(digest, str) or not log.holds_start(offset, digest):
        return None
    return bisect.bisect_right(ends, offset)


def _find_corrections(
    order: _Order, names: ListNames, records: Sequence[Record], mark: int | None, reading: LabelReading
) -> None:
    """Find labels that the file has of itself: not what the log said when it was written, nor what it says now."""
    in_file, history = reading.in_file, reading.history
    assert in_file is not None
    now = order.spread(history.labels(), len(in_file))
    was = now
    if mark is None:
        reading.is_guessed = bool(records)
        mark = _guess_mark(in_file, order, records, history.key)
    if mark < len(records):
        earlier = History(history.key)
        earlier.apply(records[:mark])
        was = order.spread(earlier.labels(), len(in_file))
    if records and all(record.is_old for record in records):
        before = _as_written_by_old(records, len(in_file))
        if np.count_nonzero(in_file != before) <= np.count_nonzero(in_file != was):
            was = before
    for place in np.flatnonzero((in_file != was) & (in_file != now)).tolist():
        name, label = order.name(place), LABELS[in_file[place]]
        if name is None or now[place] != was[place]:
            reading.overruled += 1
            continue
        places = names.find(name)
        key = names[places[0]] if places else name
        if history.label(key) != label:
            reading.corrections[key] = label


def _as_written_by_old(records: Sequence[Record], count: int) -> CodeArray:
    """Return the labels of a file that version 0.1 wrote: other ones than its log gives by the rules of today."""
    codes = np.full(count, CODE_NONE, np.uint8)
    for place, record in _old_places(records).items():
        if place < count:
            codes[place] = LABELS.index(record.label)
    return codes


def _guess_mark(in_file: CodeArray, order: _Order, records: Sequence[Record], key: Callable[[Record], str]) -> int:
    """Return after how many records the log was most like the file; of several such moments the last."""
    history = History(key)
    in_log = {key(record) for record in records if record.patch}
    filed = {name: LABELS[in_file[places[0]]] for name in in_log if (places := order.find(name))}
    different = {name for name, label in filed.items() if label != NONE}
    best, least, count = 0, len(different), 0
    for _, group in itertools.groupby(records, lambda r: (r.annotator, r.time, r.action, r.act)):
        lines = list(group)
        count += len(lines)
        for name in history.apply(lines) & filed.keys():
            (different.discard if history.label(name) == filed[name] else different.add)(name)
        if len(different) <= least:
            best, least = count, len(different)
    return best


def _refuse_twin(files: LabelFiles) -> None:
    """Raise `InputError` where ``labels`` and ``labels.npy`` would have one log."""
    stem, is_npy = files.labels.name.removesuffix(".npy"), files.labels.name.endswith(".npy")
    twin = files.labels.with_name(stem if is_npy else f"{stem}.npy")
    if twin.is_file() and files.labels.is_file():
        raise InputError(
            files.labels,
            "a label file with a log of its own",
            f"{twin.name} beside it, whose log has the same name",
            "rename one of them",
        )


def _refuse_strangers(files: LabelFiles, names: ListNames, labels: Mapping[str, str], reading: LabelReading) -> None:
    """Raise `InputError` for labels of which nothing can be carried over to a list."""
    if reading.is_same_list:
        return
    advice = "use the list these labels were made for, or another name for the new labels"
    if not labels and reading.in_file is not None and reading.listed is None:
        found = f"{len(reading.in_file):,}"
        if len(reading.in_file) == len(names):
            found += " of another list of that length"
        raise InputError(
            files.labels,
            f"{len(names):,} labels, one for each path of the list",
            f"{found}, and no log ({files.log.name}) that says which patch each belongs to",
            advice,
        )
    given = sum(label != NONE for label in labels.values())
    if not given or reading.absent < given:
        return
    known = read_names(files.listed) if reading.listed is not None else list(labels)
    if not (names.places_of(hash_names(known)) >= 0).any():
        raise InputError(
            files.labels, "labels of patches of this list", f"labels of {given:,} patches, none of them listed", advice
        )
