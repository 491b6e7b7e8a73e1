"""The compiled loops of `emcurate.patches.measures`, which loads them by `emcurate.patches.machine_code`.

They are on their own since this loads a compiler. They take pointers and set aside no memory, and nothing in them can
go wrong, so that they need neither numba nor Python where they run. Sums of small numbers stay in 16 and 32 bits
wherever they fit, so that a vector instruction does many pixels at once.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import carray  # type: ignore[attr-defined]
from numba.core import types

# Those of `emcurate.patches.measures`, which must be constants here: what is kept on disk knows no other file's.
WINDOW, HALF, BEFORE, AFTER, GREYS = 11, 5, 2, 1, 256
ENDS = HALF + 1
NARROWEST = BEFORE + AFTER + 1

# Histograms filled in turn, since counting a value twice in a row would wait for the first.
HISTOGRAMS = 4


def compiled(function: Any) -> Any:
    """Compile a function; of whole numbers none is divided by 0, so that nothing needs to be told of an error."""
    return numba.njit(error_model="numpy")(function)


def exported(function: Any, *arguments: Any) -> Any:
    """Compile a function that C could call, with arguments of some types."""
    return numba.cfunc(types.void(*arguments), error_model="numpy")(function)


@compiled
def count(patch: Any, several: Any, counts: Any) -> None:
    """Set `counts` to how many pixels have each value."""
    height, width = patch.shape
    for k in range(HISTOGRAMS):
        for value in range(GREYS):
            several[k, value] = 0
    whole = width - width % HISTOGRAMS
    for i in range(height):
        for j in range(0, whole, HISTOGRAMS):
            for k in range(HISTOGRAMS):
                several[k, patch[i, j + k]] += np.uint32(1)
        for j in range(whole, width):
            several[0, patch[i, j]] += np.uint32(1)
    for value in range(GREYS):
        counts[value] = 0
        for k in range(HISTOGRAMS):
            counts[value] += several[k, value]


@compiled
def reflect(place: int, length: int) -> int:
    """Return which pixel stands at a place outside an image, mirrored at its borders as often as it takes."""
    place %= 2 * length
    return place if place < length else 2 * length - 1 - place


@compiled
def compare_along_rows(patch: Any, weights: Any, smooth: Any, sums: Any) -> None:
    """Set `sums` to the steepness along rows, and to what a mean along rows leaves of it."""
    height, width = patch.shape
    # All rows before any is compared: reading at once what was written with another offset would wait for memory.
    for i in range(BEFORE, height - AFTER):
        for j in range(width):
            of_two = np.int16(patch[i - 1, j]) + np.int16(patch[i + 1, j])
            smooth[i, j + ENDS] = of_two + (np.int16(patch[i, j]) << 1)
        for k in range(1, ENDS + 1):
            smooth[i, ENDS - k] = smooth[i, ENDS + reflect(-k, width)]
            smooth[i, ENDS + width - 1 + k] = smooth[i, ENDS + reflect(width - 1 + k, width)]
    all_sharp, all_left = 0, 0
    for i in range(BEFORE, height - AFTER):
        sharp: Any = np.int32(0)
        left: Any = np.int32(0)
        for j in range(width):
            at = j + ENDS
            one = np.int16(smooth[i, at + 1] - smooth[i, at - 1])
            one = np.int16(max(one, np.int16(-one)) * weights[j])
            far, near = smooth[i, at + ENDS] + smooth[i, at + HALF], smooth[i, at - HALF] + smooth[i, at - ENDS]
            other = np.int16(np.int16(far) - np.int16(near))
            other = max(other, np.int16(-other))
            sharp = np.int32(sharp + np.int32(one))
            left = np.int32(left + np.int32(min(one, other)))
        all_sharp += sharp
        all_left += left
    sums[0], sums[1] = all_sharp, all_left


@compiled
def compare_along_columns(patch: Any, weights: Any, smooth: Any, row: Any, sums: Any) -> None:
    """Set `sums` to the steepness along columns, and to what a mean along columns leaves of it."""
    height, width = patch.shape
    row[0] = row[width + 1] = 0
    for i in range(height):
        for j in range(width):
            row[j + 1] = patch[i, j]
        for j in range(width):
            smooth[i + ENDS, j] = np.int16(row[j]) + np.int16(row[j + 2]) + (np.int16(row[j + 1]) << 1)
    for k in range(1, ENDS + 1):
        before, behind = ENDS + reflect(-k, height), ENDS + reflect(height - 1 + k, height)
        for j in range(width):
            smooth[ENDS - k, j] = smooth[before, j]
        for j in range(width):
            smooth[ENDS + height - 1 + k, j] = smooth[behind, j]
    all_sharp, all_left = 0, 0
    for i in range(BEFORE, height - AFTER):
        at = i + ENDS
        sharp: Any = np.int32(0)
        left: Any = np.int32(0)
        for j in range(width):
            one = np.int16(smooth[at + 1, j] - smooth[at - 1, j])
            one = np.int16(max(one, np.int16(-one)) * weights[j])
            far, near = smooth[at + ENDS, j] + smooth[at + HALF, j], smooth[at - HALF, j] + smooth[at - ENDS, j]
            other = np.int16(np.int16(far) - np.int16(near))
            other = max(other, np.int16(-other))
            sharp = np.int32(sharp + np.int32(one))
            left = np.int32(left + np.int32(min(one, other)))
        all_sharp += sharp
        all_left += left
    sums[0], sums[1] = all_sharp, all_left


def add_up_all_of(
    section: Any, stride: int, places: Any, number: int, counts: Any, edges: Any,
    several: Any, weights: Any, across: Any, along: Any, row: Any, highest: int, widest: int,
) -> None:  # fmt: skip
    """Do what `emcurate.patches.measures.add_up_all_plainly` does, in a ninth of the time.

    Parameters
    ----------
    section : pointer to uint8
        Its first pixel; `stride` is from one row to the next.
    places : pointer to (number, 4) int32
    counts, edges : pointer to (number, 256) and (number, 2, 2) int64
    several, weights, across, along, row : pointers
        Room for (4, 256) uint32, (widest,) int16, (highest, widest + 12) and (highest + 12, widest) int16, and
        (widest + 2,) uint8.
    highest, widest : int
        Sides in pixels that no patch exceeds.
    """
    all_places, all_counts = carray(places, (number, 4)), carray(counts, (number, GREYS))
    all_edges = carray(edges, (number, 2, 2))
    histograms = carray(several, (HISTOGRAMS, GREYS))
    weighing, one_row = carray(weights, (widest,)), carray(row, (widest + 2,))
    smooth_across, smooth_along = (
        carray(across, (highest, widest + 2 * ENDS)),
        carray(along, (highest + 2 * ENDS, widest)),
    )
    for i in range(number):
        y, x, height, width = all_places[i, 0], all_places[i, 1], all_places[i, 2], all_places[i, 3]
        patch = carray(section, (y + height, stride))[y : y + height, x : x + width]
        count(patch, histograms, all_counts[i])
        if min(height, width) >= NARROWEST:
            # Of columns that are left out no steepness counts, so that loops run over whole rows: where these are a
            # whole number of vectors, as mostly, nothing is left to be done pixel by pixel.
            for j in range(width):
                weighing[j] = WINDOW if BEFORE <= j < width - AFTER else 0
            compare_along_rows(patch, weighing, smooth_across, all_edges[i, 0])
            compare_along_columns(patch, weighing, smooth_along, one_row, all_edges[i, 1])


u8, i16, i32, u32, i64 = map(types.CPointer, (types.uint8, types.int16, types.int32, types.uint32, types.int64))
number = types.int64
add_up_all = exported(add_up_all_of, *(u8, number, i32, number, i64, i64), *(u32, i16, i16, i16, u8), *(number, number))
