"""Text files that microscopes write beside their images: Hitachi's and JEOL's tell the size of a pixel."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Mapping
from pathlib import Path

from emcurate.errors import InputError
from emcurate.files import open_regular
from emcurate.images.instruments import Said, checked_size
from emcurate.images.units import nanometres_per

SIDECAR_SUFFIX = ".txt"

# What is read of one: they have a few thousand bytes.
MOST_SIDECAR_BYTES = 1 << 16

# How Hitachi's begin, and the keys of JEOL's.
_HITACHI = ("[SemImageFile]", "[TemImageFile]")
_JEOL_BAR, _JEOL_MARKER, _JEOL_SIZE = "$$SM_MICRON_BAR", "$$SM_MICRON_MARKER", "$CM_FULL_SIZE"
_JEOL_START = "$CM_"

# A length such as "1um" or "100 nm".
_LENGTH = re.compile(r"\s*([0-9.]+)\s*(\S+)\s*")


def read_sidecar(path: Path) -> Said | None:
    """Return what a text file says of the scale of the image that it lies beside; None if it is no microscope's."""
    lines = [line.strip() for line in _read_text(path).splitlines()]
    if any(line in _HITACHI for line in lines):
        return _read_hitachi(dict(line.split("=", 1) for line in lines if "=" in line))
    pairs = dict(line.split(None, 1) for line in lines if line.startswith("$") and len(line.split(None, 1)) == 2)
    return _read_jeol(pairs) if any(key.startswith(_JEOL_START) for key in pairs) else None


def is_sidecar(path: Path) -> bool:
    """Return whether a text file is one that a microscope wrote beside its image."""
    try:
        return read_sidecar(path) is not None
    except (InputError, OSError):
        return False


def _read_hitachi(pairs: Mapping[str, str]) -> Said:
    size = _number(pairs.get("PixelSize"))  # in nm
    columns, _, rows = pairs.get("DataSize", "").lower().partition("x")
    found = checked_size(size, size)
    return Said(
        "Hitachi's text file" if found else "Hitachi's text file without a pixel size", found, _sides(rows, columns)
    )


def _read_jeol(pairs: Mapping[str, str]) -> Said:
    bar, marker = _number(pairs.get(_JEOL_BAR)), _LENGTH.fullmatch(pairs.get(_JEOL_MARKER, ""))
    length = math.nan if marker is None else _number(marker[1]) * (nanometres_per(marker[2]) or math.nan)
    found = checked_size(length / bar, length / bar) if bar else None
    columns, _, rows = pairs.get(_JEOL_SIZE, "").partition(" ")
    return Said("JEOL's text file" if found else "JEOL's text file without a scale bar", found, _sides(rows, columns))


def _sides(rows: str, columns: str) -> tuple[int, int] | None:
    sides = [int(side) if side.strip().isdecimal() and side.isascii() else 0 for side in (rows, columns)]
    return (sides[0], sides[1]) if all(sides) else None


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _read_text(path: Path) -> str:
    with open_regular(path) as file:
        data = file.read(MOST_SIDECAR_BYTES)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
