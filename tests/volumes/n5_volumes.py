"""N5 arrays written by hand, after the format's description."""

from __future__ import annotations

import gzip
import itertools
import json
import struct

import numpy as np

BLOCK = (16, 8, 4)  # x, y, z


def write_n5_array(directory, array, attributes=None, compression="gzip"):
    """Write a (z, y, x) array; blocks at the end are smaller."""
    directory.mkdir(parents=True)
    described = {
        "dimensions": list(array.shape[::-1]),
        "blockSize": list(BLOCK),
        "dataType": array.dtype.name,
        "compression": {"type": compression},
        **(attributes or {}),
    }
    (directory / "attributes.json").write_text(json.dumps(described))
    counts = [-(-side // part) for side, part in zip(array.shape[::-1], BLOCK, strict=True)]
    for place in itertools.product(*map(range, counts)):
        box = tuple(slice(i * part, (i + 1) * part) for i, part in zip(place, BLOCK, strict=True))[::-1]
        block = np.ascontiguousarray(array[box]).astype(array.dtype.newbyteorder(">"))
        data = gzip.compress(block.tobytes()) if compression == "gzip" else block.tobytes()
        path = directory.joinpath(*map(str, place))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack(">HHIII", 0, 3, *block.shape[::-1]) + data)
    return directory
