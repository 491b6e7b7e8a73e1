"""The network, a ResNet34 with one output, and its weights: built, read, checked, saved.

The one output is a logit: its sigmoid is the score, the probability that a patch is informative.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet34

from emcurate.errors import InputError
from emcurate.files import write_bytes

FEATURES = 512  # what a ResNet34's last layer gives its head

# The network's parts from input to output; fine-tuning from one of them on trains all that follow.
STEM = ("conv1", "bn1")
LAYERS = ("layer1", "layer2", "layer3", "layer4")
HEAD = "fc"

# Batch norm counts batches only to average without a momentum; files of old torch versions lack the counts.
OPTIONAL_TENSOR = "num_batches_tracked"

# Wrappers and prefixes that training frameworks put around the plain state dict.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")

# Tensor names that an error message shows.
NAMES_SHOWN = 3


def build_network() -> nn.Module:
    """Return a ResNet34 with one output and torchvision's random start weights."""
    network: nn.Module = resnet34(weights=None)
    network.fc = nn.Linear(FEATURES, 1)
    return network


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of weights without executing anything in it: tensor names and tensors.

    Wrappers such as ``{"state_dict": …}`` and prefixes such as ``module.`` are taken off.

    Raises
    ------
    InputError
        If it is no file of tensors.
    """
    expected, advice = "a PyTorch state dict (.pth) of tensors", "name a file saved with torch.save(state_dict)"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(path, expected, "no such file", "check the path") from None
    except pickle.UnpicklingError:
        raise InputError(path, expected, "other data, or Python objects that only pickle can read", advice) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # torch answers a damaged file with any of these.
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(path, expected, f"damaged data ({words[0]})", "copy or download it again") from None
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = dict(content) if isinstance(content, Mapping) else {}
    if not tensors or not all(isinstance(v, torch.Tensor) and isinstance(k, str) for k, v in tensors.items()):
        raise InputError(path, expected, f"a {type(content).__name__} of other things", advice)
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def check_state_dict(tensors: Mapping[str, torch.Tensor], path: Path, *, head: bool = True) -> dict[str, torch.Tensor]:
    """Return the tensors of a classifier, checked by name and shape; without `head`, all but the last layer's.

    Raises
    ------
    InputError
        If they belong to another network, or hold NaN or infinities.
    """
    with torch.device("meta"):
        wanted = build_network().state_dict()
    if not head:
        wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith(f"{HEAD}.")}
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{HEAD}.")}
    missing = [name for name in wanted if name not in tensors and not name.endswith(OPTIONAL_TENSOR)]
    extra = [name for name in tensors if name not in wanted]
    odd = [
        f"{name} of shape {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if missing or extra or odd:
        parts = [("no", missing), ("also", extra), ("", odd)]
        found = "; ".join(f"{word} {_some(names)}".strip() for word, names in parts if names)
        raise InputError(
            path,
            f"the {len(wanted)} tensors of a ResNet34{' with one output' if head else ''}",
            found,
            "these weights belong to another network: name others",
        )
    bad = [name for name in wanted if name in tensors and not bool(torch.isfinite(tensors[name]).all())]
    if bad:
        raise InputError(path, "finite weights", f"NaN or infinities in {_some(bad)}", "train or download them again")
    return {name: tensors[name] for name in wanted if name in tensors}


def load_classifier(path: Path) -> nn.Module:
    """Return the network with the weights of a file, ready for inference.

    Raises
    ------
    InputError
        As `read_state_dict` and `check_state_dict`.
    """
    network = build_network()
    network.load_state_dict(check_state_dict(read_state_dict(path), path), strict=False)
    return network.eval()


def load_start_weights(network: nn.Module, path: Path) -> bool:
    """Load a file's weights to train on from; return whether its head fitted too.

    A head of another width, such as ImageNet's with 1000 classes, is left out, and the network keeps its own.
    """
    tensors = read_state_dict(path)
    weight = tensors.get(f"{HEAD}.weight")
    head = weight is not None and weight.shape == (1, FEATURES)
    network.load_state_dict(check_state_dict(tensors, path, head=head), strict=False)
    return head


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a plain state dict atomically, on the CPU and in float32, for ``torch.load(weights_only=True)``."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # By way of memory: torch writes the file's own name into a file, and a temporary one would be there for good.
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    write_bytes(path, buffer.getbuffer())


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
