"""How figures look and how they are saved: one palette, one resolution, and a PNG that appears only when complete."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from emcurate.images.reading import DRAWN_BY_US, DRAWN_KEY
from emcurate.writing import write_bytes

if TYPE_CHECKING:
    # Matplotlib takes half a second to import; a stage that only prints its help does without.
    from matplotlib.figure import Figure

# Of Okabe and Ito, told apart with any colour vision. Lines and frames differ in style or word as well, since colour
# alone is no sign.
BLUE = "#0072B2"
ORANGE = "#D55E00"

# What recedes: lines to compare with, and the rest of a bar.
GREY = "#888888"
PALE = "#D9D9D9"

DOTS_PER_INCH = 120


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, whose layout makes room for what is written beside the axes."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def encode_figure(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # Matplotlib would write its version into the file.
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None, DRAWN_KEY: DRAWN_BY_US})
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, atomically, replacing an earlier one."""
    write_bytes(path, encode_figure(figure))
