"""Cutting one section into patches: where they are, their hashes, and what is written of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.files import Output, npy_bytes, write_files
from emcurate.images.sections import encode_section
from emcurate.patches.grid import iter_grid
from emcurate.patches.hashing import BoolArray
from emcurate.patches.section_hashes import hash_section
from emcurate.patches.tables import Cut, pack_bits

FILES_PER_PATCH = 2  # the patch and its hash


@dataclass(frozen=True)
class Cutting:
    """How sections are cut, and where patches go.

    Parameters
    ----------
    patchdir : Path
    crop_size, hash_size : int
        Sides of a patch in pixels and of a hash in bits.
    hash : str
        One of `emcurate.patches.hashing.HASHES`.
    writes_files : bool
        Whether each patch becomes a file, with its hash beside it; otherwise only what the table holds is found.
    """

    patchdir: Path
    crop_size: int
    hash_size: int
    hash: str
    writes_files: bool = True


@dataclass(frozen=True)
class Written:
    """What came of one section: its patches for the table, the files written, and how many were not there yet."""

    cut: Cut
    outputs: list[Output]
    new: int


def cut_section(
    pixels: npt.NDArray[np.uint8],
    section: naming.Section,
    how: Cutting,
    *,
    replace: bool = False,
    only: Collection[str] | None = None,
) -> Written:
    """Cut a section on its grid, and write the patches.

    Parameters
    ----------
    pixels : (height, width) uint8
    section : naming.Section
    how : Cutting
    replace : bool
        Replace other files of these names.
    only : collection of str, optional
        The names of the patches wanted; all by default.

    Raises
    ------
    InputError
        If another file of a patch's name is there and `replace` is not set.
    """
    height, width = pixels.shape
    grid = iter_grid(height, width, how.crop_size)
    places = [(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start) for rows, cols in grid]
    hashes = hash_section(pixels, how.crop_size, how.hash_size, how.hash)
    if only is not None:
        chosen = [i for i, (y, x, _, _) in enumerate(places) if naming.Patch(section, y, x).stem in only]
        places, hashes = [places[i] for i in chosen], hashes[chosen]
    cut = Cut(section, np.array(places, np.int32).reshape(-1, 4), pack_bits(hashes))
    if not how.writes_files:
        return Written(cut, [], 0)
    outputs, new = write_files(how.patchdir, _encode(pixels, section, places, hashes), overwrite=replace)
    return Written(cut, outputs, new)


def _encode(
    pixels: npt.NDArray[np.uint8],
    section: naming.Section,
    places: list[tuple[int, int, int, int]],
    hashes: BoolArray,
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each patch's files."""
    stem = section.stem
    for (y, x, height, width), bits in zip(places, hashes, strict=True):
        name = f"{stem}_{y}_{x}"
        yield f"{name}.tiff", encode_section(pixels[y : y + height, x : x + width])
        yield f"{name}.npy", npy_bytes(bits)
