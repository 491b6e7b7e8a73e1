"""What a 2D image's file says of its scale: the size of a pixel, and how much of the image was scanned.

Microscopes leave it in their own tags or in a text file beside the image; ImageJ and OME-TIFF have a unit. What only
screens, printers and scanners mean, a resolution of 72, 96 or 300 dots an inch, is no pixel size.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from emcurate.errors import DAMAGE, InputError
from emcurate.files import open_regular
from emcurate.images.instruments import INSTRUMENTS, Said, checked_size
from emcurate.images.png_chunks import PNG_SIGNATURE
from emcurate.images.reading import TIFF_STARTS, TIFF_SUFFIXES
from emcurate.images.sidecars import read_sidecar
from emcurate.images.tiff_files import TIFF_DAMAGE, open_tiff, parse_ome
from emcurate.images.tiff_pages import is_auxiliary_page
from emcurate.images.units import INCH_NM, nanometres_per

PixelSize = tuple[float, float]

# Resolutions in inches or centimetres below this are those of screens, printers and scanners: 2.54 µm a pixel and more.
SCANNER_DPI = 10_000

# An info bar takes less of an image than this; fewer rows than the metadata tell are something else.
LARGEST_BAR = 0.25

# TIFF's unit of resolution (TIFF 6.0, section 8).
_UNITS = {2: "inch", 3: "cm"}

NOTHING = "no word of it in the files"

# In place of a number of rows to crop: those that the metadata tell of.
AUTO = "auto"


@dataclass(frozen=True)
class Calibration:
    """The scale of an image.

    Attributes
    ----------
    size_nm : (y, x), optional
        Of a pixel; None where it is unknown.
    said : str
        Who says so, or why it is unknown.
    bar_rows : int, optional
        Rows of the info bar below what was scanned; None where nothing tells of one. It may be burnt into the scan.
    """

    size_nm: PixelSize | None = None
    said: str = NOTHING
    bar_rows: int | None = None


def read_calibration(path: Path, shape: tuple[int, int], sidecar: Path | None = None) -> Calibration:
    """Read what a file says of the scale of its image; damaged metadata say nothing.

    Parameters
    ----------
    path : Path
    shape : (rows, columns)
        Of the image as it was read. Metadata of another width are those of the image before somebody changed it.
    sidecar : Path, optional
        The microscope's text file beside it; see `emcurate.images.sidecars`.
    """
    found: Said | None = None
    try:
        with open_regular(path) as file:
            head = file.read(len(PNG_SIGNATURE))
        if path.suffix.lower() in TIFF_SUFFIXES or head.startswith(TIFF_STARTS):
            found = _read_tiff(path)
        elif sidecar is None and head.startswith(PNG_SIGNATURE):
            found = _read_png(path)
        if sidecar is not None and (found is None or found.size_nm is None):
            found = read_sidecar(sidecar) or found
    except (*TIFF_DAMAGE, InputError):
        return Calibration(said="metadata that cannot be read")
    return Calibration() if found is None else _hold_against(found, shape)


def describe_calibrations(found: Mapping[Path, Calibration]) -> Iterator[str]:
    """Yield how the pixel sizes of images are known, or why not: a line a reason."""
    of_kind: dict[tuple[bool, str], list[Path]] = defaultdict(list)
    for path in sorted(found):
        of_kind[found[path].size_nm is None, found[path].said].append(path)
    for (unknown, said), paths in sorted(of_kind.items()):
        yield f"pixel size of {_count_images(paths)}: {f'unknown, {said}' if unknown else said}"


def describe_bars(found: Mapping[Path, tuple[Calibration, int]], crop_bar: str | int | None) -> Iterator[str]:
    """Yield what is worth knowing of info bars that were not cropped; with each image, the rows that were."""
    bars = [path for path in sorted(found) if found[path][0].bar_rows]
    whole = [path for path in sorted(found) if not found[path][1]]
    if crop_bar is None and bars:
        rows = found[bars[0]][0].bar_rows
        yield f"info bar below the scan in {_count_images(bars)}, {rows} rows; --crop-bar {AUTO} leaves it out"
    if crop_bar == AUTO and whole:
        yield f"left whole, since nothing tells of an info bar: {_count_images(whole)}; --crop-bar PIXELS crops any"


def _count_images(paths: Sequence[Path]) -> str:
    return f"{len(paths):,} images, such as {paths[0].name}" if len(paths) > 1 else paths[0].name


def resolution_steps(page: Any) -> tuple[float, float]:
    """Return the (y, x) size of a TIFF page's pixels in the unit of its resolution, 0 where there is none."""
    steps = []
    for name in ("YResolution", "XResolution"):
        numerator, denominator = page.tags.valueof(name, default=(0, 0))
        steps.append(denominator / numerator if numerator else 0.0)
    return steps[0], steps[1]


def _hold_against(found: Said, shape: tuple[int, int]) -> Calibration:
    rows, columns = shape
    if found.scan is None:
        return Calibration(found.size_nm, found.by)
    scan_rows, scan_columns = found.scan
    if scan_columns != columns:
        why = f"{found.by} of an image of another width, from before it was scaled or cropped"
        return Calibration(said=why)
    bar = rows - scan_rows
    return Calibration(found.size_nm, found.by, bar if 0 < bar <= rows * LARGEST_BAR else None)


def _read_tiff(path: Path) -> Said | None:
    with open_tiff(path) as tiff:
        page = next(itertools.islice((page for page in tiff.pages if not is_auxiliary_page(page)), 1), None)
        if page is None:
            return None
        page = page.aspage()
        without: Said | None = None
        for read in (*INSTRUMENTS, _read_imagej, _read_ome, _read_resolution):
            found = read(tiff, page)
            if found is not None and found.size_nm is not None:
                return found if without is None else replace(found, scan=found.scan or without.scan)
            without = without or found
        return without


def _read_imagej(tiff: Any, page: Any) -> Said | None:
    metadata = tiff.imagej_metadata if tiff.is_imagej else None
    if not metadata or "unit" not in metadata:
        return None
    y, x = resolution_steps(page)
    unit = str(metadata["unit"])
    scales = [nanometres_per(str(metadata.get(name, unit))) or math.nan for name in ("yunit", "unit")]
    return _doubt(checked_size(y * scales[0], x * scales[1]), unit, "ImageJ")


def _read_ome(tiff: Any, page: Any) -> Said | None:
    root = parse_ome(tiff)
    pixels = None if root is None else root.find(".//{*}Pixels")
    if pixels is None:
        return None
    sizes = [
        float(pixels.get(f"PhysicalSize{axis}", "nan"))
        * (nanometres_per(pixels.get(f"PhysicalSize{axis}Unit", "µm")) or math.nan)
        for axis in "YX"
    ]
    size = checked_size(*sizes)
    return None if size is None else Said("OME metadata", size)


def _read_resolution(tiff: Any, page: Any) -> Said | None:
    unit = _UNITS.get(int(page.tags.valueof("ResolutionUnit", default=2)))
    if unit is None or tiff.is_imagej:
        return None
    y, x = resolution_steps(page)
    scale = nanometres_per(unit) or math.nan
    return _doubt(checked_size(y * scale, x * scale), unit, "resolution tags")


def _read_png(path: Path) -> Said | None:
    # A PNG's resolution is in metres, where there is one; Pillow gives it in inches.
    try:
        with Image.open(path, formats=("PNG",)) as image:
            x, y = image.info.get("dpi", (0, 0))
    except DAMAGE:
        return None
    if not (x > 0 and y > 0):
        return None
    return _doubt(checked_size(INCH_NM / y, INCH_NM / x), "inch", "PNG resolution")


def _doubt(size: PixelSize | None, unit: str, by: str) -> Said | None:
    """Return what a resolution says, which in inches or centimetres is seldom of what the image shows."""
    if size is None:
        return None
    dpi = INCH_NM / size[1]
    if nanometres_per(unit) in map(nanometres_per, _UNITS.values()) and dpi < SCANNER_DPI:
        return Said(f"only a resolution of {dpi:.0f} dpi, which is that of a screen, printer or scanner")
    return Said(by, size)
