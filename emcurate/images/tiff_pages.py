"""One page of a TIFF file as grey, be it a 2D image or a slice of a stack, and whether its data are all there."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG, PREDICTOR

from emcurate.errors import InputError
from emcurate.images.colours import (
    BT601_LUMA,
    cielab_values,
    cmyk_to_rgb,
    icclab_values,
    join_subsampled,
    lab_to_rgb,
    ycbcr_to_rgb,
)
from emcurate.images.pixels import BLOCK_PIXELS, to_grey
from emcurate.images.tiff_directories import Directories, Numbers

AnyArray = npt.NDArray[Any]

# Of these compressions tifffile decodes YCbCr to red, green and blue by itself.
_JPEG_COMPRESSIONS = (COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.JPEG_LOSSY, COMPRESSION.ALT_JPEG)

# Value of the tag InkSet for any other inks than cyan, magenta, yellow and black (TIFF 6.0, section 16).
_OTHER_INKS = 2

# The channels that stand before any alpha, of each kind of colours that is converted.
CHANNELS = {
    PHOTOMETRIC.SEPARATED: ("cyan", "magenta", "yellow", "black"),
    PHOTOMETRIC.YCBCR: ("Y", "Cb", "Cr"),
    PHOTOMETRIC.CIELAB: ("L*", "a*", "b*"),
    PHOTOMETRIC.ICCLAB: ("L*", "a*", "b*"),
}

# Only these are colours. Of any other pixels each sample is a grey image of its own, unless the file calls it alpha.
_COLOURS = (PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE, *CHANNELS)
_ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)

# Where a file does not say: 2 × 2 pixels share their chroma (TIFF 6.0, section 21).
YCBCR_SUBSAMPLING = (2, 2)

_SAVE_AS_RGB = "save it as grey or RGB"


def check_tiff_complete(path: Path, pages: list[Any]) -> None:
    """Raise `InputError` if any strip or tile of these TIFF pages lies outside the file, is missing or not listed.

    tifffile fills missing data with zeros, which would pass for black pixels.
    """
    for page in pages:
        size = page.parent.filehandle.size
        if not page.is_contiguous and len(page.dataoffsets) < math.prod(page.chunked):
            expected = f"a TIFF file with all {math.prod(page.chunked):,} strips or tiles of a page"
            raise InputError(path, expected, f"{len(page.dataoffsets):,}", "copy it again")
        segments = zip(page.dataoffsets, page.databytecounts, strict=False)
        ends = [offset + count if offset and count else size + 1 for offset, count in segments]
        _check_end(path, max(ends, default=size + 1), size)


def check_pages_complete(path: Path, tiff: tifffile.TiffFile, pages: Directories) -> None:
    """Raise `InputError` as `check_tiff_complete` does, for any number of pages at once."""
    for index in np.flatnonzero(pages.ends < 0):
        check_tiff_complete(path, [page_at(tiff, pages.offsets, int(index))])
    _check_end(path, int(pages.ends.max()), tiff.filehandle.size)


def _check_end(path: Path, end: int, size: int) -> None:
    if end > size:
        found = f"pixel data that goes on after its {size:,} bytes"
        raise InputError(path, "a complete TIFF file", found, "copy it again")


def page_at(tiff: tifffile.TiffFile, offsets: Numbers, index: int) -> Any:
    """Return a page by its place in a list of where in the file directories begin."""
    tiff.filehandle.seek(int(offsets[index]))
    return tifffile.TiffPage(tiff, index=index)


def is_auxiliary_page(page: Any) -> bool:
    """Return whether a TIFF page is a thumbnail, a smaller copy or a mask of another page."""
    page = page.aspage()
    return bool(page.is_reduced or page.is_mask)


def check_colours(path: Path, page: Any) -> None:
    """Raise `InputError` for pixels that cannot be turned into grey, or not without more than the file says.

    Those are colours of unknown kinds, and several grey values a pixel, such as two detectors', not declared alpha.
    """
    kind = page.photometric
    if kind in (PHOTOMETRIC.ITULAB, PHOTOMETRIC.LOGL, PHOTOMETRIC.LOGLUV):
        raise InputError(path, "grey, RGB, CMYK, YCbCr or L*a*b* pixels", f"{kind.name} pixels", _SAVE_AS_RGB)
    if kind not in _COLOURS and page.samplesperpixel > 1 and not _is_grey_with_alpha(page):
        found = f"{page.samplesperpixel} samples a pixel that are no colours"
        raise InputError(path, "one grey value a pixel, beside alpha", found, "save one channel a file, colours as RGB")
    if _rgb_converter(page) is None:
        return
    other_inks = kind == PHOTOMETRIC.SEPARATED and page.tags.valueof("InkSet", default=1) == _OTHER_INKS
    if other_inks or page.samplesperpixel < len(CHANNELS[kind]):
        found = f"{page.samplesperpixel} others"
        raise InputError(path, f"the channels {', '.join(CHANNELS[kind])}", found, _SAVE_AS_RGB)
    if page.dtype not in (np.uint8, np.uint16):
        raise InputError(path, f"{kind.name} pixels of 8 or 16 bits", f"{page.dtype} pixels", _SAVE_AS_RGB)
    if _is_subsampled(page) and (
        page.is_tiled
        or page.dtype != np.uint8
        or page.predictor != PREDICTOR.NONE
        or page.planarconfig != PLANARCONFIG.CONTIG
        or page.samplesperpixel != len(CHANNELS[kind])
    ):
        expected = "YCbCr whose chroma stands for several pixels in plain 8-bit strips"
        raise InputError(path, expected, "it in tiles, planes or of another type", _SAVE_AS_RGB)


def read_grey_page(path: Path, page: Any, *, threads: int | None = None) -> AnyArray:
    """Decode a TIFF page, which must be complete, and return its grey; `threads` None leaves their number to tifffile.

    Palettes are looked up, colours become luminance, white-is-zero is turned, alpha is dropped. Values of 2 to 7 bits
    are spread over the 8 they are read into, as image viewers do.

    Raises
    ------
    InputError
        If its pixels cannot be turned into grey; see `check_colours`.
    """
    check_colours(path, page)
    pixels = _decode_subsampled(path, page) if _is_subsampled(page) else page.asarray(maxworkers=threads)
    return _grey_of_page(page, pixels)


def grey_type_of_page(path: Path, page: Any) -> np.dtype[Any]:
    """Return the type of the grey of a page without decoding it; raises what `read_grey_page` would of its colours."""
    check_colours(path, page)
    one_pixel = tuple(size if axis == "S" else 1 for axis, size in zip(page.axes, page.shape, strict=True))
    return _grey_of_page(page, np.zeros(one_pixel, page.dtype)).dtype


def _grey_of_page(page: Any, pixels: AnyArray) -> AnyArray:
    has_channels = "S" in page.axes
    if page.axes.startswith("S"):
        pixels = np.moveaxis(pixels, 0, -1)
    if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
        # (3, entries) of 16 bits, written as 257 or 256 times an 8-bit level: the high byte is the level either way.
        palette = (np.moveaxis(np.asarray(page.colormap), 0, -1) >> 8).astype(np.uint8)
        return to_grey(palette[pixels[..., 0] if has_channels else pixels])
    to_rgb = _rgb_converter(page)
    if to_rgb is not None:
        return _grey_in_blocks(pixels, to_rgb)
    grey = to_grey(pixels) if has_channels else pixels
    return _turn_and_spread(page, grey) if grey.dtype.kind in "bu" else grey


def _turn_and_spread(page: Any, grey: AnyArray) -> AnyArray:
    """Return unsigned grey or bits with white-is-zero turned, and fewer than 8 bits spread over 8."""
    turned = page.photometric == PHOTOMETRIC.MINISWHITE
    if grey.dtype.kind == "b":
        return ~grey if turned else grey
    # Bits may be fewer than those of the type, such as 12 in uint16; they may differ between channels.
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 8 * grey.dtype.itemsize
    white = (1 << min(bits, 8 * grey.dtype.itemsize)) - 1
    if turned:
        grey = white - grey
    if white < 255:
        grey = ((grey.astype(np.uint16) * 255 + white // 2) // white).astype(grey.dtype)
    return grey


def _rgb_converter(page: Any) -> Callable[[AnyArray], AnyArray] | None:
    """Return the function that makes red, green and blue of a page's samples; None where they are, or are grey."""
    kind = page.photometric
    if kind == PHOTOMETRIC.SEPARATED:
        return cmyk_to_rgb
    if kind == PHOTOMETRIC.YCBCR and page.compression not in _JPEG_COMPRESSIONS:
        luma = _rational_tag(page, "YCbCrCoefficients")
        reference = _rational_tag(page, "ReferenceBlackWhite")
        return partial(ycbcr_to_rgb, luma=luma or BT601_LUMA, reference=reference)
    if page.samplesperpixel == 1:
        return None  # L*a*b* without a* and b* is grey
    if kind == PHOTOMETRIC.CIELAB:
        return lambda samples: lab_to_rgb(cielab_values(samples), samples.dtype)
    if kind == PHOTOMETRIC.ICCLAB:
        return lambda samples: lab_to_rgb(icclab_values(samples), samples.dtype)
    return None


def _is_grey_with_alpha(page: Any) -> bool:
    return page.samplesperpixel == 2 and any(extra in _ALPHA for extra in page.extrasamples)


def _grey_in_blocks(samples: AnyArray, to_rgb: Callable[[AnyArray], AnyArray]) -> AnyArray:
    """Return the grey of colours block by block, since the numbers on the way to RGB take eight times the room."""
    flat = np.ascontiguousarray(samples).reshape(-1, samples.shape[-1])
    grey = np.empty(flat.shape[0], flat.dtype)
    for start in range(0, len(flat), BLOCK_PIXELS):
        grey[start : start + BLOCK_PIXELS] = to_grey(to_rgb(flat[start : start + BLOCK_PIXELS]))
    return grey.reshape(samples.shape[:-1])


def _is_subsampled(page: Any) -> bool:
    """Return whether several pixels share their chroma, in a compression where tifffile does not join them."""
    return bool(page.is_subsampled and page.compression not in _JPEG_COMPRESSIONS)


def _decode_subsampled(path: Path, page: Any) -> AnyArray:
    """Return the (height, width, 3) YCbCr samples of strips whose chroma stands for several pixels."""
    horizontal, vertical = page.subsampling or YCBCR_SUBSAMPLING
    height, width = page.imagelength, page.imagewidth
    samples = np.empty((height, width, page.samplesperpixel), np.uint8)
    rows = min(page.rowsperstrip, height)
    unpack = None if page.compression == COMPRESSION.NONE else tifffile.TIFF.DECOMPRESSORS[page.compression]
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        start = index * rows
        page.parent.filehandle.seek(offset)
        data = page.parent.filehandle.read(count)
        strip = samples[start : start + rows]
        strip[:] = join_subsampled(data if unpack is None else unpack(data), len(strip), width, horizontal, vertical)
    return samples


def _rational_tag(page: Any, name: str) -> list[float] | None:
    """Return the numbers of a tag that tifffile gives as numerator, denominator, numerator, ..."""
    value = page.tags.valueof(name)
    if value is None:
        return None
    return [numerator / denominator for numerator, denominator in zip(value[::2], value[1::2], strict=True)]
