"""PNGs of drawings, packed by libdeflate: four times as fast as Pillow's zlib packs as well."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

# Of libdeflate's 12. The next takes a fifth longer, for files that are a tenth smaller.
LEVEL = 1

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _COLOUR = 8, 2  # bits a channel; red, green and blue
_LEFT = 1  # the filter of a row: each byte less that of the pixel to its left


def encode_png(pixels: npt.NDArray[np.uint8], texts: Mapping[str, str]) -> bytes:
    """Return a picture as the bytes of a PNG.

    Every row is told by its differences from left to right, which suits patches as well as white paper; to try all of
    PNG's filters on each row, as libpng does, takes longer than to pack what they give.

    Parameters
    ----------
    pixels : (height, width, 3) uint8
        Red, green and blue.
    texts : mapping of str to str
        What is to stand in its metadata, in Latin-1.
    """
    import imagecodecs  # here, since most runs draw nothing

    height, width, channels = pixels.shape
    values = pixels.reshape(height, width * channels)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = _LEFT
    rows[:, 1 : 1 + channels] = values[:, :channels]
    np.subtract(values[:, channels:], values[:, :-channels], out=rows[:, 1 + channels :])
    if imagecodecs.DEFLATE.available:
        packed = bytes(imagecodecs.deflate_encode(rows.tobytes(), level=LEVEL))
    else:
        packed = zlib.compress(rows.tobytes(), zlib.Z_BEST_SPEED)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, _DEPTH, _COLOUR, 0, 0, 0)),
        *((b"tEXt", f"{key}\0{text}".encode("latin-1")) for key, text in texts.items()),
        (b"IDAT", packed),
        (b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(_spell_chunk(kind, data) for kind, data in chunks)


def _spell_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
