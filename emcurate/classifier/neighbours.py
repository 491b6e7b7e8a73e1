"""A picture by which a person can judge features: some patches, each with those that the features find most alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate.patches.reading import read_patch
from emcurate.pictures.contact_sheets import Group, Tile, encode_contact_sheet

# Patches that are shown with their neighbours, and neighbours of each: a row of a sheet.
SHOWN, NEIGHBOURS = 12, 7

# Patches, evenly spread over the list, among which neighbours are sought.
LOOKED_AMONG = 4096

# Digits of a cosine that count: more would let the picture hang on the processor.
DIGITS = 5


def draw_neighbours(
    paths: Sequence[str], read: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float16]], title: str
) -> bytes:
    """Return a contact sheet of patches and their nearest by cosine, as a PNG.

    Parameters
    ----------
    paths : sequence of n str
    read : callable
        Gives the (m, width) features of patches by their places in `paths`.
    title : str
    """
    some = _spread(len(paths), LOOKED_AMONG)
    unit = read(some).astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    groups = []
    for query in _spread(len(some), SHOWN).tolist():
        cosines = np.round(unit @ unit[query], DIGITS)
        cosines[query] = 2  # itself first
        order = np.argsort(-cosines, kind="stable")[: 1 + NEIGHBOURS].tolist()
        tiles = [_tile(paths[int(some[i])], "" if i == query else f"cosine {cosines[i]:.3f}") for i in order]
        groups.append(Group(Path(paths[int(some[query])]).stem, tiles))
    return encode_contact_sheet(title, groups, columns=1 + NEIGHBOURS, tile_pixels=112, read=read_patch)


def _tile(path: str, words: str) -> Tile:
    return Tile(Path(path), f"{words or 'this one'}\n{Path(path).stem}")


def _spread(count: int, most: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
