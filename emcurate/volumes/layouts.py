"""How voxels lie on disk, whatever the format: flat in a file, or flat in a compressed stream.

A layout is a small frozen dataclass that travels to other processes and opens its file anew at each read, so none
holds a file open, nor more than a small mapping (`KEPT_BYTES`).
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import math
import threading
import weakref
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import numpy.typing as npt

from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.files import open_regular
from emcurate.images.pixels import to_grey

AnyArray = npt.NDArray[Any]
Shape = tuple[int, int, int]
SizeNm = tuple[float, float, float]

# Voxels mapped or decoded at a time. Mapped pages count as this process's memory until they are unmapped.
CHUNK_BYTES = 1 << 26

# How many bytes of how many volumes, the last ones that a process read, stay mapped while they are used: to map what
# was unmapped takes several times as long as to copy it, and each slab across the planes needs all pages.
KEPT_BYTES, KEPT_MAPPINGS = 1 << 28, 4

COPY_AGAIN = "copy it again"

# How many bytes a compressed one can become at most: deflate repeats 258 bytes at the price of 2 bits (RFC 1951);
# bzip2 makes 32 bytes of a block of 45,899,235 equal ones (measured). More is a header that claims too much.
MOST_UNPACKED = {"gzip": 1032, "bz2": 45_899_235 // 32}

# Bytes after the last voxel of a compressed stream that are read to find its end, and with it its checksum. Programs
# append little or nothing; whoever makes a stream that grows without end to harm appends more.
MOST_APPENDED_BYTES = 1 << 28


class Voxels(Protocol):
    """What a reader returns: voxels that are read box by box.

    `shape` is (z, y, x); `dtype` that of the grey values `read` returns, in native byte order. `random_access` says
    that any box is read at the cost of that box; otherwise one costs about as much as all planes it crosses.
    `sequential` says that a box costs all that lies before it.
    """

    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def random_access(self) -> bool: ...
    @property
    def sequential(self) -> bool: ...
    def read(self, z: slice, y: slice, x: slice) -> AnyArray: ...
    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]: ...


@dataclass(frozen=True)
class Opened:
    """An opened file: its voxels, and the voxel size (z, y, x) in nm or None where the file does not say.

    `levels` is how many resolutions of it there are.
    """

    voxels: Voxels
    voxel_size_nm: SizeNm | None
    levels: int = 1


class _Mapping:
    """What is mapped of a file; it stays here, also where its layout is copied to another process or compared.

    It goes with its layout, or once others have taken its room: a mapping holds a file open, and those may be few.
    """

    def __init__(self) -> None:
        self._kept: tuple[tuple[int, ...], AnyArray] | None = None

    def __reduce__(self) -> tuple[type[_Mapping], tuple[()]]:
        return (_Mapping, ())

    def find(self, state: tuple[int, ...]) -> AnyArray | None:
        """Return the voxels that were mapped of a file in this state, if they still are."""
        kept = self._kept
        return kept[1] if kept is not None and kept[0] == state else None

    def keep(self, state: tuple[int, ...], voxels: AnyArray) -> None:
        """Keep the voxels that were mapped of a file in some state, and none of those before that are too many."""
        with _keeping:
            self._kept = state, voxels
            others = [each for ref in _mappings if (each := ref()) is not None and each is not self]
            room = KEPT_BYTES - voxels.nbytes
            _mappings[:] = [weakref.ref(self)]
            for other in others:  # the last one first
                kept = other._kept
                if kept is None:
                    continue
                room -= kept[1].nbytes
                if room < 0 or len(_mappings) == KEPT_MAPPINGS:
                    other._kept = None
                else:
                    _mappings.append(weakref.ref(other))


_mappings: list[weakref.ref[_Mapping]] = []  # those that hold a file open, the last one first
_keeping = threading.Lock()


@dataclass(frozen=True)
class FlatFile:
    """Uncompressed voxels in one file, memory-mapped piece by piece.

    Parameters
    ----------
    path : Path
    shape : (z, y, x)
    stored_dtype : numpy dtype
        With the file's byte order.
    offsets : tuple or range of int
        Byte offset of the first plane, the others following at once; or of every plane.
    channels : int
        Values per voxel, the fastest axis; 0 where a voxel is one value.
    """

    path: Path
    shape: Shape
    stored_dtype: np.dtype[Any]
    offsets: Sequence[int]
    channels: int = 0
    _mapping: _Mapping = field(default_factory=_Mapping, init=False, repr=False, compare=False)

    random_access = True
    sequential = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored_dtype.newbyteorder("=")

    @property
    def plane_bytes(self) -> int:
        return self.shape[1] * self.shape[2] * max(self.channels, 1) * self.stored_dtype.itemsize

    def check_complete(self) -> FlatFile:
        """Return this layout, or raise `InputError` if the file ends before the voxels do."""
        last = self.offsets[0] + self.plane_bytes * self.shape[0]
        expected = last if len(self.offsets) == 1 else max(self.offsets) + self.plane_bytes
        found = self.path.stat().st_size
        if found < expected:
            raise InputError(
                self.path,
                f"{expected:,} bytes, enough for {describe_shape(self.shape)} voxels of {self.stored_dtype.name}",
                f"{found:,} bytes",
                COPY_AGAIN,
            )
        return self

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the voxels of a box, (z, y, x), of type `dtype`."""
        planes = range(self.shape[0])[z]
        size = (len(planes), len(range(self.shape[1])[y]), len(range(self.shape[2])[x]))
        box = np.empty(size + self._channel_axis, self.dtype)
        if box.size and len(self.offsets) == 1 and self.plane_bytes * self.shape[0] <= KEPT_BYTES:
            box[...] = self._map_whole()[z, y, x]
            return to_grey(box) if self.channels else box
        # Planes that each lie by themselves are mapped one by one: a mapping holds a file open, and those may be few.
        at_once = max(1, CHUNK_BYTES // max(self.plane_bytes, 1)) if len(self.offsets) == 1 else 1
        for start in range(0, len(planes) if box.size else 0, at_once):
            some = planes[start : start + at_once]
            box[start : start + at_once] = self._map(some)[:, y, x]
        return to_grey(box) if self.channels else box

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        for index in range(start, stop):
            yield self.read(slice(index, index + 1), slice(None), slice(None))[0]

    @property
    def _channel_axis(self) -> tuple[int, ...]:
        return (self.channels,) if self.channels else ()

    def _map_whole(self) -> AnyArray:
        """Return all voxels as a mapped array, which is kept as long as the file is the same and as large."""
        status = self.path.stat()
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        voxels = self._mapping.find(state)
        if voxels is None:
            voxels = self._map(range(self.shape[0]))
            self._mapping.keep(state, voxels)
        return voxels

    def _map(self, planes: range) -> AnyArray:
        """Return these planes, or the one plane where each lies by itself, as a mapped array."""
        plane_shape = (self.shape[1], self.shape[2], *self._channel_axis)
        if len(self.offsets) > 1:
            return self._map_at(self.offsets[planes[0]], (1, *plane_shape))
        span = planes[-1] - planes[0] + 1
        return self._map_at(self.offsets[0] + planes[0] * self.plane_bytes, (span, *plane_shape))[:: planes.step]

    def _map_at(self, offset: int, shape: tuple[int, ...]) -> AnyArray:
        try:
            return np.memmap(self.path, self.stored_dtype, "r", offset, shape)
        except ValueError:
            raise InputError(
                self.path,
                f"at least {offset + math.prod(shape) * self.stored_dtype.itemsize:,} bytes",
                f"{self.path.stat().st_size:,} bytes; it shrank while it was read",
                COPY_AGAIN,
            ) from None


@dataclass(frozen=True)
class PackedStream:
    """Voxels one after another in a compressed stream, which is always read to its end.

    To reach any voxel, all before it must be decompressed; and whether they are as they were written only the checksum
    at the end tells, so that the last plane asked for is not given before that is found right.

    Parameters
    ----------
    path : Path
    compression : {'gzip', 'bz2'}
    shape : (z, y, x)
    stored_dtype : numpy dtype
        With the file's byte order.
    start : int
        Where in the file the compressed stream begins.
    skip : int
        Bytes of the decompressed stream before the first voxel.
    channels : int
        Values per voxel, the fastest axis; 0 where a voxel is one value.
    """

    path: Path
    compression: str
    shape: Shape
    stored_dtype: np.dtype[Any]
    start: int = 0
    skip: int = 0
    channels: int = 0

    random_access = False
    sequential = True

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored_dtype.newbyteorder("=")

    @property
    def _plane_shape(self) -> tuple[int, ...]:
        return (self.shape[1], self.shape[2], *((self.channels,) if self.channels else ()))

    @property
    def _plane_bytes(self) -> int:
        return math.prod(self._plane_shape) * self.stored_dtype.itemsize

    @property
    def _needed_bytes(self) -> int:
        """The bytes of the unpacked stream up to the end of the last voxel."""
        return self.skip + self._plane_bytes * self.shape[0]

    def check_plausible(self) -> PackedStream:
        """Return this layout, or raise `InputError` if no file of this size can hold so many voxels."""
        size = self.path.stat().st_size
        if self._needed_bytes > size * MOST_UNPACKED[self.compression]:
            expected = f"a header of as many voxels as {size:,} bytes of {self.compression} can hold"
            raise InputError(self.path, expected, f"{describe_shape(self.shape)} voxels", COPY_AGAIN)
        return self

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the voxels of a box, (z, y, x), of type `dtype`."""
        return read_by_planes(self, z, y, x)

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        with open_packed(self.path, self.compression, self.start) as stream:
            position = _skip(stream, self.skip + start * self._plane_bytes)
            for index in range(start, stop):
                data = _read_up_to(stream, self._plane_bytes)
                position += len(data)
                if len(data) < self._plane_bytes:
                    raise self._ends_early(position)
                if index == stop - 1:
                    self._check_rest(stream, position)
                plane = np.frombuffer(data, self.stored_dtype).reshape(self._plane_shape)
                plane = plane.astype(self.dtype, copy=False)
                yield to_grey(plane) if self.channels else plane

    def _check_rest(self, stream: BinaryIO, position: int) -> None:
        """Read a stream from a position to its end, where its checksum is."""
        position += _skip(stream, self._needed_bytes - position)
        if position < self._needed_bytes:
            raise self._ends_early(position)
        if _skip(stream, MOST_APPENDED_BYTES + 1) > MOST_APPENDED_BYTES:
            expected = f"a {self.compression} stream that ends after its {self._needed_bytes:,} bytes of voxels"
            found = f"more than {MOST_APPENDED_BYTES:,} bytes after them"
            raise InputError(self.path, expected, found, "do not trust it; unpack it to see what it holds")

    def _ends_early(self, position: int) -> InputError:
        needed = f"{self._needed_bytes:,} bytes when unpacked"
        expected = f"{needed}, enough for {describe_shape(self.shape)} voxels of {self.stored_dtype.name}"
        return InputError(self.path, expected, f"{position:,} bytes", COPY_AGAIN)


@dataclass(frozen=True)
class Derived:
    """What all voxels have that are others', looked at in another way; `read` and `iter_planes` say in which.

    Parameters
    ----------
    stored : Voxels
    """

    stored: Voxels

    @property
    def shape(self) -> Shape:
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.dtype

    @property
    def random_access(self) -> bool:
        return self.stored.random_access

    @property
    def sequential(self) -> bool:
        return self.stored.sequential


@dataclass(frozen=True)
class Scaled(Derived):
    """Voxels times a slope plus an intercept, as float64, the way NIfTI stores calibrated values."""

    slope: float
    intercept: float

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the scaled voxels of a box, (z, y, x)."""
        return self._scale(self.stored.read(z, y, x))

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        return map(self._scale, self.stored.iter_planes(start, stop))

    def _scale(self, values: AnyArray) -> AnyArray:
        return np.asarray(values.astype(np.float64) * self.slope + self.intercept)


@dataclass(frozen=True)
class Inverted(Derived):
    """Voxels whose black and white have changed places: the lowest value of an integer type became its highest."""

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the inverted voxels of a box, (z, y, x)."""
        return invert(self.stored.read(z, y, x))

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        return map(invert, self.stored.iter_planes(start, stop))


def invert(values: AnyArray) -> AnyArray:
    """Return voxels with black and white exchanged: floats negated, of integers lowest + highest - value.

    >>> invert(np.array([0, 9], np.uint8)).tolist(), invert(np.array([-128, 0], np.int8)).tolist()
    ([255, 246], [127, -1])
    """
    # Of two's complement, and of bool, the complement is that sum, without overflow.
    return np.asarray(-values if values.dtype.kind == "f" else ~values)


@dataclass(frozen=True)
class UpsideDown(Derived):
    """Voxels of planes whose last row is stored first."""

    def read(self, z: slice, y: slice, x: slice) -> AnyArray:
        """Return the voxels of a box, (z, y, x)."""
        rows = range(self.shape[1])[::-1][y]  # as they are stored, the last of them first
        if not rows:
            return self.stored.read(z, slice(0, 0), x)
        stored = slice(rows[-1], rows[0] + 1, -rows.step)
        return self.stored.read(z, stored, x)[:, ::-1]

    def iter_planes(self, start: int, stop: int) -> Iterator[AnyArray]:
        return (plane[::-1] for plane in self.stored.iter_planes(start, stop))


def read_by_planes(voxels: Voxels, z: slice, y: slice, x: slice) -> AnyArray:
    """Return a box of voxels of which only whole planes can be had."""
    planes = range(voxels.shape[0])[z]
    size = (len(planes), len(range(voxels.shape[1])[y]), len(range(voxels.shape[2])[x]))
    box = np.empty(size, voxels.dtype)
    if box.size:
        for index, plane in enumerate(voxels.iter_planes(planes[0], planes[-1] + 1)):
            if index % planes.step == 0:
                box[index // planes.step] = plane[y, x]
    return box


@contextlib.contextmanager
def open_packed(path: Path, compression: str, start: int = 0) -> Iterator[BinaryIO]:
    """Open a compressed stream for reading; what is wrong with it is raised as `InputError`."""
    try:
        with open_regular(path) as file:
            file.seek(start)
            unpack = gzip.GzipFile(fileobj=file) if compression == "gzip" else bz2.BZ2File(file)
            with unpack:
                yield cast(BinaryIO, unpack)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, compression, error) from None
    except OSError as error:
        # bz2 says "Invalid data stream" with a plain OSError; one of the system has a number.
        if error.errno is not None:
            raise
        raise _damaged(path, compression, error) from None


def check_side_lengths(path: Place, shape: tuple[int, ...]) -> Shape:
    """Return a (z, y, x) shape from a header, or raise `InputError` if a side is not at least 1."""
    z, y, x = (int(side) for side in shape)
    if min(z, y, x) < 1:
        raise InputError(path, "sides of at least 1 voxel", describe_shape((z, y, x)), "check how it was written")
    return z, y, x


def checked_voxel_size(sizes: tuple[Any, Any, Any]) -> tuple[float, float, float] | None:
    """Return a voxel size (z, y, x), or None if any side is zero, negative or no number."""
    z, y, x = (float(size) for size in sizes)
    if not all(math.isfinite(size) and size > 0 for size in (z, y, x)):
        return None
    return z, y, x


def describe_shape(shape: tuple[int, ...]) -> str:
    """Spell a shape: 250 × 250 × 250."""
    return " × ".join(str(side) for side in shape)


def _damaged(path: Path, compression: str, error: Exception) -> InputError:
    return InputError(path, f"a complete {compression} stream", f"a damaged or cut-off one ({error})", COPY_AGAIN)


def _read_up_to(stream: BinaryIO, size: int) -> bytearray:
    """Read `size` bytes, fewer only at the stream's end."""
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            break
        filled += count
    del view
    return data[:filled] if filled < size else data


def _skip(stream: BinaryIO, size: int) -> int:
    """Read and drop `size` bytes; return how many there were."""
    dropped = 0
    while dropped < size:
        data = stream.read(min(CHUNK_BYTES, size - dropped))
        if not data:
            break
        dropped += len(data)
    return dropped
