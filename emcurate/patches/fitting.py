"""Giving patches one size: padded, resized, or left out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# How a patch of another size gets the one that is wanted: zeros below and to the right; not at all; shrunk or enlarged.
FITS = (PAD, SKIP, RESIZE) = ("pad", "skip", "resize")


def fits(heights: npt.NDArray[np.int32], widths: npt.NDArray[np.int32], size: int, fit: str) -> npt.NDArray[np.bool_]:
    """Return which patches can be given a size, (n,) bool; see `FITS`."""
    largest, smallest = np.maximum(heights, widths), np.minimum(heights, widths)
    if fit == SKIP:
        return np.equal(largest, size) & np.equal(smallest, size)
    return np.less_equal(largest, size) if fit == PAD else np.ones(len(heights), np.bool_)


def fit_patch(patch: npt.NDArray[np.uint8], size: int, fit: str) -> npt.NDArray[np.uint8]:
    """Return a patch as (size, size) uint8.

    Resized patches are averaged over what a pixel covers where they shrink, and interpolated linearly where they grow.

    Raises
    ------
    ValueError
        If it cannot be, as `fits` says.
    """
    height, width = patch.shape
    if (height, width) == (size, size):
        return patch
    if fit == PAD and height <= size and width <= size:
        return np.pad(patch, ((0, size - height), (0, size - width)))
    if fit != RESIZE:
        raise ValueError(f"a patch of {height} x {width} pixels cannot become {size} x {size} by {fit}")
    from PIL import Image  # here, since most patches have their size

    return np.asarray(Image.fromarray(patch).resize((size, size), Image.Resampling.BILINEAR))
