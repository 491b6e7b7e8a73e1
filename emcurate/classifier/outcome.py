"""What a training leaves: weights with their card, and what tells how good they are, as data and as pictures."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from emcurate import __version__
from emcurate.classifier.card import WEIGHTS_FILE, InputFormat, card_path, write_card
from emcurate.classifier.evaluation import evaluate
from emcurate.classifier.labelled import LabelledPatches
from emcurate.classifier.plots import plot_calibration, plot_losses, plot_roc
from emcurate.classifier.recipe import Recipe
from emcurate.files import csv_bytes, write_bytes
from emcurate.patches.reading import read_patch
from emcurate.pictures.contact_sheets import INFORMATIVE, UNINFORMATIVE, Group, Tile, draw_contact_sheet
from emcurate.running.report import Report

if TYPE_CHECKING:
    from emcurate.classifier.training import Fit

METRICS_FILE = "patch_quality_nn_metrics.json"
EPOCHS_FILE = "patch_quality_nn_epochs.csv"
SCORES_FILE = "patch_quality_nn_scores.csv"
ROC_FILE = "patch_quality_nn_roc_curve.png"
LOSS_FILE = "patch_quality_nn_loss_curves.png"
CALIBRATION_FILE = "patch_quality_nn_calibration.png"
MISTAKES_FILE = "patch_quality_nn_mistakes.png"
CARD_FILE = card_path(Path(WEIGHTS_FILE)).name
OUTPUTS = (
    WEIGHTS_FILE,
    CARD_FILE,
    METRICS_FILE,
    EPOCHS_FILE,
    SCORES_FILE,
    ROC_FILE,
    LOSS_FILE,
    CALIBRATION_FILE,
    MISTAKES_FILE,
)

MISTAKES_PER_GROUP = 16


def write_outputs(
    savedir: Path,
    best_weights: Path,
    patches: LabelledPatches,
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
    write_bytes(savedir / EPOCHS_FILE, csv_bytes(done.history[0], (row.values() for row in done.history)))
    order = np.argsort(np.abs(truth - scores), kind="stable")[::-1]
    sides = np.where(held, "validation", "training")
    words = np.where(truth, "informative", "uninformative")
    rows = ([patches.paths[i], sides[i], words[i], f"{scores[i]:.6f}"] for i in order)
    write_bytes(savedir / SCORES_FILE, csv_bytes(["path", "part", "label", "score"], rows))
    plot_roc(savedir / ROC_FILE, scores[held], truth[held], recipe.threshold, result)
    plot_losses(savedir / LOSS_FILE, done.history, done.best_epoch)
    plot_calibration(savedir / CALIBRATION_FILE, scores[held], truth[held])
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


def tell_again(savedir: Path, report: Report) -> None:
    """Report what a finished training could not read, and where its weights are."""
    metrics = json.loads((savedir / METRICS_FILE).read_text(encoding="utf-8"))
    report.fail_all(metrics["unreadable"])
    report.note(f"already trained with these labels and settings: {savedir / WEIGHTS_FILE}")


def draw_mistakes(path: Path, patches: LabelledPatches, scores: npt.NDArray[np.float64], threshold: float) -> None:
    """Draw the patches whose score contradicts their label most, those that validate first."""
    predicted = scores > threshold
    groups = []
    for part, chosen in (("Validation", patches.held), ("Training", ~patches.held)):
        for label, mark in ((True, INFORMATIVE), (False, UNINFORMATIVE)):
            wrong = np.flatnonzero(chosen & (patches.truth == label) & (predicted != label))
            wrong = wrong[np.argsort(np.abs(scores[wrong] - label), kind="stable")[::-1]]
            tiles = [
                Tile(Path(patches.paths[i]), f"score {scores[i]:.4f}\n{Path(patches.paths[i]).stem}", mark)
                for i in wrong[:MISTAKES_PER_GROUP]
            ]
            shown = f", the {len(tiles)} most confident" if len(tiles) < len(wrong) else ""
            of = int((chosen & (patches.truth == label)).sum())
            groups.append(
                Group(f"{part}: labelled {mark.word}, scored the other way: {len(wrong)} of {of}{shown}", tiles)
            )
    draw_contact_sheet(path, "The most confident mistakes: are these labels right?", groups, read=read_patch)
