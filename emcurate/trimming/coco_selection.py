"""Which COCO images are chosen: the published draw for each target, their union, and what is told about it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emcurate.errors import InputError
from emcurate.files import csv_bytes
from emcurate.running.report import Report
from emcurate.trimming.balance import Share, draw_balance
from emcurate.trimming.coco import AnnotationSet, Image

# Of the published script; another seed gives another set.
SEED = 42

REPORT_COLUMNS = (
    *("split", "target", "name", "positives_available", "positives_taken", "positives_with_replacement"),
    *("negatives_available", "negatives_taken", "negatives_with_replacement"),
)


@dataclass(frozen=True)
class Split:
    """One of the two sets: what it is made from."""

    name: str
    content: AnnotationSet
    annotations: list[Path]
    images: Path | None
    samples: int

    @property
    def folder(self) -> str:
        """The directory of its images, also the start of its label file's keys."""
        return f"{self.name}2017"


@dataclass(frozen=True)
class Selection:
    """The images drawn for one target.

    `positives` and `negatives` are how many images show the target and do not; `half` of each were drawn, again and
    again from fewer where `half` is more than there are.
    """

    target: int
    positives: int
    negatives: int
    half: int
    images: frozenset[int]

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to draw from on one side."""
        return self.half > 0 and not (self.positives and self.negatives)


@dataclass(frozen=True)
class Choice:
    """The images chosen of one split: those drawn for each target, and all of them in the order of first appearance.

    `names` are the categories' names.
    """

    split: Split
    selections: Sequence[Selection]
    names: Mapping[int, str]
    images: Mapping[int, Image]

    def image_names(self) -> dict[str, Image]:
        """Return the chosen images by ``folder/file name``, which is where they go."""
        return {f"{self.split.folder}/{image.file_name}": image for image in self.images.values()}

    def labels(self) -> dict[str, list[int]]:
        """Return the categories of the chosen images by ``folder/file name``."""
        present = self.split.content.labels
        return {f"{self.split.folder}/{image.file_name}": present[number] for number, image in self.images.items()}

    def labels_file(self) -> bytes:
        """Return labels_train.json or labels_val.json in the published text form."""
        return json.dumps(self.labels(), indent=2).encode()

    def report_rows(self) -> list[list[object]]:
        """Return the split's rows of trim_report.csv: what there was of each target and what was taken."""
        rows: list[list[object]] = []
        for selection in self.selections:
            taken = 0 if selection.is_empty else selection.half
            row: list[object] = [self.split.name, selection.target, self.names.get(selection.target, "")]
            for available in (selection.positives, selection.negatives):
                row += [available, taken, "yes" if available < taken else "no"]
            rows.append(row)
        return rows

    def balance_picture(self) -> bytes:
        """Return a PNG of how many of the chosen images show each target."""
        labels = self.labels()
        shares = [
            Share(
                self.names.get(target, str(target)), sum(target in present for present in labels.values()), len(labels)
            )
            for target in (selection.target for selection in self.selections)
        ]
        return draw_balance({f"{self.split.name}: {len(labels):,} images": shares})

    def metadata(self, present: Collection[str]) -> bytes:
        """Return metadata.jsonl for the imagefolder loader: a line for each chosen image that is present."""
        lines = []
        for number, image in self.images.items():
            if image.file_name in present:
                labels = self.split.content.labels[number]
                names = [self.split.content.categories.get(label, str(label)) for label in labels]
                lines.append(json.dumps({"file_name": image.file_name, "labels": labels, "label_names": names}) + "\n")
        return "".join(lines).encode()


def select_images(labels: Mapping[int, list[int]], target: int, samples: int, seed: int = SEED) -> Selection:
    """Draw half of `samples` from the images that show a target and half from those that do not.

    The generator is numpy's legacy one, freshly seeded for each target, and positives are drawn first: the published
    choice depends on both. Either half is drawn with replacement only where there are fewer images than it needs.
    """
    positives = [image for image, present in labels.items() if target in present]
    negatives = [image for image, present in labels.items() if target not in present]
    half = samples // 2
    drawn: set[int] = set()
    if positives and negatives:
        random = np.random.RandomState(seed)
        for group in (positives, negatives):
            drawn.update(group[i] for i in random.choice(len(group), half, replace=len(group) < half))
    return Selection(target, len(positives), len(negatives), half, frozenset(drawn))


def choose_images(split: Split, targets: Sequence[int], names: Mapping[int, str], seed: int = SEED) -> Choice:
    """Choose the images of a split: the union of what is drawn for each target."""
    content = split.content
    selections = [select_images(content.labels, target, split.samples, seed) for target in targets]
    union = frozenset[int]().union(*(selection.images for selection in selections))
    return Choice(split, selections, names, {i: content.images[i] for i in content.labels if i in union})


def refuse_empty(choice: Choice, skip: bool, report: Report) -> None:
    """Raise `InputError` for targets that cannot be balanced, with their counts; warn of them if they are skipped."""
    empty = ", ".join(
        f"{row.target} {choice.names.get(row.target, '')!r} ({row.positives:,} with, {row.negatives:,} without)"
        for row in choice.selections
        if row.is_empty
    )
    if empty and not skip:
        raise InputError(
            choice.split.annotations[0],
            "images with and without each target",
            empty,
            "leave these targets out, or give --skip-empty to have them left out",
        )
    if empty:
        report.warn(f"{choice.split.annotations[0]}: left out of {choice.split.name}: {empty}")


def merge_categories(splits: Sequence[Split]) -> dict[int, str]:
    """Return the names of the categories of both splits, which must agree."""
    merged: dict[int, str] = {}
    for split in splits:
        for number, name in split.content.categories.items():
            if merged.setdefault(number, name) != name:
                raise InputError(
                    split.annotations[0],
                    f"category {number} to be {merged[number]!r}, as in the other split",
                    repr(name),
                    "use annotation files of one numbering",
                )
    return dict(sorted(merged.items()))


def merge_report(earlier: str, split: str, rows: Sequence[Sequence[object]]) -> str:
    """Return trim_report.csv with a split's rows in the place of those an earlier one has of it; train comes first."""
    whole_lines = io.StringIO(earlier[: earlier.rfind("\n") + 1], newline="")
    others = [
        row for row in csv.reader(whole_lines) if len(row) == len(REPORT_COLUMNS) and row[0] not in ("split", split)
    ]
    return csv_bytes(REPORT_COLUMNS, [*rows, *others] if split == "train" else [*others, *rows]).decode()
