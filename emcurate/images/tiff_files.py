"""Open a TIFF file that may be damaged, or made to do harm: only that file is read, and its list of pages ends."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from emcurate.errors import DAMAGE, InputError
from emcurate.files import check_regular
from emcurate.images.tiff_directories import follow_pages

# tifffile reports what is wrong with a file in its log; what matters is checked and said here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

# What tifffile and its codecs answer a damaged file with.
TIFF_DAMAGE = (*DAMAGE, tifffile.TiffFileError)


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
        follow_pages(path, tiff.tiff, content)
        _refuse_sets(path, tiff)
        yield tiff


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
