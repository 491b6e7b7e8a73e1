"""Copies of chunked arrays, in chunks of the same size in a directory here, of what comes from servers."""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emcurate.errors import DAMAGE, InputError
from emcurate.volumes.formats.chunked import Chunks
from emcurate.volumes.formats.stores import Store, context, tensorstore
from emcurate.volumes.layouts import Shape

Box = tuple[slice, slice, slice]

# Voxels asked for in one go, whole chunks of one row, and all that are under way. What is decoded meanwhile, and the
# chunks that tensorstore keeps, come on top.
PIECE_BYTES = 1 << 23
AHEAD_BYTES = 1 << 28

# A piece that could not be read is asked for once more: what came may have been a gateway's page instead of a chunk.
TRIES = 2


@dataclass(frozen=True)
class Piece:
    """Whole chunks of an array that are fetched together; `tag` tells whose."""

    tag: Any
    chunks: Chunks
    copy: Any
    box: Box
    tries: int = TRIES

    @property
    def bytes(self) -> int:
        return int(np.prod([part.stop - part.start for part in self.box])) * self.chunks.dtype.itemsize


def create_copy(chunks: Chunks, directory: Path) -> tuple[Chunks, Any]:
    """Return an array of the same voxels and chunks in a directory, nothing of it there yet, and what writes it.

    Chunks that hold nothing but 0, and those never written, take no room.
    """
    root = directory.absolute()
    store = Store(chunks.store.place, root)
    metadata = {
        "shape": list(chunks.shape),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks.chunk)}},
        "data_type": chunks.dtype.name,
        "fill_value": False if chunks.dtype.kind == "b" else 0,
    }
    specification = {"driver": "zarr3", "kvstore": store.kvstore(""), "metadata": metadata, "create": True}
    handle = tensorstore().open(specification, context=context()).result()
    state = str(root)  # no two copies have one place
    copy = Chunks(store, "", "zarr3", chunks.shape, (0, 1, 2), chunks.dtype, True, state=state, chunk=chunks.chunk)
    return copy, handle


def divide(shape: Shape, chunk: Shape, itemsize: int, wanted: Any) -> Iterator[Box]:
    """Yield boxes of whole chunks, those that are wanted, each a row of neighbours along x of at most `PIECE_BYTES`.

    Parameters
    ----------
    shape, chunk : (z, y, x)
    itemsize : int
    wanted : (z, y, x) bool array
        For each chunk.
    """
    at_once = max(1, PIECE_BYTES // (int(np.prod(chunk)) * itemsize))
    for z, y in np.argwhere(wanted.any(axis=2)).tolist():
        row = np.flatnonzero(wanted[z, y])
        for run in np.split(row, np.flatnonzero(np.diff(row) > 1) + 1):
            for start in range(0, len(run), at_once):
                first, last = int(run[start]), int(run[min(start + at_once, len(run)) - 1])
                spans = ((z, z), (y, y), (first, last))
                a, b, c = (
                    slice(low * part, min((high + 1) * part, side))
                    for (low, high), part, side in zip(spans, chunk, shape, strict=True)
                )
                yield a, b, c


def mark_wanted(shape: Shape, chunk: Shape, boxes: Iterable[Box] | None) -> Any:
    """Return for each chunk whether any of some boxes, or of everything, needs it: a (z, y, x) bool array."""
    wanted = np.full([-(-side // part) for side, part in zip(shape, chunk, strict=True)], boxes is None)
    for box in boxes or ():
        places = [range(*part.indices(side)) for part, side in zip(box, shape, strict=True)]
        if all(places):
            a, b, c = (slice(p[0] // part, p[-1] // part + 1) for p, part in zip(places, chunk, strict=True))
            wanted[a, b, c] = True
    return wanted


def fetch_pieces(pieces: Iterable[Piece], done: Callable[[Piece], object]) -> dict[Any, InputError]:
    """Write pieces to the copies of their arrays, many under way at a time; return what failed, by tag.

    Of an array of which a piece failed the others are given up.

    Parameters
    ----------
    pieces : iterable of Piece
        Taken as there is room for them.
    done : callable
        Told of each piece that is there.
    """
    answers: queue.SimpleQueue[tuple[Piece, Any]] = queue.SimpleQueue()
    failed: dict[Any, InputError] = {}
    waiting: Counter[str] = Counter()

    def ask(piece: Piece) -> None:
        try:
            future = piece.chunks.ask(*piece.box)
        except DAMAGE as error:
            failed[piece.tag] = piece.chunks.describe(error)
            return
        waiting["bytes"] += piece.bytes
        waiting["pieces"] += 1
        future.add_done_callback(lambda answer: answers.put((piece, answer)))

    def take() -> None:
        piece, answer = answers.get()
        waiting["bytes"] -= piece.bytes
        waiting["pieces"] -= 1
        if piece.tag in failed:
            return
        try:
            voxels = piece.chunks.arrange(answer.result())
        except DAMAGE as error:
            if piece.tries > 1:
                ask(replace(piece, tries=piece.tries - 1))
            else:
                failed[piece.tag] = piece.chunks.describe(error)
            return
        try:
            piece.copy[piece.box].write(voxels).result()
        except DAMAGE as error:
            store = Store(piece.chunks.store.place, Path())  # of this computer
            failed[piece.tag] = store.describe(error, "room to keep what its server sends", "make room there")
            return
        done(piece)

    for piece in pieces:
        while waiting["pieces"] and waiting["bytes"] + piece.bytes > AHEAD_BYTES:
            take()
        if piece.tag not in failed:
            ask(piece)
    while waiting["pieces"]:
        take()
    return failed
