"""Difference hashes of patches, packed into words, and the Hamming distance between them."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emcurate.contents import npy_bytes, read_npy
from emcurate.errors import InputError
from emcurate.files import open_regular

if TYPE_CHECKING:
    from PIL import Image

BoolArray = npt.NDArray[np.bool_]
WordArray = npt.NDArray[np.uint64]

WORD_BITS = 64

# A hash of one bit, or of none, says nothing; and no file of one is larger than this.
LEAST_SIDE = 2
MOST_HASH_BYTES = 1 << 20

# imagehash's, the published one first.
WAVELET_HASH = "whash"
HASHES = ("dhash", "phash", "ahash", WAVELET_HASH)


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
    return compute_differences(patch, crop_size, hash_size) > 0


def compute_differences(patch: npt.NDArray[np.uint8], crop_size: int, hash_size: int) -> npt.NDArray[np.int16]:
    """Return what the bits of `compute_dhash` are the signs of: how much brighter than its left neighbour a pixel is.

    Returns
    -------
    (hash_size, hash_size) int16
        In grey values.
    """
    from PIL import Image  # here, since those who only compare hashes need not load it

    image = _full_size(patch, crop_size)
    small = np.asarray(image.resize((hash_size + 1, hash_size), Image.Resampling.LANCZOS)).astype(np.int16)
    return small[:, 1:] - small[:, :-1]


def compute_hash(patch: npt.NDArray[np.uint8], crop_size: int, hash_size: int, kind: str = HASHES[0]) -> BoolArray:
    """Return one of imagehash's hashes of a patch, resized like in `compute_dhash` if it is not a full one.

    Parameters
    ----------
    patch : (height, width) uint8
    crop_size, hash_size : int
        Sides of a full patch in pixels and of the hash in bits; that of a wavelet hash is a power of 2.
    kind : str
        One of `HASHES`: difference, perceptual (DCT), average or wavelet (Haar) hash.

    Returns
    -------
    (hash_size, hash_size) bool
    """
    if kind == HASHES[0]:
        return compute_dhash(patch, crop_size, hash_size)
    import imagehash  # here, since it loads scipy's and wavelets' transforms

    functions: dict[str, Any] = {"phash": imagehash.phash, "ahash": imagehash.average_hash, "whash": imagehash.whash}
    return np.asarray(functions[kind](_full_size(patch, crop_size), hash_size=hash_size).hash, np.bool_)


def count_words(side: int) -> int:
    """Return how many words a hash of a side takes."""
    return -(-side * side // WORD_BITS)


def pack_hashes(hashes: BoolArray) -> WordArray:
    """Pack (n, ...) boolean hashes into (n, words) uint64, padded with zeros, which add nothing to a distance."""
    packed = np.packbits(hashes.reshape(len(hashes), -1), axis=1)
    padding = -packed.shape[1] % (WORD_BITS // 8)
    return np.ascontiguousarray(np.pad(packed, ((0, 0), (0, padding)))).view(np.uint64)


def hamming_distance(first: WordArray, second: WordArray) -> npt.NDArray[np.int64]:
    """Return the number of differing bits between packed hashes; (..., words) arrays broadcast."""
    distances: npt.NDArray[np.int64] = np.bitwise_count(first ^ second).sum(axis=-1, dtype=np.int64)
    return distances


def least_distance(first: WordArray, second: WordArray) -> npt.NDArray[np.int64]:
    """Return in how many bits hashes differ from others, (n, words); of several orientations in the fewest.

    Parameters
    ----------
    first : (n, words) or (n, orientations, words) uint64
    second : (n, words) uint64
    """
    if first.ndim == 2:
        return hamming_distance(first, second)
    return functools.reduce(np.minimum, (hamming_distance(first[:, i], second) for i in range(first.shape[1])))


def hash_npy(bits: BoolArray) -> bytes:
    """Return a hash, (side, side) bool, as the bytes of the ``.npy`` file that numpy would write."""
    return _hash_head(len(bits)) + b"\n" + bits.tobytes()


def read_hash(path: Path) -> BoolArray:
    """Read a hash file: (hash_size, hash_size) bool.

    Raises
    ------
    InputError
        If it is no ``.npy`` file of a square boolean array.
    """
    with open_regular(path) as file:
        head, _, bits = file.read(MOST_HASH_BYTES).partition(b"\n")
    side = math.isqrt(len(bits))
    if head == _hash_head(side) and side * side == len(bits) and side >= LEAST_SIDE:
        return np.frombuffer(bits, np.bool_).reshape(side, side)
    # Written by another numpy, in another order, or damaged: numpy itself finds out.
    array = read_npy(path)
    if array.dtype != np.bool_ or array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] < LEAST_SIDE:
        raise InputError(
            path, "a square boolean array", f"a {array.shape} array of {array.dtype}", "run raw/crop_patches.py again"
        )
    return array.astype(np.bool_)


def _full_size(patch: npt.NDArray[np.uint8], crop_size: int) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(patch)
    if image.size == (crop_size, crop_size):
        return image
    return image.resize((crop_size, crop_size), Image.Resampling.BILINEAR)


@functools.cache
def _hash_head(side: int) -> bytes:
    """Return what stands before the bits in the file of a hash; parsing it takes numpy ten times the reading."""
    return npy_bytes(np.zeros((side, side), np.bool_)).partition(b"\n")[0]
