"""Names read from a file must not lead out of the directory they are meant for.

A name such as ``../../x``, ``/etc/x`` or one that passes through a link would make a program read or write
anywhere; whoever made the file decides where. Names are checked as text first, then against what is on disk.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from emcurate.errors import InputError
from emcurate.files import leads_into

# Bytes in one name and in a whole path that every common system takes; ext4, APFS and NTFS take no more.
MOST_NAME_BYTES = 255
MOST_PATH_BYTES = 4095

_SHOWN = 40  # characters of a long name in a message

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL_OR_BACKSLASH = re.compile(r"[\\\x00-\x1f]")


class EscapeError(ValueError):
    """A name that leads out of its directory, or may do so on some system; the text says how."""


def check_relative(name: str) -> str:
    """Return a relative file name with forward slashes if it stays below the directory it is joined to.

    Raises
    ------
    EscapeError
        If it is empty, absolute, holds ``..`` or an empty part, a backslash, a drive or a control character.

    Examples
    --------
    >>> check_relative("train2017/000000000009.jpg")
    'train2017/000000000009.jpg'
    >>> check_relative("../secret")
    Traceback (most recent call last):
    ...
    emcurate.fetching.safe_names.EscapeError: '../secret', which leads out of the directory
    """
    if name.startswith("/") or _DRIVE.match(name):
        raise EscapeError(f"{name!r}, an absolute path")
    if _CONTROL_OR_BACKSLASH.search(name):
        raise EscapeError(f"{name!r}, with a backslash or a control character")
    parts = name.split("/")
    if ".." in parts:
        raise EscapeError(f"{name!r}, which leads out of the directory")
    if "" in parts or "." in parts:
        raise EscapeError(f"{name!r}, which is no file name")
    return name


def check_length(path: Path) -> Path:
    """Return a path if a file can have it.

    Raises
    ------
    InputError
        If a name in it, or all of it, is too long.
    """
    longest = max(path.parts, key=lambda part: len(os.fsencode(part)), default="")
    for most, name, what in (
        (MOST_NAME_BYTES, longest, "a name"),
        (MOST_PATH_BYTES, str(path), "a path"),
    ):
        length = len(os.fsencode(name))
        if length > most:
            raise InputError(
                f"{name[:_SHOWN]}…{name[-_SHOWN:]}",
                f"{what} of at most {most:,} bytes",
                f"{length:,}",
                "shorten it where it is listed",
            )
    return path


def join_inside(directory: Path, name: str) -> Path:
    """Return ``directory / name``, also checked for links that lead out of the directory.

    The directory itself may be a link, and so may anything above it: those are its owner's.

    Raises
    ------
    EscapeError
        If the name leads out, as text or by a link on the way or at its end.
    """
    path = directory / check_relative(name)
    if not leads_into(path, directory):
        raise EscapeError(f"{name!r}, which a link leads out of {directory}")
    return path
