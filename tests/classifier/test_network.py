"""The network, its inputs, its weights, and inference that is fast without changing what is decided."""

import os

import numpy as np
import pytest
import torch
from torchvision.models import resnet18, resnet34

from emcurate.classifier import network as classifier
from emcurate.classifier.card import IMAGENET_MEAN, IMAGENET_STD, InputFormat
from emcurate.classifier.recipe import Augmentation
from emcurate.errors import InputError

FORMAT = InputFormat(image_size=32)
STILL = Augmentation(brightness=0, contrast=0, noise=0, blur=0)


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads that wait for each other are slow where other work keeps the cores busy."""
    classifier.use_threads(1)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 32, 32), np.uint8)


@pytest.fixture(scope="module")
def network(pixels):
    """Random weights whose batch norms have seen something, as after a training."""
    torch.manual_seed(0)
    network = classifier.build_network()
    with torch.no_grad():
        for _ in range(20):
            network(classifier.evaluation_input(torch.from_numpy(pixels), FORMAT))
    return network.eval()


@pytest.fixture(scope="module")
def weights_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    classifier.save_weights(path, network.state_dict())
    return path


def test_input_is_grey_three_times_and_normalised(pixels):
    inputs = classifier.evaluation_input(torch.from_numpy(pixels), FORMAT).numpy()
    for channel in range(3):
        expected = (pixels / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        np.testing.assert_allclose(inputs[:, channel], expected, atol=1e-5)


def test_training_input_depends_on_the_seed_alone(pixels):
    source = torch.from_numpy(pixels)
    before = torch.get_rng_state()
    first, same, other = (classifier.training_input(source, FORMAT, Augmentation(), seed) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_each_patch_is_varied_by_itself(pixels):
    source = torch.from_numpy(np.repeat(pixels[:1], 16, axis=0))
    inputs = classifier.training_input(source, FORMAT, Augmentation(), 0)
    assert len({patch.numpy().tobytes() for patch in inputs}) == 16


def test_without_augmentation_only_flips_are_left(pixels):
    plain = classifier.evaluation_input(torch.from_numpy(pixels), FORMAT)
    varied = classifier.training_input(torch.from_numpy(pixels), FORMAT, STILL, 0)
    kinds = set()
    for before, after in zip(plain, varied, strict=True):
        flips = {dims: before.flip(dims) for dims in ((), (1,), (2,), (1, 2))}
        kinds |= {dims for dims, flipped in flips.items() if torch.equal(flipped, after)}
        assert any(torch.equal(flipped, after) for flipped in flips.values())
    assert len(kinds) > 1


@pytest.mark.parametrize(
    ("augmentation", "most"),
    [(Augmentation(0.2, 0, 0, 0), 0.2 * 200), (Augmentation(0, 0, 0.02, 0, 1), 0.02 * 255 * 6)],
)
def test_augmentation_stays_in_its_bounds(augmentation, most):
    flat = torch.full((20, 32, 32), 200, dtype=torch.uint8)
    transform = classifier.training_transform(augmentation)
    torch.manual_seed(0)
    change = torch.stack([transform(patch) for patch in classifier.scale_grey(flat)]) * 255 - 200
    assert 0 < change.abs().max() <= most + 1e-3


def test_names_and_shapes_are_those_of_the_published_file():
    expected = resnet34(weights=None).state_dict()
    shapes = {name: tensor.shape for name, tensor in expected.items()}
    shapes |= {"fc.weight": (1, 512), "fc.bias": (1,)}
    assert {name: tensor.shape for name, tensor in classifier.build_network().state_dict().items()} == shapes


def test_saved_weights_load_with_weights_only_and_are_the_same_bytes_each_time(network, weights_file, tmp_path):
    plain = torch.load(weights_file, weights_only=True)
    assert list(plain) == list(network.state_dict())
    classifier.save_weights(tmp_path / "again.pth", network.state_dict())
    assert (tmp_path / "again.pth").read_bytes() == weights_file.read_bytes()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {"model": {f"module.{name}": tensor for name, tensor in tensors.items()}},
        lambda tensors: {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")},
    ],
)
def test_wrapped_and_prefixed_weights_are_understood(network, tmp_path, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / "weights.pth")
    loaded = classifier.load_classifier(tmp_path / "weights.pth").state_dict()
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda: resnet18().state_dict(), r"no layer1\.2\.conv1\.weight, .* and \d+ more; fc.weight of shape \(1000"),
        (lambda: resnet34().state_dict(), r"fc\.weight of shape \(1000, 512\) instead of \(1, 512\)"),
        (lambda: classifier.build_network().state_dict() | {"a.b": torch.zeros(1)}, r"also a\.b"),
        (
            lambda: classifier.build_network().state_dict() | {"fc.bias": torch.full((1,), torch.nan)},
            r"NaN or infinities in fc\.bias",
        ),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, tensors, message):
    path = tmp_path / "weights.pth"
    torch.save(tensors(), path)
    with pytest.raises(InputError, match=message) as error:
        classifier.load_classifier(path)
    assert error.value.path == str(path)


class Trap:
    """Unpickling this would make a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_weights_are_never_executed(tmp_path):
    torch.save({"fc.bias": Trap(tmp_path / "sprung")}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="Python objects that only pickle can read"):
        classifier.read_state_dict(tmp_path / "weights.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found damaged data"),
        (b"<html>not found</html>", "found other data"),
        (b"PK\3\4 no zip", "found "),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path, content, message):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match=message):
        classifier.read_state_dict(tmp_path / "weights.pth")


def test_a_cut_off_file_and_a_missing_one_are_refused(weights_file, tmp_path):
    (tmp_path / "half.pth").write_bytes(weights_file.read_bytes()[: 1 << 20])
    with pytest.raises(InputError, match="damaged data"):
        classifier.read_state_dict(tmp_path / "half.pth")
    with pytest.raises(InputError, match="no such file"):
        classifier.read_state_dict(tmp_path / "none.pth")


def test_tensors_and_other_things_are_told_apart(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="found a list of other things"):
        classifier.read_state_dict(tmp_path / "list.pth")


def test_start_weights_of_another_head_keep_the_new_head(tmp_path, weights_file, network):
    imagenet = resnet34(weights=None).state_dict()
    torch.save(imagenet, tmp_path / "imagenet.pth")
    fresh = classifier.build_network()
    head = fresh.fc.weight.clone()
    assert not classifier.load_start_weights(fresh, tmp_path / "imagenet.pth")
    assert torch.equal(fresh.fc.weight, head)
    assert torch.equal(fresh.conv1.weight, imagenet["conv1.weight"])
    assert classifier.load_start_weights(fresh, weights_file)
    assert torch.equal(fresh.fc.weight, network.fc.weight)


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
    network = classifier.build_network()
    frozen = classifier.freeze(network, first)
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == learning
    assert len(frozen) + len(learning) == 7


def plain_scores(network, pixels):
    with torch.inference_mode():
        logits = network(classifier.evaluation_input(torch.from_numpy(pixels), FORMAT).contiguous())
    return torch.sigmoid(logits).squeeze(1).numpy()


def test_folding_batch_norm_changes_no_score(network, pixels):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = classifier.fold_batch_norm(network)
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    np.testing.assert_allclose(plain_scores(folded, pixels), plain_scores(network, pixels), atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_fast_scores_are_those_of_the_plain_network(network, pixels, precision, tolerance):
    scores = classifier.Scorer(network, FORMAT, "cpu", precision).score(pixels)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, plain_scores(network, pixels), atol=tolerance)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_score_depends_on_the_patch_alone(network, pixels, precision):
    scorer = classifier.Scorer(network, FORMAT, "cpu", precision)
    together = scorer.score(pixels)
    order = np.random.default_rng(1).permutation(len(pixels))
    np.testing.assert_array_equal(scorer.score(pixels[order]), together[order])
    np.testing.assert_array_equal(scorer.score(pixels[4:5]), together[4:5])
    classifier.use_threads(2)
    np.testing.assert_array_equal(scorer.score(pixels), together)


def test_no_patches_no_scores(network):
    assert classifier.Scorer(network, FORMAT, "cpu", "float32").score(np.zeros((0, 32, 32), np.uint8)).shape == (0,)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device cuda: expected a device that PyTorch can use"):
        classifier.choose_device("cuda")
    assert classifier.choose_device("cpu") == "cpu"


def test_precision_follows_the_device(monkeypatch):
    assert classifier.choose_precision("cuda") == "float16"
    assert classifier.choose_precision("mps") == "float32"
    for has, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(classifier, "has_cpu_bfloat16", lambda has=has: has)
        assert classifier.choose_precision("cpu") == name
    assert classifier.choose_precision("cpu", "float16") == "float16"
