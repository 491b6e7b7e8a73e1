"""Trim COCO or COCO-Stuff 2017 to the images that tell its target categories apart.

Reads:   COCO annotation files (instances_train2017.json, stuff_train2017.json, ...; several are merged by image), and
         images from a directory, out of a zip archive without unpacking it, or, with --download, from their coco_url.
Writes:  OUTPUT/labels_train.json, labels_val.json: {"train2017/000000000009.jpg": [category ids]}, the images under
         OUTPUT/train2017 and val2017, OUTPUT/trim_report.csv, a picture of the balance, and README.md, a dataset card.
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

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.errors import InputError
from emcurate.fetching.downloads import MOST_FAILURES
from emcurate.fetching.placing import Link
from emcurate.files import make_output_directory
from emcurate.running.claims import refuse_other_makers
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.trimming.categories import resolve_targets
from emcurate.trimming.coco import read_annotations
from emcurate.trimming.coco_output import (
    Bringing,
    foretell,
    open_part,
    warn_of_other_split,
    write_coco_card,
    write_split,
)
from emcurate.trimming.coco_selection import (
    SEED,
    Split,
    choose_images,
    list_categories,
    merge_categories,
    refuse_empty,
)
from emcurate.trimming.part import PRODUCTS

STAGE = "trim_coco"

# The published targets: ids of the JSON files' numbering.
DEFAULT_TARGETS = (3, 6, 31, 35, 36, 37, 40, 41, 43, 46, 47, 50, 53, 64, 75, 76, 78, 80, 85, 89)
TRAIN_SAMPLES = 500
VAL_SAMPLES = 250


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
    only_list: bool = False,
    max_failures: int = MOST_FAILURES,
    dry_run: bool = False,
    overwrite: bool = False,
    prune: bool = False,
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
    if only_list:
        print(*list_categories(splits, categories), sep="\n")
        report.count("categories", len(categories))
        return report
    ids = resolve_targets(targets or [str(i) for i in DEFAULT_TARGETS], categories, splits[0].annotations[0])
    choices = []
    for split in splits:
        try:
            choice = choose_images(split, ids, categories, seed)
            refuse_empty(choice, skip_empty, report)
            choices.append(choice)
        except InputError as error:
            report.fail(error)
    for repeats in filter(None, (choice.describe_repeats() for choice in choices)):
        report.warn(repeats)
    if dry_run:
        for choice in choices:
            try:
                foretell(choice, output, report, download=download)
            except InputError as error:
                report.fail(error)
        return report
    report.count("files written", 0)
    if not choices:
        return report
    make_output_directory(output)
    refuse_other_makers(output, STAGE, PRODUCTS)
    settings = {"targets": ids, "seed": seed, "skip_empty": skip_empty, "masks": masks, "layout": layout}
    parts = [open_part(STAGE, choice, output, settings, report, overwrite=overwrite, prune=prune) for choice in choices]
    if any(part.is_refused for part in parts):
        return report
    warn_of_other_split(parts, settings, report)
    how = Bringing(download, max_failures, link, overwrite, workers)
    facts: dict[str, dict[str, Any]] = {}
    for choice, part in zip(choices, parts, strict=True):
        try:
            facts[part.name] = write_split(STAGE, choice, part, settings, how, report)
        except InputError as error:
            report.fail(error)
    write_coco_card(STAGE, parts[0], facts, report)
    return report


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
            f"--{split}-images",
            type=cli.directory_or_archive,
            metavar="DIR|ZIP",
            help=f"directory or zip of the {split} images",
        )
        parser.add_argument(
            f"--{split}-samples",
            type=cli.even_int,
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
        "--list-categories",
        dest="only_list",
        action="store_true",
        help="print ids, names and numbers of images, and do nothing else",
    )
    parser.add_argument("--seed", type=cli.natural_int, default=SEED, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--skip-empty", action="store_true", help="leave out targets that no image, or every image, shows"
    )
    cli.add_link_flag(parser)
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
    cli.add_max_failures_flag(parser, MOST_FAILURES)
    cli.add_dry_run_flag(parser)
    cli.add_ledger_flags(parser, "output")
    cli.add_job_flags(parser)
    parser.set_defaults(check_arguments=check_arguments)
    return parser


def check_arguments(parser: argparse.ArgumentParser, arguments: Mapping[str, Any]) -> None:
    """End the program where there is nothing to trim, or are images of nothing."""
    if arguments["verify"]:
        return
    if not arguments["train_annotations"] and not arguments["val_annotations"]:
        parser.error("expected --train-annotations, --val-annotations or both, found neither")
    for split in ("train", "val"):
        if arguments[f"{split}_images"] and not arguments[f"{split}_annotations"]:
            parser.error(f"argument --{split}-images: expected --{split}-annotations too, found none")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
