"""Open a TIFF file that may be damaged, or made to do harm: only that file is read, and its list of pages ends."""

from __future__ import annotations

import contextlib
import io
import logging
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from emcurate.errors import DAMAGE, InputError
from emcurate.files import check_regular, open_regular

# tifffile reports what is wrong with a file in its log; what matters is checked and said here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

# What tifffile and its codecs answer a damaged file with.
TIFF_DAMAGE = (*DAMAGE, tifffile.TiffFileError)

# Pages of a file at most. Finding one's way among more takes minutes; no microscope makes so many sections, and
# programs that write that many frames use one directory for all of them.
MOST_PAGES = 1 << 17

# Tags of a page at most, as tifffile has it: more are those of a damaged file.
MOST_TAGS = 4096

_COPY_AGAIN = "copy it again"


@contextlib.contextmanager
def open_tiff(path: Path, content: bytes | None = None) -> Iterator[tifffile.TiffFile]:
    """Give an open TIFF file, whose list of pages was followed to its end and found whole.

    No other file is opened, whatever this one says: parts of sets are refused.

    Parameters
    ----------
    path : Path
    content : bytes, optional
        What the file holds, where that is at hand; `path` then only names it.

    Raises
    ------
    InputError
        If it is no file, its list of pages breaks off, leads back to itself or is too long, or it is part of a set.
    TIFF_DAMAGE
        Whatever else tifffile finds, to be described by the caller.
    """
    source = check_regular(path) if content is None else io.BytesIO(content)
    with tifffile.TiffFile(source, _multifile=False, is_ndtiff=False) as tiff:
        if content is not None:
            _follow_pages(path, tiff.tiff, content)
        else:
            # Mapped: reading a few bytes here and there takes ten times as long.
            with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                _follow_pages(path, tiff.tiff, mapped)
        _refuse_sets(path, tiff)
        yield tiff


def _follow_pages(path: Path, form: Any, data: mmap.mmap | bytes) -> None:
    """Follow the list of pages, which tifffile would do for ever round a circle, and shorten where it breaks off.

    `form` is tifffile's description of the kind of TIFF.
    """
    offset_at, tags_at = struct.Struct(form.offsetformat).unpack_from, struct.Struct(form.tagnoformat).unpack_from
    (offset,) = offset_at(data, form.offsetsize)  # of the first page, in classic TIFFs after 4 bytes, in big ones 8
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise InputError(path, "a list of pages that ends", "one that leads back to itself", _COPY_AGAIN)
        if len(seen) == MOST_PAGES:
            advice = "save it as one .mrc or .nrrd, or in several files"
            raise InputError(path, f"at most {MOST_PAGES:,} pages", "more", advice)
        try:
            (tags,) = tags_at(data, offset)
            if tags > MOST_TAGS:
                raise ValueError(tags)
            (following,) = offset_at(data, offset + form.tagnosize + tags * form.tagsize)
        except (struct.error, ValueError, OverflowError):  # beyond the end, or no tags
            found = f"that the list of pages breaks off in a file of {len(data):,} bytes"
            raise InputError(path, f"more than {len(seen)} pages", found, _COPY_AGAIN) from None
        seen.add(offset)
        offset = following


def _refuse_sets(path: Path, tiff: tifffile.TiffFile) -> None:
    """Raise `InputError` if an OME description says that planes lie in other files, wherever these may be."""
    root = parse_ome(tiff)
    if root is None:
        return
    own = root.get("UUID")
    for uuid in root.iterfind(".//{*}TiffData/{*}UUID"):
        name = uuid.get("FileName", "")
        if uuid.text != own and name.lower() != tiff.filename.lower():
            found = f"one spread over several OME-TIFF files ({name or uuid.text!r})"
            raise InputError(path, "a stack in one file", found, "save it as one file")


def parse_ome(tiff: tifffile.TiffFile) -> Any:
    """Return the root of a file's OME description as an XML element, None where there is none that can be read."""
    if not tiff.is_ome or not tiff.ome_metadata:
        return None
    try:
        return ElementTree.fromstring(tiff.ome_metadata)
    except ElementTree.ParseError:
        return None
