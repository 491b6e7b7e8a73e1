"""What microscopes and their programs write into TIFFs of the size of a pixel and of what was scanned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emcurate.images.units import METRE_NM, nanometres_per

# Tags that Gatan's DigitalMicrograph writes: the unit of columns and rows, and what one of them measures.
_GATAN_UNITS = (65004, 65003)
_GATAN_SIZES = (65010, 65009)

# Zeiss gives the size of a pixel for a picture of so many columns where it does not give that of the image.
_ZEISS_COLUMNS = 1024


@dataclass(frozen=True)
class Said:
    """What a file says of an image's scale.

    Attributes
    ----------
    by : str
        What says so; without a size, why there is none.
    size_nm : (y, x), optional
    scan : (rows, columns), optional
        Of what was scanned; an info bar below it is not counted.
    """

    by: str
    size_nm: tuple[float, float] | None = None
    scan: tuple[int, int] | None = None


def checked_size(y: float, x: float) -> tuple[float, float] | None:
    """Return a pixel size (y, x), or None if either is zero, negative or no number."""
    return (y, x) if all(math.isfinite(side) and side > 0 for side in (y, x)) else None


def read_fei(tiff: Any, page: Any) -> Said | None:
    """Return what FEI's and Thermo Fisher's SEMs say: the scan's pixels, in metres, and how many there are."""
    sections = tiff.fei_metadata
    if not sections:
        return None
    scan = sections.get("Scan") or sections.get(str((sections.get("Beam") or {}).get("Scan"))) or {}
    size = checked_size(*(_number(scan.get(name)) * METRE_NM for name in ("PixelHeight", "PixelWidth")))
    image = sections.get("Image") or {}
    rows, columns = (_count(image.get(name)) for name in ("ResolutionY", "ResolutionX"))
    # The height of the bar stands in the file too: a number that contradicts it means that the image was changed.
    bar = _count((sections.get("PrivateFei") or {}).get("DatabarHeight"))
    if bar and rows and page.imagelength - rows not in (0, bar):
        rows = page.imagelength
    by = "FEI metadata" if size else "FEI metadata without the size of a pixel"
    return Said(by, size, (rows, columns) if rows and columns else None)


def read_zeiss(tiff: Any, page: Any) -> Said | None:
    """Return what Zeiss SEMs say: the image's pixels, or those of a picture of 1024 columns."""
    metadata = tiff.sem_metadata
    if not metadata:
        return None
    stored = metadata.get("dp_image_store")
    scan = None
    if stored is not None:
        sides = str(stored[1]).replace(" ", "").split("*")
        columns, rows = (_count(side) for side in sides) if len(sides) == 2 else (0, 0)
        scan = (rows, columns) if rows and columns else None
    size = _zeiss_length(metadata.get("ap_image_pixel_size"))
    if math.isnan(size):
        size = _zeiss_length(metadata.get("ap_pixel_size")) * _ZEISS_COLUMNS / page.imagewidth
    found = checked_size(size, size)
    return Said("Zeiss metadata" if found else "Zeiss metadata without the size of a pixel", found, scan)


def read_tvips(tiff: Any, page: Any) -> Said | None:
    """Return what TVIPS cameras say: the pixel size in nanometres."""
    metadata = tiff.tvips_metadata
    if not metadata:
        return None
    size = checked_size(*(_number(metadata.get(name)) for name in ("PixelSizeY", "PixelSizeX")))
    columns, rows = (_count(metadata.get(name)) for name in ("ImageSizeX", "ImageSizeY"))
    return size and Said("TVIPS metadata", size, (rows, columns) if rows and columns else None)


def read_sis(tiff: Any, page: Any) -> Said | None:
    """Return what Olympus SIS' iTEM says: the pixel size in metres."""
    metadata = tiff.sis_metadata
    if not metadata:
        return None
    size = checked_size(*(_number(metadata.get(name)) * METRE_NM for name in ("pixelsizey", "pixelsizex")))
    return size and Said("Olympus SIS metadata", size)


def read_gatan(tiff: Any, page: Any) -> Said | None:
    """Return what Gatan's DigitalMicrograph says: columns and rows in a unit, which may be one of diffraction."""
    units = [nanometres_per(str(page.tags.valueof(tag, default=""))) for tag in _GATAN_UNITS]
    sizes = [_number(page.tags.valueof(tag)) for tag in _GATAN_SIZES]
    if None in units:
        return None
    size = checked_size(*(value * (unit or math.nan) for value, unit in zip(sizes, units, strict=True)))
    return size and Said("DigitalMicrograph tags", size)


# In the order in which they are asked. Each takes an open TIFF file and the page of the image.
INSTRUMENTS: tuple[Callable[[Any, Any], Said | None], ...] = (read_fei, read_zeiss, read_tvips, read_sis, read_gatan)


def _number(value: Any) -> float:
    """Return a number as it is, anything else as NaN."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _count(value: Any) -> int:
    """Return a positive whole number, also one in words, anything else as 0."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() else 0


def _zeiss_length(entry: Any) -> float:
    """Return an entry of name, value and unit in nanometres, NaN if it is no positive length."""
    if not isinstance(entry, tuple) or len(entry) != 3:
        return math.nan
    length = _number(entry[1]) * (nanometres_per(str(entry[2])) or math.nan)
    return length if length > 0 else math.nan
