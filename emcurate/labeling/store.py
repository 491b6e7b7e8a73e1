"""The labels of a path list while they are given: every change goes to the log, and from there to the label file.

A change goes to the log first, which costs the same for ten labels and for ten million; then the label file is
written anew beside the old one and takes its place. For long lists that takes a moment and is left to a thread,
which writes once for all the changes made meanwhile; should the process end first, the next session catches up
from the log.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.labeling import writer
from emcurate.labeling.annotator import find_login, name_annotator
from emcurate.labeling.writer import LabelWriter
from emcurate.outputs import digest_bytes
from emcurate.patches.label_files import LabelFiles
from emcurate.patches.label_history import next_time
from emcurate.patches.label_log import FROM_FILE, Action, LabelLog, Record
from emcurate.patches.label_reading import LabelReading, read_labels
from emcurate.patches.labels import CODE_NONE, LABELS
from emcurate.patches.list_names import ListNames
from emcurate.patches.listed import Listed, list_again, list_first, read_names, write_listed

# Random bytes that tell one session's acts from another's, of which a log may hold some thousands.
SESSION_BYTES = 6

CodeArray = npt.NDArray[np.uint8]


class LabelStore:
    """Labels as codes (see `emcurate.patches.labels`), kept on disk with every change.

    Parameters
    ----------
    path : Path
        The label file; what belongs to it is beside it, see `emcurate.patches.label_files.LabelFiles`.
    paths : sequence of str
        The path list.
    annotator : str
        Whose changes are written here; by default the login's, see `emcurate.labeling.annotator`.

    Attributes
    ----------
    codes : (n,) uint8 array
        What the label file says: of each patch the last label by anybody.
    own : (n,) uint8 array
        The annotator's own labels.
    names : ListNames
        The names of the patches.
    listed : Listed
        The patches in the order in which they came to be listed.
    is_same_list : bool
        Whether the label file was in the order of this list when it was opened.
    notices : list of str
        What the annotator should know about how the file was opened or written.

    Raises
    ------
    InputError
        If the label file is damaged, or belongs to another list and nothing tells which labels can be carried over.
    """

    def __init__(self, path: Path, paths: Sequence[str], annotator: str = "") -> None:
        self.path = path
        self.paths = paths
        self.names = ListNames(paths)
        self.files = LabelFiles(path)
        self.log = LabelLog(self.files.log)
        self.notices: list[str] = []
        self._session = secrets.token_hex(SESSION_BYTES)
        self._act_count = 0
        self._writer = LabelWriter(self.files, self.names.digest, self.log, self.notices.append)
        make_output_directory(path.parent)
        self._is_named = bool(annotator.strip())
        self.annotator = annotator.strip() or name_annotator(path)
        with self.log.locked():
            self._open()
        self.flush()

    def set_labels(self, indices: Sequence[int], codes: Sequence[int]) -> list[int]:
        """Give patches labels; return the indices of those that had another one."""
        with self._exclusive():
            wanted = {i: code for i, code in zip(indices, codes, strict=True) if self._differs(i, code)}
            act = self._record("label", {self.names[i]: LABELS[code] for i, code in wanted.items()})
            if act:
                self._undoable.append(act)
        return list(wanted)

    def undo(self) -> list[int]:
        """Take back the annotator's last act that still stands; return the patches it had labelled.

        Acts of other sessions are taken back only if they were made under the same name before this one was opened.
        What others say of the patches, before the act or after it, stays as it is.
        """
        with self._exclusive():
            acts = self._standing_acts()
            if not acts:
                return []
            act = acts.pop()
            patches = list(dict.fromkeys(self.history.acts[act]))
            self._record("undo", {name: self.history.label(name, without=act) for name in patches}, undoes=act)
            self._undoable = acts
        return [place for name in patches for place in self.names.find(name)]

    @property
    def undo_count(self) -> int:
        """The number of acts that can be taken back."""
        return len(self._standing_acts())

    def annotators(self) -> list[str]:
        """Return who gave labels that still stand, in order of name."""
        return self.history.annotators()

    def annotations(self) -> dict[str, dict[int, str]]:
        """Return each annotator's own labels by the patch's place in the list."""
        given: dict[str, dict[int, str]] = {who: {} for who in self.annotators()}
        for name in self.history.statements:
            for who, label in self.history.said(name).items():
                given[who].update(dict.fromkeys(self.names.find(name), label))
        return given

    def said(self, index: int) -> dict[str, str]:
        """Return who gave a patch which label, by name; who took a label away again has said nothing."""
        return self.history.said(self.names[index])

    def flush(self) -> None:
        """Return when the label file on disk is up to date.

        Raises
        ------
        InputError
            If it could not be written; what was labelled is in the log all the same.
        """
        self._writer.flush()

    def views(self) -> dict[str, Any]:
        """Return what `save_view` kept for this annotator."""
        views = self.files.read_state().get("views")
        if not isinstance(views, dict):
            return {}
        # Nobody had a name in version 0.1 who did not say so; and a second of one login begins where the first was.
        names = [self.annotator] if self._is_named else [self.annotator, find_login(), ""]
        found = [views[name] for name in names if isinstance(views.get(name), dict)]
        return found[0] if found else {}

    def save_view(self, view: dict[str, Any]) -> None:
        """Keep where the annotator is, for the next session."""
        with self.log.locked():
            state = self.files.read_state()
            views = state.get("views")
            state["views"] = {**(views if isinstance(views, dict) else {}), self.annotator: view}
            self.files.write_state(state)

    # -- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        reading = read_labels(self.files, self.names, self.log)
        self.history, self.codes, self._list = reading.history, reading.codes, self.names.digest
        self.is_same_list = reading.is_same_list
        self.own = np.full(len(self.names), CODE_NONE, np.uint8)
        self._absorb(self.history.statements)
        self._tell_of_shared_log()
        # What is put down for others to find goes to the disk before the file that it explains is touched.
        self._record("import", reading.corrections, annotator=FROM_FILE)
        self.listed = self._list_patches(reading)
        in_file = reading.in_file
        is_current = in_file is not None and np.array_equal(in_file, self.codes)
        self._tell(reading, is_current=is_current)
        if not is_current or not reading.is_same_list:
            self._writer.write(self.codes, is_known=True)
        else:
            self._writer.mark(self.log.offset, self.log.digest)
        acts = self.history.acts_of(self.annotator)
        self._undoable = [act for act in acts if any(self.names.find(name) for name in self.history.acts[act])]

    def _list_patches(self, reading: LabelReading) -> Listed:
        """Keep which patches are listed now, unless they are those of before."""
        listed = reading.listed
        if listed is not None and listed.digest == self.names.digest:
            return listed
        time = next_time(self.history).isoformat(timespec="microseconds")
        count, digest = len(self.names), self.names.digest
        self.log.append([Record(time, FROM_FILE, "list", self._next_act(), digest=digest, count=count)])
        self._read_log()
        if listed is None:
            known, listed = [], list_first(self.names)
        else:
            known = read_names(self.files.listed)
            replaced = "" if reading.in_file is None else digest_bytes(reading.in_file.tobytes())
            listed = list_again(listed, known, self.names, replaced)
        write_listed(self.files.listed, listed, known, self.names)
        return listed

    def _tell_of_shared_log(self) -> None:
        """Say that a log is not read any more that version 0.1 wrote for ``labels.alice`` and ``labels.bob`` alike."""
        before = self.path.with_suffix(".log.jsonl")
        if before != self.log.path and before.exists() and not self.history.acts:
            self.notices.append(f"{before.name}, which {self.path.name} shared with other files, is not read any more")

    def _tell(self, reading: LabelReading, *, is_current: bool) -> None:
        """Say how the labels came together, and keep the file aside where it holds what they do not."""
        notices = [f"{sentence[0].upper()}{sentence[1:]}" for sentence in reading.describe()]
        if reading.in_file is None:
            if self.history.statements:
                notices.insert(0, f"{self.path} was missing; its labels were restored from {self.log.path.name}")
        elif not reading.is_same_list or reading.overruled or (reading.is_guessed and not is_current):
            backup = self._writer.back_up()
            if reading.is_same_list and not reading.overruled:
                notices.append(f"The labels follow {self.log.path.name}, and some in the file did not")
            notices[-1] += f". The old labels are kept as {backup.name}."
        if reading.corrections:
            given = len(reading.corrections)
            notices.append(f"{given:,} labels found in the file alone count as typed in by hand, and are logged so")
        if not self._is_named and self.annotator != find_login():
            notices.append(f"Somebody labels as {find_login()} already; here you are {self.annotator}. Set ANNOTATOR.")
        self.notices += notices

    # -- changing -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the log, with what others have added taken in; write the label file afterwards."""
        with self.log.locked(), self._writer.guard:
            self._read_log()
            if self._list != self.names.digest:
                raise InputError(
                    self.path,
                    "the list of paths this session was opened with",
                    "labels that were since carried over to another list",
                    "run the cell again",
                )
            before = self.log.offset
            yield
            changed = self.log.offset > before
            if changed and len(self.codes) <= writer.LABELS_WRITTEN_AT_ONCE:
                self._writer.write(self.codes)
        if changed and len(self.codes) > writer.LABELS_WRITTEN_AT_ONCE:
            self._writer.write_soon(self.codes)

    def _differs(self, index: int, code: int) -> bool:
        # Saying what another annotator said is a statement too: it is what agreement is made of.
        return bool(self.codes[index] != code or self.own[index] != code)

    def _standing_acts(self) -> list[str]:
        # Another session of this annotator may have taken one back.
        return [act for act in self._undoable if self.history.stands(act)]

    def _record(self, action: Action, labels: Mapping[str, str], annotator: str | None = None, undoes: str = "") -> str:
        """Log labels by the patches' names as one act; return which."""
        if not labels:
            return ""
        act = self._next_act()
        time = next_time(self.history).isoformat(timespec="microseconds")
        who = self.annotator if annotator is None else annotator
        self.log.append(
            Record(time, who, action, act, patch=name, label=label, previous=self.history.label(name), undoes=undoes)
            for name, label in labels.items()
        )
        self._read_log()
        if action != "undo" and act not in self.history.acts:
            raise InputError(
                self.log.path,
                "the lines that were just written to it",
                "others",
                "run the cell again; the last label was not kept",
            )
        return act

    def _next_act(self) -> str:
        self._act_count += 1
        return f"{self._session}-{self._act_count}"

    def _read_log(self) -> None:
        """Take in what is new in the log, by this session or others."""
        records = self.log.read_new().records
        self._absorb(self.history.apply(records))
        for record in records:
            if record.action == "list":
                self._list = record.digest

    def _absorb(self, changed: Iterable[str]) -> None:
        for name in changed:
            places = self.names.find(name)
            self.codes[places] = LABELS.index(self.history.label(name))
            self.own[places] = LABELS.index(self.history.own_label(name, self.annotator))
