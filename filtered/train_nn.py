"""Train the patch quality classifier on labelled patches; the defaults are the published recipe.

A ResNet34 that starts from ImageNet learns to tell informative patches from uninformative ones. Part of the labels
is held back to judge it, and the epoch with the best area under the ROC curve (AUC) is kept. The same command again
goes on with an interrupted training after its last finished epoch.

Reads:   FPATHS, the path list deduplicate.py wrote, and the labelled ones of its patches;
         LABELS, patch_quality_labels.npy: informative, uninformative, unsure or none (the last two train nothing).
         They are matched by the patches' names through its log, and without one must be in the order of FPATHS.
Writes:  SAVEDIR/patch_quality_classifier_nn.pth, a plain state dict, and beside it .json: how to use it;
         patch_quality_nn_metrics.json, ..._epochs.csv (metrics by epoch), ..._scores.csv (each patch's score);
         patch_quality_nn_roc_curve.png, ..._loss_curves.png, ..._calibration.png, and
         ..._mistakes.png: the most confident mistakes, labels worth a second look.
Example: python filtered/train_nn.py deduplicated_fpaths.npz patch_quality_labels.npy filtered
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from emcurate import cli
from emcurate.classifier.labelled import check_enough, digest_labels, read_labelled, take_labels, warn_of_few
from emcurate.classifier.outcome import OUTPUTS, tell_again, write_outputs
from emcurate.classifier.recipe import Recipe
from emcurate.classifier.weights import find_start_weights
from emcurate.errors import InputError
from emcurate.files import hash_file, make_output_directory, note_outputs
from emcurate.patches.pathlists import PathList
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger, Source
from emcurate.running.report import Report

STAGE = "train_nn"


def refuse_others(savedir: Path) -> None:
    """Raise `InputError` where results would replace files of the same names that no training here has made."""
    there = [name for name in OUTPUTS if (savedir / name).exists()]
    if there:
        raise InputError(
            savedir / there[0],
            "no such file, or one of this very training",
            "files of another origin",
            "use another output directory, or --overwrite to train anew and replace it",
        )


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
    make_output_directory(savedir)
    parameters, data = asdict(recipe), digest_labels(paths, codes)
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
    if plan.done:
        tell_again(savedir, report)
    if not plan.todo:
        return report
    if not ledger.replaces(STAGE):
        refuse_others(savedir)

    from emcurate.classifier.inference import choose_device, choose_training_precision, use_threads
    from emcurate.classifier.network import load_start_weights
    from emcurate.classifier.training import BEST_FILE, Trainer, fit, open_workdir

    chosen = choose_device(device)
    number_type = choose_training_precision(chosen, precision)
    use_threads(workers.cores)
    start = find_start_weights(recipe.init)
    identity = [data, parameters, start and hash_file(start), chosen, number_type]
    run_id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    workdir = open_workdir(savedir, run_id, resume, overwrite)
    trainer = Trainer(recipe, start, chosen, number_type)
    patches = read_labelled(paths, codes, recipe, labels, report, workers)
    warn_of_few(patches, labels, report)
    done = fit(trainer, patches.pixels, patches.truth, patches.held, workdir, run_id, report)
    load_start_weights(trainer.network, workdir / BEST_FILE)
    scores = np.empty(len(patches.truth))
    scores[~patches.held] = trainer.score(patches.pixels[~patches.held])
    scores[patches.held] = done.best_scores
    write_outputs(savedir, workdir / BEST_FILE, patches, scores, done, recipe, report)
    ledger.finish(STAGE, note_outputs(savedir, *(savedir / name for name in OUTPUTS)))
    shutil.rmtree(workdir)
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "train_nn.py")
    parser.add_argument("fpaths", type=cli.existing_directory, metavar="FPATHS", help="path list of the patches")
    parser.add_argument("labels", type=cli.existing_file, metavar="LABELS", help="labels of its patches")
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
