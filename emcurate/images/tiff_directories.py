"""The directories of a TIFF's pages, followed and compared for all pages at once.

tifffile makes an object of every page, which takes 0.3 ms: half a minute for 100,000 pages. Here a page takes 2 µs.
"""

from __future__ import annotations

import functools
import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import open_regular

# Pages of a file at most: a second to follow, a minute to decode. No microscope makes so many sections.
MOST_PAGES = 1 << 20

# Tags of a page at most, as tifffile has it: more are those of a damaged file.
MOST_TAGS = 4096

# Tags by their numbers (TIFF 6.0): those that say how the pixels of a page lie and what they mean, but not where: kind
# of page, width, length, bits, compression, photometric, fill order, samples, rows a strip, planes, predictor, tile's
# width and length, extra samples, sample format; and the depths of SGI's volumes.
LAYOUT_TAGS = (254, 255, 256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339, 32997, 32998)
DESCRIPTION, SUB_PAGES = 270, 330
OFFSETS, COUNTS = (273, 324), (279, 325)

# Bytes of a value of each type a tag can have (TIFF 6.0, section 2, and BigTIFF).
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

# The types of unsigned whole numbers, and numpy's.
_UNSIGNED = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}

# Bytes of directories that are compared at a time.
_AT_ONCE_BYTES = 1 << 20

# Ways in which directories of a file may differ at most; more are looked at one by one.
_MOST_FORMS = 64

# Times that all lists of strips together may be as long as the file, since pages may share one.
_MOST_SHARED = 4

Numbers = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Directories:
    """What the directories of the pages say, page by page.

    Parameters
    ----------
    offsets : (pages,) int64
        Where in the file each directory begins.
    kinds : (pages,) int64
        Pages with the same number have their pixels laid out alike; -1 where that was not found out.
    starts, ends : (pages,) int64
        Where in the file the pixels of each page begin and end. They end beyond the file where some are missing; -1:
        that was not found out, or, of where they begin, that strips do not follow one another.
    is_simple : bool
        Whether no page but the first has a description, and none has pages of its own.
    """

    offsets: Numbers
    kinds: Numbers
    starts: Numbers
    ends: Numbers
    is_simple: bool

    def of(self, pages: Sequence[int]) -> Directories:
        """Return what is said of some of the pages."""
        where = np.asarray(pages, np.int64)
        return replace(
            self,
            offsets=self.offsets[where],
            kinds=self.kinds[where],
            starts=self.starts[where],
            ends=self.ends[where],
        )

    def are_alike(self) -> bool:
        """Return whether the pixels of all pages are laid out alike."""
        return bool(len(self.kinds) and self.kinds[0] >= 0 and (self.kinds == self.kinds[0]).all())


def follow_pages(path: Path, form: Any, content: bytes | None = None) -> Numbers:
    """Return where in a TIFF the directory of each page begins.

    Parameters
    ----------
    path : Path
    form : tifffile.TiffFormat
    content : bytes, optional
        What the file holds, where that is at hand.

    Raises
    ------
    InputError
        If the list of pages leads back to itself, breaks off or is too long.
    """
    if content is not None:
        return _follow(path, _key_of(form), content)
    found = path.stat()
    return _follow_file(path, _key_of(form), found.st_ino, found.st_size, found.st_mtime_ns)


def read_directories(path: Path, form: Any) -> Directories:
    """Return what the directories of all pages of a TIFF file say; raises as `follow_pages`."""
    offsets = follow_pages(path, form)
    key = _key_of(form)
    if (key.offset_bytes, key.tag_bytes) not in ((4, 12), (8, 20)):  # Hamamatsu's, of which tifffile knows more
        unknown = np.full(len(offsets), -1)
        return Directories(offsets, unknown, unknown, unknown, False)
    with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        data = np.frombuffer(mapped, np.uint8)
        reader = _Reader(path, key, data)
        try:
            return reader.describe(offsets)
        finally:
            del data, reader.data  # or the mapping could not be closed


@dataclass(frozen=True)
class _Form:
    """How numbers are written in a kind of TIFF: those of tifffile's descriptions, which cannot be keys of a cache."""

    order: str
    offset_bytes: int
    count_bytes: int
    tag_bytes: int

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.order + {4: "I", 8: "Q"}[self.offset_bytes])

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.order + {2: "H", 8: "Q"}[self.count_bytes])


def _key_of(form: Any) -> _Form:
    return _Form(form.byteorder, form.offsetsize, form.tagnosize, form.tagsize)


@functools.lru_cache(maxsize=2)
def _follow_file(path: Path, form: _Form, *_: int) -> Numbers:
    # Mapped: reading a few bytes here and there takes ten times as long.
    with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _follow(path, form, mapped)


def _follow(path: Path, form: _Form, data: mmap.mmap | bytes) -> Numbers:
    """Follow the list of pages, which tifffile would do for ever round a circle, and shorten where it breaks off."""
    copy_again = "copy it again"
    offset_at, count_at = form.offset.unpack_from, form.count.unpack_from
    offsets: list[int] = []
    # A page met before, and how far from it a circle is looked for; both grow together (Brent's algorithm).
    met, reach = -1, 1
    try:
        (offset,) = offset_at(data, form.offset_bytes)  # in classic TIFFs after 4 bytes, in big ones 8
        while offset:
            if offset == met:
                raise InputError(path, "a list of pages that ends", "one that leads back to itself", copy_again)
            if len(offsets) == MOST_PAGES:
                advice = "save it as one .mrc or .nrrd, or in several files"
                raise InputError(path, f"at most {MOST_PAGES:,} pages", "more", advice)
            if len(offsets) == reach:
                met, reach = offset, 2 * reach
            (tags,) = count_at(data, offset)
            if tags > MOST_TAGS:
                raise ValueError(tags)
            (following,) = offset_at(data, offset + form.count_bytes + tags * form.tag_bytes)
            offsets.append(offset)
            offset = following
    except (struct.error, ValueError, OverflowError):  # beyond the end, or no tags
        found = f"that the list of pages breaks off in a file of {len(data):,} bytes"
        raise InputError(path, f"more than {len(offsets)} pages", found, copy_again) from None
    return np.array(offsets, np.int64)


class _Reader:
    """What is read of many directories of a file at once.

    Parameters
    ----------
    path : Path
    form : _Form
    data : (bytes,) uint8
        All of the file.
    """

    def __init__(self, path: Path, form: _Form, data: npt.NDArray[np.uint8]) -> None:
        self.path, self.form, self.data = path, form, data
        number = f"{form.order}u{form.offset_bytes}"
        self.entry = np.dtype(
            [
                ("tag", f"{form.order}u2"),
                ("type", f"{form.order}u2"),
                ("count", number),
                ("value", np.uint8, form.offset_bytes),
            ]
        )
        self.number = np.dtype(number)
        self.layouts: dict[bytes, int] = {}
        self.forms: set[bytes] = set()
        self.listed_bytes = 0

    def describe(self, offsets: Numbers) -> Directories:
        """Return what the directories at some offsets say."""
        count = len(offsets)
        found = Directories(offsets, np.full(count, -1), np.full(count, -1), np.full(count, -1), True)
        tags = self._gather(offsets, self.form.count_bytes).view(f"{self.form.order}u{self.form.count_bytes}")[:, 0]
        is_simple = True
        for pages in _groups(tags):
            size = int(tags[pages[0]])
            at_once = max(1, _AT_ONCE_BYTES // max(1, size * self.entry.itemsize))
            for start in range(0, len(pages), at_once):
                some = pages[start : start + at_once]
                raw = self._gather(offsets[some] + self.form.count_bytes, size * self.entry.itemsize)
                entries = raw.view(self.entry).reshape(len(some), size)
                described = (entries["tag"] == DESCRIPTION).any(axis=1) & (some > 0)
                is_simple &= not (described.any() or (entries["tag"] == SUB_PAGES).any())
                self._describe(some, entries, found)
        return replace(found, is_simple=is_simple)

    def _describe(self, pages: Numbers, entries: AnyArray, found: Directories) -> None:
        """Describe pages with equally many tags."""
        wanted = np.isin(entries["tag"], (*LAYOUT_TAGS, *OFFSETS, *COUNTS))
        heads = np.zeros(entries.shape, [(name, self.entry[name]) for name in ("tag", "type", "count")])
        for name in heads.dtype.names or ():
            heads[name] = np.where(wanted, entries[name], 0)
        for form, group in _equal_rows(_bytes_of(heads)):
            self.forms.add(form)
            if len(self.forms) <= _MOST_FORMS:
                columns = np.flatnonzero(wanted[group[0]])
                self._describe_form(pages[group], entries[np.ix_(group, columns)], found)

    def _describe_form(self, pages: Numbers, entries: AnyArray, found: Directories) -> None:
        """Describe pages with the same tags, of the same types and numbers of values."""
        columns = {int(tag): column for column, tag in enumerate(entries[0]["tag"])}
        where = [columns[tag] for tag in OFFSETS if tag in columns]
        long = [columns[tag] for tag in COUNTS if tag in columns]
        if len(where) != 1 or len(long) != 1 or len(columns) != entries.shape[1]:
            return  # whatever tifffile makes of it
        layout = [column for tag, column in columns.items() if tag in LAYOUT_TAGS]
        pieces = [_bytes_of(entries[:, layout][name]) for name in ("tag", "type")]
        for column in layout:
            values = self._read_values(entries[:, column])
            if values is None:
                return
            pieces.append(values)
        for row, group in _equal_rows(np.concatenate(pieces, axis=1)):
            found.kinds[pages[group]] = self.layouts.setdefault(row, len(self.layouts))
        self._find_ends(pages, entries[:, where[0]], entries[:, long[0]], found)

    def _find_ends(self, pages: Numbers, where: AnyArray, long: AnyArray, found: Directories) -> None:
        """Find out where the strips or tiles of pages begin and end, from the entries of the two tags that say it."""
        count = int(where[0]["count"])
        if count != int(long[0]["count"]) or not count:
            return
        beyond = len(self.data) + 1
        at_once = max(1, _AT_ONCE_BYTES // (count * self.number.itemsize))
        for start in range(0, len(pages), at_once):
            some = slice(start, start + at_once)
            offsets, counts = self._read_numbers(where[some]), self._read_numbers(long[some])
            if offsets is None or counts is None:
                return
            ends = np.where((offsets > 0) & (counts > 0), offsets + counts, beyond)
            found.ends[pages[some]] = ends.max(axis=1)
            follow = (ends[:, :-1] == offsets[:, 1:]).all(axis=1)
            found.starts[pages[some]] = np.where(follow, offsets[:, 0], -1)

    def _read_numbers(self, entries: AnyArray) -> Numbers | None:
        """Return the (pages, values) unsigned numbers of a tag, those beyond the file as its size and 1."""
        kind = _UNSIGNED.get(int(entries[0]["type"]))
        values = None if kind is None else self._read_values(entries)
        if values is None:
            return None
        numbers = np.ascontiguousarray(values).view(f"{self.form.order}{kind}").astype(np.uint64)
        return np.minimum(numbers, np.uint64(len(self.data) + 1)).astype(np.int64)

    def _read_values(self, entries: AnyArray) -> npt.NDArray[np.uint8] | None:
        """Return the (pages, bytes) values of a tag, of one type and number; None where the file does not have them."""
        length = TYPE_BYTES.get(int(entries[0]["type"]), 0) * int(entries[0]["count"])
        if length <= self.form.offset_bytes:
            return np.ascontiguousarray(entries["value"][:, :length])
        starts = np.ascontiguousarray(entries["value"]).view(self.number)[:, 0]
        if int(starts.max()) + length > len(self.data):
            return None
        self.listed_bytes += length * len(starts)
        if self.listed_bytes > _MOST_SHARED * len(self.data):
            expected = f"lists of strips that fit into its {len(self.data):,} bytes"
            raise InputError(self.path, expected, "ones that many pages share", "save it again")
        return self._gather(starts.astype(np.int64), length)

    def _gather(self, starts: Numbers, length: int) -> npt.NDArray[np.uint8]:
        """Return the (pages, length) bytes from some places on."""
        return np.take(self.data, starts[:, None] + np.arange(length))


def _bytes_of(values: AnyArray) -> npt.NDArray[np.uint8]:
    """Return the bytes of each row of an array."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)


def _groups(values: AnyArray) -> list[Numbers]:
    """Return the indices of equal values, value by value."""
    if (values == values[0]).all():
        return [np.arange(len(values))]
    order = np.argsort(values, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(values[order].astype(np.int64))) + 1)


def _equal_rows(rows: npt.NDArray[np.uint8]) -> Iterator[tuple[bytes, Numbers]]:
    """Yield rows of bytes that differ, and the indices of each."""
    if (rows == rows[0]).all():
        yield rows[0].tobytes(), np.arange(len(rows))
        return
    words = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")[:, 0]
    _, inverse = np.unique(words, return_inverse=True)
    for group in _groups(inverse.reshape(-1)):
        yield rows[group[0]].tobytes(), group
