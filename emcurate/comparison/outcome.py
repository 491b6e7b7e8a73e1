"""What a run of deduplicate.py makes of datasets: tables, lists and pictures, and when the ledger learns of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from emcurate.comparison.sheets import Sheet, draw_sheets, show_leaks
from emcurate.errors import InputError
from emcurate.outputs import Output, note_outputs
from emcurate.patches.covering import Comparison, Covered
from emcurate.patches.datasets import PATCH_EXTENSION
from emcurate.patches.duplicates import GROUPS_SUFFIX, Groups, Largest, read_largest
from emcurate.patches.hash_settings import HashSettings
from emcurate.patches.leaks import LEAKS_SUFFIX, Leaks, LeaksShown, find_leaks
from emcurate.patches.other_sets import OtherSet
from emcurate.patches.pathlists import join_files, write_path_list_once
from emcurate.pictures.group_sheets import DUPLICATES_SHOWN, GROUPS_SHOWN, GroupSheet
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Plan
from emcurate.writing import write_pieces

PATH_LIST, PICTURE, LEAKS_PICTURE = "deduplicated_fpaths.npz", "groups.png", "leaks.png"
SUFFIXES = (EXEMPLARS, TABLE, LEAKS, DATASET_PICTURE) = ("_exemplars.npy", GROUPS_SUFFIX, LEAKS_SUFFIX, "_groups.png")

# The ledger's key for what is made of all datasets together: no dataset has such a name.
ALL = "/"

# Which pictures are drawn: one of all datasets, or also one of each.
PICTURES = (FEW, OF_EACH) = ("few", "all")

LEAKS_SHOWN = 5  # of each kind

# Patches of datasets that are done before the ledger notes these: what a killed run loses takes a second or so, and a
# line a dataset would take longer than most of ten thousand.
NOTED_PATCHES, NOTED_DATASETS = 100_000, 500


def key_of(name: str) -> str | None:
    """Return the ledger's key of a result by its file name, None if it is none."""
    if name in (f"{PATH_LIST}/", PATH_LIST, PICTURE, LEAKS_PICTURE):
        return ALL
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), None)


class Outcome:
    """What is made of the datasets of a run.

    Parameters
    ----------
    comparison : Comparison
        Of these datasets.
    min_distance : int
        Bits that duplicates differ by at most.
    ledger : Ledger
        Of the directory of the results.
    plan : Plan
        The keys of what is to be made, and of what is done already.
    pictures : str
        One of `PICTURES`.
    other : (OtherSet, HashSettings), optional
        The set that patches are compared with, and how patches are hashed.
    incomplete : bool
        Whether something that all is compared with could not be read, so that all is made again by the next run.
    """

    def __init__(
        self, comparison: Comparison, min_distance: int, ledger: Ledger, plan: Plan, pictures: str,
        other: tuple[OtherSet, HashSettings] | None, *, incomplete: bool,
    ) -> None:  # fmt: skip
        self._comparison, self._min_distance, self._ledger, self._plan = comparison, min_distance, ledger, plan
        self._of_each, self._other, self._savedir = pictures == OF_EACH, other, ledger.directory
        self._report, self._patchdir = comparison.report, comparison.patchdir
        # What could not be read, drawn or compared whole is done again when it is mended.
        self._incomplete = {*comparison.datasets, ALL} if incomplete else set()
        self._largest, self._shown = Largest(GROUPS_SHOWN), LeaksShown(LEAKS_SHOWN)
        self._written: dict[str, list[Output]] = defaultdict(list)  # what the ledger has not noted yet
        self._sheets: list[tuple[str, Sheet]] = []
        self._unnoted = self._masked = 0
        self.finished = {*plan.done} - {ALL}

    def take(self, each: Covered) -> None:
        """Write what was found of a dataset, if it is one of those to be done."""
        name, groups, is_of_all = each.name, each.largest(GROUPS_SHOWN, DUPLICATES_SHOWN), self._comparison.is_of_all
        if not each.read.complete:
            self._incomplete.add(name)
        if is_of_all:
            self._largest.add(name, groups)
        if name not in self._plan.todo:
            return
        leaks = self._find_leaks(each)
        try:
            self._written[name] = self._write_tables(name, each.groups, leaks)
        except InputError as taken:
            self._report.fail(taken)
            return
        self.finished.add(name)
        if not is_of_all:
            self._largest.add(name, groups)
        self._masked += 0 if self._comparison.blank_guard else each.count_masked(self._min_distance)
        self._report.count("datasets done")
        self._report.count("patches", len(each.read.words))
        self._report.count("duplicates", len(each.read.words) - len(each.groups.exemplars))
        self._unnoted += len(each.read.words)
        if self._of_each:
            if groups:
                path = self._savedir / f"{name}{DATASET_PICTURE}"
                self._sheets.append((name, GroupSheet(path, self._patchdir, name, [group for _, group in groups])))
        elif not is_of_all and (self._unnoted >= NOTED_PATCHES or len(self._written) >= NOTED_DATASETS):
            self._note()

    def _find_leaks(self, each: Covered) -> Leaks | None:
        """Return which patches of a dataset are near-duplicates of the other set's, if there is one."""
        if self._other is None:
            return None
        blank = each.read.saturated if self._comparison.blank_guard else None
        seen, cores = each.read.seen, self._comparison.workers.cores
        leaks = find_leaks(each.read.names, seen, self._other[0], self._min_distance, cores, blank)
        self._shown.add(leaks.bits, leaks.some())
        self._report.count("leaks", len(leaks))
        return leaks

    def _write_tables(self, name: str, groups: Groups, leaks: Leaks | None) -> list[Output]:
        """Write a dataset's exemplars and tables; return them as they were written."""
        before, after = str(self._patchdir / "*").removesuffix("*"), f".{PATCH_EXTENSION}"
        files: dict[str, Iterator[bytes | memoryview]] = {
            TABLE: groups.table(),
            EXEMPLARS: groups.exemplars_npy(before, after),
        }
        if leaks is not None:
            files[LEAKS] = leaks.table()
        replace = self._ledger.replaces(name)
        return [
            write_pieces(self._savedir / f"{name}{suffix}", pieces, overwrite=replace)
            for suffix, pieces in files.items()
        ]

    def close(self) -> None:
        """Write and draw what is of all datasets, and note what is whole."""
        if self._masked:
            self._report.note(
                f"{self._masked:,} duplicates have a wholly black or white part in common with their exemplar, and may "
                "be unlike it elsewhere; if that is a mask or padding, look at --blank-guard"
            )
        if ALL in self._plan.todo:
            self._close_all()
        self._incomplete |= self._comparison.datasets.keys() - self.finished
        if self._incomplete:
            self._incomplete |= {*self._comparison.datasets, ALL} if self._comparison.is_of_all else {ALL}
        self._incomplete |= draw_sheets(
            self._sheets, self._written, self._incomplete, self._ledger, self._report, self._comparison.workers
        )
        self._note()

    def _close_all(self) -> None:
        """Write the path list of the exemplars of all datasets, and ask for the pictures of all."""
        names, savedir = sorted(self.finished), self._savedir
        self._written[ALL] = write_path_list_of_all(names, savedir, self._ledger.replaces(ALL), self._report)
        for name in {*self._plan.done} - {ALL}:
            if not self._comparison.is_of_all:
                self._largest.add(name, read_largest(savedir / f"{name}{TABLE}", GROUPS_SHOWN, DUPLICATES_SHOWN))
            if self._other is not None:
                self._shown.add_table(savedir / f"{name}{LEAKS}")
        if self._largest.groups:
            says = "the largest groups"
            sheet = GroupSheet(savedir / PICTURE, self._patchdir, "All datasets", self._largest.groups, says)
            self._sheets.append((ALL, sheet))
        if self._other is not None and (rows := self._shown.rows()):
            self._report.notes += [*rows, "the farther apart, the more often by chance: look at them"]
            other, how = self._other
            picture = show_leaks(savedir / LEAKS_PICTURE, self._patchdir, self._shown, other, how.crop_size)
            self._sheets.append((ALL, picture))

    def _note(self) -> None:
        whole = {key: outputs for key, outputs in self._written.items() if key not in self._incomplete}
        self._ledger.finish_all(whole)
        self._unnoted, self._written = 0, defaultdict(list)


def write_path_list_of_all(names: Iterable[str], savedir: Path, replace: bool, report: Report) -> list[Output]:
    """Write the path list of the exemplars of all datasets, unless it is there already; return its files."""
    paths = join_files([savedir / f"{name}{EXEMPLARS}" for name in names])
    report.count("exemplars in all", paths.count)
    write_path_list_once(savedir / PATH_LIST, paths, overwrite=replace)
    return note_outputs(savedir, savedir / PATH_LIST)
