"""A small network with something learnt, for the tests of the classifier."""

import numpy as np
import pytest
import torch

from emcurate.classifier.card import InputFormat
from emcurate.classifier.inference import use_threads
from emcurate.classifier.network import build_network, save_weights
from emcurate.classifier.transforms import evaluation_input


@pytest.fixture(scope="session")
def input_format():
    return InputFormat(image_size=32)


@pytest.fixture(scope="session")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 32, 32), np.uint8)


@pytest.fixture(scope="session")
def network(pixels, input_format):
    """Random weights whose batch norms have seen something, as after a training."""
    use_threads(1)
    torch.manual_seed(0)
    network = build_network()
    with torch.no_grad():
        for _ in range(20):
            network(evaluation_input(torch.from_numpy(pixels), input_format))
    return network.eval()


@pytest.fixture(scope="session")
def weights_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    save_weights(path, network.state_dict())
    return path
