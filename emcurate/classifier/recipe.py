"""What decides how the classifier is trained: the hyper-parameters, the learning rate, the order of the patches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from emcurate.classifier.card import LARGEST_IMAGE_SIZE, LEAST_IMAGE_SIZE, THRESHOLD
from emcurate.running.flag_fields import flag

FinetuneLayer = Literal["all", "layer1", "layer2", "layer3", "layer4", "none"]

# Batch norm cannot learn from a single patch.
LEAST_BATCH_SIZE = 2

# The largest that PyTorch takes.
LARGEST_SEED = 2**64 - 1

# Where none is chosen, PyTorch's own default of each optimizer.
WEIGHT_DECAY = {"adam": 0.0, "adamw": 0.01}


def _augmentation(text: str, *, metavar: str, most: float | None = None) -> dict[str, Any]:
    return flag(text, group="augmentation", metavar=metavar, least=0, most=most)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learnt; the defaults are the published recipe.

    Nothing in how training patches are varied can hide what makes a patch informative.
    """

    init: str = field(default="imagenet", metadata=flag("start weights", words=("imagenet", "random")))
    finetune_layer: FinetuneLayer | None = field(
        default=None,
        metadata=flag("first layer that learns; none: the head only (default: layer4, with --init random all)"),
    )
    split: Literal["random", "dataset"] = field(
        default="random",
        metadata=flag("how to choose validation patches; by dataset, no neighbours are on both sides"),
    )
    validation: float = field(
        default=0.15, metadata=flag("part of the labels held back for validation", metavar="PART", least=0, most=1)
    )
    seed: int = field(default=1227, metadata=flag("of everything random", least=0, most=LARGEST_SEED))
    optimizer: Literal["adam", "adamw"] = field(default="adam", metadata=flag("what takes the steps"))
    learning_rate: float = field(default=1e-3, metadata=flag("length of a step", metavar="RATE", short="-lr", above=0))
    weight_decay: float | None = field(
        default=None,
        metadata=flag("pull towards weights of 0 (default: adam 0, adamw 0.01)", metavar="DECAY", least=0),
    )
    schedule: Literal["constant", "cosine"] = field(default="constant", metadata=flag("of the learning rate"))
    batch_size: int = field(default=64, metadata=flag("patches a step", least=LEAST_BATCH_SIZE))
    epochs: int = field(default=20, metadata=flag("passes over all training patches", least=1))
    patience: int | None = field(
        default=None,
        metadata=flag("stop after N epochs without a better AUC (default: never)", metavar="N", least=1),
    )
    class_weights: bool = field(
        default=False, metadata=flag("weigh both classes equally, however many patches each has")
    )
    image_size: int = field(
        default=224,
        metadata=flag(
            "side of the network's input in pixels; kept with the weights",
            metavar="PIXELS",
            least=LEAST_IMAGE_SIZE,
            most=LARGEST_IMAGE_SIZE,
        ),
    )
    threshold: float = field(
        default=THRESHOLD, metadata=flag("scores above it are informative; kept with the weights", least=0, most=1)
    )
    brightness: float = field(default=0.2, metadata=_augmentation("largest relative change", metavar="PART", most=1))
    contrast: float = field(default=0.2, metadata=_augmentation("largest relative change", metavar="PART", most=1))
    noise: float = field(
        default=0.02,  # five grey values of 255
        metadata=_augmentation("standard deviation, grey values 0 to 1", metavar="SIGMA", most=1),
    )
    blur: float = field(default=1.0, metadata=_augmentation("largest sigma in pixels", metavar="SIGMA"))
    augment_probability: float = field(
        default=0.5, metadata=_augmentation("of noise and of blur, for each patch", metavar="PART", most=1)
    )

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


def blur_reach(sigma: float) -> int:
    """Return how many pixels either way a blur takes into account: three sigmas, and one at least."""
    return max(1, round(3 * sigma))


def largest_blur(image_size: int) -> float:
    """Return the largest sigma, to two digits, of a blur that reaches less far than an image is wide.

    At its borders the image is mirrored, once.

    >>> largest_blur(32)
    10.33
    """
    return math.floor(100 * (image_size - 1) / 3) / 100


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
