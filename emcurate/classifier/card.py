"""A file of weights and the card beside it that says how to use them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from emcurate.errors import InputError
from emcurate.files import check_regular, read_regular
from emcurate.outputs import hash_file
from emcurate.writing import write_bytes

WEIGHTS_FILE = "patch_quality_classifier_nn.pth"

# A ResNet34 with one output has 21,285,185 weights of four bytes; less cannot be one.
LEAST_BYTES = 4 * 21_285_185

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

THRESHOLD = 0.5  # scores above it count as informative

# A ResNet34 halves its input five times; of a smaller one nothing would be left.
LEAST_IMAGE_SIZE = 32

# A single input of this side takes a gigabyte in the network's first layer alone.
LARGEST_IMAGE_SIZE = 4096

CARD_BYTES = 1 << 20  # a card has some two thousand

Kind = TypeVar("Kind")
_AboveZero = Annotated[float, msgspec.Meta(gt=0)]


@dataclass(frozen=True)
class InputFormat:
    """What a network wants to see: the side of its square input in pixels, and each channel's normalisation."""

    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


@dataclass(frozen=True)
class Weights:
    """A file of weights and how to use it."""

    path: Path
    sha256: str
    input_format: InputFormat = InputFormat()
    threshold: float = THRESHOLD


def card_path(weights: Path) -> Path:
    """Return where the card of a file of weights lies: beside it, with the extension ``.json``."""
    return weights.with_suffix(".json")


def describe_weights(path: Path) -> Weights:
    """Return how to use a file of weights, as its card says; without a card, as the published ones.

    Raises
    ------
    InputError
        If the file is missing, or its card is damaged or belongs to other weights.
    """
    if not path.is_file():
        found = "a directory" if path.is_dir() else "no such file"
        raise InputError(path, "a file of weights (.pth)", found, "check --weights")
    sha256 = hash_file(path)
    card = card_path(path)
    if not os.path.lexists(card):
        return Weights(path, sha256)
    described = _read_card(card, path)
    if described.sha256 != sha256:
        raise InputError(
            card,
            f"the card of {path.name}, whose SHA-256 is {sha256[:12]}…",
            f"one of weights with {described.sha256[:12]}…",
            "copy weights and card together; if a training was broken off, run it again",
        )
    return described


def describe_assumptions(weights: Weights) -> str:
    """Say how weights without a card are used, and what to do if that is wrong."""
    taken, card = weights.input_format, card_path(weights.path).name
    return (
        f"{weights.path}: no {card} beside it that says how to use these weights; they are used as the published "
        f"ones: patches of {taken.image_size} × {taken.image_size} pixels, mean {taken.mean}, standard deviation "
        f"{taken.std}, threshold {weights.threshold:g}. If train_nn.py made them with others, copy its {card} here"
    )


def encode_card(sha256: str, input_format: InputFormat, threshold: float, details: dict[str, Any]) -> bytes:
    """Return the card of weights with this SHA-256, which `describe_weights` reads; `details` are for people."""
    card = {
        "weights": WEIGHTS_FILE,
        "weights_sha256": sha256,
        "network": "torchvision ResNet34 with one output; the score is its sigmoid",
        "input": {
            **asdict(input_format),
            "resize": "bilinear, no antialiasing",
            "channels": "grey value / 255, repeated three times, then normalised",
        },
        "threshold": threshold,
        "classes": ["uninformative", "informative"],
        **details,
    }
    return (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode()


def write_card(weights: Path, input_format: InputFormat, threshold: float, details: dict[str, Any]) -> None:
    """Write the card of a file of weights beside it; see `encode_card`."""
    write_bytes(card_path(weights), encode_card(hash_file(weights), input_format, threshold, details))


def read_training(card: Path) -> str:
    """Return which training a card says its weights came of; nothing where there is no such card."""
    try:
        return _decode(card, _Named).training
    except InputError:
        return ""


class _Input(msgspec.Struct):
    image_size: Annotated[int, msgspec.Meta(ge=LEAST_IMAGE_SIZE, le=LARGEST_IMAGE_SIZE)]
    mean: tuple[float, float, float]
    std: tuple[_AboveZero, _AboveZero, _AboveZero]


class _Card(msgspec.Struct):
    weights_sha256: str
    input: _Input
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Named(msgspec.Struct):
    training: str = ""


def _read_card(card: Path, weights: Path) -> Weights:
    read = _decode(card, _Card)
    return Weights(
        weights,
        read.weights_sha256,
        InputFormat(read.input.image_size, read.input.mean, read.input.std),
        read.threshold,
    )


def _decode(card: Path, kind: type[Kind]) -> Kind:
    """Return a card as what is wanted of it."""
    try:
        if check_regular(card).stat().st_size > CARD_BYTES:
            raise ValueError(f"more than {CARD_BYTES:,} bytes")
        # Strict JSON: neither NaN nor infinities, which Python's own reader takes for numbers.
        return msgspec.json.decode(read_regular(card), type=kind)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            card,
            "the card train_nn.py writes beside its weights",
            f"another or damaged file ({error})",
            "copy it again, or move it away to use the published settings",
        ) from None
