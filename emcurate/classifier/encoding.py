"""Features of patches: what a network gives its last layer, which is left out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from emcurate.classifier.backbones import TIMM, TORCHVISION, split_model, unknown_network
from emcurate.classifier.card import InputFormat, Weights
from emcurate.classifier.inference import BatchRunner, Scorer
from emcurate.classifier.network import COUNTS, encode_weights, read_state_dict, refuse_odd_tensors
from emcurate.classifier.transforms import evaluation_input
from emcurate.errors import InputError
from emcurate.writing import write_bytes

# What a first convolution has in its shape: outputs, inputs, and two sides.
_CONVOLUTION_AXES = 4

# What networks answer an input of a size that they do not take with.
_REFUSALS = (RuntimeError, AssertionError, ValueError)


class ClassifierEncoder(Scorer):
    """The classifier's own body: (n, 512) float16."""

    def compute(self, source: torch.Tensor) -> torch.Tensor:
        """Return the features of (n, size, size) uint8 patches."""
        return self.features(source).to(torch.float16)


class Encoder(BatchRunner):
    """Any network without its last layer: (n, width) float16.

    Parameters
    ----------
    body : nn.Module
        From `load_body`.
    input_format : InputFormat
    device, precision : str
        As `BatchRunner`.
    """

    def __init__(self, body: nn.Module, input_format: InputFormat, device: str, precision: str) -> None:
        super().__init__(input_format.image_size, device, precision)
        self.input_format = input_format
        self.body = body.eval().to(device, self.dtype).to(memory_format=torch.channels_last)

    def compute(self, source: torch.Tensor) -> torch.Tensor:
        """Return the features of (n, size, size) uint8 patches.

        Raises
        ------
        InputError
            If the network does not take this size, or gives no row of numbers a patch.
        """
        size = self.input_format.image_size
        try:
            found: Any = self.body(evaluation_input(source, self.input_format).to(self.dtype))
        except _REFUSALS as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            said = (str(error).splitlines() or [type(error).__name__])[0]
            expected = "a size that the network takes"
            raise InputError(f"--image-size {size}", expected, f"one it refuses ({said})", "name another") from None
        if not isinstance(found, torch.Tensor) or found.ndim != 2:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise InputError("--model", "a network that gives a row of numbers a patch", f"{shape}", "name another")
        return found.to(torch.float16)


def count_features(runner: BatchRunner, image_size: int) -> int:
    """Return how many features a network gives, by having it look at an empty patch."""
    empty = torch.zeros((1, image_size, image_size), dtype=torch.uint8).numpy()
    return int(runner.run(empty).shape[1])


def load_body(model: str, weights: Weights) -> nn.Module:
    """Return a network of torchvision or timm without its last layer, with the weights of a file.

    The file may hold more: the last layer, or what a self-supervised training had beside the network; and its names may
    have something before them, such as ``module.encoder_q.``. Of a network that was trained on one channel, the first
    convolution is divided among three, which are given the same.

    Raises
    ------
    InputError
        If there is no such network, or the file does not hold all of its weights.
    """
    body = build_body(model)
    wanted = {name: tensor for name, tensor in body.state_dict().items() if not name.endswith(COUNTS)}
    tensors = _read_tensors(weights.path)
    prefix = _find_prefix(tensors, wanted)
    there = {name: tensors[prefix + name] for name in wanted if prefix + name in tensors}
    for name, tensor in there.items():
        there[name] = _divide_channel(tensor, wanted[name])
    refuse_odd_tensors(there, wanted, weights.path, f"the {len(wanted)} tensors of {model} without its last layer")
    body.load_state_dict({name: tensor.float() for name, tensor in there.items()}, strict=False)
    return body.eval()


def build_body(model: str) -> nn.Module:
    """Return a network without its last layer, with start weights that count for nothing.

    Raises
    ------
    InputError
        If its library does not have it, or is not installed; or it does not end in a linear layer.
    """
    library, name = split_model(model)
    if library == TIMM:
        network: nn.Module = _import_timm(model).create_model(name, pretrained=False, num_classes=0)
        return network
    if name not in (known := torchvision.models.list_models(module=torchvision.models)):
        raise unknown_network(model, difflib.get_close_matches(name, known))
    network = torchvision.models.get_model(name, weights=None)
    linear = [found for found, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(f"--model {model}", "a network that ends in a linear layer", "another", "name another")
    owner, _, last = linear[-1].rpartition(".")
    setattr(network.get_submodule(owner), last, nn.Identity())
    return network


def find_torchvision_weights(name: str) -> tuple[str, InputFormat]:
    """Return the address of the weights that torchvision takes for its best, and what they were trained with.

    Raises
    ------
    InputError
        If there is no such network.
    """
    if name not in (known := torchvision.models.list_models(module=torchvision.models)):
        raise unknown_network(f"{TORCHVISION}/{name}", difflib.get_close_matches(name, known))
    best = torchvision.models.get_model_weights(name).DEFAULT
    shown = best.transforms()
    return best.url, InputFormat(int(shown.crop_size[0]), tuple(shown.mean), tuple(shown.std))


def fetch_timm_weights(name: str, path: Path, offline: str) -> InputFormat:
    """Put the weights that timm has published for a network into a file, unless it is there.

    Return what they were trained with. `offline` says what to do without a network.

    Raises
    ------
    InputError
        If there is no such network, or its weights are not to be had.
    """
    timm = _import_timm(f"{TIMM}/{name}")
    described = timm.create_model(name, pretrained=False, num_classes=0)
    if not path.exists():
        from huggingface_hub.errors import HfHubHTTPError  # with timm, which downloads by it

        # The library's errors share a base with those of the HTTP library under it, which it lets through.
        failures: Any = (OSError, RuntimeError, ValueError, *HfHubHTTPError.__bases__)
        try:
            network = timm.create_model(name, pretrained=True, num_classes=0)
        except failures as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            expected = "to download its weights once"
            advice = f"connect to the network; or {offline}"
            raise InputError(f"{TIMM}/{name}", expected, f"none to be had ({said})", advice) from None
        write_bytes(path, encode_weights(network.state_dict()))
    shown = timm.data.resolve_model_data_config(described)
    return InputFormat(int(shown["input_size"][-1]), tuple(shown["mean"]), tuple(shown["std"]))


def _import_timm(model: str) -> Any:
    """Return the library, if it is installed and has the network."""
    try:
        import timm
    except ImportError:
        advice = "install it with: pip install 'emcurate[backbones]'"
        raise InputError(f"--model {model}", "the package timm", "none", advice) from None
    _, name = split_model(model)
    if not name.startswith("hf") and name.partition(".")[0] not in (known := timm.list_models()):
        raise unknown_network(model, difflib.get_close_matches(name, known))
    return timm


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix != ".safetensors":
        return read_state_dict(path)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(path, "the package safetensors", "none", "pip install safetensors") from None
    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(path, "tensors in a .safetensors file", f"others ({error})", "copy it again") from None
    return found


def _find_prefix(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """Return what stands before the names of a network's tensors: of several the first that has them all."""
    first = next(iter(wanted))
    prefixes = [name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}")]
    return next((prefix for prefix in prefixes if all(prefix + name in tensors for name in wanted)), "")


def _divide_channel(tensor: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the weights of a convolution of one channel as those of one that is given it so many times."""
    few, many = tensor.shape, wanted.shape
    is_first = len(few) == len(many) == _CONVOLUTION_AXES and few[1] == 1 and few[2:] == many[2:] and few[0] == many[0]
    # A depthwise convolution has one input a channel too, but as the network wants it.
    return tensor.expand(many) / many[1] if is_first and many[1] > 1 else tensor
