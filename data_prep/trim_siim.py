"""Trim the SIIM-ISIC 2020 metadata to 2,000 benign and 500 malignant rows, and gather their images.

Reads:   the metadata csv (Kaggle's train.csv or the ISIC archive's) and, with --images, a directory of images
         (jpg, jpeg, png, dcm in any case, sub-directories included).
Writes:  OUTPUT/metadata_small.csv, with every row's text as it was, OUTPUT/trim_report.csv, OUTPUT/images, with
         --split OUTPUT/metadata_train.csv and metadata_test.csv, and OUTPUT/README.md, a dataset card.
Example: python data_prep/trim_siim.py --metadata train.csv --images jpeg/train -o trimmed_siim

Rows are sorted by class and cut out of that order. The published order comes from a sort that does not keep equals in
place: numpy's quicksort of Python strings. --order published repeats it whatever pandas is installed; --order stable
keeps rows of a class in the order of the file.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.fetching.placing import Link
from emcurate.files import make_output_directory
from emcurate.outputs import digest_file
from emcurate.running.claims import refuse_other_makers
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.trimming import siim
from emcurate.trimming.dataset_card import write_card
from emcurate.trimming.part import PRODUCTS, Part
from emcurate.trimming.siim_card import count_parts, describe_parts, make_siim_card
from emcurate.trimming.siim_output import LISTS, bring_images, foretell
from emcurate.trimming.table import read_table

STAGE = "trim_siim"

# What the whole set is called in the ledger.
PART = "siim"

# The published cut, in rows of each class in the sorted order.
BENIGN = (2000, 4000)
MALIGNANT = (50, 550)


def run(
    metadata: Path,
    *,
    output: Path = Path("trimmed_siim"),
    images: Path | None = None,
    benign: tuple[int, int] = BENIGN,
    malignant: tuple[int, int] = MALIGNANT,
    order: str = "published",
    one_per_patient: bool = False,
    split: float | None = None,
    by: str = "patient",
    seed: int = siim.SEED,
    link: Link = "copy",
    dry_run: bool = False,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Trim a metadata file; see the module's docstring."""
    report = Report(STAGE)
    table = read_table(metadata)
    names = table.column(siim.find_id_column(table))
    patients = siim.find_patients(table, one_per_patient or (split is not None and by == "patient"), report)
    taken = siim.take_rows(table, dict(zip(siim.CLASSES, (benign, malignant), strict=True)), order)
    if one_per_patient and patients is not None:
        taken = siim.keep_one_per_patient(taken, patients)
    rows = [row for name in siim.CLASSES for row in taken[name]]
    siim.warn_of_formulas(table, rows, report)
    siim.warn_of_repeats(
        metadata, [names[row] for row in rows], patients and [patients[row] for row in rows], split, report
    )
    files = {
        "metadata_small.csv": table.choose(rows),
        "trim_report.csv": siim.make_report(table.column(siim.CLASS_COLUMN), taken, patients),
    }
    settings = {"benign": benign, "malignant": malignant, "order": order, "one_per_patient": one_per_patient}
    parts = {"chosen": rows}
    if split is not None:
        settings |= {"split": split, "by": by, "seed": seed}
        owners = patients if by == "patient" and patients is not None else siim.find_image_owners(names, rows)
        parts["train"], parts["test"] = siim.split_rows(taken, owners, split, seed)
        files |= {f"metadata_{part}.csv": table.choose(parts[part]) for part in ("train", "test")}
    counted = count_parts(table, parts, patients)
    for line in describe_parts(table, counted):
        report.note(line)
    chosen = list(dict.fromkeys(names[row] for row in rows))
    if dry_run:
        report.count("rows chosen", len(rows))
        foretell(chosen, images, output, report)
        return report
    source = Source(metadata, digest_file(metadata), PART, settings=settings)
    make_output_directory(output)
    refuse_other_makers(output, STAGE, PRODUCTS)
    part = Part(output, STAGE, source, LISTS, report, overwrite=overwrite, prune=prune)
    if part.is_refused:
        return report
    report.count("files written", 0)
    for file_name, data in files.items():
        part.write(file_name, data)
    report.count("rows chosen", len(rows))
    bring_images(chosen, images, part, report, link=link, overwrite=overwrite, workers=workers)
    part.finish()
    card = make_siim_card(STAGE, table, source.fingerprint, settings, names, rows, counted)
    write_card(STAGE, output, card, report)
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "trim_siim.py")
    parser.add_argument("--metadata", type=cli.existing_file, metavar="FILE", help="the metadata csv")
    parser.add_argument(
        "-o", "--output", type=cli.output_directory, default="trimmed_siim", metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--images", type=cli.existing_directory, metavar="DIR", help="directory whose images are gathered, at any depth"
    )
    for name, (start, stop) in zip(siim.CLASSES, (BENIGN, MALIGNANT), strict=True):
        parser.add_argument(
            f"--{name}",
            type=cli.row_range,
            default=(start, stop),
            metavar="START:STOP",
            help=f"{name} rows taken from the sorted order (default: {start}:{stop})",
        )
    parser.add_argument(
        "--order",
        choices=["published", "stable"],
        default="published",
        help="how rows of one class are ordered (default: %(default)s)",
    )
    parser.add_argument("--one-per-patient", action="store_true", help="keep one row of each patient")
    parser.add_argument(
        "--split",
        type=cli.inner_fraction,
        metavar="SHARE",
        help="also write lists for training (this share) and for testing",
    )
    parser.add_argument(
        "--by",
        choices=["patient", "image"],
        default="patient",
        help="what --split keeps together (default: %(default)s, so that nobody is on both sides)",
    )
    parser.add_argument(
        "--seed", type=cli.natural_int, default=siim.SEED, metavar="N", help="of --split (default: %(default)s)"
    )
    cli.add_link_flag(parser)
    cli.add_dry_run_flag(parser)
    cli.add_ledger_flags(parser, "output")
    cli.add_job_flags(parser)
    parser.set_defaults(check_arguments=check_arguments)
    return parser


def check_arguments(parser: argparse.ArgumentParser, arguments: Mapping[str, Any]) -> None:
    """End the program where there is nothing to trim."""
    if arguments["metadata"] is None and not arguments["verify"]:
        parser.error("argument --metadata: expected the metadata csv, found none")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
