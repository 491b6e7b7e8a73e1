"""The grid on which sections are cut into patches."""

from __future__ import annotations

from collections.abc import Iterator


def iter_grid(height: int, width: int, crop_size: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of each patch of a section, row by row; sizes in pixels."""
    for rows in cut_side(height, crop_size):
        for columns in cut_side(width, crop_size):
            yield rows, columns


def count_patches(height: int, width: int, crop_size: int) -> int:
    """Return how many patches a section has; sizes in pixels."""
    return len(cut_side(height, crop_size)) * len(cut_side(width, crop_size))


def cut_side(length: int, crop_size: int) -> list[slice]:
    """Cut one side of a section, in pixels: all pieces have ``crop_size`` pixels but the last, which may have fewer.

    There are ``max(1, round(length / crop_size))``, so that a remainder under half a patch is dropped.
    """
    # Python's round: a half goes to the even count, so 560 pixels at 224 are two patches.
    count = max(1, round(length / crop_size))
    return [slice(i * crop_size, min((i + 1) * crop_size, length)) for i in range(count)]
