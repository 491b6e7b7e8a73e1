"""Datasheets: valid by the library that reads them, true against naive counting, and checked by another run."""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

import curate
from emcurate import durability
from emcurate.patches.labels import INFORMATIVE, LABELS_FILE, UNINFORMATIVE, new_labels
from emcurate.patches.pathlists import PathList
from emcurate.reporting import inputs, provenance
from emcurate.reporting.datasheet import DATASHEET, SHEET
from emcurate.running.spelled_paths import path_of_text
from tests.kills import differing, tree
from tests.textures import make_texture

FLAGS = ["-cs", "32", "-p", "1"]
LEARNING = ["--init", "random", "--image-size", "32", "--epochs", "1", "--batch-size", "8", "-nz", "4"]


@pytest.fixture(scope="module", autouse=True)
def the_disk_is_not_waited_for():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durability._Wanted, "value", False)
        yield


@pytest.fixture
def corpus(tmp_path):
    """Two images, one in a group, a stack in a file and one of slices, and a file that is none."""
    for name in ("images/a group", "volumes/slices of one"):
        (tmp_path / name).mkdir(parents=True)
    Image.fromarray(make_texture((1, 70, 64))[0]).save(tmp_path / "images" / "one.png")
    Image.fromarray(make_texture((1, 64, 64), seed=1)[0]).save(tmp_path / "images" / "a group" / "two.png")
    (tmp_path / "images" / "broken.png").write_bytes(b"broken")
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 40}
    stack = make_texture((6, 64, 96), seed=2)
    tifffile.imwrite(tmp_path / "volumes" / "fly.tif", stack, imagej=True, resolution=(1 / 4, 1 / 4), metadata=metadata)
    for index, plane in enumerate(make_texture((3, 64, 64), seed=3)):
        Image.fromarray(plane).save(tmp_path / "volumes" / "slices of one" / f"{index}.png")
    return tmp_path


def run(corpus, *flags, until="deduplicate", out="out"):
    kinds = [word for kind in ("images", "volumes") for word in (f"--{kind}", str(corpus / kind))]
    return curate.main([*kinds, "--out", str(corpus / out), *FLAGS, "--until", until, *map(str, flags)])


def read(corpus):
    return json.loads((corpus / "out" / DATASHEET).read_text())


def test_mlcroissant_finds_no_error_and_reads_the_rows(corpus, caplog):
    mlcroissant = pytest.importorskip("mlcroissant")
    assert run(corpus, "--licence", "CC-BY-4.0", "fly=https://example.org/terms?of=use") == 1  # for the broken file
    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(jsonld=str(corpus / "out" / DATASHEET))
    # What only whoever publishes the set can know.
    warned = " ".join(record.getMessage() for record in caplog.records)
    assert all(word not in warned for word in ("schema.org/license", "schema.org/version", "@context"))
    assert dataset.metadata.license == ["CC-BY-4.0", "fly: https://example.org/terms?of=use"]
    rows = pd.read_parquet(corpus / "out" / "patches.parquet")
    found = list(dataset.records("patches"))
    assert len(found) == len(rows)
    for record, row in zip(found, rows.to_dict("records"), strict=True):
        assert record["patches/patch"].decode() == row["patch"]
        assert record["patches/outcome"].decode() == row["outcome"]
        assert record["patches/y"] == row["y"] and record["patches/distance"] == row["distance"]
    assert {field["name"] for field in read(corpus)["recordSet"][0]["field"]} == set(rows.columns) - {"hash"}


def test_it_tells_what_there_is(corpus):
    run(corpus)
    rows, sheet = pd.read_parquet(corpus / "out" / "patches.parquet"), read(corpus)["emcurate"]
    counted = {name: (len(some), some["outcome"].value_counts().to_dict()) for name, some in rows.groupby("dataset")}
    assert {name: (facts["patches"], facts["outcomes"]) for name, facts in sheet["datasets"].items()} == counted
    assert sheet["datasets"]["fly"]["pixel_sizes_nm"] == [4] and sheet["datasets"]["fly"]["kinds"] == ["volume"]
    assert sheet["parameters"]["deduplicate"] == {"min_distance": 12, "order": "random", "seed": 0}
    assert sheet["versions"]["numpy"] == np.__version__
    table = (corpus / "out" / "patches.parquet").read_bytes()
    assert read(corpus)["distribution"][0]["sha256"] == hashlib.sha256(table).hexdigest()
    text = (corpus / "out" / SHEET).read_text()
    for name, facts in sheet["datasets"].items():
        assert f"| {name} | {', '.join(facts['kinds'])} | 1 |" in text
    assert f"--out {corpus / 'out'}" in text and "not said; give it with --licence" in text


def test_inputs_have_the_digests_that_other_programs_find(corpus):
    run(corpus)
    found = {each["path"]: (each["size"], each["sha256"]) for each in read(corpus)["emcurate"]["inputs"]}
    files = [corpus / "images" / name for name in ("one.png", "broken.png", "a group/two.png")]
    for path in [*files, corpus / "volumes" / "fly.tif"]:
        assert found.pop(str(path)) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    slices = corpus / "volumes" / "slices of one"
    lines = [f"{hashlib.sha256((slices / f'{i}.png').read_bytes()).hexdigest()}  {i}.png\n" for i in range(3)]
    size = sum(path.stat().st_size for path in slices.iterdir())
    assert found == {str(slices): (size, hashlib.sha256("".join(lines).encode()).hexdigest())}


def test_nothing_is_read_or_written_again_where_nothing_is_new(corpus, monkeypatch):
    run(corpus, "--licence", "CC0-1.0")
    before = {name: (corpus / "out" / name).stat().st_mtime_ns for name in (DATASHEET, SHEET)}
    monkeypatch.setattr(inputs, "digest_input", None)
    # Another version that makes nothing has no part in what there is; licences stay.
    monkeypatch.setitem(provenance.__dict__, "PACKAGES", ())
    run(corpus, "-p", "2")
    assert {name: (corpus / "out" / name).stat().st_mtime_ns for name in before} == before
    monkeypatch.undo()
    Image.fromarray(make_texture((1, 64, 64), seed=9)[0]).save(corpus / "images" / "three.png")
    read_now = []
    monkeypatch.setattr(inputs, "digest_input", lambda name: read_now.append(name) or (1, "x"))
    run(corpus)
    assert read_now == [str(corpus / "images" / "three.png")]
    sheet = read(corpus)
    assert sheet["license"] == ["CC0-1.0"] and len(sheet["emcurate"]["commands"]) == 2


def test_without_what_was_noted_the_same_is_found_in_place(corpus, capsys):
    (corpus / "images" / "broken.png").unlink()
    assert run(corpus, "--licence", "CC0-1.0") == 0
    whole = tree(corpus / "out")
    for path in [*corpus.glob("out/.emcurate"), *corpus.glob("out/*/.emcurate")]:
        shutil.rmtree(path)
    assert run(corpus, "--licence", "CC0-1.0") == 0
    assert not differing(tree(corpus / "out"), whole)
    # What is not of that run is somebody's own.
    shutil.rmtree(corpus / "out" / ".emcurate")
    (corpus / "out" / "patches.parquet").write_bytes(b"mine")
    capsys.readouterr()
    assert run(corpus, "--licence", "CC0-1.0") == 1
    assert str(corpus / "out" / "patches.parquet") in capsys.readouterr().err
    assert (corpus / "out" / "patches.parquet").read_bytes() == b"mine"


def test_inputs_need_not_be_read(corpus):
    run(corpus, "--no-input-digests")
    assert {each["sha256"] for each in read(corpus)["emcurate"]["inputs"]} == {""}


def test_a_users_own_datasheet_stays(corpus, capsys):
    (corpus / "out").mkdir()
    (corpus / "out" / SHEET).write_text("mine")
    assert run(corpus) == 1
    assert str(corpus / "out" / SHEET) in capsys.readouterr().err
    assert (corpus / "out" / SHEET).read_text() == "mine" and not (corpus / "out" / DATASHEET).exists()
    assert (corpus / "out" / "patches.parquet").exists()


@pytest.mark.parametrize("words", [["fly="], ["CC0", "CC-BY-4.0"], ["fly=CC0", "fly=CC-BY-4.0"]])
def test_licences_that_say_nothing_or_two_things_end_with_usage(corpus, capsys, words):
    with pytest.raises(SystemExit) as caught:
        run(corpus, "--licence", *words)
    assert caught.value.code == 2 and "--licence" in capsys.readouterr().err


def test_a_licence_of_what_is_not_there_is_said(corpus, capsys):
    run(corpus, "--licence", "flie=CC0")
    assert "there is no dataset of that name" in capsys.readouterr().err


def reproduce(corpus, *flags):
    return curate.main(["--reproduce", str(corpus / "out" / DATASHEET), *map(str, flags)])


def test_the_same_inputs_give_the_same_bytes_again_wherever(corpus, capsys):
    run(corpus, "-d", "4")
    out, entries = corpus / "out", set(corpus.iterdir())
    capsys.readouterr()
    assert reproduce(corpus) == 0, capsys.readouterr().err
    assert "5 inputs as they were" in capsys.readouterr().out
    assert set(corpus.iterdir()) == entries
    paths = list(PathList(out / "deduplicate" / "deduplicated_fpaths.npz"))
    labels = new_labels(len(paths))
    means = np.array([tifffile.imread(path).mean() for path in paths])
    labels[np.argsort(means)[:5]], labels[np.argsort(means)[-5:]] = INFORMATIVE, UNINFORMATIVE
    np.save(out / "deduplicate" / LABELS_FILE, labels)
    run(corpus, "-d", "4", "--labels", out / "deduplicate" / LABELS_FILE, *LEARNING, until="reconstruct3d")
    assert len(read(corpus)["emcurate"]["commands"]) == 2
    # Copies with other times in the same places are the same inputs.
    for path in [*(corpus / "images").rglob("*.png"), *(corpus / "volumes").rglob("*.*")]:
        os.utime(path, (1, 1))
    capsys.readouterr()
    kept = corpus / "kept, a longer name than that of the first"
    assert reproduce(corpus, "--out", kept) == 0, capsys.readouterr().err
    assert "datasets of a stage with the same bytes" in capsys.readouterr().out
    assert (kept / "classify_nn" / "nn_scores.npy").exists()


def test_inputs_that_changed_are_named_before_anything_runs(corpus, capsys):
    run(corpus)
    (corpus / "images" / "one.png").unlink()
    image = corpus / "volumes" / "slices of one" / "1.png"
    image.write_bytes(image.read_bytes() + b"x")
    capsys.readouterr()
    assert reproduce(corpus) == 1
    said = capsys.readouterr()
    assert "one.png: expected an input of the run, found nothing there" in said.err
    assert "slices of one: expected the" in said.err and "$ python" not in said.out


def test_results_that_are_others_are_named_by_stage_and_dataset(corpus, capsys):
    run(corpus)
    path = corpus / "out" / DATASHEET
    sheet = json.loads(path.read_text())
    words = sheet["emcurate"]["commands"][0]["words"]
    sheet["emcurate"]["commands"][0]["words"] = [*words, "-d", "2"]
    sheet["emcurate"]["versions"]["numpy"] = "1.0"
    path.write_text(json.dumps(sheet))
    capsys.readouterr()
    assert reproduce(corpus) == 1
    error = capsys.readouterr().err
    assert f"numpy was 1.0, and is {np.__version__}" in error
    failed = error.partition("Failed:")[2]
    assert "deduplicate: fly: expected" in failed and "cleanup2d" not in failed


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"emcurate": {"tool": 1}}'])
def test_another_file_is_no_datasheet(tmp_path, capsys, content):
    (tmp_path / DATASHEET).write_bytes(content)
    assert curate.main(["--reproduce", str(tmp_path / DATASHEET)]) == 1
    assert "expected a datasheet that emcurate has written" in capsys.readouterr().err


def test_a_scratch_directory_that_is_not_empty_is_refused(corpus, capsys):
    run(corpus)
    shutil.copytree(corpus / "out", corpus / "full")
    assert reproduce(corpus, "--out", corpus / "full") == 1
    assert "an empty directory" in capsys.readouterr().err


def test_a_commit_is_that_of_git_or_unknown(monkeypatch, tmp_path):
    found = provenance.find_commit()
    assert found is None or (len(found.rstrip("+")) == 40 and int(found.rstrip("+"), 16))
    monkeypatch.setattr(provenance.emcurate, "__file__", str(tmp_path / "emcurate" / "__init__.py"))
    assert provenance.find_commit() is None
    (tmp_path / ".git").mkdir()
    assert provenance.find_commit() is None


def test_no_path_of_a_stage_is_taken_for_an_input(corpus):
    run(corpus)
    paths = [Path(each["path"]) for each in read(corpus)["emcurate"]["inputs"]]
    assert not any(path.is_relative_to(corpus / "out") for path in paths)


def test_directories_whose_names_are_no_text_are_told_and_read_again(corpus, monkeypatch, capsys):
    odd = corpus / os.fsdecode(b"gr\xf6\xdfe")
    for name in ("images", "volumes"):
        odd.mkdir(exist_ok=True)
        (corpus / name).rename(odd / name)
    (odd / "images" / "broken.png").unlink()
    (odd / "other").mkdir()
    Image.fromarray(make_texture((1, 40, 40), seed=7)[0]).save(odd / "other" / "x.png")
    monkeypatch.chdir(odd)
    words = ["--images", "images", "--volumes", str(odd / "volumes"), "--out", str(corpus / "out"), *FLAGS]
    assert curate.main([*words, "--until", "deduplicate", "--against", str(odd / "other")]) == 0
    paths = [Path(path_of_text(each["path"])) for each in read(corpus)["emcurate"]["inputs"]]
    assert odd / "images" / "one.png" in paths and odd / "other" in paths and all(path.exists() for path in paths)
    assert "curate.py --images images" in (corpus / "out" / SHEET).read_text(encoding="utf-8")
    assert (corpus / "out" / "report.html").is_file()
    monkeypatch.chdir(corpus)
    assert curate.main(["--reproduce", str(corpus / "out" / DATASHEET), "--out", str(corpus / "again")]) == 0
