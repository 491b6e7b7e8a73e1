"""Score every patch of a path list with a trained classifier and list the informative ones.

A patch is informative if its score, a probability, is above the threshold; a patch with a label keeps its label.
The weights are the published ones, downloaded once, unless --weights names others. Scores are kept: an interrupted
run goes on where it stopped, and when the list has grown only its new patches are scored.

Reads:   FPATHS, the path list deduplicate.py wrote; the patches it names; with --labels, patch_quality_labels.npy.
Writes:  SAVEDIR/nn_filtered_fpaths.npz/, the path list of the informative patches;
         SAVEDIR/nn_predictions.npy (uint8: 1 informative, 0 not) and nn_scores.npy (float32), parallel to FPATHS;
         labelled patches too have the classifier's own score there, so that disagreement can be seen, and
         a patch that cannot be read has the score NaN and, unless labelled, the prediction 0;
         SAVEDIR/nn_decisions.parquet, score, label and decision of each patch by its name;
         SAVEDIR/nn_counts.csv, counts by dataset, and three contact sheets, nn_surest_informative.png,
         nn_surest_uninformative.png and nn_least_certain.png.
Example: python filtered/classify_nn.py work/deduplicate/deduplicated_fpaths.npz work/classify_nn
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from emcurate import cli
from emcurate.classifier.computing import Computing, choose_for_all
from emcurate.classifier.decisions import SHEETS, count_table, draw_sheets, predict
from emcurate.classifier.earlier import digest_names, is_continued, keep_names, refuse_edited
from emcurate.classifier.labelled import take_labels
from emcurate.classifier.score_store import digest_paths, patch_keys
from emcurate.classifier.scoring import score_patches
from emcurate.contents import npy_bytes
from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.outputs import digest_bytes, foresee, note_outputs
from emcurate.patches.decided import DECIDED_FILE, encode_decided
from emcurate.patches.labels import CODE_NONE
from emcurate.patches.pathlists import (
    PathList,
    foresee_chunks,
    list_paths,
    refuse_other_list,
    write_path_list_once,
)
from emcurate.patches.reading import refuse_moved
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LEDGER_DIRECTORY
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.writing import refuse_different, write_once

STAGE = "classify_nn"
PREDICTIONS_FILE = "nn_predictions.npy"
SCORES_FILE = "nn_scores.npy"
COUNTS_FILE = "nn_counts.csv"
FILTERED_LIST = "nn_filtered_fpaths.npz"
OUTPUTS = (PREDICTIONS_FILE, SCORES_FILE, COUNTS_FILE, DECIDED_FILE, FILTERED_LIST, *SHEETS)


def run(
    fpaths: Path,
    savedir: Path,
    *,
    labels: Path | None = None,
    weights: str | None = None,
    threshold: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Classify the patches of `fpaths`; see the module's docstring."""
    report = Report(STAGE)
    paths = PathList(fpaths, reroot)
    if not len(paths):
        raise InputError(fpaths, "a path list with patches", "an empty one", "run deduplicate.py first")
    refuse_moved(paths, fpaths)
    codes = np.full(len(paths), CODE_NONE, np.uint8) if labels is None else take_labels(labels, paths, report)
    from emcurate.classifier.weights import find_weights  # here, since it loads what downloads

    found = find_weights(weights, report)
    make_output_directory(savedir)
    threshold = found.threshold if threshold is None else threshold
    keys = patch_keys(paths, len(paths), (paths.listed(at) for at in range(len(paths))))
    names = digest_names(paths, len(paths))
    ledger = Ledger(
        savedir,
        STAGE,
        {"weights_sha256": found.sha256, **asdict(found.input_format), "threshold": threshold},
        product="filtered",
        owner_of=lambda name: STAGE if name.rstrip("/") in OUTPUTS else None,
    )
    workdir = savedir / LEDGER_DIRECTORY / STAGE
    continued = is_continued(ledger.entries.get(STAGE), workdir, fpaths, names, prune)
    # Its owner is the stage: the results bear the stage's own name, whichever list they are of. It may grow.
    state = digest_bytes(keys.tobytes() + codes.tobytes() + digest_paths(paths))
    source = Source(fpaths, state, STAGE, owner=Path(STAGE), is_renewed=continued)
    try:
        plan = ledger.plan({STAGE: source}, report, root=fpaths, overwrite=overwrite, prune=prune)
    except InputError as error:
        # A run that is refused tells no warnings, but what is assumed of the weights may be the very reason.
        raise InputError(error.path, error.expected, error.found, "; ".join([error.advice, *report.warnings])) from None
    # Patches that could not be read are tried again, since they may have been mended. Earlier versions wrote no table.
    has_table = any(output.name == DECIDED_FILE for output in ledger.outputs_of(STAGE))
    if plan.done and has_table and not ledger.details_of(STAGE).get("unreadable"):
        report.count("patches scored", 0)
        report.count("scored before", len(paths))
        report.note(f"nothing new: the results in {savedir} are up to date")
        return report
    if not plan.done and not plan.todo:
        return report
    if not overwrite and ledger.replaces(STAGE):
        refuse_edited(savedir / PREDICTIONS_FILE, savedir / FILTERED_LIST, ledger.outputs_of(STAGE))

    chosen, number_type = choose_for_all(workers, device, precision)
    computing = Computing(found, chosen, number_type, workers)
    scores = score_patches(paths, keys, computing, threshold, workdir, report)
    predictions = predict(scores, codes, threshold)
    kept = list_paths(paths[int(i)] for i in np.flatnonzero(predictions))
    report.count("informative", kept.count)
    outputs = {
        SCORES_FILE: npy_bytes(scores),
        PREDICTIONS_FILE: npy_bytes(predictions),
        COUNTS_FILE: count_table(paths, scores, codes, predictions),
        DECIDED_FILE: encode_decided(paths.chunks(), scores, codes, predictions, threshold),
        **draw_sheets(paths, scores, codes, threshold),
    }
    replace = ledger.replaces(STAGE)
    if not replace:
        refuse_different(savedir, outputs)
        refuse_other_list(savedir / FILTERED_LIST, kept)
    ledger.announce(STAGE, [*map(foresee, outputs, outputs.values()), *foresee_chunks(FILTERED_LIST, kept)])
    keep_names(workdir, names)
    for name, content in outputs.items():
        write_once(savedir / name, content, overwrite=replace)
    write_path_list_once(savedir / FILTERED_LIST, kept, overwrite=replace)
    report.note(f"look at {savedir}/nn_*.png; scores were computed on {chosen} in {number_type}")
    unreadable = int(np.isnan(scores).sum())
    ledger.finish(STAGE, note_outputs(savedir, *(savedir / name for name in OUTPUTS)), {"unreadable": unreadable})
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "classify_nn.py")
    parser.add_argument("fpaths", type=cli.path_list, metavar="FPATHS", help="path list of the patches")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    parser.add_argument(
        "--labels",
        type=cli.label_file,
        metavar="FILE",
        help="labels of its patches, matched by name; they win over scores",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="weights from train_nn.py, a file or an address (default: the published ones, downloaded once to "
        "$EMCURATE_CACHE or the user's cache)",
    )
    parser.add_argument(
        "--threshold",
        type=cli.fraction,
        help="scores above it are informative (default: what the weights' card says, 0.5 for the published ones)",
    )
    cli.add_device_flags(parser)
    cli.add_reroot_flag(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
