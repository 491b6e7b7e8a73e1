"""Training changes what it should, and nothing else."""

import pytest

from emcurate.classifier.network import build_network
from emcurate.classifier.training import freeze


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
