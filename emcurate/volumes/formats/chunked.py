"""Directories of chunks, read by tensorstore: the voxels of Zarr 2 and 3, of which the metadata are read elsewhere.

Only what lies in the directory is read. Everything below it is looked over once when it is opened: a link that leads
out of it, or a pipe that would be waited for, is found before tensorstore could follow it.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import leads_into, open_regular
from emcurate.volumes.layouts import COPY_AGAIN, AnyArray, Shape, describe_shape

# Decoded chunks kept by each process, so that neighbouring boxes do not decode the same chunk again.
CACHE_BYTES = 1 << 27

# Threads that tensorstore may use in a process; there is a process a core already.
THREADS = 2

# A chunk is decoded whole. Blosc, the usual compressor, cannot make larger ones.
MOST_CHUNK_BYTES = 1 << 31

# Chunks that a volume may have for one that is there: those of padding are left out, but volumes that are nearly all
# padding are metadata that claim too much.
MOST_CHUNKS_A_FILE = 1000

# Metadata are a page or a few; a megabyte of JSON is something else.
MOST_JSON_BYTES = 1 << 24


@dataclass(frozen=True)
class Chunks:
    """Voxels in the chunks of an array, of which each process opens a handle when it first reads.

    Parameters
    ----------
    path : Path
        The volume, for messages.
    array : Path
        The array's directory, in the volume or the volume itself.
    driver : str
        Tensorstore's name for the format.
    stored_shape : tuple of int
        All axes of the array, as it has them.
    axes : (int, int, int)
        Which of them are z, y and x. All others have one index.
    stored_dtype : numpy dtype
    has_fill : bool
        Whether the format says what a missing chunk holds; otherwise it is an error.
    state : str
        Changes when the array's metadata do, so that no old handle is used for a new array.
    """

    path: Path
    array: Path
    driver: str
    stored_shape: tuple[int, ...]
    axes: tuple[int, int, int]
    stored_dtype: np.dtype[Any]
    has_fill: bool
    state: str = ""

    random_access = True
    sequential = False

    @property
    def shape(self) -> Shape:
        z, y, x = (self.stored_shape[axis] for axis in self.axes)
        return z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored_dtype.newbyteorder("=")

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the voxels of a box, (z, y, x), of type `dtype`."""
        index: list[Any] = [0] * len(self.stored_shape)
        for axis, part, side in zip(self.axes, (z, y, x), self.shape, strict=True):
            start, stop, step = part.indices(side)
            index[axis] = slice(start, max(start, stop), step)
        try:
            found = np.asarray(self._open()[tuple(index)].read().result())
        except DAMAGE as error:
            raise describe_damage(error, self.path, "chunks that can be decoded", COPY_AGAIN) from None
        # Axes of one index are gone; those left are in the array's own order.
        kept = sorted(self.axes)
        box = found.transpose([kept.index(axis) for axis in self.axes])
        return np.ascontiguousarray(box.astype(self.dtype, copy=False))

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        for index in range(start, stop):
            yield self.read(slice(index, index + 1), slice(None), slice(None))[0]

    def check_readable(self) -> Chunks:
        """Return this layout, or raise `InputError` if it cannot be read or claims more than its files can hold."""
        files = look_over(self.array, self.path)
        try:
            store = self._open()
            found, stored = tuple(store.shape), store.dtype.numpy_dtype
            # The chunk that is decoded, and the file, which is a shard of many of them or the same.
            decoded = tuple(store.chunk_layout.read_chunk.shape or found)
            written = tuple(store.chunk_layout.write_chunk.shape or decoded)
        except DAMAGE as error:
            raise describe_damage(error, self.path, "an array that tensorstore can read", COPY_AGAIN) from None
        if found != self.stored_shape or np.dtype(stored) != self.dtype:
            claimed = f"{describe_shape(found)} of {stored}"
            expected = f"{describe_shape(self.stored_shape)} values of {self.dtype.name}"
            raise InputError(self.path, expected, claimed, COPY_AGAIN)
        chunk_bytes = math.prod(map(min, decoded, found)) * self.dtype.itemsize
        if math.prod(decoded) * self.dtype.itemsize > MOST_CHUNK_BYTES:
            expected = f"chunks of at most {MOST_CHUNK_BYTES:,} bytes"
            raise InputError(self.path, expected, f"{describe_shape(decoded)} values", "save it in smaller chunks")
        chunks = math.prod(-(-side // part) for side, part in zip(found, written, strict=True))
        if files == 0 or chunks > files * MOST_CHUNKS_A_FILE:
            expected = f"at least one in {MOST_CHUNKS_A_FILE:,} of its {chunks:,} chunks of {chunk_bytes:,} bytes"
            raise InputError(self.path, expected, f"{files:,} files", "copy it again, with all that lies in it")
        return self

    def _open(self) -> Any:
        return _open_store(self.driver, str(self.array.absolute()), self.has_fill, self.state)


@functools.lru_cache(maxsize=8)
def _open_store(driver: str, array: str, has_fill: bool, state: str) -> Any:
    import tensorstore

    specification = {
        "driver": driver,
        "kvstore": {"driver": "file", "path": array + os.sep},
        "fill_missing_data_reads": has_fill,
    }
    return tensorstore.open(specification, open=True, read=True, write=False, context=_context()).result()


@functools.cache
def _context() -> Any:
    """Return what all handles of a process share."""
    import tensorstore

    return tensorstore.Context(
        {
            "cache_pool": {"total_bytes_limit": CACHE_BYTES},
            "data_copy_concurrency": {"limit": THREADS},
            "file_io_concurrency": {"limit": THREADS},
        }
    )


def look_over(array: Path, store: Path) -> int:
    """Return how many files of chunks lie in an array's directory.

    Raises
    ------
    InputError
        If a link leads out of `store`, or something is neither a file nor a directory.
    """
    count = 0
    inside = store.resolve()
    for directory, directories, files in os.walk(array, onerror=_raise):
        for name in (*directories, *files):
            found = Path(directory, name)
            if found.is_symlink():
                if not leads_into(found, inside):
                    raise InputError(
                        store,
                        "all of it in its own directory",
                        f"{found.relative_to(store)}, a link that leads out of it",
                        "put the file itself there",
                    )
                if found.is_dir():
                    raise InputError(
                        store, "no links to directories", str(found.relative_to(store)), "put the directory there"
                    )
        for name in files:
            found = Path(directory, name)
            if not found.is_file():
                raise InputError(
                    store, "files only", f"{found.relative_to(store)}, a pipe, a socket or a device", "remove it"
                )
            count += not name.startswith(".") and not name.endswith(".json")
    return count


def _raise(error: OSError) -> None:
    raise error


def step_into(store: Path, name: object) -> Path:
    """Return the directory in a store that its metadata name, or raise `InputError` if that is not in the store."""
    steps = PurePosixPath(str(name).replace("\\", "/"))
    inside = isinstance(name, str) and not (steps.is_absolute() or PureWindowsPath(name).drive or ".." in steps.parts)
    if not inside or ":" in str(name) or "\0" in str(name):
        raise InputError(store, "an array in its own directory", f"path: {name!r}"[:200], "do not trust it")
    found = store / steps
    if not leads_into(found, store):
        raise InputError(store, "an array in its own directory", f"{name}, a link out of it", "put the array there")
    return found


def read_json(path: Path, store: Path) -> dict[str, Any]:
    """Return the object in a file of JSON, or raise `InputError`."""
    if not leads_into(path, store):
        raise InputError(store, "all of it in its own directory", f"{path.name}, a link out of it", "put it there")
    with open_regular(path) as file:
        text = file.read(MOST_JSON_BYTES + 1)
    if len(text) > MOST_JSON_BYTES:
        raise InputError(path, f"at most {MOST_JSON_BYTES:,} bytes of metadata", "more", "check what the file is")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise describe_damage(error, path, "metadata in JSON", COPY_AGAIN) from None
    if not isinstance(found, dict):
        raise InputError(path, "a JSON object", type(found).__name__, COPY_AGAIN)
    return found
