"""Which patches of a listing are exported, in which split and order, with which weight, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate.errors import InputError
from emcurate.patches.columns import as_column, as_numbers, in_one
from emcurate.patches.drawing import POWERS, allot, spread, weigh
from emcurate.patches.fitting import PAD, fits
from emcurate.patches.listing import Listing, Seen
from emcurate.patches.splits import hold_back

SPLITS = (TRAIN, VAL) = ("train", "val")

# The split of a patch that is not exported.
NOWHERE = -1


@dataclass(frozen=True)
class Drawing:
    """How patches are drawn: at most so many of each dataset, so many in all, by what shares, and how they are split.

    `part` is that of the patches that are trained on; None for one split.
    """

    per_dataset: int | None = None
    budget: int | None = None
    balance: str = "even"
    part: float | None = None
    seed: int = 0


@dataclass
class Choice:
    """What becomes of each patch of a listing.

    Attributes
    ----------
    datasets : list of str
    of_dataset : (n,) int32
        The dataset of each patch, by its place in `datasets`.
    split : (n,) int8
        By its place in `SPLITS`, or `NOWHERE`.
    weight : (n,) float64
        By which patches are to be drawn for datasets to come up as they should, see `choose`; 0 of those not exported.
    reasons : list of str
    reason : (n,) int8
        Why a patch is not exported, by its place in `reasons`; 0, which is empty, of those that are.
    """

    datasets: list[str]
    of_dataset: npt.NDArray[np.int32]
    split: npt.NDArray[np.int8]
    weight: npt.NDArray[np.float64]
    reasons: list[str]
    reason: npt.NDArray[np.int8]

    def members(self, split: int) -> npt.NDArray[np.int64]:
        """Return the rows of a split's patches in the listing, in its order."""
        return np.flatnonzero(self.split == split)

    def leave_out(self, rows: npt.NDArray[np.int64], reason: str) -> None:
        """Note that some patches are not exported, and why."""
        self.split[rows] = NOWHERE
        if len(rows):
            self.reasons.append(reason)
            self.reason[rows] = len(self.reasons) - 1


def find_size(listing: Listing, seen: Seen, size: int | None, fit: str, needs_one: bool) -> int | None:
    """Return the size that patches get, None for their own.

    Raises
    ------
    InputError
        If a patch is larger, and is to be padded.
    """
    largest = np.maximum(seen.heights, seen.widths)
    if size is None:
        return int(largest.max()) if needs_one else None
    too_large = np.flatnonzero(seen.readable & ~fits(seen.heights, seen.widths, size, fit))
    if fit == PAD and len(too_large):
        row = int(too_large[0])
        found = f"{len(too_large):,} larger ones, such as this of {seen.heights[row]} x {seen.widths[row]}"
        advice = "give a larger --size, or --fit resize or skip"
        raise InputError(listing.path(row), f"patches of at most {size} x {size} pixels", found, advice)
    return size


def choose(
    listing: Listing,
    seen: Seen,
    size: int | None,
    fit: str,
    drawing: Drawing,
    leaks: npt.NDArray[np.int64] | None = None,
) -> Choice:
    """Choose the patches to be exported; the rows `leaks` are not.

    Patches are weighed so that the datasets of a split come up by the shares of `Drawing.balance`, whatever has been
    drawn of them. A dataset's size is how many patches it has that can be exported: those that cannot be read, do not
    fit or are leaks do not count, those beyond `per_dataset` or `budget` do. One of which none is drawn has no share.

    Raises
    ------
    InputError
        If none is left, or those that are left are of one dataset and are to be split.
    """
    names = in_one(listing.table["dataset"]).dictionary_encode()
    count, of_dataset = len(listing), as_numbers(names.indices)
    choice = Choice(
        names.dictionary.to_pylist(), of_dataset, np.zeros(count, np.int8), np.zeros(count), [""],
        np.zeros(count, np.int8),
    )  # fmt: skip
    choice.leave_out(np.flatnonzero(~seen.readable), UNREADABLE)
    if size is not None:
        odd = seen.readable & ~fits(seen.heights, seen.widths, size, fit)
        choice.leave_out(np.flatnonzero(odd), f"not {size} x {size} pixels")
    if leaks is not None:
        choice.leave_out(leaks[choice.split[leaks] != NOWHERE], LEAKED)
    sizes = _count(choice)
    if drawing.per_dataset is not None:
        shares = np.minimum(_count(choice), drawing.per_dataset)
        _draw(listing, choice, shares, drawing.seed, f"beyond {drawing.per_dataset:,} of a dataset")
    if drawing.budget is not None:
        shares = allot(_count(choice), drawing.budget, POWERS[drawing.balance])
        _draw(listing, choice, shares, drawing.seed, f"beyond {drawing.budget:,} in all")
    if not (choice.split != NOWHERE).any():
        found = "; ".join(f"{n:,} {why}" for why, n in count_reasons(choice).items())
        raise InputError(listing.paths.directory, "patches that can be exported", f"none but {found}", "change that")
    if drawing.part is not None:
        _split(listing, choice, drawing.part, drawing.seed)
    for split in range(len(SPLITS)):
        members = choice.members(split)
        if len(members):
            counts = np.bincount(of_dataset[members], minlength=len(choice.datasets))
            choice.weight[members] = weigh(counts, sizes, POWERS[drawing.balance])[of_dataset[members]]
    return choice


UNREADABLE = "unreadable"
LEAKED = "near-duplicates of the other set's"


def count_reasons(choice: Choice) -> dict[str, int]:
    """Return how many patches are not exported for each reason."""
    numbers = np.bincount(choice.reason, minlength=len(choice.reasons)).tolist()
    return dict(zip(choice.reasons[1:], numbers[1:], strict=True))


def _count(choice: Choice) -> npt.NDArray[np.int64]:
    return np.bincount(choice.of_dataset[choice.split != NOWHERE], minlength=len(choice.datasets))


def _draw(listing: Listing, choice: Choice, shares: npt.NDArray[np.int64], seed: int, reason: str) -> None:
    """Leave out all but so many patches of each dataset, those that are left spread over it."""
    left = np.flatnonzero(choice.split != NOWHERE)
    left = left[np.argsort(choice.of_dataset[left], kind="stable")]
    ends = np.cumsum(_count(choice))
    dropped = []
    for dataset, (share, members) in enumerate(zip(shares.tolist(), np.split(left, ends[:-1]), strict=True)):
        if share < len(members):
            some = listing.table.take(as_column(members, pa.int64()))
            taken = spread(*_places(some), share, seed, choice.datasets[dataset])
            dropped.append(np.delete(members, taken))
    choice.leave_out(np.sort(np.concatenate(dropped)) if dropped else np.zeros(0, np.int64), reason)


def _places(rows: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the stratum of each patch of a dataset, its plane or its image, and its place in it."""
    plane, index, y, x = (_numbers(rows, name) for name in ("plane", "index", "y", "x"))
    if (plane >= 0).any():
        return plane, np.stack([index, y, x], axis=1)
    images = in_one(pc.replace_substring_regex(rows["patch"], r"_\d+_\d+$", "")).dictionary_encode()
    rank = as_numbers(pc.sort_indices(pc.sort_indices(images.dictionary))).astype(np.int64)
    return rank[as_numbers(images.indices)], np.stack([y, x], axis=1)


def _numbers(rows: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return as_numbers(pc.fill_null(in_one(rows[name]).cast(pa.int64()), -1))


def _split(listing: Listing, choice: Choice, part: float, seed: int) -> None:
    """Hold datasets back for validation, whole."""
    counts = _count(choice)
    there = np.flatnonzero(counts)
    held = hold_back(counts[there][:, None], 1 - part, seed)
    if held is None:
        found = f"patches of {choice.datasets[int(there[0])]} only"
        advice = "export without --split: parts of one dataset are nearly the same"
        raise InputError(listing.paths.directory, "two datasets at least, for --split", found, advice)
    is_held = np.isin(choice.of_dataset, there[held]) & (choice.split != NOWHERE)
    choice.split[is_held] = SPLITS.index(VAL)
