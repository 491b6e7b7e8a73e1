"""A labelling session: the patches in the order and selection wanted, page by page, with labels, undo and counts.

Everything the widget does is done here, so that it can be used and tested without a browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from emcurate.errors import InputError
from emcurate.files import read_npy
from emcurate.labeling.agreement import Agreement, compare_annotators, find_disagreements
from emcurate.labeling.order import (
    IntArray,
    number_datasets,
    order_as_they_came,
    order_by_dataset,
    order_by_uncertainty,
    order_randomly,
)
from emcurate.labeling.store import CodeArray, LabelStore
from emcurate.labeling.tiles import Tile, TileReader
from emcurate.patches.labels import CODE_INFORMATIVE, CODE_NONE, CODE_UNINFORMATIVE, LABELS, is_decided
from emcurate.patches.pathlists import PathList

ORDERS = ("random", "dataset", "uncertain")
DISAGREEMENTS = ("", "model", "annotators")

# A probability above which a model calls a patch informative, as filtered/classify_nn.py does.
THRESHOLD = 0.5

# Grid sides and tile sizes (CSS pixels) a screen can show; 224 draws an ordinary patch pixel for pixel.
GRID_SIDES = (1, 12)
TILE_SIZES = (64, 640)


@dataclass(frozen=True)
class View:
    """Which patches are shown, in which order, and how large.

    Attributes
    ----------
    order : str
        ``random``, ``dataset`` (datasets take turns) or ``uncertain`` (by a model's scores).
    label : str
        Only patches of this label, or all.
    dataset : str
        Only this dataset or, if there is none of the name, those whose name holds it; or all.
    disagreement : str
        Only patches on which ``model`` and label, or the ``annotators``, disagree; or all.
    rows, columns : int
        The grid of a page.
    size : int
        Side of a tile in CSS pixels.
    stretch : bool
        Whether each patch is drawn with its contrast stretched.
    """

    order: str = "random"
    label: str = ""
    dataset: str = ""
    disagreement: str = ""
    rows: int = 3
    columns: int = 4
    size: int = 224
    stretch: bool = False


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
        A model's scores, ``nn_scores.npy``: (n,) probabilities of being informative, NaN where there is none.
    order : str, optional
        One of `ORDERS`; by default the last session's, or random.
    seed : int
        Of the random orders.
    own_labels_only : bool
        Hide what others said, so that agreement is measured on judgements made independently.
    threshold : float
        Scores above it mean informative.
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
        order: str | None = None,
        seed: int = 0,
        own_labels_only: bool = False,
        threshold: float = THRESHOLD,
        reroot: tuple[str, str] | None = None,
    ) -> None:
        self.paths = PathList(fpaths, reroot)
        if not len(self.paths):
            raise InputError(fpaths, "a list of at least one path", "an empty list", "run the stage before again")
        self.seed = seed
        self.threshold = threshold
        self.own_labels_only = own_labels_only
        self.scores = None if scores is None else _read_scores(scores, len(self.paths))
        self.store = LabelStore(labels, self.paths, annotator)
        self.datasets, self.dataset_names = number_datasets(self.paths.chunks())
        self.tiles = TileReader()
        self._orders: dict[str, IntArray] = {}
        kept = self.store.views()
        self.view = _restore_view(kept, self.scores is not None)
        if order is not None:
            self.view = self._checked(replace(self.view, order=order))
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

    def arrange(self, **changes: Any) -> None:
        """Change the `View`; the patch at the cursor stays in sight if it still belongs."""
        previous, self.view = self.view, self._checked(replace(self.view, **changes))
        old, new = asdict(previous), asdict(self.view)
        # Selecting afresh also when nothing has changed lets labelled patches leave a list of unlabelled ones.
        if {"label", "dataset", "disagreement", "order"} & changes.keys():
            self._select()
        reordered = old["order"] != new["order"]
        if reordered or not self.go_to(self.cursor):
            self._go_to_first_unlabelled()
        self.save_view()

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

    def label_rest(self, label: str) -> list[int]:
        """Give a label to all patches of the page that have none; return them."""
        return self.label([index for index in self.page_indices() if self.labels[index] == CODE_NONE], label)

    def undo(self) -> list[int]:
        """Take the last action back and go to where it was made; return the patches it had changed."""
        changed = self.store.undo()
        if changed and not set(changed) & set(self.page_indices()):
            self.go_to(changed[0])
        if changed:
            self.cursor = changed[0]
        return changed

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

    def _is_readable(self, index: int) -> bool:
        return not self.tiles.read([self.paths[index]])[0].problem

    def _checked(self, view: View) -> View:
        for name, allowed in (("order", ORDERS), ("label", ("", *LABELS)), ("disagreement", DISAGREEMENTS)):
            value = getattr(view, name)
            if value not in allowed:
                raise InputError(name, f"one of {', '.join(filter(None, allowed))}", repr(value), "choose one of these")
            if value in ("uncertain", "model") and self.scores is None:
                raise InputError(name, "scores of a model", "none", "name the nn_scores.npy of filtered/classify_nn.py")
        return replace(
            view,
            rows=_clip(view.rows, GRID_SIDES),
            columns=_clip(view.columns, GRID_SIDES),
            size=_clip(view.size, TILE_SIZES),
        )

    def _order(self) -> IntArray:
        name = self.view.order
        if name not in self._orders:
            if name == "uncertain" and self.scores is not None:
                order = order_by_uncertainty(self.scores, self.threshold)
            else:
                order = order_as_they_came(
                    self.store.listed, self._order_by_turns if name == "dataset" else self._shuffle
                )
            # One at a time: each takes 40 MB for five million patches.
            self._orders = {name: order}
        return self._orders[name]

    def _shuffle(self, places: IntArray) -> IntArray:
        return order_randomly(len(places), self.seed)

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
            said = np.where(self.scores > self.threshold, CODE_INFORMATIVE, CODE_UNINFORMATIVE)
            chosen &= is_decided(self.labels) & ~np.isnan(self.scores) & (said != self.labels)
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


def _read_scores(path: Path, count: int) -> npt.NDArray[np.float32]:
    scores = read_npy(path)
    if scores.ndim != 1 or scores.dtype.kind not in "fiu":
        raise InputError(
            path, "a 1-D array of scores", f"a {scores.ndim}-D array of {scores.dtype}", "name nn_scores.npy"
        )
    if len(scores) != count:
        raise InputError(
            path,
            f"{count:,} scores, one for each path of the list",
            f"{len(scores):,}",
            "run filtered/classify_nn.py on this list",
        )
    return scores.astype(np.float32)


def _restore_view(kept: dict[str, Any], scored: bool) -> View:
    """Return the view of the last session, as far as it can be had again."""
    default = View()
    known = {f.name: kept[f.name] for f in fields(View) if type(kept.get(f.name)) is type(getattr(default, f.name))}
    view = replace(default, **known)
    # A filter of long ago would only make people look for their patches.
    view = replace(view, label="", dataset="", disagreement="")
    if view.order not in ORDERS or (view.order == "uncertain" and not scored):
        view = replace(view, order=default.order)
    return replace(
        view,
        rows=_clip(view.rows, GRID_SIDES),
        columns=_clip(view.columns, GRID_SIDES),
        size=_clip(view.size, TILE_SIZES),
    )


def _clip(value: object, limits: tuple[int, int]) -> int:
    number = value if isinstance(value, int) else limits[0]
    return min(max(number, limits[0]), limits[1])
