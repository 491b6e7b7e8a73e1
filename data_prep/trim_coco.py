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
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emcurate import cli
from emcurate.errors import InputError
from emcurate.fetching.gathering import Link, gather
from emcurate.files import make_output_directory, write_once
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.trimming import coco_selection as selection
from emcurate.trimming.categories import resolve_targets
from emcurate.trimming.coco import read_annotations, select_records
from emcurate.trimming.coco_selection import SEED, Choice, Split

STAGE = "trim_coco"

# The published targets: ids of the JSON files' numbering.
DEFAULT_TARGETS = (3, 6, 31, 35, 36, 37, 40, 41, 43, 46, 47, 50, 53, 64, 75, 76, 78, 80, 85, 89)
TRAIN_SAMPLES = 500
VAL_SAMPLES = 250


@dataclass(frozen=True)
class Options:
    """What the flags say about how both splits are trimmed."""

    output: Path
    link: Link
    download: bool
    masks: bool
    layout: str
    overwrite: bool
    workers: Workers


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
    categories = selection.merge_categories(splits)
    if list_categories:
        print_categories(splits, categories)
        report.count("categories", len(categories))
        return report
    ids = resolve_targets(targets or [str(i) for i in DEFAULT_TARGETS], categories, splits[0].annotations[0])
    options = Options(output, link, download, masks, layout, overwrite, workers)
    report.count("files written", 0)
    for split in splits:
        try:
            choice = selection.choose_images(split, ids, categories, seed)
            selection.refuse_empty(choice, skip_empty, report)
            write_split(choice, options, report)
        except InputError as error:
            report.fail(error)
    return report


def write_split(choice: Choice, options: Options, report: Report) -> None:
    """Write the lists of a split's chosen images, and bring the images to their place."""
    split, overwrite = choice.split, options.overwrite
    report.count(f"{split.name} images chosen", len(choice.images))
    output = make_output_directory(options.output)
    is_new = write_once(output / f"labels_{split.name}.json", choice.labels_file(), overwrite=overwrite)
    report.count_file(is_new)
    table = output / "trim_report.csv"
    earlier = table.read_text(encoding="utf-8", errors="replace") if table.exists() else ""
    merged = selection.merge_report(earlier, split.name, choice.report_rows())
    is_ours = earlier.startswith(",".join(selection.REPORT_COLUMNS))
    report.count_file(write_once(table, merged, overwrite=overwrite or is_ours))
    picture = output / f"balance_{split.name}.png"
    if is_new or not picture.exists():
        # Not compared with that of an earlier run: another matplotlib draws the same bars with other bytes.
        report.count_file(write_once(picture, choice.balance_picture(), overwrite=overwrite))
    report.note(f"How the {split.name} images are balanced: {picture}")
    if options.masks:
        records, oddities = select_records(split.annotations, list(choice.images))
        path = output / f"instances_{split.name}_trimmed.json"
        report.count_file(write_once(path, records, overwrite=overwrite))
        for oddity in oddities:
            report.warn(oddity)

    if split.images is None and not options.download:
        report.note(f"No {split.name} images were asked for: give --{split.name}-images or --download")
        return
    folder = make_output_directory(output / split.folder)
    present = gather(
        {image.file_name: image.url for image in choice.images.values()},
        folder,
        split.images,
        report,
        download=options.download,
        link=options.link,
        overwrite=overwrite,
        workers=options.workers,
    )
    if options.layout == "imagefolder":
        path, metadata = folder / selection.METADATA_NAME, choice.metadata(present)
        report.count_file(write_once(path, metadata, overwrite=overwrite or selection.grows(path, metadata)))
    selection.warn_of_strays(folder, choice.images.values(), report)


def print_categories(splits: Sequence[Split], categories: Mapping[int, str]) -> None:
    """Print ids, names and how many images show each category."""
    counts = [split.content.count_images() for split in splits]
    categories = categories or dict.fromkeys(sorted({i for count in counts for i in count}), "")
    width = max(map(len, ["name", *categories.values()]))
    print(f"{'id':>4}  {'name':{width}}  " + "  ".join(f"{split.name + ' images':>12}" for split in splits))
    for number, name in categories.items():
        print(f"{number:4}  {name:{width}}  " + "  ".join(f"{count.get(number, 0):12,}" for count in counts))


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
        "--list-categories", action="store_true", help="print ids, names and numbers of images, and do nothing else"
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
