"""What a network said of patches, kept in a file: an interrupted run goes on, a grown list costs its new patches only.

The file holds (key, value) records, one after another, and only ever grows. A key stands for a patch's name, size and
modification time (its shard's, where it is in one), so a patch that was changed counts as new, one that was moved does
not, and the order of the path list does not matter.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.files import make_output_directory
from emcurate.patches.reading import stat_patch
from emcurate.patches.shards import SHARD_SUFFIX
from emcurate.running.locks import wait_for_lock

SCORES_FILE = "scores.bin"
FEATURES_FILE = "features.bin"

NANOSECONDS = 10**9  # in a second

# Of 5 million patches, two share a 64-bit key with a probability of one in a million.
RECORD = np.dtype([("key", "<u8"), ("score", "<f4")])

# A kill loses at most this much work.
FLUSH_SECONDS = 30.0

Keys = npt.NDArray[np.uint64]
Scores = npt.NDArray[np.float32]


def patch_keys(paths: Iterable[str], count: int, listed: Iterable[str] | None = None) -> Keys:
    """Return each patch's key: 64 bits of the BLAKE2b digest of its name, size and modification time.

    Where a time has no fraction of a second, as some archives and disks keep it, patches of one name in two directories
    may share it: the path as it is listed then stands for the name. Of a patch in a shard, size and time are the
    shard's. What is missing has a key too, under which no score is ever kept.

    Parameters
    ----------
    paths : iterable of str
    count : int
        How many they are.
    listed : iterable of str, optional
        How they are listed, where that was before they were moved.
    """
    pairs = ((path, path) for path in paths) if listed is None else zip(listed, paths, strict=True)
    return np.fromiter((_key(name, path) for name, path in pairs), np.uint64, count)


def digest_paths(paths: Iterable[str]) -> bytes:
    """Return what changes when any of many paths does."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(path.encode("utf-8", "surrogateescape") + b"\0")
    return digest.digest()


class RecordStore:
    """Records on disk, each a key and what it stands for. Of two records with one key the first counts.

    Parameters
    ----------
    directory : Path
        One for each set of weights and way of computing.
    file : str
        The file's name.
    record : dtype
        Of one record; its first field is ``key``.
    """

    def __init__(self, directory: Path, file: str, record: np.dtype[np.void]) -> None:
        self.directory = make_output_directory(directory)
        self.record = record
        self._path = directory / file
        # Mapped, not read: features of millions of patches take more room than there is. What is no whole record,
        # where the last one was cut off, is left out.
        size = self._path.stat().st_size if self._path.exists() else 0
        count = size // record.itemsize
        self.records: npt.NDArray[np.void] = (
            np.memmap(self._path, record, "r", shape=(count,)) if count else np.zeros(0, record)
        )
        self._keys, self._first = np.unique(self.records["key"], return_index=True)
        self._waiting: list[npt.NDArray[np.void]] = []
        self._written = time.monotonic()

    def find(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Return where in `records` each key stands, (n,) int64; -1 where it does not."""
        found = np.full(len(keys), -1, np.int64)
        if len(self._keys):
            places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            known = self._keys[places] == keys
            found[known] = self._first[places[known]]
        return found

    def add(self, keys: Keys, values: npt.NDArray[Any]) -> None:
        """Keep values; they are on disk when `FLUSH_SECONDS` have gone by, or after `flush`."""
        records = np.empty(len(keys), self.record)
        key, value = self.record.names or ()
        records[key], records[value] = keys, values
        self._waiting.append(records)
        if time.monotonic() - self._written >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last time."""
        self._written = time.monotonic()
        if self._waiting:
            _append(self._path, np.concatenate(self._waiting).tobytes(), self.record.itemsize)
            self._waiting.clear()


class ScoreStore(RecordStore):
    """The scores that one set of weights gave, on disk."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, SCORES_FILE, RECORD)

    def look_up(self, keys: Keys) -> Scores:
        """Return the score of each key, NaN where there is none."""
        places = self.find(keys)
        scores = np.full(len(keys), np.nan, np.float32)
        scores[places >= 0] = self.records["score"][places[places >= 0]]
        return scores


class FeatureStore(RecordStore):
    """The features that one network gave, on disk; `width` numbers of float16 each."""

    def __init__(self, directory: Path, width: int) -> None:
        self.width = width
        super().__init__(directory, FEATURES_FILE, np.dtype([("key", "<u8"), ("features", "<f2", (width,))]))


def _append(path: Path, records: bytes, itemsize: int) -> None:
    """Write records after the last whole one, over what a kill may have left of another."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    with open(descriptor, "r+b", buffering=0) as file:
        wait_for_lock(file)
        size = file.seek(0, os.SEEK_END)
        if size % itemsize:
            file.truncate(size - size % itemsize)
        file.seek(0, os.SEEK_END)
        rest = memoryview(records)
        while rest:
            rest = rest[file.write(rest) :]


def _key(listed: str, path: str) -> int:
    try:
        found = stat_patch(path)
        name = listed if found.st_mtime_ns % NANOSECONDS == 0 else _name_of(listed)
        place = f"{name}\0{found.st_size}\0{found.st_mtime_ns}"
    except OSError:
        place = listed
    digest = hashlib.blake2b(place.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _name_of(path: str) -> str:
    """Return a patch's name on disk, of one in a shard that of the shard before it."""
    steps = path.replace("\\", "/").rsplit("/", 2)
    return "/".join(steps[-2:]) if len(steps) > 1 and steps[-2].endswith(SHARD_SUFFIX) else steps[-1]
