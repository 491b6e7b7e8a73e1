"""The README cannot drift: its scripts exist and explain themselves, and its commands run."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import curate
from emcurate.patches.labels import INFORMATIVE, LABELS_FILE, UNINFORMATIVE
from emcurate.patches.pathlists import PathList

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DIRECTORIES = ("preprocess", "raw", "deduplicated", "filtered", "3d", "data_prep")
SCRIPTS = [*sorted(p.relative_to(ROOT).as_posix() for d in DIRECTORIES for p in (ROOT / d).glob("*.py")), "curate.py"]

# The default start weights are downloaded, and 20 epochs take long; neither is what this test is about.
FASTER = {
    "filtered/train_nn.py": ["--init", "random", "--epochs", "1", "--image-size", "32", "--batch-size", "16"],
    "raw/crop_patches.py": ["-cs", "32"],
    "3d/reconstruct3d.py": ["-nz", "12"],
}


def workflow():
    block = re.search(r"<!-- workflow -->\n```bash\n(.*?)```", README, re.DOTALL)
    return [shlex.split(line, comments=True) for line in block[1].splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_named(script):
    assert f"`{script}`" in README


@pytest.mark.parametrize("name", re.findall(r"`([\w/]+\.(?:py|ipynb))`", README))
def test_every_script_that_is_named_exists(name):
    assert (ROOT / name).exists() or any((ROOT / directory / name).exists() for directory in DIRECTORIES)


@pytest.mark.parametrize("target", re.findall(r"^make (\S+)", README, re.MULTILINE))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_help_answers(script, tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    for word in ("Reads:", "Writes:", "Example:", "usage: "):
        assert word in result.stdout


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)#]+)\)", README))
def test_every_local_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_every_command_of_the_workflow_runs(small_corpus, tmp_path):
    (tmp_path / "corpus").symlink_to(small_corpus)
    commands = workflow()
    assert len(commands) >= 10
    for python, script, *arguments in commands:
        assert python == "python"
        if script == "filtered/train_nn.py":
            label(tmp_path / "work" / "deduplicate")
        command = [sys.executable, str(ROOT / script), *arguments, *FASTER.get(script, [])]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, f"{shlex.join(command)}\n{result.stdout}{result.stderr}"
    assert len(PathList(tmp_path / "work" / "classify_nn" / "nn_filtered_fpaths.npz")) > 0
    inputs = [word for kind in ("images", "volumes", "videos") for word in (f"--{kind}", f"corpus/{kind}")]
    command = [sys.executable, str(ROOT / "curate.py"), *inputs, "--out", "work", "--spacing", "10", "-cs", "32"]
    result = subprocess.run([*command, "--until", "deduplicate"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "0 sections written" in result.stdout and "0 datasets done" in result.stdout


def test_every_question_about_patches_gets_an_answer(small_corpus, tmp_path, monkeypatch):
    pytest.importorskip("duckdb")
    kinds = [word for kind in ("images", "volumes", "videos") for word in (f"--{kind}", str(small_corpus / kind))]
    command = [*kinds, "--out", str(tmp_path / "work"), "-cs", "32", "-s", "9", "-p", "1"]
    assert curate.main([*command, "--until", "deduplicate"]) == 0
    label(tmp_path / "work" / "deduplicate")
    labels = ["--labels", str(tmp_path / "work" / "deduplicate" / LABELS_FILE)]
    assert curate.main([*command, *labels, *FASTER["filtered/train_nn.py"], "--until", "classify_nn"]) == 0
    block = re.search(r"<!-- questions -->\n```python\n(.*?)```", README, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    known, answers = {}, []
    for node in ast.parse(block).body:
        if isinstance(node, ast.Expr):
            answers.append(eval(ast.unparse(node), known))
        else:
            exec(ast.unparse(node), known)
    assert len(answers) == 5
    for answer in answers[:-1]:
        assert len(answer) > 0
    patches = known["patches"]
    assert answers[0].to_numpy().sum() == len(patches)
    assert answers[3].sum() == (patches["outcome"] == "informative").sum() > 0
    barren = {source for source, rows in patches.groupby("source") if not (rows["outcome"] == "informative").any()}
    assert {source for (source,) in answers[4].fetchall()} == barren


def test_the_loader_gives_every_exported_patch_and_draws_datasets_evenly(small_corpus, tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    kinds = [word for kind in ("images", "volumes") for word in (f"--{kind}", str(small_corpus / kind))]
    command = [*kinds, "--out", str(tmp_path / "work"), "-cs", "32", "-s", "3", "-p", "1", "--until", "deduplicate"]
    assert curate.main(command) == 0
    fpaths = tmp_path / "work" / "deduplicate" / "deduplicated_fpaths.npz"
    export = importlib.import_module("data_prep.export")
    flags = ["--format", "zarr", "--split", "0.7", "--per-dataset", "30", "-p", "1"]
    assert export.main([str(fpaths), str(tmp_path / "export"), *flags]) == 0
    monkeypatch.chdir(tmp_path)
    known = {}
    exec(re.search(r"<!-- loader -->\n```python\n(.*?)```", README, re.DOTALL)[1], known)
    rows, loader = known["rows"], known["loader"]
    assert next(iter(loader)).shape[1:] == (1, 32, 32)
    for row in rows.iloc[::9].itertuples():
        patch = tifffile.imread(tmp_path / "work" / "crop_patches" / f"{row.patch}.tiff")
        loaded = loader.dataset[int(row.row)][0].numpy() * 255
        assert np.array_equal(np.rint(loaded)[: patch.shape[0], : patch.shape[1]], patch)
    drawn = rows["dataset"].to_numpy()[[i for _ in range(20) for i in loader.sampler]]
    names, counts = np.unique(drawn, return_counts=True)
    assert len(names) >= 2 and counts / len(drawn) == pytest.approx(1 / len(names), abs=0.1)


def label(directory):
    """Stand in for the person at the notebook: the darker half is informative."""
    from emcurate.images.sections import read_section

    means = np.array([read_section(Path(p)).mean() for p in PathList(directory / "deduplicated_fpaths.npz")])
    np.save(directory / LABELS_FILE, np.where(means < np.median(means), INFORMATIVE, UNINFORMATIVE))


RELIABILITY = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("test", re.findall(r"`(tests/[\w/]+\.py::\w+)`", RELIABILITY))
def test_every_test_that_is_to_prove_a_promise_exists(test):
    path, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_promise_has_a_test():
    rows = re.findall(r"^\| (?!promise|---)(.*) \| (.*) \|$", RELIABILITY, re.MULTILINE)
    assert len(rows) > 20
    assert all("::" in test for _, test in rows)
    promises = re.findall(r"^\*\*(\w+)\.\*\*", RELIABILITY.partition("## The order")[0], re.MULTILINE)
    assert len(promises) == 7
    for promise in promises:
        assert any(promise.lower() in what for what, _ in rows)
