"""Images as programs of microscopes record them: one or many of one shape, uncompressed, somewhere in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import open_regular
from emcurate.images.pixels import to_grey

COPY_AGAIN = "copy it again"


@dataclass(frozen=True)
class Recorded:
    """Where in a file images lie.

    Attributes
    ----------
    path : Path
    shape : (planes, rows, columns)
    stored_dtype : numpy dtype
        With the file's byte order.
    offsets : tuple of int
        Byte offset of the first plane, the others following at once; or of every plane.
    channels : int
        Values a pixel, blue first; 0 where a pixel is one value.
    size_nm : (z, y, x)
        None along each axis where it is unknown, or no length.
    by : str
        What says so.
    upside_down : bool
        Whether the last row comes first.
    """

    path: Path
    shape: tuple[int, int, int]
    stored_dtype: np.dtype[Any]
    offsets: tuple[int, ...]
    channels: int
    size_nm: tuple[float | None, float | None, float | None]
    by: str
    upside_down: bool = False

    def __post_init__(self) -> None:
        _, rows, columns = self.shape
        plane = rows * columns * max(1, self.channels) * self.stored_dtype.itemsize
        if min(self.shape) < 1:
            found = " x ".join(map(str, self.shape))
            raise InputError(self.path, "images of at least 1 pixel a side", found, "check how it was written")
        end = max(self.offsets) + plane * (self.shape[0] if len(self.offsets) == 1 else 1)
        size = self.path.stat().st_size
        if min(self.offsets) < 0 or end > size:
            raise InputError(self.path, f"at least {end:,} bytes, for its pixels", f"{size:,} bytes", COPY_AGAIN)

    def read_first(self) -> npt.NDArray[Any]:
        """Return the grey of the first image, (rows, columns) of the stored type in native byte order."""
        shape = (*self.shape[1:], self.channels) if self.channels else self.shape[1:]
        count = int(np.prod(shape))
        with open_regular(self.path) as file:
            file.seek(self.offsets[0])
            data = file.read(count * self.stored_dtype.itemsize)
        pixels = np.frombuffer(data, self.stored_dtype, count).reshape(shape)
        pixels = pixels.astype(self.stored_dtype.newbyteorder("="), copy=False)
        pixels = pixels[::-1] if self.upside_down else pixels
        return to_grey(pixels[..., 2::-1]) if self.channels else np.ascontiguousarray(pixels)
