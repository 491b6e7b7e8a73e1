"""The compiled loops of `emcurate.patches.measures`; on their own, since they load a compiler and are kept on disk.

Sums of small numbers stay in 16 and 32 bits wherever they fit, so that a vector instruction does many pixels at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emcurate.patches.search import compiled

# Those of `emcurate.patches.measures`, which must be constants here: what is kept on disk knows no other file's.
WINDOW, HALF, BEFORE, AFTER, GREYS = 11, 5, 2, 1, 256
ENDS = HALF + 1
NARROWEST = BEFORE + AFTER + 1

# Histograms filled in turn, since counting a value twice in a row would wait for the first.
HISTOGRAMS = 4


@compiled
def add_up_all(section: Any, places: Any, counts: Any, edges: Any) -> None:
    """Do what `emcurate.patches.measures.add_up_all_plainly` does, in a ninth of the time."""
    for i in range(len(places)):
        y, x, height, width = places[i, 0], places[i, 1], places[i, 2], places[i, 3]
        add_up(section[y : y + height, x : x + width], counts[i], edges[i])


@compiled
def add_up(patch: Any, counts: Any, edges: Any) -> None:
    """Do what `emcurate.patches.measures.add_up_plainly` does, in a ninth of the time."""
    count(patch, counts)
    if min(patch.shape) >= NARROWEST:
        # Of columns that are left out no steepness counts, so that loops run over whole rows: where these are a whole
        # number of vectors, as mostly, nothing is left to be done pixel by pixel.
        weights = np.full(patch.shape[1], WINDOW, np.int16)
        weights[:BEFORE] = 0
        weights[patch.shape[1] - AFTER :] = 0
        compare_along_rows(patch, weights, edges[0])
        compare_along_columns(patch, weights, edges[1])


@compiled
def count(patch: Any, counts: Any) -> None:
    """Set `counts` to how many pixels have each value."""
    height, width = patch.shape
    several = np.zeros((HISTOGRAMS, GREYS), np.uint32)
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
def compare_along_rows(patch: Any, weights: Any, sums: Any) -> None:
    """Set `sums` to the steepness along rows, and to what a mean along rows leaves of it."""
    height, width = patch.shape
    # All rows before any is compared: reading at once what was written with another offset would wait for memory.
    smooth = np.empty((height, width + 2 * ENDS), np.int16)
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
def compare_along_columns(patch: Any, weights: Any, sums: Any) -> None:
    """Set `sums` to the steepness along columns, and to what a mean along columns leaves of it."""
    height, width = patch.shape
    smooth = np.empty((height + 2 * ENDS, width), np.int16)
    row = np.zeros(width + 2, np.uint8)
    for i in range(height):
        for j in range(width):
            row[j + 1] = patch[i, j]
        for j in range(width):
            smooth[i + ENDS, j] = np.int16(row[j]) + np.int16(row[j + 2]) + (np.int16(row[j + 1]) << 1)
    for k in range(1, ENDS + 1):
        smooth[ENDS - k] = smooth[ENDS + reflect(-k, height)]
        smooth[ENDS + height - 1 + k] = smooth[ENDS + reflect(height - 1 + k, height)]
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


# For sections of any layout, writable or not: else each kind would be compiled by itself, which takes seconds.
add_up_all.compile("void(Array(uint8, 2, 'A', True), Array(int32, 2, 'A', True), int64[:, ::1], int64[:, :, ::1])")
add_up_all.disable_compile()
