"""Describe every patch of a path list by a network's features, by which select_diverse.py tells patches apart.

The network is the body of this project's own classifier, with the weights of train_nn.py or the published ones; or
any of torchvision or timm, without its last layer, with the weights of a file or those that the library has published
(downloaded once). Features are kept: an interrupted run goes on where it stopped, and when the list has grown only
its new patches are computed.

Reads:   FPATHS, a path list such as nn_filtered_fpaths.npz; the patches it names, files or members of shards.
Writes:  SAVEDIR/features.parquet, a row a patch: `patch`, its name, and `features`, numbers of float16. A patch that
         cannot be read has no row;
         SAVEDIR/neighbours.png: some patches, each with those most alike by these features, to judge them by.
Example: python filtered/embed.py work/classify_nn/nn_filtered_fpaths.npz work/embed \\
         --weights work/train_nn/patch_quality_classifier_nn.pth
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emcurate import cli
from emcurate.classifier.backbones import CLASSIFIER, LIBRARIES, describe_model, find_backbone, split_model
from emcurate.classifier.card import LARGEST_IMAGE_SIZE, LEAST_IMAGE_SIZE
from emcurate.classifier.computing import Computing, choose_for_all
from emcurate.classifier.earlier import digest_names, is_continued, keep_names
from emcurate.classifier.embedding import embed_patches
from emcurate.classifier.neighbours import draw_neighbours
from emcurate.classifier.score_store import digest_paths, patch_keys
from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.outputs import digest_bytes, note_outputs
from emcurate.patches.columns import as_column, in_one
from emcurate.patches.features import FEATURES_FILE, write_features
from emcurate.patches.listing import SomeOf, list_patches
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import refuse_moved
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LEDGER_DIRECTORY
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.writing import refuse_different, write_once

STAGE = "embed"
NEIGHBOURS_FILE = "neighbours.png"
OUTPUTS = (FEATURES_FILE, NEIGHBOURS_FILE)

# Features are stored in float16, and want to be the same on every machine: a faster type has to be asked for.
PRECISION = "float32"

# Numbers of --mean and --std: one for all three channels, or one each.
CHANNELS = 3


def run(
    fpaths: Path,
    savedir: Path,
    *,
    model: str = CLASSIFIER,
    weights: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    device: str = "auto",
    precision: str = "auto",
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Describe the patches of `fpaths`; see the module's docstring."""
    report = Report(STAGE)
    listing = list_patches(PathList(fpaths, reroot))
    paths = SomeOf(listing.paths, listing.positions)
    refuse_moved(paths, fpaths)
    found = find_backbone(model, weights, report, image_size=image_size, mean=mean, std=std)
    make_output_directory(savedir)
    device, precision = choose_for_all(workers, device, PRECISION if precision == "auto" else precision)
    keys = patch_keys(paths, len(paths), (listing.paths.listed(int(at)) for at in listing.positions))
    names = digest_names(paths, len(paths))
    parameters = {
        "model": model, "weights_sha256": found.sha256, **asdict(found.input_format), "precision": precision
    }  # fmt: skip
    ledger = Ledger(
        savedir, STAGE, parameters, product="features",
        owner_of=lambda name: STAGE if name.rstrip("/") in OUTPUTS else None,
    )  # fmt: skip
    workdir = savedir / LEDGER_DIRECTORY / STAGE
    continued = is_continued(ledger.entries.get(STAGE), workdir, fpaths, names, prune)
    state = digest_bytes(keys.tobytes() + digest_paths(paths))
    source = Source(fpaths, state, STAGE, owner=Path(STAGE), is_renewed=continued)
    plan = ledger.plan({STAGE: source}, report, root=fpaths, overwrite=overwrite, prune=prune)
    # Patches that could not be read are tried again, since they may have been mended.
    if plan.done and not ledger.details_of(STAGE).get("unreadable"):
        report.count("patches embedded", 0)
        report.count("embedded before", len(paths))
        report.note(f"nothing new: {savedir / FEATURES_FILE} is up to date")
        return report
    if not plan.done and not plan.todo:
        return report
    replace, table = ledger.replaces(STAGE), savedir / FEATURES_FILE
    computing = Computing(found, device, precision, workers, model)
    store, places = embed_patches(paths, keys, computing, workdir, report)
    readable = np.flatnonzero(places >= 0)
    if not len(readable):
        raise InputError(fpaths, "patches that can be read", "none", "cut them again, or mend the list")

    def read(rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        features: npt.NDArray[np.float16] = store.records["features"][places[readable[rows]]]
        return features

    sheet = draw_neighbours(
        SomeOf(paths, readable), read, f"Some patches, each with the nearest by the features of {model}"
    )
    if not replace:
        refuse_different(savedir, {NEIGHBOURS_FILE: sheet})
    keep_names(workdir, names)
    known = in_one(listing.table["patch"]).take(as_column(readable, pa.int64()))
    write_features(table, known, store.width, read, describe_model(model, found), overwrite=replace)
    write_once(savedir / NEIGHBOURS_FILE, sheet, overwrite=replace)
    report.note(f"look at {savedir / NEIGHBOURS_FILE}; features were computed on {device} in {precision}")
    unreadable = len(paths) - len(readable)
    ledger.finish(STAGE, note_outputs(savedir, *(savedir / name for name in OUTPUTS)), {"unreadable": unreadable})
    return report


def network(text: str) -> str:
    """Argument type: the name of a network."""
    try:
        split_model(text)
    except ValueError:
        wanted = f"{CLASSIFIER}, {' or '.join(f'{library}/NAME' for library in LIBRARIES)}"
        raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}") from None
    return text


def image_side(text: str) -> int:
    """Argument type: the side of a network's input in pixels."""
    side = cli.positive_int(text)
    if not LEAST_IMAGE_SIZE <= side <= LARGEST_IMAGE_SIZE:
        wanted = f"{LEAST_IMAGE_SIZE} to {LARGEST_IMAGE_SIZE}"
        raise argparse.ArgumentTypeError(f"expected a number of pixels from {wanted}, found {text!r}")
    return side


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """Give each channel its mean and deviation; end the program where there are neither one nor three."""
    for name in ("mean", "std"):
        given = arguments[name]
        if given is not None:
            if len(given) not in (1, CHANNELS):
                parser.error(f"argument --{name}: expected one number, or {CHANNELS}, found {len(given)}")
            arguments[name] = tuple(given) if len(given) == CHANNELS else tuple(given) * CHANNELS


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "embed.py")
    parser.add_argument("fpaths", type=cli.path_list, metavar="FPATHS", help="path list of the patches")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    group = parser.add_argument_group("network")
    group.add_argument(
        "--model",
        type=network,
        default=CLASSIFIER,
        help=f"{CLASSIFIER}, or {' or '.join(f'{library}/NAME' for library in LIBRARIES)}, such as "
        "torchvision/resnet50 (default: %(default)s)",
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="its weights, a file or an address; may hold more, such as all that a training has kept (default: the "
        "published ones, downloaded once)",
    )
    group.add_argument(
        "--image-size",
        type=image_side,
        metavar="PIXELS",
        help="side of its input, which patches are resized to (default: as its weights were trained)",
    )
    for name, text, kind in (("mean", "mean", cli.fraction), ("std", "standard deviation", cli.positive_float)):
        group.add_argument(
            f"--{name}",
            type=kind,
            nargs="+",
            metavar="VALUE",
            help=f"{text} of grey values, 0 to 1, in its training, one or {CHANNELS} (default: as its weights)",
        )
    cli.add_device_flags(parser)
    cli.add_reroot_flag(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    parser.set_defaults(check_arguments=check_arguments)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
