"""Training: what it writes, that it repeats itself exactly, goes on after a kill, and says what is wrong."""

import csv
import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from emcurate.classifier import checkpoints, training
from emcurate.classifier.card import describe_weights
from emcurate.classifier.inference import Scorer
from emcurate.classifier.network import load_classifier
from emcurate.classifier.outcome import OUTPUTS
from emcurate.labeling.store import LabelStore
from emcurate.patches import labels
from emcurate.patches.pathlists import write_path_list
from emcurate.running.locks import release_locks
from tests.ledgers import forge
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
    save = checkpoints.Checkpoint.save

    def save_and_die(self, content):
        save(self, content)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoint, "save", save_and_die)
        with pytest.raises(Killed):
            train(patch_set, tmp_path)
    assert contents(tmp_path) == {}
    # Another training must not go on from this one's checkpoint.
    assert train(patch_set, tmp_path, "--seed", "5") == 1
    assert "one of another that was broken off" in capsys.readouterr().err
    assert train(patch_set, tmp_path, "--resume") == 0
    assert "went on after epoch 1" in capsys.readouterr().out
    assert contents(tmp_path) == contents(trained)


@pytest.fixture(scope="module")
def broken_off(patch_set, tmp_path_factory):
    """A training broken off after its first epoch."""
    savedir = tmp_path_factory.mktemp("broken off")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, "goodness", lambda row: (_ for _ in ()).throw(Killed()))
        train(patch_set, savedir)
    release_locks()
    assert (savedir / ".emcurate" / "train_nn" / "checkpoint.pth").exists()
    return savedir


def cut_off(data):
    return data[: len(data) // 2]


def flip_a_weight(data):
    # In the middle of a tensor, where torch itself sees nothing wrong.
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 64]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [cut_off, flip_a_weight, lambda data: b"", lambda data: b"\0" * len(data)])
def test_a_damaged_checkpoint_is_named_and_costs_only_time(trained, broken_off, patch_set, tmp_path, capsys, damage):
    shutil.copytree(broken_off, tmp_path / "out")
    checkpoint = tmp_path / "out" / ".emcurate" / "train_nn" / "checkpoint.pth"
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    assert train(patch_set, tmp_path / "out", "--resume") == 1
    error = capsys.readouterr().err
    assert f"{checkpoint}: expected the checkpoint as it was written, found a damaged one" in error
    assert "leave --resume out" in error
    assert train(patch_set, tmp_path / "out") == 0
    assert f"{checkpoint}: expected the checkpoint as it was written" in capsys.readouterr().err
    assert contents(tmp_path / "out") == contents(trained)


@pytest.mark.parametrize("thing", ["directory", "unreadable link"])
def test_what_is_no_file_in_the_place_of_a_checkpoint_is_named(patch_set, tmp_path, capsys, thing):
    checkpoint = tmp_path / ".emcurate" / "train_nn" / "checkpoint.pth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.mkdir() if thing == "directory" else checkpoint.symlink_to(checkpoint)
    status = train(patch_set, tmp_path, "--epochs", "1", "--finetune-layer", "none")
    error = capsys.readouterr().err
    assert str(checkpoint) in error and "Traceback" not in error
    assert status == (1 if thing == "directory" else 0)


def test_damaged_metrics_and_a_damaged_ledger_end_in_no_traceback(trained, patch_set, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    metrics = out / "patch_quality_nn_metrics.json"
    before = metrics.stat()
    metrics.write_bytes(b"{" * before.st_size)
    os.utime(metrics, ns=(before.st_atime_ns, before.st_mtime_ns))
    # Neither size nor time has changed: nobody looks, and nobody stumbles.
    assert train(patch_set, out) == 0
    assert "already trained" in capsys.readouterr().out
    ledger = out / ".emcurate" / "train_nn.jsonl"
    random = np.random.default_rng(0)
    data = np.frombuffer(ledger.read_bytes(), np.uint8).copy()
    data[random.integers(0, len(data), 40)] ^= random.integers(1, 256, 40, np.uint8)
    ledger.write_bytes(data.tobytes())
    metrics.write_bytes(contents(trained)[metrics.name])
    assert train(patch_set, out) == 0
    assert contents(out) == contents(trained)


def test_what_was_unreadable_is_told_again_whatever_became_of_the_note(trained, patch_set, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "out")
    ledger = tmp_path / "out" / ".emcurate" / "train_nn.jsonl"
    before = ledger.read_bytes()
    for note, status in (('["patch 7"]', 1), ("7", 0), ("null", 0), ('{"a": []}', 0)):
        ledger.write_bytes(before)
        assert b'"unreadable":[]' in before
        forge(ledger, '"unreadable":[]', f'"unreadable":{note}')
        assert train(patch_set, tmp_path / "out") == status
        assert ("patch 7" in capsys.readouterr().err) == bool(status)


def test_results_do_not_depend_on_the_number_of_processes(trained, patch_set, tmp_path):
    assert train(patch_set, tmp_path, "-p", "3") == 0
    assert contents(tmp_path) == contents(trained)


def test_start_weights_are_remembered_by_what_they_are(trained, patch_set, tmp_path, capsys):
    start, moved, other = tmp_path / "start.pth", tmp_path / "elsewhere" / "other name.pth", tmp_path / "other.pth"
    start.write_bytes((trained / "patch_quality_classifier_nn.pth").read_bytes())
    flags = ["--epochs", "1", "--finetune-layer", "none"]
    assert train(patch_set, tmp_path / "out", *flags, "--init", str(start)) == 0
    before = contents(tmp_path / "out")
    capsys.readouterr()
    moved.parent.mkdir()
    start.rename(moved)
    assert train(patch_set, tmp_path / "out", *flags, "--init", str(moved)) == 0
    assert "already trained" in capsys.readouterr().out
    tensors = torch.load(moved, weights_only=True)
    tensors["conv1.weight"][0, 0, 0, 0] += 1
    torch.save(tensors, other)
    other.rename(start)  # another file, where the first lay
    assert train(patch_set, tmp_path / "out", *flags, "--init", str(start)) == 1
    error = capsys.readouterr().err
    assert "results made with init weights with SHA-256" in error and "--overwrite" in error
    assert contents(tmp_path / "out") == before


def test_a_finished_training_without_its_ledger_is_that_training_and_no_other(trained, patch_set, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    shutil.rmtree(out / ".emcurate")
    assert train(patch_set, out, "--seed", "5") == 1
    assert "files of another origin" in capsys.readouterr().err
    assert contents(out) == contents(trained)
    # A file that a person has changed since is not replaced, nor are those beside it.
    (out / "patch_quality_nn_epochs.csv").write_text("mine")
    shutil.rmtree(out / ".emcurate")
    assert train(patch_set, out) == 1
    error = capsys.readouterr().err
    assert f"{out / 'patch_quality_nn_epochs.csv'}: expected no such file, or the very bytes" in error
    assert contents(out) == contents(trained) | {"patch_quality_nn_epochs.csv": b"mine"}
    assert train(patch_set, out, "--overwrite") == 0
    assert contents(out) == contents(trained)


def test_resume_without_a_checkpoint_is_refused(patch_set, tmp_path, capsys):
    assert train(patch_set, tmp_path, "--resume") == 1
    assert "a checkpoint to go on from, found none" in capsys.readouterr().err


def test_the_largest_blur_and_seed_train(patch_set, tmp_path):
    flags = ["--blur", "10.33", "--augment-probability", "1", "--seed", str(2**64 - 1)]
    assert train(patch_set, tmp_path, "--epochs", "1", "--finetune-layer", "none", *flags) == 0


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


def test_what_was_moved_is_no_other_training(tmp_path, capsys):
    moved, out = make_patch_set(tmp_path / "old"), tmp_path / "out"
    flags = ["--epochs", "1", "--finetune-layer", "none"]
    assert train(moved, out, *flags) == 0
    before = contents(out)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = dataclasses.replace(
        moved, fpaths=tmp_path / "new" / moved.fpaths.name, labels=tmp_path / "new" / moved.labels.name
    )
    assert train(moved, out, *flags) == 1
    assert f"--reroot {tmp_path / 'old'} {tmp_path / 'new'}" in capsys.readouterr().err
    assert train(moved, out, *flags, "--reroot", str(tmp_path / "old"), str(tmp_path / "new")) == 0
    assert "already trained" in capsys.readouterr().out
    assert contents(out) == before


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
        (["--blur", "30"], "argument --blur: expected at most 10.33 with --image-size 32, found 30"),
        (["--seed", str(2**64)], f"at most {2**64 - 1}"),
        (["--image-size", "100000"], "at least 32 and at most 4096"),
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
