"""Arrays and tables as the bytes of files that any program can read and none is harmed by."""

from __future__ import annotations

import csv
import io
import tokenize
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import check_regular

# What a spreadsheet takes for the start of a formula (OWASP, CSV Injection); the last four are wide.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


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
