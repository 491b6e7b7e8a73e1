"""What a selection comes to: counts by dataset, and pictures of clusters and of near-duplicates, to judge it by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate.contents import csv_bytes
from emcurate.patches.reading import read_patch
from emcurate.pictures.contact_sheets import DROPPED, KEPT, Group, Mark, Tile, encode_contact_sheet

# Clusters that are shown, evenly spread over all by their sizes, and patches of each.
CLUSTERS_SHOWN, KEPT_SHOWN, DROPPED_SHOWN = 16, 4, 4
TILE_PIXELS = 112

# Pairs that are shown of near-duplicates, those that are least so.
PAIRS_SHOWN = 24

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """What was made of n patches.

    Attributes
    ----------
    paths : sequence of n str
    datasets : (n,) int32
        The dataset of each patch, by its place in `names`.
    names : list of str
    cluster : (n,) int32
        -1 of patches without features.
    ranks : (n,) int64
        -1 of patches that are not put in order.
    budget : int
        Patches of a lower rank are selected.
    like : (n,) int64
        The row of the patch that a near-duplicate is like; -1 of others.
    cosines : (n,) float32
    """

    paths: Sequence[str]
    datasets: npt.NDArray[np.int32]
    names: list[str]
    cluster: npt.NDArray[np.int32]
    ranks: Rows
    budget: int
    like: Rows
    cosines: npt.NDArray[np.float32]

    @property
    def selected(self) -> npt.NDArray[np.bool_]:
        """Which patches are selected, (n,) bool."""
        return (self.ranks >= 0) & (self.ranks < self.budget)


def count_table(made: Selection) -> bytes:
    """Return a csv of each dataset's counts, and its share of the patches before and after."""
    count = len(made.names)
    columns = [
        np.bincount(made.datasets[mask], minlength=count)
        for mask in (np.ones(len(made.ranks), bool), made.like >= 0, made.cluster < 0, made.selected)
    ]
    patches, selected = columns[0], columns[-1]
    before, after = patches / max(1, patches.sum()), selected / max(1, selected.sum())
    header = ["dataset", "patches", "near_duplicates", "without_features", "selected", "share_before", "share_after"]
    rows = [
        [made.names[at], *(int(column[at]) for column in columns), f"{before[at]:.4f}", f"{after[at]:.4f}"]
        for at in sorted(range(count), key=made.names.__getitem__)
    ]
    return csv_bytes(header, rows)


def describe_shares(made: Selection) -> str:
    """Return in words how the share of the largest dataset has changed."""
    patches = np.bincount(made.datasets, minlength=len(made.names))
    selected = np.bincount(made.datasets[made.selected], minlength=len(made.names))
    largest = int(patches.argmax())
    before, after = patches[largest] / patches.sum(), selected[largest] / max(1, selected.sum())
    there = int((selected > 0).sum())
    return (
        f"{there:,} of {len(made.names):,} datasets are among those selected; {made.names[largest]}, the largest, was "
        f"{before:.1%} of all patches and is {after:.1%} of these"
    )


def draw_clusters(made: Selection) -> bytes:
    """Return a contact sheet of some clusters, large and small, each with patches that were selected and others."""
    sizes = np.bincount(made.cluster[made.cluster >= 0])
    by_size = np.argsort(-sizes, kind="stable")
    by_size = by_size[: max(1, int((sizes > 1).sum()))]
    shown = by_size[np.unique(np.linspace(0, len(by_size) - 1, min(len(by_size), CLUSTERS_SHOWN)).round().astype(int))]
    selected, groups = made.selected, []
    for cluster in shown.tolist():
        rows = np.flatnonzero(made.cluster == cluster)
        kept = rows[selected[rows]]
        kept = kept[np.argsort(made.ranks[kept], kind="stable")]
        left = rows[~selected[rows]]
        tiles = [_tile(made, row, KEPT) for row in _some(kept, KEPT_SHOWN)]
        tiles += [_tile(made, row, DROPPED) for row in _some(left, DROPPED_SHOWN)]
        datasets = np.unique(made.datasets[rows])
        of = made.names[int(datasets[0])] if len(datasets) == 1 else f"{len(datasets)} datasets"
        groups.append(Group(f"Cluster {cluster}: {len(kept):,} of {len(rows):,} patches selected, of {of}", tiles))
    title = f"{len(shown)} of {len(sizes):,} clusters, by size: {int(selected.sum()):,} patches selected"
    columns = KEPT_SHOWN + DROPPED_SHOWN
    return encode_contact_sheet(title, groups, columns=columns, tile_pixels=TILE_PIXELS, read=read_patch)


def draw_pairs(made: Selection) -> bytes:
    """Return a contact sheet of the near-duplicates that are least so, each beside the patch that stays."""
    near = np.flatnonzero(made.like >= 0)
    least = near[np.argsort(made.cosines[near], kind="stable")][:PAIRS_SHOWN]
    tiles = []
    for row in least.tolist():
        tiles.append(Tile(Path(made.paths[int(made.like[row])]), "stays", KEPT))
        tiles.append(_tile(made, row, DROPPED, f"cosine {made.cosines[row]:.4f}"))
    group = Group("By pairs: one that stays, and one that is left out for it", tiles)
    title = f"Near-duplicates that are least so: {len(least)} of {len(near):,}"
    return encode_contact_sheet(title, [group], tile_pixels=TILE_PIXELS, read=read_patch)


def _some(rows: Rows, count: int) -> list[int]:
    places = np.linspace(0, len(rows) - 1, min(len(rows), count)).round().astype(int)
    return [int(rows[place]) for place in np.unique(places)]


def _tile(made: Selection, row: int, mark: Mark, words: str = "") -> Tile:
    path = Path(made.paths[row])
    rank = f"rank {made.ranks[row]:,}" if made.ranks[row] >= 0 else "near-duplicate"
    return Tile(path, f"{words or rank}\n{path.stem}", mark)
