"""Training of the classifier, one epoch at a time, with all that is needed to stop after one and go on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from emcurate.classifier.card import InputFormat
from emcurate.classifier.checkpoints import Checkpoint
from emcurate.classifier.evaluation import area_under_roc, cross_entropy
from emcurate.classifier.inference import DTYPES
from emcurate.classifier.network import LAYERS, STEM, build_network, load_start_weights
from emcurate.classifier.recipe import (
    FinetuneLayer,
    Recipe,
    balanced_weights,
    count_batches,
    iter_batches,
    learning_rate_at,
)
from emcurate.classifier.transforms import evaluation_input, training_input
from emcurate.errors import InputError
from emcurate.running.jobs import default_processes, progress
from emcurate.running.report import Report

# About as many as batch norm's running averages reach back over in batches of 64.
BATCH_NORM_PATCHES = 512
BATCH_NORM_MOMENTUM = 0.1  # PyTorch's default, which torchvision's networks use

# On a CPU. The order in which numbers are added up depends on how many threads share the work, and in training their
# last digits grow into other weights: so there are as many whatever -p says. Four are at home nearly everywhere. On
# fewer cores there are as few: more threads than cores wait for each other, in bfloat16 twenty times as long.
TRAINING_THREADS = 4

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


def count_training_threads() -> int:
    """Return how many CPU threads training computes in: `TRAINING_THREADS`, or as many as there are cores."""
    return min(TRAINING_THREADS, default_processes())


@dataclass
class Fit:
    """How far a training has come: epochs done, the best of them, its validation scores, metrics by epoch, weights."""

    epoch: int
    best_epoch: int
    best_scores: list[float]
    history: list[dict[str, float]]
    best_weights: dict[str, torch.Tensor]


class Trainer:
    """A network in training.

    All randomness is a function of the seed, the epoch and the batch, so a resumed training equals an unbroken one.

    Parameters
    ----------
    recipe : Recipe
    start : Path, optional
        Weights to start from; random ones without.
    device, precision : str
        Where to compute, and the number type of mixed precision; see `inference`.
    """

    def __init__(self, recipe: Recipe, start: Path | None, device: str, precision: str) -> None:
        self.recipe, self.device, self.dtype = recipe, device, DTYPES[precision]
        self.input_format = InputFormat(recipe.image_size)
        with torch.random.fork_rng([]):
            torch.manual_seed(recipe.seed)
            network = build_network()
        if start is not None:
            load_start_weights(network, start)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.frozen = freeze(self.network, recipe.trained_from)
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        self.optimizer = kind(learning, lr=recipe.learning_rate, weight_decay=recipe.decay)
        # float16 gradients can be too small for the type; scaling the loss lifts them.
        self.scaler = torch.amp.GradScaler(device, enabled=self.dtype == torch.float16)

    def train_epoch(self, pixels: UInt8Array, truth: BoolArray, epoch: int, after_batch: Callable[[], object]) -> float:
        """Learn from every patch once; return the mean loss.

        Parameters
        ----------
        pixels, truth : (n, size, size) uint8 and (n,) bool arrays
        epoch : int
            Counted from 1; it decides the order of the patches and how each is varied.
        after_batch : callable
            Called after each batch, for a progress bar.
        """
        self.network.train()
        for module in self.frozen:
            module.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(epoch, self.recipe)
        weights = balanced_weights(truth) if self.recipe.class_weights else np.ones(2, np.float32)
        total = 0.0
        batches = iter_batches(len(truth), self.recipe.batch_size, (self.recipe.seed, epoch))
        for number, batch in enumerate(batches):
            seed = int(np.random.SeedSequence((self.recipe.seed, epoch, number)).generate_state(1)[0])
            inputs = training_input(self._send(pixels[batch]), self.input_format, self.recipe, seed)
            wanted = self._send(truth[batch].astype(np.float32))
            with self._autocast():
                logits = self.network(inputs).squeeze(1)
            loss = binary_cross_entropy_with_logits(
                logits.float(), wanted, self._send(weights[truth[batch].astype(int)])
            )
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.optimizer)
            self.scaler.update()
            total += float(loss.detach()) * len(batch)
            after_batch()
        self._settle_batch_norm(pixels)
        return total / len(truth)

    def score(self, pixels: UInt8Array) -> npt.NDArray[np.float64]:
        """Return each patch's score as it is, without augmentation: (n,) of 0..1."""
        self.network.eval()
        logits = []
        with torch.inference_mode(), self._autocast():
            for start in range(0, len(pixels), self.recipe.batch_size):
                batch = self._send(pixels[start : start + self.recipe.batch_size])
                inputs = evaluation_input(batch, self.input_format)
                logits.append(self.network(inputs).squeeze(1).float().cpu())
        scores: npt.NDArray[np.float64] = torch.sigmoid(torch.cat(logits).double()).numpy()
        return scores

    def state(self) -> dict[str, Any]:
        """Return all that changes in training, by name; what is in it goes on changing."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _settle_batch_norm(self, pixels: UInt8Array) -> None:
        """Measure anew, with the weights as they now are, the statistics that batch norm uses in evaluation.

        Its running averages reach back over some ten batches. After a few steps on a few hundred labels they
        still hold much of their start values, and scores would be far off.
        """
        frozen = {module for part in self.frozen for module in part.modules()}
        norms = [m for m in self.network.modules() if isinstance(m, nn.BatchNorm2d) and m not in frozen]
        self.network.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        with torch.no_grad(), self._autocast():
            chosen = np.random.default_rng(self.recipe.seed).permutation(len(pixels))[:BATCH_NORM_PATCHES]
            seen = 0
            for batch in iter_batches(len(chosen), self.recipe.batch_size, (self.recipe.seed,)):
                seen += len(batch)
                for norm in norms:
                    # So that after each batch the statistics are the mean over all patches seen: a last batch of two
                    # counts as two patches and not as much as a full one.
                    norm.momentum = len(batch) / seen
                self.network(evaluation_input(self._send(pixels[chosen[batch]]), self.input_format))
        for norm in norms:
            norm.momentum = BATCH_NORM_MOMENTUM

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "optimizer": self.optimizer, "scaler": self.scaler}

    def _send(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)


def freeze(network: nn.Module, finetune_layer: FinetuneLayer) -> list[nn.Module]:
    """Let only the layers from `finetune_layer` on learn; return the modules that stay as they are.

    Those returned must be in evaluation mode while the others train, so that batch norm leaves them alone.
    """
    parts = (*STEM, *LAYERS)
    count = {"all": 0, "none": len(parts)}.get(finetune_layer)
    if count is None:
        count = parts.index(finetune_layer)
    frozen = [network.get_submodule(name) for name in parts[:count]]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def fit(
    trainer: Trainer, pixels: UInt8Array, truth: BoolArray, held: BoolArray, checkpoint: Checkpoint, report: Report
) -> Fit:
    """Train until the last epoch or until nothing gets better, from the last checkpoint on if there is one.

    The best epoch has the highest validation AUC; of equal ones, the lowest validation loss.

    Parameters
    ----------
    trainer : Trainer
    pixels, truth, held : (n, size, size) uint8, (n,) bool and (n,) bool arrays
        The patches, which are informative, and which validate.
    checkpoint : Checkpoint
        From `open_checkpoint`; it is kept up to date.
    report : Report
        Is told if the training goes on.
    """
    recipe = trainer.recipe
    done = Fit(0, 0, [], [], {})
    if checkpoint.saved is not None:
        trainer.restore(checkpoint.saved)
        done = Fit(**checkpoint.saved["fit"])
        checkpoint.saved = None  # it takes as much memory as the network, and twice as much again
        report.note(f"went on after epoch {done.epoch}")
    learnt, learnt_truth, judged = pixels[~held], truth[~held], truth[held]
    batches = count_batches(len(learnt), recipe.batch_size)
    with progress(None, total=recipe.epochs * batches, label=report.stage, unit="batch") as bar:
        bar.update(done.epoch * batches)
        for epoch in range(done.epoch + 1, recipe.epochs + 1):
            if recipe.patience and epoch - 1 - done.best_epoch >= recipe.patience:
                break
            train_loss = trainer.train_epoch(learnt, learnt_truth, epoch, bar.update)
            scores = trainer.score(pixels[held])
            if not (math.isfinite(train_loss) and np.isfinite(scores).all()):
                raise InputError(
                    f"epoch {epoch}", "a finite loss", f"{train_loss}", "use a lower --learning-rate and --overwrite"
                )
            row = {
                "epoch": epoch,
                "learning_rate": learning_rate_at(epoch, recipe),
                "train_loss": train_loss,
                "validation_loss": cross_entropy(scores, judged),
                "validation_auc": area_under_roc(scores, judged),
                "validation_accuracy": float(np.mean((scores > recipe.threshold) == judged)),
            }
            done.history.append(row)
            done.epoch = epoch
            if epoch == 1 or goodness(row) > goodness(done.history[done.best_epoch - 1]):
                done.best_epoch, done.best_scores = epoch, scores.tolist()
                done.best_weights = copy_weights(trainer.network)
            checkpoint.save({"fit": vars(done), **trainer.state()})
            bar.set_postfix_str(f"epoch {epoch}, AUC {row['validation_auc']:.3f}, best {done.best_epoch}")
    return done


def score_all(trainer: Trainer, done: Fit, pixels: UInt8Array, held: BoolArray) -> npt.NDArray[np.float64]:
    """Return every patch's score by the best epoch's weights: (n,) of 0..1; those that validate as they were then."""
    trainer.network.load_state_dict(done.best_weights)
    scores = np.empty(len(held))
    scores[~held] = trainer.score(pixels[~held])
    scores[held] = done.best_scores
    return scores


def copy_weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a network's weights as they now are, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def goodness(row: dict[str, float]) -> tuple[float, float]:
    """Return what an epoch is judged by, higher being better."""
    return row["validation_auc"], -row["validation_loss"]
