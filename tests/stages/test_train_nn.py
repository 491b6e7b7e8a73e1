"""Training: what it writes, that it repeats itself exactly, goes on after a kill, and says what is wrong."""

import csv
import importlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from emcurate.classifier import training
from emcurate.classifier.card import describe_weights
from emcurate.classifier.inference import Scorer
from emcurate.classifier.network import load_classifier
from emcurate.classifier.outcome import OUTPUTS
from emcurate.labeling.store import LabelStore
from emcurate.patches import labels
from emcurate.patches.pathlists import write_path_list
from tests.patch_sets import make_patch_set

train_nn = importlib.import_module("filtered.train_nn")

# Small and quick, but with every part of the recipe that matters. float32 and one thread: quick for tiny inputs.
QUICK = ["--init", "random", "--image-size", "32", "--epochs", "2", "--batch-size", "16", "-p", "1"]
QUICK += ["--precision", "float32", "--device", "cpu"]


@pytest.fixture(scope="module")
def patch_set(tmp_path_factory):
    return make_patch_set(tmp_path_factory.mktemp("patches"))


def train(patch_set, savedir, *flags, label_file=None):
    return train_nn.main([str(patch_set.fpaths), str(label_file or patch_set.labels), str(savedir), *QUICK, *flags])


@pytest.fixture(scope="module")
def trained(patch_set, tmp_path_factory):
    """A finished training."""
    savedir = tmp_path_factory.mktemp("trained")
    assert train(patch_set, savedir) == 0
    return savedir


def contents(savedir):
    return {path.name: path.read_bytes() for path in savedir.iterdir() if path.is_file()}


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_everything_promised_is_written(trained):
    assert sorted(contents(trained)) == sorted(OUTPUTS)
    for name in OUTPUTS:
        if name.endswith(".png"):
            assert np.asarray(Image.open(trained / name).convert("L")).std() > 5
    assert not (trained / ".emcurate" / "train_nn").exists()


def test_weights_are_a_plain_state_dict_with_a_card(trained):
    tensors = torch.load(trained / "patch_quality_classifier_nn.pth", weights_only=True)
    assert tensors["fc.weight"].shape == (1, 512)
    load_classifier(trained / "patch_quality_classifier_nn.pth")
    described = describe_weights(trained / "patch_quality_classifier_nn.pth")
    assert (described.input_format.image_size, described.threshold) == (32, 0.5)
    card = json.loads((trained / "patch_quality_classifier_nn.json").read_text())
    assert card["patches"] == {
        "training": {"informative": 10, "uninformative": 10},
        "validation": {"informative": 2, "uninformative": 2},
    }
    assert card["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert card["recipe"]["finetune_layer"] == "all"


def test_metrics_agree_with_the_scores_written(trained, patch_set):
    rows = read_csv(trained / "patch_quality_nn_scores.csv")
    truth = dict(zip(patch_set.paths, patch_set.truth.tolist(), strict=True))
    assert len(rows) == 24
    assert all(row["label"] == ("informative" if truth[row["path"]] else "uninformative") for row in rows)
    held = [row for row in rows if row["part"] == "validation"]
    right = [(float(row["score"]) > 0.5) == (row["label"] == "informative") for row in held]
    metrics = json.loads((trained / "patch_quality_nn_metrics.json").read_text())
    assert metrics["count"] == len(held) == 4
    assert metrics["accuracy"] == pytest.approx(np.mean(right))
    assert metrics["confusion"][0][0] + metrics["confusion"][1][1] == sum(right)
    epochs = read_csv(trained / "patch_quality_nn_epochs.csv")
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    best = max(epochs, key=lambda row: (float(row["validation_auc"]), -float(row["validation_loss"])))
    assert metrics["best_epoch"] == int(best["epoch"])
    assert metrics["auc"] == pytest.approx(float(best["validation_auc"]))


def test_the_kept_weights_give_the_scores_of_the_best_epoch(trained, patch_set):
    rows = read_csv(trained / "patch_quality_nn_scores.csv")
    described = describe_weights(trained / "patch_quality_classifier_nn.pth")
    network = load_classifier(described.path)
    scorer = Scorer(network, described.input_format, "cpu", "float32")
    from emcurate.classifier.batches import BatchJobs, read_batch

    batch = read_batch(BatchJobs([row["path"] for row in rows], np.arange(len(rows)), 99, 32)[0])
    np.testing.assert_allclose(scorer.score(batch.pixels), [float(row["score"]) for row in rows], atol=1e-4)


def test_same_command_again_does_nothing(trained, patch_set, capsys):
    before = contents(trained)
    assert train(patch_set, trained) == 0
    assert "already trained" in capsys.readouterr().out
    assert contents(trained) == before


def test_other_settings_or_labels_do_not_replace_results(trained, patch_set, tmp_path, capsys):
    before = contents(trained)
    assert train(patch_set, trained, "--seed", "5") == 1
    assert "use another output directory, or --overwrite" in capsys.readouterr().err
    words = labels.load_labels(patch_set.labels)
    words[0] = labels.NONE
    labels.save_labels(tmp_path / "labels.npy", words)
    assert train(patch_set, trained, label_file=tmp_path / "labels.npy") == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'labels.npy'}: expected the input that its results in {trained} were made of" in error
    assert "--overwrite to make them again" in error
    assert contents(trained) == before


def test_files_of_another_origin_are_not_replaced(patch_set, tmp_path, capsys):
    (tmp_path / "patch_quality_classifier_nn.pth").write_bytes(b"mine")
    assert train(patch_set, tmp_path) == 1
    assert "files of another origin" in capsys.readouterr().err
    assert (tmp_path / "patch_quality_classifier_nn.pth").read_bytes() == b"mine"


def test_a_deleted_picture_is_noticed_and_all_is_made_again_with_the_same_bytes(trained, patch_set, tmp_path):
    shutil.copytree(trained, tmp_path / "out")
    before = contents(trained)
    (tmp_path / "out" / "patch_quality_nn_roc_curve.png").unlink()
    (tmp_path / "out" / "patch_quality_nn_epochs.csv").write_text("epoch")
    assert train(patch_set, tmp_path / "out") == 0
    assert contents(tmp_path / "out") == before


def test_overwrite_leaves_what_a_fresh_training_gives(trained, patch_set, tmp_path):
    shutil.copytree(trained, tmp_path / "out")
    flags = ["--seed", "5", "--epochs", "1", "--finetune-layer", "none"]
    assert train(patch_set, tmp_path / "out", *flags, "--overwrite") == 0
    assert train(patch_set, tmp_path / "fresh", *flags) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


class Killed(BaseException):
    """Ends a training from within, as a kill would."""


def test_an_interrupted_training_goes_on_and_ends_with_the_same_bytes(
    trained, patch_set, tmp_path, monkeypatch, capsys
):
    save = training.Trainer.save_checkpoint

    def save_and_die(self, path, progress):
        save(self, path, progress)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "save_checkpoint", save_and_die)
        with pytest.raises(Killed):
            train(patch_set, tmp_path)
    assert contents(tmp_path) == {}
    # Another training must not go on from this one's checkpoint.
    assert train(patch_set, tmp_path, "--seed", "5") == 1
    assert "one of another that was broken off" in capsys.readouterr().err
    assert train(patch_set, tmp_path, "--resume") == 0
    assert "went on after epoch 1" in capsys.readouterr().out
    assert contents(tmp_path) == contents(trained)


def test_resume_without_a_checkpoint_is_refused(patch_set, tmp_path, capsys):
    assert train(patch_set, tmp_path, "--resume") == 1
    assert "a checkpoint to go on from, found none" in capsys.readouterr().err


def test_start_weights_layers_and_the_other_options(trained, patch_set, tmp_path):
    weights = trained / "patch_quality_classifier_nn.pth"
    flags = ["--init", str(weights), "--finetune-layer", "none", "--optimizer", "adamw", "--schedule", "cosine"]
    flags += ["--class-weights", "--patience", "1", "--epochs", "9", "--split", "dataset", "--threshold", "0.4"]
    assert train(patch_set, tmp_path, *flags, "-lr", "1e-12") == 0
    before, after = (torch.load(d / weights.name, weights_only=True) for d in (trained, tmp_path))
    assert {name for name in before if not torch.allclose(before[name], after[name])} == set()
    # Nothing gets better at such a learning rate, so patience ends it.
    assert len(read_csv(tmp_path / "patch_quality_nn_epochs.csv")) < 9
    held = {
        row["path"].split("-LOC-")[0]
        for row in read_csv(tmp_path / "patch_quality_nn_scores.csv")
        if row["part"] == "validation"
    }
    learnt = {
        row["path"].split("-LOC-")[0]
        for row in read_csv(tmp_path / "patch_quality_nn_scores.csv")
        if row["part"] == "training"
    }
    assert held and not held & learnt
    assert describe_weights(tmp_path / weights.name).threshold == 0.4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["none"] * 40,
            "at least 2 patches labelled informative and 2 labelled uninformative, found 40 labels, all none or unsure",
        ),
        (["informative"] * 40, "found 40 and 0 among 40"),
        (["informative", "uninformative"] + ["none"] * 38, "found 1 and 1 among 40"),
        (["informative"] * 39, "expected 40 labels, one for each path of the list, found 39"),
    ],
)
def test_labels_that_cannot_teach_are_refused(patch_set, tmp_path, capsys, words, message):
    np.save(tmp_path / "labels.npy", np.array(words))
    assert train(patch_set, tmp_path / "out", label_file=tmp_path / "labels.npy") == 1
    error = capsys.readouterr().err
    assert message in error and str(tmp_path / "labels.npy") in error


def test_labels_of_another_list_train_on_their_own_patches(patch_set, tmp_path, capsys):
    """The labels were given to a list of the same length, half of whose patches were others."""
    words = labels.load_labels(patch_set.labels)
    others = [f"/gone/set {i}-LOC-2d_0_0.tiff" for i in range(20)]
    older = others + patch_set.paths[:20][::-1]
    store = LabelStore(tmp_path / "labels.npy", older, "anna")
    store.set_labels(range(20), [labels.CODE_INFORMATIVE] * 20)
    codes = labels.encode_labels(words[:20])[::-1].tolist()
    store.set_labels(range(20, 40), codes)
    store.set_labels([20], [labels.CODE_UNSURE])
    assert train(patch_set, tmp_path / "out", label_file=tmp_path / "labels.npy") == 0
    told = capsys.readouterr()
    assert "20 labels were carried over to their patches; 20 belong to patches no longer listed" in told.out + told.err
    rows = read_csv(tmp_path / "out" / "patch_quality_nn_scores.csv")
    expected = {path: str(word) for path, word in zip(patch_set.paths[:19], words[:19], strict=True)}
    assert {row["path"]: row["label"] for row in rows} == expected


def test_fewer_labels_than_a_batch_are_enough_but_warned_of(patch_set, tmp_path, capsys):
    words = labels.new_labels(40)
    words[:4] = ["informative", "uninformative"] * 2
    labels.save_labels(tmp_path / "labels.npy", words)
    flags = ["--epochs", "1", "--finetune-layer", "none", "--batch-size", "64"]
    assert train(patch_set, tmp_path / "out", *flags, label_file=tmp_path / "labels.npy") == 0
    assert "only 1 informative and 1 uninformative patches validate" in capsys.readouterr().err


def test_unreadable_patches_are_named_and_the_rest_goes_on(patch_set, tmp_path, capsys):
    shutil.copytree(patch_set.fpaths.parent / "patches", tmp_path / "patches")
    paths = [path.replace(str(patch_set.fpaths.parent), str(tmp_path)) for path in patch_set.paths]
    write_path_list(tmp_path / "fpaths.npz", paths)
    with open(paths[0], "wb") as file:
        file.write(b"II*\0")
    (tmp_path / "patches" / paths[1].rpartition("/")[2]).unlink()
    flags = ["--epochs", "1", "--finetune-layer", "none"]
    for _ in range(2):
        arguments = [str(tmp_path / "fpaths.npz"), str(patch_set.labels), str(tmp_path / "out"), *QUICK, *flags]
        assert train_nn.main(arguments) == 1
        error = capsys.readouterr().err
        assert paths[0] in error and paths[1] in error
    assert len(read_csv(tmp_path / "out" / "patch_quality_nn_scores.csv")) == 22


def test_moved_patches_are_found_with_reroot(patch_set, tmp_path):
    write_path_list(tmp_path / "old.npz", [p.replace(str(patch_set.fpaths.parent), "/gone") for p in patch_set.paths])
    flags = ["--epochs", "1", "--finetune-layer", "none", "--reroot", "/gone", str(patch_set.fpaths.parent)]
    arguments = [str(tmp_path / "old.npz"), str(patch_set.labels), str(tmp_path / "out"), *QUICK, *flags]
    assert train_nn.main(arguments) == 0


def test_one_dataset_cannot_be_split_by_dataset(tmp_path, capsys):
    single = make_patch_set(tmp_path, count=8, labelled=8, datasets=1)
    assert train(single, tmp_path / "out", "--split", "dataset") == 1
    assert "use --split random" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_the_training(patch_set, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.Trainer, "train_epoch", lambda *arguments: float("nan"))
    assert train(patch_set, tmp_path) == 1
    assert "use a lower --learning-rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image-size", "16"], "at least 32"),
        (["--batch-size", "1"], "at least 2"),
        (["--epochs", "0"], "at least 1"),
        (["--validation", "2"], "at most 1"),
        (["--init", "nothing.pth"], "expected a file, found nothing"),
        (["--split", "half"], "invalid choice"),
    ],
)
def test_wrong_arguments_end_with_status_2(patch_set, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        train(patch_set, tmp_path, *flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_script_runs_from_anywhere(patch_set, tmp_path, root):
    command = [sys.executable, str(root / "filtered" / "train_nn.py"), str(patch_set.fpaths), str(patch_set.labels)]
    flags = [*QUICK, "--epochs", "1", "--finetune-layer", "none"]
    done = subprocess.run([*command, "out", *flags], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "kept epoch 1: AUC" in done.stdout
    assert (tmp_path / "out" / "patch_quality_classifier_nn.pth").exists()
