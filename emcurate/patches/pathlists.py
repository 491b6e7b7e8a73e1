"""Read and write path lists: directories of ``.npy`` chunks of file paths, as `dask.array.to_npy_stack` writes them.

They are written without dask, byte for byte alike and a chunk at a time, since millions of paths come of files that
nobody need hold whole. Paths are written absolute, so that a script run from any directory finds the files. The pickled
``info`` file beside the chunks is written so that `dask.array.from_npy_stack` reads them, and never read here.
"""

from __future__ import annotations

import bisect
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from emcurate.contents import npy_bytes, read_npy
from emcurate.errors import InputError
from emcurate.files import check_regular, open_regular, read_regular
from emcurate.outputs import Output, foresee
from emcurate.writing import atomic_path, create_for_arrays, taken_by_other

# Paths a chunk: of 100 characters each, 40 MB in numpy's four bytes a character.
CHUNK_PATHS = 100_000

# What only dask reads.
INFO = "info"

StringArray = npt.NDArray[np.str_]


class PathList(Sequence[str]):
    """The paths of a path list, read chunk by chunk from disk: opening one of millions takes no memory.

    Parameters
    ----------
    directory : Path
        The path list.
    reroot : (old, new), optional
        Replace the leading directory `old` of each path by `new`, for data that has been moved.

    Raises
    ------
    InputError
        If the directory is missing, holds no chunks, a chunk is missing between others, or one holds no strings; or if
        no path lies below `old`.
    """

    def __init__(self, directory: Path, reroot: tuple[str, str] | None = None) -> None:
        self.directory = directory
        self.reroot = reroot
        self._chunks = [_check_chunk(path) for path in _chunk_paths(directory)]
        self._seen: set[int] = set()
        self._ends = list(accumulate(len(chunk) for chunk in self._chunks))
        if reroot is not None and len(self):
            self._refuse_strange_root(reroot[0])

    def _refuse_strange_root(self, old: str) -> None:
        """Raise `InputError` if no path lies below a directory that others are to be put in the place of."""
        root = str(Path(old))
        for chunk in self.chunks():
            if any(path.startswith(root) and _is_below(path, old) for path in chunk.tolist()):
                return
        expected = f"paths below {old}, the OLD of --reroot OLD NEW"
        raise InputError(
            self.directory, expected, f"others, such as {self.listed(0)}", "name a directory they begin with"
        )

    def listed(self, index: int) -> str:
        """Return a path as it is listed, wherever the data have been moved since."""
        chunk = bisect.bisect_right(self._ends, index)
        return str(self._checked(chunk)[index - (self._ends[chunk - 1] if chunk else 0)])

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"path {index} of a list of {len(self)}")
        return self._reroot(self.listed(position))

    def __iter__(self) -> Iterator[str]:
        for chunk in self.chunks():
            for path in chunk.tolist():
                yield self._reroot(path)

    def chunks(self) -> Iterator[StringArray]:
        """Yield the paths as arrays, as they are stored, for work on millions without a Python string for each."""
        yield from map(self._checked, range(len(self._chunks)))

    def _checked(self, number: int) -> StringArray:
        """Return a chunk, whose letters are looked at when it is first read."""
        chunk = self._chunks[number]
        if number not in self._seen:
            _check_letters(chunk, self.directory / f"{number}.npy")
            self._seen.add(number)
        return chunk

    def _reroot(self, path: str) -> str:
        if self.reroot is None:
            return path
        old, new = self.reroot
        try:
            return str(Path(new) / Path(path).relative_to(old))
        except ValueError:
            return path


def _is_below(path: str, root: str) -> bool:
    return Path(path).is_relative_to(root)


@dataclass(frozen=True)
class Paths:
    """Absolute paths that are yet to be read: how many, the letters of the longest, and what reads them in turn."""

    count: int
    width: int
    read: Callable[[], Iterable[StringArray]]


def list_paths(paths: Iterable[str]) -> Paths:
    """Return paths, made absolute, as `Paths`."""
    array = np.array([str(Path(path).absolute()) for path in paths], np.str_)
    return Paths(len(array), array.itemsize // _LETTER_BYTES, lambda: [array])


def join_files(files: Sequence[Path]) -> Paths:
    """Return the paths in ``.npy`` files of strings, one file after another; they are read when they are needed.

    Raises
    ------
    InputError
        If one is no such file.
    """
    places = [_find_strings(file) for file in files]

    def read() -> Iterator[StringArray]:
        for file, (start, count, dtype) in zip(files, places, strict=True):
            for first in range(0, count, CHUNK_PATHS):
                offset = start + first * dtype.itemsize
                yield np.fromfile(file, dtype, min(CHUNK_PATHS, count - first), offset=offset)

    widest = max((dtype.itemsize // _LETTER_BYTES for *_, dtype in places), default=0)
    return Paths(sum(count for _, count, _ in places), widest, read)


def write_path_list(directory: Path, paths: Iterable[str] | Paths, chunk_paths: int = CHUNK_PATHS) -> int:
    """Write paths, made absolute, as a path list; replace one that is there in one step. Return their number."""
    source = paths if isinstance(paths, Paths) else list_paths(paths)
    with atomic_path(directory) as partial:
        partial.mkdir()
        dtype, sizes = _plan_chunks(source, chunk_paths)
        (partial / INFO).write_bytes(_info(dtype, sizes))
        for number, chunk in enumerate(_divide(source.read(), sizes, dtype)):
            with create_for_arrays(partial / f"{number}.npy") as file:
                np.save(file, chunk, allow_pickle=False)
    return source.count


def foresee_chunks(name: str, paths: Iterable[str] | Paths) -> list[Output]:
    """Return the chunks that `write_path_list` would write as a list of this name, of no time yet."""
    source = paths if isinstance(paths, Paths) else list_paths(paths)
    dtype, sizes = _plan_chunks(source, CHUNK_PATHS)
    chunks = map(npy_bytes, _divide(source.read(), sizes, dtype))
    return [foresee(f"{name}/{number}.npy", data) for number, data in enumerate(chunks)]


def write_path_list_once(directory: Path, paths: Iterable[str] | Paths, *, overwrite: bool = False) -> bool:
    """Write a path list unless it is there, whole, with the same paths; return whether it was written.

    Raises
    ------
    InputError
        If another one is there and `overwrite` is not set.
    """
    source = paths if isinstance(paths, Paths) else list_paths(paths)
    if same_paths(directory, source):
        if _has_its_info(directory):
            return False
    elif not overwrite:
        refuse_other_list(directory, source)
    write_path_list(directory, source)
    return True


def refuse_other_list(directory: Path, paths: Iterable[str] | Paths) -> None:
    """Raise `InputError` if something else than a list of these paths is there."""
    if directory.exists() and not same_paths(directory, paths):
        raise taken_by_other(directory, "no such path list, or the one this run would write", "another")


def same_paths(directory: Path, paths: Iterable[str] | Paths) -> bool:
    """Return whether a path list is there and holds exactly these paths."""
    source = paths if isinstance(paths, Paths) else list_paths(paths)
    try:
        present = list(PathList(directory).chunks())
    except InputError:
        return False
    sizes = [len(chunk) for chunk in present]
    if sum(sizes) != source.count:
        return False
    divided = _divide(source.read(), sizes, np.dtype(f"<U{max(1, source.width)}"))
    return all(np.array_equal(here, wanted) for here, wanted in zip(present, divided, strict=True))


def _has_its_info(directory: Path) -> bool:
    """Return whether a path list has what only dask reads, as it should be for its chunks."""
    chunks = PathList(directory)._chunks
    try:
        found = read_regular(directory / INFO)
    except (InputError, OSError):
        return False
    return found == _info(chunks[0].dtype, list(map(len, chunks)))


def _info(dtype: np.dtype[np.str_], sizes: Sequence[int]) -> bytes:
    return pickle.dumps({"chunks": (tuple(sizes),), "dtype": dtype, "axis": 0})


def _plan_chunks(source: Paths, chunk_paths: int) -> tuple[np.dtype[np.str_], list[int]]:
    """Return the type of the strings and the number of paths in each chunk."""
    # A width of none is no width, to numpy.
    dtype = np.dtype(f"<U{max(1, source.width)}")
    return dtype, [min(chunk_paths, source.count - start) for start in range(0, source.count, chunk_paths)] or [0]


def _divide(arrays: Iterable[StringArray], sizes: Iterable[int], dtype: np.dtype[np.str_]) -> Iterator[StringArray]:
    """Yield the strings of some arrays in chunks of other sizes."""
    left = iter(arrays)
    array, taken = np.zeros(0, dtype), 0
    for size in sizes:
        chunk, filled = np.empty(size, dtype), 0
        while filled < size:
            if taken == len(array):
                array, taken = next(left), 0
            count = min(size - filled, len(array) - taken)
            chunk[filled : filled + count] = array[taken : taken + count]
            filled, taken = filled + count, taken + count
        yield chunk


def _find_strings(file: Path) -> tuple[int, int, np.dtype[Any]]:
    """Return where the strings in an ``.npy`` file begin, in bytes, how many there are, and of which type."""
    try:
        with open_regular(file) as opened:
            if np.lib.format.read_magic(opened) == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(opened)
                if len(shape) == 1 and dtype.kind == "U":
                    return opened.tell(), shape[0], dtype
    except (OSError, ValueError, InputError):
        pass
    # Something else: numpy itself finds out what.
    array = read_npy(file)
    _check_strings(array, file)
    return file.stat().st_size - array.nbytes, len(array), array.dtype


def _chunk_paths(directory: Path) -> list[Path]:
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise InputError(directory, "a path list, which is a directory of .npy files", found, "check the path")
    # As they are written: 00.npy or ².npy is another name.
    numbers = sorted(int(p.stem) for p in directory.glob("*.npy") if p.stem.isdecimal() and p.stem == str(int(p.stem)))
    if not numbers:
        raise InputError(
            directory, "a path list with chunks 0.npy, 1.npy, …", "none", "name the directory deduplicate.py wrote"
        )
    if numbers != list(range(len(numbers))):
        missing = next(place for place, number in enumerate(numbers) if place != number)
        raise InputError(
            directory, f"chunks 0.npy to {numbers[-1]}.npy", f"no {missing}.npy", "copy the whole directory again"
        )
    return [directory / f"{number}.npy" for number in numbers]


def _check_chunk(path: Path) -> npt.NDArray[Any]:
    # Memory-mapped where it can be: an empty array cannot.
    chunk = read_npy(path, mmap_mode="r" if check_regular(path).stat().st_size > _HEADER_BYTES else None)
    _check_strings(chunk, path)
    return chunk


def _check_strings(array: npt.NDArray[Any], path: Path) -> None:
    if array.ndim != 1 or array.dtype.kind != "U":
        found = f"a {array.ndim}-D array of {array.dtype}"
        raise InputError(path, "a 1-D array of strings", found, "write the path list again")


def _check_letters(array: StringArray, path: Path) -> None:
    """Raise `InputError` for strings that are no names: letters that there are not, or zeros within.

    Half of a pair of surrogates may stand for a byte that is no UTF-8, as `os.fsdecode` has it.
    """
    if not array.size or not array.dtype.itemsize:
        return
    letters = np.ascontiguousarray(array).view(array.dtype.byteorder + "u4").reshape(len(array), -1)
    odd = (letters[:, :-1] == 0) & (letters[:, 1:] != 0)
    if letters.max() >= _FIRST_SURROGATE:
        halves = (letters >= _FIRST_SURROGATE) & (letters <= _LAST_SURROGATE)
        bytes_ = (letters >= _FIRST_BYTE) & (letters <= _LAST_BYTE)
        odd = odd.any(axis=1, keepdims=True) | (letters > sys.maxunicode) | (halves & ~bytes_)
    rows = np.flatnonzero(odd.any(axis=1))
    if len(rows):
        found = f"letters that no path has in path {int(rows[0]):,}"
        raise InputError(path, "paths", found, "copy or write the path list again")


# Code points of surrogates, and of those that stand for bytes (PEP 383).
_FIRST_SURROGATE, _LAST_SURROGATE = 0xD800, 0xDFFF
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF

_HEADER_BYTES = 128  # what numpy writes before the data of a small array
_LETTER_BYTES = 4  # numpy's, of whatever letter
