"""Which patches a session shows, in which order, and how: what the bar above the grid sets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from emcurate.errors import InputError
from emcurate.labeling.layout import GRID_SIDES, TILE_SIZES, clip
from emcurate.patches.labels import LABELS

ORDERS = ("random", "dataset", "similar", "uncertain", "diverse")
DISAGREEMENTS = ("", "model", "annotators")

# What asks for a model's scores.
SCORED = ("uncertain", "model")

# What asks for the ranks of a selection.
RANKED = "diverse"


@dataclass(frozen=True)
class View:
    """Which patches are shown, in which order, and how large.

    Attributes
    ----------
    order : str
        ``random``, ``dataset`` (datasets take turns), ``similar`` (those that look alike are neighbours),
        ``uncertain`` (by a model's scores) or ``diverse`` (by a selection's ranks: all structures take turns).
    label : str
        Only patches of this label, or all.
    dataset : str
        Only this dataset or, if there is none of the name, those whose name holds it; or all.
    disagreement : str
        Only patches on which ``model`` and label, or the ``annotators``, disagree; or all.
    fit : bool
        Whether a page has as many rows and columns as the window has room for.
    rows, columns : int
        The grid of a page.
    size : int
        Side of a tile in CSS pixels; with `fit`, at most.
    stretch : bool
        Whether each patch is drawn with its contrast stretched.
    turn : bool
        Whether labelling the last patch of a page turns it.
    """

    order: str = "random"
    label: str = ""
    dataset: str = ""
    disagreement: str = ""
    fit: bool = True
    rows: int = 3
    columns: int = 4
    size: int = 224
    stretch: bool = False
    turn: bool = True


def check_view(view: View, *, scored: bool, ranked: bool = False) -> View:
    """Return the view within what a screen can show.

    Raises
    ------
    InputError
        If it asks for an order or filter that there is not, or for scores or ranks where there are none.
    """
    for name, allowed in (("order", ORDERS), ("label", ("", *LABELS)), ("disagreement", DISAGREEMENTS)):
        value = getattr(view, name)
        if value not in allowed:
            raise InputError(name, f"one of {', '.join(filter(None, allowed))}", repr(value), "choose one of these")
        if value in SCORED and not scored:
            raise InputError(name, "scores of a model", "none", "name the nn_scores.npy of filtered/classify_nn.py")
        if value == RANKED and not ranked:
            advice = "name the diverse_decisions.parquet of filtered/select_diverse.py"
            raise InputError(name, "ranks of a selection", "none", advice)
    return _clip_view(view)


def restore_view(kept: dict[str, Any], *, scored: bool, quick: bool, ranked: bool = False) -> View:
    """Return the view of the last session, as far as it can be had again; `quick` where all patches soon are read."""
    default = View(order=RANKED if ranked else View.order)
    known = {f.name: kept[f.name] for f in fields(View) if type(kept.get(f.name)) is type(getattr(default, f.name))}
    view = replace(default, **known)
    # A filter of long ago would only make people look for their patches.
    view = replace(view, label="", dataset="", disagreement="")
    unknown = view.order not in ORDERS or (view.order in SCORED and not scored)
    unknown = unknown or (view.order == RANKED and not ranked)
    if unknown or (view.order == "similar" and not quick):
        view = replace(view, order=default.order)
    return _clip_view(view)


def _clip_view(view: View) -> View:
    rows, columns = (clip(side, GRID_SIDES) for side in (view.rows, view.columns))
    return replace(view, rows=rows, columns=columns, size=clip(view.size, TILE_SIZES))
