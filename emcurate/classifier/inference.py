"""Fast scoring: the device to compute on, its number type, and a network folded for nothing but inference."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock

from emcurate.classifier.card import InputFormat
from emcurate.classifier.network import HEAD
from emcurate.errors import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Patches that go through the network at once: on a CPU 16 of 224 pixels and more of smaller ones, since its caches
# like few pixels but its kernels many; a GPU needs many to be busy.
BATCH_PIXELS_CPU = 16 * 224 * 224
BATCH_CPU_MOST = 128
BATCH_GPU = 256


def choose_device(name: str = "auto") -> str:
    """Return the device to compute on: ``cuda``, else Apple's ``mps``, else ``cpu``, unless one is named.

    Raises
    ------
    InputError
        If the named device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(candidate for candidate, present in there.items() if present)
    if not there[name]:
        found = ", ".join(device for device, present in there.items() if present)
        raise InputError(f"--device {name}", "a device that PyTorch can use", f"only {found}", "leave --device out")
    return name


def choose_batch_size(device: str, image_size: int) -> int:
    """Return how many patches go through the network at once."""
    fitting = max(1, BATCH_PIXELS_CPU // image_size**2)
    return min(fitting, BATCH_CPU_MOST) if device == "cpu" else BATCH_GPU


def use_threads(count: int) -> None:
    """Let PyTorch compute with this many CPU threads."""
    torch.set_num_threads(count)


def choose_precision(device: str, name: str = "auto") -> str:
    """Return the number type for inference: the fastest that the device has real support for."""
    if name != "auto":
        return name
    if device == "cuda":
        return "float16"
    return "bfloat16" if device == "cpu" and has_cpu_bfloat16() else "float32"


def choose_training_precision(device: str, name: str = "auto") -> str:
    """Return the number type of mixed-precision training: bfloat16 rather than float16, for its range."""
    if name == "auto" and device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    return choose_precision(device, name)


def has_cpu_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 itself; one that only emulates it would be slower."""
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities: Mapping[str, Any] = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    # Older releases of torch say it here only.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy for inference whose batch norms are folded into the convolutions before them.

    In evaluation mode a batch norm is one multiplication and one addition a channel, which weights can take over.
    """
    folded = copy.deepcopy(network).eval()
    pairs: list[tuple[Any, str, str]] = [(folded, "conv1", "bn1")]
    for module in folded.modules():
        if isinstance(module, BasicBlock):
            pairs += [(module, "conv1", "bn1"), (module, "conv2", "bn2")]
            if module.downsample is not None:
                pairs.append((module.downsample, "0", "1"))
    for owner, convolution, norm in pairs:
        fused = fuse_conv_bn_eval(owner.get_submodule(convolution), owner.get_submodule(norm))
        setattr(owner, convolution, fused)
        setattr(owner, norm, nn.Identity())
    return folded


def take_grey(body: nn.Module, input_format: InputFormat) -> None:
    """Let a folded network take grey values 0..255 and a channel of ones in place of three normalised channels.

    The first convolution takes over the normalisation, ``(grey / 255 - mean) / std``: its weights for the three
    channels are added up, and those of the ones carry the means. Outside the image both channels are 0, as before.
    bfloat16 holds whole numbers up to 256 exactly, which normalised grey values are not.
    """
    first: Any = body.get_submodule("conv1")
    mean = torch.tensor(input_format.mean).view(1, 3, 1, 1)
    std = torch.tensor(input_format.std).view(1, 3, 1, 1)
    weight = first.weight.detach() / std
    both = [(weight / 255).sum(1, keepdim=True), -(weight * mean).sum(1, keepdim=True)]
    first.weight = nn.Parameter(torch.cat(both, dim=1), requires_grad=False)
    first.in_channels = 2
    # The larger of two values is found before or after what is negative becomes 0; before, it is a quarter as much.
    body.maxpool = nn.Sequential(body.get_submodule("maxpool"), nn.ReLU(inplace=True))
    body.relu = nn.Identity()


class BatchRunner:
    """Runs batches of patches through a network as fast as the device can.

    What comes of a patch depends on the patch alone, neither on the others of its batch nor on the number of threads.
    To that end every batch is filled up to one size, since libraries choose their algorithm by it.

    Parameters
    ----------
    image_size : int
        Side of the patches in pixels.
    device, precision : str
        From `choose_device` and `choose_precision`.
    """

    def __init__(self, image_size: int, device: str, precision: str) -> None:
        self.device = device
        self.dtype = DTYPES[precision]
        self.batch_size = choose_batch_size(device, image_size)

    def compute(self, source: torch.Tensor) -> torch.Tensor:
        """Return what comes of (n, size, size) uint8 patches on the device, a row each."""
        raise NotImplementedError

    @torch.inference_mode()
    def start(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Start with (n, size, size) patches, n at most `batch_size`; a GPU works on while this returns."""
        source = torch.zeros((self.batch_size, *pixels.shape[1:]), dtype=torch.uint8)
        source[: len(pixels)] = torch.from_numpy(pixels)
        if self.device == "cuda":
            source = source.pin_memory()
        # float32 means float32: CUDA would otherwise cut convolutions' factors down to ten bits.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            return self.compute(source.to(self.device, non_blocking=True))[: len(pixels)]

    @staticmethod
    def finish(started: torch.Tensor) -> npt.NDArray[Any]:
        """Return what came of a batch that was started."""
        found: npt.NDArray[Any] = started.cpu().numpy()
        return found

    def run(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Return what comes of (n, size, size) uint8 patches, any n but 0."""
        starts = range(0, len(pixels), self.batch_size)
        return np.concatenate([self.finish(self.start(pixels[i : i + self.batch_size])) for i in starts])


class Scorer(BatchRunner):
    """Scores batches of patches: (n,) float32 of 0..1.

    Parameters
    ----------
    network : nn.Module
        From `load_classifier`; it is copied, not changed.
    input_format : InputFormat
        What the weights were trained with.
    device, precision : str
        As `BatchRunner`.
    """

    def __init__(self, network: nn.Module, input_format: InputFormat, device: str, precision: str) -> None:
        super().__init__(input_format.image_size, device, precision)
        body = fold_batch_norm(network.cpu())
        take_grey(body, input_format)
        # The head stays in float32: it costs nothing, and a sum of 512 products wants the digits.
        self.head = body.get_submodule(HEAD).to(device, torch.float32)
        setattr(body, HEAD, nn.Identity())
        self.body = body.to(device, self.dtype).to(memory_format=torch.channels_last)

    def features(self, source: torch.Tensor) -> torch.Tensor:
        """Return what the head is given: (n, 512) float32."""
        grey = source.to(self.dtype)
        inputs = torch.stack([grey, torch.ones_like(grey)], dim=-1).permute(0, 3, 1, 2)
        return self.body(inputs).to(torch.float32)  # type: ignore[no-any-return]

    def compute(self, source: torch.Tensor) -> torch.Tensor:
        """Return the scores of (n, size, size) uint8 patches."""
        return torch.sigmoid(self.head(self.features(source)).squeeze(1))

    def score(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the scores of (n, size, size) uint8 patches, any n."""
        return self.run(pixels) if len(pixels) else np.zeros(0, np.float32)
