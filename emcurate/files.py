"""Atomic writes, listings in a fixed order, and what tells whether a file has changed.

A file appears under its final name only when it is complete: it is written beside its destination under a
hidden name ending in ``.partial`` and then renamed. What a killed process left behind is swept away by the next run.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import filecmp
import hashlib
import io
import os
import re
import shutil
import stat
import tokenize
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from emcurate.errors import InputError, describe_os_error
from emcurate.exchange import exchange
from emcurate.partials import partial_name, partial_path, remove_stale_partials

# Bytes read at a time to be digested: enough to keep the disk busy, little enough for many processes.
DIGEST_CHUNK_BYTES = 1 << 22

# What a spreadsheet takes for the start of a formula (OWASP, CSV Injection); the last four are wide.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

_VERY_BYTES = "the very bytes this run would write"


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


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
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
        with writing(destination):
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
        with open(partial, "wb") as file:
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


def npy_bytes(array: npt.ArrayLike) -> bytes:
    """Return an array as the bytes of an ``.npy`` file; an object array, which would need pickle, is refused."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def npy_header(dtype: npt.DTypeLike, count: int) -> bytes:
    """Return what `numpy.save` writes before the items of a 1-D array."""
    about = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (count,)}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, about)
    return buffer.getvalue()


def is_formula(cell: str) -> bool:
    """Return whether a spreadsheet would take a cell of a csv file for a formula, and run it.

    >>> is_formula('=HYPERLINK("http://example.org")'), is_formula("-0.5"), is_formula("cell-1")
    (True, False, False)
    """
    if not cell.startswith(_FORMULA_STARTS):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def csv_bytes(header: Iterable[object], rows: Iterable[Iterable[object]]) -> bytes:
    r"""Return rows as the bytes of a csv file; a path that is no UTF-8 keeps its bytes.

    A text that a spreadsheet would take for a formula gets an apostrophe before it, which spreadsheets take for the
    sign that text follows: names come from files that anybody may have made.

    >>> csv_bytes(["name", "count"], [["a, b", 1], ["=1+1", -2]])
    b'name,count\n"a, b",1\n\'=1+1,-2\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow([f"'{cell}" if isinstance(cell, str) and is_formula(cell) else cell for cell in row])
    return text.getvalue().encode("utf-8", "surrogateescape")


# What numpy answers a damaged ``.npy`` file with: its header is a Python literal.
_NPY_DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, SyntaxError, MemoryError),
    *(RecursionError, tokenize.TokenError, zipfile.BadZipFile),
)


def read_npy(path: Path, mmap_mode: str | None = None) -> npt.NDArray[np.generic]:
    """Read an ``.npy`` file without ever unpickling.

    Raises
    ------
    InputError
        If it is missing, no file, no complete ``.npy`` file, or holds Python objects.
    """
    try:
        array = np.load(check_regular(path), mmap_mode=mmap_mode, allow_pickle=False)  # type: ignore[arg-type]
    except _NPY_DAMAGE as error:
        # numpy's own words for an object array suggest allow_pickle=True, which nobody should do here.
        found = "Python objects, which only pickle can read" if _speaks_of_objects(error) else _first_line(error)
        raise InputError(path, "a numpy .npy file of numbers or strings", found, "write it again") from None
    if not isinstance(array, np.ndarray):
        raise InputError(path, "a numpy .npy file", "an .npz archive", "name the .npy file itself")
    return array


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _speaks_of_objects(error: Exception) -> bool:
    return "pickle" in str(error) or "Python objects" in str(error)
