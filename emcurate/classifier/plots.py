"""Plots of how a classifier was trained and how good it is, each as the bytes of a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.classifier.evaluation import CALIBRATION_BINS, Evaluation, calibration_curve, roc_curve
from emcurate.pictures.figures import BLUE, GREY, ORANGE, encode_figure, new_figure


def plot_roc(
    scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_], threshold: float, result: Evaluation
) -> bytes:
    """Return a plot of validation patches' ROC curve, its area with the interval, and the threshold's place on it."""
    figure = new_figure(5.2, 5.2)
    axes = figure.add_subplot()
    false, true, _ = roc_curve(scores, truth)
    low, high = result.auc_interval
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="by chance")
    label = f"AUC {result.auc:.3f} (95 % interval {low:.3f} to {high:.3f})"
    axes.plot(false, true, color=BLUE, label=label, clip_on=False)
    (tn, fp), (fn, tp) = result.confusion
    at = f"threshold {threshold:g}: accuracy {result.accuracy:.3f}"
    axes.plot(fp / (fp + tn), tp / (tp + fn), "o", color=ORANGE, markersize=8, label=at, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=f"ROC on {result.count:,} validation patches")
    axes.set_xlabel("uninformative patches kept (false positive rate)")
    axes.set_ylabel("informative patches kept (true positive rate)")
    axes.legend(loc="lower right", fontsize="small")
    return encode_figure(figure)


def plot_losses(epochs: Sequence[dict[str, Any]], best_epoch: int) -> bytes:
    """Return a plot of training and validation loss, and the validation AUC, against the epoch."""
    figure = new_figure(6.4, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    numbers = [row["epoch"] for row in epochs]
    upper.plot(numbers, [row["train_loss"] for row in epochs], color=BLUE, marker="o", markersize=3, label="training")
    losses = [row["validation_loss"] for row in epochs]
    upper.plot(numbers, losses, color=ORANGE, linestyle="--", marker="s", markersize=3, label="validation")
    upper.set_ylabel("loss (binary cross-entropy)")
    upper.set_ylim(bottom=0)
    aucs = [row["validation_auc"] for row in epochs]
    lower.plot(numbers, aucs, color=ORANGE, linestyle="--", marker="s", markersize=3, label="validation AUC")
    lower.set(xlabel="epoch", ylabel="area under the ROC curve")
    lower.xaxis.get_major_locator().set_params(integer=True)
    for axes in (upper, lower):
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"epoch kept: {best_epoch}")
        axes.legend(fontsize="small")
    return encode_figure(figure)


def plot_calibration(scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> bytes:
    """Return a plot of how often patches of each score are really informative, and how many patches have it."""
    figure = new_figure(5.2, 6.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    mean, share, count = calibration_curve(scores, truth)
    upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfectly calibrated")
    # One standard error of a share, sqrt(p (1 - p) / n), with p kept off 0 and 1 by half a patch.
    p = (share * count + 0.5) / (count + 1)
    error = np.sqrt(p * (1 - p) / count)
    upper.errorbar(mean, share, yerr=error, color=BLUE, fmt="o", capsize=3, label="validation patches")
    upper.set(ylabel="share that is labelled informative", ylim=(-0.05, 1.05), title="Calibration")
    upper.legend(loc="upper left", fontsize="small")
    lower.hist(scores, bins=np.linspace(0, 1, CALIBRATION_BINS + 1), color=BLUE, edgecolor="white")
    lower.set(xlabel="score (predicted probability of being informative)", ylabel="patches", xlim=(0, 1))
    return encode_figure(figure)
