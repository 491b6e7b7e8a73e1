"""The network and its weights: nothing is executed, and what belongs to another network is refused."""

import io
import os
import tomllib

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from torchvision.models import resnet18, resnet34

from emcurate.classifier.network import (
    build_network,
    load_classifier,
    load_plain,
    load_start_weights,
    read_state_dict,
    save_weights,
)
from emcurate.errors import InputError


def test_names_and_shapes_are_those_of_the_published_file():
    expected = resnet34(weights=None).state_dict()
    shapes = {name: tensor.shape for name, tensor in expected.items()}
    shapes |= {"fc.weight": (1, 512), "fc.bias": (1,)}
    assert {name: tensor.shape for name, tensor in build_network().state_dict().items()} == shapes


def test_saved_weights_load_with_weights_only_and_are_the_same_bytes_each_time(network, weights_file, tmp_path):
    plain = torch.load(weights_file, weights_only=True)
    assert list(plain) == list(network.state_dict())
    save_weights(tmp_path / "again.pth", network.state_dict())
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
    loaded = load_classifier(tmp_path / "weights.pth").state_dict()
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda: resnet18().state_dict(), r"no layer1\.2\.conv1\.weight, .* and \d+ more; fc.weight of shape \(1000"),
        (lambda: resnet34().state_dict(), r"fc\.weight of shape \(1000, 512\) instead of \(1, 512\)"),
        (lambda: build_network().state_dict() | {"a.b": torch.zeros(1)}, r"also a\.b"),
        (
            lambda: build_network().state_dict() | {"fc.bias": torch.full((1,), torch.nan)},
            r"NaN or infinities in fc\.bias",
        ),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, tensors, message):
    path = tmp_path / "weights.pth"
    torch.save(tensors(), path)
    with pytest.raises(InputError, match=message) as error:
        load_classifier(path)
    assert error.value.path == str(path)


def odd(name, change):
    def tensors():
        found = build_network().state_dict()
        return found | {name: change(found[name])}

    return tensors


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (odd("conv1.weight", lambda t: t.to(torch.int32)), r"conv1\.weight of the type int32"),
        (odd("conv1.weight", lambda t: t.to(torch.complex64)), r"conv1\.weight of the type complex64"),
        (odd("conv1.weight", lambda t: t > 0), r"conv1\.weight of the type bool"),
        (odd("conv1.weight", lambda t: t.to(torch.float8_e5m2)), r"conv1\.weight of the type float8_e5m2"),
        (odd("fc.weight", lambda t: t.to_sparse()), r"fc\.weight of the layout sparse_coo"),
        (odd("fc.weight", lambda t: t.to_sparse_csr()), r"fc\.weight of the layout sparse_csr"),
        (
            odd("fc.weight", lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
            r"fc\.weight of quantised numbers",
        ),
        (odd("fc.weight", lambda t: t.to("meta")), r"fc\.weight of no values"),
        (odd("fc.bias", lambda t: torch.full((1,), 1e300, dtype=torch.float64)), r"NaN or infinities in fc\.bias"),
        (odd("bn1.running_var", lambda t: -t), r"negative ones in bn1\.running_var"),
        (odd("bn1.num_batches_tracked", lambda t: torch.tensor(1j)), r"num_batches_tracked of the type complex64"),
        (odd("fc.bias", lambda t: torch.tensor(0.0)), r"fc\.bias of shape \(\) instead of \(1,\)"),
        (odd("fc.bias", lambda t: torch.nested.nested_tensor([t, t])), r"fc\.bias of "),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_odd_tensors_are_refused_by_name(tmp_path, tensors, message):
    path = tmp_path / "weights.pth"
    torch.save(tensors(), path)
    with pytest.raises(InputError, match=message) as error:
        load_classifier(path)
    assert error.value.path == str(path)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_floating_point_types_are_taken(network, tmp_path, kind):
    tensors = {name: t.to(kind) if t.is_floating_point() else t for name, t in network.state_dict().items()}
    torch.save(tensors, tmp_path / "weights.pth")
    loaded = load_classifier(tmp_path / "weights.pth").state_dict()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == (torch.float32 if tensor.is_floating_point() else torch.int64)
        assert torch.equal(loaded[name], tensor.to(loaded[name].dtype))


@pytest.mark.parametrize("zipped", [True, False])
def test_whatever_is_damaged_in_a_small_file_ends_in_an_error_that_names_it(tmp_path, zipped):
    path = tmp_path / "small.pth"
    content = {"a": torch.arange(6.0).reshape(2, 3), "b": {"c": torch.zeros(4, dtype=torch.int64)}, "d": [1, "x"]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(2000):
        data = np.frombuffer(whole, np.uint8).copy()
        places = random.integers(0, len(data), random.integers(1, 20))
        data[places] = random.integers(0, 256, len(places))
        source = io.BytesIO(data[: len(data) if random.random() < 0.8 else random.integers(len(data))].tobytes())
        try:
            load_plain(source, path, "tensors", "check it")
        except InputError as error:
            assert error.path == str(path)
            refused += 1
    assert refused > 500


def test_only_torch_versions_whose_plain_reading_is_safe_are_asked_for(root):
    """CVE-2025-32434: before 2.6, ``weights_only=True`` could be made to run code."""
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {requirement.name: requirement.specifier for requirement in map(Requirement, extras["classifier"])}
    assert not any(asked["torch"].contains(old) for old in ("2.4.1", "2.5.0", "2.5.1"))
    assert asked["torch"].contains("2.6.0")
    # Each release of torchvision goes with one of torch; 0.21 is that of 2.6.
    assert not asked["torchvision"].contains("0.20.1") and asked["torchvision"].contains("0.21.0")


class Trap:
    """Unpickling this would make a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_weights_are_never_executed(tmp_path):
    torch.save({"fc.bias": Trap(tmp_path / "sprung")}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="Python objects that only pickle can read"):
        read_state_dict(tmp_path / "weights.pth")
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
        read_state_dict(tmp_path / "weights.pth")


def test_a_cut_off_file_and_a_missing_one_are_refused(weights_file, tmp_path):
    (tmp_path / "half.pth").write_bytes(weights_file.read_bytes()[: 1 << 20])
    with pytest.raises(InputError, match="damaged data"):
        read_state_dict(tmp_path / "half.pth")
    with pytest.raises(InputError, match="no such file"):
        read_state_dict(tmp_path / "none.pth")


def test_tensors_and_other_things_are_told_apart(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="found a list of other things"):
        read_state_dict(tmp_path / "list.pth")


def test_start_weights_of_another_head_keep_the_new_head(tmp_path, weights_file, network):
    imagenet = resnet34(weights=None).state_dict()
    torch.save(imagenet, tmp_path / "imagenet.pth")
    fresh = build_network()
    head = fresh.fc.weight.clone()
    assert not load_start_weights(fresh, tmp_path / "imagenet.pth")
    assert torch.equal(fresh.fc.weight, head)
    assert torch.equal(fresh.conv1.weight, imagenet["conv1.weight"])
    assert load_start_weights(fresh, weights_file)
    assert torch.equal(fresh.fc.weight, network.fc.weight)
