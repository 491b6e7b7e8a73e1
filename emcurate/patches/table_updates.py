"""Bringing the tables of a directory of patches up to date when some of their sections have been cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from emcurate import naming
from emcurate.errors import InputError
from emcurate.files import digest_bytes, note_output
from emcurate.patches.tables import (
    TABLE_SUFFIX,
    Cut,
    Origin,
    build_table,
    join_tables,
    keep_sections,
    read_table,
    section_names,
    write_table,
)
from emcurate.running.ledger import Ledger, Plan, Source

# Ends the ledger's key of a dataset's table; no section's name holds a slash.
TABLE_KEY = "/table"


def table_key(dataset: str) -> str:
    """Return the ledger's key of a dataset's table."""
    return f"{dataset}{TABLE_KEY}"


def add_tables(sources: Mapping[str, Source], origins: Mapping[str, Origin], imdir: Path) -> dict[str, Source]:
    """Return sections as a ledger sees them, and with them the table of each of their datasets."""
    states: dict[str, list[str]] = defaultdict(list)
    for key, source in sources.items():
        states[source.dataset].append(f"{key} {source.fingerprint} {origins[key]}")
    tables = {
        table_key(dataset): Source(imdir, digest_bytes("\n".join(lines).encode()), dataset, imdir, is_renewed=True)
        for dataset, lines in states.items()
    }
    return {**sources, **tables}


class TableUpdates:
    """The tables that a run has to write: those of datasets of which any section is new, changed or gone.

    Parameters
    ----------
    directory : Path
        That of the patches.
    ledger : Ledger
    plan : Plan
        Of the sources that `add_tables` gave.
    sections : mapping of str to naming.Section
        All sections of the run, by the ledger's key, their name.
    settings : mapping
        `crop_size`, `hash_size` and `hash`.

    Attributes
    ----------
    lost : list of str
        Sections that are done but have no rows in their dataset's table, deleted or never written: to be cut again.
    kept : list of str
        The other sections that are done.
    """

    def __init__(
        self,
        directory: Path,
        ledger: Ledger,
        plan: Plan,
        sections: Mapping[str, naming.Section],
        settings: Mapping[str, Any],
    ) -> None:
        self._directory, self._ledger, self._settings = directory, ledger, settings
        self._cuts: dict[str, list[Cut]] = {
            key.removesuffix(TABLE_KEY): [] for key in plan.todo if key.endswith(TABLE_KEY)
        }
        self._earlier: dict[str, pa.Table] = {}
        present: set[str] = set()
        for dataset in self._cuts:
            try:
                self._earlier[dataset] = read_table(directory / f"{dataset}{TABLE_SUFFIX}")
            except InputError:
                continue  # it is missing or damaged, and made anew
            present |= section_names(self._earlier[dataset])
        done = [key for key in plan.done if not key.endswith(TABLE_KEY)]
        self.lost = [key for key in done if sections[key].dataset in self._cuts and key not in present]
        lost = set(self.lost)
        self.kept = [key for key in done if key not in lost]
        self._kept_of: dict[str, list[naming.Section]] = defaultdict(list)
        for key in self.kept:
            self._kept_of[sections[key].dataset].append(sections[key])
        self._wanted: dict[str, int] = defaultdict(int)
        for section in sections.values():
            self._wanted[section.dataset] += 1

    def add(self, cut: Cut) -> None:
        """Take the patches of a section that was cut; of one whose files were lost, its table has the same rows."""
        if cut.section.dataset in self._cuts:
            self._cuts[cut.section.dataset].append(cut)

    def write(self, origins: Mapping[str, Origin]) -> None:
        """Write the tables: the rows of the sections cut now, and of the others those they had.

        Parameters
        ----------
        origins : mapping of str to Origin
            By the section's name.
        """
        for dataset, cuts in self._cuts.items():
            kept = self._kept_of[dataset]
            parts = [build_table(cuts, origins, self._settings)] if cuts else []
            if kept:
                parts.append(keep_sections(self._earlier[dataset], kept, origins))
            if not parts:
                continue
            path = self._directory / f"{dataset}{TABLE_SUFFIX}"
            write_table(path, join_tables(parts))
            if len(cuts) + len(kept) == self._wanted[dataset]:
                self._ledger.finish(table_key(dataset), [note_output(path, self._directory)])
