"""TIFF stacks: plain, ImageJ, OME and BigTIFF, compressed or not; grey, RGB or palette."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from emcurate.errors import InputError, describe_damage
from emcurate.files import check_regular
from emcurate.images.calibration import resolution_steps
from emcurate.images.reading import check_plausible
from emcurate.images.tiff_directories import TYPE_BYTES, Directories, Numbers, follow_pages, read_directories
from emcurate.images.tiff_files import TIFF_DAMAGE, open_tiff, parse_ome
from emcurate.images.tiff_pages import (
    check_colours,
    check_pages_complete,
    check_tiff_complete,
    grey_type_of_page,
    is_auxiliary_page,
    page_at,
    read_grey_page,
)
from emcurate.images.units import nanometres_per
from emcurate.volumes.layouts import (
    COPY_AGAIN,
    FlatFile,
    Opened,
    Shape,
    Voxels,
    check_side_lengths,
    checked_voxel_size,
    describe_shape,
    read_by_planes,
)
from emcurate.writing import create_for_arrays

_PLANE_AXES = frozenset("YXS")
_ONE_STACK = "save one stack of equal pages a file"
_ONE_VOLUME = "save one channel and one time point a file"

# Classic TIFF holds 4 GiB; up to half of that, more frames than announced still fit.
CLASSIC_TIFF_BYTES = 1 << 31

# Where in a file that tifffile wrote the description of its first page lies at the latest.
IMAGEJ_HEAD_BYTES = 4096

# An entry of a directory begins with two numbers of 16 bits, the tag's and its type's; then come count and value.
TAG_AND_TYPE_BYTES = 4

# Pages at most of a file whose pages differ, or are described by ImageJ or OME: tifffile makes an object of each, and
# takes half a minute for more.
MOST_LISTED_PAGES = 1 << 17

# Ways in which the pixels of pages may be laid out that are compared when a file is opened; others are when read.
MOST_KINDS = 100

# What tifffile finds of files in which all pages are one stack nevertheless.
_PLAIN_FLAGS = {"multipage", "shaped", "uniform", "ndtiff"}


@dataclass(frozen=True)
class TiffPages:
    """Pages that must be decoded: compressed, palette, white-is-zero, or scattered over the file in strips.

    `indices` are those of the pages in the file, in order of z.
    """

    path: Path
    shape: Shape
    dtype: np.dtype[Any]
    indices: Sequence[int]

    random_access = False
    sequential = False

    def read(self, z: slice, y: slice, x: slice) -> npt.NDArray[Any]:
        """Return the voxels of a box, (z, y, x)."""
        return read_by_planes(self, z, y, x)

    def iter_planes(self, start: int, stop: int) -> Iterator[npt.NDArray[Any]]:
        _, height, width = self.shape
        with open_tiff(self.path) as tiff:
            offsets = follow_pages(self.path, tiff.tiff)
            for z in range(start, stop):
                try:
                    page = page_at(tiff, offsets, self.indices[z])
                    check_tiff_complete(self.path, [page])
                    plane = read_grey_page(self.path, page, threads=1)
                except InputError:
                    raise
                except TIFF_DAMAGE as error:
                    expected = "pages that can be decoded"
                    raise describe_damage(error, self.path, expected, COPY_AGAIN, f" at slice {z}") from None
                if plane.size != height * width or plane.dtype.newbyteorder("=") != self.dtype:
                    expected = f"{height} × {width} pixels of {self.dtype} a slice"
                    found = f"{describe_shape(plane.shape)} of {plane.dtype} in slice {z}"
                    raise InputError(self.path, expected, found, COPY_AGAIN)
                yield plane.reshape(self.shape[1:]).astype(self.dtype, copy=False)


def open_voxels(path: Path) -> Opened:
    """Open a TIFF stack; read its directories only."""
    if not check_regular(path).stat().st_size:
        raise InputError(path, "a TIFF stack", "an empty file (0 bytes)", COPY_AGAIN)
    try:
        with open_tiff(path) as tiff:
            directories = read_directories(path, tiff.tiff)
            _check_directories(path, tiff, directories)
            stack = _plain_stack(tiff, directories) or _find_stack(path, tiff, directories)
            size = _imagej_voxel_size(tiff, stack.page) if tiff.is_imagej else _ome_voxel_size(tiff)
            return Opened(_find_voxels(path, tiff, stack, directories), size)
    except InputError:
        raise
    except TIFF_DAMAGE as error:
        raise describe_damage(error, path, "a readable TIFF stack", COPY_AGAIN) from None


def is_single_image(path: Path) -> bool:
    """Return whether a file is a readable TIFF with one 2D image in it, and no volume of a single slice."""
    try:
        with open_tiff(path) as tiff:
            pages = list(islice((page for page in tiff.pages if not is_auxiliary_page(page)), 2))
            one = len(pages) == 1 and max(_depth(series) for series in tiff.series) == 1
            return one and _declared_shape(tiff) is None
    except (*TIFF_DAMAGE, InputError):
        return False


def write_stack(
    path: Path,
    planes: Iterable[npt.NDArray[Any]],
    voxel_size_nm: tuple[float, float, float] | None,
    expected_bytes: int | None,
) -> int:
    """Write (y, x) planes as they come, with ImageJ's metadata; return how many there were.

    They are uint8, int16, uint16 or float32. Without any, no file is made. A stack expected to be large, or of which
    nothing is known, becomes a BigTIFF.
    """
    big = expected_bytes is None or expected_bytes > CLASSIC_TIFF_BYTES
    z, y, x = voxel_size_nm or (1.0, 1.0, 1.0)
    depth = 0
    with contextlib.ExitStack() as stack:
        writer: Any = None
        for plane in planes:
            if writer is None:
                file = stack.enter_context(create_for_arrays(path))
                writer = stack.enter_context(tifffile.TiffWriter(file, bigtiff=big))
            writer.write(
                plane,
                contiguous=True,
                photometric="minisblack",
                resolution=(1 / x, 1 / y),
                resolutionunit="none",
                description=_imagej_description(0, None if voxel_size_nm is None else z),
                metadata=None,
                software=False,
            )
            depth += 1
    if depth:
        # ImageJ's text comes before the pixels but holds their number, known only now.
        with open(path, "r+b") as file:
            head = file.read(IMAGEJ_HEAD_BYTES)
            position = head.index(b"ImageJ=")
            file.seek(position)
            file.write(_imagej_description(depth, None if voxel_size_nm is None else z).encode("ascii"))
    return depth


def _imagej_description(depth: int, spacing_nm: float | None) -> str:
    """Return ImageJ's description of a stack, of a length that does not depend on the depth."""
    lines = ["ImageJ=1.11a", f"images={depth:<10}", f"slices={depth:<10}", "loop=false"]
    if spacing_nm is not None:
        lines += ["unit=nm", f"spacing={spacing_nm!r}"]
    return "\n".join([*lines, ""])


@dataclass(frozen=True)
class _Stack:
    """Pages that are one volume.

    `page` is the first of them, `pages` their places in the file's list, and `dataoffset` where their pixels begin if
    those follow one another without a gap, all of one page's that stands for many among them.
    """

    page: Any
    axes: str
    shape: tuple[int, ...]
    dtype: Any
    pages: Sequence[int]
    dataoffset: int | None


def _check_directories(path: Path, tiff: tifffile.TiffFile, directories: Directories) -> None:
    """Raise `InputError` if directories, or what the first says of the image, lie outside the file.

    tifffile would give a shorter stack, or one without its voxel size, instead.
    """
    if not len(directories.offsets):
        raise InputError(path, "a TIFF stack", "no image in it", COPY_AGAIN)
    size = path.stat().st_size
    if max(_ends_of_values(tiff), default=0) > size:
        raise InputError(path, "a complete TIFF file", f"tags that go on after its {size:,} bytes", COPY_AGAIN)


def _ends_of_values(tiff: tifffile.TiffFile) -> Iterator[int]:
    """Yield where in the file the values of the first directory's tags end, those that do not fit into the tag."""
    form, file = tiff.tiff, tiff.filehandle
    file.seek(tiff.pages.first.offset)
    tags = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
    entries = file.read(tags * form.tagsize)
    for start in range(0, len(entries), form.tagsize):
        entry = entries[start : start + form.tagsize]
        kind = struct.unpack(form.tagformat1, entry[:TAG_AND_TYPE_BYTES])[1]
        count = struct.unpack_from(form.offsetformat, entry, TAG_AND_TYPE_BYTES)[0]
        length = count * TYPE_BYTES.get(kind, 0)
        if length > form.offsetsize:
            yield struct.unpack_from(form.offsetformat, entry, TAG_AND_TYPE_BYTES + form.offsetsize)[0] + length


def _plain_stack(tiff: tifffile.TiffFile, directories: Directories) -> _Stack | None:
    """Return all pages as one stack where they are alike and nothing says otherwise; None where tifffile must judge.

    It would say the same, with an object for each page.
    """
    page, count = tiff.pages.first, len(directories.offsets)
    if count < 2 or not (directories.is_simple and directories.are_alike()) or is_auxiliary_page(page):
        return None
    if any(getattr(tiff, f"is_{flag}") for flag in tifffile.TIFF.FILE_FLAGS - _PLAIN_FLAGS):
        return None
    shape = (count, *page.shape)
    if tiff.is_shaped and tuple(_read_shaped(page).get("shape", ())) != shape:
        return None
    return _Stack(page, f"I{page.axes}", shape, page.dtype, range(count), None)


def _read_shaped(page: Any) -> dict[str, Any]:
    """Return what tifffile noted of an array in the description of a page."""
    try:
        found = json.loads(page.shaped_description)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("shape"), list) else {}


def _find_stack(path: Path, tiff: tifffile.TiffFile, directories: Directories) -> _Stack:
    """Return the one series of pages that is the volume; thumbnails and smaller copies are left out."""
    if len(directories.offsets) > MOST_LISTED_PAGES:
        advice = "save it as one .mrc or .nrrd, or in several files"
        raise InputError(path, f"at most {MOST_LISTED_PAGES:,} pages that differ or are described", "more", advice)
    found = [s for s in tiff.series if s.pages and s.pages[0] is not None and not is_auxiliary_page(s.pages[0])]
    if len(found) != 1:
        shapes = ", ".join(describe_shape(series.shape) for series in found[:3]) or "none"
        raise InputError(path, "one stack of equal pages", f"{len(found)} ({shapes}, ...)", "save one stack a file")
    series = found[0]
    if any(page is None for page in series.pages):
        missing = sum(page is None for page in series.pages)
        raise InputError(
            path, f"{len(series.pages)} pages, as its OME description says", f"{missing} missing", COPY_AGAIN
        )
    pages = tuple(page.index for page in series.pages if page is not None)
    if not all(isinstance(index, int) for index in pages):
        raise InputError(path, "pages in one list", "pages within pages", "export it as a plain stack")
    in_order = range(pages[0], pages[0] + len(pages))
    return _Stack(
        series.keyframe.aspage(),
        series.axes,
        series.shape,
        series.dtype,
        in_order if tuple(in_order) == pages else pages,
        series.dataoffset,
    )


def _depth(series: Any) -> int:
    """Return how many planes a stack, or tifffile's series, has."""
    return math.prod(size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in _PLANE_AXES)


def _find_voxels(path: Path, tiff: tifffile.TiffFile, stack: _Stack, directories: Directories) -> Voxels:
    """Return how the pages of a stack lie in the file."""
    page = stack.page
    long = [(a, n) for a, n in zip(stack.axes, stack.shape, strict=True) if a not in _PLANE_AXES and n > 1]
    # A single axis beside the plane is z whatever its label: ImageJ calls the slices of a film T, tifffile those
    # of an array without named axes C.
    if len(long) > 1:
        what = ", ".join(f"{axis} {size}" for axis, size in zip(stack.axes, stack.shape, strict=True))
        raise InputError(path, "a grey volume (z, y, x)", f"a stack of more axes ({what})", _ONE_VOLUME)
    depth = _depth(stack)
    shape = check_side_lengths(path, (depth, page.imagelength, page.imagewidth))
    if depth == 1:
        declared = _declared_shape(tiff)
        if declared is None or (declared != shape and not page.is_final):
            raise InputError(
                path, "a stack of slices", "a single 2D image", "move it to the 2D corpus and run raw/cleanup2d.py"
            )
        shape = check_side_lengths(path, declared)
    if stack.dtype is None:
        raise InputError(path, "pixels of a number type", f"{page.bitspersample} bits a pixel", "export it again")
    check_colours(path, page)
    pages = directories.of(stack.pages)
    flat = _find_flat(path, tiff, stack, shape, pages)
    if flat is not None:
        return flat.check_complete()
    if len(stack.pages) != depth:
        raise InputError(
            path, f"{depth} pages of {describe_shape(shape[1:])}", f"{len(stack.pages)}", "export it as a plain stack"
        )
    check_pages_complete(path, tiff, pages)
    check_plausible(path, page.nbytes * depth)
    dtype = grey_type_of_page(path, page)
    _check_same_type(path, tiff, page, dtype, pages)
    return TiffPages(path, shape, dtype.newbyteorder("="), stack.pages)


def _check_same_type(path: Path, tiff: tifffile.TiffFile, first: Any, dtype: np.dtype[Any], pages: Directories) -> None:
    """Raise `InputError` if pages that are laid out differently are of other sizes or types too."""
    kinds, slices = np.unique(pages.kinds, return_index=True)
    for z in slices[kinds >= 0][:MOST_KINDS]:
        page = page_at(tiff, pages.offsets, int(z))
        height, width, found = page.imagelength, page.imagewidth, grey_type_of_page(path, page)
        if (height, width, found) != (first.imagelength, first.imagewidth, dtype):
            expected = f"pages of {first.imagelength} × {first.imagewidth} pixels of {dtype}, as the first"
            raise InputError(path, expected, f"{height} × {width} of {found} in slice {z}", _ONE_STACK)


def _find_flat(path: Path, tiff: tifffile.TiffFile, stack: _Stack, shape: Shape, pages: Directories) -> FlatFile | None:
    """Return the layout of voxels that lie uncompressed in the file, or None where pages must be decoded."""
    page = stack.page
    channels = page.samplesperpixel if page.samplesperpixel > 1 else 0
    interleaved = not channels or page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    stored = stack.dtype.newbyteorder(tiff.byteorder)
    if not (plain and interleaved and page.is_final and page.bitspersample == 8 * stored.itemsize):
        return None
    if len(stack.pages) == 1 and stack.dataoffset is not None:
        return FlatFile(path, shape, stored, (int(stack.dataoffset),), channels)
    if len(pages.starts) != shape[0] or not pages.are_alike() or pages.starts.min() < 0:
        return None
    check_pages_complete(path, tiff, pages)
    step = shape[1] * shape[2] * max(channels, 1) * stored.itemsize
    offsets = _as_range(pages.starts)
    in_one = isinstance(offsets, range) and offsets.step == step
    return FlatFile(path, shape, stored, (offsets[0],) if in_one else offsets, channels)


def _as_range(numbers: Numbers) -> Sequence[int]:
    """Return numbers as a range where they are one, which takes less room on the way to workers, or as a tuple."""
    steps = np.diff(numbers)
    if len(steps) and steps[0] and (steps == steps[0]).all():
        return range(int(numbers[0]), int(numbers[-1] + steps[0]), int(steps[0]))
    return tuple(numbers.tolist())


def _declared_shape(tiff: tifffile.TiffFile) -> tuple[int, int, int] | None:
    """Return the volume's shape that a file of one page says it holds; None where it is a 2D image.

    tifffile notes the shape, which need not be the page's: a volume of (5, 9, 1) is written as a page of 5 × 9. In
    ImageJ's description ``slices=1``, which neither ImageJ nor tifffile writes of an image, declares a stack of one
    slice; `write_stack` does.
    """
    page = tiff.pages.first
    if tiff.is_imagej and (tiff.imagej_metadata or {}).get("slices") == 1:
        return 1, page.imagelength, page.imagewidth
    shape = (tiff.shaped_metadata or ({},))[0].get("shape", ())
    if len(shape) != 3 or page.samplesperpixel != 1 or math.prod(shape) != page.imagelength * page.imagewidth:
        return None
    return shape[0], shape[1], shape[2]


def _imagej_voxel_size(tiff: tifffile.TiffFile, page: Any) -> tuple[float, float, float] | None:
    """Return the voxel size (z, y, x) in nm: pixels per unit in the resolution tags, ``spacing`` in units."""
    metadata = tiff.imagej_metadata or {}
    unit = metadata.get("unit")
    scales = [nanometres_per(str(metadata.get(name, unit))) for name in ("zunit", "yunit", "unit")]
    if None in scales:
        return None
    z_scale, y_scale, x_scale = (float(scale) for scale in scales if scale is not None)
    y_step, x_step = resolution_steps(page)
    spacing = metadata.get("spacing", 0)
    depth = float(spacing) if isinstance(spacing, (int, float)) else 0.0
    return checked_voxel_size((depth * z_scale, y_step * y_scale, x_step * x_scale))


def _ome_voxel_size(tiff: tifffile.TiffFile) -> tuple[float, float, float] | None:
    """Return the voxel size (z, y, x) in nm: ``PhysicalSize`` of the first image, in micrometres unless it says."""
    root = parse_ome(tiff)
    pixels = None if root is None else root.find(".//{*}Pixels")
    if pixels is None:
        return None
    sizes = []
    for axis in "ZYX":
        scale = nanometres_per(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            sizes.append(float(pixels.get(f"PhysicalSize{axis}", "nan")) * (scale or math.nan))
        except ValueError:
            return None
    return checked_voxel_size((sizes[0], sizes[1], sizes[2]))
