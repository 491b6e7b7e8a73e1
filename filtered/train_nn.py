"""Train the patch quality classifier on labelled patches; the defaults are the published recipe.

A ResNet34 that starts from ImageNet learns to tell informative patches from uninformative ones. Part of the labels
is held back to judge it, and the epoch with the best area under the ROC curve (AUC) is kept. The same command again
goes on with an interrupted training after its last finished epoch. -p is for reading patches: on a CPU, training
computes in four threads (on fewer cores in as many), so that results do not depend on it.

Reads:   FPATHS, the path list deduplicate.py wrote, and the labelled ones of its patches;
         LABELS, patch_quality_labels.npy: informative, uninformative, unsure or none (the last two train nothing).
         They are matched by the patches' names through its log, and without one must be in the order of FPATHS.
Writes:  SAVEDIR/patch_quality_classifier_nn.pth, a plain state dict, and beside it .json: how to use it;
         patch_quality_nn_metrics.json, ..._epochs.csv (metrics by epoch), ..._scores.csv (each patch's score);
         patch_quality_nn_roc_curve.png, ..._loss_curves.png, ..._calibration.png, and
         ..._mistakes.png: the most confident mistakes, labels worth a second look.
Example: python filtered/train_nn.py work/deduplicate/deduplicated_fpaths.npz \\
         work/deduplicate/patch_quality_labels.npy work/train_nn
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.classifier.card import WEIGHTS_FILE
from emcurate.classifier.labelled import check_enough, digest_labels, read_labelled, take_labels, warn_of_few
from emcurate.classifier.outcome import MISTAKES_FILE, OUTPUTS, make_outputs, read_failures, refuse_others
from emcurate.classifier.recipe import Recipe, largest_blur
from emcurate.files import make_output_directory
from emcurate.outputs import hash_file, note_outputs
from emcurate.patches.labels import is_decided
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import refuse_moved
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LEDGER_DIRECTORY
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.writing import refuse_different, write_once

STAGE = "train_nn"


def run(
    fpaths: Path,
    labels: Path,
    savedir: Path,
    *,
    recipe: Recipe = Recipe(),
    device: str = "auto",
    precision: str = "auto",
    resume: bool = False,
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Train on the labelled patches of `fpaths`; see the module's docstring."""
    report = Report(STAGE)
    paths = PathList(fpaths, reroot)
    codes = take_labels(labels, paths, report)
    check_enough(codes, labels)
    refuse_moved([paths[i] for i in is_decided(codes).nonzero()[0].tolist()], fpaths)
    make_output_directory(savedir)
    from emcurate.classifier.weights import fetch_start_weights, find_start_file  # here, since they load what downloads

    start = find_start_file(recipe.init)
    # Start weights of the user's own are remembered by what they are, not by where they lay.
    parameters = asdict(recipe) | ({"init": f"weights with SHA-256 {hash_file(start)}"} if start else {})
    data = digest_labels(paths, codes)
    training = digest_text([data, parameters])
    ledger = Ledger(
        savedir,
        STAGE,
        parameters,
        product="classifier",
        owner_of=lambda name: STAGE if name.rstrip("/") in OUTPUTS else None,
    )
    # Its owner is the stage: the results bear the stage's own name, whichever labels they are of.
    source = Source(labels, data, STAGE, owner=Path(STAGE))
    plan = ledger.plan({STAGE: source}, report, root=fpaths, overwrite=overwrite, prune=prune)
    workdir = savedir / LEDGER_DIRECTORY / STAGE
    if plan.done:
        report.fail_all(read_failures(ledger.details_of(STAGE)))
        report.note(f"already trained with these labels and settings: {savedir / WEIGHTS_FILE}")
        shutil.rmtree(workdir, ignore_errors=True)  # where the run that finished was killed before it could
    if not plan.todo:
        return report
    if not ledger.replaces(STAGE):
        refuse_others(savedir, training)

    from emcurate.classifier.checkpoints import open_checkpoint
    from emcurate.classifier.inference import choose_device, choose_training_precision, use_threads
    from emcurate.classifier.training import Trainer, count_training_threads, fit, score_all

    chosen = choose_device(device)
    number_type = choose_training_precision(chosen, precision)
    use_threads(count_training_threads())
    start = start or fetch_start_weights(recipe.init)
    run_id = digest_text([training, start and hash_file(start), chosen, number_type])
    checkpoint = open_checkpoint(workdir, run_id, resume, overwrite, report)
    trainer = Trainer(recipe, start, chosen, number_type)
    patches = read_labelled(paths, codes, recipe, labels, report, workers)
    unread = list(report.failures)
    warn_of_few(patches, labels, report)
    done = fit(trainer, patches.pixels, patches.truth, patches.held, checkpoint, report)
    scores = score_all(trainer, done, patches.pixels, patches.held)
    outputs = make_outputs(patches, scores, done, recipe, parameters, training, report)
    replace = ledger.replaces(STAGE)
    if not replace:
        refuse_different(savedir, outputs)
    for name, content in outputs.items():
        write_once(savedir / name, content, overwrite=replace)
    report.note(f"look at {savedir / MISTAKES_FILE}: labels worth a second look")
    ledger.finish(STAGE, note_outputs(savedir, *(savedir / name for name in outputs)), {"unreadable": unread})
    shutil.rmtree(workdir)
    return report


def digest_text(values: list[Any]) -> str:
    """Return the SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """End the program where a recipe's settings do not fit each other."""
    recipe: Recipe = arguments["recipe"]
    if recipe.blur > (most := largest_blur(recipe.image_size)):
        wanted = f"at most {most:g} with --image-size {recipe.image_size}"
        parser.error(f"argument --blur: expected {wanted}, found {recipe.blur:g}")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "train_nn.py")
    parser.add_argument("fpaths", type=cli.path_list, metavar="FPATHS", help="path list of the patches")
    parser.add_argument("labels", type=cli.label_file, metavar="LABELS", help="labels of its patches")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    titles = {
        "recipe": "the defaults are the published one",
        "augmentation": "how training patches are varied, beside flips",
    }
    cli.add_field_flags(parser, "recipe", Recipe, titles)
    cli.add_device_flags(parser)
    parser.add_argument("--resume", action="store_true", help="insist on going on with an interrupted training")
    cli.add_reroot_flag(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_processes_flag(parser)
    parser.set_defaults(check_arguments=check_arguments)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
