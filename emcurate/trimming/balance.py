"""A picture of how often each category occurs in a chosen set, so that a person sees at once what is rare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emcurate.pictures.figures import BLUE, PALE, encode_figure, new_figure

# Inches; a bar needs a quarter to have its name beside it.
PANEL_WIDTH = 5.2
BAR_HEIGHT = 0.25
FRAME_HEIGHT = 1.3

LONGEST_LABEL = 32  # characters
HATCH = "////"
ROOM_FOR_CAPTIONS = 1.2  # of the longest bar


@dataclass(frozen=True)
class Share:
    """How many images of a set show a category and how many do not.

    `draws` is how many were drawn on each side, where it is known: more than there are if some came up again.
    """

    name: str
    images: int
    others: int
    draws: int | None = None


def draw_balance(panels: Mapping[str, Sequence[Share]]) -> bytes:
    """Return a PNG with one panel a set and one bar a category: images with it, then those without.

    Draws beyond the images that there are follow hatched, each on its side.
    """
    rows = max(len(shares) for shares in panels.values())
    figure = new_figure(PANEL_WIDTH * len(panels) + 1, FRAME_HEIGHT + BAR_HEIGHT * rows)
    legend = {}
    for axes, (title, shares) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        places, start = range(len(shares)), [0] * len(shares)
        for label, colour, hatch, lengths in (
            ("with the category", BLUE, "", [share.images for share in shares]),
            ("the same images again", BLUE, HATCH, [_again(share, share.images) for share in shares]),
            ("without it", PALE, "", [share.others for share in shares]),
            ("the same images again ", PALE, HATCH, [_again(share, share.others) for share in shares]),
        ):
            if hatch and not any(lengths):
                continue
            look = {"color": "white", "edgecolor": colour, "hatch": hatch} if hatch else {"color": colour}
            legend[label] = axes.barh(places, lengths, left=start, linewidth=0, label=label, **look)
            start = [before + length for before, length in zip(start, lengths, strict=True)]
        for place, (end, share) in enumerate(zip(start, shares, strict=True)):
            axes.text(end, place, f" {_caption(share)}", va="center", fontsize=8)
        axes.set_yticks(places, [_label(share.name) for share in shares], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, max(1, *start) * ROOM_FOR_CAPTIONS)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("images" if all(share.draws is None for share in shares) else "draws")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return encode_figure(figure)


def _label(name: str) -> str:
    """Return a name as matplotlib shows it as it is: it would set a formula between two dollars."""
    short = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
    return short.replace("$", r"\$")


def _again(share: Share, distinct: int) -> int:
    return max(0, (share.draws or 0) - distinct)


def _caption(share: Share) -> str:
    if share.draws is None:
        return f"{share.images:,} ({share.images / max(1, share.images + share.others):.0%})"
    return f"{share.images:,} + {share.others:,}"
