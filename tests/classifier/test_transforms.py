"""Patches become the network's input: grey three times, and for training each varied by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from emcurate.classifier.card import IMAGENET_MEAN, IMAGENET_STD
from emcurate.classifier.recipe import Recipe
from emcurate.classifier.transforms import evaluation_input, scale_grey, training_input, training_transform

STILL = Recipe(brightness=0, contrast=0, noise=0, blur=0)


def test_input_is_grey_three_times_and_normalised(pixels, input_format):
    inputs = evaluation_input(torch.from_numpy(pixels), input_format).numpy()
    for channel in range(3):
        expected = (pixels / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        np.testing.assert_allclose(inputs[:, channel], expected, atol=1e-5)


def test_training_input_depends_on_the_seed_alone(pixels, input_format):
    source = torch.from_numpy(pixels)
    before = torch.get_rng_state()
    first, same, other = (training_input(source, input_format, Recipe(), seed) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_each_patch_is_varied_by_itself(pixels, input_format):
    source = torch.from_numpy(np.repeat(pixels[:1], 16, axis=0))
    inputs = training_input(source, input_format, Recipe(), 0)
    assert len({patch.numpy().tobytes() for patch in inputs}) == 16


def test_without_augmentation_only_flips_are_left(pixels, input_format):
    plain = evaluation_input(torch.from_numpy(pixels), input_format)
    varied = training_input(torch.from_numpy(pixels), input_format, STILL, 0)
    kinds = set()
    for before, after in zip(plain, varied, strict=True):
        flips = {dims: before.flip(dims) for dims in ((), (1,), (2,), (1, 2))}
        kinds |= {dims for dims, flipped in flips.items() if torch.equal(flipped, after)}
        assert any(torch.equal(flipped, after) for flipped in flips.values())
    assert len(kinds) > 1


@pytest.mark.parametrize(
    ("recipe", "most"),
    [
        (replace(STILL, brightness=0.2), 0.2 * 200),
        (replace(STILL, noise=0.02, augment_probability=1), 0.02 * 255 * 6),
    ],
)
def test_augmentation_stays_in_its_bounds(recipe, most):
    flat = torch.full((20, 32, 32), 200, dtype=torch.uint8)
    transform = training_transform(recipe)
    torch.manual_seed(0)
    change = torch.stack([transform(patch) for patch in scale_grey(flat)]) * 255 - 200
    assert 0 < change.abs().max() <= most + 1e-3
