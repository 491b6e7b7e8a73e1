"""Read and write path lists: directories of ``.npy`` chunks of file paths, as `dask.array.to_npy_stack` writes them.

Paths are written absolute, so that a script run from any directory finds the files. The pickled ``info`` file
that dask puts beside the chunks is written, for dask's sake, and never read.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import atomic_path, read_npy, taken_by_other

# Paths a chunk: of 100 characters each, 40 MB in numpy's four bytes a character.
CHUNK_PATHS = 100_000

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
        If the directory is missing, holds no chunks, a chunk is missing between others, or one holds no strings.
    """

    def __init__(self, directory: Path, reroot: tuple[str, str] | None = None) -> None:
        self.directory = directory
        self.reroot = reroot
        self._chunks = [_check_chunk(path) for path in _chunk_paths(directory)]
        self._ends = list(accumulate(len(chunk) for chunk in self._chunks))

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
        chunk = bisect.bisect_right(self._ends, position)
        before = self._ends[chunk - 1] if chunk else 0
        return self._reroot(str(self._chunks[chunk][position - before]))

    def __iter__(self) -> Iterator[str]:
        for chunk in self._chunks:
            for path in chunk.tolist():
                yield self._reroot(path)

    def chunks(self) -> Iterator[StringArray]:
        """Yield the paths as arrays, as they are stored, for work on millions without a Python string for each."""
        yield from self._chunks

    def _reroot(self, path: str) -> str:
        if self.reroot is None:
            return path
        old, new = self.reroot
        try:
            return str(Path(new) / Path(path).relative_to(old))
        except ValueError:
            return path


def write_path_list(directory: Path, paths: Iterable[str], chunk_paths: int = CHUNK_PATHS) -> int:
    """Write paths, made absolute, as a path list; replace one that is there in one step. Return their number."""
    import dask
    import dask.array

    resolved = np.array([str(Path(path).absolute()) for path in paths], dtype=np.str_)
    if resolved.size == 0:
        # dask cannot describe an empty stack of strings without a width.
        resolved = resolved.astype("<U1")
    stack = dask.array.from_array(resolved, chunks=max(1, min(chunk_paths, resolved.size)))
    # Written here and now, even where the caller has a cluster.
    with atomic_path(directory) as partial, dask.config.set(scheduler="synchronous"):
        dask.array.to_npy_stack(str(partial), stack, axis=0)
    return int(resolved.size)


def write_path_list_once(directory: Path, paths: Sequence[str], *, overwrite: bool = False) -> bool:
    """Write a path list unless it is there with the same paths; return whether it was written.

    Raises
    ------
    InputError
        If another one is there and `overwrite` is not set.
    """
    if same_paths(directory, paths):
        return False
    if directory.exists() and not overwrite:
        raise taken_by_other(directory, "no such path list, or the one this run would write", "another")
    write_path_list(directory, paths)
    return True


def same_paths(directory: Path, paths: Sequence[str]) -> bool:
    """Return whether a path list is there and holds exactly these paths."""
    try:
        present = PathList(directory)
    except InputError:
        return False
    return len(present) == len(paths) and all(a == b for a, b in zip(present, paths, strict=True))


def _chunk_paths(directory: Path) -> list[Path]:
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise InputError(directory, "a path list, which is a directory of .npy files", found, "check the path")
    numbers = sorted(int(p.stem) for p in directory.glob("*.npy") if p.stem.isdecimal())
    if not numbers:
        raise InputError(
            directory, "a path list with chunks 0.npy, 1.npy, …", "none", "name the directory deduplicate.py wrote"
        )
    if numbers != list(range(len(numbers))):
        missing = min(set(range(len(numbers))) - set(numbers))
        raise InputError(
            directory, f"chunks 0.npy to {numbers[-1]}.npy", f"no {missing}.npy", "copy the whole directory again"
        )
    return [directory / f"{number}.npy" for number in numbers]


def _check_chunk(path: Path) -> npt.NDArray[Any]:
    # Memory-mapped where it can be: an empty array cannot.
    chunk = read_npy(path, mmap_mode="r" if path.stat().st_size > _HEADER_BYTES else None)
    if chunk.ndim != 1 or chunk.dtype.kind != "U":
        raise InputError(
            path, "a 1-D array of strings", f"a {chunk.ndim}-D array of {chunk.dtype}", "write the path list again"
        )
    return chunk


_HEADER_BYTES = 128  # what numpy writes before the data of a small array
