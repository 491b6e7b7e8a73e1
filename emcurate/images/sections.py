"""Sections and patches on disk: one-page, uncompressed, grey uint8 TIFFs."""

from __future__ import annotations

import functools
import io
import os
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, UnidentifiedImageError

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import is_there, open_at_once, refuse_odd_kind
from emcurate.images.reading import read_image
from emcurate.writing import write_once

# Where in the head of our TIFFs the numbers stand that depend on the shape, as little-endian uint32 (TIFF 6.0, section
# 2): entries of 12 bytes from byte 10 on, each with its value in the last four.
_WIDTH_AT, _HEIGHT_AT, _ROWS_PER_STRIP_AT, _STRIP_BYTES_AT = 18, 30, 102, 114
_NUMBER = struct.Struct("<I")

# Pixels up to which the head is sure to be that of an ordinary TIFF; tifffile writes very large ones as BigTIFF.
_LARGEST_BYTES = 1 << 31

# Bytes of a file that are enough to tell whether it is one of ours.
HEAD_BYTES = 512

_REMAKE = "make it again with raw/crop_patches.py"


def encode_section(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a (height, width) uint8 array as the bytes of an uncompressed one-page TIFF."""
    return _tiff_head(*pixels.shape) + pixels.tobytes()


def count_bytes(height: int, width: int) -> int:
    """Return how many bytes `encode_section` gives for an image of this size."""
    return len(_tiff_head(height, width)) + height * width


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
    pixels = _read_own(path)
    if pixels is not None:
        return pixels
    if not (is_there(path) or path.is_symlink()):
        raise InputError(path, "a section or patch", "no such file", "check the path, or make it again")
    return _check_grey_levels(path, read_image(path))


def decode_section(path: Path, content: memoryview) -> npt.NDArray[np.uint8]:
    """Return the pixels of a section or a patch whose file's content is at hand; `path` only names it in errors.

    They may lie in the memory of `content`. Raises as `read_section`.
    """
    shape = find_shape(bytes(content[:HEAD_BYTES]), len(content))
    if shape is None:
        return _check_grey_levels(path, read_image(path, bytes(content)))
    return np.frombuffer(content, np.uint8, offset=len(content) - shape[0] * shape[1]).reshape(shape)


def read_size(path: Path, content: memoryview | None = None) -> tuple[int, int]:
    """Return the height and width in pixels of a section or a patch; only the file's header is read.

    With its content at hand, `path` only names it in errors.
    """
    try:
        if content is None:
            with open(path, "rb", buffering=0, opener=open_at_once) as file:
                state = os.fstat(file.fileno())
                refuse_odd_kind(path, state.st_mode)
                shape = find_shape(file.read(HEAD_BYTES), state.st_size)
        else:
            shape = find_shape(bytes(content[:HEAD_BYTES]), len(content))
        if shape is not None:
            return shape
        with Image.open(path if content is None else io.BytesIO(content), formats=("TIFF",)) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise InputError(path, "a patch", "no such file", "if it was moved, say so with --reroot OLD NEW") from None
    except UnidentifiedImageError:  # whose words name no file where there is none
        raise InputError(path, "a patch", "data of another kind", _REMAKE) from None
    except DAMAGE as error:
        raise describe_damage(error, path, "a patch", _REMAKE) from None


def find_shape(start: bytes, size: int) -> tuple[int, int] | None:
    """Return the height and width that a complete file of `encode_section` has; None for any other.

    Parameters
    ----------
    start : bytes
        The first `HEAD_BYTES` of the file, or all it has.
    size : int
        Bytes of the whole file.
    """
    if len(start) < _STRIP_BYTES_AT or not start.startswith(_tiff_head(1, 1)[:_WIDTH_AT]):
        return None
    (width,), (height,) = _NUMBER.unpack_from(start, _WIDTH_AT), _NUMBER.unpack_from(start, _HEIGHT_AT)
    if not 0 < height * width < size:
        return None
    head = _tiff_head(height, width)
    return (height, width) if len(head) + height * width == size and start.startswith(head) else None


def find_own_shape(path: str | Path) -> tuple[int, int] | None:
    """Return the height and width of a complete file of `write_section`, known from its head; None of any other file.

    Raises OSError as the system does.
    """
    with open(path, "rb", buffering=0, opener=open_at_once) as file:
        state = os.fstat(file.fileno())
        return find_shape(file.read(HEAD_BYTES), state.st_size) if stat.S_ISREG(state.st_mode) else None


def _read_own(path: Path) -> npt.NDArray[np.uint8] | None:
    """Return the pixels of a file that `write_section` wrote, and None of any other.

    Most patches and sections are such, and any library takes ten times as long to find that out.
    """
    try:
        with open(path, "rb", buffering=0, opener=open_at_once) as file:
            state = os.fstat(file.fileno())
            shape = find_shape(file.read(HEAD_BYTES), state.st_size) if stat.S_ISREG(state.st_mode) else None
            if shape is None:
                return None
            pixels = np.empty(shape, np.uint8)
            file.seek(state.st_size - pixels.size)
            rest = pixels.data.cast("B")
            while rest:
                count = file.readinto(rest)
                if not count:
                    return None
                rest = rest[count:]
            return pixels
    except OSError:
        return None  # reading it in the ordinary way tells why


def _check_grey_levels(path: Path, pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype != np.uint8:
        raise InputError(path, "uint8 pixels", f"{pixels.dtype} pixels", "make sections with raw/cleanup2d.py first")
    return pixels


@functools.lru_cache(maxsize=256)
def _tiff_head(height: int, width: int) -> bytes:
    """Return all bytes before the pixels of a one-page TIFF: they depend on the shape only.

    Building them takes tifffile ten times longer than writing a patch, so it builds one, and the numbers are put in.
    """
    if height * width > _LARGEST_BYTES:
        return _build_head(height, width)
    head = bytearray(_build_head(1, 1))
    for place, number in (
        (_WIDTH_AT, width),
        (_HEIGHT_AT, height),
        (_ROWS_PER_STRIP_AT, height),
        (_STRIP_BYTES_AT, height * width),
    ):
        _NUMBER.pack_into(head, place, number)
    return bytes(head)


@functools.lru_cache(maxsize=2)
def _build_head(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, np.zeros((height, width), np.uint8), photometric="minisblack", metadata=None, software=False
    )
    return buffer.getvalue()[: -height * width]
