"""Pixels of patches that were only hashed: read again where they were found, in a section's file or in a volume."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.images.pixels import Limits, convert
from emcurate.images.resampling import (
    Factors,
    Resampled,
    Scale,
    find_factors,
    find_window,
    in_plane,
    resample,
    resample_window,
)
from emcurate.images.sections import read_section, read_size
from emcurate.running.claims import Notes
from emcurate.running.ledger_lines import Line
from emcurate.running.spelled_paths import path_of_text, place_of_text
from emcurate.volumes.corpus import fingerprint_volume
from emcurate.volumes.scratch import unpacked
from emcurate.volumes.sections import section_shape
from emcurate.volumes.views import View
from emcurate.volumes.volume import Volume, open_volume

Reader = Callable[[Path], npt.NDArray[Any]]


@dataclass(frozen=True)
class Spot:
    """Where a patch is: in which section of which file, from and up to which rows and columns, in pixels.

    `path` is the section's file, or the volume, whose `fingerprint` and grey `limits` are then given, and of which
    `view` is read. `stored` is the patch itself where it lies in a shard. Rows and columns are those of the section as
    it was `resampled`.
    """

    path: Place
    section: naming.Section
    rows: tuple[int, int]
    columns: tuple[int, int]
    fingerprint: str | None = None
    limits: Limits | None = None
    stored: Path | None = None
    resampled: Resampled | None = None
    view: View = field(default_factory=View)

    def factors(self) -> Factors | None:
        """Return how many pixels of the section's file, or of the volume's section, along (y, x) make one."""
        if self.resampled is None:
            return None
        if self.fingerprint is None:
            return _find_section_factors(Path(self.path), self.section, self.resampled.pixel_size_nm)
        plane = self.section.plane if isinstance(self.section, naming.VolumeSection) else 0
        return self.resampled.factors(plane)


def find_spots(rows: Iterable[Mapping[str, Any]], patchdir: Path, noted: Line) -> dict[str, Spot]:
    """Return where patches are by their names.

    Parameters
    ----------
    rows : iterable of mappings
        Rows of a table of patches.
    patchdir : Path
        That of the table.
    noted : Line
        What crop_patches.py noted of that table.
    """
    spots = {}
    for row in rows:
        patch = naming.parse_patch(row["patch"])
        place = (row["y"], row["y"] + row["height"]), (row["x"], row["x"] + row["width"])
        stored = patchdir / row["shard"] / f"{row['patch']}.tiff" if row["shard"] else None
        if "spacing" in noted.settings:
            volume, limits, resampled = place_of_text(row["source"]), Limits(row["lo"], row["hi"]), row.get("resampled")
            said = noted.settings
            view = View(**{item.name: said[item.name] for item in fields(View) if item.name in said})
            spot = Spot(volume, patch.section, *place, row["source_fingerprint"], limits, stored, resampled, view)
        else:
            path = Path(path_of_text(noted.root)) / f"{patch.section.stem}.tiff"
            spot = Spot(path, patch.section, *place, stored=stored, resampled=row.get("resampled"))
        spots[row["patch"]] = spot
    return spots


def locate(
    patches: Iterable[str],
    table_of: Callable[[str], Path],
    read_rows: Callable[[Path, Collection[str]], Iterable[Mapping[str, Any]]],
    notes: Notes,
) -> dict[str, Spot]:
    """Return where patches are by their names, as far as their tables tell.

    Parameters
    ----------
    patches : iterable of str
    table_of : callable
        Gives a dataset's table, which need not be there.
    read_rows : callable
        Reads the rows of some patches from a table.
    notes : Notes
        On the directory of the tables.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for name in patches:
        names[naming.parse_patch(name).dataset].add(name)
    spots: dict[str, Spot] = {}
    for dataset, some in names.items():
        table = table_of(dataset)
        if table.is_file() and (noted := notes.origin(table)) is not None:
            spots |= find_spots(read_rows(table, some), table.parent, noted)
    return spots


@dataclass(frozen=True)
class ReadOrCutAgain:
    """Reads a patch from its file, or, where there is none, where it was found.

    Parameters
    ----------
    read : Reader
        Reads a patch's file.
    spots : mapping of str to Spot
        By the patches' names.
    scratch : Path
        Where packed volumes are unpacked meanwhile.
    """

    read: Reader
    spots: Mapping[str, Spot]
    scratch: Path

    def __call__(self, path: Path) -> npt.NDArray[Any]:
        """Return a patch's pixels: (height, width) uint8; raises `InputError`."""
        spot = self.spots.get(path.stem)
        if spot is None or path.exists():
            return self.read(path)
        if spot.stored is not None:
            return self.read(spot.stored)
        if spot.fingerprint is None:
            section = resample(read_section(Path(spot.path)), spot.factors())
            return section[slice(*spot.rows), slice(*spot.columns)]
        return _cut_volume(
            spot.path, tuple(s for s in self.spots.values() if s.path == spot.path and s.stored is None), self.scratch
        )[spot]


@functools.lru_cache(maxsize=8)
def _cut_volume(path: Place, spots: tuple[Spot, ...], scratch: Path) -> dict[Spot, npt.NDArray[np.uint8]]:
    """Return the pixels of several patches of one volume, which is opened, and if need be unpacked, once."""
    if {spot.fingerprint for spot in spots} != {fingerprint_volume(path, spots[0].view)}:
        raise InputError(path, "the volume that patches were found in", "one that has changed", "cut its patches again")
    found = {}
    with unpacked(open_volume(path, view=spots[0].view), scratch) as volume:
        for spot in spots:
            assert isinstance(spot.section, naming.VolumeSection) and spot.limits is not None
            found[spot] = read_window(volume, spot, spot.rows, spot.columns, spot.limits)
    return found


def read_window(
    volume: Volume, spot: Spot, rows: tuple[int, int], columns: tuple[int, int], limits: Limits | None
) -> npt.NDArray[np.uint8]:
    """Return rows and columns, (start, stop), of the section that a spot lies in, as they were resampled.

    Without limits, the voxels must be uint8.
    """
    assert isinstance(spot.section, naming.VolumeSection)
    plane = spot.section.plane
    voxels = volume.read(*window_of(volume, spot, rows, columns)).squeeze(plane)
    pixels = voxels.astype(np.uint8, copy=False) if limits is None else convert(voxels, limits)
    return resample_window(pixels, section_shape(volume, plane), spot.factors(), rows, columns)


def window_of(
    volume: Volume, spot: Spot, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[slice, slice, slice]:
    """Return the box of voxels that some rows and columns of the section that a spot lies in come of."""
    assert isinstance(spot.section, naming.VolumeSection)
    plane, index = spot.section.plane, spot.section.index
    box = list(find_window(section_shape(volume, plane), spot.factors(), rows, columns))
    box.insert(plane, slice(index, index + 1))
    return box[0], box[1], box[2]


@functools.lru_cache(maxsize=1024)
def _find_section_factors(path: Path, section: naming.Section, pixel_size_nm: float) -> Factors | None:
    """Return how many pixels of a section's file along (y, x) make one, by what its directory notes of its size."""
    noted = _notes_on(path.parent).origin(path)
    details = {} if noted is None else noted.details
    own, size = details.get("pixel_size_nm"), details.get("voxel_size_nm")
    if own is not None:
        sizes = (own, own)
    elif size is not None:
        sizes = in_plane(tuple(size), section.plane if isinstance(section, naming.VolumeSection) else 0)
    else:
        return None
    return find_factors(Scale(pixel_size_nm, allow_upsampling=True), sizes, read_size(path), path, "")


@functools.lru_cache(maxsize=4)
def _notes_on(directory: Path) -> Notes:
    return Notes(directory)
