"""Drawing pictures of near-duplicates, and reading the patches that they show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from emcurate import naming
from emcurate.outputs import Output, note_output
from emcurate.patches.datasets import PATCH_EXTENSION
from emcurate.patches.leaks import LeaksShown
from emcurate.patches.other_sets import OtherSet, ReadOther
from emcurate.patches.preview import Trial
from emcurate.patches.tables import TABLE_SUFFIX, read_rows
from emcurate.pictures.group_sheets import GroupSheet, PairSheet, Reader, Seen, draw_sheet
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report

Sheet = GroupSheet | PairSheet


@dataclass(frozen=True)
class ReadEither:
    """Reads patches of another set in one way, and all others in another."""

    own: Reader
    other: Reader
    of_other: frozenset[Path]

    def __call__(self, path: Path) -> npt.NDArray[Any]:
        """Return a patch's pixels; raises `InputError`."""
        return self.other(path) if path in self.of_other else self.own(path)


@dataclass(frozen=True)
class ReadStored:
    """Reads patches that lie in shards; `stored` are their paths there, by name."""

    read: Reader
    stored: Mapping[str, Path]

    def __call__(self, path: Path) -> npt.NDArray[Any]:
        """Return a patch's pixels; raises `InputError`."""
        return self.read(self.stored.get(path.stem, path))


def draw_sheets(
    sheets: Sequence[tuple[str, Sheet]],
    written: Mapping[str, list[Output]],
    incomplete: Collection[str],
    ledger: Ledger,
    report: Report,
    workers: Workers,
) -> set[str]:
    """Draw pictures, each with the ledger's key of what it is of, and add them to what is `written`.

    Returns the keys of those of which one could not be drawn. Where no patch is there to be seen, none is drawn.
    """
    undrawn, todo, others = set(), [], False
    notes = {directory: Notes(directory, TABLE_SUFFIX) for directory in {sheet.patchdir for _, sheet in sheets}}
    for key, sheet in sheets:
        if (readable := _find_shown(sheet, notes[sheet.patchdir], ledger.directory)) is None:
            others = True
            continue
        replaces = ledger.replaces(key)
        if key not in incomplete or replaces:
            todo.append((key, replace(readable, replaces=replaces)))
        undrawn.add(sheet.path)
    if others and not undrawn:
        report.note("the patches are not written yet: no picture of groups is drawn")
    report.notes += [
        f"look at {sheet.says}: {sheet.path}" for _, sheet in sheets if sheet.path in undrawn and sheet.says
    ]
    drawn = {sheet.path for sheet, _ in workers.run(draw_sheet, [each for _, each in todo], report, unit="picture")}
    for key, sheet in sheets:
        if sheet.path in drawn:
            written[key].append(note_output(sheet.path, ledger.directory))
    return {key for key, sheet in sheets if sheet.path in undrawn - drawn}


def _find_shown(sheet: Sheet, notes: Notes, scratch: Path) -> Sheet | None:
    """Return a picture with what reads its patches, also those that were only hashed; None if none can be read."""
    read = _find_reader(sheet.patchdir, sheet.patches(), notes, scratch)
    if read is None:
        return None
    if isinstance(sheet, PairSheet) and sheet.read is not None:
        read = ReadEither(read, sheet.read, sheet.of_other)
    return replace(sheet, read=read)


def _find_reader(patchdir: Path, names: Collection[str], notes: Notes, scratch: Path) -> Reader | None:
    """Return what reads patches of a directory, by their names; None if none can be read."""
    tables = {name: patchdir / f"{naming.parse_patch(name).dataset}{TABLE_SUFFIX}" for name in names}
    files = (patchdir / f"{name}.{PATCH_EXTENSION}" for name in names)
    is_known = any(map(notes.origin, tables.values())) or any(path.exists() for path in files)
    # Where shards and tables were copied by themselves, nobody noted where these come from.
    stored = {} if is_known else _find_stored(patchdir, tables)
    if not (is_known or stored):
        return None
    from emcurate.patches.reading import read_patch  # here, since these load what reads and draws images
    from emcurate.volumes.again import ReadOrCutAgain, locate

    if stored:
        return ReadStored(read_patch, stored)
    spots = locate(names, lambda dataset: patchdir / f"{dataset}{TABLE_SUFFIX}", read_rows, notes)
    return ReadOrCutAgain(read_patch, spots, scratch)


def _find_stored(patchdir: Path, tables: Mapping[str, Path]) -> dict[str, Path]:
    """Return the paths of patches in shards by their names, as far as the tables tell, which are given by patch."""
    names: dict[Path, set[str]] = defaultdict(set)
    for name, table in tables.items():
        names[table].add(name)
    return {
        row["patch"]: patchdir / row["shard"] / f"{row['patch']}.{PATCH_EXTENSION}"
        for table, some in names.items()
        if table.is_file()
        for row in read_rows(table, some)
        if row["shard"]
    }


def show_leaks(path: Path, patchdir: Path, shown: LeaksShown, other: OtherSet, crop_size: int) -> PairSheet:
    """Return a picture of leaks, each beside what it is nearest to."""
    rows: dict[str, list[tuple[str, Seen, Seen]]] = {}
    images: dict[Path, tuple[Path, int, int]] = {}
    for title, leaks in shown.rows().items():
        rows[title] = pairs = []
        for patch, name, row, column, bits in leaks:
            if row is None or column is None:
                file, caption = other.directory / f"{name}.{PATCH_EXTENSION}", name
            else:
                file, caption = other.directory / f"{name}_{row}_{column}", f"{name} at {row}, {column}"
                images[file] = (other.directory / name, row, column)
            first = Seen(patchdir / f"{patch}.{PATCH_EXTENSION}", patch)
            pairs.append((f"{bits} bits apart", first, Seen(file, caption)))
    of_other = frozenset(second.path for pairs in rows.values() for _, _, second in pairs)
    read: Reader | None = ReadOther(images, crop_size)
    if other.is_patches:
        names = {path.stem for path in of_other}
        read = _find_reader(other.directory, names, Notes(other.directory, TABLE_SUFFIX), path.parent)
    title = f"Patches that are near-duplicates of those in {other.directory.name}, those that differ most first"
    says = "patches that are near-duplicates of the other set's"
    return PairSheet(path, patchdir, title, rows, says, read, of_other)


def show_trials(path: Path, patchdir: Path, trials: Iterable[Trial]) -> PairSheet:
    """Return a picture of the pairs that are only just near-duplicates at some distances."""

    def see(name: str) -> Seen:
        return Seen(patchdir / f"{name}.{PATCH_EXTENSION}", name)

    rows = {}
    for trial in trials:
        title = f"-d {trial.distance}: {trial.duplicates:,} duplicates, {trial.exemplars:,} exemplars; farthest pairs"
        rows[title] = [(f"{bits} bits apart", see(exemplar), see(patch)) for patch, exemplar, bits in trial.pairs]
    title = "Pairs that are only just near-duplicates: an exemplar, and what it would stand for"
    return PairSheet(path, patchdir, title, rows, "pairs at the border")
