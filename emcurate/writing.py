"""Writing files such that what is seen under a final name is whole, and nothing of others is replaced unasked."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import io
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import xxhash

from emcurate.errors import InputError
from emcurate.exchange import exchange
from emcurate.outputs import Output, digest_bytes, note_output
from emcurate.partials import partial_name, partial_path

_VERY_BYTES = "the very bytes this run would write"


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Have an answer of the system that a file would be too large tell which, which it does not by itself."""
    try:
        yield
    except OSError as error:
        _tell_file(error, path)
        raise


def _tell_file(error: OSError, path: Path) -> None:
    if error.errno == errno.EFBIG and error.filename is None:
        error.filename = os.fspath(path)


@contextlib.contextmanager
def atomic_path(destination: Path) -> Iterator[Path]:
    """Give a temporary path to write a file or a directory to; at the end of the block it becomes `destination`.

    If the block raises, what was written is removed and `destination` stays as it was. What is there is replaced in
    one step; where the system cannot exchange two directories, an existing one is moved aside first.
    """
    partial = partial_path(destination.parent)
    try:
        with telling(destination):
            yield partial
        if partial.is_dir() and destination.is_dir():
            aside = partial
            if not exchange(partial, destination):
                aside = partial_path(destination.parent)
                destination.rename(aside)
                partial.rename(destination)
            shutil.rmtree(aside)
        else:
            partial.replace(destination)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise


class _Unnumbered(io.FileIO):
    """A file that does not tell the system's number of it."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


def create_for_arrays(path: Path) -> BinaryIO:
    """Open a new file for a library to write arrays to, such that no failure of that goes unheard.

    Into a file whose number it knows, `numpy.ndarray.tofile` writes by way of C's own buffers: it loses why a write
    failed, and of the last one even that it did. Here it has to write as everybody does.
    """
    return io.BufferedWriter(_Unnumbered(path, "w"))


def write_bytes(path: Path, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file atomically; `durable` waits until the disk has it, for what a person typed in."""
    with atomic_path(path) as partial, open(partial, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


def write_files(
    directory: Path, files: Iterable[tuple[str, bytes]], *, overwrite: bool = False
) -> tuple[list[Output], int]:
    """Write many small files into one directory, each as `write_once` would; return them, and how many were not there.

    The calls to the system are made as directly as they can be: of a patch of a few kilobytes, anything else would
    take longer than the writing.

    Raises
    ------
    InputError
        If a file of one of these names holds something else and `overwrite` is not set.
    """
    outputs, written = [], 0
    place = os.open(directory, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        for name, data in files:
            try:
                there: os.stat_result | None = os.stat(name, dir_fd=place)
            except FileNotFoundError:
                there = None
            if there is not None and not write_once(directory / name, data, overwrite=overwrite):
                outputs.append(Output(name, len(data), there.st_mtime_ns, digest_bytes(data)))
                continue
            if there is not None:
                outputs.append(note_output(directory / name, directory, data))
            else:
                partial = partial_name()
                file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=place)
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(file, view) :]
                    time = os.fstat(file).st_mtime_ns
                except BaseException as error:
                    os.unlink(partial, dir_fd=place)
                    if isinstance(error, OSError):
                        _tell_file(error, directory / name)
                    raise
                finally:
                    os.close(file)
                os.rename(partial, name, src_dir_fd=place, dst_dir_fd=place)
                outputs.append(Output(name, len(data), time, digest_bytes(data)))
            written += 1
    finally:
        os.close(place)
    return outputs, written


def write_once(path: Path, data: bytes, *, overwrite: bool = False) -> bool:
    """Write a file unless it is there with the same bytes; return whether it was written.

    One with the same bytes is left as it is, its modification time too, so that what was made of it stays valid.

    Raises
    ------
    InputError
        If a file of that name holds something else and `overwrite` is not set.
    """
    if path.is_dir():
        raise InputError(path, "a file, or none", "a directory of that name", "move it away")
    if path.exists():
        if _holds_bytes(path, data):
            return False
        if not overwrite:
            raise taken_by_other(path, _VERY_BYTES)
    write_bytes(path, data)
    return True


def _holds_bytes(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def write_directory_once(path: Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> bool:
    """Write a directory of files, by their names below it, like `write_once`: all of them become visible at once.

    Returns whether it was written.

    Raises
    ------
    InputError
        If something else is there and `overwrite` is not set.
    """
    if path.is_dir():
        found = {each.relative_to(path).as_posix(): each for each in path.rglob("*") if not each.is_dir()}
        if found.keys() == files.keys() and all(_holds_bytes(each, files[name]) for name, each in found.items()):
            return False
    elif path.exists():
        raise InputError(path, "a directory, or none", "a file of that name", "move it away")
    if path.is_dir() and not overwrite:
        raise taken_by_other(path, "a directory of the very files this run would write", "a directory of others")
    with atomic_path(path) as partial:
        for name, data in files.items():
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return True


def refuse_different(directory: Path, files: Mapping[str, bytes]) -> None:
    """Raise what `write_once` would raise of any of several files, before one is written; by name, each its content."""
    for name, data in files.items():
        path = directory / name
        if path.is_dir() or (path.exists() and not _holds_bytes(path, data)):
            raise taken_by_other(path, _VERY_BYTES, "a directory" if path.is_dir() else "a file with other content")


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview], *, overwrite: bool = False) -> Output:
    """Write a file of any size piece by piece unless it is there with the same bytes; like `write_once`.

    Its digest is taken on the way.

    Returns
    -------
    Output
        The file as it now is, named relative to its own directory.

    Raises
    ------
    InputError
        If something else is there and `overwrite` is not set.
    """
    try:
        there: os.stat_result | None = path.stat()
    except FileNotFoundError:
        there = None
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise InputError(path, "a file, or none", "a directory of that name", "move it away")
    digest, partial = xxhash.xxh3_128(), partial_path(path.parent)
    try:
        with telling(path), open(partial, "wb") as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
            file.flush()
            written = os.fstat(file.fileno())
        if there is None:
            partial.replace(path)
        elif not move_once(partial, path, overwrite=overwrite):
            written = there
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return Output(path.name, written.st_size, written.st_mtime_ns, digest.hexdigest())


def move_once(partial: Path, path: Path, *, overwrite: bool = False) -> bool:
    """Make a complete file of any size visible as `path`, unless one with the same bytes is there; like `write_once`.

    Returns whether it was moved. `partial` is gone afterwards in any case.
    """
    try:
        if path.exists():
            if filecmp.cmp(partial, path, shallow=False):
                return False
            if not overwrite:
                raise taken_by_other(path, _VERY_BYTES)
        partial.replace(path)
        return True
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def path_once(destination: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path to write a file of any size to; at the end of the block it becomes `destination`.

    That is as `move_once` does it: the same bytes are left in place, others replaced only if told so.
    """
    partial = partial_path(destination.parent)
    try:
        with telling(destination):
            yield partial
        move_once(partial, destination, overwrite=overwrite)
    finally:
        partial.unlink(missing_ok=True)


class TakenError(InputError):
    """A place where something else lies than what a run would put there."""


def taken_by_other(path: Path, wanted: str, found: str = "a file with other content") -> TakenError:
    """Return the error of a place where something else lies than the `wanted` that a run would put there."""
    advice = "use another output directory, or --overwrite to replace it"
    return TakenError(path, f"no such file, or {wanted}", found, advice)
