"""A model's scores beside a list: whose they are, and from where on they mean informative."""

import importlib
import json

import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.labeling.scores import THRESHOLD, read_scores
from emcurate.patches.labels import LABELS
from emcurate.patches.pathlists import write_path_list

PATHS = [f"/patches/fly-LOC-0_{i:03d}_0_0.tiff" for i in range(40)]


def write_results(directory, paths, values, threshold=0.7):
    """What filtered/classify_nn.py leaves, without running a network."""
    np.save(directory / "nn_scores.npy", values)
    np.save(directory / "nn_predictions.npy", (values > threshold).astype(np.uint8))
    write_path_list(
        directory / "nn_filtered_fpaths.npz",
        [path for path, value in zip(paths, values, strict=True) if value > threshold],
    )
    (directory / ".emcurate").mkdir()
    header = {"stage": "classify_nn", "product": "filtered", "version": "1", "parameters": {"threshold": threshold}}
    (directory / ".emcurate" / "classify_nn.jsonl").write_text(json.dumps(header) + "\n", "utf-8")


@pytest.fixture
def values():
    return np.random.default_rng(0).random(40).astype(np.float32)


def test_the_threshold_is_the_one_the_scores_were_computed_for(tmp_path, values):
    np.save(tmp_path / "nn_scores.npy", values)
    assert read_scores(tmp_path / "nn_scores.npy", PATHS).threshold == THRESHOLD
    (tmp_path / "nn_scores.npy").unlink()
    write_results(tmp_path, PATHS, values)
    scores = read_scores(tmp_path, PATHS)
    assert scores.threshold == 0.7
    assert [LABELS[code] for code in scores.codes()] == ["informative" if v > 0.7 else "uninformative" for v in values]
    assert read_scores(tmp_path, PATHS, 0.2).threshold == 0.2


def test_scores_of_another_list_of_the_same_length_are_refused(tmp_path, values):
    write_results(tmp_path, PATHS, values)
    moved = [path.replace("/patches", "/mnt/other") for path in PATHS]
    assert np.array_equal(read_scores(tmp_path, moved).values, values), "patches are known by their names"
    for other in (PATHS[::-1], [*PATHS[1:], "/patches/fly-LOC-0_999_0_0.tiff"]):
        with pytest.raises(
            InputError, match="expected scores of this list's patches, found those of a list with fly-LOC"
        ):
            read_scores(tmp_path, other)


def test_a_patch_without_a_score_is_called_nothing(tmp_path, values):
    values[3] = np.nan
    np.save(tmp_path / "nn_scores.npy", values)
    assert np.flatnonzero(~read_scores(tmp_path, PATHS).known()).tolist() == [3]


def test_the_files_beside_scores_have_the_names_that_classify_nn_gives_them():
    stage = pytest.importorskip("torch") and importlib.import_module("filtered.classify_nn")
    from emcurate.labeling import scores

    assert (scores.PREDICTIONS_FILE, scores.FILTERED_LIST, "nn_scores.npy") == (
        stage.PREDICTIONS_FILE,
        stage.FILTERED_LIST,
        stage.SCORES_FILE,
    )
