"""Unpack a zip archive made by somebody else without trusting it.

Everything is checked before the first byte is written: names that lead out of the directory, links, devices, entries
of one name, encryption, and how large it all becomes. Each file appears under its name only when it is complete and
its checksum is right.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import xxhash

from emcurate.errors import InputError
from emcurate.fetching.safe_names import EscapeError, check_length, check_relative, join_inside
from emcurate.partials import remove_stale_partials
from emcurate.running.jobs import progress
from emcurate.writing import atomic_path, taken_by_other

COPY_BYTES = 1 << 20

# deflate packs at most 1032:1, images hardly at all: a bomb shows in the ratio before it fills the disk.
MOST_RATIO = 100
RATIO_MATTERS_FROM_BYTES = 100 << 20  # below this even a bomb does no harm
MOST_ENTRIES = 2_000_000
MOST_DIRECTORIES_DEEP = 100  # no set needs more, and systems stumble over thousands

# The record at the end of an archive, and where its count of entries starts anew; one below means: see elsewhere.
_END_BYTES = 22
_COUNTS_TO = 1 << 16

_SHOWN = 40  # characters of a long name in a message
_ENCRYPTED = 0x1  # of an entry's general purpose flags
_DAMAGED = "delete it and fetch it again"
_DISTRUST = "do not trust this archive; ask whoever made it"
_UNPACK = "unpack it with its password, and name the directory"

# What the standard library raises where an archive's bytes are not what they should be, each packing in its own way.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, IndexError)


class DamagedArchiveError(InputError):
    """An archive that is not as it was made: another copy may be whole."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may become: bytes in all, and bytes for each byte of the archive."""

    size: int
    ratio: float = MOST_RATIO


@dataclass
class Unpacked:
    """What came of an archive: all its files, how many were written, and how many were there with the same content."""

    files: list[Path] = field(default_factory=list)
    written: int = 0
    present: int = 0


def unpack_zip(
    archive: Path,
    directory: Path,
    limits: Limits,
    *,
    overwrite: bool = False,
    ours: Collection[Path] = (),
    label: str = "unpack",
) -> Unpacked:
    """Unpack a zip archive into a directory that exists.

    Files that are there with the same content stay, so that an interrupted run can be repeated. One with other
    content is refused before anything is written, unless `overwrite` is set or it is one of `ours`, which an earlier
    run wrote.

    Raises
    ------
    InputError
        If it is no zip archive, too large, or holds what it should not; `DamagedArchiveError` if it is damaged.
    """
    result = Unpacked()
    with open_zip(archive) as opened:
        entries = _check_entries(archive, opened, limits)
        targets = [(entry, _target(archive, directory, entry.filename)) for entry in entries]
        result.files = [target for _, target in targets]
        todo = []
        for entry, target in targets:
            if same_as_entry(target, entry):
                result.present += 1
            elif target.exists() and not overwrite and target not in ours:
                raise taken_by_other(target, f"the one of {archive.name}")
            else:
                todo.append((entry, target))
        for parent in {target.parent for _, target in targets if target.parent.is_dir()}:
            remove_stale_partials(parent)
        _check_space(directory, sum(entry.file_size for entry, _ in todo))
        for entry, target in progress(todo, total=len(todo), label=label, unit="file"):
            make_parents(target, directory)
            extract_entry(archive, opened, entry, target)
            result.written += 1
    return result


def find_damage(archive: Path, limits: Limits) -> DamagedArchiveError | None:
    """Return what is damaged in an archive by its own checksums, unpacking it to nowhere; None where nothing is.

    One that may not be unpacked for another reason is not looked through: `unpack_zip` says so.
    """
    try:
        with open_zip(archive) as opened:
            entries = _check_entries(archive, opened, limits)
            for entry in progress(entries, total=len(entries), label="check", unit="file"):
                with _named_damage(archive, entry), opened.open(entry) as source:
                    _copy_whole(entry, source, len)
    except DamagedArchiveError as error:
        return error
    except InputError:
        return None
    return None


def list_sizes(archive: Path) -> dict[str, int]:
    """Return the files of an archive, each with its size in bytes when unpacked.

    Raises
    ------
    InputError
        As `open_zip`.
    """
    with open_zip(archive) as opened:
        return {entry.filename: entry.file_size for entry in opened.infolist() if not entry.is_dir()}


def open_zip(archive: Path) -> zipfile.ZipFile:
    """Open a zip archive to read; close it, or use it in a ``with``.

    Raises
    ------
    InputError
        If it is missing; `DamagedArchiveError` if it is no (complete) zip archive.
    """
    try:
        opened = zipfile.ZipFile(archive)
    except FileNotFoundError:
        raise InputError(archive, "a zip archive", "no such file", "check the path") from None
    except (*_DAMAGE, NotImplementedError) as error:
        raise DamagedArchiveError(archive, "a complete zip archive", str(error), _DAMAGED) from None
    except OSError as error:
        if not _is_damage(error):
            raise
        raise DamagedArchiveError(archive, "a complete zip archive", str(error), _DAMAGED) from None
    found, told = len(opened.infolist()), _count_told(opened)
    if told is not None and told != found % _COUNTS_TO:
        opened.close()
        raise DamagedArchiveError(archive, f"a zip archive of {told:,} entries, as it says", f"{found:,}", _DAMAGED)
    return opened


def _count_told(opened: zipfile.ZipFile) -> int | None:
    """Return how many entries an archive says it has, which the library does not look at; None if it does not say."""
    file = opened.fp
    if file is None:
        return None
    file.seek(-(_END_BYTES + len(opened.comment)), os.SEEK_END)
    end = file.read(_END_BYTES)
    told = int.from_bytes(end[10:12], "little")
    return told if end.startswith(b"PK\x05\x06") and told != _COUNTS_TO - 1 else None


def _is_damage(error: OSError) -> bool:
    """Return whether an error is of the bytes read and not the system's: a place before the start, or bzip2's own."""
    return error.errno in (None, errno.EINVAL)


def extract_entry(archive: Path, opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Write one entry to a path, complete or not at all; its parent directory must exist.

    Raises
    ------
    InputError
        If the entry is encrypted or packed in a way that is not known; `DamagedArchiveError` if it is damaged.
    """
    with (
        _named_damage(archive, entry),
        atomic_path(target) as partial,
        opened.open(entry) as source,
        open(partial, "wb") as file,
    ):
        _copy_whole(entry, source, file.write)


def digest_entry(archive: Path, opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    """Return the digest of one entry's content, as `emcurate.outputs.Output` keeps it; raises as `extract_entry`."""
    digest = xxhash.xxh3_128()
    with _named_damage(archive, entry), opened.open(entry) as source:
        _copy_whole(entry, source, digest.update)
    return digest.hexdigest()


def _copy_whole(entry: zipfile.ZipInfo, source: IO[bytes], write: Callable[[bytes], object]) -> None:
    length = 0
    while piece := source.read(COPY_BYTES):
        length += len(piece)
        write(piece)
    if length != entry.file_size:
        raise zipfile.BadZipFile(f"{length:,} of {entry.file_size:,} bytes")


@contextlib.contextmanager
def _named_damage(archive: Path, entry: zipfile.ZipInfo) -> Iterator[None]:
    """Put what the standard library raises of an entry into our words."""
    expected = f"a readable {entry.filename}"
    if entry.flag_bits & _ENCRYPTED:
        raise InputError(archive, expected, "an encrypted one", _UNPACK)
    try:
        yield
    except NotImplementedError as error:
        raise InputError(archive, expected, str(error), "unpack it with another program") from None
    except (*_DAMAGE, RuntimeError, MemoryError) as error:
        # A damaged header may ask for gigabytes to unpack with.
        raise DamagedArchiveError(archive, expected, str(error) or type(error).__name__, _DAMAGED) from None
    except OSError as error:
        if not _is_damage(error):
            raise
        raise DamagedArchiveError(archive, expected, str(error), _DAMAGED) from None


def entry_kind(entry: zipfile.ZipInfo) -> int:
    """Return what an entry is, as `stat.S_IFMT` tells it: a file, a link, …; 0 where the archive does not say."""
    return stat.S_IFMT(entry.external_attr >> 16)


def same_as_entry(path: Path, entry: zipfile.ZipInfo) -> bool:
    """Return whether a file is there and has an entry's size and checksum."""
    if not path.is_file() or path.stat().st_size != entry.file_size:
        return False
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(COPY_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == entry.CRC


def make_parents(target: Path, directory: Path) -> None:
    """Create the directories between `directory` and a file to be written below it.

    Raises
    ------
    InputError
        If one of them is a file.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(target, f"directories below {directory}", "a file in the way", "move it away") from None


def _check_entries(archive: Path, opened: zipfile.ZipFile, limits: Limits) -> list[zipfile.ZipInfo]:
    """Return the files of an archive if all of it may be unpacked."""
    infos = opened.infolist()
    if len(infos) > MOST_ENTRIES:
        raise InputError(archive, f"at most {MOST_ENTRIES:,} entries", f"{len(infos):,}", _DISTRUST)
    files: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        try:
            check_relative(name.removesuffix("/") if info.is_dir() else name)
        except EscapeError as error:
            raise InputError(archive, "names inside the output directory", str(error), _DISTRUST) from None
        kind = entry_kind(info)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "a special file"
            raise InputError(archive, "files and directories only", f"{name!r}, {what}", _DISTRUST)
        if info.flag_bits & _ENCRYPTED:
            raise InputError(archive, "files without a password", f"{name!r}, encrypted", _UNPACK)
        if name.count("/") > MOST_DIRECTORIES_DEEP:
            found = f"{name.count('/'):,}, {name[:_SHOWN]!r}…"
            raise InputError(archive, f"at most {MOST_DIRECTORIES_DEEP} directories in each other", found, _DISTRUST)
        if info.is_dir():
            continue
        if name in files:
            raise InputError(archive, "names that occur once", f"{name!r} twice", _DISTRUST)
        files[name] = info
    for name in files:
        parents = name.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            if "/".join(parents[:depth]) in files:
                raise InputError(archive, "names of files or of directories", f"{name!r}, below a file", _DISTRUST)
    _check_bomb(archive, sum(info.file_size for info in files.values()), limits)
    return list(files.values())


def _check_bomb(archive: Path, unpacked: int, limits: Limits) -> None:
    if unpacked > limits.size:
        raise InputError(
            archive,
            f"at most {limits.size:,} bytes when unpacked",
            f"{unpacked:,}",
            "raise the limit with --max-size if you trust the archive",
        )
    packed = max(1, archive.stat().st_size)
    if unpacked > RATIO_MATTERS_FROM_BYTES and unpacked > limits.ratio * packed:
        found = f"{unpacked:,} out of {packed:,}"
        raise InputError(archive, f"at most {limits.ratio:g} bytes out of each byte of the archive", found, _DISTRUST)


def _target(archive: Path, directory: Path, name: str) -> Path:
    try:
        check_length(directory / name)
        return join_inside(directory, name)
    except EscapeError as error:
        raise InputError(archive, "names inside the output directory", str(error), "remove the link") from None


def _check_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise InputError(directory, f"{needed:,} bytes free", f"{free:,}", "make room or choose another directory")
