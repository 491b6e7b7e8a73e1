"""A file of weights and the card beside it that says how to use them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emcurate.errors import DAMAGE, InputError
from emcurate.files import hash_file, write_bytes

WEIGHTS_FILE = "patch_quality_classifier_nn.pth"

# A ResNet34 with one output has 21,285,185 weights of four bytes; less cannot be one.
LEAST_BYTES = 4 * 21_285_185

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

THRESHOLD = 0.5  # scores above it count as informative


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
    if not card.exists():
        return Weights(path, sha256)
    try:
        values = json.loads(card.read_text(encoding="utf-8"))
        inputs = values["input"]
        described = Weights(
            path,
            str(values["weights_sha256"]),
            InputFormat(int(inputs["image_size"]), _three(inputs["mean"]), _three(inputs["std"])),
            float(values["threshold"]),
        )
    except DAMAGE as error:
        raise InputError(
            card,
            "the card train_nn.py writes beside its weights",
            f"another or damaged file ({type(error).__name__}: {error})",
            "copy it again, or move it away to use the published settings",
        ) from None
    if described.sha256 != sha256:
        raise InputError(
            card,
            f"the card of {path.name}, whose SHA-256 is {sha256[:12]}…",
            f"one of weights with {described.sha256[:12]}…",
            "copy weights and card together; if a training was broken off, run it again",
        )
    return described


def write_card(weights: Path, input_format: InputFormat, threshold: float, details: dict[str, Any]) -> None:
    """Write the card of a file of weights, which `describe_weights` reads; `details` are for people."""
    card = {
        "weights": weights.name,
        "weights_sha256": hash_file(weights),
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
    write_bytes(card_path(weights), (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())


def _three(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise ValueError(f"{len(numbers)} channels instead of 3")
    return numbers
