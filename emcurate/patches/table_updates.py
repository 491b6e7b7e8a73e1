"""Bringing the tables of a directory of patches up to date when some of their sections have been cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from emcurate import naming
from emcurate.images.origins import Origin
from emcurate.outputs import is_intact, note_output
from emcurate.patches.cuts import Cut, place_in_shard, read_cuts, write_cuts
from emcurate.patches.table_parts import TableParts
from emcurate.patches.tables import TABLE_SUFFIX
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_lines import DONE
from emcurate.running.sources import Plan

# Ends the ledger's key of a dataset's table; no section's name holds a slash.
TABLE_KEY = "/table"

# In the ledger's details of a table: whether it has the measures of all patches, as earlier versions' have not.
MEASURED = "measured"


def table_key(dataset: str) -> str:
    """Return the ledger's key of a dataset's table."""
    return f"{dataset}{TABLE_KEY}"


class TableUpdates:
    """The tables that a run has to write: those of datasets of which any section is new, changed or gone.

    Make it before `Ledger.plan` is called: a table counts as long as it is noted as done.

    Parameters
    ----------
    patchdir : Path
    ledger : Ledger
    settings : mapping
        `crop_size`, `hash_size` and `hash`.

    Attributes
    ----------
    lost : list of str
        Sections that are done but of which no rows are left: to be cut again.
    kept : list of str
        The other sections that are done.
    missing : set of str
        Sections of which rows are to be made: those to be cut, and any whose rows are lost.
    """

    def __init__(self, patchdir: Path, ledger: Ledger, settings: Mapping[str, Any]) -> None:
        self._patchdir, self._ledger, self._settings = patchdir, ledger, settings
        self._believed = {
            key.removesuffix(TABLE_KEY): ledger.outputs_of(key)
            for key, line in ledger.entries.items()
            if key.endswith(TABLE_KEY) and line.state == DONE
        }
        self._finished: set[str] = set()
        self.lost: list[str] = []
        self.kept: list[str] = []
        self.missing: set[str] = set()

    def plan(
        self,
        plan: Plan,
        sections: Mapping[str, naming.Section],
        states: Mapping[str, str],
        has_rows: Callable[[str], bool],
        complete: Collection[str],
    ) -> None:
        """Take in what is to be done.

        Parameters
        ----------
        plan : Plan
        sections : mapping of str to naming.Section
            All sections of the run, by the ledger's key, their name.
        states : mapping of str to str
            By their names: what changes when a section's rows do.
        has_rows : callable
            Whether the table is to have any row of a section, by its name.
        complete : collection of str
            The datasets whose tables have the rows of all sections whichever are wanted, if they are noted as done.
        """
        unfinished = {
            key.removesuffix(TABLE_KEY)
            for key, line in self._ledger.entries.items()
            if key.endswith(TABLE_KEY) and line.state != DONE
        }
        self.parts = TableParts(self._patchdir, states, unfinished)
        self._todo = {key.removesuffix(TABLE_KEY) for key in plan.todo if key.endswith(TABLE_KEY)}
        self._sections: dict[str, list[str]] = defaultdict(list)
        for stem, section in sections.items():
            if section.dataset in self._todo and has_rows(stem):
                self._sections[section.dataset].append(stem)
        done = {key for key in plan.done if key in sections}
        self._refused = sections.keys() - done - plan.todo.keys()
        unchanged: dict[str, set[str]] = defaultdict(set)
        for stem, section in sections.items():
            is_unchanged = stem not in plan.todo or section.dataset in complete
            if section.dataset in self._todo and is_unchanged:
                unchanged[section.dataset].add(stem)
        held: set[str] = set()
        for dataset, stems in unchanged.items():
            held |= self._hold(dataset, stems)
        expected = {stem for dataset in self._todo for stem in self._sections.get(dataset, ())}
        self.missing = expected - self._refused - held
        self.lost = [key for key in done if key in self.missing]
        self.kept = [key for key in done if key not in self.missing]

    def _hold(self, dataset: str, stems: Collection[str]) -> set[str]:
        """Put the rows of sections that are not cut again into a part; return those of which there are any."""
        held = self.parts.held(dataset)
        cuts = self.read(dataset, lambda stem: stem in stems and stem not in held)
        self.parts.keep(dataset, cuts.values(), self._settings)
        return (held | cuts.keys()) & set(stems)

    def read(self, dataset: str, wanted: Callable[[str], bool] = lambda stem: True) -> dict[str, Cut]:
        """Return by section the rows that an earlier run's table has, as far as that is still what was written."""
        noted = self._believed.get(dataset, [])
        if not noted or not all(is_intact(self._patchdir, output) for output in noted):
            return {}
        return read_cuts(self._patchdir / f"{dataset}{TABLE_SUFFIX}", wanted)[0]

    def is_wanted(self, dataset: str) -> bool:
        """Return whether a dataset's table has to be written."""
        return dataset in self._todo - self._finished

    def whole(self, dataset: str, stems: Collection[str]) -> Path | None:
        """Return where a dataset's table goes if these sections are all that it has; None if there are others."""
        is_whole = self.missing.intersection(stems) >= set(self._sections[dataset])
        return self._patchdir / f"{dataset}{TABLE_SUFFIX}" if is_whole else None

    def write(
        self, dataset: str, origin: Callable[[str], Origin], details: Mapping[str, Any], shards: Collection[str] = ()
    ) -> int:
        """Write a dataset's table from its parts; return its rows.

        It is noted as done if the rows of every section are there, as they now are.
        """
        rows, stored = self.parts.gather(dataset, shards)
        stems = sorted(stem for stem in self._sections[dataset] if stem in rows)
        if not stems:
            if not self._sections[dataset]:
                self.finish(dataset, [], {**details, "patches": 0})
            return 0
        path = self._patchdir / f"{dataset}{TABLE_SUFFIX}"
        cuts = (place_in_shard(rows[stem], stored.get(stem)) for stem in stems)
        measured = all(rows[stem].is_measured() for stem in stems)
        count = write_cuts(path, cuts, origin, self._settings)
        if len(stems) == len(self._sections[dataset]) and not self._refused & set(stems):
            details = {**details, "patches": count, MEASURED: measured}
            self.finish(dataset, [note_output(path, self._patchdir)], details)
        return count

    def finish(self, dataset: str, outputs: list[Any], details: Mapping[str, Any]) -> None:
        """Note that a dataset's table is whole."""
        self._ledger.finish(table_key(dataset), outputs, details)
        self._finished.add(dataset)
        self.parts.close(dataset)
