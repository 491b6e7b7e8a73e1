"""What can be told of a patch without labels: its grey values, how much they say, how blurred it is, how saturated.

All of it is made of whole numbers that are counted exactly, so that the same patch measures the same however it is cut.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.patches.machine_code import Loops, addressable

# Mean and standard deviation of the grey values; their Shannon entropy in bits (`skimage.measure.shannon_entropy`); the
# blur metric of Crete et al., SPIE 6492 (2007), doi 10.1117/12.702790, 0 sharp to 1 (`skimage.measure.blur_effect`);
# and the share of pixels that are wholly black or white, 0 or 255.
MEASURES = (MEAN, DEVIATION, ENTROPY, BLUR, SATURATED) = ("mean", "deviation", "entropy", "blur", "saturated")

GREYS = 256

# Pixels of the mean that blurs a patch for comparison, scikit-image's default, and those of them on one side.
WINDOW, HALF = 11, 5

# Pixels that the blur metric leaves out at the borders, before and after; so many and one are the least it can judge.
BEFORE, AFTER = 2, 1
NARROWEST = BEFORE + AFTER + 1

# Patches from which on a process loads the compiled loops, or compiles them where nobody has: numpy takes as long for
# the first as loading does, and for some ten thousand as compiling.
LOADED_FROM, COMPILED_FROM = 250, 1000
_ADDRESS, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_TAKES = ctypes.CFUNCTYPE(None, _ADDRESS, _NUMBER, _ADDRESS, _NUMBER, *[_ADDRESS] * 7, _NUMBER, _NUMBER)
LOOPS = Loops("emcurate.patches.measure_loops", "add_up_all", _TAKES, LOADED_FROM, COMPILED_FROM)

# Histograms that the compiled loops fill in turn.
HISTOGRAMS = 4

# Pixels of a row whose sums are sure to fit into the 32 bits of the compiled loops.
WIDEST = (2**31 - 1) // (WINDOW * 4 * 255)

# Patches whose histograms are in memory at once.
BATCH = 1024

IntArray = npt.NDArray[np.int64]
Sums = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int32], IntArray, IntArray], None]


def measure_places(section: npt.NDArray[np.uint8], places: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return what can be told of some patches of a section.

    Parameters
    ----------
    section : (height, width) uint8
    places : (n, 4) int32
        Row, column, height and width of each patch in pixels.

    Returns
    -------
    (n, 5) float64
        In the order of `MEASURES`. The blur of a patch too narrow to tell is NaN, and that of a patch in which nothing
        changes along an axis 1.
    """
    found = np.empty((len(places), len(MEASURES)))
    for start in range(0, len(places), BATCH):
        some = places[start : start + BATCH]
        counts, edges = np.zeros((len(some), GREYS), np.int64), np.zeros((len(some), 2, 2), np.int64)
        _choose_loops(len(some), section.shape[1])(section, some, counts, edges)
        found[start : start + BATCH] = _conclude(counts, edges)
        narrow = (places[start : start + BATCH, 2:] < NARROWEST).any(axis=1)
        found[start : start + BATCH][narrow, MEASURES.index(BLUR)] = np.nan
    return found


def measure_patch(patch: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Return what can be told of one patch, (height, width) uint8, by name; see `measure_places`."""
    place = np.array([[0, 0, *patch.shape]], np.int32)
    return dict(zip(MEASURES, measure_places(patch, place)[0].tolist(), strict=True))


def sharpness_of(blur: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how sharp patches are by their blur: 1 less that, and 0 where it is NaN, of those too narrow to tell."""
    return np.where(np.isnan(blur), 0.0, 1.0 - blur)


def _conclude(counts: IntArray, edges: IntArray) -> npt.NDArray[np.float64]:
    """Return the measures of patches by their histograms, (n, 256), and the sums of `add_up_plainly`, (n, 2, 2)."""
    greys = np.arange(GREYS)
    total = counts.sum(axis=1)
    share = counts / total[:, None]
    mean = (counts @ greys) / total
    variance = (share * (greys - mean[:, None]) ** 2).sum(axis=1)
    information = np.zeros_like(share)
    np.log2(share, out=information, where=share > 0)
    entropy = np.abs((share * information).sum(axis=1))
    sharp, left = edges[:, :, 0], edges[:, :, 1]
    blur = np.divide(left, sharp, out=np.ones(sharp.shape), where=sharp > 0).max(axis=1)
    saturated = (counts[:, 0] + counts[:, -1]) / total
    return np.stack([mean, np.sqrt(variance), entropy, blur, saturated], axis=1)


def _choose_loops(count: int, width: int) -> Sums:
    """Return compiled loops if they are loaded or soon pay, else what numpy can do; both give the same sums."""
    return add_up_all_compiled if width <= WIDEST and LOOPS.pay(count) else add_up_all_plainly


def add_up_all_compiled(
    section: npt.NDArray[np.uint8], places: npt.NDArray[np.int32], counts: IntArray, edges: IntArray
) -> None:
    """Do what `add_up_all_plainly` does by the loops of `emcurate.patches.measure_loops`."""
    if not len(places):
        return
    section = addressable(section, np.hstack([places[:, :2], places[:, :2] + places[:, 2:]]))
    places = np.ascontiguousarray(places, np.int32)
    highest, widest = (int(side) for side in places[:, 2:].max(axis=0))
    ends = 2 * (HALF + 1)
    room = (
        np.empty((HISTOGRAMS, GREYS), np.uint32),
        np.empty(widest, np.int16),
        np.empty((highest, widest + ends), np.int16),
        np.empty((highest + ends, widest), np.int16),
        np.empty(widest + 2, np.uint8),
    )
    assert counts.dtype == edges.dtype == np.int64 and counts.flags.c_contiguous and edges.flags.c_contiguous
    LOOPS(
        *(section.ctypes.data, section.strides[0], places.ctypes.data, len(places)),
        *(array.ctypes.data for array in (counts, edges, *room)),
        *(highest, widest),
    )


def add_up_all_plainly(
    section: npt.NDArray[np.uint8], places: npt.NDArray[np.int32], counts: IntArray, edges: IntArray
) -> None:
    """Do what `add_up_plainly` does for each of some patches of a section; see `measure_places`."""
    for i, (y, x, height, width) in enumerate(places.tolist()):
        add_up_plainly(section[y : y + height, x : x + width], counts[i], edges[i])


def add_up_plainly(patch: npt.NDArray[np.uint8], counts: IntArray, edges: IntArray) -> None:
    """Count a patch's grey values, and how much steepness a mean along each axis leaves of it.

    The blur metric compares the differences between neighbours (Sobel) with those after a mean of 11 pixels. Times 11
    these are whole numbers, and the difference of two neighbouring means is that of the pixels at both ends.

    Parameters
    ----------
    patch : (height, width) uint8
    counts : (256,) int64
        Set to how many pixels have each value.
    edges : (2, 2) int64
        Set to, along rows and along columns, the sum of all steepness, and that of what is left of it.
    """
    counts[:] = np.bincount(patch.ravel(), minlength=GREYS)
    if min(patch.shape) < NARROWEST:
        return
    for axis, image in enumerate((patch, patch.T)):
        wide: npt.NDArray[np.int16] = image.astype(np.int16)
        smooth = (wide[:-2] + 2 * wide[1:-1] + wide[2:])[BEFORE - 1 :]
        ends = HALF + 1
        padded = np.pad(smooth, ((0, 0), (ends, ends)), mode="symmetric")
        last = ends + image.shape[1] - AFTER

        def shifted(by: int, padded: Any = padded, first: int = ends + BEFORE, last: int = last) -> Any:
            return padded[:, first + by : last + by]

        sharp = WINDOW * np.abs(shifted(1) - shifted(-1))
        blurred = np.abs(shifted(ends) + shifted(HALF) - shifted(-HALF) - shifted(-ends))
        edges[axis] = sharp.sum(), np.minimum(sharp, blurred).sum()
