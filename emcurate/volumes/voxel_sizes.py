"""Voxel sizes that a user gives in a file, and sizes of which it is asked whether they are meant so."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator
from pathlib import Path

from emcurate.errors import InputError
from emcurate.files import read_regular
from emcurate.running.report import Report
from emcurate.volumes.cut_settings import ANISOTROPY, HowToCut, VoxelSize

COLUMNS = ("name", "z", "y", "x")

_EXAMPLE = "write a csv of name,z,y,x in nm, such as fly,40,4,4"

# Sizes in nm beyond which those of electron micrographs do not lie. An atom is 0.1 nm wide, and pixels of the finest
# images are a few hundredths; sections as thick as the second would be cut with a knife, and looked at by light.
LEAST_NM, MOST_NM = 0.025, 1e5

NAMES_SHOWN = 5


def read_voxel_sizes(path: Path) -> tuple[tuple[str, VoxelSize], ...]:
    """Read voxel sizes from a csv of ``name,z,y,x``, in nm; the first line may name the columns, in any order.

    Raises
    ------
    InputError
        If it is no such file, or a name comes twice.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(path, "a csv of name,z,y,x", "no text", _EXAMPLE) from None
    if text.lstrip().startswith(("{", "[")):
        raise InputError(path, "a csv of name,z,y,x", "JSON", _EXAMPLE)
    sizes: dict[str, VoxelSize] = {}
    for line, row in _read_rows(path, text):
        name = row["name"].strip()
        if name in sizes:
            raise InputError(path, "one line a name", f"{name} again in line {line}", "remove one of them")
        sizes[name] = (_as_size(path, line, row["z"]), _as_size(path, line, row["y"]), _as_size(path, line, row["x"]))
    if not sizes:
        raise InputError(path, "a csv of name,z,y,x", "no line with a size", _EXAMPLE)
    return tuple(sizes.items())


def _read_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line that holds anything, and its cells by column."""
    columns = COLUMNS
    reader = csv.reader(io.StringIO(text, newline=""))
    is_first = True
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            named = tuple(cell.lower().removesuffix("_nm") for cell in cells)
            if is_first and sorted(named) == sorted(COLUMNS):
                columns = (named[0], named[1], named[2], named[3])
            elif len(cells) != len(COLUMNS):
                found = f"{len(cells)} cells in line {reader.line_num}: {','.join(cells)!r}"
                raise InputError(path, f"the {len(COLUMNS)} cells name,z,y,x a line", found, _EXAMPLE)
            else:
                yield reader.line_num, dict(zip(columns, cells, strict=True))
            is_first = False
    except csv.Error as error:
        raise InputError(path, "a csv of name,z,y,x", f"another text ({error})", _EXAMPLE) from None


def _as_size(path: Path, line: int, cell: str) -> float:
    try:
        size = float(cell)
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size > 0):
        raise InputError(path, f"numbers above 0 in line {line}", f"{cell!r}", _EXAMPLE)
    return size


def ask_about_given(how: HowToCut, names: Collection[str], report: Report) -> None:
    """Warn of voxel sizes given by the user that may be meant otherwise, or that are of no volume here.

    Parameters
    ----------
    how : HowToCut
    names : collection of str
        The datasets here.
    report : Report
    """
    given = [("--voxel-size", how.voxel_size), *((f"{name} in --voxel-sizes", size) for name, size in how.voxel_sizes)]
    for who, size in given:
        if size and (question := ask_about(size)):
            report.warn(f"{who}, {spell_size(size)}: {question}")
    used = {how.name_given(name) for name in names}
    unknown = [name for name, _ in how.voxel_sizes if name not in used]
    if unknown:
        more = f" and {len(unknown) - NAMES_SHOWN:,} more" if len(unknown) > NAMES_SHOWN else ""
        here = ", ".join(sorted(names)[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
        known = f"the names here are {here}" if names else "there is none here"
        report.warn(f"--voxel-sizes: nothing here is called {', '.join(unknown[:NAMES_SHOWN])}{more}; {known}")


def ask_about(size: VoxelSize) -> str | None:
    """Return what is to be asked of a voxel size in nm that looks like another unit or order; None if it does not.

    >>> ask_about((40, 4, 4)) is None
    True
    >>> print(ask_about((0.04, 0.004, 0.004)))
    are these micrometres? They are taken as nm; in nm it would be --voxel-size 40 4 4
    >>> print(ask_about((4, 4, 40)))
    is the order x, y, z? It is taken as z, y, x, with z below x; turned round it would be --voxel-size 40 4 4
    """
    z, y, x = size
    if min(size) < LEAST_NM:
        turned = " ".join(f"{side * 1e3:g}" for side in size)
        return f"are these micrometres? They are taken as nm; in nm it would be --voxel-size {turned}"
    if max(size) > MOST_NM:
        return f"are these nanometres? {max(size) / 1e6:g} mm are much for electron microscopy; give --voxel-size in nm"
    if z < x and (x - z) / x > ANISOTROPY:
        turned = f"turned round it would be --voxel-size {x:g} {y:g} {z:g}"
        return f"is the order x, y, z? It is taken as z, y, x, with z below x; {turned}"
    return None


def spell_size(size: VoxelSize) -> str:
    """Return a voxel size in words: ``40 x 4 x 4 nm (z, y, x)``."""
    z, y, x = size
    return f"{z:g} x {y:g} x {x:g} nm (z, y, x)"
