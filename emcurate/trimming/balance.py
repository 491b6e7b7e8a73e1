"""A picture of how often each category occurs in a chosen set, so that a person sees at once what is rare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emcurate.pictures.figures import BLUE, PALE, encode_figure, new_figure

# Inches; a bar needs a quarter to have its name beside it.
PANEL_WIDTH = 5.2
BAR_HEIGHT = 0.25
FRAME_HEIGHT = 1.3


@dataclass(frozen=True)
class Share:
    """How many images of a set show a category, and how many there are."""

    name: str
    images: int
    total: int


def draw_balance(panels: Mapping[str, Sequence[Share]]) -> bytes:
    """Return a PNG with one panel a set and one bar a category."""
    rows = max(len(shares) for shares in panels.values())
    figure = new_figure(PANEL_WIDTH * len(panels) + 1, FRAME_HEIGHT + BAR_HEIGHT * rows)
    for axes, (title, shares) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        names = [share.name for share in shares]
        total = max((share.total for share in shares), default=0)
        places = range(len(shares))
        with_bars = axes.barh(places, [s.images for s in shares], color=BLUE, label="with the category")
        axes.barh(
            places,
            [s.total - s.images for s in shares],
            left=[s.images for s in shares],
            color=PALE,
            label="without",
        )
        axes.bar_label(
            with_bars,
            [f" {s.images:,} ({s.images / max(1, s.total):.0%})" for s in shares],
            fontsize=8,
        )
        axes.set_yticks(places, names, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, max(1, total))
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("images")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return encode_figure(figure)
