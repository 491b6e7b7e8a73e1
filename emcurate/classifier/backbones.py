"""Which network looks at patches for their features, and where its weights come from; PyTorch is not needed yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from emcurate.classifier.card import InputFormat, Weights
from emcurate.classifier.weights import (
    cache_directory,
    fetch_torchvision_weights,
    fetch_weights,
    find_weights,
    is_url,
)
from emcurate.errors import InputError
from emcurate.files import check_regular, make_output_directory
from emcurate.outputs import hash_file
from emcurate.running.report import Report

# The body of this project's own classifier; others are ``torchvision/NAME`` and ``timm/NAME``.
CLASSIFIER = "classifier"
LIBRARIES = (TORCHVISION, TIMM) = ("torchvision", "timm")

# No file of weights is smaller; a page that says sorry is.
LEAST_BYTES = 100_000

_OFFLINE = "name a file with --weights, or take --model classifier with weights of train_nn.py"


def split_model(model: str) -> tuple[str, str]:
    """Return the library and the name of a network.

    Raises
    ------
    ValueError
        If it is neither `CLASSIFIER` nor a library's.

    >>> split_model("timm/vit_small_patch16_224.dino")
    ('timm', 'vit_small_patch16_224.dino')
    """
    library, slash, name = model.partition("/")
    if model == CLASSIFIER:
        return CLASSIFIER, ""
    if library not in LIBRARIES or not slash or not name:
        raise ValueError(model)
    return library, name


def find_backbone(
    model: str,
    weights: str | None,
    report: Report,
    *,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Weights:
    """Return the weights of a network and how to use them; download them if need be.

    Parameters
    ----------
    model : str
        `CLASSIFIER`, ``torchvision/NAME`` or ``timm/NAME``.
    weights : str, optional
        A file or an address; by default those that the library, or this project, has published.
    report : Report
    image_size, mean, std : optional
        What the network wants to see, where that differs from what its weights' card or its library says, or else
        ImageNet's.

    Raises
    ------
    InputError
        If there is no such network, or its weights are not to be had.
    """
    library, name = split_model(model)
    if library == CLASSIFIER:
        found = find_weights(weights, report)
    elif weights is None:
        found = _fetch(library, name, report)
    else:
        path = fetch_weights(weights, check_regular, least_bytes=LEAST_BYTES) if is_url(weights) else Path(weights)
        found = Weights(check_regular(path), hash_file(path))
        _warn_of_assumptions(found, report, image_size is not None and mean is not None and std is not None)
    given = {"image_size": image_size, "mean": mean, "std": std}
    wanted = {key: value for key, value in given.items() if value is not None}
    return replace(found, input_format=replace(found.input_format, **wanted))  # type: ignore[arg-type]


def _warn_of_assumptions(weights: Weights, report: Report, is_told: bool) -> None:
    if not is_told:
        taken = weights.input_format
        report.note(
            f"{weights.path.name} is used with ImageNet's settings where --image-size, --mean and --std do not say "
            f"otherwise: {taken.image_size} pixels, mean {taken.mean}, standard deviation {taken.std}"
        )


def _fetch(library: str, name: str, report: Report) -> Weights:
    """Return the weights that a library has published for one of its networks."""
    if library == TORCHVISION:
        from emcurate.classifier.encoding import find_torchvision_weights

        url, input_format = find_torchvision_weights(name)
        path = fetch_torchvision_weights(url, f"{TORCHVISION}/{name}'s ImageNet weights", _OFFLINE)
    else:
        from emcurate.classifier.encoding import fetch_timm_weights

        path = make_output_directory(cache_directory()) / f"timm-{name.replace('/', '-').replace(':', '-')}.pth"
        input_format = fetch_timm_weights(name, path, _OFFLINE)
    found = Weights(path, hash_file(path), input_format)
    report.note(f"weights: {path}, SHA-256 {found.sha256}")
    return found


def describe_model(model: str, weights: Weights) -> dict[str, str]:
    """Return what tells which features these are, for the metadata of their table."""
    taken: InputFormat = weights.input_format
    return {
        "model": model,
        "weights_sha256": weights.sha256,
        "image_size": str(taken.image_size),
        "mean": repr(tuple(taken.mean)),
        "std": repr(tuple(taken.std)),
    }


def unknown_network(model: str, alike: list[str]) -> InputError:
    """Return the error for a network that its library does not have."""
    library, _ = split_model(model)
    advice = f"did you mean {' or '.join(f'{library}/{name}' for name in alike)}?" if alike else "correct the name"
    return InputError(f"--model {model}", f"a network that {library} has", "none of that name", advice)
