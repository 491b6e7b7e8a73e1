"""What decides how the classifier is trained: the hyper-parameters, the learning rate, the order of the patches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from emcurate.classifier.card import THRESHOLD

FinetuneLayer = Literal["all", "layer1", "layer2", "layer3", "layer4", "none"]

# Batch norm cannot learn from a single patch.
LEAST_BATCH_SIZE = 2

# Where none is chosen, PyTorch's own default of each optimizer.
WEIGHT_DECAY = {"adam": 0.0, "adamw": 0.01}


@dataclass(frozen=True)
class Augmentation:
    """How training patches are varied; nothing here can hide what makes a patch informative.

    Parameters
    ----------
    brightness, contrast : float
        The most by which either is changed, as a part of itself.
    noise : float
        Standard deviation of Gaussian noise, grey values 0..1; 0.02 is five of 255.
    blur : float
        Largest sigma of a Gaussian blur, in pixels of the network's input.
    probability : float
        Of noise, and of blur, each by itself.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    noise: float = 0.02
    blur: float = 1.0
    probability: float = 0.5


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learnt. The defaults are the published recipe.

    Parameters
    ----------
    init : str
        ``imagenet``, ``random``, or a file of weights.
    finetune_layer : str, optional
        First layer that learns; ``layer4`` by default, ``all`` from random weights.
    split, validation : str, float
        How the validation patches are chosen, and their part of all.
    seed : int
        Of everything random.
    optimizer, learning_rate, weight_decay, schedule
        The step; the schedule is ``constant`` or ``cosine``.
    batch_size, epochs : int
        Patches a step, and passes over all of them.
    patience : int, optional
        Stop when the validation AUC has not grown for so many epochs.
    class_weights : bool
        Weigh both classes equally, however many patches each has.
    image_size : int
        Side of the network's input in pixels.
    threshold : float
        Scores above it count as informative.
    brightness, contrast, noise, blur, augment_probability : float
        How patches are varied; see `Augmentation`.
    """

    init: str = "imagenet"
    finetune_layer: FinetuneLayer | None = None
    split: Literal["random", "dataset"] = "random"
    validation: float = 0.15
    seed: int = 1227
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    batch_size: int = 64
    epochs: int = 20
    patience: int | None = None
    class_weights: bool = False
    image_size: int = 224
    threshold: float = THRESHOLD
    brightness: float = Augmentation.brightness
    contrast: float = Augmentation.contrast
    noise: float = Augmentation.noise
    blur: float = Augmentation.blur
    augment_probability: float = Augmentation.probability

    @property
    def augmentation(self) -> Augmentation:
        """How patches are varied."""
        return Augmentation(self.brightness, self.contrast, self.noise, self.blur, self.augment_probability)

    @property
    def trained_from(self) -> FinetuneLayer:
        """The first layer that learns; random layers that never learn would be worth nothing."""
        return self.finetune_layer or ("all" if self.init == "random" else "layer4")

    @property
    def decay(self) -> float:
        """The weight decay."""
        return WEIGHT_DECAY[self.optimizer] if self.weight_decay is None else self.weight_decay


def learning_rate_at(epoch: int, recipe: Recipe) -> float:
    """Return the learning rate of an epoch, counted from 1: constant, or half a cosine down to nearly 0.

    >>> learning_rate_at(11, Recipe(schedule="cosine", learning_rate=0.25))
    0.125
    """
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / recipe.epochs))


def iter_batches(count: int, batch_size: int, seed: Sequence[int]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the positions of `count` patches in shuffled batches; a last batch of one joins the one before."""
    order = np.random.default_rng(seed).permutation(count)
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] < LEAST_BATCH_SIZE:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        yield order[start:stop]


def count_batches(count: int, batch_size: int) -> int:
    """Return how many batches `iter_batches` yields."""
    full, rest = divmod(count, batch_size)
    return max(1, full + (rest >= LEAST_BATCH_SIZE))


def balanced_weights(truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return the weights of the two classes, uninformative first, that let each count for half of all patches."""
    counts = np.bincount(truth, minlength=2)
    return (len(truth) / (2 * counts)).astype(np.float32)
