"""Classifying: labels win, interrupted runs go on, grown lists cost only their new patches, bad files are named."""

import csv
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from emcurate.classifier import inference, scoring
from emcurate.classifier import weights as published
from emcurate.classifier.batches import BatchJobs, read_batch
from emcurate.classifier.card import InputFormat, write_card
from emcurate.classifier.network import build_network, load_classifier, save_weights
from emcurate.classifier.transforms import evaluation_input
from emcurate.labeling.store import LabelStore
from emcurate.patches import labels
from emcurate.patches.decided import DECIDED_FILE
from emcurate.patches.pathlists import PathList, write_path_list
from emcurate.running.ledger import Ledger
from emcurate.running.locks import release_locks
from tests.patch_sets import make_patch_set, pack
from tests.web import serve

classify_nn = importlib.import_module("filtered.classify_nn")

FORMAT = InputFormat(image_size=32)
SHEETS = ["nn_least_certain.png", "nn_surest_informative.png", "nn_surest_uninformative.png"]


# bfloat16 moves the scores of these random weights by up to 0.06; of trained ones by 0.005.
TOLERANCE = 0.1


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Several batches even of so few patches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "BATCH_CPU_MOST", 8)
        yield


@pytest.fixture(scope="module")
def patch_set(tmp_path_factory):
    return make_patch_set(tmp_path_factory.mktemp("patches"))


def read_pixels(patch_set):
    return read_batch(BatchJobs(patch_set.paths, np.arange(len(patch_set.paths)), 99, 32)[0]).pixels


@pytest.fixture(scope="module")
def weights(patch_set, tmp_path_factory):
    """Random weights, their head turned so that scores spread over 0 to 1 and half are above 0.5."""
    inference.use_threads(1)
    torch.manual_seed(0)
    network = build_network()
    inputs = evaluation_input(torch.from_numpy(read_pixels(patch_set)), FORMAT)
    with torch.no_grad():
        for _ in range(20):
            network(inputs)
        network.eval()
        logits = network(inputs)
        scale = 2 / logits.std()
        network.fc.weight *= scale
        network.fc.bias.copy_((network.fc.bias - logits.median()) * scale)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    save_weights(path, network.state_dict())
    write_card(path, FORMAT, 0.5, {})
    return path


@pytest.fixture(scope="module")
def truth_scores(patch_set, weights):
    """What plain float32 gives."""
    network = load_classifier(weights)
    with torch.inference_mode():
        logits = network(evaluation_input(torch.from_numpy(read_pixels(patch_set)), FORMAT))
    return torch.sigmoid(logits).squeeze(1).numpy()


def classify(fpaths, savedir, weights, *flags, processes=1):
    arguments = [str(fpaths), str(savedir), "--weights", str(weights), "--device", "cpu", "-p", str(processes)]
    return classify_nn.main([*arguments, *map(str, flags)])


@pytest.fixture(scope="module")
def classified(patch_set, weights, tmp_path_factory):
    """A finished run with labels."""
    savedir = tmp_path_factory.mktemp("classified")
    assert classify(patch_set.fpaths, savedir, weights, "--labels", patch_set.labels) == 0
    return savedir


def results(savedir):
    """Every result as bytes, path list included."""
    files = [path for path in savedir.rglob("*") if path.is_file() and ".emcurate" not in path.parts]
    return {str(path.relative_to(savedir)): path.read_bytes() for path in files}


def test_results_are_parallel_to_the_list_and_agree_with_plain_float32(classified, patch_set, truth_scores):
    scores = np.load(classified / "nn_scores.npy", allow_pickle=False)
    predictions = np.load(classified / "nn_predictions.npy", allow_pickle=False)
    assert (scores.dtype, predictions.dtype) == (np.float32, np.uint8)
    np.testing.assert_allclose(scores, truth_scores, atol=TOLERANCE)
    expected = np.where(np.arange(40) < 24, patch_set.truth, truth_scores > 0.5)
    sure = (np.arange(40) < 24) | (np.abs(truth_scores - 0.5) > 1e-5)
    np.testing.assert_array_equal(predictions[sure], expected[sure])
    assert 0 < predictions[24:].sum() < 16
    kept = list(PathList(classified / "nn_filtered_fpaths.npz"))
    assert kept == [path for path, wanted in zip(patch_set.paths, predictions, strict=True) if wanted]


def test_counts_and_sheets_are_written(classified):
    with open(classified / "nn_counts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["dataset"] for row in rows] == ["set 0", "set 1", "set 2", "set 3"]
    assert sum(int(row["patches"]) for row in rows) == 40
    assert sum(int(row["labelled_informative"]) for row in rows) == 12
    kept = np.load(classified / "nn_predictions.npy", allow_pickle=False).sum()
    assert sum(int(row["kept"]) for row in rows) == kept
    assert [path.name for path in sorted(classified.glob("*.png"))] == SHEETS
    for name in SHEETS:
        assert np.asarray(Image.open(classified / name).convert("L")).std() > 5


def test_the_table_says_of_each_patch_by_its_name_what_the_arrays_say_by_its_place(classified, patch_set):
    table = pd.read_parquet(classified / DECIDED_FILE)
    assert table["patch"].tolist() == [Path(path).stem for path in patch_set.paths]
    scores, predictions = (
        np.load(classified / f"nn_{name}.npy", allow_pickle=False) for name in ("scores", "predictions")
    )
    np.testing.assert_array_equal(table["score"].to_numpy(np.float32), scores)
    np.testing.assert_array_equal(table["kept"], predictions == 1)
    words = np.load(patch_set.labels, allow_pickle=False).tolist()
    assert table["label"].where(table["label"].notna(), labels.NONE).tolist() == words


def test_results_of_earlier_versions_get_the_table_and_nothing_is_scored_again(
    classified, patch_set, weights, tmp_path, capsys
):
    savedir = tmp_path / "out"
    shutil.copytree(classified, savedir)
    ledger = savedir / ".emcurate" / "classify_nn.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines() if line]
    for line in lines:
        del line["check"]  # as an older version wrote it
        line["outputs"] = [output for output in line.get("outputs", []) if DECIDED_FILE not in output]
    ledger.write_text("\n".join(map(json.dumps, lines)))
    (savedir / DECIDED_FILE).unlink()
    assert classify(patch_set.fpaths, savedir, weights, "--labels", patch_set.labels) == 0
    assert "0 patches scored" in capsys.readouterr().out
    assert results(savedir) == results(classified)
    assert classify(patch_set.fpaths, savedir, weights, "--labels", patch_set.labels) == 0
    assert "nothing new" in capsys.readouterr().out


def test_scores_near_the_threshold_are_those_of_float32(patch_set, weights, truth_scores, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "RECHECK_MARGIN", 2.0)
    assert classify(patch_set.fpaths, tmp_path, weights, "--precision", "bfloat16") == 0
    scores = np.load(tmp_path / "nn_scores.npy", allow_pickle=False)
    np.testing.assert_allclose(scores, truth_scores, atol=1e-5)


def test_same_command_again_does_nothing(classified, patch_set, weights, capsys):
    before = results(classified)
    assert classify(patch_set.fpaths, classified, weights, "--labels", patch_set.labels) == 0
    out = capsys.readouterr().out
    assert "nothing new" in out and "0 patches scored, 40 scored before" in out
    assert results(classified) == before


def test_results_do_not_depend_on_the_number_of_processes(classified, patch_set, weights, tmp_path):
    assert classify(patch_set.fpaths, tmp_path, weights, "--labels", patch_set.labels, processes=2) == 0
    assert results(tmp_path) == results(classified)


class Killed(BaseException):
    """Ends a run from within, as a kill would."""


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    classified, patch_set, weights, tmp_path, monkeypatch, capsys
):
    finish, calls = inference.Scorer.finish, []

    def finish_and_die(started):
        calls.append(1)
        if len(calls) > 2:
            raise Killed
        return finish(started)

    with monkeypatch.context() as patch:
        patch.setattr(inference.Scorer, "finish", staticmethod(finish_and_die))
        with pytest.raises(Killed):
            classify(patch_set.fpaths, tmp_path, weights, "--labels", patch_set.labels)
    assert results(tmp_path) == {}
    assert classify(patch_set.fpaths, tmp_path, weights, "--labels", patch_set.labels) == 0
    assert "24 patches scored, 16 scored before" in capsys.readouterr().out
    assert results(tmp_path) == results(classified)


def test_only_new_patches_of_a_grown_list_are_scored(patch_set, weights, tmp_path, capsys):
    some = tmp_path / "some.npz"
    write_path_list(some, patch_set.paths[10:30])
    assert classify(some, tmp_path / "out", weights) == 0
    capsys.readouterr()
    # New patches come before, between and after; their order in the list does not matter.
    mixed = patch_set.paths[20:] + patch_set.paths[:20]
    write_path_list(tmp_path / "all.npz", mixed)
    assert classify(tmp_path / "all.npz", tmp_path / "out", weights) == 0
    assert "20 patches scored, 20 scored before" in capsys.readouterr().out
    assert classify(tmp_path / "all.npz", tmp_path / "fresh", weights) == 0
    assert results(tmp_path / "out") == results(tmp_path / "fresh")


def test_new_labels_change_decisions_but_score_nothing_again(classified, patch_set, weights, tmp_path, capsys):
    shutil.copytree(classified, tmp_path / "out")
    flipped = labels.new_labels(40)
    flipped[:] = labels.UNINFORMATIVE
    labels.save_labels(tmp_path / "labels.npy", flipped)
    assert classify(patch_set.fpaths, tmp_path / "out", weights, "--labels", tmp_path / "labels.npy") == 0
    assert "0 patches scored, 40 scored before" in capsys.readouterr().out
    assert not np.load(tmp_path / "out" / "nn_predictions.npy", allow_pickle=False).any()
    assert list(PathList(tmp_path / "out" / "nn_filtered_fpaths.npz")) == []


def test_another_threshold_or_other_weights_need_overwrite(classified, patch_set, weights, tmp_path, capsys):
    shutil.copytree(classified, tmp_path / "out")
    before = results(tmp_path / "out")
    assert classify(patch_set.fpaths, tmp_path / "out", weights, "--threshold", "0.9") == 1
    assert "threshold" in capsys.readouterr().err
    assert results(tmp_path / "out") == before
    assert classify(patch_set.fpaths, tmp_path / "out", weights, "--threshold", "0.9", "--overwrite") == 0
    scores = np.load(tmp_path / "out" / "nn_scores.npy", allow_pickle=False)
    predictions = np.load(tmp_path / "out" / "nn_predictions.npy", allow_pickle=False)
    np.testing.assert_array_equal(predictions, scores > 0.9)


@pytest.mark.parametrize(
    "name", ["nn_scores.npy", "nn_counts.csv", "nn_least_certain.png", "nn_filtered_fpaths.npz/0.npy"]
)
@pytest.mark.parametrize("damage", ["deleted", "truncated", "altered"])
def test_a_result_that_is_no_longer_what_was_written_is_made_again(
    classified, patch_set, weights, tmp_path, capsys, name, damage
):
    shutil.copytree(classified, tmp_path / "out")
    before, path = results(tmp_path / "out"), tmp_path / "out" / name
    data = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    assert classify(patch_set.fpaths, tmp_path / "out", weights, "--labels", patch_set.labels) == 0
    assert "0 patches scored, 40 scored before" in capsys.readouterr().out
    assert results(tmp_path / "out") == before


def test_verify_names_a_result_that_was_altered(classified, patch_set, weights, tmp_path, capsys):
    shutil.copytree(classified, tmp_path / "out")
    assert classify(patch_set.fpaths, tmp_path / "out", weights, "--verify") == 0
    assert "files verified" in capsys.readouterr().out
    (tmp_path / "out" / "nn_counts.csv").write_text("dataset")
    assert classify(patch_set.fpaths, tmp_path / "out", weights, "--verify") == 1
    assert f"{tmp_path / 'out' / 'nn_counts.csv'}: expected" in capsys.readouterr().err


def test_a_run_whose_results_were_moved_has_nothing_to_do(classified, patch_set, weights, tmp_path, capsys):
    shutil.copytree(classified, tmp_path / "elsewhere")
    shutil.copytree(patch_set.fpaths, tmp_path / "list.npz")
    arguments = [tmp_path / "list.npz", tmp_path / "elsewhere", weights, "--labels", patch_set.labels]
    assert classify(*arguments) == 0
    assert "nothing new" in capsys.readouterr().out


def test_results_of_another_list_are_not_replaced(patch_set, weights, tmp_path, capsys):
    write_path_list(tmp_path / "some.npz", patch_set.paths[:20])
    write_path_list(tmp_path / "others.npz", patch_set.paths[10:30])
    out = tmp_path / "out"
    assert classify(tmp_path / "some.npz", out, weights) == 0
    before = results(out)
    assert classify(tmp_path / "others.npz", out, weights) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'others.npz'}: expected the input that its results in {out} were made of" in error
    assert "--overwrite" in error
    assert results(out) == before
    # Nor where the other list has taken the place of the first.
    shutil.rmtree(tmp_path / "some.npz")
    (tmp_path / "others.npz").rename(tmp_path / "some.npz")
    assert classify(tmp_path / "some.npz", out, weights) == 1
    assert results(out) == before
    assert classify(tmp_path / "some.npz", out, weights, "--overwrite") == 0
    assert classify(tmp_path / "some.npz", tmp_path / "fresh", weights) == 0
    assert results(out) == results(tmp_path / "fresh")


def test_a_list_that_has_lost_patches_needs_prune(patch_set, weights, tmp_path):
    write_path_list(tmp_path / "list.npz", patch_set.paths)
    out = tmp_path / "out"
    assert classify(tmp_path / "list.npz", out, weights) == 0
    before = results(out)
    write_path_list(tmp_path / "list.npz", patch_set.paths[5:])
    assert classify(tmp_path / "list.npz", out, weights) == 1
    assert results(out) == before
    assert classify(tmp_path / "list.npz", out, weights, "--prune") == 0
    assert classify(tmp_path / "list.npz", tmp_path / "fresh", weights) == 0
    assert results(out) == results(tmp_path / "fresh")


@pytest.mark.parametrize("names", ["lost", "damaged"])
def test_without_the_names_of_a_list_only_one_at_the_same_place_is_taken_for_it(patch_set, weights, tmp_path, names):
    write_path_list(tmp_path / "list.npz", patch_set.paths[:30])
    out = tmp_path / "out"
    assert classify(tmp_path / "list.npz", out, weights) == 0
    kept = out / ".emcurate" / "classify_nn" / "listed.npy"
    kept.unlink() if names == "lost" else kept.write_bytes(kept.read_bytes()[:-3])
    assert classify(patch_set.fpaths, out, weights) == 1
    write_path_list(tmp_path / "list.npz", patch_set.paths)
    assert classify(tmp_path / "list.npz", out, weights) == 0
    assert classify(patch_set.fpaths, tmp_path / "fresh", weights) == 0
    assert results(out) == results(tmp_path / "fresh")


def edit_predictions(savedir):
    predictions = np.load(savedir / "nn_predictions.npy", allow_pickle=False)
    predictions[3] = 1 - predictions[3]
    np.save(savedir / "nn_predictions.npy", predictions)
    return "nn_predictions.npy: expected the predictions as they were written, found another, edited by hand perhaps"


def edit_list(savedir):
    write_path_list(savedir / "nn_filtered_fpaths.npz", list(PathList(savedir / "nn_filtered_fpaths.npz"))[1:])
    return "nn_filtered_fpaths.npz: expected the path list as it was written, found another, edited by hand perhaps"


@pytest.mark.parametrize("edit", [edit_predictions, edit_list])
@pytest.mark.parametrize("then", ["the same", "unreadable", "grown", "no ledger"])
def test_decisions_edited_by_hand_are_not_replaced(patch_set, weights, tmp_path, capsys, edit, then):
    paths = list(patch_set.paths[:30])
    if then == "unreadable":
        paths[7] = str(tmp_path / "set 3-LOC-0_007_0_0.tiff")  # missing: it is tried again each time
    write_path_list(tmp_path / "list.npz", paths)
    out = tmp_path / "out"
    assert classify(tmp_path / "list.npz", out, weights) == (then == "unreadable")
    message = edit(out)
    edited = results(out)
    if then == "grown":
        write_path_list(tmp_path / "list.npz", patch_set.paths)
    elif then == "no ledger":
        shutil.rmtree(out / ".emcurate")
        message = "--overwrite to replace it"
    capsys.readouterr()
    assert classify(tmp_path / "list.npz", out, weights) == 1
    assert message in capsys.readouterr().err
    assert results(out) == edited
    assert classify(tmp_path / "list.npz", out, weights, "--overwrite") == (then == "unreadable")
    classify(tmp_path / "list.npz", tmp_path / "fresh", weights)
    assert results(out) == results(tmp_path / "fresh")


def test_predictions_that_were_cut_off_are_made_again(classified, patch_set, weights, tmp_path):
    shutil.copytree(classified, tmp_path / "out")
    for data in (b"", (classified / "nn_predictions.npy").read_bytes()[:-1]):
        (tmp_path / "out" / "nn_predictions.npy").write_bytes(data)
        assert classify(patch_set.fpaths, tmp_path / "out", weights, "--labels", patch_set.labels) == 0
        assert results(tmp_path / "out") == results(classified)


def test_what_a_killed_run_wrote_is_not_taken_for_a_persons_work(patch_set, weights, tmp_path, monkeypatch):
    write_path_list(tmp_path / "list.npz", patch_set.paths[:20])
    out = tmp_path / "out"
    assert classify(tmp_path / "list.npz", out, weights) == 0
    write_path_list(tmp_path / "list.npz", patch_set.paths[:30])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Ledger, "finish", lambda *arguments: (_ for _ in ()).throw(Killed()))
        classify(tmp_path / "list.npz", out, weights)
    release_locks()
    assert len(np.load(out / "nn_predictions.npy", allow_pickle=False)) == 30
    # The list has grown once more since.
    assert classify(patch_set.fpaths, out, weights) == 0
    assert classify(patch_set.fpaths, tmp_path / "fresh", weights) == 0
    assert results(out) == results(tmp_path / "fresh")


def test_weights_without_a_card_are_used_with_a_warning_and_not_mixed_with_those_with_one(
    classified, patch_set, weights, tmp_path, capsys
):
    bare = tmp_path / "bare.pth"
    bare.write_bytes(weights.read_bytes())
    shutil.copytree(classified, tmp_path / "out")
    before = results(tmp_path / "out")
    assert classify(patch_set.fpaths, tmp_path / "out", bare, "--labels", patch_set.labels) == 1
    error = capsys.readouterr().err
    assert f"{bare}: no bare.json beside it" in error
    assert "patches of 224 × 224 pixels, mean (0.485, 0.456, 0.406)" in error and "threshold 0.5" in error
    assert "results made with image_size 224, found results made with image_size 32" in error
    assert results(tmp_path / "out") == before
    write_path_list(tmp_path / "two.npz", patch_set.paths[:2])
    assert classify(tmp_path / "two.npz", tmp_path / "bare", bare) == 0
    assert "no bare.json beside it" in capsys.readouterr().err
    assert classify(tmp_path / "two.npz", tmp_path / "carded", weights) == 0
    assert "beside it" not in capsys.readouterr().err


def test_weights_that_give_no_numbers_are_named_and_decide_nothing(patch_set, weights, tmp_path, capsys):
    tensors = torch.load(weights, weights_only=True)
    tensors["fc.weight"] = torch.where(torch.arange(512) % 2 == 0, 3e38, -3e38)[None]
    tensors["fc.bias"] = torch.tensor([0.0])
    for name in tensors:
        if name.endswith("bn2.weight"):
            tensors[name] = tensors[name] * 1e20
    huge = tmp_path / "huge.pth"
    torch.save(tensors, huge)
    write_card(huge, FORMAT, 0.5, {})
    assert classify(patch_set.fpaths, tmp_path / "out", huge) == 1
    assert f"{huge}: expected weights whose scores are numbers, found NaN" in capsys.readouterr().err
    assert results(tmp_path / "out") == {}


def test_damaged_settings_of_kept_scores_are_mended(classified, patch_set, weights, tmp_path):
    shutil.copytree(classified, tmp_path / "out")
    for settings in (tmp_path / "out").glob(".emcurate/classify_nn/*/settings.json"):
        settings.write_text("{")
    (tmp_path / "out" / "nn_least_certain.png").unlink()
    assert classify(patch_set.fpaths, tmp_path / "out", weights, "--labels", patch_set.labels) == 0
    assert results(tmp_path / "out") == results(classified)


def test_files_of_another_origin_are_not_replaced(patch_set, weights, tmp_path, capsys):
    np.save(tmp_path / "nn_predictions.npy", np.arange(3))
    assert classify(patch_set.fpaths, tmp_path, weights) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert np.load(tmp_path / "nn_predictions.npy", allow_pickle=False).tolist() == [0, 1, 2]
    assert list(results(tmp_path)) == ["nn_predictions.npy"]


def test_unreadable_patches_are_named_and_stay_in_their_place(patch_set, weights, truth_scores, tmp_path, capsys):
    paths = list(patch_set.paths)
    paths[30] = str(tmp_path / "set 2-LOC-0_030_0_0.tiff")  # missing
    paths[31] = str(tmp_path / "set 3-LOC-0_031_0_0.tiff")
    (tmp_path / "set 3-LOC-0_031_0_0.tiff").write_bytes(b"II*\0")
    write_path_list(tmp_path / "fpaths.npz", paths)
    for _ in range(2):
        assert classify(tmp_path / "fpaths.npz", tmp_path / "out", weights) == 1
        error = capsys.readouterr().err
        assert f"{paths[30]}: expected a section or patch, found no such file" in error
        assert paths[31] in error
    scores = np.load(tmp_path / "out" / "nn_scores.npy", allow_pickle=False)
    assert np.flatnonzero(np.isnan(scores)).tolist() == [30, 31]
    assert np.load(tmp_path / "out" / "nn_predictions.npy", allow_pickle=False)[30:32].tolist() == [0, 0]
    good = [i for i in range(40) if i not in (30, 31)]
    np.testing.assert_allclose(scores[good], truth_scores[good], atol=TOLERANCE)


@pytest.mark.parametrize("store", ["files", "whole seconds", "shards"])
def test_what_was_moved_stops_before_anything_is_written_and_its_scores_are_kept(weights, tmp_path, capsys, store):
    moved, out = make_patch_set(tmp_path / "old" / "work"), tmp_path / "out"
    if store == "shards":
        write_path_list(moved.fpaths, pack(moved.paths, tmp_path / "old" / "work" / "patches"))
    if store == "whole seconds":
        for path in moved.paths:
            os.utime(path, (1, 1_700_000_000))
    flags = ["--labels", tmp_path / "new" / "work" / "patch_quality_labels.npy"]
    assert classify(moved.fpaths, out, weights, "--labels", moved.labels) == 0
    before = results(out)
    (tmp_path / "old").rename(tmp_path / "new")
    fpaths = tmp_path / "new" / "work" / "fpaths.npz"
    for more in ([], ["--overwrite"]):
        assert classify(fpaths, out, weights, *flags, *more) == 1
        error = capsys.readouterr().err
        assert f"no such file as {PathList(fpaths)[0]}, nor 39 others of 40 looked at" in error
        roots = [str(tmp_path / "old" / "work"), str(tmp_path / "new" / "work")]
        assert error.endswith(f"if they were moved, say so with --reroot {' '.join(roots)}\n")
        assert results(out) == before
    assert classify(fpaths, tmp_path / "fresh", weights, *flags) == 1
    assert not (tmp_path / "fresh").exists()
    assert classify(fpaths, out, weights, *flags, "--reroot", *roots) == 0
    assert "0 patches scored, 40 scored before" in capsys.readouterr().out
    assert (out / "nn_scores.npy").read_bytes() == before["nn_scores.npy"]
    listed = list(PathList(out / "nn_filtered_fpaths.npz"))
    assert listed and all(path.startswith(roots[1]) for path in listed)


def test_a_root_that_nothing_lies_below_is_refused(patch_set, weights, tmp_path, capsys):
    old = f"{patch_set.fpaths.parent}/patch"  # the beginning of a name, and no directory
    assert classify(patch_set.fpaths, tmp_path / "out", weights, "--reroot", old, "/new") == 1
    error = capsys.readouterr().err
    assert (
        f"expected paths below {old}, the OLD of --reroot OLD NEW, found others, such as {patch_set.paths[0]}" in error
    )
    assert not (tmp_path / "out").exists()


def test_moved_patches_are_found_with_reroot(patch_set, weights, tmp_path):
    write_path_list(tmp_path / "old.npz", [p.replace(str(patch_set.fpaths.parent), "/gone") for p in patch_set.paths])
    assert classify(tmp_path / "old.npz", tmp_path / "out", weights, "--reroot", "/gone", patch_set.fpaths.parent) == 0


def test_patches_in_shards_are_scored_as_files_are(classified, patch_set, weights, tmp_path, capsys):
    members = pack(patch_set.paths, tmp_path / "shards")
    write_path_list(tmp_path / "fpaths.npz", members)
    flags = ["--labels", patch_set.labels]
    assert classify(tmp_path / "fpaths.npz", tmp_path / "out", weights, *flags, processes=2) == 0
    expected, found = results(classified), results(tmp_path / "out")
    of_lists = [name for name in expected if name.startswith("nn_filtered_fpaths.npz")]
    assert of_lists
    for name in expected.keys() - {*of_lists}:
        assert found[name] == expected[name], name
    kept = [path.rpartition("/")[2] for path in PathList(classified / "nn_filtered_fpaths.npz")]
    assert [path.rpartition("/")[2] for path in PathList(tmp_path / "out" / "nn_filtered_fpaths.npz")] == kept
    assert {*PathList(tmp_path / "out" / "nn_filtered_fpaths.npz")} <= {*members}
    capsys.readouterr()
    assert classify(tmp_path / "fpaths.npz", tmp_path / "out", weights, *flags) == 0
    assert "nothing new" in capsys.readouterr().out


def test_only_patches_of_a_replaced_shard_are_scored_again(patch_set, weights, truth_scores, tmp_path, capsys):
    members = pack(patch_set.paths, tmp_path / "shards")
    write_path_list(tmp_path / "fpaths.npz", members)
    assert classify(tmp_path / "fpaths.npz", tmp_path / "out", weights) == 0
    shard, _, name = members[12].rpartition("/")
    with tarfile.open(shard) as tar:
        contents = {member.name: tar.extractfile(member).read() for member in tar}
    with tarfile.open(shard, "w") as tar:
        # One patch becomes another's double, the others come in another order.
        for other, content in reversed(contents.items()):
            member = tarfile.TarInfo(other)
            content = Path(patch_set.paths[1]).read_bytes() if other == name else content
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    capsys.readouterr()
    assert classify(tmp_path / "fpaths.npz", tmp_path / "out", weights) == 0
    assert f"{len(contents)} patches scored, 33 scored before" in capsys.readouterr().out
    scores = np.load(tmp_path / "out" / "nn_scores.npy", allow_pickle=False)
    expected = truth_scores.copy()
    expected[12] = truth_scores[1]
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)


def test_a_shard_cut_off_loses_the_patches_behind_and_no_others(patch_set, weights, tmp_path, capsys):
    members = pack(patch_set.paths, tmp_path / "shards", per_shard=99)
    write_path_list(tmp_path / "fpaths.npz", members)
    shard = members[0].rpartition("/")[0]
    with tarfile.open(shard) as tar:
        places = {f"{shard}/{member.name}": member for member in tar}
    os.truncate(shard, sorted(member.offset_data for member in places.values())[3])
    assert classify(tmp_path / "fpaths.npz", tmp_path / "out", weights) == 1
    lost = {path for path, member in places.items() if member.offset_data + member.size > Path(shard).stat().st_size}
    assert 0 < len(lost) < len(places)
    scores = np.load(tmp_path / "out" / "nn_scores.npy", allow_pickle=False)
    assert {members[i] for i in np.flatnonzero(np.isnan(scores))} == lost
    error = capsys.readouterr().err
    assert "copy it again" in error
    assert "Traceback" not in error


def test_labels_of_another_list_decide_on_their_own_patches_and_unsure_ones_on_none(
    classified, patch_set, weights, tmp_path, capsys
):
    """The labels were given to the same number of patches in another order, on another machine."""
    by_score = np.load(classified / "nn_scores.npy") > 0.5
    elsewhere = [f"/laptop/{Path(path).name}" for path in patch_set.paths]
    store = LabelStore(tmp_path / "labels.npy", [*elsewhere[1:], "/laptop/new-LOC-2d_0_0.tiff"], "anna")
    opposite = [labels.CODE_UNINFORMATIVE if is_informative else labels.CODE_INFORMATIVE for is_informative in by_score]
    store.set_labels(range(30), opposite[1:31])
    store.set_labels([0, 1], [labels.CODE_UNSURE] * 2)
    assert classify(patch_set.fpaths, tmp_path / "out", weights, "--labels", tmp_path / "labels.npy") == 0
    predictions = np.load(tmp_path / "out" / "nn_predictions.npy") == 1
    turned = [i for i in range(40) if predictions[i] != by_score[i]]
    assert turned == list(range(3, 31))
    told = capsys.readouterr()
    assert "the list has changed since it was labelled: 30 labels were carried over" in told.out + told.err


@pytest.mark.parametrize("wrong", ["labels", "weights", "empty"])
def test_what_cannot_be_used_is_named(patch_set, weights, tmp_path, capsys, wrong):
    fpaths, flags = patch_set.fpaths, []
    if wrong == "labels":
        labels.save_labels(tmp_path / "labels.npy", labels.new_labels(39))
        flags, message = ["--labels", tmp_path / "labels.npy"], "expected 40 labels"
    elif wrong == "weights":
        (tmp_path / "weights.pth").write_bytes(b"no weights")
        weights, message = tmp_path / "weights.pth", "weights.pth: expected a PyTorch state dict"
    else:
        write_path_list(tmp_path / "empty.npz", [])
        fpaths, message = tmp_path / "empty.npz", "found an empty one"
    assert classify(fpaths, tmp_path / "out", weights, *flags) == 1
    assert message in capsys.readouterr().err


def test_weights_can_be_downloaded_and_are_checked(patch_set, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EMCURATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "RETRIES", 0)
    body = weights.read_bytes()

    def answer(handler):
        content = body if handler.path.endswith("right.pth") else bytes(len(body))
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    with serve(answer) as site:
        assert classify(patch_set.fpaths, tmp_path / "out", f"{site}/wrong.pth") == 1
        assert "check the address; what came was not kept" in capsys.readouterr().err
        monkeypatch.setattr(published, "PUBLISHED_URL", f"{site}/right.pth")
        flags = [str(patch_set.fpaths), str(tmp_path / "out"), "-p", "1"]
        write_path_list(tmp_path / "two.npz", patch_set.paths[:2])
        assert classify_nn.main([str(tmp_path / "two.npz"), *flags[1:]]) == 0
        assert "SHA-256" in capsys.readouterr().out
    # Offline now, and not in the cache.
    assert classify(patch_set.fpaths, tmp_path / "other", f"{site}/third.pth") == 1
    error = capsys.readouterr().err
    assert "name the file with --weights" in error and "Traceback" not in error


def test_the_script_runs_from_anywhere(patch_set, weights, classified, tmp_path, root):
    command = [sys.executable, str(root / "filtered" / "classify_nn.py"), str(patch_set.fpaths), "out"]
    flags = ["--weights", str(weights), "--labels", str(patch_set.labels), "-p", "1", "--device", "cpu"]
    done = subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "classify_nn: 40 patches scored" in done.stdout
    assert sorted(results(tmp_path / "out")) == sorted(results(classified))
    scores = np.load(tmp_path / "out" / "nn_scores.npy", allow_pickle=False)
    np.testing.assert_allclose(scores, np.load(classified / "nn_scores.npy", allow_pickle=False), atol=TOLERANCE)
