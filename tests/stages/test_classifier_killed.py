"""Training and classifying, killed at any change of a file, are finished by the same command.

With a network of some kilobytes; `tests.torture.faults` does more of this, with each stage, and not only kills.
"""

import contextlib
import importlib
import json
import random
import shutil

import numpy as np
import pytest

from emcurate import partials
from emcurate.classifier.card import describe_weights
from emcurate.classifier.network import build_network, save_weights
from emcurate.errors import InputError
from tests.kills import differing, killed_after, tree
from tests.patch_sets import make_patch_set
from tests.quick import make_stages_quick

train_nn = importlib.import_module("filtered.train_nn")
classify_nn = importlib.import_module("filtered.classify_nn")

QUICK = ["--precision", "float32", "--device", "cpu", "-p", "1"]
RECIPE = ["--init", "random", "--image-size", "32", "--epochs", "2", "--batch-size", "16", "--finetune-layer", "none"]
OTHER = ["--init", "random", "--image-size", "32", "--epochs", "1", "--finetune-layer", "none", "--seed", "5"]

MOMENTS = 2  # of each stage's 20 to 30, at which it is killed here


@pytest.fixture(autouse=True, scope="module")
def stages_are_quick():
    with pytest.MonkeyPatch.context() as patch:
        make_stages_quick(patch.setattr)
        yield


@pytest.fixture(autouse=True)
def partial_files_are_those_of_dead_processes(monkeypatch):
    monkeypatch.setattr(partials, "_is_dead", lambda match, alone: True)


@pytest.fixture(scope="module")
def patch_set(tmp_path_factory):
    return make_patch_set(tmp_path_factory.mktemp("patches"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    save_weights(path, build_network().state_dict())
    return path


@pytest.fixture
def stage(request, patch_set, weights):
    """What runs a stage into a directory, with more flags."""
    if request.param == "train_nn":
        arguments = [str(patch_set.fpaths), str(patch_set.labels)]
        return lambda out, *flags: train_nn.main([*arguments, str(out), *QUICK, *(flags or RECIPE)])
    arguments, flags = [str(patch_set.fpaths)], ["--weights", str(weights), "--labels", str(patch_set.labels)]
    return lambda out, *more: classify_nn.main([*arguments, str(out), *flags, *QUICK, *more])


def results(directory):
    """A tree without what a stage keeps for itself: scores are kept in the order in which they came."""
    return {name: data for name, data in tree(directory).items() if not name.startswith(".emcurate/classify_nn/")}


def choose_moments(changes):
    """Some numbers of changes after which to be killed: the first ones of a run are the least interesting."""
    return sorted(random.Random(0).sample(range(1, len(changes)), MOMENTS))


STAGES = pytest.mark.parametrize("stage", ["train_nn", "classify_nn"], indirect=True)


@STAGES
def test_a_run_killed_at_any_change_is_finished_by_the_same_command(stage, tmp_path):
    whole = tmp_path / "whole"
    with killed_after(np.inf) as changes:
        assert stage(whole) == 0
    for moment in choose_moments(changes):
        for ledger in ("kept", "deleted"):
            killed = tmp_path / f"{moment} {ledger}"
            with killed_after(moment):
                stage(killed)
            if ledger == "deleted":
                for path in killed.glob(".emcurate/*.jsonl"):
                    path.unlink()
            assert stage(killed) == 0, (moment, changes[moment])
            assert not differing(results(killed), results(whole)), (moment, changes[moment])


@pytest.mark.parametrize("stage", ["train_nn"], indirect=True)
def test_a_killed_run_that_overwrites_leaves_no_weights_with_a_card_of_others(stage, tmp_path, capsys):
    before, whole = tmp_path / "before", tmp_path / "whole"
    assert stage(whole, *OTHER) == 0
    assert stage(before) == 0
    shutil.copytree(before, tmp_path / "counted")
    with killed_after(np.inf) as changes:
        assert stage(tmp_path / "counted", *OTHER, "--overwrite") == 0
    for moment in choose_moments(changes):
        killed = tmp_path / str(moment)
        shutil.copytree(before, killed)
        with killed_after(moment):
            stage(killed, *OTHER, "--overwrite")
        with contextlib.suppress(InputError):
            # Either the one's or the other's, or refused.
            described = describe_weights(killed / "patch_quality_classifier_nn.pth")
            recipe = json.loads((killed / "patch_quality_classifier_nn.json").read_text())["recipe"]
            data = (killed / "patch_quality_classifier_nn.pth").read_bytes()
            assert data == ((whole if recipe["seed"] == 5 else before) / described.path.name).read_bytes()
        assert stage(killed, *OTHER, "--overwrite") == 0
        assert not differing(results(killed), results(whole)), moment
