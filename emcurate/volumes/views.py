"""What is to be read of a volume that holds more than one: which level, channel, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from emcurate.volumes.layouts import SizeNm

# By how much a level's voxels may be coarser than asked for and still count as of that size: sizes are rounded.
SIZE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class View:
    """What is read of a volume; None where it need not be chosen.

    Parameters
    ----------
    level : int, optional
        Of its resolutions, 0 being the full one.
    channel, time : int, optional
        Of its other axes, counted from 0.
    inverted : bool
        Whether black and white change places.
    pixel_size_nm : float, optional
        Where no `level` is given, the nearest finer level is read; see `choose_level`. That alone makes no pixels of
        this size: `emcurate.images.resampling` averages the rest of the way, from `Volume.voxel_size_nm`.
    """

    level: int | None = None
    channel: int | None = None
    time: int | None = None
    inverted: bool = False
    pixel_size_nm: float | None = None

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, as a ledger keeps it: nothing where nothing was, as before there were choices."""
        return {item.name: value for item in fields(self) if (value := getattr(self, item.name)) != item.default}


def choose_level(sizes: Sequence[SizeNm | None], pixel_size_nm: float) -> int | None:
    """Return the coarsest level that has lost nothing at a pixel size; None where sizes are unknown.

    Along each axis its voxels are no larger than wanted, or than those of level 0 where these are larger already.

    >>> choose_level([(30, 4, 4), (30, 8, 8), (60, 16, 16)], 10), choose_level([(30, 4, 4)], 2), choose_level([None], 8)
    (1, 0, None)
    >>> choose_level([(30, 4, 4), (30, 8, 8), (60, 16, 16)], 16)
    1
    """
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes) or not known:
        return None
    most = [max(pixel_size_nm, size) * (1 + SIZE_TOLERANCE) for size in known[0]]
    fine = [
        level for level, size in enumerate(known) if all(side <= limit for side, limit in zip(size, most, strict=True))
    ]
    return max(fine, default=0)
