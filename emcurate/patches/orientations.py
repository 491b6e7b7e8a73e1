"""The eight orientations of a patch: its quarter turns and their mirror images, and the hashes of all of them.

No bit of a difference hash tells what it would be in a turned patch, since it compares neighbours in a row only. So
each orientation is hashed for itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from emcurate.patches.hashing import HASHES, BoolArray, compute_hash
from emcurate.patches.section_hashes import hash_places

ORIENTATIONS = 8


def turn(patch: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield a patch as it is, turned by 90, 180 and 270 degrees, and its mirror image, left to right, so turned."""
    for seen in (patch, patch[:, ::-1]):
        for quarters in range(ORIENTATIONS // 2):
            yield np.rot90(seen, quarters)


def hash_orientations(patch: npt.NDArray[np.uint8], crop_size: int, hash_size: int, kind: str = HASHES[0]) -> BoolArray:
    """Return the hashes of a patch in the order of `turn`, that of the patch as it is first.

    Parameters
    ----------
    patch : (height, width) uint8
    crop_size, hash_size, kind
        As `emcurate.patches.hashing.compute_hash` takes them, whose bits these are.

    Returns
    -------
    (8, hash_size, hash_size) bool
    """
    if patch.shape != (crop_size, crop_size):
        return np.stack([compute_hash(np.ascontiguousarray(p), crop_size, hash_size, kind) for p in turn(patch)])
    column = np.concatenate(list(turn(patch)))
    places = np.full((ORIENTATIONS, 4), crop_size, np.int32)
    places[:, 0], places[:, 1] = np.arange(ORIENTATIONS) * crop_size, 0
    return hash_places(column, places, crop_size, hash_size, kind)


def hash_places_turned(
    section: npt.NDArray[np.uint8],
    places: npt.NDArray[np.int32],
    crop_size: int,
    hash_size: int,
    kind: str = HASHES[0],
) -> BoolArray:
    """Return what `hash_orientations` does of some patches of a section: (n, 8, hash_size, hash_size) bool.

    Parameters
    ----------
    section : (height, width) uint8
    places : (n, 4) int32
        Row, column, height and width of each patch in pixels.
    crop_size, hash_size, kind
        As `emcurate.patches.hashing.compute_hash` takes them.
    """
    hashes = np.empty((len(places), ORIENTATIONS, hash_size, hash_size), np.bool_)
    for found, (y, x, height, width) in zip(hashes, places.tolist(), strict=True):
        found[:] = hash_orientations(section[y : y + height, x : x + width], crop_size, hash_size, kind)
    return hashes
