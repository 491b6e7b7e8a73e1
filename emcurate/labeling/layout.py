"""How many patches a window has room for, and how large."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Grid sides and tile sizes (CSS pixels) a screen can show; 224 draws an ordinary patch pixel for pixel.
GRID_SIDES = (1, 24)
TILE_SIZES = (64, 640)

# The part of another row from which on tiles are made smaller for it, rather than leave it empty.
ENOUGH_FOR_A_ROW = 0.4

# Patches that a page has at least, where tiles of half the size wanted allow it.
LEAST_PATCHES = 6


@dataclass(frozen=True)
class Room:
    """What a browser's window has room for, in CSS pixels.

    Attributes
    ----------
    width, height : float
        Of the grid, as large as it may be.
    frame_width, frame_height : float
        What a tile takes beside the square for its patch: border, caption, and the gap to the next.
    """

    width: float
    height: float
    frame_width: float
    frame_height: float


def fit_grid(room: Room, wanted: int) -> tuple[int, int, int]:
    """Return rows, columns and tile size, in CSS pixels, that fill the room, so that every tile is seen whole.

    Tiles are as large as wanted, or smaller where that makes room for another row, or else a page would be few patches.

    >>> fit_grid(Room(1180, 400, 16, 36), 224)
    (2, 6, 164)
    """
    grids = (_fill(room, size) for size in range(wanted, wanted // 2, -1))
    enough = (grid for grid in grids if grid[0] * grid[1] >= LEAST_PATCHES and 2 * grid[2] >= wanted)
    return next(enough, _fill(room, wanted))


def _fill(room: Room, wanted: int) -> tuple[int, int, int]:
    # Tiles no larger than can be, and no smaller than may be.
    largest = math.floor(min(room.width - room.frame_width, room.height - room.frame_height))
    wanted = clip(min(wanted, largest), TILE_SIZES)
    most = math.floor(room.height / (TILE_SIZES[0] + room.frame_height))
    rows = math.floor(room.height / (wanted + room.frame_height) + 1 - ENOUGH_FOR_A_ROW)
    rows = clip(min(rows, most), GRID_SIDES)
    size = clip(min(wanted, math.floor(room.height / rows - room.frame_height)), TILE_SIZES)
    columns = clip(math.floor(room.width / (size + room.frame_width)), GRID_SIDES)
    return rows, columns, size


def clip(number: int, limits: tuple[int, int]) -> int:
    """Return the number, or the limit that it exceeds."""
    return min(max(number, limits[0]), limits[1])
