"""Paths and addresses as they stand in a ledger, whatever bytes they have."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from emcurate import naming
from emcurate.addresses import Address, Place, parse_address

# Before the bytes of a path that is no UTF-8.
_BYTES = "bytes:"


def is_gone(text: str) -> bool:
    """Return whether nothing of that name is there: not what cannot be looked at, nor a link to a disk that is away."""
    try:
        os.lstat(path_of_text(text))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def has_left(text: str) -> bool:
    """Return whether nothing of that name is there where others still are: of a disk that is away, neither is."""
    if not is_gone(text):
        return False
    try:
        with os.scandir(os.path.dirname(path_of_text(text))) as beside:  # noqa: PTH120 - a text, which may be an address
            return any(beside)
    except (OSError, ValueError):
        return False


def is_same_place(text: str, path: Place) -> bool:
    """Return whether a text is that of a path, or of another path of the same file."""
    if text == path_as_text(path):
        return True
    if isinstance(path, Address):
        return False
    try:
        return Path(path_of_text(text)).samefile(path)
    except OSError:
        return False


def resolve_place(text: str) -> str:
    """Return a text that all paths to one place share, links or not; that of an address as it is."""
    place = place_of_text(text)
    return os.path.realpath(place) if isinstance(place, Path) else text


def path_as_text(path: str | Place) -> str:
    """Return a path as it can stand in JSON; one with bytes that are no UTF-8 as the numbers of all its bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"{_BYTES}{os.fsencode(path).hex()}"
    return str(path)


def place_of_text(text: str) -> Place:
    """Return the path or address of a text, the inverse of `path_as_text`."""
    with contextlib.suppress(naming.GrammarError):
        return parse_address(text) or Path(path_of_text(text))
    return Path(path_of_text(text))


def path_of_text(text: str) -> str:
    """Return the path of a text, the inverse of `path_as_text`."""
    with contextlib.suppress(ValueError):
        if text.startswith(_BYTES):
            return os.fsdecode(bytes.fromhex(text.removeprefix(_BYTES)))
    return text
