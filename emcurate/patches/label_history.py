"""What a log of labels adds up to: what each person says of each patch, and therefore what the label file says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from emcurate.patches.label_log import FROM_FILE, Record
from emcurate.patches.labels import NONE

# Before all that is in any log.
FIRST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Statement:
    """That somebody gave a patch a label. The later of two has the larger `when`, wherever they were made."""

    when: tuple[datetime, int]
    act: str
    annotator: str
    label: str


class History:
    """The statements that stand, and the acts they came of.

    Of one patch the newest statement of each person is what the person says, and the newest of all is what the label
    file says. An act that was taken back counts as never made, so that what anybody else has said stays as it was.
    Neither depends on the order in which records are read, except that lines of one time count in that order.

    Parameters
    ----------
    key : callable
        Returns by what a record's patch is known here: one patch has one key, whatever it was called elsewhere.
    """

    def __init__(self, key: Callable[[Record], str]) -> None:
        self.key = key
        self.latest = FIRST
        self.statements: dict[str, list[Statement]] = {}
        # Of each act which patches it labelled, and by whom it was made when; and those taken back.
        self.acts: dict[str, list[str]] = {}
        self._made: dict[str, tuple[str, datetime]] = {}
        self._undone: set[str] = set()
        self._lines = 0
        # By annotator, those of version 0.1 that can be taken back.
        self._old_acts: dict[str, list[str]] = {}

    def apply(self, records: Iterable[Record]) -> set[str]:
        """Take in records in the order in which they were logged; return the patches on which anything changed."""
        changed: set[str] = set()
        for (_, _, _, act), group in itertools.groupby(records, lambda r: (r.annotator, r.time, r.action, r.act)):
            lines = list(group)
            first = lines[0]
            # A clock that was put back makes nothing older than what the log held before. Lines of version 0.1 are
            # in the order in which they were made; later ones say so by their time, which logs joined later need.
            moment = max(first.moment, self.latest) if first.is_old else first.moment
            self.latest = max(self.latest, moment)
            if first.action in ("list", "carry"):
                if first.is_old and first.action == "list":
                    self._old_acts.clear()
                continue
            if first.action == "undo":
                changed |= self._take_back(first.undoes if act else self._last_old_act(first.annotator))
                continue
            act = act or f"{first.annotator}\n{self._lines}"
            if first.is_old and first.action == "label":
                self._old_acts.setdefault(first.annotator, []).append(act)
            changed |= self._state(lines, moment, act)
        return changed

    def label(self, key: str, without: str = "") -> str:
        """Return what the label file says of a patch, or would say if an act had not been made."""
        return self._newest(s for s in self.statements.get(key, ()) if s.act != without)

    def own_label(self, key: str, annotator: str) -> str:
        """Return what a person says of a patch."""
        return self._newest(s for s in self.statements.get(key, ()) if s.annotator == annotator)

    def said(self, key: str) -> dict[str, str]:
        """Return who gave a patch which label, by name; who took a label away again has said nothing."""
        people = sorted({s.annotator for s in self.statements.get(key, ())} - {FROM_FILE})
        labels = {who: self.own_label(key, who) for who in people}
        return {who: label for who, label in labels.items() if label != NONE}

    def labels(self) -> dict[str, str]:
        """Return what the label file says of each patch of which anything was ever said and not taken back."""
        return {key: self.label(key) for key in self.statements}

    def annotators(self) -> list[str]:
        """Return who gave labels that still stand, in order of name."""
        people = {s.annotator for statements in self.statements.values() for s in statements} - {FROM_FILE}
        return sorted(who for who in people if any(self.own_label(key, who) != NONE for key in self.statements))

    def acts_of(self, annotator: str) -> list[str]:
        """Return the acts of a person that stand, the newest last."""
        acts = [act for act, (who, _) in self._made.items() if who == annotator and self.stands(act)]
        return sorted(acts, key=lambda act: self._made[act][1])

    def stands(self, act: str) -> bool:
        """Return whether an act was made and not taken back."""
        return act in self.acts and act not in self._undone

    def _state(self, lines: list[Record], moment: datetime, act: str) -> set[str]:
        keys = []
        for record in lines:
            key = self.key(record)
            self._lines += 1
            keys.append(key)
            if act not in self._undone:
                statement = Statement((moment, self._lines), act, record.annotator, record.label)
                self.statements.setdefault(key, []).append(statement)
        self.acts.setdefault(act, []).extend(keys)
        self._made[act] = lines[0].annotator, moment
        return set(keys)

    def _take_back(self, act: str) -> set[str]:
        # It may be read before what it takes back, where logs were joined.
        self._undone.add(act)
        keys = set(self.acts.get(act, ()))
        for key in keys:
            left = [statement for statement in self.statements.get(key, ()) if statement.act != act]
            if left:
                self.statements[key] = left
            else:
                self.statements.pop(key, None)
        return keys

    def _last_old_act(self, annotator: str) -> str:
        acts = self._old_acts.get(annotator)
        return acts.pop() if acts else ""

    @staticmethod
    def _newest(statements: Iterable[Statement]) -> str:
        newest = max(statements, key=lambda s: s.when, default=None)
        return NONE if newest is None else newest.label


def next_time(history: History) -> datetime:
    """Return the present, or if a clock runs behind, a moment after all that is in the log."""
    now = datetime.now(UTC)
    try:
        return max(now, history.latest + timedelta(microseconds=1))
    except OverflowError:
        return history.latest
