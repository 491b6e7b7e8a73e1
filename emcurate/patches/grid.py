"""The grid on which sections are cut into patches."""

from __future__ import annotations

import math
from collections.abc import Iterator


def iter_grid(height: int, width: int, crop_size: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of each patch of a section, row by row; sizes in pixels."""
    for rows in cut_side(height, crop_size):
        for columns in cut_side(width, crop_size):
            yield rows, columns


def count_patches(height: int, width: int, crop_size: int, min_size: int = 1) -> int:
    """Return how many patches a section has whose sides are at least ``min_size``; sizes in pixels."""
    pieces = [[piece.stop - piece.start for piece in cut_side(side, crop_size)] for side in (height, width)]
    return math.prod(sum(side >= min_size for side in sides) for sides in pieces)


def least_side(crop_size: int) -> int:
    """Return the side that a patch has at least if nothing else is said: half of a full one's, in pixels."""
    return -(-crop_size // 2)


def cut_side(length: int, crop_size: int) -> list[slice]:
    """Cut one side of a section, in pixels: all pieces have ``crop_size`` pixels but the last, which may have fewer.

    There are ``max(1, round(length / crop_size))``, so that a remainder under half a patch is dropped.
    """
    # Python's round: a half goes to the even count, so 560 pixels at 224 are two patches.
    count = max(1, round(length / crop_size))
    return [slice(i * crop_size, min((i + 1) * crop_size, length)) for i in range(count)]
