"""Cutting sections into patches: where they are, their hashes, and what is written of them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.images.origins import Origin
from emcurate.images.resampling import Scale
from emcurate.images.sections import encode_section
from emcurate.outputs import Output, note_output
from emcurate.patches.cuts import Cut, write_cuts
from emcurate.patches.examining import examine, in_groups
from emcurate.patches.grid import iter_grid
from emcurate.patches.hashing import BoolArray, hash_npy
from emcurate.patches.selection import Corners
from emcurate.patches.shards import ShardWriter
from emcurate.patches.table_parts import make_metadata
from emcurate.writing import write_files

# Where patches go: each into a file with its hash beside it, into tars, or nowhere, so that only the table is made.
STORES = (FILES, TAR, NOTHING) = ("files", "tar", "nothing")


class Sections(Protocol):
    """Some sections of one dataset, read one by one or together."""

    def sections(self) -> Iterator[tuple[naming.Section, npt.NDArray[np.uint8] | InputError]]:
        """Yield each section's name and pixels, (height, width) uint8, or why it cannot be read."""


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
    min_size : int
        Pixels that both sides of a patch have at least; smaller ones are left out.
    store : str
        One of `STORES`.
    scale : Scale
        The pixel size that the material brings sections to.
    orientations : bool
        Whether the table gets the hashes of all orientations of a patch.
    """

    patchdir: Path
    crop_size: int
    hash_size: int
    hash: str
    min_size: int
    store: str = FILES
    scale: Scale = field(default_factory=Scale)
    orientations: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What decides over patches and hashes, as the ledger and the tables keep it."""
        return {
            "crop_size": self.crop_size,
            "hash_size": self.hash_size,
            "hash": self.hash,
            "min_size": self.min_size,
            **self.scale.settings,
            **({"orientations": True} if self.orientations else {}),
        }


@dataclass(frozen=True)
class CutJob:
    """Some sections of one dataset to cut.

    Parameters
    ----------
    path : Path
        What is named if all of it fails: the volume, or the first section.
    dataset : str
    pieces : tuple of Sections
    chosen : mapping of str to (n, 2) int32 array, or None
        By the names of the sections to cut: the top-left pixels of the patches wanted; None for all.
    hashed : frozenset of str
        The sections of which the table gets every patch, whichever are wanted.
    how : Cutting
    replaces : frozenset of str
        The sections of which files that are there may be replaced.
    origins : mapping of str to Origin
        Of the sections, for a table that is not a part of one.
    table : Path, optional
        Where the table of these patches goes.
    states : mapping of str to str, optional
        The states of the sections, for a table that is a part of one; see `emcurate.patches.table_parts`.
    shard : Path, optional
        The shard that the patches go to.
    shard_state : str
        The state of the job, to know the shard by.
    """

    path: Place
    dataset: str
    pieces: tuple[Sections, ...]
    chosen: Mapping[str, Corners | None]
    hashed: frozenset[str]
    how: Cutting
    replaces: frozenset[str]
    origins: Mapping[str, Origin]
    table: Path | None
    states: Mapping[str, str] | None = None
    shard: Path | None = None
    shard_state: str = ""


@dataclass
class Done:
    """What came of a job: the files of each section that was cut, the shard, the table, and what failed.

    `new` counts files that were not there yet, `patches` all that were cut.
    """

    sections: dict[str, list[Output]] = field(default_factory=dict)
    shard: Output | None = None
    table: Output | None = None
    patches: int = 0
    new: int = 0
    problems: list[str] = field(default_factory=list)


def cut(job: CutJob) -> Done:
    """Cut sections on their grid, write the patches, and the table of them."""
    done, cuts = Done(), []
    with contextlib.ExitStack() as stack:
        shard = None
        if job.shard is not None:
            replace = job.replaces >= job.chosen.keys()
            shard = stack.enter_context(ShardWriter(job.shard, overwrite=replace))
        for group in in_groups(_locate(job, done.problems)):
            for found, examined in zip(group, examine(group, job.how, measured=job.table is not None), strict=True):
                try:
                    outputs, offsets, new = _store(found, examined.hashes, job, shard)
                except InputError as error:
                    done.problems.append(str(error))
                    continue
                done.sections[found.section.stem] = outputs
                done.patches += len(found.places)
                done.new += new
                name = job.shard.name if job.shard is not None else None
                cuts.append(Cut(found.section, found.places, examined.packed, name, offsets, examined.measures))
    if shard is not None:
        done.shard, done.new = shard.output, int(shard.written)
    if job.table is not None and cuts:
        cuts.sort(key=lambda cut: cut.section.stem)
        whole = done.shard is not None and not done.problems
        shard_note = (job.shard_state, done.shard) if whole and done.shard else None
        states = (
            None if job.states is None else {stem: job.states[stem] for stem in done.sections if stem in job.states}
        )
        metadata = {} if states is None else make_metadata(states, shard_note)
        origins = job.origins.__getitem__ if job.states is None else None
        write_cuts(job.table, cuts, origins, job.how.settings, metadata)
        done.table = note_output(job.table, job.table.parent)
    return done


@dataclass(frozen=True)
class _Located:
    """A section, (height, width) uint8, where the patches are that are looked at, and which of them are wanted."""

    section: naming.Section
    pixels: npt.NDArray[np.uint8]
    places: npt.NDArray[np.int32]
    wanted: npt.NDArray[np.bool_]


def _locate(job: CutJob, problems: list[str]) -> Iterator[_Located]:
    """Yield the sections of a job; `problems` receives why others cannot be cut."""
    for piece in job.pieces:
        for section, pixels in piece.sections():
            try:
                if isinstance(pixels, InputError):
                    raise pixels
                places, wanted = find_patches(pixels, section.stem, job.how, job.chosen[section.stem])
            except InputError as error:
                problems.append(str(error))
                continue
            if section.stem not in job.hashed:
                places, wanted = places[wanted], wanted[wanted]
            yield _Located(section, pixels, places, wanted)


def _store(
    found: _Located, hashes: BoolArray, job: CutJob, shard: ShardWriter | None
) -> tuple[list[Output], npt.NDArray[np.int64] | None, int]:
    """Write a section's patches to where they go; return their files, or their places in a shard, and the new files."""
    stem, pixels, wanted = found.section.stem, found.pixels, found.wanted
    if shard is not None:
        offsets = np.full(len(found.places), -1, np.int64)
        offsets[wanted] = [shard.add(*file) for file in _encode(pixels, stem, found.places[wanted])]
        return [], offsets, 0
    if job.how.store == FILES:
        files = _encode(pixels, stem, found.places[wanted], hashes[wanted])
        outputs, new = write_files(job.how.patchdir, files, overwrite=stem in job.replaces)
        return outputs, None, new
    return [], None, 0


def find_patches(
    pixels: npt.NDArray[np.uint8], section: str, how: Cutting, chosen: Corners | None = None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Return where the patches of a section are, and which of them are wanted.

    Parameters
    ----------
    pixels : (height, width) uint8
    section : str
        Its name.
    how : Cutting
    chosen : (m, 2) int32, optional
        The top-left pixels of the patches wanted; all by default.

    Returns
    -------
    places : (n, 4) int32
        Row, column, height and width of each in pixels, in the order of the patches' names.
    wanted : (n,) bool

    Raises
    ------
    InputError
        If a patch is wanted that is not on the section's grid.
    """
    places = list_places(pixels.shape[0], pixels.shape[1], how.crop_size, how.min_size)
    if chosen is None:
        return places, np.ones(len(places), np.bool_)
    on_grid = set(map(tuple, places[:, :2].tolist()))
    corners = set(map(tuple, chosen.tolist()))
    if not corners <= on_grid:
        y, x = min(corners - on_grid)
        found = f"a grid without it, of patches of {how.crop_size} pixels on {pixels.shape[0]} x {pixels.shape[1]}"
        advice = "cut with the --crop-size and --min-size of the list, from the same sections or volumes"
        raise InputError(f"{section}_{y}_{x}", f"a patch of {section}", found, advice)
    return places, np.array([(y, x) in corners for y, x in places[:, :2].tolist()], np.bool_)


@functools.lru_cache
def list_places(height: int, width: int, crop_size: int, min_size: int) -> npt.NDArray[np.int32]:
    """Return row, column, height and width of each patch of a section, (n, 4), in the order of the patches' names.

    Those with a side under ``min_size`` are left out.
    """
    places = [
        (rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        for rows, columns in iter_grid(height, width, crop_size)
    ]
    places = [place for place in places if min(place[2:]) >= min_size]
    places.sort(key=lambda place: f"{place[0]}_{place[1]}")
    found = np.array(places, np.int32).reshape(-1, 4)
    found.flags.writeable = False  # shared by all sections of this size
    return found


def _encode(
    pixels: npt.NDArray[np.uint8], section: str, places: npt.NDArray[np.int32], hashes: BoolArray | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each patch's file, and of its hash's where there are hashes."""
    for i, (y, x, height, width) in enumerate(places.tolist()):
        yield f"{section}_{y}_{x}.tiff", encode_section(pixels[y : y + height, x : x + width])
        if hashes is not None:
            yield f"{section}_{y}_{x}.npy", hash_npy(hashes[i])
