"""A labelling session: the patches in the order and selection wanted, page by page, with labels, undo and counts.

Everything the widget does is done here, so that it can be used and tested without a browser.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from emcurate.errors import InputError
from emcurate.labeling.agreement import Agreement, compare_annotators, find_disagreements
from emcurate.labeling.layout import Room, fit_grid
from emcurate.labeling.order import (
    IntArray,
    number_datasets,
    order_as_they_came,
    order_by_dataset,
    order_by_rank,
    order_by_similarity,
    order_by_uncertainty,
    order_randomly,
)
from emcurate.labeling.ranks import read_ranks
from emcurate.labeling.scores import read_scores
from emcurate.labeling.similarity import FloatArray, describe_patches
from emcurate.labeling.store import CodeArray, LabelStore
from emcurate.labeling.surroundings import Scene, Surroundings
from emcurate.labeling.tiles import Tile, TileReader
from emcurate.labeling.view import View, check_view, restore_view
from emcurate.patches.labels import CODE_INFORMATIVE, CODE_NONE, CODE_UNINFORMATIVE, LABELS, is_decided
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import read_patch, refuse_moved

# Of longer lists the order by similarity, for which every patch is read, is left to be asked for again.
LOOKED_AT_WHEN_OPENED = 20_000


class Session:
    """One annotator's labelling of one path list.

    Parameters
    ----------
    fpaths : Path
        The path list.
    labels : Path
        The label file, made if it is not there.
    annotator : str
        Who labels; by default the login and the machine, as ``sara@em-lab-3``.
    scores : Path, optional
        A model's scores, ``nn_scores.npy``, or the directory of filtered/classify_nn.py that holds them.
    diverse : Path, optional
        The ranks of a selection, ``diverse_decisions.parquet``, or the directory of filtered/select_diverse.py that
        holds them: the order in which all structures take turns.
    order : str, optional
        One of `view.ORDERS`; by default the last session's, or by those ranks, or random.
    seed : int
        Of the random orders.
    own_labels_only : bool
        Hide what others said, so that agreement is measured on judgements made independently.
    threshold : float, optional
        Scores above it mean informative; by default as filtered/classify_nn.py noted.
    sources : Path, optional
        Where sections or volumes lie now, for a look at what is around a patch; as `Surroundings`.
    reroot : (old, new), optional
        As `PathList`.

    Raises
    ------
    InputError
        If the path list, labels or scores cannot be used or do not belong together.
    """

    def __init__(
        self,
        fpaths: Path,
        labels: Path,
        *,
        annotator: str = "",
        scores: Path | None = None,
        diverse: Path | None = None,
        order: str | None = None,
        seed: int = 0,
        own_labels_only: bool = False,
        threshold: float | None = None,
        sources: Path | None = None,
        reroot: tuple[str, str] | None = None,
    ) -> None:
        self.paths = PathList(fpaths, reroot)
        if not len(self.paths):
            raise InputError(fpaths, "a list of at least one path", "an empty list", "run the stage before again")
        refuse_moved(self.paths, fpaths, lambda old, new: f"reroot=({old!r}, {new!r})")
        self.seed = seed
        self.own_labels_only = own_labels_only
        self.scores = None if scores is None else read_scores(scores, self.paths, threshold)
        self.ranks = None if diverse is None else read_ranks(diverse, self.paths.chunks())
        self.store = LabelStore(labels, self.paths, annotator)
        self.datasets, self.dataset_names = number_datasets(self.paths.chunks())
        self.tiles = TileReader()
        self.surroundings = Surroundings(sources)
        self.tell: Callable[[int, int], None] = lambda done, total: None  # how far a long piece of work is
        self.room: Room | None = None
        self._orders: dict[str, IntArray] = {}
        self._looks: FloatArray | None = None
        kept = self.store.views()
        quick = len(self.paths) <= LOOKED_AT_WHEN_OPENED
        self.view = restore_view(kept, scored=self.scores is not None, quick=quick, ranked=self.ranks is not None)
        if order is not None:
            self.view = self._check(replace(self.view, order=order))
        self.size = self.view.size  # of a tile as drawn, in CSS pixels
        self.page = 0
        self.cursor = -1
        self._select()
        self._resume(kept.get("cursor"))

    # -- what is shown ------------------------------------------------------------------------------------------

    @property
    def labels(self) -> CodeArray:
        """The labels shown, as codes, (n,) uint8: the file's, or the annotator's own."""
        return self.store.own if self.own_labels_only else self.store.codes

    @property
    def page_size(self) -> int:
        """The number of patches of a full page."""
        return self.view.rows * self.view.columns

    @property
    def page_count(self) -> int:
        """The number of pages, at least one."""
        return max(-(-len(self.selected) // self.page_size), 1)

    def page_indices(self, page: int | None = None) -> list[int]:
        """Return the places in the path list of a page's patches; by default of the page shown."""
        start = (self.page if page is None else page) * self.page_size
        return [int(i) for i in self.selected[start : start + self.page_size]]

    def page_tiles(self) -> list[Tile]:
        """Read the patches of the page shown, and begin with those of the next."""
        tiles = self.tiles.read([self.paths[i] for i in self.page_indices()])
        if self.page + 1 < self.page_count:
            self.tiles.prefetch([self.paths[i] for i in self.page_indices(self.page + 1)])
        return tiles

    def turn(self, page: int) -> None:
        """Go to a page; before the first is the first, after the last is the last."""
        self.page = min(max(page, 0), self.page_count - 1)
        indices = self.page_indices()
        self.cursor = indices[0] if indices else -1
        self.save_view()

    def go_to(self, index: int) -> bool:
        """Go to the page of a patch; return whether it is among those selected."""
        places = np.flatnonzero(self.selected == index)
        if not places.size:
            return False
        self.page = int(places[0]) // self.page_size
        self.cursor = index
        return True

    def go_to_next_unlabelled(self) -> bool:
        """Go to the next patch without a label, round past the end; return whether there is one that can be read."""
        places = np.flatnonzero(self.labels[self.selected] == CODE_NONE)
        here = np.flatnonzero(self.selected == self.cursor)
        after = int(np.searchsorted(places, here[0], side="right")) if here.size else 0
        for place in np.roll(places, -after).tolist():
            index = int(self.selected[place])
            if index != self.cursor and self._is_readable(index):
                self.page, self.cursor = place // self.page_size, index
                self.save_view()
                return True
        return False

    def arrange(self, **changes: Any) -> None:
        """Change the `View`; the patch at the cursor stays in sight if it still belongs."""
        if {"rows", "columns"} & changes.keys():
            changes.setdefault("fit", False)
        previous = self.view
        self.view = self._check(replace(previous, **changes))
        try:
            # Selecting afresh also when nothing has changed lets labelled patches leave a list of unlabelled ones.
            if {"label", "dataset", "disagreement", "order"} & changes.keys():
                self._select()
        except BaseException:
            self.view = previous  # an order that could not be had
            raise
        self._fit()
        if previous.order != self.view.order or not self.go_to(self.cursor):
            self._go_to_first_unlabelled()
        self.save_view()

    def fit(self, room: Room) -> None:
        """Make pages as large as a window has room for, if the view says so; the patch at the cursor stays in sight."""
        self.room = room
        self._fit()
        if not self.go_to(self.cursor):
            self._go_to_first_unlabelled()

    def save_view(self) -> None:
        """Keep the view and the cursor for the next session."""
        cursor = self.store.names[self.cursor] if self.cursor >= 0 else ""
        self.store.save_view({**asdict(self.view), "cursor": cursor})

    # -- labels -------------------------------------------------------------------------------------------------

    def label(self, indices: Sequence[int], label: str) -> list[int]:
        """Give patches a label; return those that had another. One that cannot be read only takes ``none``."""
        code = LABELS.index(label)
        chosen = [index for index in indices if code == CODE_NONE or self._is_readable(index)]
        if self.own_labels_only:
            # Taking away a label nobody sees would take away somebody else's.
            chosen = [index for index in chosen if self.store.own[index] != code]
        return self.store.set_labels(chosen, [code] * len(chosen))

    def toggle(self, indices: Sequence[int]) -> list[int]:
        """Make informative patches uninformative, and all others informative."""
        chosen = [index for index in indices if self._is_readable(index)]
        codes = [CODE_UNINFORMATIVE if self.labels[index] == CODE_INFORMATIVE else CODE_INFORMATIVE for index in chosen]
        return self.store.set_labels(chosen, codes)

    def label_rest(self, label: str, seen: Collection[int] | None = None) -> list[int]:
        """Give a label to all patches of the page, or of those seen, that have none; return them."""
        return self.label(self._without_label(seen), label)

    def accept(self, seen: Collection[int] | None = None) -> list[int]:
        """Give all patches of the page, or of those seen, that have no label the one a model gives; return them."""
        if self.scores is None:
            raise InputError("SCORES", "scores of a model", "none", "name the nn_scores.npy of filtered/classify_nn.py")
        known, codes = self.scores.known(), self.scores.codes()
        chosen = [index for index in self._without_label(seen) if known[index] and self._is_readable(index)]
        return self.store.set_labels(chosen, [int(codes[index]) for index in chosen])

    def undo(self) -> list[int]:
        """Take the last action back and go to where it was made; return the patches it had changed."""
        changed = self.store.undo()
        if changed and not set(changed) & set(self.page_indices()):
            self.go_to(changed[0])
        if changed:
            self.cursor = changed[0]
        return changed

    # -- what is around a patch ---------------------------------------------------------------------------------

    def surroundings_missing(self, index: int) -> str:
        """Return why a patch's surroundings cannot be shown, or nothing if they seem to be there."""
        tile = self.tiles.read([self.paths[index]])[0]
        shape = (tile.pixels.shape[0] * tile.reduction, tile.pixels.shape[1] * tile.reduction)
        return tile.problem or self.surroundings.missing(self.paths[index], shape)

    def show_surroundings(self, index: int) -> Scene:
        """Return what is around a patch; raises `InputError` where that cannot be had."""
        return self.surroundings.read(self.paths[index], read_patch(self.paths[index]))

    # -- progress -----------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Return the number of patches of each label."""
        numbers = np.bincount(self.labels, minlength=len(LABELS))
        return dict(zip(LABELS, numbers.tolist(), strict=True))

    def dataset_counts(self) -> npt.NDArray[np.int64]:
        """Return the number of patches of each dataset (row) and label (column, as `LABELS`)."""
        cells = self.datasets * np.int32(len(LABELS)) + self.labels
        numbers = np.bincount(cells, minlength=len(self.dataset_names) * len(LABELS))
        return numbers.reshape(-1, len(LABELS)).astype(np.int64)

    def said(self, index: int) -> dict[str, str]:
        """Return who gave a patch which label, by name; who took a label away again has said nothing."""
        return self.store.said(index)

    def agreement(self) -> list[Agreement]:
        """Return how far each pair of annotators agrees."""
        return compare_annotators(self.store.annotations())

    # -- below --------------------------------------------------------------------------------------------------

    def _check(self, view: View) -> View:
        return check_view(view, scored=self.scores is not None, ranked=self.ranks is not None)

    def _is_readable(self, index: int) -> bool:
        return not self.tiles.read([self.paths[index]])[0].problem

    def _without_label(self, seen: Collection[int] | None) -> list[int]:
        wanted = self.page_indices() if seen is None else [index for index in self.page_indices() if index in set(seen)]
        return [index for index in wanted if self.labels[index] == CODE_NONE]

    def _fit(self) -> None:
        self.size = self.view.size
        if self.view.fit and self.room is not None:
            rows, columns, self.size = fit_grid(self.room, self.view.size)
            self.view = replace(self.view, rows=rows, columns=columns)

    def _order(self) -> IntArray:
        name = self.view.order
        if name not in self._orders:
            ways = {"dataset": self._order_by_turns, "similar": self._order_by_looks}
            if name == "diverse" and self.ranks is not None:
                order = order_by_rank(self.ranks)
            elif name == "uncertain" and self.scores is not None:
                order = order_by_uncertainty(self.scores.values, self.scores.threshold)
            else:
                order = order_as_they_came(self.store.listed, ways.get(name, self._shuffle))
            # One at a time: each takes 40 MB for five million patches.
            self._orders = {name: order}
        return self._orders[name]

    def _shuffle(self, places: IntArray) -> IntArray:
        return order_randomly(len(places), self.seed)

    def _order_by_looks(self, places: IntArray) -> IntArray:
        if self._looks is None:
            self._looks = describe_patches(self.paths, self.tell)
        # Patches that are no longer in the list look like nothing.
        return order_by_similarity(np.where(places[:, None] < 0, np.float32(np.nan), self._looks[places]))

    def _order_by_turns(self, places: IntArray) -> IntArray:
        datasets = np.where(places < 0, np.int32(-1), self.datasets[places])
        # Numbered as they come, so that the numbers do not hang on what else is in the list.
        listed = datasets >= 0
        datasets[listed] = pd.factorize(datasets[listed])[0]
        return order_by_dataset(datasets, self.seed)

    def _select(self) -> None:
        order, view = self._order(), self.view
        chosen = np.ones(len(order), bool)
        if view.label:
            chosen &= self.labels == LABELS.index(view.label)
        if view.dataset:
            chosen &= np.isin(self.datasets, self._matching_datasets(view.dataset))
        if view.disagreement == "model" and self.scores is not None:
            chosen &= is_decided(self.labels) & self.scores.known() & (self.scores.codes() != self.labels)
        if view.disagreement == "annotators":
            disputed = np.zeros(len(order), bool)
            disputed[find_disagreements(self.store.annotations())] = True
            chosen &= disputed
        self.selected: IntArray = order if chosen.all() else order[chosen[order]]

    def _matching_datasets(self, text: str) -> list[int]:
        if text in self.dataset_names:
            return [self.dataset_names.index(text)]
        return [i for i, name in enumerate(self.dataset_names) if text.casefold() in name.casefold()]

    def _resume(self, cursor: object) -> None:
        places = self.store.names.find(cursor) if isinstance(cursor, str) else []
        if isinstance(cursor, int) and self.store.is_same_list:  # a place in the list, as version 0.1 kept it
            places = [cursor]
        if not places or not self.go_to(places[0]):
            self._go_to_first_unlabelled()

    def _go_to_first_unlabelled(self) -> None:
        unlabelled = self.labels[self.selected] == CODE_NONE
        place = int(np.argmax(unlabelled)) if unlabelled.any() else 0
        self.page = place // self.page_size
        self.cursor = int(self.selected[place]) if len(self.selected) else -1
