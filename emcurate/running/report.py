"""What a run did, for the user: counts, warnings, notes, and what failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

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


@dataclass
class Report:
    """What a run did: counts by noun, warnings, notes and failures, each a line for the user.

    A warning or a failure is kept once, however many jobs meet it.
    """

    stage: str
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
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
        failed = {"failed": len(self.failures)} if self.failures else {}
        return ", ".join(f"{number:,} {noun}" for noun, number in {**self.counts, **failed}.items())

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

    def _tell(self, lines: list[str], message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            lines.append(message)
