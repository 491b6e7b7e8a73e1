"""Containers of video by their own structure: whether a file is one at all, and whether all of it is there.

What decodes them looks at whatever it is given, also at text that names other files and addresses, and takes a file
that was cut off for one that ends there.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from emcurate.errors import InputError
from emcurate.files import open_regular

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".m4v")

# How files of each kind begin. ISO media (MP4, MOV) is a list of boxes, each its length and a name of four letters.
_BOX = re.compile(rb".{4}(ftyp|moov|mdat|free|skip|wide|pnot|udta|uuid)", re.DOTALL)
_RIFF = b"RIFF"
_OTHERS = (
    b"\x1a\x45\xdf\xa3",  # Matroska
    b"\x30\x26\xb2\x75",  # ASF
    b"\x00\x00\x01",  # MPEG streams
    b"\x47",  # MPEG transport streams
    b"FLV\x01",
    b"OggS",
)
_HEAD_BYTES = 16

# Lengths by which a box says that it is long, and that it goes on to the end of the file; and those of a recording
# that was never finished.
_LONG_BOX, _LAST_BOX = 1, 0
_UNFINISHED = (0, 0xFFFFFFFF)


def find_missing(path: Path) -> int:
    """Return how many bytes the parts of a video file announce beyond its end; 0 where it does not say.

    Raises
    ------
    InputError
        If it does not begin as a video does.
    """
    with open_regular(path) as file:
        head = file.read(_HEAD_BYTES)
        if head.startswith(_RIFF):
            return max(0, _find_end(file, _next_chunk) - os.fstat(file.fileno()).st_size)
        if _BOX.match(head):
            return max(0, _find_end(file, _next_box) - os.fstat(file.fileno()).st_size)
    if not head.startswith(_OTHERS):
        found = "an empty file" if not head else "one that begins as no video does"
        advice = "check that it plays, or export it again as .mp4"
        raise InputError(path, "a video (MP4, MOV, AVI, MKV)", found, advice)
    return 0


def _find_end(file: BinaryIO, next_part: Callable[[BinaryIO, int], int | None]) -> int:
    """Return where the last part of a file ends, as its header has it."""
    size, place = os.fstat(file.fileno()).st_size, 0
    while place < size:
        file.seek(place)
        following = next_part(file, place)
        if following is None or following <= place:
            break
        place = following
    return place


def _next_chunk(file: BinaryIO, place: int) -> int | None:
    head = file.read(8)
    if len(head) < 8 or not head.startswith(_RIFF):
        return None
    length = struct.unpack("<I", head[4:])[0]
    return None if length in _UNFINISHED else place + 8 + length


def _next_box(file: BinaryIO, place: int) -> int | None:
    head = file.read(_HEAD_BYTES)
    if len(head) < 8 or not head[4:8].isalnum():
        return None
    length = struct.unpack(">I", head[:4])[0]
    if length == _LONG_BOX:
        return place + struct.unpack(">Q", head[8:])[0] if len(head) == _HEAD_BYTES else None
    return None if length == _LAST_BOX else place + length
