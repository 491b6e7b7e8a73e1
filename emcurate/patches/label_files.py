"""A label file and what lies beside it: its log, its state, and the names of the patches it was opened with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.files import read_regular
from emcurate.outputs import digest_bytes
from emcurate.patches.labels import check_labels, encode_labels, save_labels
from emcurate.patches.list_names import ListNames
from emcurate.writing import write_bytes

CodeArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelFiles:
    """Where a label file and what belongs to it are.

    Parameters
    ----------
    labels : Path
        The label file; what is beside it has its whole name, less ``.npy``, so that each label file has its own.
    """

    labels: Path

    @property
    def log(self) -> Path:
        """Who labelled which patch how, and when."""
        return self._beside(".log.jsonl")

    @property
    def state(self) -> Path:
        """Of which list and of how much of the log the label file is a copy, and where each annotator is."""
        return self._beside(".state.json")

    @property
    def listed(self) -> Path:
        """The names of the patches; see `emcurate.patches.listed`."""
        return self._beside(".patches.parquet")

    def _beside(self, ending: str) -> Path:
        return self.labels.with_name(self.labels.name.removesuffix(".npy") + ending)

    def read_state(self) -> dict[str, Any]:
        """Return the state, empty where there is none that can be read."""
        try:
            state = json.loads(read_regular(self.state))
        except (InputError, OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Write the state atomically."""
        write_bytes(self.state, json.dumps(state, indent=1, ensure_ascii=False).encode("utf-8", "replace"))


def note_list(files: LabelFiles, names: ListNames, labels: CodeArray) -> None:
    """Keep the digest of the list whose labels are in a file that has no log, so that they are put on no other's."""
    noted = {"list": names.digest, "labels": digest_bytes(labels.tobytes())}
    files.write_state({**files.read_state(), "unlogged": noted})


def noted_without_log(in_file: CodeArray, state: Mapping[str, Any]) -> str:
    """Return the digest that `note_list` kept, empty if there is none or the labels are others since."""
    noted = state.get("unlogged")
    if not isinstance(noted, dict) or noted.get("labels") != digest_bytes(in_file.tobytes()):
        return ""
    return str(noted.get("list", ""))


def save_labels_of(path: Path, labels: npt.NDArray[Any], paths: Sequence[str]) -> None:
    """Write labels that a program made, which no log explains, and the digest of their list beside them.

    Raises
    ------
    InputError
        If they are no labels, or not as many as paths.
    """
    words = check_labels(labels, path, len(paths))
    save_labels(path, words)
    note_list(LabelFiles(path), ListNames(paths), encode_labels(words))
