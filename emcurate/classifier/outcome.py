"""What a training leaves: weights with their card, and what tells how good they are, as data and as pictures."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emcurate import __version__
from emcurate.classifier.card import WEIGHTS_FILE, InputFormat, card_path, encode_card, read_training
from emcurate.classifier.evaluation import evaluate
from emcurate.classifier.labelled import LabelledPatches
from emcurate.classifier.plots import plot_calibration, plot_losses, plot_roc
from emcurate.classifier.recipe import Recipe
from emcurate.contents import csv_bytes
from emcurate.errors import InputError
from emcurate.patches.reading import read_patch
from emcurate.pictures.contact_sheets import INFORMATIVE, UNINFORMATIVE, Group, Tile, encode_contact_sheet
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
# In the order in which they are written: the card first, since weights without one would be taken for others.
OUTPUTS = (
    CARD_FILE,
    WEIGHTS_FILE,
    METRICS_FILE,
    EPOCHS_FILE,
    SCORES_FILE,
    ROC_FILE,
    LOSS_FILE,
    CALIBRATION_FILE,
    MISTAKES_FILE,
)

MISTAKES_PER_GROUP = 16

AUC_INTERVAL = (
    "95 %: what DeLong's on the logit scale (Clopper-Pearson's where no pair is out of order) and Newcombe's span; for "
    "patches like these, without regard to the epoch being chosen on them"
)


def make_outputs(
    patches: LabelledPatches,
    scores: npt.NDArray[np.float64],
    done: Fit,
    recipe: Recipe,
    parameters: Mapping[str, Any],
    training: str,
    report: Report,
) -> dict[str, bytes]:
    """Return the weights and everything that tells how good they are, by file name in the order of `OUTPUTS`.

    Parameters
    ----------
    patches, scores : LabelledPatches and (n,) of 0..1
    done : Fit
    recipe : Recipe
    parameters : mapping
        What is noted of the recipe, with start weights named by their content.
    training : str
        Which training this is: other labels or parameters would be another.
    report : Report
        Is told how good they are.
    """
    from emcurate.classifier.network import encode_weights

    held, truth = patches.held, patches.truth
    result = evaluate(scores[held], truth[held], recipe.threshold)
    counts = {
        part: {"informative": int(truth[chosen].sum()), "uninformative": int((~truth[chosen]).sum())}
        for part, chosen in (("training", ~held), ("validation", held))
    }
    versions = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    details = {
        "best_epoch": done.best_epoch,
        "patches": counts,
        "validation": asdict(result),
        "training": training,
        "recipe": {**parameters, "finetune_layer": recipe.trained_from, "weight_decay": recipe.decay},
        "versions": {"emcurate": __version__, "python": platform.python_version(), **versions},
    }
    weights = encode_weights(done.best_weights)
    sha256 = hashlib.sha256(weights).hexdigest()
    metrics = {
        "best_epoch": done.best_epoch,
        "epochs": done.epoch,
        "split": recipe.split,
        "threshold": recipe.threshold,
        **asdict(result),
        "auc_interval_method": AUC_INTERVAL,
        "confusion_rows": "labelled uninformative, labelled informative",
        "confusion_columns": "predicted uninformative, predicted informative",
        "unreadable": report.failures,
    }
    order = np.argsort(np.abs(truth - scores), kind="stable")[::-1]
    sides = np.where(held, "validation", "training")
    words = np.where(truth, "informative", "uninformative")
    rows = ([patches.paths[i], sides[i], words[i], f"{scores[i]:.6f}"] for i in order)
    low, high = result.auc_interval
    report.count("epochs", done.epoch)
    report.count("training patches", int((~held).sum()))
    report.count("validation patches", result.count)
    report.note(
        f"kept epoch {done.best_epoch}: AUC {result.auc:.3f} (95 % interval {low:.3f} to {high:.3f}), "
        f"accuracy {result.accuracy:.3f} on {result.count:,} validation patches ({recipe.split} split)"
    )
    return {
        CARD_FILE: encode_card(sha256, InputFormat(recipe.image_size), recipe.threshold, details),
        WEIGHTS_FILE: weights,
        METRICS_FILE: (json.dumps(metrics, indent=2, ensure_ascii=False) + "\n").encode(),
        EPOCHS_FILE: csv_bytes(done.history[0], (row.values() for row in done.history)),
        SCORES_FILE: csv_bytes(["path", "part", "label", "score"], rows),
        ROC_FILE: plot_roc(scores[held], truth[held], recipe.threshold, result),
        LOSS_FILE: plot_losses(done.history, done.best_epoch),
        CALIBRATION_FILE: plot_calibration(scores[held], truth[held]),
        MISTAKES_FILE: draw_mistakes(patches, scores, recipe.threshold),
    }


def refuse_others(savedir: Path, training: str) -> None:
    """Raise `InputError` where results would replace files of the same names that this very training has not made.

    For where no ledger knows them: the card, which is written before all others, says which training it is of.
    """
    there = [name for name in OUTPUTS if os.path.lexists(savedir / name)]
    if there and read_training(savedir / CARD_FILE) != training:
        raise InputError(
            savedir / there[0],
            "no such file, or one of this very training",
            "files of another origin",
            "use another output directory, or --overwrite to train anew and replace it",
        )


def read_failures(details: Mapping[str, Any]) -> list[str]:
    """Return what a finished training could not read, of what is noted of it."""
    noted = details.get("unreadable")
    return [str(failure) for failure in noted] if isinstance(noted, list) else []


def draw_mistakes(patches: LabelledPatches, scores: npt.NDArray[np.float64], threshold: float) -> bytes:
    """Return a contact sheet of the patches whose score contradicts their label most, those that validate first."""
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
    return encode_contact_sheet("The most confident mistakes: are these labels right?", groups, read=read_patch)
