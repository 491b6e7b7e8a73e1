"""Covering the patches of datasets, each for itself or all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emcurate.errors import InputError
from emcurate.files import describe_content
from emcurate.outputs import digest_bytes
from emcurate.patches.datasets import Hashes, list_datasets, read_hashes
from emcurate.patches.duplicates import Cover, Group, Groups, find_groups, order_patches
from emcurate.patches.tables import TABLE_SUFFIX
from emcurate.patches.turned_hashes import with_orientations
from emcurate.running.jobs import Workers, progress
from emcurate.running.report import Report

# What patches are compared with: those of their own dataset, or all.
SCOPES = (DATASET, ALL_DATASETS) = ("dataset", "all")

# What the order of all datasets' patches together is drawn for, in place of a dataset's name.
TOGETHER = "/"


@dataclass(frozen=True)
class Covered:
    """A dataset with its groups of near-duplicates.

    Attributes
    ----------
    name : str
    read : Hashes
    groups : Groups
        What is told of its patches.
    whole : Groups
        Of all patches that it was covered with.
    blank : (n,) float64, optional
        The share of each of these that is blank, where that is known of all.
    """

    name: str
    read: Hashes
    groups: Groups
    whole: Groups
    blank: npt.NDArray[np.float64] | None = None

    def count_masked(self, distance: int) -> int:
        """Return how many of its duplicates might be none for what is blank in them; see `Groups.count_masked`."""
        return 0 if self.blank is None else self.groups.count_masked(self.blank, distance)

    def largest(self, groups: int, members: int) -> list[tuple[int, Group]]:
        """Return the largest groups of which the exemplar is one of its patches; see `Groups.largest`."""
        return self.whole.largest(groups, members, self.groups.span)


def cover_each(
    found: Iterable[tuple[str, Hashes]], order: str, seed: int, cover: Cover, *, blank_guard: bool = False
) -> Iterator[Covered]:
    """Yield datasets as they come, none compared with another."""
    for name, read in found:
        taken = order_patches(name, len(read.words), order, seed, read.sharpness)
        groups = find_groups(read.names, read.seen, taken, cover, read.shards, read.saturated if blank_guard else None)
        yield Covered(name, read, groups, groups, read.saturated)


def cover_together(
    found: Sequence[tuple[str, Hashes]], order: str, seed: int, cover: Cover, *, blank_guard: bool = False
) -> Iterator[Covered]:
    """Yield datasets in the order of their names, their patches taken as if they were all of one dataset.

    By name means dataset by dataset.
    """
    if not found:
        return
    some = sorted(found, key=lambda pair: pair[0])
    names = pa.concat_arrays([read.names for _, read in some])
    seen = np.concatenate([read.seen for _, read in some])
    sharpness, blank = (_join([getattr(read, each) for _, read in some]) for each in ("sharpness", "saturated"))
    taken = order_patches(TOGETHER, len(names), order, seed, sharpness)
    whole = find_groups(names, seen, taken, cover, blank=blank if blank_guard else None)
    start = 0
    for name, read in some:
        stop = start + len(read.words)
        yield Covered(name, read, whole.part(slice(start, stop), read.shards), whole, blank)
        start = stop


def _join(known: Sequence[npt.NDArray[np.float64] | None]) -> npt.NDArray[np.float64] | None:
    """Return numbers of several datasets one after another, if they are known of all."""
    there = [each for each in known if each is not None]
    return np.concatenate(there) if len(there) == len(known) else None


def describe_unmeasured(patchdir: Path, name: str) -> InputError:
    """Return the error of a dataset of whose patches nobody has noted how much is blank."""
    wanted, found = "a table with the measures of all its patches, for --blank-guard", "none"
    advice = f"remove {name}{TABLE_SUFFIX}, if it is there, and run raw/crop_patches.py again: patches stay as they are"
    return InputError(patchdir / f"{name}{TABLE_SUFFIX}", wanted, found, advice)


def refuse_odd_sides(found: Sequence[tuple[str, Hashes]], patchdir: Path, report: Report) -> list[tuple[str, Hashes]]:
    """Return the datasets whose hashes have the commonest side; others, which cannot be compared, are reported."""
    counts = Counter(read.side for _, read in found)
    if len(counts) < 2:
        return list(found)
    side = max(counts, key=lambda each: (counts[each], each))
    for name, read in found:
        if read.side != side:
            advice = "cut all datasets with one --hash_size, or give --scope dataset"
            report.fail(InputError(patchdir / name, f"hashes of side {side}, like most", f"side {read.side}", advice))
    return [(name, read) for name, read in found if read.side == side]


class Comparison:
    """Which patches of a directory are compared with each other, and in which order.

    Parameters
    ----------
    patchdir : Path
    order, seed, scope, orientations, blank_guard
        As the flags of deduplicate.py say it.
    report : Report
        Is told what cannot be read.
    workers : Workers

    Attributes
    ----------
    datasets : dict of str to Dataset
    unusable : frozenset of str
        The names of others, of which something is there that cannot be used.
    states : dict of str to str
        What changes when a dataset's groups may: its patches, or with `is_of_all` those of any.
    state : str
        What changes when any dataset does.
    parameters : dict
        What the ledger keeps; what is not asked for is not noted, so that results of earlier versions stay.

    Raises
    ------
    InputError
        If there are no patches.
    """

    def __init__(
        self,
        patchdir: Path,
        order: str,
        seed: int,
        scope: str,
        orientations: bool,
        blank_guard: bool,
        report: Report,
        workers: Workers,
    ) -> None:
        self.patchdir, self.is_of_all = patchdir, scope == ALL_DATASETS
        self.report, self.workers = report, workers
        self.with_sharpness = order == "sharpest"
        self._order, self._seed, self._orientations, self.blank_guard = order, seed, orientations, blank_guard
        listed = list_datasets(patchdir, self.with_sharpness, report, may_need_pixels=orientations)
        self.datasets, self.unusable = listed.datasets, listed.unusable
        if not self.datasets and not report.failures:
            found = describe_content(patchdir)
            raise InputError(patchdir, "patches and hashes", found, "run raw/crop_patches.py first")
        self.states = {name: dataset.fingerprint(patchdir) for name, dataset in self.datasets.items()}
        self.state = digest_bytes("".join(self.states.values()).encode())
        self.parameters: dict[str, Any] = {"order": order, "seed": seed if order == "random" else None}
        if orientations:
            self.parameters["orientations"] = True
        if blank_guard:
            self.parameters["blank_guard"] = True
        if self.is_of_all:
            self.parameters["scope"] = scope
            self.states = dict.fromkeys(self.datasets, self.state)

    def read(self, names: Iterable[str]) -> Iterator[list[tuple[str, Hashes]]]:
        """Yield datasets that are covered together: each for itself, or all."""
        todo = [self.datasets[name] for name in (self.datasets if self.is_of_all else names)]
        hashes = read_hashes(
            todo, self.patchdir, self.with_sharpness, self.report, self.workers, with_turned=self._orientations
        )
        if self._orientations:
            # Those of files are all read before, since workers do one thing at a time.
            found = hashes if all(dataset.table for dataset in todo) else iter(list(hashes))
            hashes = with_orientations(found, self.patchdir, self.report, self.workers)
        shown: Iterable[tuple[str, Hashes]] = hashes
        if not self._orientations:  # whose pixels, where they are read, show a bar of their own
            shown = progress(hashes, total=len(todo), label=self.report.stage, unit="dataset")
        if self.is_of_all:
            yield refuse_odd_sides(self._refuse_unmeasured(shown), self.patchdir, self.report)
        else:
            yield from (self._refuse_unmeasured([each]) for each in shown)

    def _refuse_unmeasured(self, found: Iterable[tuple[str, Hashes]]) -> list[tuple[str, Hashes]]:
        """Return the datasets that can be guarded, all of them without a guard; report the others."""
        good = []
        for name, read in found:
            if self.blank_guard and read.saturated is None:
                self.report.fail(describe_unmeasured(self.patchdir, name))
            else:
                good.append((name, read))
        return good

    def cover(self, some: Sequence[tuple[str, Hashes]], cover: Cover) -> Iterator[Covered]:
        """Yield what was read together with its groups."""
        together = cover_together if self.is_of_all else cover_each
        return together(some, self._order, self._seed, cover, blank_guard=self.blank_guard)
