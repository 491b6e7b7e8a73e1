"""Neuroglancer's precomputed volumes written by hand, after the format's description."""

from __future__ import annotations

import gzip
import itertools
import json


def write_precomputed(path, levels, resolutions, offset=(0, 0, 0), chunk=(16, 8, 4), packed=False, **about):
    """Write (z, y, x) or (z, y, x, channel) arrays as raw chunks; resolutions, offset and chunk are x, y, z."""
    scales = []
    for array, resolution in zip(levels, resolutions, strict=True):
        array = array[..., None] if array.ndim == 3 else array
        key = "_".join(map(str, resolution))
        size = array.shape[2::-1]
        (path / key).mkdir(parents=True)
        for start in itertools.product(*(range(0, side, part) for side, part in zip(size, chunk, strict=True))):
            stop = [min(at + part, side) for at, part, side in zip(start, chunk, size, strict=True)]
            box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))[::-1]
            data = array[box].transpose(3, 0, 1, 2).astype(array.dtype.newbyteorder("<")).tobytes()
            name = "_".join(f"{a + o}-{b + o}" for a, b, o in zip(start, stop, offset, strict=True))
            if packed:
                (path / key / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (path / key / name).write_bytes(data)
        scale = {"key": key, "size": list(size), "resolution": list(resolution), "voxel_offset": list(offset)}
        scales.append({**scale, "chunk_sizes": [list(chunk)], "encoding": "raw"})
    dtype, channels = levels[0].dtype.name, 1 if levels[0].ndim == 3 else levels[0].shape[3]
    info = {"@type": "neuroglancer_multiscale_volume", "type": "image", "data_type": dtype, "num_channels": channels}
    (path / "info").write_text(json.dumps({**info, "scales": scales, **about}))
    return path
