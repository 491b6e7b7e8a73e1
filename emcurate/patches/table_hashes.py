"""Names and hashes of a whole table, as they are compared: in words, and each with the shard that it lies in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate.errors import InputError
from emcurate.patches.columns import as_floats, as_numbers, as_scalar, in_one
from emcurate.patches.hashing import WORD_BITS, WordArray, count_words
from emcurate.patches.measures import BLUR, SATURATED, sharpness_of
from emcurate.patches.names import as_names, join_names, take_names
from emcurate.patches.orientations import ORIENTATIONS
from emcurate.patches.tables import TURNED, hash_size_of, read_row_groups, refuse_other_dataset

# Rows of which what was needed to read them is left to Arrow, for those to be read next.
ROWS_KEPT = 100_000


@dataclass(frozen=True)
class PatchHashes:
    """The names and hashes of a table's patches.

    Attributes
    ----------
    names : LargeStringArray of n
    words : (n, words) uint64
        As `emcurate.patches.hashing.pack_hashes` packs them.
    side : int
        Of a hash, in bits.
    shards : Shards, optional
        Where any patch lies in one.
    saturated : (n,) float64, optional
        The share of wholly black or white pixels in each, where that is known of all.
    turned : (n, 8, words) uint64, optional
        The hashes of all orientations, where they were asked for and the table has them.
    sharpness : (n,) float64, optional
        As `emcurate.patches.measures.sharpness_of` tells it, where it was asked for and is known of all.
    """

    names: pa.LargeStringArray
    words: WordArray
    side: int
    shards: Shards | None = None
    saturated: npt.NDArray[np.float64] | None = None
    turned: WordArray | None = None
    sharpness: npt.NDArray[np.float64] | None = None


class Shards:
    """In which shard each of many patches lies.

    Attributes
    ----------
    prefixes : list of str
        Of the patches' paths: that of a file of its own, which is empty, and each shard with a slash.
    """

    def __init__(self) -> None:
        self.prefixes = [""]
        self._found: list[npt.NDArray[np.int32]] = []

    def add(self, column: pa.ChunkedArray) -> None:
        """Take in the shards of more patches, null for files."""
        for chunk in column.chunks:
            if chunk.null_count == len(chunk):
                self._found.append(np.zeros(len(chunk), np.int32))
                continue
            encoded = chunk.dictionary_encode()
            known = {prefix: number for number, prefix in enumerate(self.prefixes)}
            for name in encoded.dictionary.to_pylist():
                known.setdefault(f"{name}/", len(known))
            self.prefixes = list(known)
            numbers = np.array([known[f"{name}/"] for name in encoded.dictionary.to_pylist()] + [0], np.int32)
            places = pc.coalesce(encoded.indices, as_scalar(len(numbers) - 1, pa.int32()))
            self._found.append(numbers[as_numbers(places)])

    def take(self, places: npt.NDArray[np.int64]) -> Shards:
        """Return this of the patches at some places only."""
        some = Shards()
        some.prefixes, some._found = self.prefixes, [np.concatenate(self._found)[places]]
        return some

    def put_before(self, names: pa.LargeStringArray, places: npt.NDArray[np.int64]) -> pa.LargeStringArray:
        """Return the names of the patches at some places, each with its shard before it."""
        if len(self._found) > 1:
            self._found = [np.concatenate(self._found)]
        prefixes = take_names(as_names(self.prefixes), self._found[0][places].astype(np.int64))
        return pc.binary_join_element_wise(prefixes, names, as_names([""])[0])


def read_hashes(path: Path, with_turned: bool = False, with_sharpness: bool = False) -> PatchHashes:
    """Read the names and hashes of a table, a group of its rows at a time, so that little else is in memory.

    `with_turned` asks for those of all orientations too, `with_sharpness` for how sharp the patches are.

    Raises
    ------
    InputError
        If the file is no table of patches, or its hashes have not the size it says.
    """
    names, words, turned, saturated, blur, shards = [], [], [], [], [], Shards()
    side = 0
    also = ["shard", SATURATED, *([TURNED] if with_turned else []), *([BLUR] if with_sharpness else [])]
    for rows in read_row_groups(path, ["patch", "hash"], also=also, check=refuse_other_dataset):
        side = hash_size_of(rows)
        if "shard" in rows.column_names:
            shards.add(rows["shard"])
        if SATURATED in rows.column_names:
            saturated.append(as_floats(in_one(rows[SATURATED])))
        if BLUR in rows.column_names:
            blur.append(as_floats(in_one(rows[BLUR])))
        names.append(rows["patch"])
        words += [_words_of(chunk, side, path) for chunk in rows["hash"].chunks]
        if TURNED in rows.column_names:
            turned += [_words_of(chunk, side, path, ORIENTATIONS - 1) for chunk in rows[TURNED].chunks]
    words = words or [np.zeros((0, count_words(side)), np.uint64)]
    in_shards = shards if len(shards.prefixes) > 1 else None
    known = np.concatenate(saturated) if len(saturated) == len(names) else np.full(1, np.nan)
    upright = words[0] if len(words) == 1 else np.concatenate(words)
    of_all = None
    if turned:
        others = np.concatenate(turned).reshape(len(upright), ORIENTATIONS - 1, -1)
        of_all = np.concatenate([upright[:, None], others], axis=1)
    blank = None if np.isnan(known).any() else known
    sharpness = sharpness_of(np.concatenate(blur)) if blur and blank is not None else None
    read = PatchHashes(join_names(names), upright, side, in_shards, blank, of_all, sharpness)
    if len(read.names) > ROWS_KEPT:
        del names, rows
        # Arrow keeps what it has freed, which of many rows is as much again as is used.
        pa.default_memory_pool().release_unused()
    return read


def _words_of(column: pa.Array, side: int, path: Path, each: int = 1) -> WordArray:
    """Return hashes packed into bytes, so many in each row, as words, (rows * each, words), padded with zeros."""
    count, width = len(column) * each, (side * side + 7) // 8
    _, offsets, data = column.cast(pa.large_binary()).buffers()
    starts = np.frombuffer(offsets or bytes(8), np.int64, len(column) + 1, 8 * column.offset)
    if column.null_count or not (np.diff(starts) == width * each).all():
        found = f"hashes of other sizes than {width * each} bytes"
        raise InputError(path, f"hashes of side {side}", found, "run raw/crop_patches.py again")
    padded = np.zeros((count, WORD_BITS // 8 * count_words(side)), np.uint8)
    padded[:, :width] = np.frombuffer(data or b"", np.uint8)[starts[0] : starts[-1]].reshape(count, width)
    return padded.view(np.uint64)
