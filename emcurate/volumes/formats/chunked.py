"""Arrays in chunks, read by tensorstore: the voxels of Zarr 2 and 3, N5 and Neuroglancer's precomputed format.

Their metadata are read elsewhere, and where their files lie is told by `emcurate.volumes.formats.stores`.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emcurate.errors import DAMAGE, InputError
from emcurate.volumes.formats.stores import Store, context, look_over, tensorstore
from emcurate.volumes.layouts import COPY_AGAIN, AnyArray, Shape, describe_shape

# A chunk is decoded whole. Blosc, the usual compressor, cannot make larger ones.
MOST_CHUNK_BYTES = 1 << 31

# Chunks that a volume may have for one that is there: those of padding are left out, but volumes that are nearly all
# padding are metadata that claim too much.
MOST_CHUNKS_A_FILE = 1000

# A sparse volume may have more: of the layers of chunks along each axis, one in so many has a chunk that is there.
# A claim far beyond what is there fails along the axis where it was made. In all it is believed up to this many chunks
# for one that is there.
MOST_LAYERS_A_LAYER = 32
MOST_CHUNKS_A_SPREAD_FILE = 1_000_000

# The places of a chunk along the axes in the name of its file, as Zarr and N5 write them; and as the precomputed format
# does, in voxels.
_PLACES = re.compile(r"(?:c[./])?([0-9]{1,18}(?:[./][0-9]{1,18})*)")
_SPANS = re.compile(r"([0-9]{1,18})-[0-9]{1,18}_([0-9]{1,18})-[0-9]{1,18}_([0-9]{1,18})-[0-9]{1,18}(?:\.gz)?")


@dataclass(frozen=True)
class Chunks:
    """Voxels in the chunks of an array, of which each process opens a handle when it first reads.

    Parameters
    ----------
    store : Store
        Where the volume lies.
    key : str
        The array's directory in the store, empty for the store itself.
    driver : str
        Tensorstore's name for the format.
    stored_shape : tuple of int
        All axes of the array, as it has them.
    axes : (int, int, int)
        Which of them are z, y and x.
    stored_dtype : numpy dtype
    has_fill : bool
        Whether the format says what a missing chunk holds; otherwise it is an error.
    state : str
        Changes when the array's metadata do, so that no old handle is used for a new array.
    index : tuple of int
        What is read of the other axes, which have one index each if it is empty.
    origin : tuple of int
        The index of the first voxel along each axis; empty for zeros.
    scale : int, optional
        Which array of the directory it is, for a format that numbers them.
    directory : str, optional
        Where in the store the files of its chunks lie, if not in `key`.
    chunk : (z, y, x)
        The voxels that are fetched and decoded together, as `check_readable` finds out.
    """

    store: Store
    key: str
    driver: str
    stored_shape: tuple[int, ...]
    axes: tuple[int, int, int]
    stored_dtype: np.dtype[Any]
    has_fill: bool
    state: str = ""
    index: tuple[int, ...] = ()
    origin: tuple[int, ...] = ()
    scale: int | None = None
    directory: str | None = None
    chunk: Shape = (1, 1, 1)

    random_access = True
    sequential = False

    @property
    def shape(self) -> Shape:
        z, y, x = (self.stored_shape[axis] for axis in self.axes)
        return z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored_dtype.newbyteorder("=")

    @property
    def is_remote(self) -> bool:
        """Whether reading asks a server, so that each chunk is better fetched once."""
        return self.store.is_remote

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the voxels of a box, (z, y, x), of type `dtype`."""
        try:
            return self.arrange(self.ask(z, y, x).result())
        except DAMAGE as error:
            raise self.describe(error) from None

    def ask(self, z: slice, y: slice, x: slice) -> Any:
        """Return a future of the voxels of a box, for `arrange`; its errors are for `describe`."""
        first = self.origin or (0,) * len(self.stored_shape)
        index: list[Any] = [start + chosen for start, chosen in zip(first, self.index or first, strict=True)]
        if not self.index:
            index = list(first)
        for axis, part, side in zip(self.axes, (z, y, x), self.shape, strict=True):
            start, stop, step = part.indices(side)
            index[axis] = slice(first[axis] + start, first[axis] + max(start, stop), step)
        return self.open()[tuple(index)].read()

    def arrange(self, found: Any) -> AnyArray:
        """Return the answer to `ask` as (z, y, x) voxels of type `dtype`."""
        # Axes of one index are gone; those left are in the array's own order.
        kept = sorted(self.axes)
        box = np.asarray(found).transpose([kept.index(axis) for axis in self.axes])
        return np.ascontiguousarray(box.astype(self.dtype, copy=False))

    def describe(self, error: BaseException) -> InputError:
        """Return what tensorstore said of a chunk as an error for users."""
        return self.store.describe(error, "chunks that can be decoded", COPY_AGAIN)

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        for index in range(start, stop):
            yield self.read(slice(index, index + 1), slice(None), slice(None))[0]

    def check_readable(self) -> Chunks:
        """Return this layout with its `chunk`; raise `InputError` if it cannot be read or claims more than there is.

        What a server has is not listed: there each chunk is asked for when it is wanted.
        """
        files = (
            None if self.is_remote else look_over(self.store, self.key if self.directory is None else self.directory)
        )
        try:
            store = self.open()
            found, stored = tuple(store.shape), store.dtype.numpy_dtype
            # The chunk that is decoded, and the file, which is a shard of many of them or the same.
            decoded = tuple(store.chunk_layout.read_chunk.shape or found)
            written = tuple(store.chunk_layout.write_chunk.shape or decoded)
        except DAMAGE as error:
            raise self.store.describe(error, "an array that tensorstore can read", COPY_AGAIN) from None
        if found != self.stored_shape or np.dtype(stored) != self.dtype:
            claimed = f"{describe_shape(found)} of {stored}"
            expected = f"{describe_shape(self.stored_shape)} values of {self.dtype.name}"
            raise InputError(self.store.place, expected, claimed, COPY_AGAIN)
        chunk_bytes = math.prod(map(min, decoded, found)) * self.dtype.itemsize
        if math.prod(decoded) * self.dtype.itemsize > MOST_CHUNK_BYTES:
            expected = f"chunks of at most {MOST_CHUNK_BYTES:,} bytes"
            found_chunks = f"{describe_shape(decoded)} values"
            raise InputError(self.store.place, expected, found_chunks, "save it in smaller chunks")
        if files is not None:
            grid = [-(-side // part) for side, part in zip(found, written, strict=True)]
            if not is_plausible(grid, len(files), lambda: self._places(files, written)):
                expected = (
                    f"at least one in {MOST_CHUNKS_A_FILE:,} of its {math.prod(grid):,} chunks of {chunk_bytes:,} bytes"
                )
                advice = "copy it again, with all that lies in it"
                raise InputError(self.store.place, expected, f"{len(files):,} files", advice)
        z, y, x = (max(1, min(decoded[axis], found[axis])) for axis in self.axes)
        return replace(self, chunk=(z, y, x))

    def open(self) -> Any:
        """Return tensorstore's handle, which a process keeps."""
        specification: dict[str, Any] = {
            "driver": self.driver,
            "kvstore": self.store.kvstore(self.key),
            "fill_missing_data_reads": self.has_fill,
        }
        if self.is_remote:
            # Asked for once: chunks and the indices of shards are kept while the handle is.
            specification |= dict.fromkeys(("recheck_cached_data", "recheck_cached_metadata"), "open")
        if self.scale is not None:
            specification["scale_index"] = self.scale
        return _open(json.dumps(specification, sort_keys=True), self.state)

    def sample_files(self, count: int) -> list[str]:
        """Return the keys in the store of some files of chunks, spread from one corner of the array to the other.

        Empty where names do not tell which chunk they hold, as of shards of the precomputed format.
        """
        store = self.open()
        metadata = store.spec().to_json()["metadata" if self.scale is None else "scale_metadata"]
        written = tuple(store.chunk_layout.write_chunk.shape or store.shape)
        grid = [-(-side // part) for side, part in zip(self.stored_shape, written, strict=True)]
        places = {tuple((2 * number + 1) * side // (2 * count) for side in grid): None for number in range(count)}
        directory = self.key if self.directory is None else self.directory
        if self.scale is not None:
            if "sharding" in metadata and metadata["sharding"] is not None:
                return []
            spans = [
                [
                    (first + at * part, first + min((at + 1) * part, side))
                    for at, part, side, first in zip(place, written, self.stored_shape, self.origin, strict=True)
                ][:3]
                for place in places
            ]
            names = ["_".join(f"{start}-{stop}" for start, stop in span) for span in spans]
        else:
            encoding = metadata.get("chunk_key_encoding") or {}
            separator = (encoding.get("configuration") or {}).get("separator")
            usual = {"zarr": metadata.get("dimension_separator") or ".", "n5": "/"}
            separator = separator or usual.get(self.driver) or ("." if encoding.get("name") == "v2" else "/")
            prefix = f"c{separator}" if self.driver == "zarr3" and encoding.get("name") != "v2" else ""
            names = [prefix + separator.join(map(str, place)) for place in places]
        return [f"{directory}/{name}" if directory else name for name in names]

    def _places(self, files: Sequence[str], written: Sequence[int]) -> list[tuple[int, ...]]:
        """Return where in the grid of chunks files lie, of those whose names say so."""
        places = []
        for name in files:
            if match := _SPANS.fullmatch(name):
                spans = [int(start) for start in match.groups()]
                first = self.origin or (0,) * len(spans)
                places.append(
                    tuple((at - start) // part for at, start, part in zip(spans, first, written, strict=False))
                )
            elif match := _PLACES.fullmatch(name):
                places.append(tuple(map(int, re.split(r"[./]", match[1]))))
        return places


def is_plausible(grid: Sequence[int], count: int, places: Any) -> bool:
    """Return whether an array of so many chunks along each axis is to be believed, of which `count` are there.

    Parameters
    ----------
    grid : sequence of int
    count : int
    places : callable
        Returns where in the grid they are; called only where few are there.
    """
    chunks = math.prod(grid)
    if count == 0:
        return False
    if chunks <= count * MOST_CHUNKS_A_FILE:
        return True
    if chunks > count * MOST_CHUNKS_A_SPREAD_FILE:
        return False
    found = [place for place in places() if len(place) >= len(grid)]
    return all(
        len({place[axis] for place in found if 0 <= place[axis] < side}) * MOST_LAYERS_A_LAYER >= side
        for axis, side in enumerate(grid)
    )


@functools.lru_cache(maxsize=8)
def _open(specification: str, state: str) -> Any:
    return tensorstore().open(json.loads(specification), open=True, read=True, write=False, context=context()).result()
