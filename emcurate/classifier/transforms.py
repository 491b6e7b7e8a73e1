"""From uint8 patches to the network's input: as they are for scoring, varied for training."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.transforms import v2

from emcurate.classifier.card import InputFormat
from emcurate.classifier.recipe import Recipe, blur_reach


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


def training_input(pixels: torch.Tensor, input_format: InputFormat, recipe: Recipe, seed: int) -> torch.Tensor:
    """Return uint8 patches as the network's input, each varied by itself.

    All randomness comes from `seed`, so that an epoch can be repeated, whatever ran before it.
    """
    vary = training_transform(recipe)
    devices = [pixels.device] if pixels.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        grey = torch.stack([vary(patch) for patch in scale_grey(pixels)])
    return normalise(grey, input_format)


def training_transform(recipe: Recipe) -> v2.Transform:
    """Return the transform of one (1, h, w) patch of 0..1: flips, brightness, contrast, blur and noise."""
    chance = recipe.augment_probability
    steps: list[nn.Module] = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    if recipe.brightness or recipe.contrast:
        steps.append(v2.ColorJitter(brightness=recipe.brightness, contrast=recipe.contrast))
    if recipe.blur > 0:
        least = min(0.1, recipe.blur)
        side = 2 * blur_reach(recipe.blur) + 1
        steps.append(v2.RandomApply([v2.GaussianBlur(side, (least, recipe.blur))], chance))
    if recipe.noise > 0:
        steps.append(v2.RandomApply([v2.GaussianNoise(0.0, recipe.noise)], chance))
    return v2.Compose(steps)
