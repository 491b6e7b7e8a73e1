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
    return math.prod(_count_pieces(side, crop_size, min_size) for side in (height, width))


def _count_pieces(length: int, crop_size: int, min_size: int) -> int:
    whole = _round_pieces(length, crop_size) - 1
    last = min(length - whole * crop_size, crop_size)
    return whole * (crop_size >= min_size) + (last >= min_size)


def least_side(crop_size: int) -> int:
    """Return the side that a patch has at least if nothing else is said: half of a full one's, in pixels."""
    return -(-crop_size // 2)


def cut_side(length: int, crop_size: int) -> list[slice]:
    """Cut one side of a section, in pixels: all pieces have ``crop_size`` pixels but the last, which may have fewer.

    There are ``max(1, round(length / crop_size))``, so that a remainder under half a patch is dropped.
    """
    count = _round_pieces(length, crop_size)
    return [slice(i * crop_size, min((i + 1) * crop_size, length)) for i in range(count)]


def _round_pieces(length: int, crop_size: int) -> int:
    # Python's round: a half goes to the even count, so 560 pixels at 224 are two patches.
    return max(1, round(length / crop_size))
