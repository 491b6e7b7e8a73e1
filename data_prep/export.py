"""Hand patches over to those who train on them: as images, WebDataset shards, Zarr or HDF5, with what is known of each.

Reads:   FPATHS, a path list such as nn_filtered_fpaths.npz; the patches it names, files or members of shards; the
         tables beside them, and what deduplicate.py and classify_nn.py noted.
Writes:  OUTDIR/patches.parquet, a row for every patch of these datasets: what became of it and why, and of those that
         are exported split, file, row in the file, and weight; and by --format, for each split (train, and val with
         --split):
         imagefolder  {split}/00000/00000000.png, {split}/metadata.parquet, and {split}.txt, a path a line;
         webdataset   {split}-00000.tar, in each an image and a .json a patch, in an order drawn by lot;
         zarr         {split}.zarr, an array (patches, size, size) of uint8;
         h5           {split}-00000.h5, with `images` (patches, size, size) and a dataset for all that is known.
Example: python data_prep/export.py work/classify_nn/nn_filtered_fpaths.npz export --format imagefolder --split 0.9

A dataset is never in both splits. --budget draws evenly over datasets, and patches of a dataset so that they are spread
over it; `weight` is for those who draw while they train: by it datasets come up as --balance says, whatever was drawn.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.files import make_output_directory, refuse_same_directory
from emcurate.patches.drawing import POWERS
from emcurate.patches.exports.against import Against, find_listed_leaks
from emcurate.patches.exports.choice import Drawing, choose, find_size
from emcurate.patches.exports.formats import FORMATS, owner_of, write_piece
from emcurate.patches.exports.pieces import IMAGES, How
from emcurate.patches.exports.plan import ExportPlan
from emcurate.patches.fitting import FITS, PAD
from emcurate.patches.listing import list_patches, look_at
from emcurate.patches.pathlists import PathList
from emcurate.reporting.datasheet import SHEETS_STAGE, Run, open_sheets_ledger, write_datasheets
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.spelled_paths import path_as_text

STAGE = "export"
SEED = 0
LEAK_DISTANCE = 12  # bits of the 64 of a usual hash: that of near-duplicates, as deduplicate.py has it


def run(
    fpaths: Path,
    outdir: Path,
    *,
    format: str,
    size: int | None = None,
    fit: str = PAD,
    image: str = IMAGES[0],
    drawing: Drawing = Drawing(),
    shard_size: int | None = None,
    relative: bool = False,
    against: Against | None = None,
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
    licences: Mapping[str, str] | None = None,
) -> Report:
    """Export the patches of `fpaths`, whose datasets have these `licences`; see the module's docstring."""
    report = Report(STAGE)
    workers.warm_up()
    listing = list_patches(PathList(fpaths, reroot))
    for directory in listing.directories:
        if directory.is_dir():
            refuse_same_directory(directory, outdir)
    seen = look_at(listing, report, workers)
    size = find_size(listing, seen, size, fit, FORMATS[format].needs_one_size)
    leaks = None if against is None else find_listed_leaks(listing, seen, against, report, workers)
    choice = choose(listing, seen, size, fit, drawing, leaks.rows if leaks and against and against.drops else None)
    make_output_directory(outdir)
    how = How(format, image, size, fit)
    parameters = {**asdict(how), **asdict(drawing), "shard_size": shard_size, "relative": relative}
    if against is not None:  # not noted otherwise, so that exports of earlier versions stay
        parameters |= {
            "against": path_as_text(against.directory),
            "leak_distance": against.distance,
            "drop_leaks": against.drops,
        }
    ledger = Ledger(outdir, STAGE, parameters, product="export", owner_of=owner_of)
    of_sheets = open_sheets_ledger(outdir)
    plan = ExportPlan(ledger, fpaths, listing, seen, choice, how, shard_size, drawing.seed, relative, leaks)
    plan.settle(report, overwrite=overwrite, prune=prune)
    for piece, outputs in workers.run(write_piece, plan.jobs(), report, unit="piece"):
        plan.take(piece, outputs, report)
    if plan.close(report):
        ledger.note()  # of which the datasheets tell
        read = (fpaths, None if against is None else against.directory)
        of_this = {"licences": licences or {}, "name": fpaths.stem, "before": plan.before}
        this = Run(STAGE, "data_prep/export.py", None, {STAGE: outdir}, read, **of_this)
        write_datasheets(of_sheets, this, report, workers, overwrite=overwrite)
    return report


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """End the program if the arguments do not fit together; put those of the drawing into one value."""
    if arguments["fit"] is not None and arguments["size"] is None and not FORMATS[arguments["format"]].needs_one_size:
        parser.error("argument --fit: expected --size too, found none; it takes patches of any size")
    arguments["fit"] = arguments["fit"] or PAD
    by, part = arguments.pop("by"), arguments.pop("split")
    if by is not None and part is None:
        parser.error("argument --by: expected --split too, found none")
    directory, distance, drops = (arguments.pop(name) for name in ("against", "leak_distance", "drop_leaks"))
    if directory is None and (drops or distance is not None):
        parser.error("arguments --leak-distance, --drop-leaks: expected --against too, found none")
    distance = LEAK_DISTANCE if distance is None else distance
    arguments["against"] = None if directory is None else Against(directory, distance, drops)
    arguments["licences"] = cli.check_licences(parser, arguments.pop("licence"))
    names = ("per_dataset", "budget", "balance", "seed")
    arguments["drawing"] = Drawing(**{name: arguments.pop(name) for name in names}, part=part)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "export.py")
    parser.add_argument("fpaths", type=cli.existing_directory, metavar="FPATHS", help="path list of the patches")
    parser.add_argument("outdir", type=cli.output_directory, metavar="OUTDIR", help="directory for the results")
    parser.add_argument("--format", choices=FORMATS, required=True, help="what is written; see above")
    images = parser.add_argument_group("images")
    images.add_argument(
        "--size",
        type=cli.positive_int,
        metavar="PIXELS",
        help="give every patch this side (default: their own; for zarr and h5 that of the largest)",
    )
    images.add_argument(
        "--fit",
        choices=FITS,
        help="what is done with others: pad them with zeros below and to the right, leave them out, or resize them "
        f"(default: {PAD})",
    )
    images.add_argument(
        "--image", choices=IMAGES, default=IMAGES[0], help="for imagefolder and webdataset (default: %(default)s)"
    )
    images.add_argument(
        "--shard-size",
        type=cli.positive_int,
        metavar="N",
        help="patches of a tar, HDF5 file, Zarr shard or directory (default: 1000, or 64 MiB; of HDF5 1 GiB)",
    )
    images.add_argument(
        "--relative", action="store_true", help="let paths in tables and lists begin in OUTDIR, which then can be moved"
    )
    which = parser.add_argument_group("which patches", "all, if not told otherwise")
    which.add_argument(
        "--split",
        type=cli.inner_fraction,
        metavar="PART",
        help="train on about this part, and hold the rest back for validation",
    )
    which.add_argument("--by", choices=("dataset",), help="keep datasets whole, which is what is done anyway")
    which.add_argument("--per-dataset", type=cli.positive_int, metavar="N", help="of each dataset N patches at most")
    which.add_argument(
        "--budget", type=cli.positive_int, metavar="N", help="N patches in all, by the shares of --balance"
    )
    which.add_argument(
        "--balance",
        choices=POWERS,
        default="even",
        help="shares of datasets: even, by the square root of their sizes, or by these (default: %(default)s)",
    )
    which.add_argument(
        "--seed", type=cli.natural_int, default=SEED, metavar="N", help="seed of what is drawn (default: %(default)s)"
    )
    leaks = parser.add_argument_group("leaks", "patches that show what a model is to be tested with")
    leaks.add_argument(
        "--against",
        type=cli.existing_directory,
        metavar="DIR",
        help="report near-duplicates of a benchmark's images at any depth in DIR, or of patches of crop_patches.py",
    )
    leaks.add_argument(
        "--leak-distance",
        type=cli.natural_int,
        metavar="BITS",
        help=f"those at most so many bits apart (default: {LEAK_DISTANCE})",
    )
    leaks.add_argument("--drop-leaks", action="store_true", help="leave them out")
    cli.add_licence_flag(
        parser.add_argument_group("datasheet", "what is known of the data is taken over from that in OUT")
    )
    cli.add_reroot_flag(parser)
    cli.add_ledger_flags(parser, "outdir", beside=[SHEETS_STAGE])
    parser.set_defaults(check_arguments=check_arguments)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
