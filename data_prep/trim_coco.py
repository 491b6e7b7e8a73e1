"""Trim COCO or COCO-Stuff 2017 to the images that tell its target categories apart.

Reads:   COCO annotation files (instances_train2017.json, stuff_train2017.json, ...; several are merged by image), and
         images from a directory, out of a zip archive without unpacking it, or, with --download, from their coco_url.
Writes:  OUTPUT/labels_train.json, labels_val.json: {"train2017/000000000009.jpg": [category ids]}, the images under
         OUTPUT/train2017 and val2017, OUTPUT/trim_report.csv, and a picture of the balance.
Example: python data_prep/trim_coco.py --train-annotations instances_train2017.json \\
             --val-annotations instances_val2017.json --train-images train2017.zip --val-images val2017.zip

For each target, half of the samples show it and half do not; the set is the union over all targets. Images count in
the order in which they first appear among the annotations, which is also the order of the label files. The same files
and the same --seed give the same set, that of the published script for seed 42.

COCO-Stuff categories have three numberings. Ours is that of the JSON files: 1 to 182, things up to 91, stuff from 92,
with gaps where COCO dropped a category. The pixel maps (PNG) count one less, 0 to 181, with 255 for unlabelled. The
stuff challenge, and with it the stuff_*.json files, merges all things into one category 183, "other". Where in doubt,
give --targets names, and look at --list-categories.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emcurate import cli
from emcurate.errors import InputError
from emcurate.fetching.gathering import Link, gather
from emcurate.files import list_entries, make_output_directory, write_once
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.trimming.balance import Share, draw_balance
from emcurate.trimming.categories import resolve_targets
from emcurate.trimming.coco import AnnotationSet, Image, read_annotations, select_records

STAGE = "trim_coco"

# The published targets: ids of the JSON files' numbering.
DEFAULT_TARGETS = (3, 6, 31, 35, 36, 37, 40, 41, 43, 46, 47, 50, 53, 64, 75, 76, 78, 80, 85, 89)
TRAIN_SAMPLES = 500
VAL_SAMPLES = 250
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
class Options:
    """What the flags say about how both splits are trimmed."""

    output: Path
    seed: int
    skip_empty: bool
    link: Link
    download: bool
    masks: bool
    layout: str
    overwrite: bool
    workers: Workers


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


def select_images(labels: dict[int, list[int]], target: int, samples: int, seed: int = SEED) -> Selection:
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


def label_images(content: AnnotationSet, folder: str, chosen: Collection[int]) -> dict[str, list[int]]:
    """Return the categories of the chosen images by ``folder/file name``, in the order of first appearance."""
    return {
        f"{folder}/{content.images[image].file_name}": present
        for image, present in content.labels.items()
        if image in chosen
    }


def make_report(split: str, selections: Sequence[Selection], names: dict[int, str]) -> list[list[object]]:
    """Return a split's rows of trim_report.csv: what there was of each target and what was taken."""
    rows: list[list[object]] = []
    for selection in selections:
        taken = 0 if selection.is_empty else selection.half
        row: list[object] = [split, selection.target, names.get(selection.target, "")]
        for available in (selection.positives, selection.negatives):
            row += [available, taken, "yes" if available < taken else "no"]
        rows.append(row)
    return rows


def merge_report(earlier: str, split: str, rows: list[list[object]]) -> bytes:
    """Return trim_report.csv with a split's rows in the place of those an earlier one has of it; train comes first."""
    others = [row for row in csv.reader(io.StringIO(earlier, newline="")) if row and row[0] not in ("split", split)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(REPORT_COLUMNS)
    writer.writerows([*rows, *others] if split == "train" else [*others, *rows])
    return text.getvalue().encode()


def make_metadata(content: AnnotationSet, chosen: Collection[int], present: Collection[str]) -> bytes:
    """Return metadata.jsonl for the imagefolder loader: a line for each chosen image that is there."""
    lines = []
    for image, labels in content.labels.items():
        name = content.images[image].file_name
        if image in chosen and name in present:
            names = [content.categories.get(label, str(label)) for label in labels]
            lines.append(json.dumps({"file_name": name, "labels": labels, "label_names": names}) + "\n")
    return "".join(lines).encode()


def run(
    train_annotations: list[Path] | None = None,
    val_annotations: list[Path] | None = None,
    *,
    train_images: Path | None = None,
    val_images: Path | None = None,
    output: Path = Path("trimmed"),
    targets: Sequence[str] | None = None,
    train_samples: int = TRAIN_SAMPLES,
    val_samples: int = VAL_SAMPLES,
    seed: int = SEED,
    skip_empty: bool = False,
    link: Link = "copy",
    download: bool = False,
    masks: bool = False,
    layout: str = "plain",
    list_categories: bool = False,
    overwrite: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Trim the training and the validation set, or one of them; see the module's docstring."""
    report = Report(STAGE)
    splits = []
    for name, paths, images, samples in (
        ("train", train_annotations, train_images, train_samples),
        ("val", val_annotations, val_images, val_samples),
    ):
        try:
            if paths:
                splits.append(Split(name, read_annotations(paths), paths, images, samples))
        except InputError as error:
            report.fail(error)
    for oddity in (oddity for split in splits for oddity in split.content.oddities):
        report.warn(oddity)
    if not splits:
        return report
    categories = merge_categories(splits)
    if list_categories:
        print_categories(splits, categories)
        report.count("categories", len(categories))
        return report
    ids = resolve_targets(targets or [str(i) for i in DEFAULT_TARGETS], categories, splits[0].annotations[0])
    options = Options(output, seed, skip_empty, link, download, masks, layout, overwrite, workers)
    report.count("files written", 0)
    for split in splits:
        try:
            trim(split, ids, categories, options, report)
        except InputError as error:
            report.fail(error)
    return report


def trim(split: Split, targets: Sequence[int], names: dict[int, str], options: Options, report: Report) -> None:
    """Trim one split: choose its images, write the lists of them, bring them to their place."""
    content, overwrite = split.content, options.overwrite
    selections = [select_images(content.labels, target, split.samples, options.seed) for target in targets]
    refuse_empty(split, selections, names, options.skip_empty, report)
    union = frozenset[int]().union(*(selection.images for selection in selections))
    chosen = [image for image in content.labels if image in union]
    report.count(f"{split.name} images chosen", len(chosen))

    output = make_output_directory(options.output)
    labels = label_images(content, split.folder, union)
    is_new = write_counted(output / f"labels_{split.name}.json", json.dumps(labels, indent=2), overwrite, report)
    table = output / "trim_report.csv"
    earlier = table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""
    merged = merge_report(earlier, split.name, make_report(split.name, selections, names))
    write_counted(table, merged, overwrite or earlier.startswith(",".join(REPORT_COLUMNS)), report)
    picture = output / f"balance_{split.name}.png"
    if is_new or not picture.exists():
        # Not compared with that of an earlier run: another matplotlib draws the same bars with other bytes.
        shares = [share_of(selection.target, labels, names) for selection in selections]
        picture_bytes = draw_balance({f"{split.name}: {len(labels):,} images": shares})
        write_counted(picture, picture_bytes, overwrite, report)
    report.note(f"How the {split.name} images are balanced: {picture}")
    if options.masks:
        records, oddities = select_records(split.annotations, chosen)
        write_counted(output / f"instances_{split.name}_trimmed.json", records, overwrite, report)
        for oddity in oddities:
            report.warn(oddity)

    if split.images is None and not options.download:
        report.note(f"No {split.name} images were asked for: give --{split.name}-images or --download")
        return
    images = [content.images[image] for image in chosen]
    folder = make_output_directory(output / split.folder)
    present = gather(
        {image.file_name: image.url for image in images},
        folder,
        split.images,
        report,
        download=options.download,
        link=options.link,
        overwrite=overwrite,
        workers=options.workers,
    )
    if options.layout == "imagefolder":
        path, metadata = folder / "metadata.jsonl", make_metadata(content, union, present)
        write_counted(path, metadata, overwrite or grows(path, metadata), report)
    warn_of_strays(folder, images, report)


def merge_categories(splits: list[Split]) -> dict[int, str]:
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


def print_categories(splits: list[Split], categories: dict[int, str]) -> None:
    """Print ids, names and how many images show each category."""
    counts = [split.content.count_images() for split in splits]
    categories = categories or dict.fromkeys(sorted({i for count in counts for i in count}), "")
    width = max(map(len, ["name", *categories.values()]))
    print(f"{'id':>4}  {'name':{width}}  " + "  ".join(f"{split.name + ' images':>12}" for split in splits))
    for number, name in categories.items():
        print(f"{number:4}  {name:{width}}  " + "  ".join(f"{count.get(number, 0):12,}" for count in counts))


def refuse_empty(
    split: Split, selections: Sequence[Selection], names: dict[int, str], skip: bool, report: Report
) -> None:
    """Raise `InputError` for targets that cannot be balanced, with their counts; warn of them if they are skipped."""
    empty = ", ".join(
        f"{row.target} {names.get(row.target, '')!r} ({row.positives:,} with, {row.negatives:,} without)"
        for row in selections
        if row.is_empty
    )
    if empty and not skip:
        raise InputError(
            split.annotations[0],
            "images with and without each target",
            empty,
            "leave these targets out, or give --skip-empty to have them left out",
        )
    if empty:
        report.warn(f"{split.annotations[0]}: left out of {split.name}: {empty}")


def share_of(target: int, labels: dict[str, list[int]], names: dict[int, str]) -> Share:
    """Return how many of the chosen images show a target."""
    images = sum(target in present for present in labels.values())
    return Share(names.get(target, str(target)), images, len(labels))


def write_counted(path: Path, data: bytes | str, overwrite: bool, report: Report) -> bool:
    """Write a file unless it is there with this content, and count it; return whether it was written."""
    data = data.encode() if isinstance(data, str) else data
    is_there = path.is_file() and path.read_bytes() == data
    written = not is_there and write_once(path, data, overwrite=overwrite)
    report.count("files written" if written else "files already there")
    return written


def grows(path: Path, data: bytes) -> bool:
    """Return whether a file holds only lines of `data`: some images may have been missing when it was written."""
    return path.is_file() and set(path.read_bytes().splitlines()) <= set(data.splitlines())


def warn_of_strays(folder: Path, images: Sequence[Image], report: Report) -> None:
    """Warn of files that are not of this selection, such as those of an earlier one."""
    expected = {image.file_name.split("/")[0] for image in images} | {"metadata.jsonl"}
    strays = [path.name for path in list_entries(folder) if path.name not in expected]
    if strays:
        report.warn(
            f"{folder}: {len(strays):,} files are not of this selection, such as {strays[0]}; they were left there"
        )


def even_int(text: str) -> int:
    """Argument type: an even number of at least 0, since half of it are drawn with and half without a target."""
    number = cli.natural_int(text)
    if number % 2:
        raise argparse.ArgumentTypeError(f"expected an even number, found {text!r}")
    return number


def images_source(text: str) -> Path:
    """Argument type: a directory or a zip archive that exists."""
    return cli.existing_directory(text) if Path(text).is_dir() else cli.existing_file(text)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "trim_coco.py")
    for split, samples in (("train", TRAIN_SAMPLES), ("val", VAL_SAMPLES)):
        parser.add_argument(
            f"--{split}-annotations",
            nargs="+",
            type=cli.existing_file,
            metavar="JSON",
            help=f"annotation file(s) of the {split} images; several are merged by image",
        )
        parser.add_argument(
            f"--{split}-images", type=images_source, metavar="DIR|ZIP", help=f"directory or zip of the {split} images"
        )
        parser.add_argument(
            f"--{split}-samples",
            type=even_int,
            default=samples,
            metavar="N",
            help=f"{split} images drawn for each target, half of them with it (default: %(default)s)",
        )
    parser.add_argument(
        "-o", "--output", type=cli.output_directory, default="trimmed", metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="CATEGORY",
        help="ids, names, or files of 'name: id' lines (default: the published 20, "
        f"{' '.join(map(str, DEFAULT_TARGETS))})",
    )
    parser.add_argument(
        "--list-categories", action="store_true", help="print ids, names and numbers of images, and do nothing else"
    )
    parser.add_argument("--seed", type=cli.natural_int, default=SEED, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--skip-empty", action="store_true", help="leave out targets that no image, or every image, shows"
    )
    parser.add_argument(
        "--link",
        choices=["copy", "hard", "symbolic"],
        default="copy",
        help="how images come out of a directory (default: %(default)s); those of a zip are always written out",
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch chosen images that are not at hand from their coco_url"
    )
    parser.add_argument(
        "--masks",
        action="store_true",
        help="also write the chosen images' annotations, instances_train_trimmed.json and instances_val_trimmed.json",
    )
    parser.add_argument(
        "--layout",
        choices=["plain", "imagefolder"],
        default="plain",
        help="imagefolder: also write metadata.jsonl, for datasets.load_dataset('imagefolder', data_dir=OUTPUT)",
    )
    cli.add_overwrite_flag(parser)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    parser = build_parser()
    arguments = cli.parse_arguments(parser, argv)
    if not arguments["train_annotations"] and not arguments["val_annotations"]:
        parser.error("expected --train-annotations, --val-annotations or both, found neither")
    for split in ("train", "val"):
        if arguments[f"{split}_images"] and not arguments[f"{split}_annotations"]:
            parser.error(f"argument --{split}-images: expected --{split}-annotations too, found none")
    return cli.close(lambda: run(**arguments), STAGE)


if __name__ == "__main__":
    sys.exit(main())
