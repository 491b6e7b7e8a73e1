"""What lies in directories, looked at and opened without waiting for a pipe or following a device."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from emcurate.errors import InputError, describe_os_error
from emcurate.partials import remove_stale_partials


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts ``2.png`` before ``10.png``; the name itself breaks ties such as 1 and 01."""
    pieces = re.split(r"(\d+)", name)
    # Every second piece is a run of digits, so text only ever meets text and numbers only numbers.
    key: list[str | int] = [int(p) if i % 2 else p for i, p in enumerate(pieces)]
    return key, name


def list_entries(directory: Path) -> list[Path]:
    """Return what lies directly in a directory, hidden entries left out, in natural order."""
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return [directory / name for name in sorted(names, key=natural_key)]


def list_files(directory: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return what lies directly in a directory under a name that ends in one of `suffixes` (any case).

    They come in natural order. Directories are left out; links that lead nowhere, pipes and the like are not, so that
    reading them names them.
    """
    endings = tuple(suffix.lower() for suffix in suffixes)
    with os.scandir(directory) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.lower().endswith(endings) and not entry.name.startswith(".") and not is_directory(entry.path)
        ]
    return [directory / name for name in sorted(names, key=natural_key)]


def is_directory(path: str | os.PathLike[str]) -> bool:
    """Return whether a directory is there; of what the system refuses to look at, it is for reading it to say why."""
    return os.path.isdir(path)  # noqa: PTH112 - pathlib raises for links that lead round, and what it may not see


def is_there(path: str | os.PathLike[str]) -> bool:
    """Return whether anything is there; nothing is under a name that the system does not take."""
    return os.path.exists(path)  # noqa: PTH110 - as above


def check_regular(path: Path) -> Path:
    """Return a path if a file is there that can be read to its end.

    Raises
    ------
    InputError
        If nothing is there, a link leads nowhere, or it is a pipe, a socket or a device, which may wait for ever.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        found = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise InputError(
            path, "a file", found, "mend or remove it" if path.is_symlink() else "check the path"
        ) from None
    except OSError as error:
        raise describe_os_error(error, path) from None
    refuse_odd_kind(path, mode)
    return path


def open_regular(path: Path) -> BinaryIO:
    """Open a file that somebody else made for reading; every reader opens its input so, or after `check_regular`.

    Raises
    ------
    InputError
        As `check_regular`.
    """
    check_regular(path)  # first: merely to open a device may do something
    file = open(path, "rb", opener=open_at_once)  # noqa: SIM115 - the caller's to close
    try:
        refuse_odd_kind(path, os.fstat(file.fileno()).st_mode)
    except InputError:
        file.close()
        raise
    return file


def read_regular(path: Path) -> bytes:
    """Return what a file that somebody else made holds; raises as `check_regular`."""
    with open_regular(path) as file:
        return file.read()


def refuse_odd_kind(path: Path, mode: int) -> None:
    """Raise `InputError` unless a path, of which the system says this mode, is that of a file."""
    if not stat.S_ISREG(mode):
        found = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise InputError(path, "a file", found, "take it out of the directory")


def open_at_once(path: str, flags: int) -> int:
    """Open a path for `open`, as its `opener`, without waiting for whoever may write into a pipe."""
    # Windows has no such pipes, nor the flag.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def leads_into(path: Path, *directories: Path) -> bool:
    """Return whether a path, wherever links on its way lead, ends in one of some directories or below it.

    The directories themselves may be links: those are their owner's.
    """
    try:
        found = path.resolve()
    except (OSError, RuntimeError):  # links that lead round lead nowhere
        return False
    return any(found.is_relative_to(directory.resolve()) for directory in directories)


def describe_content(directory: Path) -> str:
    """Say in a few words what a directory holds, for the "found …" of an error.

    >>> describe_content(Path("/nonexistent"))
    'no such directory'
    """
    try:
        entries = list_entries(directory)
    except FileNotFoundError:
        return "no such directory"
    if not entries:
        return "an empty directory"
    return describe_kinds(entries)


def describe_kinds(entries: Iterable[Path]) -> str:
    """Count files by extension, and directories.

    >>> describe_kinds([Path("a.txt"), Path("b.txt"), Path("c")])
    '1 extensionless files, 2 .txt files'
    """
    kinds: dict[str, int] = {}
    for entry in entries:
        kind = "directories" if is_directory(entry) else f"{entry.suffix or 'extensionless'} files"
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(sorted(f"{count} {kind}" for kind, count in kinds.items()))


def make_output_directory(directory: Path) -> Path:
    """Create a directory if need be, check that it can be written to, and sweep away what killed runs left.

    Raises
    ------
    InputError
        If it is a file, cannot be created or cannot be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(directory, "a directory to write to", "a file of that name", "choose another") from None
    except OSError as error:
        raise InputError(
            directory, "a directory that can be created", error.strerror or str(error), "choose another place"
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(
            directory, "a directory you may write to", "no write permission", "choose another or ask its owner"
        )
    remove_stale_partials(directory)
    return directory


def free_bytes(directory: Path) -> int:
    """Return how much room there is for a directory, which need not exist yet."""
    there = next(path for path in (directory, *directory.parents) if path.is_dir())
    return shutil.disk_usage(there).free


def refuse_same_directory(source: Path, destination: Path) -> None:
    """Raise `InputError` if a stage would write among its inputs, and take its results for inputs the next time."""
    if destination.is_dir() and destination.samefile(source):
        raise InputError(
            destination,
            "a directory of its own for the results",
            "the directory of the inputs",
            "name another",
        )
