"""The labels of a path list on disk: the label file, its log, and how far the one contains the other.

A change goes to the log first, which costs the same for ten labels and for ten million; then the label file is
written anew beside the old one and takes its place. For long lists that takes a moment and is left to a thread,
which writes once for all the changes made meanwhile; should the process end first, the next session catches up
from the log.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import atomic_path, fingerprint, make_output_directory, write_bytes
from emcurate.labeling.log import FROM_FILE, Action, History, LabelLog, Record
from emcurate.patches.labels import CODE_NONE, DTYPE, LABELS, NONE, decode_labels, encode_labels, load_labels

# Up to this many labels, 5 MB, the file is written before a change is acknowledged: about 20 ms on a local disk.
LABELS_WRITTEN_AT_ONCE = 100_000

# Labels turned into strings at a time while a file is written: 13 MB.
BLOCK_LABELS = 250_000

CodeArray = npt.NDArray[np.uint8]


class LabelStore:
    """Labels as codes (see `emcurate.labels`), kept on disk with every change.

    Parameters
    ----------
    path : Path
        The label file; its log is beside it as ``….log.jsonl`` and its state as ``….state.json``.
    paths : sequence of str
        The path list.
    annotator : str
        Whose changes are written here.

    Attributes
    ----------
    codes : (n,) uint8 array
        What the label file says: of each patch the last label by anybody.
    own : (n,) uint8 array
        The annotator's own labels.
    notices : list of str
        What the annotator should know about how the file was opened or written.

    Raises
    ------
    InputError
        If the label file is damaged, or belongs to another list and no log tells which labels can be carried over.
    """

    def __init__(self, path: Path, paths: Sequence[str], annotator: str = "") -> None:
        self.path = path
        self.paths = paths
        self.annotator = annotator
        self.log = LabelLog(path.with_suffix(".log.jsonl"))
        self.state_path = path.with_suffix(".state.json")
        self.history = History(lambda record: record.index, one_list=True)
        self.notices: list[str] = []
        self._last_time = datetime.min.replace(tzinfo=UTC)
        self._writer = ThreadPoolExecutor(1, "labels")
        self._pending: Future[None] | None = None
        self._guard = threading.Lock()  # between changes and the thread that writes them
        make_output_directory(path.parent)
        with self.log.locked():
            self._open()
        self.flush()

    def set_labels(self, indices: Sequence[int], codes: Sequence[int]) -> list[int]:
        """Give patches labels; return the indices of those that had another one."""
        with self._exclusive():
            wanted = {i: code for i, code in zip(indices, codes, strict=True) if self._differs(i, code)}
            labels = {i: LABELS[code] for i, code in wanted.items()}
            self._record("label", labels)
        return list(wanted)

    def undo(self) -> list[int]:
        """Take the annotator's last action back; return the patches it had changed."""
        with self._exclusive():
            actions = self.history.undoable.get(self.annotator)
            if not actions:
                return []
            # What somebody else has said since stays in the file.
            labels = {
                record.index: record.previous
                if self._is_mine(self.history.merged[record.index])
                else LABELS[self.codes[record.index]]
                for record, _ in actions[-1]
            }
            self._record("undo", labels)
        return list(labels)

    @property
    def undo_count(self) -> int:
        """The number of actions that can be taken back."""
        return len(self.history.undoable.get(self.annotator, []))

    def annotators(self) -> list[str]:
        """Return who gave labels that still stand, in order of name."""
        return self.history.annotators()

    def annotations(self) -> dict[str, dict[int, str]]:
        """Return each annotator's own labels by the patch's place in the list."""
        return {who: self.history.own[who] for who in self.annotators()}

    def said(self, index: int) -> dict[str, str]:
        """Return who gave a patch which label, by name; who took a label away again has said nothing."""
        given = {who: labels.get(index, NONE) for who, labels in self.annotations().items()}
        return {who: label for who, label in given.items() if label != NONE}

    def flush(self) -> None:
        """Return when the label file on disk is up to date.

        Raises
        ------
        InputError
            If it could not be written; what was labelled is in the log all the same.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def views(self) -> dict[str, Any]:
        """Return what `save_view` kept for this annotator."""
        view = self._read_state().get("views", {}).get(self.annotator, {})
        return view if isinstance(view, dict) else {}

    def save_view(self, view: dict[str, Any]) -> None:
        """Keep where the annotator is, for the next session."""
        with self.log.locked():
            state = self._read_state()
            views = state.get("views")
            state["views"] = {**(views if isinstance(views, dict) else {}), self.annotator: view}
            self._write_state(state)

    # -- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        count = len(self.paths)
        records = self.log.read_new()
        self.history.apply(records)
        if self.log.damaged:
            self.notices.append(f"{self.log.path}: {self.log.damaged:,} damaged lines were passed over")
        in_file = encode_labels(load_labels(self.path)) if self.path.exists() else None
        if in_file is None and self.history.merged:
            self.notices.append(f"{self.path} was missing; its labels were restored from {self.log.path.name}")
        logged = self.history.merged
        moved = any(i >= count or self.paths[i] != r.path for i, r in logged.items())
        if moved or (in_file is not None and len(in_file) != count):
            self._carry_over(records, in_file)
        else:
            self.codes = np.full(count, CODE_NONE, np.uint8) if in_file is None else in_file.copy()
            self._reconcile(restore=in_file is None)
        self.own = np.full(count, CODE_NONE, np.uint8)
        for index, label in self.history.own.get(self.annotator, {}).items():
            self.own[index] = LABELS.index(label)
        if in_file is None or not np.array_equal(in_file, self.codes):
            self._write(known_file=True)
        else:
            self._write_state({**self._read_state(), **self._mark(self.log.offset)})

    def _reconcile(self, *, restore: bool) -> None:
        """Put what only the log knows into the labels, and what only the file knows into the log."""
        logged = self.history.merged
        known = np.full(len(self.codes), CODE_NONE, np.uint8)
        for index, record in logged.items():
            known[index] = LABELS.index(record.label)
        applied = self._read_state().get("applied", 0)
        unsaved = LabelLog(self.log.path)
        unsaved.offset = applied if isinstance(applied, int) and not restore else 0
        records = unsaved.read_new()
        if any(record.action == "list" for record in records):
            # The file is still that of another list: a session was killed while it carried the labels over.
            self.codes = known
            return
        for record in records:
            if record.index in logged:
                self.codes[record.index] = known[record.index]
        foreign = np.flatnonzero(known != self.codes)
        if foreign.size:
            labels = {int(i): LABELS[self.codes[i]] for i in foreign}
            self._record("import", labels, annotator=FROM_FILE, previous={i: LABELS[known[i]] for i in labels})

    def _carry_over(self, records: list[Record], in_file: CodeArray | None) -> None:
        """Find the patches of the log in the list as it is now, and number them anew."""
        history = History(lambda record: record.path, one_list=False)
        history.apply(records)
        if not history.merged:
            found = 0 if in_file is None else len(in_file)
            raise InputError(
                self.path,
                f"{len(self.paths):,} labels, one for each path of the list",
                f"{found:,}, and no log ({self.log.path.name}) that says which patch each belongs to",
                "use the list these labels were made for, or another name for the new labels",
            )
        places = find_paths(history.merged, self.paths)
        backup = self._back_up()
        carried: dict[int, str] = {}
        fresh = []
        for annotator, own in history.own.items():
            for path, label in own.items():
                if label != NONE and path in places:
                    index = places[path]
                    fresh.append(self._new_record("carry", annotator, index, self.paths[index], label, NONE))
                    carried[index] = label
        for path, record in history.merged.items():
            # Where the file does not say what its last annotator here says: an undone action, a label taken away.
            index = places.get(path, -1)
            if index >= 0 and carried.get(index, NONE) != record.label:
                fresh.append(self._new_record("carry", FROM_FILE, index, self.paths[index], record.label, NONE))
                carried[index] = record.label
        fresh.append(self._new_record("list", FROM_FILE, len(fresh), "", NONE, NONE))
        self.log.append(fresh)
        self.history.apply(fresh)
        self.codes = np.full(len(self.paths), CODE_NONE, np.uint8)
        for index, label in carried.items():
            self.codes[index] = LABELS.index(label)
        kept = int(np.count_nonzero(self.codes != CODE_NONE))
        standing = {path: record for path, record in history.merged.items() if record.label != NONE}
        absent = sum(path not in places for path in standing)
        unlogged = 0 if in_file is None else max(int(np.count_nonzero(in_file != CODE_NONE)) - len(standing), 0)
        notice = f"The list has changed since it was labelled: {kept:,} labels were carried over to their patches"
        if absent:
            notice += f"; {absent:,} belong to patches no longer listed and wait in the log"
        if unlogged:
            notice += f"; {unlogged:,} are in the old file only, which never went through this widget"
        self.notices.append(notice + (f". The old labels are kept as {backup.name}." if backup else "."))

    # -- changing -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the log, with what others have added taken in; write the label file afterwards."""
        with self.log.locked(), self._guard:
            before = self.log.offset
            others = self.log.read_new()
            if any(record.action == "list" for record in others):
                self.log.offset = before
                raise InputError(
                    self.path,
                    "the list of paths this session was opened with",
                    "labels that were since carried over to another list",
                    "run the cell again",
                )
            self._absorb(others)
            before = self.log.offset
            yield
            changed = self.log.offset > before
            if changed and len(self.codes) <= LABELS_WRITTEN_AT_ONCE:
                self._write()
        if changed and len(self.codes) > LABELS_WRITTEN_AT_ONCE:
            self._write_soon()

    def _differs(self, index: int, code: int) -> bool:
        # Saying what another annotator said is a statement too: it is what agreement is made of.
        return bool(self.codes[index] != code or self.own[index] != code)

    def _is_mine(self, record: Record) -> bool:
        return record.annotator == self.annotator

    def _record(
        self,
        action: Action,
        labels: dict[int, str],
        annotator: str | None = None,
        previous: dict[int, str] | None = None,
    ) -> None:
        if not labels:
            return
        who = self.annotator if annotator is None else annotator
        first = self._new_record(action, who, 0, "", NONE, NONE)
        records = [
            Record(
                first.time,
                who,
                action,
                index,
                self.paths[index],
                label,
                LABELS[self.codes[index]] if previous is None else previous[index],
            )
            for index, label in labels.items()
        ]
        self.log.append(records)
        self._absorb(records) if action != "import" else self.history.apply(records)

    def _absorb(self, records: list[Record]) -> None:
        self.history.apply(records)
        mine = self.history.own.get(self.annotator, {})
        for record in records:
            if record.action == "carry":  # cut short by the end of its session
                continue
            self.codes[record.index] = LABELS.index(record.label)
            self.own[record.index] = LABELS.index(mine.get(record.index, NONE))

    def _new_record(self, action: Action, annotator: str, index: int, path: str, label: str, previous: str) -> Record:
        # One action has one time and no two the same, which is how the log tells actions apart.
        self._last_time = max(datetime.now(UTC), self._last_time + timedelta(microseconds=1))
        return Record(
            self._last_time.isoformat(timespec="microseconds"), annotator, action, index, path, label, previous
        )

    # -- writing ------------------------------------------------------------------------------------------------

    def _write_soon(self) -> None:
        pending = self._pending
        if pending is not None and pending.done() and pending.exception() is not None:
            self.notices.append(f"{pending.exception()}; trying again")
        # A writer that has not started yet will see this change as well.
        if pending is None or pending.running() or pending.done():
            self._pending = self._writer.submit(self._write_snapshot)

    def _write_snapshot(self) -> None:
        with self._guard:
            offset, codes = self.log.offset, self.codes.copy()
        with self._explained(), contextlib.suppress(_SupersededError), contextlib.ExitStack() as stack:
            with atomic_path(self.path) as partial:
                _write_npy(partial, codes)
                # Held until the file has taken its place and the state says so.
                stack.enter_context(self.log.locked())
                if self._read_state().get("applied", 0) > offset:
                    raise _SupersededError
                self._keep_foreign_version()
            self._write_state({**self._read_state(), **self._mark(offset)})

    def _write(self, *, known_file: bool = False) -> None:
        with self._explained():
            with atomic_path(self.path) as partial:
                _write_npy(partial, self.codes)
                if not known_file:
                    self._keep_foreign_version()
            self._write_state({**self._read_state(), **self._mark(self.log.offset)})

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                self.path,
                "a label file that can be written",
                error.strerror or str(error),
                f"put that right and label on; {self.log.path.name} has every label and brings the file up to date",
            ) from None

    def _keep_foreign_version(self) -> None:
        written = self._read_state().get("file")
        if written is not None and self.path.exists() and written != fingerprint(self.path):
            backup = self._back_up()
            self.notices.append(f"{self.path} was changed by another program; its version is kept as {backup}")

    def _back_up(self) -> Path | None:
        if not self.path.exists():
            return None
        stamp = datetime.now().strftime("%Y-%m-%dT%H%M%S.%f")
        backup = self.path.with_suffix(f".{stamp}.npy")
        shutil.copy2(self.path, backup)
        return backup

    def _mark(self, offset: int) -> dict[str, Any]:
        return {"applied": offset, "file": fingerprint(self.path)}

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads(self.state_path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _write_state(self, state: dict[str, Any]) -> None:
        write_bytes(self.state_path, json.dumps(state, indent=1, ensure_ascii=False).encode("utf-8", "replace"))


class _SupersededError(Exception):
    """Another session has written a newer label file meanwhile."""


def find_paths(wanted: Iterable[str], paths: Sequence[str]) -> dict[str, int]:
    """Return where paths are in a list; one that is not there is looked for by its file name, if that is unique.

    File names say where pixels come from, so a patch is the same patch after its directory was moved.
    """
    wanted = set(wanted)
    places = {path: index for index, path in enumerate(paths) if path in wanted}
    lost = {os.path.basename(path): path for path in wanted - places.keys()}  # noqa: PTH119
    if lost:
        found: dict[str, list[int]] = {}
        for index, path in enumerate(paths):
            name = os.path.basename(path)  # noqa: PTH119
            if name in lost:
                found.setdefault(name, []).append(index)
        taken = set(places.values())
        for name, indices in found.items():
            if len(indices) == 1 and indices[0] not in taken:
                places[lost[name]] = indices[0]
    return places


def _write_npy(path: Path, codes: CodeArray) -> None:
    with open(path, "wb") as file:
        _write_header(file, len(codes))
        for start in range(0, len(codes), BLOCK_LABELS):
            file.write(decode_labels(codes[start : start + BLOCK_LABELS]).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _write_header(file: BinaryIO, count: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(DTYPE), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
