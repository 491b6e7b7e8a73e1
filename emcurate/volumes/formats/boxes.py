"""Boxes of voxels as files: an array of numpy's, OME-Zarr, or a TIFF stack, the last two with their voxel size."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from emcurate.contents import npy_bytes
from emcurate.errors import InputError

# What a box can be written as, and what its file's name ends in.
FORMATS = {"npy": ".npy", "zarr": ".zarr", "zarr-0.4": ".zarr", "tiff": ".tiff"}
NPY = "npy"

# Voxels of a chunk along each axis: a megabyte of 16 bits.
CHUNK = 64

# Zstandard's, of which a stronger level saves little of voxels.
COMPRESSION_LEVEL = 3

# Types that ImageJ knows, and those that OME does beside them.
IMAGEJ_TYPES = ("uint8", "uint16", "float32")
OME_TYPES = ("int8", "int16", "int32", "uint32", "float64")

# Beyond this many bytes of voxels a TIFF's places need 64 bits.
CLASSIC_TIFF_BYTES = 4 * 10**9


def encode_box(
    voxels: npt.NDArray[Any],
    format: str,
    axes: str,
    start: tuple[int, int, int],
    voxel_size_nm: tuple[float, float, float] | None,
    path: str,
) -> dict[str, bytes]:
    """Return the files of a box by their names below its own, which is empty where it is one file.

    Parameters
    ----------
    voxels : (…) array of three axes
        In the order of `axes`.
    format : str
        One of `FORMATS`.
    axes : str
        Such as ``zyx``.
    start : (z, y, x)
        The box's first voxel in its volume.
    voxel_size_nm : (z, y, x), optional
    path : str
        Names the box in errors.

    Raises
    ------
    InputError
        If the format has no such type of voxels.
    """
    if format == NPY:
        return {"": npy_bytes(voxels)}
    order = ["zyx".index(axis) for axis in axes]
    starts = tuple(start[i] for i in order)
    known = None if voxel_size_nm is None else tuple(float(voxel_size_nm[i]) for i in order)
    if format == "tiff":
        return {"": _encode_tiff(voxels, known, path)}
    return _encode_zarr(voxels, axes, starts, known, "0.4" if format == "zarr-0.4" else "0.5")


def _encode_tiff(voxels: npt.NDArray[Any], sizes_nm: tuple[float, ...] | None, path: str) -> bytes:
    """Return a stack as ImageJ opens it, or, of types that it does not know, as OME-TIFF."""
    import tifffile  # here, as below, since each takes a while to load

    kind, data = voxels.dtype.name, io.BytesIO()
    big = voxels.nbytes > CLASSIC_TIFF_BYTES
    if kind not in (*IMAGEJ_TYPES, *OME_TYPES):
        wanted = f"voxels of {', '.join((*IMAGEJ_TYPES, *OME_TYPES))} for --format tiff"
        raise InputError(path, wanted, kind, "give --format zarr or npy")
    if kind in IMAGEJ_TYPES and not big:
        metadata: dict[str, Any] = {"axes": "ZYX"}
        if sizes_nm is not None:
            metadata |= {"spacing": sizes_nm[0], "unit": "nm"}
        resolution = (1.0, 1.0) if sizes_nm is None else (1 / sizes_nm[2], 1 / sizes_nm[1])
        tifffile.imwrite(
            data,
            voxels,
            imagej=True,
            resolution=resolution,
            photometric="minisblack",
            metadata=metadata,
            software=False,
        )
        return data.getvalue()
    # By default it would be drawn by lot, and every run give other bytes.
    digest = hashlib.sha256(np.ascontiguousarray(voxels).data).hexdigest()
    uuid = "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))
    metadata = {"axes": "ZYX", "UUID": f"urn:uuid:{uuid}", "Creator": "emcurate"}
    for axis, size in zip("ZYX", sizes_nm or (), strict=False):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"}
    tifffile.imwrite(data, voxels, ome=True, bigtiff=big, photometric="minisblack", metadata=metadata, software=False)
    return data.getvalue()


def _encode_zarr(
    voxels: npt.NDArray[Any],
    axes: str,
    starts: tuple[int, ...],
    sizes_nm: tuple[float, ...] | None,
    version: str,
) -> dict[str, bytes]:
    """Return an OME-Zarr image of one level, in nanometres where these are known, at its place in the volume."""
    import tensorstore

    chunks = [min(CHUNK, side) for side in voxels.shape]
    metadata: dict[str, Any]
    if version == "0.4":
        driver = "zarr"
        compressor = {"id": "zstd", "level": COMPRESSION_LEVEL}
        metadata = {"chunks": chunks, "dimension_separator": "/", "compressor": compressor, "fill_value": 0}
        metadata |= {"shape": voxels.shape, "dtype": voxels.dtype.str}
    else:
        driver = "zarr3"
        codecs = [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": COMPRESSION_LEVEL}},
        ]
        grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
        metadata = {"shape": voxels.shape, "data_type": voxels.dtype.name, "chunk_grid": grid, "codecs": codecs}
        metadata |= {"fill_value": False if voxels.dtype == np.bool_ else 0, "dimension_names": list(axes)}
    spec = {"driver": driver, "kvstore": {"driver": "memory"}, "metadata": metadata}
    store: Any = tensorstore.open(spec, create=True, context=tensorstore.Context()).result()
    store.write(voxels).result()
    files = {
        f"0/{key.decode()}": bytes(store.kvstore.read(key).result().value) for key in store.kvstore.list().result()
    }
    unit = {} if sizes_nm is None else {"unit": "nanometer"}
    scale = list(sizes_nm or (1.0, 1.0, 1.0))
    moved = [
        {"type": "scale", "scale": scale},
        {"type": "translation", "translation": [at * size for at, size in zip(starts, scale, strict=True)]},
    ]
    multiscale = {
        "axes": [{"name": axis, "type": "space", **unit} for axis in axes],
        "datasets": [{"path": "0", "coordinateTransformations": moved}],
    }
    if version == "0.4":
        files[".zattrs"] = _json({"multiscales": [{"version": version, **multiscale}]})
        files[".zgroup"] = _json({"zarr_format": 2})
    else:
        attributes = {"ome": {"version": version, "multiscales": [multiscale]}}
        files["zarr.json"] = _json({"zarr_format": 3, "node_type": "group", "attributes": attributes})
    return files


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
