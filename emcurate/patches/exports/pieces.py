"""Pieces of an export: some patches that are written together, so that work can be divided, and gone on with."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emcurate.images.sections import encode_section
from emcurate.outputs import Output
from emcurate.patches.columns import as_column
from emcurate.patches.fitting import fit_patch
from emcurate.patches.listing import Listing
from emcurate.patches.reading import read_patch
from emcurate.running.made import MadeWhenAsked

# How an image is kept where it is a file of its own.
IMAGES = (PNG, TIFF) = ("png", "tiff")

# What arrays say of their rows.
ROWS_ARE = "patches.parquet beside this says what each is: its rows of this split and file, by `row`"

# Digits of a piece's and of a patch's number, so that names sort as numbers do.
PIECE_DIGITS, NUMBER_DIGITS = 5, 8


@dataclass(frozen=True)
class How:
    """How patches are written: the format, the image's, their side in pixels, None for their own, and the fit."""

    format: str
    image: str
    size: int | None
    fit: str


@dataclass(frozen=True)
class Piece:
    """Some patches that are written together.

    Attributes
    ----------
    outdir : Path
    how : How
    split : str
    number : int
        Of the piece in its split.
    piece_rows : int
        Patches of a full piece.
    paths : tuple of str
    rows : pyarrow.Table
        What is known of each, in the same order.
    replace : bool
        Whether other files of these names may be replaced.
    """

    outdir: Path
    how: How
    split: str
    number: int
    piece_rows: int
    paths: tuple[str, ...]
    rows: pa.Table
    replace: bool

    @property
    def key(self) -> str:
        """The ledger's key."""
        return piece_key(self.split, self.number)

    @property
    def first(self) -> int:
        """The number of the first patch in its split."""
        return self.number * self.piece_rows

    @property
    def path(self) -> str:
        """The first patch, which stands for the piece in messages."""
        return self.paths[0]

    def pixels(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the patches in order, each with the size that is wanted."""
        for path in self.paths:
            yield self.read(path)

    def read(self, path: str) -> npt.NDArray[np.uint8]:
        """Return a patch's pixels with the size that is wanted; raises `InputError` if it cannot be read."""
        patch = read_patch(path)
        return patch if self.how.size is None else fit_patch(patch, self.how.size, self.how.fit)

    def encode(self, pixels: npt.NDArray[np.uint8]) -> bytes:
        """Return a patch as the image that is wanted."""
        if self.how.image == TIFF:
            return encode_section(pixels)
        from PIL import Image  # here, since not all formats need it

        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()


def piece_key(split: str, number: int) -> str:
    """Return the ledger's key of a piece.

    >>> piece_key("train", 3)
    'train/00003'
    """
    return f"{split}/{number:0{PIECE_DIGITS}d}"


def name_number(number: int) -> str:
    """Return a patch's number in its split as it is written."""
    return f"{number:0{NUMBER_DIGITS}d}"


@dataclass(frozen=True)
class Split:
    """The patches of one split in the order in which they are exported.

    Attributes
    ----------
    name : str
    members : (n,) int64
        Their rows in the listing.
    piece_rows : int
        Patches of a piece.
    """

    name: str
    members: npt.NDArray[np.int64]
    piece_rows: int

    @property
    def pieces(self) -> range:
        """The numbers of its pieces."""
        return range(-(-len(self.members) // self.piece_rows))

    def of_piece(self, number: int) -> npt.NDArray[np.int64]:
        """Return the rows of a piece's patches in the listing."""
        return self.members[number * self.piece_rows : (number + 1) * self.piece_rows]


class PieceJobs(MadeWhenAsked[Piece]):
    """Pieces to be written, each made when it is asked for: a million patches' paths take no memory."""

    def __init__(
        self, todo: Sequence[tuple[Split, int]], listing: Listing, known: pa.Table, outdir: Path, how: How,
        replaces: Callable[[Split, int], bool],
    ) -> None:  # fmt: skip
        self._todo, self._listing, self._known = todo, listing, known
        self._outdir, self._how, self._replaces = outdir, how, replaces

    def __len__(self) -> int:
        return len(self._todo)

    def make(self, index: int) -> Piece:
        """Return a job."""
        split, number = self._todo[index]
        members = split.of_piece(number)
        paths = tuple(map(self._listing.path, members.tolist()))
        rows = self._known.take(as_column(members, pa.int64()))
        replace = self._replaces(split, number)
        return Piece(self._outdir, self._how, split.name, number, split.piece_rows, paths, rows, replace)


@dataclass(frozen=True)
class Format:
    """How one format is written.

    Attributes
    ----------
    write : callable
        Writes a piece; returns the files.
    write_index : callable
        Writes what makes a split whole once all pieces are there; returns the files.
    place : callable
        The file that holds a patch, relative to OUTDIR, and its row in there or None, by its number in a split.
    owner_of : callable
        The ledger's key of what lies directly in OUTDIR under a name; None if it is none of the format's.
    piece_bytes : int
        Pixels of a piece at most.
    piece_rows : int
        Patches of a piece at most.
    needs_one_size : bool
    shuffles : bool
        Whether patches are read one after another, so that they must be mixed when they are written.
    """

    write: Callable[[Piece], list[Output]]
    write_index: Callable[[Index], list[Output]]
    place: Callable[[How, Split, int], tuple[str, int | None]]
    owner_of: Callable[[str], str | None]
    piece_bytes: int = 64 << 20
    piece_rows: int = 1000
    needs_one_size: bool = False
    shuffles: bool = False


@dataclass(frozen=True)
class Index:
    """What a split is made whole of: its patches' rows in order, some at a time."""

    outdir: Path
    how: How
    split: Split
    rows: Callable[[], Iterator[pa.Table]]
    replace: bool
    relative: bool


def plain_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as dictionaries without what is not known, for a JSON text each."""
    plain = rows.drop_columns(["number"])
    return [{name: value for name, value in row.items() if value is not None} for row in plain.to_pylist()]
