"""The patch quality classifier: a ResNet34 with one output, its inputs, its weights, and fast inference.

The one output is a logit: its sigmoid is the score, the probability that a patch is informative.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet34
from torchvision.models.resnet import BasicBlock
from torchvision.transforms import v2

from emcurate.classifier.card import InputFormat
from emcurate.classifier.recipe import Augmentation, FinetuneLayer
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

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Patches that go through the network at once: on a CPU 16 of 224 pixels and more of smaller ones, since its caches
# like few pixels but its kernels many; a GPU needs many to be busy.
BATCH_PIXELS_CPU = 16 * 224 * 224
BATCH_CPU_MOST = 128
BATCH_GPU = 256


def build_network() -> nn.Module:
    """Return a ResNet34 with one output and torchvision's random start weights."""
    network: nn.Module = resnet34(weights=None)
    network.fc = nn.Linear(FEATURES, 1)
    return network


# ---- inputs ----------------------------------------------------------------------------------------------------


def scale_grey(pixels: torch.Tensor) -> torch.Tensor:
    """Return (n, h, w) uint8 pixels as one channel of 0..1: (n, 1, h, w) float32."""
    return pixels[:, None].to(torch.float32) / 255


def normalise(grey: torch.Tensor, input_format: InputFormat) -> torch.Tensor:
    """Return (n, 1, h, w) grey values 0..1 as the network's input: three equal channels, each normalised."""
    mean = torch.tensor(input_format.mean, device=grey.device).view(1, 3, 1, 1)
    std = torch.tensor(input_format.std, device=grey.device).view(1, 3, 1, 1)
    return ((grey - mean) / std).contiguous(memory_format=torch.channels_last)


def evaluation_input(pixels: torch.Tensor, input_format: InputFormat) -> torch.Tensor:
    """Return uint8 patches as the network's input, as they are."""
    return normalise(scale_grey(pixels), input_format)


def training_input(
    pixels: torch.Tensor, input_format: InputFormat, augmentation: Augmentation, seed: int
) -> torch.Tensor:
    """Return uint8 patches as the network's input, each varied by itself.

    All randomness comes from `seed`, so that an epoch can be repeated, whatever ran before it.
    """
    vary = training_transform(augmentation)
    devices = [pixels.device] if pixels.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        grey = torch.stack([vary(patch) for patch in scale_grey(pixels)])
    return normalise(grey, input_format)


def training_transform(augmentation: Augmentation) -> v2.Transform:
    """Return the transform of one (1, h, w) patch of 0..1: flips, brightness, contrast, blur and noise."""
    chance = augmentation.probability
    steps: list[nn.Module] = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    if augmentation.brightness or augmentation.contrast:
        steps.append(v2.ColorJitter(brightness=augmentation.brightness, contrast=augmentation.contrast))
    if augmentation.blur > 0:
        least = min(0.1, augmentation.blur)
        side = 2 * round(3 * augmentation.blur) + 1  # three sigmas either way
        steps.append(v2.RandomApply([v2.GaussianBlur(max(3, side), (least, augmentation.blur))], chance))
    if augmentation.noise > 0:
        steps.append(v2.RandomApply([v2.GaussianNoise(0.0, augmentation.noise)], chance))
    return v2.Compose(steps)


# ---- weights ---------------------------------------------------------------------------------------------------


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


# ---- training --------------------------------------------------------------------------------------------------


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


# ---- devices and inference -------------------------------------------------------------------------------------


def choose_device(name: DeviceName = "auto") -> str:
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


def use_threads(count: int) -> None:
    """Let PyTorch compute with this many CPU threads."""
    torch.set_num_threads(count)


def choose_precision(device: str, name: PrecisionName = "auto") -> str:
    """Return the number type for inference: the fastest that the device has real support for."""
    if name != "auto":
        return name
    if device == "cuda":
        return "float16"
    return "bfloat16" if device == "cpu" and has_cpu_bfloat16() else "float32"


def choose_training_precision(device: str, name: PrecisionName = "auto") -> str:
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


class Scorer:
    """Scores batches of patches as fast as the device can.

    A patch's score depends on the patch alone, neither on the others of its batch nor on the number of threads.
    To that end every batch is filled up to one size, since libraries choose their algorithm by it.

    Parameters
    ----------
    network : nn.Module
        From `load_classifier`; it is copied, not changed.
    input_format : InputFormat
        What the weights were trained with.
    device, precision : str
        From `choose_device` and `choose_precision`.
    """

    def __init__(self, network: nn.Module, input_format: InputFormat, device: str, precision: str) -> None:
        self.input_format = input_format
        self.device = device
        self.dtype = DTYPES[precision]
        fitting = max(1, BATCH_PIXELS_CPU // input_format.image_size**2)
        self.batch_size = min(fitting, BATCH_CPU_MOST) if device == "cpu" else BATCH_GPU
        body = fold_batch_norm(network.cpu())
        take_grey(body, input_format)
        # The head stays in float32: it costs nothing, and a sum of 512 products wants the digits.
        self.head = body.get_submodule(HEAD).to(device, torch.float32)
        setattr(body, HEAD, nn.Identity())
        self.body = body.to(device, self.dtype).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def start(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Start scoring (n, size, size) patches, n at most `batch_size`; a GPU works on while this returns."""
        source = torch.zeros((self.batch_size, *pixels.shape[1:]), dtype=torch.uint8)
        source[: len(pixels)] = torch.from_numpy(pixels)
        if self.device == "cuda":
            source = source.pin_memory()
        # float32 means float32: CUDA would otherwise cut convolutions' factors down to ten bits.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            grey = source.to(self.device, non_blocking=True).to(self.dtype)
            inputs = torch.stack([grey, torch.ones_like(grey)], dim=-1).permute(0, 3, 1, 2)
            features = self.body(inputs)
            logits = self.head(features.to(torch.float32)).squeeze(1)
        return torch.sigmoid(logits)[: len(pixels)]

    @staticmethod
    def finish(started: torch.Tensor) -> npt.NDArray[np.float32]:
        """Return the scores of a batch that was started: (n,) float32 of 0..1."""
        scores: npt.NDArray[np.float32] = started.cpu().numpy()
        return scores

    def score(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the scores of (n, size, size) uint8 patches, any n."""
        starts = range(0, len(pixels), self.batch_size)
        parts = [self.finish(self.start(pixels[i : i + self.batch_size])) for i in starts]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
