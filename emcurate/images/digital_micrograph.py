"""Gatan DigitalMicrograph's ``.dm3`` and ``.dm4``: a tree of tags, among them the pixels.

Written from descriptions of the format that are public, such as that of Greg Jefferis,
https://imagej.net/ij/plugins/DM3Format.gj.html, and that of ncempy. DM4 has 64 bits where DM3 has 32.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import open_regular
from emcurate.images.recorded import COPY_AGAIN, Recorded
from emcurate.images.units import nanometres_per

DM_SUFFIXES = (".dm3", ".dm4")

_DM3, _DM4 = 3, 4
_GROUP, _DATA = 20, 21  # kinds of entries
_STRUCT, _STRING, _ARRAY = 15, 18, 20  # types of data that are made of others
_MARK = b"%%%%"

# Types of data that are one number.
_NUMBERS = {2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "u1", 9: "i1", 10: "i1", 11: "i8", 12: "u8"}

# Types of pixels, as DataType tells. Others are complex, or packed.
_PIXELS = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "?"}
_RGB = 23
_RGB_CHANNELS = 4  # blue, green, red, and one that says nothing
_COMPLEX = {3: "complex", 13: "complex", 5: "packed complex", 27: "packed complex", 28: "packed complex"}

# Texts are arrays of unsigned 16-bit numbers, as pixels may be; longer ones are none that matter here.
_LETTER, _LONGEST_TEXT = 4, 256
_PIXEL_DATA = "Data"

# A file has a few thousand entries, a dozen deep; more are those of a damaged one.
MOST_ENTRIES = 1 << 20
MOST_DEPTH = 64

_SAVE_AS_TIFF = "save it as TIFF in DigitalMicrograph"


@dataclass(frozen=True)
class _Numbers:
    """An array in the file; `dtype` None where its elements are made of several numbers."""

    offset: int
    count: int
    dtype: np.dtype[Any] | None


def open_dm(path: Path) -> Recorded:
    """Return where the image or the stack of a DM3 or DM4 file is; only its tags are read.

    Raises
    ------
    InputError
        If the file is none, damaged, or holds spectra, complex numbers, or several images beside their thumbnail.
    """
    try:
        with open_regular(path) as file:
            root, order = _read_tree(path, file)
        return _find_image(path, root, order)
    except InputError:
        raise
    except DAMAGE as error:
        raise describe_damage(error, path, "a DM3 or DM4 file", COPY_AGAIN) from None


def _read_tree(path: Path, file: BinaryIO) -> tuple[dict[str, Any], str]:
    head = file.read(16)
    (version,) = struct.unpack_from(">I", head)
    if version not in (_DM3, _DM4):
        raise InputError(path, "a DM3 or DM4 file", f"one that starts with {head[:4]!r}", "check what the file is")
    (little,) = struct.unpack_from(">I", head, 8 if version == _DM3 else 12)
    file.seek(12 if version == _DM3 else 16)
    order = "<" if little else ">"
    tree = _Tree(path, file, struct.Struct(">I" if version == _DM3 else ">Q"), order, path.stat().st_size)
    return tree.read_group(0), order


class _Tree:
    """Reads the tags of a file one after another."""

    def __init__(self, path: Path, file: BinaryIO, long: struct.Struct, order: str, size: int) -> None:
        self._path, self._file, self._long, self._order, self._size = path, file, long, order, size
        self._entries = 0

    def read_group(self, depth: int) -> dict[str, Any]:
        """Return the entries of a group by their names, or by their numbers where they have none."""
        if depth > MOST_DEPTH:
            raise InputError(self._path, f"groups at most {MOST_DEPTH} deep", "deeper ones", COPY_AGAIN)
        self._read(2)  # whether it is sorted and whether it is open
        group: dict[str, Any] = {}
        for number in range(self._count()):
            self._entries += 1
            if self._entries > MOST_ENTRIES:
                raise InputError(self._path, f"at most {MOST_ENTRIES:,} tags", "more", COPY_AGAIN)
            kind, length = struct.unpack(">BH", self._read(3))
            name = self._read(length).decode("latin-1") or str(number)
            if self._long.size == 8:
                self._count()  # bytes up to the next entry
            if kind == _GROUP:
                group[name] = self.read_group(depth + 1)
            elif kind == _DATA:
                group[name] = self._read_value(may_be_text=name != _PIXEL_DATA)
            else:
                raise InputError(self._path, "tags and groups of tags", f"an entry of kind {kind}", COPY_AGAIN)
        return group

    def _read_value(self, *, may_be_text: bool) -> Any:
        """Return a number, a text or an array, and None for anything else."""
        if self._read(len(_MARK)) != _MARK:
            raise InputError(self._path, "tags", "something else where one begins", COPY_AGAIN)
        count = self._count()
        if count * self._long.size > self._size:
            raise InputError(self._path, "a tag's type", f"one of {count:,} numbers", COPY_AGAIN)
        about = [value for (value,) in self._long.iter_unpack(self._read(count * self._long.size))]
        if about[0] in _NUMBERS and len(about) == 1:
            dtype = self._dtype(about[0])
            return np.frombuffer(self._read(dtype.itemsize), dtype)[0].item()
        if about[0] == _STRUCT:
            self._skip(self._size_of_struct(about[1:]))
            return None
        if about[0] == _STRING:
            self._skip(2 * about[1])
            return None
        if about[0] != _ARRAY:
            raise InputError(self._path, "a tag's type", f"type {about[0]}", COPY_AGAIN)
        if about[1] == _STRUCT:
            return self._skip_array(self._size_of_struct(about[2:-1]), about[-1], None)
        dtype = self._dtype(about[1])
        if may_be_text and about[1] == _LETTER and about[2] <= _LONGEST_TEXT:
            data = self._read(2 * about[2])
            return data.decode("utf-16-le" if self._order == "<" else "utf-16-be", "replace")
        return self._skip_array(dtype.itemsize, about[2], dtype)

    def _skip_array(self, itemsize: int, count: int, dtype: np.dtype[Any] | None) -> _Numbers:
        offset = self._file.tell()
        self._skip(itemsize * count)
        return _Numbers(offset, count, dtype)

    def _size_of_struct(self, about: list[int]) -> int:
        # The length of its name, the number of its fields, and of each the length of its name and its type.
        return sum(self._dtype(kind).itemsize for kind in about[3 : 3 + 2 * about[1] : 2])

    def _dtype(self, kind: int) -> np.dtype[Any]:
        return np.dtype(self._order + _NUMBERS[kind])

    def _count(self) -> int:
        return int(self._long.unpack(self._read(self._long.size))[0])

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise InputError(self._path, "a complete file", f"one that ends after {self._size:,} bytes", COPY_AGAIN)
        return data

    def _skip(self, size: int) -> None:
        if self._file.seek(size, 1) > self._size:
            raise InputError(self._path, "a complete file", f"one that ends after {self._size:,} bytes", COPY_AGAIN)


def _find_image(path: Path, root: Mapping[str, Any], order: str) -> Recorded:
    thumbnails = {thumbnail.get("ImageIndex") for thumbnail in root.get("Thumbnails", {}).values()}
    held = {
        int(number): image
        for number, image in root["ImageList"].items()
        if isinstance(image.get("ImageData", {}).get(_PIXEL_DATA), _Numbers)
    }
    # A thumbnail alone is the image after all.
    found = [image for number, image in held.items() if number not in thumbnails] or list(held.values())
    if len(found) > 1:
        found = [image for image in found if len(_sides(image)) > 1] or found
    if len(found) != 1:
        raise InputError(path, "one image", f"{len(found)}", f"save each by itself, or {_SAVE_AS_TIFF}")
    data, sides = found[0]["ImageData"], _sides(found[0])
    form = str(found[0].get("ImageTags", {}).get("Meta Data", {}).get("Format", ""))
    calibrations = data.get("Calibrations", {}).get("Dimension", {})
    axes = [calibrations.get(str(number), {}) for number in range(len(sides))]
    units = [str(axis.get("Units") or "") for axis in axes]
    spectra = form.lower().startswith("spectrum") or any(unit.strip().lower() in ("ev", "kev") for unit in units)
    if spectra or len(sides) not in (2, 3):
        what = " x ".join(f"{side} {unit}".strip() for side, unit in zip(sides, units, strict=True))
        raise InputError(path, "an image or a stack of images", f"spectra or more axes ({what})", _SAVE_AS_TIFF)
    kind, channels = int(data["DataType"]), 0
    if kind in _PIXELS:
        dtype = np.dtype(order + _PIXELS[kind])
    elif kind == _RGB:
        dtype, channels = np.dtype(np.uint8), _RGB_CHANNELS
    else:
        what = f"{_COMPLEX.get(kind, f'type {kind}')} pixels"
        raise InputError(path, "pixels that are one number", what, _SAVE_AS_TIFF)
    pixels: _Numbers = data[_PIXEL_DATA]
    stored = pixels.count * (pixels.dtype.itemsize if pixels.dtype is not None else 0)
    needed = math.prod(sides) * max(1, channels) * dtype.itemsize
    if stored < needed:
        raise InputError(path, f"{needed:,} bytes of pixels", f"{stored:,} bytes", COPY_AGAIN)
    x, y, *z = [_nanometres(axis, unit) for axis, unit in zip(axes, units, strict=True)]
    shape = (sides[2] if len(sides) == 3 else 1, sides[1], sides[0])
    size = (z[0] if z else None, y, x)
    return Recorded(path, shape, dtype, (pixels.offset,), channels, size, "DigitalMicrograph")


def _sides(image: Mapping[str, Any]) -> list[int]:
    """Return an image's sides, the fastest first; axes of a single pixel after the second say nothing."""
    found = image["ImageData"]["Dimensions"]
    sides = [int(found[number]) for number in sorted(found, key=int)]
    while len(sides) > 2 and sides[-1] == 1:
        sides.pop()
    return sides


def _nanometres(axis: Mapping[str, Any], unit: str) -> float | None:
    scale, per_unit = axis.get("Scale"), nanometres_per(unit)
    if not isinstance(scale, (int, float)) or per_unit is None or not scale > 0:
        return None
    return float(scale) * per_unit
