"""A model's scores of a list of patches, as filtered/classify_nn.py writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate.contents import read_npy
from emcurate.errors import InputError
from emcurate.patches.labels import CODE_INFORMATIVE, CODE_UNINFORMATIVE
from emcurate.patches.pathlists import PathList
from emcurate.running.ledger_file import read_ledgers

# A probability above which a model calls a patch informative, unless the stage that computed it noted another.
THRESHOLD = 0.5

# What lies beside the scores and tells of which patches they are.
PREDICTIONS_FILE, FILTERED_LIST = "nn_predictions.npy", "nn_filtered_fpaths.npz"

# Patches of the list by which it is known again: more would take as long as millions of strings take.
PATCHES_COMPARED = 2000


@dataclass(frozen=True)
class Scores:
    """Probabilities of being informative.

    Attributes
    ----------
    values : (n,) float32
        Parallel to the path list, NaN where there is none.
    threshold : float
        A patch whose score is above it is informative.
    """

    values: npt.NDArray[np.float32]
    threshold: float

    def known(self) -> npt.NDArray[np.bool_]:
        """Return which patches have a score."""
        return ~np.isnan(self.values)

    def code(self, index: int) -> int:
        """Return what the model calls one patch, as the code of a label."""
        return CODE_INFORMATIVE if self.values[index] > self.threshold else CODE_UNINFORMATIVE

    def codes(self) -> npt.NDArray[np.uint8]:
        """Return what the model calls each patch, as codes of labels; meaningless where there is no score."""
        return np.where(self.values > self.threshold, CODE_INFORMATIVE, CODE_UNINFORMATIVE).astype(np.uint8)


def read_scores(path: Path, paths: Sequence[str], threshold: float | None = None) -> Scores:
    """Read the scores of a list of patches.

    Parameters
    ----------
    path : Path
        ``nn_scores.npy``, or its directory.
    paths : sequence of str
        The list.
    threshold : float, optional
        By default the one with which they were computed, if that was noted, else `THRESHOLD`.

    Raises
    ------
    InputError
        If it is no array of scores, or what lies beside it tells that they are those of other patches.
    """
    file = path / "nn_scores.npy" if path.is_dir() else path
    scores = read_npy(file)
    if scores.ndim != 1 or scores.dtype.kind not in "fiu":
        found = f"a {scores.ndim}-D array of {scores.dtype}"
        raise InputError(file, "a 1-D array of scores", found, "name nn_scores.npy")
    advice = "run filtered/classify_nn.py on this list"
    if len(scores) != len(paths):
        expected = f"{len(paths):,} scores, one for each path of the list"
        raise InputError(file, expected, f"{len(scores):,}", advice)
    stranger = _find_stranger(file.parent, paths)
    if stranger:
        raise InputError(file, "scores of this list's patches", f"those of a list with {stranger} elsewhere", advice)
    return Scores(scores.astype(np.float32), _noted_threshold(file.parent) if threshold is None else threshold)


def _find_stranger(directory: Path, paths: Sequence[str]) -> str:
    """Return a patch that the scored list had at another place than this one, or nothing if they agree."""
    try:
        kept = np.flatnonzero(read_npy(directory / PREDICTIONS_FILE, mmap_mode="r"))
        listed = PathList(directory / FILTERED_LIST)
    except (InputError, OSError):
        return ""  # scores of another making, which lie alone
    if len(kept) != len(listed) or (len(kept) and int(kept[-1]) >= len(paths)):
        return ""  # they do not belong together, and tell nothing
    for place in np.unique(np.linspace(0, len(kept) - 1, PATCHES_COMPARED).astype(int)) if len(kept) else ():
        name = _file_name(listed[int(place)])
        if name != _file_name(paths[int(kept[place])]):
            return name
    return ""


def _noted_threshold(directory: Path) -> float:
    for ledger in read_ledgers(directory):
        noted = (ledger.header.parameters or {}).get("threshold") if ledger.header is not None else None
        if isinstance(noted, int | float):
            return float(noted)
    return THRESHOLD


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
