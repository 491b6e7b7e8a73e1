"""Patch labels: a 1-D string array parallel to a path list; `LABELS` are the words it may hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.contents import npy_bytes, npy_header, read_npy
from emcurate.errors import InputError
from emcurate.writing import write_bytes

LABELS_FILE = "patch_quality_labels.npy"

INFORMATIVE = "informative"
UNINFORMATIVE = "uninformative"
NONE = "none"
UNSURE = "unsure"  # seen and not decided: it trains nothing and decides nothing

# A label's place here is its code, and the first two codes are what the classifier predicts: 1 is informative.
LABELS = (UNINFORMATIVE, INFORMATIVE, NONE, UNSURE)
CODE_UNINFORMATIVE, CODE_INFORMATIVE, CODE_NONE, CODE_UNSURE = 0, 1, 2, 3

# The labels that say which kind a patch is.
DECIDED = (UNINFORMATIVE, INFORMATIVE)

# Wide enough for every label, so that no assignment to a loaded array cuts a word short.
DTYPE = np.dtype(f"<U{max(map(len, LABELS))}")

# Labels turned into strings at a time while a file is written: 13 MB.
BLOCK_LABELS = 250_000

# Unknown words that an error message shows.
WORDS_SHOWN = 5

StringArray = npt.NDArray[np.str_]


def new_labels(count: int) -> StringArray:
    """Return `count` labels, all ``none``.

    >>> new_labels(2).tolist()
    ['none', 'none']
    """
    return np.full(count, NONE, DTYPE)


def load_labels(path: Path, paths: Sequence[str] | None = None) -> StringArray:
    """Read a label file: (n,) strings, in an array of its own that can be written to.

    Parameters
    ----------
    path : Path
        The ``.npy`` file.
    paths : sequence of str, optional
        The path list the labels must be parallel to; only its length is looked at.

    Raises
    ------
    InputError
        If the file is missing or damaged, no 1-D array of strings, of another length than the path list, or
        holds a word that is no label.
    """
    return check_labels(read_npy(path), path, None if paths is None else len(paths))


def check_labels(labels: npt.NDArray[Any], path: str | os.PathLike[str], count: int | None = None) -> StringArray:
    """Return labels as strings of the one width every label fits in; `path` names them in errors.

    Raises
    ------
    InputError
        As `load_labels`.
    """
    if labels.ndim != 1 or labels.dtype.kind != "U":
        raise InputError(
            path,
            "a 1-D array of strings",
            f"a {labels.ndim}-D array of {labels.dtype}",
            f"write labels with labeling.ipynb; each is one of {', '.join(LABELS)}",
        )
    if count is not None and len(labels) != count:
        raise InputError(
            path,
            f"{count:,} labels, one for each path of the list",
            f"{len(labels):,}",
            "use the labels that were made with this very path list; after a new deduplication, label its list",
        )
    unknown = ~np.isin(labels, LABELS)
    if unknown.any():
        words = np.unique(labels[unknown]).tolist()
        shown = ", ".join(repr(word) for word in words[:WORDS_SHOWN])
        more = f" and {len(words) - WORDS_SHOWN} other words" if len(words) > WORDS_SHOWN else ""
        raise InputError(
            path,
            f"only the labels {', '.join(LABELS)}",
            f"{shown}{more} (first at index {int(np.flatnonzero(unknown)[0]):,})",
            "correct these labels",
        )
    return labels.astype(DTYPE)


def save_labels(path: Path, labels: npt.NDArray[Any]) -> None:
    """Write labels atomically, and return only when the disk has them; they are somebody's work.

    Raises
    ------
    InputError
        If `labels` is not a 1-D array of label words, so that a slip never replaces a good file.
    """
    write_bytes(path, npy_bytes(check_labels(labels, path)), durable=True)


def write_codes(path: Path, codes: npt.NDArray[np.uint8]) -> None:
    """Write the labels of codes as a label file, however many, and return only when the disk has them."""
    with open(path, "wb") as file:
        file.write(npy_header(DTYPE, len(codes)))
        for start in range(0, len(codes), BLOCK_LABELS):
            file.write(decode_labels(codes[start : start + BLOCK_LABELS]).tobytes())
        file.flush()
        os.fsync(file.fileno())


def encode_labels(labels: StringArray) -> npt.NDArray[np.uint8]:
    """Return labels as codes (uint8), a fiftieth of their size: the place of each in `LABELS`.

    >>> encode_labels(np.array(["none", "informative", "uninformative", "unsure"])).tolist()
    [2, 1, 0, 3]
    """
    codes = np.full(labels.shape, CODE_NONE, np.uint8)
    for code, label in enumerate(LABELS):
        codes[labels == label] = code
    return codes


def is_decided(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which labels, as codes, say of which kind their patch is; ``unsure`` and ``none`` do not.

    >>> is_decided(np.array([0, 1, 2, 3], np.uint8)).tolist()
    [True, True, False, False]
    """
    return codes <= CODE_INFORMATIVE


def decode_labels(codes: npt.NDArray[np.uint8]) -> StringArray:
    """Return the labels of codes, the inverse of `encode_labels`."""
    return np.array(LABELS, DTYPE)[codes]


def count_labels(labels: StringArray) -> dict[str, int]:
    """Return how many there are of each label, in the order of `LABELS`.

    >>> count_labels(new_labels(3))
    {'uninformative': 0, 'informative': 0, 'none': 3, 'unsure': 0}
    """
    numbers = np.bincount(encode_labels(labels), minlength=len(LABELS))
    return dict(zip(LABELS, numbers.tolist(), strict=True))
