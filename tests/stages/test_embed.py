"""Features of patches: those of the plain network, kept, the same for shards, never of two networks in one table."""

import importlib
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
import torchvision

from emcurate.classifier import inference
from emcurate.classifier.batches import BatchJobs, read_batch
from emcurate.classifier.card import InputFormat, write_card
from emcurate.classifier.network import build_network, load_classifier, save_weights
from emcurate.classifier.transforms import evaluation_input
from emcurate.errors import InputError
from emcurate.patches.features import FEATURES_FILE, FeatureTable
from emcurate.patches.pathlists import write_path_list
from emcurate.running.locks import release_locks
from tests.patch_sets import make_patch_set, pack

embed = importlib.import_module("filtered.embed")

SIZE = 32
GREY = ("--mean", "0.5", "--std", "0.25")
FORMAT = InputFormat(SIZE, (0.5,) * 3, (0.25,) * 3)

# Stored numbers have 11 bits.
TOLERANCE = 2e-3


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Several batches even of so few patches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "BATCH_CPU_MOST", 8)
        yield


@pytest.fixture(scope="module")
def patch_set(tmp_path_factory):
    return make_patch_set(tmp_path_factory.mktemp("patches"))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A ResNet18 whose batch norms have seen something, and its file."""
    inference.use_threads(1)
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(8, 3, SIZE, SIZE))
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return network.eval(), path


def run(fpaths, savedir, weights, *flags, model="torchvision/resnet18"):
    words = [str(fpaths), str(savedir), "--model", model, "--weights", str(weights), "--device", "cpu", "-p", "1"]
    sized = [] if model == "classifier" else ["--image-size", str(SIZE), *GREY]
    try:
        return embed.main([*words, *sized, *map(str, flags)])
    finally:
        release_locks()


def read(savedir):
    table = FeatureTable(savedir / FEATURES_FILE)
    return dict(zip(table.names.to_pylist(), np.concatenate(list(table.read())), strict=True))


def read_pixels(paths):
    return read_batch(BatchJobs(paths, np.arange(len(paths)), 99, SIZE)[0]).pixels


def plain(network, paths):
    pixels = torch.from_numpy(read_pixels(paths))
    with torch.inference_mode():
        return network(evaluation_input(pixels, FORMAT)).numpy()


def headless(network):
    body = torchvision.models.resnet18()
    body.load_state_dict(network.state_dict())
    body.fc = torch.nn.Identity()
    return body.eval()


def stem(path):
    return path.rpartition("/")[2].removesuffix(".tiff")


@pytest.fixture(scope="module")
def embedded(patch_set, resnet, tmp_path_factory):
    savedir = tmp_path_factory.mktemp("embedded")
    assert run(patch_set.fpaths, savedir, resnet[1]) == 0
    return savedir


def test_features_are_those_of_the_plain_network_and_other_libraries_read_them(embedded, patch_set, resnet):
    found = read(embedded)
    assert list(found) == [stem(path) for path in patch_set.paths]
    wanted = plain(headless(resnet[0]), patch_set.paths)
    np.testing.assert_allclose(np.stack(list(found.values())), wanted, rtol=TOLERANCE, atol=TOLERANCE)
    table = pl.read_parquet(embedded / FEATURES_FILE)
    np.testing.assert_array_equal(np.stack(table["features"].to_numpy()), np.stack(list(found.values())))
    assert (
        str(pq.read_schema(embedded / FEATURES_FILE).field("features").type)
        == "fixed_size_list<element: halffloat>[512]"
    )
    assert FeatureTable(embedded / FEATURES_FILE).about["model"] == "torchvision/resnet18"


def test_the_classifiers_own_body_gives_what_its_head_is_given(patch_set, tmp_path):
    torch.manual_seed(0)
    network = build_network()
    with torch.no_grad():
        network(torch.randn(8, 3, SIZE, SIZE))
    weights = tmp_path / "weights.pth"
    save_weights(weights, network.state_dict())
    write_card(weights, FORMAT, 0.5, {})
    assert run(patch_set.fpaths, tmp_path / "out", weights, model="classifier") == 0
    body = load_classifier(weights)
    head, body.fc = body.fc, torch.nn.Identity()
    wanted = plain(body, patch_set.paths)
    found = np.stack(list(read(tmp_path / "out").values()))
    np.testing.assert_allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    assert head.in_features == found.shape[1]


def test_shards_interrupted_and_grown_runs_give_the_same_bytes(
    embedded, patch_set, resnet, tmp_path, capsys, monkeypatch
):
    whole = (embedded / FEATURES_FILE).read_bytes()
    shards = tmp_path / "shards.npz"
    write_path_list(shards, pack(patch_set.paths, tmp_path / "shards"))
    assert run(shards, tmp_path / "of shards", resnet[1], "-p", "2") == 0
    assert (tmp_path / "of shards" / FEATURES_FILE).read_bytes() == whole

    started = inference.BatchRunner.start
    batches = []

    def stop(self, pixels):
        batches.append(len(pixels))
        if len(batches) == 4:  # the first counts features
            raise KeyboardInterrupt
        return started(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(inference.BatchRunner, "start", stop)
        assert run(patch_set.fpaths, tmp_path / "stopped", resnet[1]) == 130
    assert not (tmp_path / "stopped" / FEATURES_FILE).exists()
    capsys.readouterr()
    assert run(patch_set.fpaths, tmp_path / "stopped", resnet[1]) == 0
    assert "32 patches embedded, 8 embedded before" in capsys.readouterr().out
    assert (tmp_path / "stopped" / FEATURES_FILE).read_bytes() == whole

    grown = tmp_path / "grown.npz"
    write_path_list(grown, patch_set.paths[:30])
    assert run(grown, tmp_path / "grown", resnet[1]) == 0
    write_path_list(grown, patch_set.paths)
    capsys.readouterr()
    assert run(grown, tmp_path / "grown", resnet[1]) == 0
    assert "10 patches embedded, 30 embedded before" in capsys.readouterr().out
    assert (tmp_path / "grown" / FEATURES_FILE).read_bytes() == whole


def test_a_finished_run_does_nothing_and_another_network_is_refused(embedded, patch_set, resnet, capsys, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in embedded.iterdir()}
    assert run(patch_set.fpaths, embedded, resnet[1]) == 0
    assert "0 patches embedded, 40 embedded before" in capsys.readouterr().out
    assert run(patch_set.fpaths, embedded, resnet[1], "--image-size", "48") == 1
    assert "expected results made with image_size 48, found results made with image_size 32" in capsys.readouterr().err
    assert run(patch_set.fpaths, embedded, resnet[1], "--verify") == 0
    assert {path: path.stat().st_mtime_ns for path in embedded.iterdir()} == before


def test_a_patch_that_cannot_be_read_is_named_and_has_no_row(resnet, tmp_path, capsys):
    patches = make_patch_set(tmp_path, count=12)
    broken = patches.paths[5]
    whole = Path(broken).read_bytes()
    Path(broken).write_bytes(b"II*\0")
    assert run(patches.fpaths, tmp_path / "out", resnet[1]) == 1
    assert f"{broken}: expected" in capsys.readouterr().err
    assert stem(broken) not in read(tmp_path / "out") and len(read(tmp_path / "out")) == 11
    Path(broken).write_bytes(whole)
    assert run(patches.fpaths, tmp_path / "out", resnet[1]) == 0
    assert stem(broken) in read(tmp_path / "out")


def test_what_a_self_supervised_training_has_kept_is_taken_apart(patch_set, resnet, embedded, tmp_path):
    network, _ = resnet
    tensors = {f"module.encoder_q.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"module.encoder_k.{name}": tensor * 0 for name, tensor in network.state_dict().items()}
    path = tmp_path / "moco.pth.tar"
    torch.save({"epoch": 200, "state_dict": {**tensors, "module.queue": torch.zeros(2, 3)}}, path)
    assert run(patch_set.fpaths, tmp_path / "out", path) == 0
    np.testing.assert_array_equal(np.stack([*read(tmp_path / "out").values()]), np.stack([*read(embedded).values()]))


def test_a_network_of_one_channel_sees_what_it_was_trained_on(patch_set, resnet, tmp_path):
    network = headless(resnet[0])
    tensors = dict(network.state_dict())
    grey = torchvision.models.resnet18()
    grey.conv1, grey.fc = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False), torch.nn.Identity()
    tensors["conv1.weight"] = tensors["conv1.weight"].sum(dim=1, keepdim=True)
    grey.load_state_dict(tensors)
    torch.save(tensors, tmp_path / "grey.pth")
    assert run(patch_set.fpaths, tmp_path / "out", tmp_path / "grey.pth") == 0
    pixels = torch.from_numpy(read_pixels(patch_set.paths))
    with torch.inference_mode():
        wanted = grey.eval()(evaluation_input(pixels, FORMAT)[:, :1]).numpy()
    found = np.stack([*read(tmp_path / "out").values()])
    np.testing.assert_allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)


def test_timm_gives_its_own_features(patch_set, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet.r160_in1k", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    assert run(patch_set.fpaths, tmp_path / "out", tmp_path / "w.pth", model="timm/test_resnet.r160_in1k") == 0
    pixels = torch.from_numpy(read_pixels(patch_set.paths))
    with torch.inference_mode():
        wanted = network.eval().forward_head(
            network.forward_features(evaluation_input(pixels, FORMAT)), pre_logits=True
        )
    found = np.stack([*read(tmp_path / "out").values()])
    np.testing.assert_allclose(found, wanted.numpy(), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("torchvision/resnet50", "expected the 265 tensors of torchvision/resnet50 without its last layer"),
        ("torchvision/resnet81", "expected a network that torchvision has, found none of that name; did you mean"),
        ("torchvision/squeezenet1_0", "expected a network that ends in a linear layer"),
        ("torchvision/vit_b_16", "tensors of torchvision/vit_b_16 without its last layer, found no"),
    ],
)
def test_weights_and_networks_that_do_not_fit_are_named(patch_set, resnet, tmp_path, capsys, model, words):
    assert run(patch_set.fpaths, tmp_path / "out", resnet[1], model=model) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / FEATURES_FILE).exists()


def test_without_a_network_it_says_where_weights_may_come_from(patch_set, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    words = [str(patch_set.fpaths), str(tmp_path / "out"), "--model", "torchvision/resnet18", "-p", "1"]
    assert embed.main(words) == 1
    said = capsys.readouterr().err
    assert "expected to download torchvision/resnet18's ImageNet weights once, found no answer" in said
    assert "name a file with --weights, or take --model classifier with weights of train_nn.py" in said


@pytest.mark.parametrize("flags", [["--model", "resnet18"], ["--mean", "0.1", "0.2"], ["--image-size", "8"]])
def test_wrong_arguments_end_it_before_anything_is_read(patch_set, tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as ended:
        embed.main([str(patch_set.fpaths), str(tmp_path / "out"), *flags])
    assert ended.value.code == 2
    assert f"argument {flags[0]}: expected" in capsys.readouterr().err


def test_a_damaged_table_is_named(embedded, tmp_path):
    data = bytearray((embedded / FEATURES_FILE).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / FEATURES_FILE).write_bytes(data)
    with pytest.raises(InputError, match="expected a table of features"):
        list(FeatureTable(tmp_path / FEATURES_FILE).read())
    (tmp_path / FEATURES_FILE).write_bytes(b"PAR1")
    with pytest.raises(InputError, match="expected a table of features"):
        FeatureTable(tmp_path / FEATURES_FILE)
