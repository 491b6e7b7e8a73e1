"""A patch in its surroundings: the part of its section around it, from the section's file or from its volume."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.errors import InputError
from emcurate.images.pixels import needs_measuring
from emcurate.images.resampling import resample, resampled_shape
from emcurate.images.sections import read_section
from emcurate.labeling.tiles import LARGEST_SIDE, reduce_pixels
from emcurate.patches.shards import split_member
from emcurate.patches.tables import TABLE_SUFFIX, read_rows
from emcurate.running.claims import Notes
from emcurate.running.report import Report
from emcurate.volumes.again import Spot, locate, read_window
from emcurate.volumes.corpus import list_volumes
from emcurate.volumes.sections import section_shape
from emcurate.volumes.volume import Volume, dataset_name, open_volume

# How far a view reaches beyond the patch on each side, in sides of the patch: it shows five times as much a side.
REACH = 2

# A packed volume larger than this, in voxels, is not read through for one look.
LARGEST_PACKED = 1 << 28

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """What is around a patch.

    Attributes
    ----------
    pixels : (height, width) uint8
    box : (row, column, height, width)
        Of the patch, in `pixels`.
    source : Path
        Where they were read.
    """

    pixels: UInt8Array
    box: tuple[float, float, float, float]
    source: Path


class Surroundings:
    """Finds and reads what is around patches.

    Parameters
    ----------
    sources : Path, optional
        A directory of sections or of volumes, looked at where the patches' tables do not tell or nothing lies there
        any more.
    """

    def __init__(self, sources: Path | None = None) -> None:
        self._sources = sources
        self._notes: dict[Path, Notes] = {}
        self._spots: dict[str, Spot | None] = {}
        self._volumes: dict[str, Path] | None = None

    def missing(self, path: str, shape: tuple[int, int]) -> str:
        """Return why a patch's surroundings cannot be shown, or nothing if they seem to be there."""
        try:
            self._find(path, shape)
        except InputError as error:
            return str(error)
        return ""

    def read(self, path: str, patch: UInt8Array) -> Scene:
        """Read what is around a patch, whose pixels are given to make sure that it is the right place.

        Raises
        ------
        InputError
            If it is not known where the patch came from, or something else is there now.
        """
        wrong: InputError | None = None
        for spot in self._find(path, (patch.shape[0], patch.shape[1])):
            pixels, top, left = _read_around(spot)
            height, width = patch.shape
            row, column = spot.rows[0] - top, spot.columns[0] - left
            if np.array_equal(pixels[row : row + height, column : column + width], patch):
                return _make_scene(pixels, (row, column, height, width), spot.path)
            wrong = wrong or InputError(
                spot.path, f"the pixels of the patch at row {spot.rows[0]}, column {spot.columns[0]}", "others",
                "name in SOURCES the sections or volumes that the patches were cut from",
            )  # fmt: skip
        assert wrong is not None
        raise wrong

    def _find(self, path: str, shape: tuple[int, int]) -> list[Spot]:
        """Return where a patch may have been found, in files that are there: one at least."""
        spots = list(self._candidates(path, shape))
        present = [spot for spot in spots if spot.path.exists()]
        if present:
            return present
        if spots:
            advice = "name the directory in which it lies now in SOURCES"
            raise InputError(spots[0].path, "where this patch was cut from", "nothing", advice)
        name = naming.strip_extension(_file_name(path))
        raise InputError(
            name, f"a table ({_table_of(path).name}) beside the patch that says where it was cut from", "none",
            "name in SOURCES the directory of its section or volume",
        )  # fmt: skip

    def _candidates(self, path: str, shape: tuple[int, int]) -> Iterator[Spot]:
        try:
            patch = naming.parse_patch(naming.strip_extension(_file_name(path)))
        except naming.GrammarError as error:
            raise InputError(path, error.expected, error.found, "only such names say where a patch is from") from None
        noted = self._look_up(path)
        if noted is not None:
            yield noted
        if self._sources is None:
            return
        place = (patch.y, patch.y + shape[0]), (patch.x, patch.x + shape[1])
        section = self._sources / f"{patch.section.stem}.tiff"
        if section.is_file():
            resampled = noted.resampled if noted is not None else None
            yield Spot(section, patch.section, *place, resampled=resampled)
        volume = self._list_volumes().get(patch.dataset)
        if volume is not None and isinstance(patch.section, naming.VolumeSection):
            limits = noted.limits if noted is not None else None
            resampled = noted.resampled if noted is not None else None
            yield Spot(volume, patch.section, *place, fingerprint="", limits=limits, resampled=resampled)

    def _look_up(self, path: str) -> Spot | None:
        """Return where a patch was found, as its table tells."""
        if path not in self._spots:
            table = _table_of(path)
            if table.parent not in self._notes:
                self._notes[table.parent] = Notes(table.parent, TABLE_SUFFIX)
            name = naming.strip_extension(_file_name(path))
            spots = locate([name], lambda _: table, read_rows, self._notes[table.parent])
            self._spots[path] = spots.get(name)
        return self._spots[path]

    def _list_volumes(self) -> dict[str, Path]:
        if self._volumes is None:
            self._volumes = {}
            if self._sources is not None and self._sources.is_dir():
                try:
                    found = list_volumes(self._sources, Report("surroundings"))
                except InputError:
                    found = [self._sources]  # the slices of one volume
                self._volumes = {dataset_name(volume): volume for volume in found}
        return self._volumes


def _make_scene(pixels: UInt8Array, box: tuple[int, int, int, int], source: Path) -> Scene:
    factor = -(-max(pixels.shape) // LARGEST_SIDE)
    row, column, height, width = (side / factor for side in box)
    return Scene(np.ascontiguousarray(reduce_pixels(pixels, factor)), (row, column, height, width), source)


def _read_around(spot: Spot) -> tuple[UInt8Array, int, int]:
    """Return the pixels around a place, and the row and column at which they begin."""
    reach = REACH * max(spot.rows[1] - spot.rows[0], spot.columns[1] - spot.columns[0])
    rows = slice(max(spot.rows[0] - reach, 0), spot.rows[1] + reach)
    columns = slice(max(spot.columns[0] - reach, 0), spot.columns[1] + reach)
    if spot.fingerprint is None:
        return resample(read_section(spot.path), spot.factors())[rows, columns], rows.start, columns.start
    return _read_plane(open_volume(spot.path), spot, rows, columns), rows.start, columns.start


def _read_plane(volume: Volume, spot: Spot, rows: slice, columns: slice) -> UInt8Array:
    assert isinstance(spot.section, naming.VolumeSection)
    if volume.sequential and volume.size > LARGEST_PACKED:
        raise InputError(
            volume.path, "a volume of which a part can be read", f"a packed one of {volume.size:,} voxels",
            "unpack it to see patches in their surroundings",
        )  # fmt: skip
    if spot.limits is None and needs_measuring(volume.dtype):
        advice = "keep the patches beside their table, which has them"
        raise InputError(volume.path, "grey limits of its patches", f"a volume of {volume.dtype} only", advice)
    height, width = resampled_shape(section_shape(volume, spot.section.plane), spot.factors())
    down, across = (rows.start, min(rows.stop, height)), (columns.start, min(columns.stop, width))
    return read_window(volume, spot, down, across, spot.limits)


def _table_of(path: str) -> Path:
    member = split_member(path)
    directory = os.path.dirname(member[0] if member else path)  # noqa: PTH120
    section = naming.strip_extension(_file_name(path)).partition(naming.MARK)[0]
    return Path(directory) / f"{section}{TABLE_SUFFIX}"


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
