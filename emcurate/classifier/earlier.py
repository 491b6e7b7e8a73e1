"""Results of an earlier run on a path list: which list they are of, and whether a person has changed them since."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from emcurate.contents import npy_bytes, read_npy
from emcurate.errors import InputError
from emcurate.outputs import Output, digest_file
from emcurate.patches.pathlists import PathList
from emcurate.running.ledger_lines import Line
from emcurate.running.spelled_paths import path_of_text
from emcurate.writing import write_once

NAMES_FILE = "listed.npy"

Names = npt.NDArray[np.uint64]


def digest_names(paths: Iterable[str], count: int) -> Names:
    """Return a digest of each patch's name on disk, sorted: (n,) of 64 bits.

    A name stays what it is wherever the patch lies, and of 5 million two share a digest with a probability of one in a
    million.
    """
    names = (path.replace("\\", "/").rpartition("/")[2] for path in paths)
    digests = (xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape")) for name in names)
    return np.sort(np.fromiter(digests, np.uint64, count))


def keep_names(directory: Path, names: Names) -> None:
    """Note which patches results are of."""
    write_once(directory / NAMES_FILE, npy_bytes(names), overwrite=True)


def is_continued(noted: Line | None, directory: Path, fpaths: Path, names: Names, prune: bool) -> bool:
    """Return whether a list goes on from the one that earlier results are of, so that these may be made anew.

    It does if it has all patches of that one, by name; with `prune` also if it has none but those.

    Parameters
    ----------
    noted : Line, optional
        What the ledger says of the earlier results.
    directory : Path
        Of `keep_names`. Where nothing can be read there, a list at the same place is taken for the same.
    fpaths, names : Path and Names
        The list, and `digest_names` of it.
    prune : bool
    """
    if noted is None:
        return True
    try:
        before = read_npy(directory / NAMES_FILE)
    except InputError:
        return os.path.realpath(path_of_text(noted.source)) == os.path.realpath(fpaths)
    return bool(np.isin(before, names).all()) or (prune and bool(np.isin(names, before).all()))


OWN_LABELS = "give decisions of your own as --labels; "


def refuse_edited(predictions: Path, filtered: Path, known: Iterable[Output], advice: str = OWN_LABELS) -> None:
    """Raise `InputError` if the decisions of an earlier run are others than any that was written, and can be read.

    A file that is cut off or cannot be read is damaged, and no loss. One that can be may be a person's work.

    Parameters
    ----------
    predictions, filtered : Path
        The array and the path list.
    known : iterable of Output
        All that this stage has written, or was about to write when it was killed.
    advice : str
        What to do instead.
    """
    digests = {output.digest for output in known}

    def is_others(path: Path) -> bool:
        return path.is_file() and digest_file(path) not in digests

    if is_others(predictions) and _holds_numbers(predictions):
        raise _edited(predictions, "the predictions as they were written", advice)
    if filtered.is_dir() and any(map(is_others, filtered.glob("*.npy"))) and _holds_paths(filtered):
        raise _edited(filtered, "the path list as it was written", advice)


def _edited(path: Path, expected: str, advice: str) -> InputError:
    advice += "to replace what is there, copy it elsewhere and use --overwrite"
    return InputError(path, expected, "another, edited by hand perhaps", advice)


def _holds_numbers(path: Path) -> bool:
    try:
        array = read_npy(path)
    except InputError:
        return False
    return array.ndim == 1 and array.dtype.kind in "biuf"


def _holds_paths(directory: Path) -> bool:
    try:
        chunks = PathList(directory).chunks()
        # The letters first: strings of letters that there are not make Python's own functions fail.
        return all(_has_letters(chunk) and all(map(_is_path, chunk.tolist())) for chunk in chunks)
    except InputError:
        return False


def _has_letters(chunk: npt.NDArray[np.str_]) -> bool:
    numbers = np.ascontiguousarray(chunk).view(np.dtype(np.uint32).newbyteorder(chunk.dtype.byteorder))
    return bool((numbers <= sys.maxunicode).all())


def _is_path(text: str) -> bool:
    return "\0" not in text and Path(text).is_absolute()
