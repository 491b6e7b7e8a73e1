"""The compiled loops of `emcurate.patches.section_hashes`, which loads them by `emcurate.patches.machine_code`.

Pillow's own arithmetic: bytes times whole weights, added up in 32 bits and rounded to a byte, first along rows, then
along columns. The loops are plain ones over neighbouring pixels, so that a vector instruction adds many at once.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import carray  # type: ignore[attr-defined]
from numba.core import types

# Bits behind the point of a weight, as in `emcurate.patches.section_hashes`, and one half in these.
BITS = 22
HALF = np.int32(1 << (BITS - 1))

# Rows shrunk at once, which share the reading of weights.
ROWS = 8


def compiled(function: Any) -> Any:
    """Compile a function; nothing is divided in it, so that nothing needs to be told of an error."""
    return numba.njit(error_model="numpy")(function)


@compiled
def to_byte(total: Any) -> Any:
    """Return a sum as a byte's value."""
    return np.int32(min(max(total >> np.int32(BITS), np.int32(0)), np.int32(255)))


@compiled
def weigh(pixels: Any, weights: Any) -> Any:
    """Return the weighted sum of some pixels as a byte's value."""
    total: Any = HALF
    for i in range(len(weights)):
        total = np.int32(total + np.int32(pixels[i]) * weights[i])
    return to_byte(total)


@compiled
def weigh_rows(pixels: Any, first: int, stride: int, weights: Any, found: Any) -> None:
    """Set `found` to the weighted sums of the same pixels of some rows as bytes' values."""
    count = len(weights)
    row_0, row_1 = pixels[first : first + count], pixels[first + stride : first + stride + count]
    row_2, row_3 = pixels[first + 2 * stride :][:count], pixels[first + 3 * stride :][:count]
    row_4, row_5 = pixels[first + 4 * stride :][:count], pixels[first + 5 * stride :][:count]
    row_6, row_7 = pixels[first + 6 * stride :][:count], pixels[first + 7 * stride :][:count]
    sum_0 = sum_1 = sum_2 = sum_3 = sum_4 = sum_5 = sum_6 = sum_7 = HALF
    for i in range(count):
        weight = weights[i]
        sum_0 = np.int32(sum_0 + np.int32(row_0[i]) * weight)
        sum_1 = np.int32(sum_1 + np.int32(row_1[i]) * weight)
        sum_2 = np.int32(sum_2 + np.int32(row_2[i]) * weight)
        sum_3 = np.int32(sum_3 + np.int32(row_3[i]) * weight)
        sum_4 = np.int32(sum_4 + np.int32(row_4[i]) * weight)
        sum_5 = np.int32(sum_5 + np.int32(row_5[i]) * weight)
        sum_6 = np.int32(sum_6 + np.int32(row_6[i]) * weight)
        sum_7 = np.int32(sum_7 + np.int32(row_7[i]) * weight)
    found[0], found[1], found[2], found[3] = to_byte(sum_0), to_byte(sum_1), to_byte(sum_2), to_byte(sum_3)
    found[4], found[5], found[6], found[7] = to_byte(sum_4), to_byte(sum_5), to_byte(sum_6), to_byte(sum_7)


def hash_all_of(
    section: Any, stride: int, size: int, corners: Any, number: int, crop_size: int, hash_size: int,
    across: Any, across_reach: Any, along: Any, along_reach: Any, narrow: Any, line: Any, hashes: Any,
) -> None:  # fmt: skip
    """Do what `emcurate.patches.section_hashes.hash_patches` does.

    Parameters
    ----------
    section : pointer to uint8
        Its first pixel; `stride` is from one row to the next, `size` up to behind the last.
    corners : pointer to (number, 2) int32
    across, along : pointer to (hash_size + 1, crop_size) and (hash_size, crop_size) int32
        Weights of what is shrunk along rows and along columns; `…_reach`, of two each, tells where they begin and end.
    narrow, line : pointers
        Room for (hash_size + 1, crop_size) and (hash_size + 1,) int32.
    hashes : pointer to (number, hash_size, hash_size) bool
        Set to the bits.
    """
    count = hash_size + 1
    pixels, all_corners = carray(section, (size,)), carray(corners, (number, 2))
    of_rows, of_columns = carray(across, (count, crop_size)), carray(along, (hash_size, crop_size))
    rows_reach, columns_reach = carray(across_reach, (count, 2)), carray(along_reach, (hash_size, 2))
    shrunk, values = carray(narrow, (count, crop_size)), carray(line, (count,))
    bits = carray(hashes, (number, hash_size, hash_size))
    together = crop_size - crop_size % ROWS
    for i in range(number):
        corner = all_corners[i, 0] * stride + all_corners[i, 1]
        for k in range(count):
            start, stop = rows_reach[k, 0], rows_reach[k, 1]
            weights = of_rows[k, start:stop]
            for row in range(0, together, ROWS):
                weigh_rows(pixels, corner + row * stride + start, stride, weights, shrunk[k, row : row + ROWS])
            for row in range(together, crop_size):
                shrunk[k, row] = weigh(pixels[corner + row * stride + start :][: stop - start], weights)
        for j in range(hash_size):
            start, stop = columns_reach[j, 0], columns_reach[j, 1]
            for k in range(count):
                values[k] = weigh(shrunk[k, start:stop], of_columns[j, start:stop])
            for k in range(hash_size):
                bits[i, j, k] = values[k + 1] > values[k]


u8, i32 = map(types.CPointer, (types.uint8, types.int32))
number = types.int64
arguments = (u8, number, number, i32, *[number] * 3, *[i32] * 6, u8)
hash_all = numba.cfunc(types.void(*arguments), error_model="numpy")(hash_all_of)
