"""Files as a stage wrote them, and how it is known later that they still are what they were."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import xxhash

from emcurate.errors import InputError
from emcurate.files import is_directory, list_entries, open_regular

# Bytes read at a time to be digested: enough to keep the disk busy, little enough for many processes.
DIGEST_CHUNK_BYTES = 1 << 22


def fingerprint(path: Path) -> str:
    """Return what changes when a file, or any file directly in a directory, is changed, renamed, added or removed.

    It comes from names, sizes and modification times; no content is read.
    """
    if is_directory(path):
        return fingerprint_files(entry for entry in list_entries(path) if entry.is_file())
    found = path.stat()
    return f"{found.st_size} bytes, {found.st_mtime_ns}"


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Return what changes when any of several files does, or when two of them change names."""
    digest, count = xxhash.xxh3_128(), 0
    for path in paths:
        found = path.stat()
        digest.update(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
        count += 1
    return f"{count} files, {digest.hexdigest()}"


def fingerprint_tree(directory: Path) -> str:
    """Return what changes when any file below a directory is changed, renamed, added or removed, hidden ones too."""
    digest, count = xxhash.xxh3_128(), 0
    for place, directories, files in os.walk(directory):
        directories.sort()
        for name in sorted(files):
            path = os.path.join(place, name)  # noqa: PTH118 - a Path for each of a million chunks takes seconds
            found = os.stat(path)  # noqa: PTH116 - as above
            relative = path[len(os.fspath(directory)) :]
            digest.update(f"{relative}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
            count += 1
    return f"{count} files, {digest.hexdigest()}"


class Output(NamedTuple):
    """A file as it was written, which tells later whether it still is what it was.

    `name` is relative to the output directory, with forward slashes; `size` is in bytes, `mtime_ns` in nanoseconds
    since the epoch; `digest` is the content's XXH3 of 128 bits in hexadecimal (Collet, xxHash), which finds damage,
    not malice.
    """

    name: str
    size: int
    mtime_ns: int
    digest: str


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the digest of some bytes, as `Output` keeps it."""
    return xxhash.xxh3_128_hexdigest(data)


def digest_file(path: Path) -> str:
    """Return the digest of a file's content, as `Output` keeps it; raises `InputError` if it is no file."""
    digest = xxhash.xxh3_128()
    with open_regular(path) as file:
        while chunk := file.read(DIGEST_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def holds(directory: Path, output: Output) -> bool:
    """Return whether a file's content is what was written."""
    path = directory / output.name
    try:
        return path.is_file() and path.stat().st_size == output.size and digest_file(path) == output.digest
    except (OSError, InputError):
        return False


def is_intact(directory: Path, output: Output) -> bool:
    """Return whether a file is as it was written; its content is read only if its time has changed, as by copying."""
    return not find_damaged(directory, [output])


def find_damaged(directory: Path, outputs: Iterable[Output]) -> list[Output]:
    """Return the files that are not as they were written; see `is_intact`."""
    outputs = list(outputs)
    if not outputs:
        return []
    try:
        place = os.open(directory, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return outputs
    try:
        return [output for output in outputs if not _is_intact(place, directory, output)]
    finally:
        os.close(place)


def _is_intact(place: int, directory: Path, output: Output) -> bool:
    try:
        # A Path for each of many files would take longer than the call, and looking up the directory anew half of it.
        found = os.stat(output.name, dir_fd=place)
    except OSError:
        return False
    if found.st_size != output.size or not stat.S_ISREG(found.st_mode):
        return False
    return found.st_mtime_ns == output.mtime_ns or holds(directory, output)


def foresee(name: str, data: bytes) -> Output:
    """Describe a file that is about to be written, of no time yet."""
    return Output(name, len(data), 0, digest_bytes(data))


def note_output(path: Path, directory: Path, data: bytes | memoryview | None = None) -> Output:
    """Describe a file below an output directory that was just written; with its content at hand it is not read."""
    found = path.stat()
    digest = digest_file(path) if data is None else digest_bytes(data)
    return Output(path.relative_to(directory).as_posix(), found.st_size, found.st_mtime_ns, digest)


def note_outputs(directory: Path, *paths: Path) -> list[Output]:
    """Describe files below an output directory that were just written, and all files in such directories."""
    files: list[Path] = []
    for path in paths:
        files += sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
    return [note_output(file, directory) for file in files]


def hash_file(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
