"""Netpbm images of more than 8 bits a value, ``.pgm .ppm .pnm``, as they were stored.

Pillow stretches them to 16 bits, as a signed type and slowly, or cuts colours down to 8.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import read_regular

# Kind, width, height and largest value (netpbm.sourceforge.net/doc/pgm.html), with comments anywhere between them;
# a single white space ends the header.
_GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
_HEADER = re.compile(rb"P([2356])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,5})\s")
MOST_HEADER_BYTES = 4096
_PLAIN_KINDS = (b"2", b"3")
_COLOUR_KINDS = (b"3", b"6")
_COMMENT = re.compile(rb"#[^\n\r]*")


def is_deep_netpbm(head: bytes) -> bool:
    """Return whether a file's first `MOST_HEADER_BYTES` begin a grey or colour image of 16-bit values."""
    header = _HEADER.match(head)
    return header is not None and 255 < int(header[4]) < 1 << 16


def read_deep_netpbm(path: Path, content: bytes | None = None) -> npt.NDArray[np.uint16]:
    """Read an image for which `is_deep_netpbm` holds: (height, width) or (height, width, 3) uint16.

    The largest value that the header names is not stretched to white, as with 12 bits in a TIFF.
    """
    data = read_regular(path) if content is None else content
    header = _HEADER.match(data)
    if header is None:
        raise InputError(path, "a Netpbm image", "another file than a moment ago", "read it when it is complete")
    kind, width, height = header[1], int(header[2]), int(header[3])
    shape = (height, width, 3) if kind in _COLOUR_KINDS else (height, width)
    count = math.prod(shape)
    values: npt.NDArray[Any]
    if kind in _PLAIN_KINDS:
        values = np.array(_COMMENT.sub(b"", data[header.end() :]).split()[:count], dtype=bytes).astype(np.uint16)
    else:
        values = np.frombuffer(data, ">u2", min(count, (len(data) - header.end()) // 2), header.end())
    if values.size < count or not count:
        expected = f"{count:,} values for {height} × {width} pixels"
        raise InputError(path, expected, f"{values.size:,} in {len(data):,} bytes", "copy it again")
    return values.reshape(shape).astype(np.uint16)
