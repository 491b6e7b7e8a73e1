"""Fast inference changes nothing that is decided, and follows the device."""

import numpy as np
import pytest
import torch

from emcurate.classifier import inference
from emcurate.classifier.inference import Scorer, choose_device, choose_precision, fold_batch_norm, use_threads
from emcurate.classifier.transforms import evaluation_input
from emcurate.errors import InputError


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads that wait for each other are slow where other work keeps the cores busy."""
    use_threads(1)


def plain_scores(network, pixels, input_format):
    with torch.inference_mode():
        logits = network(evaluation_input(torch.from_numpy(pixels), input_format).contiguous())
    return torch.sigmoid(logits).squeeze(1).numpy()


def test_folding_batch_norm_changes_no_score(network, pixels, input_format):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    np.testing.assert_allclose(
        plain_scores(folded, pixels, input_format), plain_scores(network, pixels, input_format), atol=1e-5
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_fast_scores_are_those_of_the_plain_network(network, pixels, input_format, precision, tolerance):
    scores = Scorer(network, input_format, "cpu", precision).score(pixels)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, plain_scores(network, pixels, input_format), atol=tolerance)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_score_depends_on_the_patch_alone(network, pixels, input_format, precision):
    scorer = Scorer(network, input_format, "cpu", precision)
    together = scorer.score(pixels)
    order = np.random.default_rng(1).permutation(len(pixels))
    np.testing.assert_array_equal(scorer.score(pixels[order]), together[order])
    np.testing.assert_array_equal(scorer.score(pixels[4:5]), together[4:5])
    use_threads(2)
    np.testing.assert_array_equal(scorer.score(pixels), together)


def test_no_patches_no_scores(network, input_format):
    assert Scorer(network, input_format, "cpu", "float32").score(np.zeros((0, 32, 32), np.uint8)).shape == (0,)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cuda: expected a device that PyTorch can use"):
        choose_device("cuda")
    assert choose_device("cpu") == "cpu"


def test_precision_follows_the_device(monkeypatch):
    assert choose_precision("cuda") == "float16"
    assert choose_precision("mps") == "float32"
    for has, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(inference, "has_cpu_bfloat16", lambda has=has: has)
        assert choose_precision("cpu") == name
    assert choose_precision("cpu", "float16") == "float16"
