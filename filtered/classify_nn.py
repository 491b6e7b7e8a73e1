"""Score every patch of a path list with a trained classifier and list the informative ones.

A patch is informative if its score, a probability, is above the threshold; a patch with a label keeps its label.
The weights are the published ones, downloaded once, unless --weights names others. Scores are kept: an interrupted
run goes on where it stopped, and when the list has grown only its new patches are scored.

Reads:   FPATHS, the path list deduplicate.py wrote; the patches it names; with --labels, patch_quality_labels.npy.
Writes:  SAVEDIR/nn_filtered_fpaths.npz/, the path list of the informative patches;
         SAVEDIR/nn_predictions.npy (uint8: 1 informative, 0 not) and nn_scores.npy (float32), parallel to FPATHS;
         labelled patches too have the classifier's own score there, so that disagreement can be seen, and
         a patch that cannot be read has the score NaN and, unless labelled, the prediction 0;
         SAVEDIR/nn_counts.csv, counts by dataset, and three contact sheets, nn_surest_informative.png,
         nn_surest_uninformative.png and nn_least_certain.png.
Example: python filtered/classify_nn.py deduplicated_fpaths.npz filtered --labels patch_quality_labels.npy
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emcurate import cli, naming
from emcurate.classifier.batches import BatchJobs, read_batch
from emcurate.classifier.card import Weights, describe_weights
from emcurate.classifier.scoring import Keys, ScoreStore, patch_keys, run_ahead
from emcurate.classifier.weights import PUBLISHED_URL, fetch_weights, is_url
from emcurate.errors import InputError
from emcurate.files import make_output_directory, npy_bytes, write_bytes, write_once
from emcurate.patches.labels import CODE_INFORMATIVE, CODE_NONE, CODE_UNINFORMATIVE, encode_labels, load_labels
from emcurate.patches.pathlists import PathList, same_paths, write_path_list
from emcurate.pictures import contact_sheets as pictures
from emcurate.running.jobs import Workers
from emcurate.running.ledger import LEDGER_DIRECTORY, Entry, Ledger
from emcurate.running.report import Report

if TYPE_CHECKING:
    import torch

    from emcurate.classifier.network import DeviceName, PrecisionName

STAGE = "classify_nn"
PREDICTIONS_FILE = "nn_predictions.npy"
SCORES_FILE = "nn_scores.npy"
COUNTS_FILE = "nn_counts.csv"
FILTERED_LIST = "nn_filtered_fpaths.npz"
OUTPUTS = (PREDICTIONS_FILE, SCORES_FILE, FILTERED_LIST)

TILES_PER_SHEET = 64

# Scores this near the threshold are computed again in float32. On real patches bfloat16 moved no score of a trained
# network by more than 0.007.
RECHECK_MARGIN = 0.03

# Reading a patch takes under a twentieth of the time that scoring it on a CPU core takes: one thread is enough for
# these many cores, and spares starting processes. Beyond, each process that decodes serves as many.
CORES_PER_DECODER = 8

Scores = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


@dataclass
class DatasetCounts:
    """One dataset's row of the counts: its patches by how each was decided."""

    patches: int = 0
    labelled_informative: int = 0
    labelled_uninformative: int = 0
    scored_informative: int = 0
    scored_uninformative: int = 0
    unreadable: int = 0
    kept: int = 0


def predict(scores: Scores, labels: Codes, threshold: float) -> Codes:
    """Return 1 for informative patches, 0 for others: by label where there is one, else by score.

    A NaN, the score of a patch that could not be read, is above no threshold.
    """
    predictions = (scores > threshold).astype(np.uint8)
    labelled = labels != CODE_NONE
    predictions[labelled] = labels[labelled] == CODE_INFORMATIVE
    return predictions


def count_by_dataset(
    datasets: Sequence[str], scores: Scores, labels: Codes, predictions: Codes
) -> dict[str, DatasetCounts]:
    """Return each dataset's counts, in the order of the names."""
    counts: dict[str, DatasetCounts] = defaultdict(DatasetCounts)
    for dataset, score, label, prediction in zip(
        datasets, scores.tolist(), labels.tolist(), predictions.tolist(), strict=True
    ):
        row = counts[dataset]
        row.patches += 1
        row.kept += prediction
        row.labelled_informative += label == CODE_INFORMATIVE
        row.labelled_uninformative += label == CODE_UNINFORMATIVE
        if label == CODE_NONE:
            unreadable = score != score  # only NaN differs from itself
            row.unreadable += unreadable
            row.scored_informative += prediction
            row.scored_uninformative += not prediction and not unreadable
    return dict(sorted(counts.items()))


def choose_tiles(scores: Scores, labels: Codes, threshold: float, count: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return the positions of the surest and least certain patches among those the score decides."""
    decided = np.flatnonzero((labels == CODE_NONE) & np.isfinite(scores))
    order = decided[np.argsort(scores[decided], kind="stable")]
    informative = order[scores[order] > threshold][::-1]
    uninformative = order[scores[order] <= threshold]
    doubt = np.argsort(np.abs(scores[decided] - threshold), kind="stable")
    return {
        "surest_informative": informative[:count],
        "surest_uninformative": uninformative[:count],
        "least_certain": decided[doubt[:count]],
    }


def find_weights(weights: str | None, report: Report) -> Weights:
    """Return the weights a user asked for by path or address, or the published ones; download if need be."""
    if weights is not None and not is_url(weights):
        return describe_weights(Path(weights))

    def check(path: Path) -> None:
        from emcurate.classifier import network as classifier

        classifier.check_state_dict(classifier.read_state_dict(path), path)

    path = fetch_weights(weights or PUBLISHED_URL, check)
    described = describe_weights(path)
    report.note(f"weights: {path}, SHA-256 {described.sha256}")
    return described


@dataclass(frozen=True)
class Computing:
    """How scores are computed: with which weights, where, in which number type, by how many processes."""

    weights: Weights
    device: str
    precision: str
    processes: int


def open_store(parent: Path, computing: Computing) -> ScoreStore:
    """Open the scores these very weights have given before, computed in the same way."""
    weights = computing.weights
    way = f"{computing.precision} on {computing.device}"
    settings = {"weights_sha256": weights.sha256, **asdict(weights.input_format), "computed_in": way}
    text = json.dumps(settings, indent=2)
    store = ScoreStore(parent / hashlib.sha256(text.encode()).hexdigest()[:16])
    write_once(store.directory / "settings.json", text.encode())
    return store


def score_patches(paths: Sequence[str], computing: Computing, threshold: float, stores: Path, report: Report) -> Scores:
    """Return every patch's score, NaN for those that cannot be read; compute only those not in the stores.

    What a fast number type leaves near the threshold is computed again in float32, so that no decision hangs on it.
    """
    keys = patch_keys(paths, len(paths))
    for noun in ("patches scored", "scored before"):
        report.count(noun, 0)
    scores = look_up_or_compute(paths, keys, np.arange(len(paths)), computing, stores, report)
    exact = replace(computing, precision="float32")
    if exact != computing:
        near = np.flatnonzero(np.abs(scores - threshold) < RECHECK_MARGIN)
        again = Report(STAGE)
        checked = look_up_or_compute(paths, keys, near, exact, stores, again)
        report.failures += again.failures
        scores[near] = np.where(np.isnan(checked), scores[near], checked)
        report.count("of them again in float32", len(near))
    return scores


def look_up_or_compute(
    paths: Sequence[str],
    keys: Keys,
    positions: npt.NDArray[np.int64],
    computing: Computing,
    stores: Path,
    report: Report,
) -> Scores:
    """Return the scores of some patches of a list; compute and keep those that the store has not."""
    store = open_store(stores, computing)
    scores = np.full(len(paths), np.nan, np.float32)
    scores[positions] = store.look_up(keys[positions])
    todo = positions[np.isnan(scores[positions])]
    report.count("scored before", len(positions) - len(todo))
    if not len(todo):
        return scores[positions]

    from emcurate.classifier import network as classifier

    weights, processes = computing.weights, computing.processes
    classifier.use_threads(processes)
    if computing.device == "cpu":
        # Decoding takes a small part of the CPU's time, and each process that decodes takes memory.
        processes = max(1, processes // CORES_PER_DECODER)
    network = classifier.load_classifier(weights.path)
    scorer = classifier.Scorer(network, weights.input_format, computing.device, computing.precision)
    jobs = BatchJobs(paths, todo, scorer.batch_size, weights.input_format.image_size)
    # One batch behind, so that a GPU computes while the next batch is fetched from the processes that decode.
    under_way: list[tuple[npt.NDArray[np.int64], torch.Tensor]] = []

    def finish() -> None:
        done, started = under_way.pop(0)
        scores[done] = scorer.finish(started)
        store.add(keys[done], scores[done])
        report.count("patches scored", len(done))

    try:
        for _, batch in run_ahead(Workers(processes).run(read_batch, jobs, report, unit="batch")):
            for error in batch.errors:
                report.fail(error)
            if len(batch.positions):
                under_way.append((batch.positions, scorer.start(batch.pixels)))
            if len(under_way) > 1:
                finish()
        while under_way:
            finish()
    finally:
        store.flush()
    return scores[positions]


def run(
    fpaths: Path,
    savedir: Path,
    *,
    labels: Path | None = None,
    weights: str | None = None,
    threshold: float | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Classify the patches of `fpaths`; see the module's docstring."""
    report = Report(STAGE)
    paths = PathList(fpaths, reroot)
    if not len(paths):
        raise InputError(fpaths, "a path list with patches", "an empty one", "run deduplicate.py first")
    codes = np.full(len(paths), CODE_NONE, np.uint8) if labels is None else encode_labels(load_labels(labels, paths))
    make_output_directory(savedir)
    found = find_weights(weights, report)
    threshold = found.threshold if threshold is None else threshold
    ledger = Ledger(savedir, STAGE)
    parameters = {"weights_sha256": found.sha256, "threshold": threshold}
    state = f"{len(paths)} paths"
    if not overwrite:
        present = {STAGE: sum((savedir / name).exists() for name in OUTPUTS)}
        ledger.refuse_other_parameters(ledger.plan({STAGE: state}, parameters, present), parameters)
    # What this stage wrote itself it may bring up to date, when the list or the labels have grown.
    overwrite = overwrite or STAGE in ledger.entries

    from emcurate.classifier import network as classifier

    chosen = classifier.choose_device(device)
    number_type = classifier.choose_precision(chosen, precision)
    computing = Computing(found, chosen, number_type, workers.cores)
    scores = score_patches(paths, computing, threshold, savedir / LEDGER_DIRECTORY / STAGE, report)
    predictions = predict(scores, codes, threshold)
    kept = [paths[int(i)] for i in np.flatnonzero(predictions)]
    report.count("informative", len(kept))
    changed = write_array(savedir / SCORES_FILE, scores, overwrite)
    changed |= write_array(savedir / PREDICTIONS_FILE, predictions, overwrite)
    changed |= write_filtered_list(savedir / FILTERED_LIST, kept, overwrite)
    ledger.record(STAGE, Entry(state, parameters, outputs=len(OUTPUTS)))
    if changed or not (savedir / COUNTS_FILE).exists():
        write_counts(savedir / COUNTS_FILE, [dataset_of(path) for path in paths], scores, codes, predictions)
        draw_sheets(savedir, paths, scores, codes, threshold)
        report.note(f"look at {savedir}/nn_*.png; scores were computed on {chosen} in {number_type}")
    else:
        report.note(f"nothing new: the results in {savedir} are up to date")
    return report


def write_array(path: Path, array: npt.NDArray[Any], overwrite: bool) -> bool:
    """Write an array unless the same is there; return whether it was not."""
    data = npy_bytes(array)
    same = path.exists() and path.stat().st_size == len(data) and path.read_bytes() == data
    return not same and write_once(path, data, overwrite=overwrite)


def write_filtered_list(directory: Path, kept: list[str], overwrite: bool) -> bool:
    """Write the path list of the informative patches; return whether it was not there yet."""
    if same_paths(directory, kept):
        return False
    if directory.exists() and not overwrite:
        raise InputError(
            directory,
            "no such path list, or the one this run would write",
            "another",
            "use another output directory, or --overwrite to replace it",
        )
    write_path_list(directory, kept)
    return True


def write_counts(path: Path, datasets: Sequence[str], scores: Scores, labels: Codes, predictions: Codes) -> None:
    """Write a csv of each dataset's counts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", *DatasetCounts.__dataclass_fields__])
    for dataset, row in count_by_dataset(datasets, scores, labels, predictions).items():
        writer.writerow([dataset, *vars(row).values()])
    write_bytes(path, text.getvalue().encode())


def dataset_of(path: str) -> str:
    """Return the dataset a patch's name tells, or its directory's name if it does not follow the grammar."""
    try:
        return naming.parse_patch(Path(path).stem).dataset
    except naming.GrammarError:
        return Path(path).parent.name


def draw_sheets(savedir: Path, paths: PathList, scores: Scores, labels: Codes, threshold: float) -> None:
    """Draw the contact sheets of what the scores decided."""
    for name, positions in choose_tiles(scores, labels, threshold, TILES_PER_SHEET).items():
        tiles = [
            pictures.Tile(
                Path(paths[int(i)]),
                f"{scores[i]:.4f}\n{Path(paths[int(i)]).stem}",
                pictures.INFORMATIVE if scores[i] > threshold else pictures.UNINFORMATIVE,
            )
            for i in positions
        ]
        title = f"{name.replace('_', ' ').capitalize()}: {len(tiles)} unlabelled patches"
        group = pictures.Group(f"Score, the probability of being informative; threshold {threshold:g}", tiles)
        pictures.draw_contact_sheet(savedir / f"nn_{name}.png", title, [group])


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "classify_nn.py")
    parser.add_argument("fpaths", type=cli.existing_directory, metavar="FPATHS", help="path list of the patches")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    parser.add_argument(
        "--labels", type=cli.existing_file, metavar="FILE", help="labels parallel to FPATHS; they win over scores"
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
    parser.add_argument(
        "--device", choices=["auto", "cuda", "mps", "cpu"], default="auto", help="where to compute (default: auto)"
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="number type to compute in (default: the fastest the device has)",
    )
    cli.add_reroot_flag(parser)
    cli.add_overwrite_flag(parser)
    cli.add_processes_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
