"""Chunked volumes written by other libraries than those that read them here."""

from __future__ import annotations

import numpy as np
import zarr

UNIT = "nanometer"


def axis(name, unit=UNIT):
    kinds = {"t": "time", "c": "channel"}
    return {"name": name, "type": kinds.get(name, "space"), **({"unit": unit} if name in "zyx" and unit else {})}


def write_ome_zarr(path, array, axes="zyx", scale=(30.0, 8.0, 8.0), version="0.4", unit=UNIT, more=None, **options):
    """Write an array and a coarser level of it with zarr-python; return the path."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for level in (0, 1):
        voxels = array[tuple(slice(None, None, level + 1) for _ in axes)]
        settings = {"chunks": tuple(8 if side > 4 else side for side in voxels.shape), **options}
        group.create_array(f"s{level}", data=np.ascontiguousarray(voxels), **settings)
        scaled = [step * (level + 1) for step in scale]
        transformations = [
            {"type": "scale", "scale": scaled},
            {"type": "translation", "translation": [1.0] * len(axes)},
        ]
        datasets.append({"path": f"s{level}", "coordinateTransformations": transformations})
    multiscale = {"axes": [axis(name, unit) for name in axes], "datasets": datasets, **(more or {})}
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
    return path
