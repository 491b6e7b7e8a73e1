"""What the table of all patches says in numbers: a summary of a whole run, made piece by piece, whatever its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate.errors import InputError
from emcurate.naming import MARK
from emcurate.patches.columns import as_column, as_numbers, as_scalar, count_rows, in_one
from emcurate.patches.joined import DUPLICATE, INFORMATIVE, PASSED_OVER, SELECTED, UNINFORMATIVE
from emcurate.patches.leaks import BANDS
from emcurate.patches.parquet import open_parquet

# Bars of the histograms of scores, 0 to 1, and of mean grey values, 0 to 255.
SCORE_BARS = 40
GREY_BARS = 32

# Patches that are shown of those that the classifier is surest of, on each side, and of those it is least sure of.
SHOWN_BY_SCORE = 12

# Groups named, the largest, of each dataset and of all.
LARGEST_GROUPS = 12

# Names kept of each outcome of a dataset, from which pictures are chosen.
NAMES_KEPT = 32

# Sources, pixel sizes and steps named of a dataset.
SOURCES_KEPT = 12

# Reasons told apart; of all that have a number in them, such as a score, the words count.
REASONS_AT_MOST = 40

# The score at which the classifier knows least.
UNDECIDED = 0.5

COLUMNS = (
    *("patch", "dataset", "kind", "plane", "index", "height", "width", "pixel_size_y_nm", "pixel_size_x_nm", "step_nm"),
    *("source", "lo", "hi", "exemplar", "distance", "score", "kept", "outcome", "why"),
)


class Thinned:
    """Some of many names, evenly spread over all of them in their order, however many come."""

    def __init__(self, most: int = NAMES_KEPT) -> None:
        self._most, self._step, self._seen = most, 1, 0
        self._kept: list[str] = []

    def add(self, names: pa.Array) -> None:
        """Take more names."""
        first = -self._seen % self._step
        places = np.arange(first, len(names), self._step)
        self._kept += names.take(as_column(places, pa.int64())).to_pylist()
        self._seen += len(names)
        while len(self._kept) > 2 * self._most:
            self._kept, self._step = self._kept[::2], 2 * self._step

    def take(self, count: int) -> list[str]:
        """Return so many of them at most, evenly spread."""
        if len(self._kept) <= count:
            return list(self._kept)
        places = np.linspace(0, len(self._kept) - 1, count).round().astype(int)
        return [self._kept[place] for place in places]


@dataclass
class Dataset:
    """What is known of one dataset.

    Attributes
    ----------
    name, kind : str
        The kind is 2d, volume or video; empty where no table says.
    sources : set of str
        The files or addresses that it was made of, a few of them.
    sections, patches : int
    outcomes : Counter
        Patches by what became of them.
    pixel_sizes_nm : set of (y, x)
        Those that occur, a few of them; empty where unknown.
    limits : (lo, hi) or None
        The values of the source that became black and white, the least and the greatest of all its sections.
    names : dict of str to Thinned
        Some patches of each outcome.
    leaks : (len(BANDS) + 1,) int64
        Its near-duplicates of another set by their distance, as `emcurate.patches.leaks.BANDS` divides it.
    """

    name: str
    kind: str = ""
    sources: set[str] = field(default_factory=set)
    sections: int = 0
    patches: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    pixel_sizes_nm: set[tuple[float, float]] = field(default_factory=set)
    steps_nm: set[float] = field(default_factory=set)
    limits: tuple[float, float] | None = None
    names: dict[str, Thinned] = field(default_factory=dict)
    leaks: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(BANDS) + 1, np.int64))


@dataclass
class Summary:
    """What is known of a run's patches.

    Attributes
    ----------
    datasets : dict of str to Dataset
        In the order of their names.
    reasons : Counter
        Patches by (outcome, why).
    distances : (bits + 1,) int64
        Duplicates by their distance from their exemplar in bits.
    scores : (SCORE_BARS,) int64, greys : (GREY_BARS,) int64
        Patches by score and by mean grey value; zeros where there are none.
    groups : list of (str, int)
        The largest groups: the exemplar, and how many patches are in it, itself included.
    selected_informative : int
        Those of the patches that a selection has seen that were found informative before.
    surest, doubtful : list of (str, float)
        Patches with their scores: the highest and the lowest by turns first to last; and those nearest to one half.
    """

    datasets: dict[str, Dataset] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    distances: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    scores: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BARS, np.int64))
    greys: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(GREY_BARS, np.int64))
    groups: list[tuple[str, int]] = field(default_factory=list)
    selected_informative: int = 0
    highest: list[tuple[str, float]] = field(default_factory=list)
    lowest: list[tuple[str, float]] = field(default_factory=list)
    doubtful: list[tuple[str, float]] = field(default_factory=list)

    @property
    def outcomes(self) -> Counter[str]:
        """Patches of all datasets by what became of them."""
        return sum((dataset.outcomes for dataset in self.datasets.values()), Counter())

    def list_leaks(self) -> list[tuple[str, list[int]]]:
        """Return the datasets that have leaks, with how many are in each of `name_bands`."""
        return [(name, dataset.leaks.tolist()) for name, dataset in self.datasets.items() if dataset.leaks.any()]

    @property
    def informative(self) -> int:
        """How many patches were found informative, whether or not a selection has taken them."""
        return self.outcomes[INFORMATIVE] + self.selected_informative

    @property
    def patches(self) -> int:
        """How many patches there are in all."""
        return sum(dataset.patches for dataset in self.datasets.values())

    @property
    def sections(self) -> int:
        """How many sections they were cut from."""
        return sum(dataset.sections for dataset in self.datasets.values())


def summarize(table: Path) -> Summary:
    """Summarize a table of all patches, as `emcurate.patches.joined.write_joined` writes it, row group by row group.

    Raises
    ------
    InputError
        If it is damaged.
    """
    summary = Summary()
    sections: dict[str, set[Any]] = {}
    sizes: dict[str, Counter[str]] = {}
    strangers: Counter[str] = Counter()
    for rows in _read_pieces(table):
        for name, some in _by_dataset(rows):
            dataset = summary.datasets.setdefault(name, Dataset(name))
            _describe(dataset, some, sections.setdefault(name, set()))
            _count_groups(sizes.setdefault(name, Counter()), strangers, some, name)
            _count_leaks(dataset, some)
        _count_reasons(summary, rows)
        _count_numbers(summary, rows)
        _rank_by_score(summary, rows)
    for name, dataset in summary.datasets.items():
        dataset.sections = len(sections[name])
    for exemplar, count in strangers.items():
        sizes.setdefault(exemplar.partition(MARK)[0], Counter())[exemplar] += count
    largest = (pair for each in sizes.values() for pair in each.most_common(LARGEST_GROUPS))
    summary.groups = sorted(((name, size + 1) for name, size in largest), key=lambda pair: (-pair[1], pair[0]))
    del summary.groups[LARGEST_GROUPS:]
    return summary


def _read_pieces(table: Path) -> Iterator[pa.Table]:
    """Yield the columns that are summarized, row group by row group."""
    try:
        with open_parquet(table) as parquet:
            there = parquet.schema_arrow.names
            columns = [name for name in (*COLUMNS, "mean", "leak_distance") if name in there]
            for group in range(parquet.num_row_groups):
                yield parquet.read_row_group(group, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise InputError(table, "the table of all patches", f"{error}", "run curate.py again") from None


def _by_dataset(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each dataset, which lie together."""
    encoded = in_one(rows["dataset"]).dictionary_encode()
    for code, name in enumerate(encoded.dictionary.to_pylist()):
        yield name or "", rows.filter(pc.equal(encoded.indices, as_scalar(code)))


def _describe(dataset: Dataset, rows: pa.Table, sections: set[Any]) -> None:
    dataset.patches += len(rows)
    dataset.kind = dataset.kind or next(iter(pc.unique(in_one(rows["kind"])).drop_null().to_pylist()), "")
    for source in pc.unique(in_one(rows["source"])).drop_null().to_pylist():
        if len(dataset.sources) < SOURCES_KEPT:
            dataset.sources.add(source)
    names = in_one(rows["patch"])
    sections.update(pc.unique(pc.replace_substring_regex(names, r"_[0-9]+_[0-9]+$", "")).to_pylist())
    outcomes = in_one(rows["outcome"]).dictionary_encode()
    for code, outcome in enumerate(outcomes.dictionary.to_pylist()):
        some = names.filter(pc.equal(outcomes.indices, as_scalar(code)))
        dataset.outcomes[outcome] += len(some)
        dataset.names.setdefault(outcome, Thinned()).add(some)
    for (y, x), _ in count_rows(rows, ["pixel_size_y_nm", "pixel_size_x_nm"]):
        if y is not None and x is not None and len(dataset.pixel_sizes_nm) < SOURCES_KEPT:
            dataset.pixel_sizes_nm.add((y, x))
    dataset.steps_nm.update(pc.unique(in_one(rows["step_nm"])).drop_null().to_pylist()[:SOURCES_KEPT])
    low, high = pc.min(rows["lo"]).as_py(), pc.max(rows["hi"]).as_py()
    if low is not None and high is not None:
        before = dataset.limits or (low, high)
        dataset.limits = min(low, before[0]), max(high, before[1])


def _count_groups(sizes: Counter[str], strangers: Counter[str], rows: pa.Table, dataset: str) -> None:
    """Count the duplicates of each exemplar, those of exemplars of other datasets, the strangers, apart."""
    duplicates = rows.filter(pc.equal(rows["outcome"], as_scalar(DUPLICATE)))
    counted = pc.value_counts(in_one(duplicates["exemplar"]))
    for each in counted:
        exemplar = each["values"].as_py()
        of_this = exemplar is None or exemplar.startswith(f"{dataset}{MARK}")
        (sizes if of_this else strangers)[exemplar] += each["counts"].as_py()


def _count_leaks(dataset: Dataset, rows: pa.Table) -> None:
    if "leak_distance" in rows.column_names:
        bands = np.searchsorted(BANDS, as_numbers(rows["leak_distance"].drop_null()))
        dataset.leaks += np.bincount(bands, minlength=len(dataset.leaks))


def _count_reasons(summary: Summary, rows: pa.Table) -> None:
    # A score or a distance in a reason makes each of them another: the words alone are counted.
    words = pc.replace_substring_regex(in_one(rows["why"]), r"(^|[ (])-?[0-9][0-9.]*(e-?[0-9]+)?", r"\1#")
    for (outcome, why), count in count_rows(pa.table({"outcome": rows["outcome"], "why": words}), ["outcome", "why"]):
        key = (outcome, why) if len(summary.reasons) < REASONS_AT_MOST else (outcome, "other reasons")
        summary.reasons[key] += count


def _count_numbers(summary: Summary, rows: pa.Table) -> None:
    if "kept" in rows.column_names:
        seen = pc.is_in(rows["outcome"], as_column([SELECTED, PASSED_OVER], pa.string()))
        is_kept = pc.coalesce(rows["kept"], as_scalar(False))
        summary.selected_informative += pc.sum(pc.and_(seen, is_kept)).as_py() or 0
    distances = as_numbers(rows.filter(pc.equal(rows["outcome"], as_scalar(DUPLICATE)))["distance"].drop_null())
    counts = np.bincount(distances) if len(distances) else np.zeros(1, np.int64)
    length = max(len(counts), len(summary.distances))
    summary.distances = _longer(summary.distances, length) + _longer(counts, length)
    summary.scores = summary.scores + _histogram(rows["score"], SCORE_BARS, 1.0)
    if "mean" in rows.column_names:
        summary.greys = summary.greys + _histogram(rows["mean"], GREY_BARS, 255.0)


def _longer(counts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    return np.pad(counts, (0, length - len(counts)))


def _histogram(column: pa.ChunkedArray, bars: int, highest: float) -> npt.NDArray[np.int64]:
    return np.histogram(as_numbers(column.drop_null()), bars, (0.0, highest))[0]


def _rank_by_score(summary: Summary, rows: pa.Table) -> None:
    judged = rows.filter(pc.and_(pc.is_valid(rows["score"]), pc.is_in(rows["outcome"], as_column(JUDGED, pa.string()))))
    if not len(judged):
        return
    doubt = pc.abs(pc.subtract(judged["score"].cast(pa.float64()), as_scalar(UNDECIDED)))
    judged = judged.select(["patch", "score"]).append_column("doubt", doubt)
    summary.highest = _first(summary.highest, judged, "score", "descending")
    summary.lowest = _first(summary.lowest, judged, "score", "ascending")
    summary.doubtful = _first(summary.doubtful, judged, "doubt", "ascending")


JUDGED = (INFORMATIVE, UNINFORMATIVE, SELECTED, PASSED_OVER)


def _first(before: Sequence[tuple[str, float]], rows: pa.Table, by: str, order: str) -> list[tuple[str, float]]:
    """Return the first of some patches, those from before and rows, in an order; of equals the first name."""
    chosen = rows.take(pc.select_k_unstable(rows, SHOWN_BY_SCORE, [(by, order), ("patch", "ascending")]))
    both = [*before, *zip(chosen["patch"].to_pylist(), chosen["score"].to_pylist(), strict=True)]
    sign = -1 if order == "descending" else 1

    def place(pair: tuple[str, float]) -> tuple[float, str]:
        return sign * (abs(pair[1] - UNDECIDED) if by == "doubt" else pair[1]), pair[0]

    return sorted(both, key=place)[:SHOWN_BY_SCORE]
