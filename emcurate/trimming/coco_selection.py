"""Which COCO images are chosen: the published draw for each target, their union, and what is told about it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emcurate.contents import csv_bytes
from emcurate.errors import InputError
from emcurate.running.report import Report
from emcurate.trimming.balance import Share, draw_balance
from emcurate.trimming.coco import AnnotationSet, Image

# Of the published script; another seed gives another set.
SEED = 42

# Targets that a warning names before it only counts the rest.
MOST_TARGETS_SHOWN = 5

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
    again from fewer where `half` is more than there are. `images` are those drawn, and `distinct` counts them: those
    that show the target, and those that do not.
    """

    target: int
    positives: int
    negatives: int
    half: int
    images: frozenset[int]
    distinct: tuple[int, int]

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to draw from on one side."""
        return self.half > 0 and not (self.positives and self.negatives)

    @property
    def repeats(self) -> bool:
        """Whether images were drawn more than once, on one side or both."""
        return not self.is_empty and min(self.positives, self.negatives) < self.half


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

    def name_of(self, target: int) -> str:
        """Return a target's name to be shown, on one line and without what would steer a terminal; it may be empty."""
        return "".join(letter if letter.isprintable() else " " for letter in self.names.get(target, ""))

    def count_shown(self) -> dict[int, int]:
        """Return how many of the chosen images show each target."""
        present = self.split.content.labels
        targets = (selection.target for selection in self.selections)
        return {target: sum(target in present[number] for number in self.images) for target in targets}

    def balance_picture(self) -> bytes:
        """Return a PNG of what was drawn for each target, and of how many of all chosen images show it."""
        total, shown = len(self.images), self.count_shown()
        drawn, whole = [], []
        for selection in self.selections:
            name = self.name_of(selection.target) or str(selection.target)
            drawn.append(Share(name, *selection.distinct, 0 if selection.is_empty else selection.half))
            whole.append(Share(name, shown[selection.target], total - shown[selection.target]))
        return draw_balance(
            {f"{self.split.name}: drawn for each target": drawn, f"{self.split.name}: all {total:,} images": whole}
        )

    def describe(self) -> list[str]:
        """Return lines that say what was drawn for each target, and how many of all chosen images show it."""
        shown = self.count_shown()
        width = max([len("target"), *(len(self.name_of(row.target)) for row in self.selections)])
        lines = [
            f"{self.split.name}: {len(self.images):,} images, drawn for {len(self.selections):,} targets",
            f"{'id':>6}  {'target':{width}}  {'drawn with':>10} {'of':>7}  {'without':>7} {'of':>7}  {'in set':>7}",
        ]
        for row in self.selections:
            lines.append(
                f"{row.target:6}  {self.name_of(row.target):{width}}  {row.distinct[0]:10,} {row.positives:7,}  "
                f"{row.distinct[1]:7,} {row.negatives:7,}  {shown[row.target]:7,}"
            )
        return lines

    def describe_repeats(self) -> str | None:
        """Say for which targets images were drawn again and again, since there are too few; None if for none."""
        rows = [row for row in self.selections if row.repeats]
        if not rows:
            return None
        named = [
            f"{row.target} {self.name_of(row.target)!r} (" + " and ".join(_scarcities(row)) + ")"
            for row in rows[:MOST_TARGETS_SHOWN]
        ]
        more = f" and {len(rows) - len(named):,} more" if len(rows) > len(named) else ""
        return (
            f"{self.split.name}: sampled with replacement, since {rows[0].half:,} images are drawn on each side of a "
            f"target and there are fewer: {', '.join(named)}{more}; the set holds each image once"
        )

    def metadata(self, present: Collection[str]) -> bytes:
        """Return metadata.jsonl for the imagefolder loader: a line for each chosen image that is present."""
        lines = []
        for number, image in self.images.items():
            if image.file_name in present:
                labels = self.split.content.labels[number]
                names = [self.split.content.categories.get(label, str(label)) for label in labels]
                lines.append(json.dumps({"file_name": image.file_name, "labels": labels, "label_names": names}) + "\n")
        return "".join(lines).encode()


def _scarcities(row: Selection) -> list[str]:
    pairs = ((row.positives, "with it"), (row.negatives, "without"))
    return [f"{number:,} {side}" for number, side in pairs if number < row.half]


def select_images(labels: Mapping[int, list[int]], target: int, samples: int, seed: int = SEED) -> Selection:
    """Draw half of `samples` from the images that show a target and half from those that do not.

    The generator is numpy's legacy one, freshly seeded for each target, and positives are drawn first: the published
    choice depends on both. Either half is drawn with replacement only where there are fewer images than it needs.
    """
    positives = [image for image, present in labels.items() if target in present]
    negatives = [image for image, present in labels.items() if target not in present]
    half = samples // 2
    drawn: list[set[int]] = [set(), set()]
    if positives and negatives:
        random = np.random.RandomState(seed)
        for side, group in zip(drawn, (positives, negatives), strict=True):
            side.update(group[i] for i in random.choice(len(group), half, replace=len(group) < half))
    distinct = (len(drawn[0]), len(drawn[1]))
    return Selection(target, len(positives), len(negatives), half, frozenset(drawn[0] | drawn[1]), distinct)


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


def list_categories(splits: Sequence[Split], categories: Mapping[int, str]) -> list[str]:
    """Return lines with ids, names and how many images show each category."""
    counts = [split.content.count_images() for split in splits]
    categories = categories or dict.fromkeys(sorted({i for count in counts for i in count}), "")
    width = max(map(len, ["name", *categories.values()]))
    return [
        f"{'id':>4}  {'name':{width}}  " + "  ".join(f"{split.name + ' images':>12}" for split in splits),
        *(
            f"{number:4}  {name:{width}}  " + "  ".join(f"{count.get(number, 0):12,}" for count in counts)
            for number, name in categories.items()
        ),
    ]


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
