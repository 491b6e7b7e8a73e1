"""Scores kept in shards, so that an interrupted run goes on and a grown list has only its new patches scored.

A shard is an ``.npy`` file of (key, score) pairs. A key stands for a patch's path, size and modification time, so a
patch that was moved or changed counts as new, and the order of the path list does not matter.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import make_output_directory, npy_bytes, read_npy, write_bytes

# Of 5 million patches, two share a 64-bit key with a probability of one in a million.
SHARD_TYPE = np.dtype([("key", "<u8"), ("score", "<f4")])

# A kill loses at most this much work.
SHARD_SECONDS = 30.0

# Beyond this many, shards are merged into one when they are read.
SHARDS_AT_MOST = 256

Value = TypeVar("Value")

Keys = npt.NDArray[np.uint64]
Scores = npt.NDArray[np.float32]


def patch_keys(paths: Iterable[str], count: int) -> Keys:
    """Return each patch's key: 64 bits of the BLAKE2b digest of its path, size and modification time.

    A file that is missing has a key too, under which no score is ever kept.
    """
    return np.fromiter((_key(path) for path in paths), np.uint64, count)


def run_ahead(iterable: Iterable[Value], ahead: int = 2) -> Iterator[Value]:
    """Yield what an iterable yields while a thread already fetches the next `ahead` items.

    For work that waits or leaves the interpreter, such as decoding, beside work that does too, such as a network.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(item: tuple[bool, Any]) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def fetch() -> None:
        try:
            for value in iterable:
                put((True, value))
                if stopped.is_set():
                    return
            put((False, None))
        except BaseException as error:  # raised again where it is waited for
            put((False, error))

    threading.Thread(target=fetch, daemon=True).start()
    try:
        while (item := ready.get())[0]:
            yield item[1]
        if item[1] is not None:
            raise item[1]
    finally:
        stopped.set()


class ScoreStore:
    """The scores that one set of weights gave, on disk.

    Parameters
    ----------
    directory : Path
        One for each set of weights and way of computing.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = make_output_directory(directory)
        shards = self._shards()
        loaded = [_read_shard(path) for path in shards]
        pairs = np.concatenate(loaded) if loaded else np.zeros(0, SHARD_TYPE)
        keys, first = np.unique(pairs["key"], return_index=True)
        self._keys: Keys = keys
        self._scores: Scores = pairs["score"][first]
        self._next = 1 + max((int(path.stem) for path in shards), default=-1)
        self._waiting: list[npt.NDArray[np.void]] = []
        self._written = time.monotonic()
        if len(shards) > SHARDS_AT_MOST:
            self._merge(shards)

    def look_up(self, keys: Keys) -> Scores:
        """Return the score of each key, NaN where there is none."""
        scores = np.full(len(keys), np.nan, np.float32)
        if len(self._keys):
            places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            found = self._keys[places] == keys
            scores[found] = self._scores[places[found]]
        return scores

    def add(self, keys: Keys, scores: Scores) -> None:
        """Keep scores; they are on disk when `SHARD_SECONDS` have gone by, or after `flush`."""
        pairs = np.empty(len(keys), SHARD_TYPE)
        pairs["key"], pairs["score"] = keys, scores
        self._waiting.append(pairs)
        if time.monotonic() - self._written >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last shard."""
        self._written = time.monotonic()
        if self._waiting:
            self._write(np.concatenate(self._waiting))
            self._waiting.clear()

    def _shards(self) -> list[Path]:
        return sorted((p for p in self.directory.glob("*.npy") if p.stem.isdecimal()), key=lambda p: int(p.stem))

    def _write(self, pairs: npt.NDArray[np.void]) -> None:
        write_bytes(self.directory / f"{self._next:06d}.npy", npy_bytes(pairs))
        self._next += 1

    def _merge(self, shards: list[Path]) -> None:
        pairs = np.empty(len(self._keys), SHARD_TYPE)
        pairs["key"], pairs["score"] = self._keys, self._scores
        self._write(pairs)
        # Only now: a kill in between leaves every score twice, which does no harm.
        for path in shards:
            path.unlink()


def _key(path: str) -> int:
    try:
        stat = os.stat(path)  # noqa: PTH116  (a Path for each of millions would take longer than the call)
        place = f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}"
    except OSError:
        place = path
    digest = hashlib.blake2b(place.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _read_shard(path: Path) -> npt.NDArray[np.void]:
    shard = read_npy(path)
    if shard.dtype != SHARD_TYPE or shard.ndim != 1:
        raise InputError(
            path, "a shard of scores", f"an array of {shard.dtype}", "delete it; its patches are scored again"
        )
    return shard.view(SHARD_TYPE)
