"""What scores and labels decide: which patches are informative, in counts and in pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.classifier.score_store import Scores
from emcurate.contents import csv_bytes
from emcurate.patches.labels import CODE_INFORMATIVE, CODE_NONE, CODE_UNINFORMATIVE
from emcurate.patches.reading import read_patch
from emcurate.pictures.contact_sheets import INFORMATIVE, UNINFORMATIVE, Group, Tile, encode_contact_sheet

SHOWN = ("surest_informative", "surest_uninformative", "least_certain")
SHEETS = tuple(f"nn_{name}.png" for name in SHOWN)
TILES_PER_SHEET = 64

Codes = npt.NDArray[np.uint8]


@dataclass
class DatasetCounts:
    """One dataset's row of the counts: its patches by how each was decided."""

    patches: int = 0
    labelled_informative: int = 0
    labelled_uninformative: int = 0
    scored_informative: int = 0
    scored_uninformative: int = 0
    unreadable: int = 0
    kept: int = 0


def predict(scores: Scores, labels: Codes, threshold: float) -> Codes:
    """Return 1 for informative patches, 0 for others: by label where there is one, else by score.

    A NaN, the score of a patch that could not be read, is above no threshold.
    """
    predictions = (scores > threshold).astype(np.uint8)
    labelled = labels != CODE_NONE
    predictions[labelled] = labels[labelled] == CODE_INFORMATIVE
    return predictions


def count_by_dataset(
    datasets: Iterable[str], scores: Scores, labels: Codes, predictions: Codes
) -> dict[str, DatasetCounts]:
    """Return each dataset's counts, in the order of the names; all arguments are parallel."""
    numbers: dict[str, int] = {}
    place = np.fromiter((numbers.setdefault(name, len(numbers)) for name in datasets), np.int64, len(scores))
    by_score, kept, unreadable = labels == CODE_NONE, predictions == 1, np.isnan(scores)
    chosen = {
        "patches": np.ones(len(scores), bool),
        "labelled_informative": labels == CODE_INFORMATIVE,
        "labelled_uninformative": labels == CODE_UNINFORMATIVE,
        "scored_informative": by_score & kept,
        "scored_uninformative": by_score & ~kept & ~unreadable,
        "unreadable": by_score & unreadable,
        "kept": kept,
    }
    counts = {column: np.bincount(place[mask], minlength=len(numbers)).tolist() for column, mask in chosen.items()}
    return {
        name: DatasetCounts(**{column: values[number] for column, values in counts.items()})
        for name, number in sorted(numbers.items())
    }


def count_table(paths: Iterable[str], scores: Scores, labels: Codes, predictions: Codes) -> bytes:
    """Return a csv of each dataset's counts."""
    counts = count_by_dataset(map(dataset_of, paths), scores, labels, predictions)
    header = ["dataset", *(column.name for column in fields(DatasetCounts))]
    return csv_bytes(header, ([name, *vars(row).values()] for name, row in counts.items()))


def dataset_of(path: str) -> str:
    """Return the dataset a patch's name tells, or its directory's or shard's name if it does not follow the grammar."""
    try:
        return naming.parse_patch(Path(path).stem).dataset
    except naming.GrammarError:
        return Path(path).parent.name


def choose_tiles(scores: Scores, labels: Codes, threshold: float, count: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return the positions of the surest and least certain patches among those the score decides."""
    decided = np.flatnonzero((labels == CODE_NONE) & np.isfinite(scores))
    order = decided[np.argsort(scores[decided], kind="stable")]
    informative = order[scores[order] > threshold][::-1]
    uninformative = order[scores[order] <= threshold]
    doubt = np.argsort(np.abs(scores[decided] - threshold), kind="stable")
    chosen = informative[:count], uninformative[:count], decided[doubt[:count]]
    return dict(zip(SHOWN, chosen, strict=True))


def draw_sheets(paths: Sequence[str], scores: Scores, labels: Codes, threshold: float) -> dict[str, bytes]:
    """Return the contact sheets of what the scores decided, PNGs by file name."""
    sheets = {}
    for name, positions in choose_tiles(scores, labels, threshold, TILES_PER_SHEET).items():
        tiles = [
            Tile(
                Path(paths[int(i)]),
                f"{scores[i]:.4f}\n{Path(paths[int(i)]).stem}",
                INFORMATIVE if scores[i] > threshold else UNINFORMATIVE,
            )
            for i in positions
        ]
        title = f"{name.replace('_', ' ').capitalize()}: {len(tiles)} unlabelled patches"
        group = Group(f"Score, the probability of being informative; threshold {threshold:g}", tiles)
        sheets[f"nn_{name}.png"] = encode_contact_sheet(title, [group], read=read_patch)
    return sheets
