"""Train the patch quality classifier on labelled patches; the defaults are the published recipe.

A ResNet34 that starts from ImageNet learns to tell informative patches from uninformative ones. Part of the labels
is held back to judge it, and the epoch with the best area under the ROC curve (AUC) is kept. The same command again
goes on with an interrupted training after its last finished epoch.

Reads:   FPATHS, the path list deduplicate.py wrote, and the labelled ones of its patches;
         LABELS, patch_quality_labels.npy, parallel to it: informative, uninformative or none.
Writes:  SAVEDIR/patch_quality_classifier_nn.pth, a plain state dict, and beside it .json: how to use it;
         patch_quality_nn_metrics.json, ..._epochs.csv (metrics by epoch), ..._scores.csv (each patch's score);
         patch_quality_nn_roc_curve.png, ..._loss_curves.png, ..._calibration.png, and
         ..._mistakes.png: the most confident mistakes, labels worth a second look.
Example: python filtered/train_nn.py deduplicated_fpaths.npz patch_quality_labels.npy filtered
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emcurate import __version__, cli, naming
from emcurate.classifier import plots
from emcurate.classifier.batches import BatchJobs, read_batch
from emcurate.classifier.card import WEIGHTS_FILE, InputFormat, card_path, write_card
from emcurate.classifier.evaluation import evaluate
from emcurate.classifier.recipe import LEAST_BATCH_SIZE, Recipe
from emcurate.classifier.splits import split_by_dataset, split_random
from emcurate.classifier.weights import fetch_imagenet_weights
from emcurate.errors import InputError
from emcurate.files import fingerprint, hash_file, make_output_directory, write_bytes
from emcurate.patches.labels import CODE_INFORMATIVE, CODE_NONE, CODE_UNINFORMATIVE, encode_labels, load_labels
from emcurate.patches.pathlists import PathList
from emcurate.pictures import contact_sheets as pictures
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Entry, Ledger
from emcurate.running.report import Report

if TYPE_CHECKING:
    from emcurate.classifier.network import DeviceName, PrecisionName
    from emcurate.classifier.training import Fit

STAGE = "train_nn"
METRICS_FILE = "patch_quality_nn_metrics.json"
EPOCHS_FILE = "patch_quality_nn_epochs.csv"
SCORES_FILE = "patch_quality_nn_scores.csv"
ROC_FILE = "patch_quality_nn_roc_curve.png"
LOSS_FILE = "patch_quality_nn_loss_curves.png"
CALIBRATION_FILE = "patch_quality_nn_calibration.png"
MISTAKES_FILE = "patch_quality_nn_mistakes.png"
OUTPUTS = (
    *(WEIGHTS_FILE, card_path(Path(WEIGHTS_FILE)).name, METRICS_FILE, EPOCHS_FILE, SCORES_FILE),
    *(ROC_FILE, LOSS_FILE, CALIBRATION_FILE, MISTAKES_FILE),
)

# A ResNet34 halves its input five times; of a smaller one nothing would be left.
LEAST_IMAGE_SIZE = 32

# With fewer validation patches of a class, one patch more or less changes the AUC visibly.
FEW_FOR_VALIDATION = 10

READ_AT_ONCE = 64
MISTAKES_PER_GROUP = 16


@dataclass(frozen=True)
class Patches:
    """Labelled patches in memory: files, pixels (n, size, size) uint8, which are informative, which validate."""

    paths: list[str]
    pixels: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.bool_]
    held: npt.NDArray[np.bool_]


def check_enough(codes: npt.NDArray[np.uint8], labels: Path) -> None:
    """Raise `InputError` unless each class has two patches, one to learn from and one to judge by."""
    informative, uninformative = (int((codes == c).sum()) for c in (CODE_INFORMATIVE, CODE_UNINFORMATIVE))
    if min(informative, uninformative) < 2:
        found = f"{informative:,} and {uninformative:,} among {len(codes):,} patches that can be read"
        raise InputError(
            labels,
            "at least 2 patches labelled informative and 2 labelled uninformative",
            found if informative or uninformative else f"{len(codes):,} labels, all none",
            "label more with labeling.ipynb; some hundred of each are a good start",
        )


def read_labelled(
    paths: PathList, codes: npt.NDArray[np.uint8], recipe: Recipe, labels: Path, report: Report, workers: Workers
) -> Patches:
    """Read the labelled patches and choose those that validate; what cannot be read is reported and left out."""
    jobs = BatchJobs(paths, np.flatnonzero(codes != CODE_NONE), READ_AT_ONCE, recipe.image_size)
    batches = [batch for _, batch in workers.run(read_batch, jobs, report, unit="batch")]
    batches.sort(key=lambda batch: int(batch.positions[0]) if len(batch.positions) else -1)
    for error in (error for batch in batches for error in batch.errors):
        report.fail(error)
    positions = np.concatenate([batch.positions for batch in batches])
    check_enough(codes[positions], labels)
    truth = codes[positions] == CODE_INFORMATIVE
    read = [paths[int(i)] for i in positions]
    if recipe.split == "random":
        held = split_random(truth, recipe.validation, recipe.seed)
    else:
        held = hold_back_datasets(read, truth, recipe, labels)
    return Patches(read, np.concatenate([batch.pixels for batch in batches]), truth, held)


def hold_back_datasets(
    paths: list[str], truth: npt.NDArray[np.bool_], recipe: Recipe, labels: Path
) -> npt.NDArray[np.bool_]:
    """Return which patches validate when datasets stay whole."""
    datasets = []
    for path in paths:
        try:
            datasets.append(naming.parse_patch(Path(path).stem).dataset)
        except naming.GrammarError as error:
            raise InputError(path, "a patch whose name tells its dataset", str(error), "use --split random") from None
    try:
        return split_by_dataset(truth, datasets, recipe.validation, recipe.seed)
    except ValueError:
        raise InputError(
            labels,
            "labels of both classes in two or more datasets, for --split dataset",
            f"{len(set(datasets))} datasets of which no part has both classes and leaves both",
            "label patches of more datasets, or use --split random",
        ) from None


def run(
    fpaths: Path,
    labels: Path,
    savedir: Path,
    *,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    resume: bool = False,
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    workers: Workers = Workers(),
    **settings: Any,
) -> Report:
    """Train on the labelled patches of `fpaths`; see the module's docstring. `settings` are fields of `Recipe`."""
    report, recipe = Report(STAGE), Recipe(**settings)
    paths = PathList(fpaths, reroot)
    codes = encode_labels(load_labels(labels, paths))
    check_enough(codes, labels)
    make_output_directory(savedir)
    ledger = Ledger(savedir, STAGE)
    parameters, data = asdict(recipe), digest_labels(paths, codes)
    if is_finished(ledger, savedir, data, parameters, overwrite):
        metrics = json.loads((savedir / METRICS_FILE).read_text(encoding="utf-8"))
        for failure in metrics["unreadable"]:
            report.fail(failure)
        report.note(f"already trained with these labels and settings: {savedir / WEIGHTS_FILE}")
        return report

    from emcurate.classifier import network as classifier
    from emcurate.classifier import training

    chosen = classifier.choose_device(device)
    number_type = classifier.choose_training_precision(chosen, precision)
    classifier.use_threads(workers.cores)
    start = find_start_weights(recipe)
    identity = [data, parameters, start and hash_file(start), chosen, number_type]
    run_id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    workdir = training.open_workdir(savedir, run_id, resume, overwrite)
    trainer = training.Trainer(recipe, start, chosen, number_type)
    patches = read_labelled(paths, codes, recipe, labels, report, workers)
    warn_of_few(patches, labels, report)
    done = training.fit(trainer, patches.pixels, patches.truth, patches.held, workdir, run_id, report)
    classifier.load_start_weights(trainer.network, workdir / training.BEST_FILE)
    scores = np.empty(len(patches.truth))
    scores[~patches.held] = trainer.score(patches.pixels[~patches.held])
    scores[patches.held] = done.best_scores
    write_outputs(savedir, workdir / training.BEST_FILE, patches, scores, done, recipe, report)
    ledger.record(STAGE, Entry(data, parameters, outputs=len(OUTPUTS)))
    shutil.rmtree(workdir)
    return report


def digest_labels(paths: PathList, codes: npt.NDArray[np.uint8]) -> str:
    """Return what changes when a label or a labelled patch does."""
    digest = hashlib.sha256()
    for position in np.flatnonzero(codes != CODE_NONE):
        path = paths[int(position)]
        try:
            state = fingerprint(Path(path))
        except OSError:
            state = "missing"
        digest.update(f"{path}\0{codes[position]}\0{state}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def is_finished(ledger: Ledger, savedir: Path, data: str, parameters: dict[str, Any], overwrite: bool) -> bool:
    """Return whether this very training is done; raise `InputError` if its results would replace others."""
    present = [name for name in OUTPUTS if (savedir / name).exists()]
    plan = ledger.plan({STAGE: data}, parameters, {STAGE: len(present)})
    if plan.done or overwrite:
        return bool(plan.done)
    ledger.refuse_other_parameters(plan, parameters)
    if plan.stale or (present and STAGE not in ledger.entries):
        found = "a classifier trained on other labels" if plan.stale else "files of another origin"
        advice = "use another output directory, or --overwrite to train anew and replace it"
        raise InputError(savedir / present[0], "no such file, or one of this very training", found, advice)
    return False


def find_start_weights(recipe: Recipe) -> Path | None:
    """Return the file to start from, downloaded if need be; None for random weights."""
    if recipe.init == "random":
        return None
    return fetch_imagenet_weights() if recipe.init == "imagenet" else Path(recipe.init)


def warn_of_few(patches: Patches, labels: Path, report: Report) -> None:
    """Warn when too few patches validate for their AUC to say much."""
    judged = patches.truth[patches.held]
    informative, uninformative = int(judged.sum()), int((~judged).sum())
    if min(informative, uninformative) < FEW_FOR_VALIDATION:
        report.warn(
            f"{labels}: only {informative} informative and {uninformative} uninformative patches validate; "
            "accuracy and AUC say little until more are labelled"
        )


def write_outputs(
    savedir: Path,
    best_weights: Path,
    patches: Patches,
    scores: npt.NDArray[np.float64],
    done: Fit,
    recipe: Recipe,
    report: Report,
) -> None:
    """Write the weights and everything that tells how good they are."""
    held, truth = patches.held, patches.truth
    result = evaluate(scores[held], truth[held], recipe.threshold, recipe.seed)
    counts = {
        part: {"informative": int(truth[chosen].sum()), "uninformative": int((~truth[chosen]).sum())}
        for part, chosen in (("training", ~held), ("validation", held))
    }
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    details = {
        "best_epoch": done.best_epoch,
        "patches": counts,
        "validation": asdict(result),
        "recipe": asdict(recipe) | {"finetune_layer": recipe.trained_from, "weight_decay": recipe.decay},
        "versions": {"emcurate": __version__, "python": platform.python_version(), **versions},
    }
    write_bytes(savedir / WEIGHTS_FILE, best_weights.read_bytes())
    write_card(savedir / WEIGHTS_FILE, InputFormat(recipe.image_size), recipe.threshold, details)
    metrics = {
        "best_epoch": done.best_epoch,
        "epochs": done.epoch,
        "split": recipe.split,
        "threshold": recipe.threshold,
        **asdict(result),
        "confusion_rows": "labelled uninformative, labelled informative",
        "confusion_columns": "predicted uninformative, predicted informative",
        "unreadable": report.failures,
    }
    write_bytes(savedir / METRICS_FILE, (json.dumps(metrics, indent=2, ensure_ascii=False) + "\n").encode())
    write_csv(savedir / EPOCHS_FILE, list(done.history[0]), [list(row.values()) for row in done.history])
    order = np.argsort(np.abs(truth - scores), kind="stable")[::-1]
    sides = np.where(held, "validation", "training")
    words = np.where(truth, "informative", "uninformative")
    rows = [[patches.paths[i], str(sides[i]), str(words[i]), f"{scores[i]:.6f}"] for i in order]
    write_csv(savedir / SCORES_FILE, ["path", "part", "label", "score"], rows)
    plots.plot_roc(savedir / ROC_FILE, scores[held], truth[held], recipe.threshold, result)
    plots.plot_losses(savedir / LOSS_FILE, done.history, done.best_epoch)
    plots.plot_calibration(savedir / CALIBRATION_FILE, scores[held], truth[held])
    draw_mistakes(savedir / MISTAKES_FILE, patches, scores, recipe.threshold)
    low, high = result.auc_interval
    report.count("epochs", done.epoch)
    report.count("training patches", int((~held).sum()))
    report.count("validation patches", result.count)
    report.note(
        f"kept epoch {done.best_epoch}: AUC {result.auc:.3f} (95 % interval {low:.3f} to {high:.3f}), "
        f"accuracy {result.accuracy:.3f} on {result.count:,} validation patches ({recipe.split} split)"
    )
    report.note(f"look at {savedir / MISTAKES_FILE}: labels worth a second look")


def draw_mistakes(path: Path, patches: Patches, scores: npt.NDArray[np.float64], threshold: float) -> None:
    """Draw the patches whose score contradicts their label most, those that validate first."""
    predicted = scores > threshold
    groups = []
    for part, chosen in (("Validation", patches.held), ("Training", ~patches.held)):
        for label, mark in ((True, pictures.INFORMATIVE), (False, pictures.UNINFORMATIVE)):
            wrong = np.flatnonzero(chosen & (patches.truth == label) & (predicted != label))
            wrong = wrong[np.argsort(np.abs(scores[wrong] - label), kind="stable")[::-1]]
            tiles = [
                pictures.Tile(Path(patches.paths[i]), f"score {scores[i]:.4f}\n{Path(patches.paths[i]).stem}", mark)
                for i in wrong[:MISTAKES_PER_GROUP]
            ]
            shown = f", the {len(tiles)} most confident" if len(tiles) < len(wrong) else ""
            of = int((chosen & (patches.truth == label)).sum())
            groups.append(
                pictures.Group(
                    f"{part}: labelled {mark.word}, scored the other way: {len(wrong)} of {of}{shown}", tiles
                )
            )
    pictures.draw_contact_sheet(path, "The most confident mistakes: are these labels right?", groups)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a csv file atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))


def at_least(least: int) -> Any:
    """Return an argument type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        value = cli.natural_int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
        return value

    return parse


def start_weights(text: str) -> str:
    """Argument type: ``imagenet``, ``random``, or a file of weights."""
    return text if text in ("imagenet", "random") else str(cli.existing_file(text))


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "train_nn.py")
    parser.add_argument("fpaths", type=cli.existing_directory, metavar="FPATHS", help="path list of the patches")
    parser.add_argument("labels", type=cli.existing_file, metavar="LABELS", help="labels parallel to FPATHS")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    default = Recipe()
    add = parser.add_argument_group("recipe", "the defaults are the published one").add_argument
    add("--init", type=start_weights, default=default.init, metavar="imagenet|random|FILE", help="start weights")
    layers = ["all", "layer1", "layer2", "layer3", "layer4", "none"]
    text = "first layer that learns; none: the head only (default: layer4, with --init random all)"
    add("--finetune-layer", choices=layers, help=text)
    text = "how to choose validation patches; by dataset, no neighbours are on both sides (default: %(default)s)"
    add("--split", choices=["random", "dataset"], default=default.split, help=text)
    text = "part of the labels held back for validation (default: %(default)s)"
    add("--validation", type=cli.fraction, default=default.validation, metavar="PART", help=text)
    add("--seed", type=cli.natural_int, default=default.seed, help="of everything random (default: %(default)s)")
    add("--optimizer", choices=["adam", "adamw"], default=default.optimizer, help="(default: %(default)s)")
    text = "(default: %(default)s)"
    add("-lr", "--learning-rate", type=cli.positive_float, default=default.learning_rate, metavar="RATE", help=text)
    add("--weight-decay", type=cli.non_negative_float, metavar="DECAY", help="(default: adam 0, adamw 0.01)")
    add("--schedule", choices=["constant", "cosine"], default=default.schedule, help="of the learning rate")
    add("--batch-size", type=at_least(LEAST_BATCH_SIZE), default=default.batch_size, help="(default: %(default)s)")
    add("--epochs", type=cli.positive_int, default=default.epochs, help="(default: %(default)s)")
    text = "stop after N epochs without a better AUC (default: never)"
    add("--patience", type=cli.positive_int, metavar="N", help=text)
    add("--class-weights", action="store_true", help="weigh both classes equally, however many patches each has")
    text = "side of the network's input in pixels; kept with the weights (default: %(default)s)"
    add("--image-size", type=at_least(LEAST_IMAGE_SIZE), default=default.image_size, metavar="PIXELS", help=text)
    text = "scores above it are informative; kept with the weights (default: %(default)s)"
    add("--threshold", type=cli.fraction, default=default.threshold, help=text)
    add = parser.add_argument_group("augmentation", "how training patches are varied, beside flips").add_argument
    text = "largest relative change (default: %(default)s)"
    add("--brightness", type=cli.fraction, default=default.brightness, metavar="PART", help=text)
    add("--contrast", type=cli.fraction, default=default.contrast, metavar="PART", help=text)
    text = "standard deviation, grey values 0 to 1 (default: %(default)s)"
    add("--noise", type=cli.fraction, default=default.noise, metavar="SIGMA", help=text)
    text = "largest sigma in pixels (default: %(default)s)"
    add("--blur", type=cli.non_negative_float, default=default.blur, metavar="SIGMA", help=text)
    text = "of noise and of blur, for each patch (default: %(default)s)"
    add("--augment-probability", type=cli.fraction, default=default.augment_probability, metavar="PART", help=text)
    add = parser.add_argument_group("computing").add_argument
    add("--device", choices=["auto", "cuda", "mps", "cpu"], default="auto", help="(default: the fastest there is)")
    text = "number type of mixed precision (default: bfloat16 where the device has it)"
    add("--precision", choices=["auto", "float32", "bfloat16", "float16"], default="auto", help=text)
    add("--resume", action="store_true", help="insist on going on with an interrupted training")
    cli.add_reroot_flag(parser)
    cli.add_overwrite_flag(parser)
    cli.add_processes_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
