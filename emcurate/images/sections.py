"""Sections and patches on disk: one-page, uncompressed, grey uint8 TIFFs."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from emcurate.errors import InputError
from emcurate.files import write_once
from emcurate.images.reading import describe_damage, read_image


def encode_section(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a (height, width) uint8 array as the bytes of an uncompressed one-page TIFF."""
    return _tiff_head(*pixels.shape) + pixels.tobytes()


def write_section(path: Path, pixels: npt.NDArray[np.uint8], *, overwrite: bool = False) -> bool:
    """Write a section or patch as TIFF unless the same is there; return whether it was written (`write_once`)."""
    return write_once(path, encode_section(pixels), overwrite=overwrite)


def read_section(path: Path) -> npt.NDArray[np.uint8]:
    """Read a section or a patch: (height, width) uint8.

    Raises
    ------
    InputError
        If the file is no complete 2D uint8 TIFF.
    """
    if not (path.exists() or path.is_symlink()):
        raise InputError(path, "a section or patch", "no such file", "check the path, or make it again")
    pixels = read_image(path)
    if pixels.dtype != np.uint8:
        raise InputError(path, "uint8 pixels", f"{pixels.dtype} pixels", "make sections with raw/cleanup2d.py first")
    return pixels


def read_size(path: Path) -> tuple[int, int]:
    """Return the height and width in pixels of a section or a patch; only the file's header is read."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise InputError(path, "a patch", "no such file", "if it was moved, say so with --reroot OLD NEW") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(path, "a patch", describe_damage(error), "make it again with raw/crop_patches.py") from None


@functools.lru_cache(maxsize=256)
def _tiff_head(height: int, width: int) -> bytes:
    """Return all bytes before the pixels of a one-page TIFF: they depend on the shape only.

    Building them takes tifffile ten times longer than writing a patch, so they are built once a shape.
    """
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, np.zeros((height, width), np.uint8), photometric="minisblack", metadata=None, software=False
    )
    return buffer.getvalue()[: -height * width]
