"""Series of FEI's TIA, formerly Emispec: ``.ser``, the pixels that an ``.emi`` of the same name describes.

Written from the description of the format by Chris Boothroyd, http://www.er-c.org/cbb/info/TIAformat/.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import open_regular
from emcurate.images.recorded import COPY_AGAIN, Recorded
from emcurate.images.units import METRE_NM

SER_SUFFIX, EMI_SUFFIX = ".ser", ".emi"

_BYTE_ORDER, _SERIES = 0x4949, 0x0197
_SPECTRA, _IMAGES = 0x4120, 0x4122

# Before this version, offsets in the file have 32 bits.
_LONG_OFFSETS = 0x0220

# Byte order, series, version, type of data, type of tags, elements there is room for, and those that are there.
_HEAD = struct.Struct("<3H4i")

# Of an image: offset, size and number of its calibrated pixel along x, the same along y; its type and its sides.
_IMAGE = struct.Struct("<ddiddihii")
_PIXELS = {1: "u1", 2: "u2", 3: "u4", 4: "i1", 5: "i2", 6: "i4", 7: "f4", 8: "f8"}
_COMPLEX = (9, 10)

# Images that a file has at most; series have hundreds.
MOST_IMAGES = 1 << 20

# Diffraction patterns have their pixels in 1/m, of which the file says nothing: no image's pixel is a millimetre.
LARGEST_PIXEL_M = 1e-3

_EXPORT = "export it as TIFF in TIA"


def open_ser(path: Path) -> Recorded:
    """Return where the image or the series of images of a SER file is; only its headers are read.

    Raises
    ------
    InputError
        If the file is none, damaged, or holds spectra, complex numbers, or images of several sizes.
    """
    try:
        return _open(path)
    except InputError:
        raise
    except DAMAGE as error:
        raise describe_damage(error, path, "a SER file of TIA", COPY_AGAIN) from None


def _open(path: Path) -> Recorded:
    size = path.stat().st_size
    with open_regular(path) as file:
        head = file.read(_HEAD.size)
        order, series, version, kind, _, _, count = _HEAD.unpack(head)
        if (order, series) != (_BYTE_ORDER, _SERIES):
            raise InputError(path, "a SER file of TIA", f"one that starts with {head[:4]!r}", "check what the file is")
        if kind != _IMAGES:
            what = "spectra" if kind == _SPECTRA else f"data of kind {kind:#x}"
            raise InputError(path, "an image or a series of images", what, _EXPORT)
        long = struct.Struct("<i" if version < _LONG_OFFSETS else "<q")
        if not 0 < count <= min(MOST_IMAGES, size // _IMAGE.size):
            raise InputError(path, f"1 to {MOST_IMAGES:,} images", f"{count:,}", COPY_AGAIN)
        file.seek(long.unpack(file.read(long.size))[0])
        starts = [start for (start,) in long.iter_unpack(file.read(long.size * count))]
        if len(starts) < count:
            raise InputError(path, f"where {count:,} images begin", f"that of {len(starts):,}", COPY_AGAIN)
        headers = []
        for start in starts:
            file.seek(start)
            headers.append(_IMAGE.unpack(file.read(_IMAGE.size)))
    forms = {header[6:] for header in headers}
    if len(forms) != 1:
        raise InputError(path, "images of one size and type", f"{len(forms)} kinds", _EXPORT)
    _, x, _, _, y, _, pixel, columns, rows = headers[0]
    if pixel not in _PIXELS:
        what = "complex pixels" if pixel in _COMPLEX else f"pixels of type {pixel}"
        raise InputError(path, "pixels that are one number", what, _EXPORT)
    sizes = [length * METRE_NM if 0 < length < LARGEST_PIXEL_M else None for length in map(abs, (y, x))]
    offsets = tuple(start + _IMAGE.size for start in starts)
    dtype = np.dtype(f"<{_PIXELS[pixel]}")
    steps = (None, sizes[0], sizes[1])
    return Recorded(path, (count, rows, columns), dtype, offsets, 0, steps, "TIA", upside_down=True)
