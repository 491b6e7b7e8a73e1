"""Difference hashes of patches, packed into words, and the Hamming distance between them."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import intrinsic
from PIL import Image

from emcurate.errors import InputError
from emcurate.files import npy_bytes, read_npy

BoolArray = npt.NDArray[np.bool_]
WordArray = npt.NDArray[np.uint64]

WORD_BITS = 64

# Exemplars compared before looking whether one was close enough: long enough for the vector units, short enough
# that the search stops soon after the first hit.
SEARCH_CHUNK = 512

_THREADS_AT_MOST: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]


def compute_dhash(patch: npt.NDArray[np.uint8], crop_size: int, hash_size: int) -> BoolArray:
    """Return a patch's difference hash, bit for bit that of `imagehash.dhash`.

    The patch is resized to ``crop_size`` squared (bilinear) if it has another size, then shrunk to
    ``hash_size`` rows of ``hash_size + 1`` pixels (Lanczos); a bit tells whether a pixel is brighter than its left
    neighbour (Krawetz, "Kind of like that", 2013).

    Parameters
    ----------
    patch : (height, width) uint8
    crop_size : int
        Side of a full patch in pixels.
    hash_size : int
        Side of the hash, at least 2.

    Returns
    -------
    (hash_size, hash_size) bool
    """
    image = Image.fromarray(patch)
    if image.size != (crop_size, crop_size):
        image = image.resize((crop_size, crop_size), Image.Resampling.BILINEAR)
    small = np.asarray(image.resize((hash_size + 1, hash_size), Image.Resampling.LANCZOS))
    return small[:, 1:] > small[:, :-1]


def pack_hashes(hashes: BoolArray) -> WordArray:
    """Pack (n, ...) boolean hashes into (n, words) uint64, padded with zeros, which add nothing to a distance."""
    packed = np.packbits(hashes.reshape(len(hashes), -1), axis=1)
    padding = -packed.shape[1] % (WORD_BITS // 8)
    return np.ascontiguousarray(np.pad(packed, ((0, 0), (0, padding)))).view(np.uint64)


def hamming_distance(first: WordArray, second: WordArray) -> npt.NDArray[np.int64]:
    """Return the number of differing bits between packed hashes; (..., words) arrays broadcast."""
    distances: npt.NDArray[np.int64] = np.bitwise_count(first ^ second).sum(axis=-1, dtype=np.int64)
    return distances


def find_first_within(
    queries: WordArray, exemplars: WordArray, distance: int, threads: int = 1
) -> npt.NDArray[np.int64]:
    """Return, for each of (n, words) hashes, the first of (m, words) exemplars within `distance`, or -1.

    The result does not depend on the number of threads.
    """
    numba.set_num_threads(min(threads, _THREADS_AT_MOST))
    return np.asarray(_find_first_within(queries, np.ascontiguousarray(exemplars.T), np.uint64(distance)))


@intrinsic
def _popcount(_context: Any, word: Any) -> Any:
    """Count the ones of a uint64: LLVM's ctpop, which vectorises, where a loop over bits would not."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


@numba.njit(parallel=True, cache=True)
def _find_first_within(queries: Any, exemplars: Any, distance: Any) -> Any:
    words, count = exemplars.shape
    first = np.full(len(queries), -1, np.int64)
    for q in numba.prange(len(queries)):
        distances = np.empty(SEARCH_CHUNK, np.uint64)
        for start in range(0, count, SEARCH_CHUNK):
            length = min(SEARCH_CHUNK, count - start)
            distances[:length] = 0
            for w in range(words):
                word = queries[q, w]
                for e in range(length):
                    distances[e] += _popcount(word ^ exemplars[w, start + e])  # type: ignore[call-arg]
            hits = 0
            for e in range(length):
                hits += distances[e] <= distance
            if hits:
                for e in range(length):
                    if distances[e] <= distance:
                        first[q] = start + e
                        break
                break
    return first


def read_hash(path: Path) -> BoolArray:
    """Read a hash file: (hash_size, hash_size) bool.

    Raises
    ------
    InputError
        If it is no ``.npy`` file of a square boolean array.
    """
    head, _, bits = path.read_bytes().partition(b"\n")
    side = math.isqrt(len(bits))
    if head == _hash_head(side) and side * side == len(bits) and side:
        return np.frombuffer(bits, np.bool_).reshape(side, side)
    # Written by another numpy, in another order, or damaged: numpy itself finds out.
    array = read_npy(path)
    if array.dtype != np.bool_ or array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise InputError(
            path, "a square boolean array", f"a {array.shape} array of {array.dtype}", "run raw/crop_patches.py again"
        )
    return array.astype(np.bool_)


@functools.cache
def _hash_head(side: int) -> bytes:
    """Return what stands before the bits in the file of a hash; parsing it takes numpy ten times the reading."""
    return npy_bytes(np.zeros((side, side), np.bool_)).partition(b"\n")[0]
