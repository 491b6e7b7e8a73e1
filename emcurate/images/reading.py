"""Read a 2D image of any common format as grey pixels."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, UnidentifiedImageError

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import open_regular, read_regular
from emcurate.images.digital_micrograph import DM_SUFFIXES, open_dm
from emcurate.images.emd import EMD_SUFFIX, EmdImages, open_emd
from emcurate.images.netpbm import MOST_HEADER_BYTES, is_deep_netpbm, read_deep_netpbm
from emcurate.images.pixels import to_grey
from emcurate.images.png_chunks import PNG_SIGNATURE, check_png
from emcurate.images.recorded import Recorded
from emcurate.images.tia import SER_SUFFIX, open_ser
from emcurate.images.tiff_files import TIFF_DAMAGE, open_tiff
from emcurate.images.tiff_pages import check_colours, check_tiff_complete, is_auxiliary_page, read_grey_page

TIFF_SUFFIXES = (".tif", ".tiff", ".tf8", ".btf")
# Of files that a microscope's program recorded, and of those that any program exports.
RECORDED_SUFFIXES = (*DM_SUFFIXES, SER_SUFFIX, EMD_SUFFIX)
EXPORTED_SUFFIXES = (
    *TIFF_SUFFIXES,
    *(".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".dib", ".webp", ".gif"),
    *(".jp2", ".j2k", ".jpx", ".jpf", ".pgm", ".ppm", ".pbm", ".pnm", ".tga"),
)
IMAGE_SUFFIXES = (*EXPORTED_SUFFIXES, *RECORDED_SUFFIXES)

# Micrographs of 30,000 x 30,000 pixels are ordinary; Pillow takes anything beyond 179 million pixels for an attack.
Image.MAX_IMAGE_PIXELS = None

# A damaged header may claim billions of pixels. No codec packs real images beyond this ratio, and only claims of more
# than a gibibyte are worth doubting.
PACKING_RATIO_AT_MOST = 5000
UNDOUBTED_BYTES = 1 << 30

# Pillow knows more formats, and for some of them starts other programs.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "GIF", "JPEG2000", "PPM", "TGA")

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Where the header chunk of a PNG, which always comes first, has its bit depth and its colour type.
_PNG_DEPTH_BYTE = 24
_PNG_COLOUR_TYPE_BYTE = 25
_PNG_COLOUR_OR_ALPHA = (2, 4, 6)  # PNG colour types that Pillow cuts down from 16 to 8 bits
# What pictures for people say in their text, so that none is taken for a micrograph wherever it is copied to.
DRAWN_KEY, DRAWN_BY_US = "Source", "emcurate"

Pixels = TypeVar("Pixels")

_REREAD = "check that it opens in an image viewer, or export it again"


class SeveralImagesError(InputError):
    """A file that holds several pages or frames where one 2D image was expected."""


def read_image(path: Path, content: bytes | None = None) -> npt.NDArray[Any]:
    """Read a 2D image as grey pixels of the type it was stored with.

    Palettes are looked up, white-is-zero TIFFs turned, colours of any kind become luminance and alpha is dropped;
    orientation tags are not applied, so rows and columns are those of the file.

    Parameters
    ----------
    path : Path
    content : bytes, optional
        What the file holds, where that is at hand, as from an archive; `path` then only names it.

    Returns
    -------
    (height, width) array of bool, integers or floats

    Raises
    ------
    InputError
        If the file cannot be read completely; `SeveralImagesError` if it holds several pages or frames.
    """
    if content is None:
        with open_regular(path) as file:
            head = file.read(MOST_HEADER_BYTES)
    else:
        head = content[:MOST_HEADER_BYTES]
    if not head:
        raise InputError(path, "a 2D image", "an empty file (0 bytes)", "copy or export it again")
    pixels = _read_pixels(path, content, head)
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "biuf":
        found = f"{' × '.join(map(str, pixels.shape))} of {pixels.dtype}"
        raise InputError(path, "pixels in rows and columns", found, _REREAD)
    return pixels


def _read_pixels(path: Path, content: bytes | None, head: bytes) -> npt.NDArray[Any]:
    if content is None and path.suffix.lower() in RECORDED_SUFFIXES:
        return _read_recorded(path)
    if path.suffix.lower() in TIFF_SUFFIXES or head.startswith(TIFF_STARTS):
        return _read_tiff(path, content)
    if head.startswith(PNG_SIGNATURE):
        _decode(path, content, check_png)
        if _is_deep_colour_png(head):
            return to_grey(_decode(path, content, _read_deep_png))
    if is_deep_netpbm(head):
        pixels = _decode(path, content, read_deep_netpbm)
        return to_grey(pixels) if pixels.ndim > 2 else pixels
    return _decode(path, content, _read_with_pillow)


def peek_image(path: Path) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Return the (height, width) of a 2D image and the type of its pixels, by its header alone.

    What is damaged behind the header only `read_image` finds out.

    Raises
    ------
    InputError
        As `read_image`, as far as the header tells.
    """
    with open_regular(path) as file:
        head = file.read(MOST_HEADER_BYTES)
    if not head or is_deep_netpbm(head):
        pixels = read_image(path)
        return (pixels.shape[0], pixels.shape[1]), pixels.dtype
    if path.suffix.lower() in RECORDED_SUFFIXES:
        found = open_recorded(path)
        _check_no_stack(path, found)
        return (found.shape[1], found.shape[2]), found.stored_dtype if isinstance(found, Recorded) else found.dtype
    if path.suffix.lower() in TIFF_SUFFIXES or head.startswith(TIFF_STARTS):
        with _open_page(path) as page:
            check_colours(path, page)
            return (page.imagelength, page.imagewidth), np.dtype(page.dtype)
    return _decode(path, None, _peek_with_pillow)


def open_recorded(path: Path) -> Recorded | EmdImages:
    """Return where the images of a file that a microscope's program wrote are: one of `RECORDED_SUFFIXES`.

    Raises
    ------
    InputError
        If it is damaged, or holds no image or several kinds.
    """
    suffix = path.suffix.lower()
    return open_dm(path) if suffix in DM_SUFFIXES else open_ser(path) if suffix == SER_SUFFIX else open_emd(path)


def _read_recorded(path: Path) -> npt.NDArray[Any]:
    found = open_recorded(path)
    _check_no_stack(path, found)
    if isinstance(found, Recorded):
        return found.read_first()
    check_plausible(path, math.prod(found.shape) * found.dtype.itemsize)
    pixels: npt.NDArray[Any] = found.read_box(slice(None), slice(None), slice(None))[0]
    return pixels


def _check_no_stack(path: Path, found: Recorded | EmdImages) -> None:
    if found.shape[0] > 1:
        advice = "move it to the 3D corpus and run raw/cross_section3d.py, or save its images one by one"
        raise SeveralImagesError(path, "a 2D image", f"a stack of {found.shape[0]:,}", advice)


def check_plausible(path: Path, claimed_bytes: int, content: bytes | None = None) -> None:
    """Raise `InputError` if a file claims more pixels than one of its size can hold, before room is made for them."""
    size = path.stat().st_size if content is None else len(content)
    if claimed_bytes > max(UNDOUBTED_BYTES, size * PACKING_RATIO_AT_MOST):
        raise InputError(
            path, f"an image that fits into {size:,} bytes", f"a header that claims {claimed_bytes:,} bytes", _REREAD
        )


def _read_tiff(path: Path, content: bytes | None) -> npt.NDArray[Any]:
    with _open_page(path, content) as page:
        return read_grey_page(path, page)


@contextlib.contextmanager
def _open_page(path: Path, content: bytes | None = None) -> Iterator[Any]:
    """Give the only page of a TIFF file; what is wrong with it, or with it being read, raises `InputError`."""
    try:
        with open_tiff(path, content) as tiff:
            # Two are enough to tell: a damaged file may chain thousands of pages that take for ever to parse.
            pages = list(itertools.islice((page for page in tiff.pages if not is_auxiliary_page(page)), 2))
            if not pages:
                raise InputError(path, "a TIFF file with an image", "no image in it", _REREAD)
            _check_single(path, tiff, pages)
            page = pages[0].aspage()
            check_tiff_complete(path, [page])
            check_plausible(path, page.nbytes, content)
            yield page
    except InputError:
        raise
    except TIFF_DAMAGE as error:
        raise describe_damage(error, path, "a readable TIFF file", _REREAD) from None


def _check_single(path: Path, tiff: tifffile.TiffFile, pages: list[Any]) -> None:
    # One page may stand for many: ImageJ writes large stacks with a single directory entry.
    planes = len(tiff.pages) if len(pages) > 1 else max(map(_plane_count, tiff.series), default=1)
    if planes > 1:
        raise SeveralImagesError(
            path,
            "a 2D image",
            f"a TIFF of {planes} pages",
            "move it to the 3D corpus and run raw/cross_section3d.py, or export its pages one by one",
        )


def _plane_count(series: Any) -> int:
    count = 1
    for axis, size in zip(series.axes, series.shape, strict=True):
        if axis not in "YXS":
            count *= size
    return int(count)


def _source(path: Path, content: bytes | None) -> Path | io.BytesIO:
    return path if content is None else io.BytesIO(content)


def _decode(path: Path, content: bytes | None, decode: Callable[[Path, bytes | None], Pixels]) -> Pixels:
    try:
        pixels = decode(path, content)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(
            path, f"an image, as its extension {path.suffix} says", "data of another kind", _REREAD
        ) from None
    except DAMAGE as error:
        raise describe_damage(error, path, "a complete image", _REREAD) from None
    return pixels


def _check_with_pillow(path: Path, image: Image.Image, content: bytes | None) -> None:
    # How many frames are not counted: to find out, each has to be looked at.
    if getattr(image, "is_animated", False):
        raise SeveralImagesError(
            path,
            "a 2D image",
            "an animation of several frames",
            "save the frame wanted as an image, or the film as .mp4 for preprocess/vid2stack.py",
        )
    if image.info.get(DRAWN_KEY) == DRAWN_BY_US:
        found = "a picture that emcurate drew"
        raise InputError(path, "an image from a microscope", found, "take it out of the images")
    check_plausible(path, image.width * image.height * len(image.getbands()), content)


def _peek_with_pillow(path: Path, content: bytes | None) -> tuple[tuple[int, int], np.dtype[Any]]:
    with Image.open(_source(path, content), formats=FORMATS) as image:
        _check_with_pillow(path, image, content)
        deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
        kind = "u2" if deep else {"1": "?", "I": "i4", "F": "f4"}.get(image.mode, "u1")
        return (image.height, image.width), np.dtype(kind)


def _read_with_pillow(path: Path, content: bytes | None) -> npt.NDArray[Any]:
    with Image.open(_source(path, content), formats=FORMATS) as image:
        _check_with_pillow(path, image, content)
        image.load()
        if image.mode == "I" and image.format == "PNG":
            # PNG has 16 bits at most; older Pillows, 10.1 for one, give them as the signed 32 of this mode.
            return np.asarray(image).astype(np.uint16)
        if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
            return np.asarray(image)
        if image.mode in ("LA", "RGB", "RGBA"):
            return to_grey(np.asarray(image))
        # Palettes, CMYK, YCbCr and the like, by way of RGB.
        return to_grey(np.asarray(image.convert("RGB")))


def _is_deep_colour_png(head: bytes) -> bool:
    return (
        head.startswith(PNG_SIGNATURE)
        and len(head) > _PNG_COLOUR_TYPE_BYTE
        and head[_PNG_DEPTH_BYTE] == 16
        and head[_PNG_COLOUR_TYPE_BYTE] in _PNG_COLOUR_OR_ALPHA
    )


def _read_deep_png(path: Path, content: bytes | None) -> npt.NDArray[Any]:
    with Image.open(_source(path, content), formats=("PNG",)) as image:
        check_plausible(path, image.width * image.height * len(image.getbands()) * 2, content)
        image.load()  # for its checks: it refuses what is cut off or damaged
    import imagecodecs  # here, since hardly any file needs it

    pixels: npt.NDArray[Any] = imagecodecs.png_decode(read_regular(path) if content is None else content)
    return pixels
