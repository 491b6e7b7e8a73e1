"""Hashes of all patches of a section at once: the bits of `imagehash.dhash`, in a fraction of its time.

Pillow shrinks 8-bit images in integers: first along rows, then along columns, each sum of weighted pixels rounded to
a byte. Compiled loops do just that for all patches of a section. Where it does not pay to load a compiler, both are
matrix products of many patches: their factors are whole multiples of 2^-22 and their sums below 2^9, which float64
holds exactly, so no order of adding, number of threads or processor can change a bit.
"""

from __future__ import annotations

import ctypes
import functools
import math
import threading

import numpy as np
import numpy.typing as npt

from emcurate.patches.grid import iter_grid
from emcurate.patches.hashing import HASHES, BoolArray, compute_hash
from emcurate.patches.machine_code import Loops, addressable

# Pillow's resampling of bytes: weights are rounded to multiples of 2^-22 (src/libImaging/Resample.c, PRECISION_BITS).
WEIGHT_UNIT = 2.0**-22

# Pixels of the result, or of the image where the result is larger, that the Lanczos kernel reaches to each side.
LANCZOS_LOBES = 3

# Pixels taken at once, 1 MiB as float64: what the cache of one core holds.
BATCH_PIXELS = 1 << 17

# Multiplications in one matrix product. For more than these OpenBLAS, numpy's usual library, starts threads, which
# gain nothing here and make the product up to a hundred times slower where the cores are busy.
PRODUCT_SIZE = 1 << 18

# Patches from which on a process loads the compiled loops, or compiles them where nobody has.
LOADED_FROM, COMPILED_FROM = 1000, 10_000
_ADDRESS, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_TAKES = ctypes.CFUNCTYPE(None, _ADDRESS, *[_NUMBER] * 2, _ADDRESS, *[_NUMBER] * 3, *[_ADDRESS] * 7)
LOOPS = Loops("emcurate.patches.hash_loops", "hash_all", _TAKES, LOADED_FROM, COMPILED_FROM)

_kept = threading.local()


def hash_section(section: npt.NDArray[np.uint8], crop_size: int, hash_size: int, kind: str = HASHES[0]) -> BoolArray:
    """Return the hashes of a section's patches in the order of `emcurate.patches.grid.iter_grid`.

    Parameters
    ----------
    section : (height, width) uint8
    crop_size, hash_size, kind
        As `emcurate.patches.hashing.compute_hash` takes them, whose bits these are.

    Returns
    -------
    (patches, hash_size, hash_size) bool
    """
    grid = iter_grid(section.shape[0], section.shape[1], crop_size)
    places = [(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start) for rows, cols in grid]
    return hash_places(section, np.array(places, np.int32), crop_size, hash_size, kind)


def hash_places(
    section: npt.NDArray[np.uint8],
    places: npt.NDArray[np.int32],
    crop_size: int,
    hash_size: int,
    kind: str = HASHES[0],
) -> BoolArray:
    """Return the hashes of some patches of a section.

    Parameters
    ----------
    section : (height, width) uint8
    places : (n, 4) int32
        Row, column, height and width of each patch in pixels.
    crop_size, hash_size, kind
        As `emcurate.patches.hashing.compute_hash` takes them, whose bits these are.

    Returns
    -------
    (n, hash_size, hash_size) bool
    """
    hashes = np.empty((len(places), hash_size, hash_size), np.bool_)
    is_full = (places[:, 2:] == crop_size).all(axis=1) & (kind == HASHES[0])
    hashes[is_full] = hash_patches(section, places[is_full, :2], crop_size, hash_size)
    for i in np.flatnonzero(~is_full):
        y, x, height, width = places[i].tolist()
        hashes[i] = compute_hash(section[y : y + height, x : x + width], crop_size, hash_size, kind)
    return hashes


def hash_patches(
    section: npt.NDArray[np.uint8], corners: npt.NDArray[np.int32], crop_size: int, hash_size: int
) -> BoolArray:
    """Return the difference hashes of full patches, bit for bit those of `imagehash.dhash`.

    A patch is shrunk to ``hash_size`` rows of ``hash_size + 1`` pixels (Lanczos); a bit tells whether a pixel is
    brighter than its left neighbour (Krawetz, "Kind of like that", 2013).

    Parameters
    ----------
    section : (height, width) uint8
    corners : (n, 2) int32
        Row and column of the top-left pixel of each patch, which is ``crop_size`` squared and inside the section.
    crop_size, hash_size : int
        Sides of a patch in pixels and of a hash in bits.

    Returns
    -------
    (n, hash_size, hash_size) bool
    """
    return (hash_by_loops if LOOPS.pay(len(corners)) else hash_by_products)(section, corners, crop_size, hash_size)


def hash_by_loops(
    section: npt.NDArray[np.uint8], corners: npt.NDArray[np.int32], crop_size: int, hash_size: int
) -> BoolArray:
    """Do what `hash_patches` does by the loops of `emcurate.patches.hash_loops`."""
    hashes = np.empty((len(corners), hash_size, hash_size), np.bool_)
    if len(corners):
        section = addressable(section, np.hstack([corners, corners + crop_size]))
        corners = np.ascontiguousarray(corners, np.int32)
        weights = [*_whole_weights(crop_size, hash_size + 1), *_whole_weights(crop_size, hash_size)]
        room = np.empty((hash_size + 1, crop_size), np.int32), np.empty(hash_size + 1, np.int32)
        size = (len(section) - 1) * section.strides[0] + section.shape[1]
        LOOPS(
            *(section.ctypes.data, section.strides[0], size, corners.ctypes.data, len(corners), crop_size, hash_size),
            *(array.ctypes.data for array in (*weights, *room, hashes)),
        )
    return hashes


def hash_by_products(
    section: npt.NDArray[np.uint8], corners: npt.NDArray[np.int32], crop_size: int, hash_size: int
) -> BoolArray:
    """Do what `hash_patches` does by products of matrices."""
    hashes = np.empty((len(corners), hash_size, hash_size), np.bool_)
    batch = max(1, BATCH_PIXELS // crop_size**2)
    band = min(crop_size, max(1, BATCH_PIXELS // crop_size))  # rows, all of them but in patches larger than a batch
    for start in range(0, len(corners), batch):
        some = corners[start : start + batch].tolist()
        narrow = np.empty((len(some), hash_size + 1, crop_size))
        for top in range(0, crop_size, band):
            bottom = min(top + band, crop_size)
            pixels = _borrow_memory(len(some), bottom - top, crop_size)
            for patch, (row, column) in zip(pixels, some, strict=True):
                patch[:] = section[row + top : row + bottom, column : column + crop_size]
            narrow[:, :, top:bottom] = _shrink_rows(pixels, hash_size + 1)
        small = _shrink_rows(narrow, hash_size)
        hashes[start : start + batch] = small[:, :, 1:] > small[:, :, :-1]
    return hashes


def _shrink_rows(images: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Resample the rows of (n, height, width) images to `count` pixels; return them as columns, (n, count, height).

    Applied twice it resamples both axes, and has turned the images back.
    """
    n, height, width = images.shape
    weights = _lanczos_weights(width, count)
    sums = np.empty((n, count, height))
    lines = max(1, PRODUCT_SIZE // weights.size)
    for start in range(0, height, lines):
        part = images[:, start : start + lines].transpose(0, 2, 1)
        np.matmul(weights, part, out=sums[:, :, start : start + lines])
    sums += 0.5
    np.floor(sums, out=sums)
    return np.clip(sums, 0, 255, out=sums)


def _borrow_memory(*shape: int) -> npt.NDArray[np.float64]:
    """Return an array of this thread's, valid until the next call.

    Memory given back to the system after each section and asked for again costs as much as the hashing itself.
    """
    size = math.prod(shape)
    if len(getattr(_kept, "memory", ())) < size:
        _kept.memory = np.empty(size)
    memory: npt.NDArray[np.float64] = _kept.memory[:size].reshape(shape)
    return memory


@functools.lru_cache
def _lanczos_weights(length: int, count: int) -> npt.NDArray[np.float64]:
    """Return the (count, length) weights with which Pillow makes `count` pixels of `length`.

    Source: src/libImaging/Resample.c of Pillow, precompute_coeffs and normalize_coeffs_8bpc. Every step is done as
    there, in double precision and in this order, so that the same weights are rounded up.
    """
    scale = length / count
    stretch = max(scale, 1.0)
    reach = LANCZOS_LOBES * stretch
    weights = np.zeros((count, length))
    for i in range(count):
        center = (i + 0.5) * scale
        start, stop = max(0, int(center - reach + 0.5)), min(length, int(center + reach + 0.5))
        values = [_lanczos((x - center + 0.5) * (1.0 / stretch)) for x in range(start, stop)]
        # One after the other: Python's sum carries what rounding lost along, which Pillow does not.
        total = functools.reduce(float.__add__, values, 0.0)
        for x, value in enumerate(values, start):
            share = value / total
            weights[i, x] = int(share / WEIGHT_UNIT + math.copysign(0.5, share)) * WEIGHT_UNIT
    weights.flags.writeable = False  # shared by all that ask
    return weights


@functools.lru_cache
def _whole_weights(length: int, count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the weights in units of `WEIGHT_UNIT`, (count, length), and where those of each pixel begin and end."""
    weights = np.rint(_lanczos_weights(length, count) / WEIGHT_UNIT).astype(np.int32)
    used = [np.flatnonzero(of_one) for of_one in weights]
    reach = np.array([(places[0], places[-1] + 1) for places in used], np.int32)
    for array in (weights, reach):
        array.flags.writeable = False
    return weights, reach


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / LANCZOS_LOBES) if -LANCZOS_LOBES <= x < LANCZOS_LOBES else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0
