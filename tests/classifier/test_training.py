"""Training changes what it should, and nothing else."""

import numpy as np
import pytest
import torch

from emcurate.classifier import training
from emcurate.classifier.network import build_network
from emcurate.classifier.recipe import Recipe
from emcurate.classifier.training import Trainer, count_training_threads, freeze
from emcurate.classifier.transforms import evaluation_input


@pytest.mark.parametrize(
    ("first", "learning"),
    [
        ("all", {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}),
        ("layer1", {"layer1", "layer2", "layer3", "layer4", "fc"}),
        ("layer4", {"layer4", "fc"}),
        ("none", {"fc"}),
    ],
)
def test_only_the_layers_asked_for_learn(first, learning):
    network = build_network()
    frozen = freeze(network, first)
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == learning
    assert len(frozen) + len(learning) == 7


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (4, 4), (64, 4)])
def test_training_never_has_more_threads_than_cores(monkeypatch, cores, threads):
    monkeypatch.setattr(training, "default_processes", lambda: cores)
    assert count_training_threads() == threads


def test_batch_norm_is_measured_over_patches_whatever_batches_they_came_in():
    """The first one sees what the first convolution gives, which its own statistics do not change."""
    random = np.random.default_rng(0)
    # Patches as different as can be: the last batch, of two, must not count as much as one of sixteen.
    pixels = (random.integers(0, 256, (18, 32, 32)) * random.random((18, 1, 1))).astype(np.uint8)
    trainer = Trainer(Recipe(init="random", image_size=32, batch_size=16), None, "cpu", "float32")
    trainer.train_epoch(pixels, np.arange(18) % 2 == 0, 1, lambda: None)
    with torch.no_grad():
        seen = trainer.network.conv1(evaluation_input(torch.from_numpy(pixels), trainer.input_format))
    mean = seen.double().mean(dim=(0, 2, 3))
    torch.testing.assert_close(trainer.network.bn1.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
    norms = [module for module in trainer.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
