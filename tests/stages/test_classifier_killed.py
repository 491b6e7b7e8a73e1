"""Training and classifying, killed or out of disk at any change of a file, are finished by the same command."""

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from emcurate import partials
from emcurate.classifier.card import describe_weights
from emcurate.classifier.network import build_network, save_weights
from emcurate.errors import InputError
from tests.kills import full_disk, killed_after, tree
from tests.patch_sets import make_patch_set

train_nn = importlib.import_module("filtered.train_nn")
classify_nn = importlib.import_module("filtered.classify_nn")

QUICK = ["--precision", "float32", "--device", "cpu", "-p", "1"]
RECIPE = ["--init", "random", "--image-size", "32", "--epochs", "2", "--batch-size", "16", "--finetune-layer", "none"]
OTHER = ["--init", "random", "--image-size", "32", "--epochs", "1", "--finetune-layer", "none", "--seed", "5"]

MOMENTS = 2  # of each stage's 20 to 30, at which it is killed here

# A full disk lets directories and ledgers' short lines still come and go.
WRITES = [(os, name) for name in ("rename", "replace", "write")]


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
@pytest.mark.parametrize("ledger", ["kept", "deleted"])
def test_a_run_killed_at_any_change_is_finished_by_the_same_command(stage, tmp_path, ledger):
    whole = tmp_path / "whole"
    with killed_after(np.inf) as changes:
        assert stage(whole) == 0
    for moment in choose_moments(changes):
        killed = tmp_path / str(moment)
        with killed_after(moment):
            stage(killed)
        if ledger == "deleted":
            for path in killed.glob(".emcurate/*.jsonl"):
                path.unlink()
        assert stage(killed) == 0, (moment, changes[moment])
        assert results(killed) == results(whole), (moment, changes[moment])


@STAGES
def test_a_run_that_finds_the_disk_full_is_finished_when_there_is_room(stage, tmp_path, capsys):
    whole = tmp_path / "whole"
    with killed_after(np.inf, of=WRITES) as changes:
        assert stage(whole) == 0
    for moment in choose_moments(changes):
        full = tmp_path / str(moment)
        with killed_after(moment, full_disk, WRITES):
            assert stage(full) == 1
        assert "make room there and run the same command again" in capsys.readouterr().err
        assert stage(full) == 0
        assert results(full) == results(whole), moment


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
        assert results(killed) == results(whole), moment


KILLING = """
import importlib, os, signal, sys
sys.path.insert(0, sys.argv[1])
left = int(sys.argv[3])
replace = os.replace
def killing(*arguments, **named):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*arguments, **named)
os.replace = killing
sys.exit(importlib.import_module(sys.argv[2]).main(sys.argv[4:]))
"""


@pytest.mark.parametrize(("name", "moment"), [("train_nn", 5), ("classify_nn", 3)])
def test_a_run_really_killed_among_its_outputs_is_finished(patch_set, weights, tmp_path, root, name, moment):
    if name == "train_nn":
        arguments = [patch_set.fpaths, patch_set.labels, tmp_path / "out", *QUICK, *RECIPE]
    else:
        arguments = [patch_set.fpaths, tmp_path / "out", "--weights", weights, *QUICK]
    command = [sys.executable, "-c", KILLING, root, f"filtered.{name}", moment, *arguments]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    main = importlib.import_module(f"filtered.{name}").main
    made = len(list((tmp_path / "out").glob("*nn*")))
    assert made > 0
    assert main([*map(str, arguments)]) == 0
    fresh = [str(tmp_path / "fresh") if argument == tmp_path / "out" else str(argument) for argument in arguments]
    assert main(fresh) == 0
    assert results(tmp_path / "out") == results(tmp_path / "fresh")
    assert made < len(list((tmp_path / "out").glob("*nn*")))
