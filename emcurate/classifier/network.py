"""The network, a ResNet34 with one output, and its weights: built, read, checked, saved.

The one output is a logit: its sigmoid is the score, the probability that a patch is informative.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet34

from emcurate.errors import InputError
from emcurate.files import check_regular
from emcurate.writing import write_bytes

FEATURES = 512  # what a ResNet34's last layer gives its head

# The network's parts from input to output; fine-tuning from one of them on trains all that follow.
STEM = ("conv1", "bn1")
LAYERS = ("layer1", "layer2", "layer3", "layer4")
HEAD = "fc"

# Batch norm counts batches only to average without a momentum; files of old torch versions lack the counts.
COUNTS = "num_batches_tracked"
VARIANCES = "running_var"

# Wrappers and prefixes that training frameworks put around the plain state dict.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")

# What weights may be saved in; smaller types would have to be scaled, which a plain state dict does not tell how.
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

# What torch answers a damaged file with.
_DAMAGE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    LookupError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    tarfile.TarError,
)

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
    content = load_plain(check_regular(path), path, expected, advice)
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


def load_plain(source: Path | io.BytesIO, path: Path, expected: str, advice: str) -> Any:
    """Return what torch saved in a file, without executing anything in it.

    Parameters
    ----------
    source : Path or io.BytesIO
        Where it is read from.
    path : Path
        The file, for errors.
    expected, advice : str
        Of errors.

    Raises
    ------
    InputError
        If it is damaged, or holds objects that only pickle can read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of its own future: nothing that a user could act on
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(path, expected, "other data, or Python objects that only pickle can read", advice) from None
    except _DAMAGE as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(path, expected, f"damaged data ({words[0]})", "copy or download it again") from None


def check_state_dict(tensors: Mapping[str, torch.Tensor], path: Path, *, head: bool = True) -> dict[str, torch.Tensor]:
    """Return the tensors of a classifier as float32, checked by name, shape, kind and values.

    Without `head`, the last layer's are left out.

    Raises
    ------
    InputError
        If they belong to another network; are sparse, quantised, whole or complex numbers; or would give no scores
        because they hold NaN, infinities or negative variances.
    """
    with torch.device("meta"):
        wanted = build_network().state_dict()
    if not head:
        wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith(f"{HEAD}.")}
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{HEAD}.")}
    expected = f"the {len(wanted)} tensors of a ResNet34{' with one output' if head else ''}"
    refuse_odd_tensors(tensors, wanted, path, expected)
    there = [name for name in wanted if name in tensors]
    return {name: tensors[name] if name.endswith(COUNTS) else tensors[name].float() for name in there}


def refuse_odd_tensors(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], path: Path, expected: str
) -> None:
    """Raise `InputError` unless tensors are those that are wanted, by name, shape, kind and values.

    Counts of batch norm may be missing. `expected` says in words what is wanted of the file at `path`.
    """
    missing = [name for name in wanted if name not in tensors and not name.endswith(COUNTS)]
    extra = [name for name in tensors if name not in wanted]
    there = [name for name in wanted if name in tensors]
    kinds = [f"{name} of {kind}" for name in there if (kind := _odd_kind(tensors[name])) is not None]
    if kinds:
        raise InputError(path, "plain tensors of floating-point numbers", _some(kinds), "save it from plain weights")
    odd = [
        f"{name} of shape {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in there
        if tensors[name].shape != wanted[name].shape
    ]
    if missing or extra or odd:
        parts = [("no", missing), ("also", extra), ("", odd)]
        found = "; ".join(f"{word} {_some(names)}".strip() for word, names in parts if names)
        raise InputError(path, expected, found, "these weights belong to another network: name others")
    plain = {name: tensors[name].float() for name in there if not name.endswith(COUNTS)}
    bad = [name for name, tensor in plain.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        found = f"NaN or infinities in {_some(bad)}"
        raise InputError(path, "weights finite in float32", found, "train or download them again")
    negative = [name for name, tensor in plain.items() if name.endswith(VARIANCES) and bool((tensor < 0).any())]
    if negative:
        found = f"negative ones in {_some(negative)}"
        raise InputError(path, "variances of 0 and more", found, "train or download them again")


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


def encode_weights(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Return a plain state dict, on the CPU, as the bytes of a file for ``torch.load(weights_only=True)``."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # By way of memory: torch writes the file's own name into a file, and a temporary one would be there for good.
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    return buffer.getvalue()


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a plain state dict atomically; see `encode_weights`."""
    write_bytes(path, encode_weights(tensors))


def _odd_kind(tensor: torch.Tensor) -> str | None:
    """Return in words what keeps a tensor from being used as weights; None for a plain one of floating-point numbers.

    Batch norm's counts, the only tensors without axes, may be whole numbers.
    """
    if tensor.is_quantized:
        return "quantised numbers"
    if tensor.layout != torch.strided or tensor.is_nested:
        return f"the layout {tensor.layout}".replace("torch.", "")
    if tensor.is_meta:
        return "no values"
    if tensor.dtype in _FLOATS or (tensor.ndim == 0 and tensor.dtype in _WHOLE):
        return None
    return f"the type {tensor.dtype}".replace("torch.", "")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
