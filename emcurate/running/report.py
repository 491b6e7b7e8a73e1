"""What a run did, for the user: counts, warnings, notes, and what failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from emcurate.errors import InputError

# The first report that each stage made since it was begun, which is its own: what a run that is broken off can say.
# Later ones are for a part of the work.
_first: dict[str, Report] = {}


def begin(stage: str) -> None:
    """Have the next report of a stage count as its own; see `take_report`."""
    _first.pop(stage, None)


def take_report(stage: str) -> Report:
    """Return the report of a stage that is under way or was broken off; an empty one if it has not come to make one."""
    return _first.pop(stage, None) or Report(stage)


class LeftOut(NamedTuple):
    """Something in a corpus that is not read: why, and what to do if it should be."""

    path: Path
    reason: str
    advice: str


@dataclass
class Report:
    """What a run did: counts by noun, warnings, notes, failures and what was not read, each a line for the user.

    A warning or a failure is kept once, however many jobs meet it.
    """

    stage: str
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    directory: Path | None = None  # where the results go, once that is known
    _told: set[str] = field(default_factory=set, repr=False, compare=False)

    def __post_init__(self) -> None:
        _first.setdefault(self.stage, self)

    def count(self, noun: str, number: int = 1) -> None:
        """Add to a count; nouns are reported in the order in which they were first counted."""
        self.counts[noun] = self.counts.get(noun, 0) + number

    def count_file(self, written: bool) -> None:
        """Count a file as written, or, if it was not, as there already."""
        self.count("files written" if written else "files already there")

    def spell_counts(self) -> str:
        """Return the counts as words."""
        more = {"not read": len(self.left_out), "failed": len(self.failures)}
        told = self.counts | {noun: number for noun, number in more.items() if number}
        return ", ".join(f"{number:,} {noun}" for noun, number in told.items())

    def fail(self, error: InputError | str) -> None:
        """Note a failure; the run goes on and ends with status 1."""
        self._tell(self.failures, str(error))

    def fail_all(self, errors: Iterable[InputError | str]) -> None:
        """Note several failures."""
        for error in errors:
            self.fail(error)

    def warn(self, message: str) -> None:
        """Note a warning."""
        self._tell(self.warnings, message)

    def note(self, message: str) -> None:
        """Add a line to the closing report, such as where a picture was written."""
        self.notes.append(message)

    def take(self, other: Report) -> None:
        """Add what another report has: that of a part of the work. Its counts are its own."""
        self.fail_all(other.failures)
        for warning in other.warnings:
            self.warn(warning)
        self.notes += other.notes
        self.left_out += other.left_out

    def leave_out(self, path: Path, reason: str, advice: str) -> None:
        """Note a file or directory of a corpus that is not read."""
        self.left_out.append(LeftOut(path, reason, advice))

    def _tell(self, lines: list[str], message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            lines.append(message)
