"""What an export has to write: pieces, what makes splits whole, and the account of all patches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from emcurate.outputs import Output, digest_bytes, note_output
from emcurate.partials import remove_stale_partials
from emcurate.patches.columns import as_column, as_numbers, in_one
from emcurate.patches.decided import DECIDED_FILES
from emcurate.patches.exports.against import describe_leaks
from emcurate.patches.exports.choice import NOWHERE, SPLITS, UNREADABLE, Choice, count_reasons
from emcurate.patches.exports.formats import FORMATS, describe
from emcurate.patches.exports.pieces import How, Index, Piece, PieceJobs, Split, piece_key
from emcurate.patches.fitting import RESIZE
from emcurate.patches.joined import JOINED_NAME, UNSEEN, Addition, Results, write_joined
from emcurate.patches.joined import UNREADABLE as UNREADABLE_OUTCOME
from emcurate.patches.leaks import LEAK_COLUMNS, Leaks
from emcurate.patches.listing import KNOWN_COLUMNS, Listing, Seen
from emcurate.patches.names import bytes_of
from emcurate.patches.selected import SELECTED_FILE
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import read_ledgers
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.running.spelled_paths import path_as_text, path_of_text

# What the account says beside what became of each patch.
EXPORT_COLUMNS: dict[str, pa.DataType] = {
    "split": pa.string(),
    "file": pa.string(),
    "row": pa.int64(),
    "weight": pa.float64(),
}
EXPORTED, LEFT_OUT = "exported", "left out"

# The stages that say what becomes of patches.
JUDGING = ("deduplicate", "classify_nn", "filter_measures", "select_diverse")

# What the name of a path list ends in.
LIST_SUFFIX = ".npz"

# Rows that are Python objects at once.
ROWS_AT_ONCE = 10_000


def find_results(fpaths: Path, listing: Listing) -> Results:
    """Return where the stages' results behind a list lie, as far as ledgers tell."""
    places = [fpaths.parent]
    for place in places:  # which grows
        # Stages note the list that they have read, which lies where the stage before wrote it: select_diverse.py that
        # of a filter, and that one what deduplicate.py wrote.
        lines = [line for ledger in read_ledgers(place) for line in ledger.entries.values() if line.source]
        found = [Path(path_of_text(line.source)) for line in lines if line.source.endswith(LIST_SUFFIX)]
        if (reroot := listing.paths.reroot) is not None:
            found += [Path(reroot[1]) / p.relative_to(reroot[0]) for p in found if p.is_relative_to(reroot[0])]
        places += [new for new in dict.fromkeys(path.parent for path in found) if new not in places]
    places += [place for place in _find_beside(listing) if place not in places]
    groups = next((place for place in places if Results(groups=place).group_tables()), None)
    decided, selected = (
        next((path for place in places for name in names if (path := place / name).is_file()), None)
        for names in (DECIDED_FILES, [SELECTED_FILE])
    )
    return Results(tuple(listing.directories), groups, decided, selected)


def _find_beside(listing: Listing) -> list[Path]:
    """Return the directories beside that of the patches, as in OUT, of the stages that went on with them.

    A list that somebody has made has no stage behind it that would tell. Where a stage has gone on twice nothing says
    which counts, and where patches are of several directories no one account has all of it.
    """
    if len(listing.directories) != 1:
        return []
    found, stages = [listing.directories[0]], set()
    beside = sorted(path for path in found[0].parent.iterdir() if path.is_dir()) if found[0].is_dir() else []
    for place in found:  # which grows
        for other in beside:
            for ledger in read_ledgers(other):
                read = {Path(path_of_text(line.source)) for line in ledger.entries.values() if line.source}
                assert ledger.header is not None
                if other in found or ledger.header.stage not in JUDGING or place not in read | {p.parent for p in read}:
                    continue
                if ledger.header.stage in stages:
                    return []
                stages.add(ledger.header.stage)
                found.append(other)
    return found[1:]


class ExportPlan:
    """What a run of export.py has to write.

    The ledger knows an input for each piece, one for each split, which makes it whole when all its pieces are there,
    and one for the account. All are parts of one: an export of one list in one way, or none.

    Parameters
    ----------
    ledger : Ledger
    fpaths : Path
        The list.
    listing, seen, choice : Listing, Seen and Choice
    how : How
    piece_rows : int, optional
        Patches of a piece; by default what the format takes at most.
    seed : int
    relative : bool
        Whether paths in tables and lists begin in OUTDIR.
    leaks : Leaks, optional
        The patches that are near-duplicates of another set's, by their rows in the listing.
    """

    def __init__(
        self, ledger: Ledger, fpaths: Path, listing: Listing, seen: Seen, choice: Choice, how: How,
        piece_rows: int | None, seed: int, relative: bool, leaks: Leaks | None = None,
    ) -> None:  # fmt: skip
        self._ledger, self._fpaths, self._listing, self._seen, self._choice = ledger, fpaths, listing, seen, choice
        self._how, self._relative, self._format = how, relative, FORMATS[how.format]
        self._results, self._leaks = find_results(fpaths, listing), leaks
        rows = piece_rows or self._count_rows(seen)
        self.splits = [
            Split(name, self._order(number, seed), rows)
            for number, name in enumerate(SPLITS)
            if (choice.split == number).any()
        ]
        self._known = self._describe()
        self._made: set[str] = set()
        self._todo: list[tuple[Split, int]] = []

    def _count_rows(self, seen: Seen) -> int:
        chosen = self._choice.split != NOWHERE
        largest = int((seen.heights.astype(np.int64) * seen.widths)[chosen].max())
        pixels = largest if self._how.size is None else self._how.size**2
        return max(1, min(self._format.piece_rows, self._format.piece_bytes // pixels))

    def _order(self, split: int, seed: int) -> npt.NDArray[np.int64]:
        members = self._choice.members(split)
        return np.random.default_rng([seed, split]).permutation(members) if self._format.shuffles else members

    def _describe(self) -> pa.Table:
        """Return what is handed on of each patch of the listing."""
        count = len(self._listing)
        known = {name: in_one(self._listing.table[name]) for name in ("patch", *KNOWN_COLUMNS)}
        known["height"], known["width"] = (
            as_column(side, pa.int32(), side == 0) for side in (self._seen.heights, self._seen.widths)
        )
        if self._how.size is not None and self._how.fit == RESIZE:
            # A pixel of the exported image, not of the patch.
            for axis, side in (("y", self._seen.heights), ("x", self._seen.widths)):
                factor = as_column(side / self._how.size, pa.float64())
                known[f"pixel_size_{axis}_nm"] = pc.multiply(known[f"pixel_size_{axis}_nm"], factor)
        numbers = np.full(count, -1, np.int64)
        for split in self.splits:
            numbers[split.members] = np.arange(len(split.members))
        known["weight"] = as_column(self._choice.weight, pa.float64())
        known["number"] = as_column(numbers, pa.int64())
        return pa.table(known)

    def settle(self, report: Report, *, overwrite: bool, prune: bool) -> None:
        """Compare what there is with what is wanted; see `Ledger.plan`."""
        sources: dict[str, Source] = {}
        of_splits = []
        for split in self.splits:
            states = {piece_key(split.name, n): self._digest(split.of_piece(n)) for n in split.pieces}
            sources |= {key: self._source(key, state) for key, state in states.items()}
            of_splits.append(digest_bytes("".join(states.values()).encode()))
            sources[split.name] = self._source(split.name, of_splits[-1])
        outcome = digest_bytes(self._choice.reason.tobytes() + "\\n".join(self._choice.reasons).encode())
        of_leaks = "" if self._leaks is None else digest_bytes(b"".join(self._leaks.table()))
        state = digest_bytes("".join([*of_splits, outcome, self._results.digest(), of_leaks]).encode())
        sources[JOINED_NAME] = self._source(JOINED_NAME, state)
        plan = self._ledger.plan(sources, report, root=self._ledger.directory, overwrite=overwrite, prune=prune)
        self._made = set(plan.done)
        self._is_refused = not plan.todo and len(plan.done) < len(sources)
        self._wanted = set(plan.todo)
        self._todo = [
            (split, n) for split in self.splits for n in split.pieces if piece_key(split.name, n) in plan.todo
        ]
        for split, number in self._todo:
            # Images are written there under hidden names first, of which a killed run, or worker, leaves one.
            first, _ = self._format.place(self._how, split, number * split.piece_rows)
            remove_stale_partials((self._ledger.directory / first).parent)
        if not self._is_refused:  # what is there is another export, then, with other patches
            for split in self.splits:
                report.count(f"patches in {split.name}", len(split.members))
            report.count("patches left out", int((self._choice.split == NOWHERE).sum()))
        report.count("pieces written", 0)
        if done := sum(piece_key(split.name, n) in self._made for split in self.splits for n in split.pieces):
            report.count("pieces already there", done)

    def _source(self, key: str, state: str) -> Source:
        # Nothing of that name is there: a piece that this run has not is gone.
        return Source(self._fpaths / key, state, path_as_text(self._fpaths), owner=self._fpaths, is_part=True)

    def _digest(self, rows: npt.NDArray[np.int64]) -> str:
        """Return what changes when any of some patches, or what is handed on of it, does."""
        digest = xxhash.xxh3_128(np.ascontiguousarray(self._seen.states[rows]).data)
        for column in self._known.take(as_column(rows, pa.int64())).columns:
            values = in_one(column)
            if pa.types.is_string(values.type):
                texts = pc.fill_null(values, "").cast(pa.large_string())
                digest.update(bytes_of(texts))
                digest.update(as_numbers(pc.binary_length(texts)).data)
            else:
                missing = float("nan") if pa.types.is_floating(values.type) else -1
                digest.update(np.ascontiguousarray(as_numbers(pc.fill_null(values, missing))).data)
        return digest.hexdigest()

    def jobs(self) -> Sequence[Piece]:
        """Return the pieces that are to be written."""
        return PieceJobs(
            self._todo, self._listing, self._known, self._ledger.directory, self._how,
            lambda split, number: self._replaces(split.name) and self._replaces(piece_key(split.name, number)),
        )  # fmt: skip

    def _replaces(self, key: str) -> bool:
        return self._ledger.replaces(key)

    def take(self, piece: Piece, outputs: list[Output], report: Report) -> None:
        """Note that a piece is written."""
        self._ledger.finish(piece.key, outputs)
        self._made.add(piece.key)
        report.count("pieces written")

    @property
    def before(self) -> tuple[Path, ...]:
        """The directories of the stages' results that lie behind the list, as far as they are known."""
        return tuple(dict.fromkeys([*self._results.directories(), self._fpaths.parent]))

    def close(self, report: Report) -> bool:
        """Make the splits whole whose pieces are all there, and if all are, write the account; say how to read them.

        Returns
        -------
        bool
            Whether the export is whole.
        """
        for split in self.splits:
            if split.name in self._wanted and all(piece_key(split.name, n) in self._made for n in split.pieces):
                index = Index(
                    self._ledger.directory, self._how, split, lambda split=split: self._rows(split),  # type: ignore[misc]
                    self._replaces(split.name), self._relative,
                )  # fmt: skip
                self._ledger.finish(split.name, self._format.write_index(index))
                self._made.add(split.name)
        if self._is_refused or any(split.name not in self._made for split in self.splits):
            return False
        if JOINED_NAME in self._wanted:
            self._write_account()
        self._tell(report)
        return True

    def _rows(self, split: Split) -> Iterator[pa.Table]:
        for start in range(0, len(split.members), ROWS_AT_ONCE):
            yield self._known.take(as_column(split.members[start : start + ROWS_AT_ONCE], pa.int64()))

    def _write_account(self) -> None:
        path = self._ledger.directory / JOINED_NAME
        name_source = self._name_source if self._relative else None
        columns = EXPORT_COLUMNS | (LEAK_COLUMNS if self._leaks is not None else {})
        # Where nothing tells of duplicates, nobody can say that a patch was not looked at.
        unseen = UNSEEN if self._results.groups is not None else "not listed, and nothing here tells what became of it"
        addition = Addition(columns, in_one(self._known["patch"]), self._account_for, name_source, unseen)
        count = write_joined(path, self._results, addition, overwrite=self._replaces(JOINED_NAME))
        self._ledger.finish(JOINED_NAME, [note_output(path, self._ledger.directory)], {"patches": count})

    def _account_for(self, rows: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
        """Return what the export made of some patches of the listing, by column of the account."""
        known = self._known.take(as_column(rows, pa.int64()))
        choice, numbers = self._choice, as_numbers(in_one(known["number"])).tolist()
        before = "" if self._relative else f"{spell(self._ledger.directory)}/"
        splits = {SPLITS.index(split.name): split for split in self.splits}
        placed = [
            self._format.place(self._how, splits[split], number) if split != NOWHERE else (None, None)
            for split, number in zip(choice.split[rows].tolist(), numbers, strict=True)
        ]
        nowhere = choice.split[rows] == NOWHERE
        reasons = as_column(choice.reasons, pa.string()).take(as_column(choice.reason[rows], pa.int8()))
        left_out = pc.if_else(pc.equal(reasons, UNREADABLE), UNREADABLE_OUTCOME, LEFT_OUT)
        is_exported = as_column((~nowhere).view(np.uint8), pa.uint8()).cast(pa.bool_())
        return {
            **{name: in_one(known[name]) for name in ("dataset", "height", "width")},
            "split": as_column(list(SPLITS), pa.string()).take(as_column(choice.split[rows], pa.int8(), nowhere)),
            "file": as_column([file and f"{before}{file}" for file, _ in placed], pa.string()),
            "row": as_column([row for _, row in placed], pa.int64()),
            "weight": as_column(choice.weight[rows], pa.float64(), nowhere),
            **({} if self._leaks is None else describe_leaks(self._leaks, rows)),
            "outcome": pc.if_else(is_exported, EXPORTED, left_out),
            "why": pc.if_else(is_exported, f"listed in {spell(self._fpaths.name)}", reasons),
        }

    def _name_source(self, source: str) -> str:
        """Return the path of a source from OUTDIR on; an address stays as it is."""
        if not os.path.isabs(source):  # noqa: PTH117 - a text, which may be an address
            return source
        return os.path.relpath(source, spell(self._ledger.directory))

    def _tell(self, report: Report) -> None:
        total = sum(len(split.members) for split in self.splits)
        for split in self.splits:
            datasets = len(np.unique(self._choice.of_dataset[split.members]))
            share = f", {len(split.members) / total:.1%}" if len(self.splits) > 1 else ""
            report.note(f"{split.name}: {len(split.members):,} patches of {datasets:,} datasets{share}")
        for why, count in count_reasons(self._choice).items():
            report.note(f"left out: {count:,} {why}")
        report.note(f"read it with {describe(self._how.format, self._ledger.directory, self.splits)}")


def spell(path: str | Path) -> str:
    """Return a path as a table can have it."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
