"""Some patches of all: those that a path list names, by section."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from emcurate.errors import InputError
from emcurate.outputs import digest_bytes
from emcurate.patches.columns import as_column, as_numbers, in_one
from emcurate.patches.list_names import DIRECTORY
from emcurate.patches.pathlists import PathList
from emcurate.patches.shards import split_member

Corners = npt.NDArray[np.int32]

# What a patch is called, whatever directory or shard it lies in; no section has 10^9 rows.
_NAME = rf"(?s)^{DIRECTORY}(?P<section>[^/]*)_(?P<y>\d{{1,9}})_(?P<x>\d{{1,9}})\.[^./]*$"


class Selection:
    """The patches that a path list names: of each section, the rows and columns of their top-left pixels.

    Parameters
    ----------
    fpaths : Path
        A path list; of its paths only the names of the files count.

    Attributes
    ----------
    directories : set of Path
        Those that patches lie in, as far as the first of each piece of the list tells.

    Raises
    ------
    InputError
        If it is no path list, is empty, or names what no patch is called.
    """

    def __init__(self, fpaths: Path) -> None:
        self.path = fpaths
        self.directories: set[Path] = set()
        names, corners = [], []
        for chunk in PathList(fpaths).chunks():
            parts = pc.extract_regex(_as_names(chunk, fpaths), _NAME)
            if parts.null_count:
                found = str(chunk[int(np.flatnonzero(as_numbers(parts.is_null()))[0])])
                raise InputError(fpaths, "patches, {section}_{y}_{x}.tiff", found, "name a list of patches")
            if len(chunk):
                first = str(chunk[0])
                member = split_member(first)
                self.directories.add(Path(first if member is None else member[0]).parent)
            names.append(pc.struct_field(parts, "section").dictionary_encode())
            sides = [as_numbers(pc.struct_field(parts, side).cast(pa.int32())) for side in "yx"]
            corners.append(np.stack(sides, axis=1))
        if not sum(map(len, corners)):
            raise InputError(fpaths, "a path list with patches", "an empty one", "run deduplicate.py first")
        of_section = in_one(pa.chunked_array(names).unify_dictionaries())
        numbers = as_numbers(of_section.indices)
        places = np.concatenate(corners)
        order = np.lexsort((places[:, 1], places[:, 0], numbers))
        keys = np.column_stack([numbers, places])[order]
        # A patch may be named as a file and in a shard.
        is_first = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))
        self._corners: Corners = places[order][is_first]
        ends = np.cumsum(np.bincount(numbers[order][is_first], minlength=len(of_section.dictionary)))
        self._spans = dict(
            zip(of_section.dictionary.to_pylist(), zip(ends - np.diff(ends, prepend=0), ends, strict=True), strict=True)
        )

    def __len__(self) -> int:
        return len(self._corners)

    def sections(self) -> Iterator[str]:
        """Yield the names of the sections that have any of the patches."""
        yield from self._spans

    def has_any(self, section: str) -> bool:
        """Return whether any patch of a section is named."""
        return section in self._spans

    def corners(self, section: str) -> Corners:
        """Return the top-left pixels of the patches of a section: (n, 2) int32, rows and columns, in this order."""
        start, stop = self._spans.get(section, (0, 0))
        return self._corners[start:stop]

    def digest(self, section: str) -> str:
        """Return what changes when other patches of a section are named."""
        return digest_bytes(self.corners(section).tobytes())[:16]


def _as_names(chunk: npt.NDArray[np.str_], fpaths: Path) -> pa.Array:
    try:
        return as_column(chunk.tolist(), pa.string())
    except UnicodeEncodeError as error:
        found = f"{str(error.object)!r}, with bytes that are none"
        raise InputError(fpaths, "paths in UTF-8", found, "rename what it names") from None
