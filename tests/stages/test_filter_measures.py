"""Filtering by measures alone: of a volume, parts of which are spoilt, the others are left."""

import importlib
import os
import socket

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

import curate
from emcurate import durability
from emcurate.patches.pathlists import PathList, write_path_list
from tests.kills import tree

crop_patches = importlib.import_module("raw.crop_patches")
deduplicate = importlib.import_module("deduplicated.deduplicate")
filter_measures = importlib.import_module("filtered.filter_measures")

SPOILT = {0: "blank", 1: "saturated", 2: "blurred"}  # sections
CROP = 48
SECTIONS = 14


@pytest.fixture(autouse=True)
def the_disk_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(durability._Wanted, "value", False)


def make_volume():
    """Sharp texture, but for a section each of resin, of a white mask, and out of focus."""
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 60, (SECTIONS, 192, 192))
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 1.2) for plane in noise])
    volume = np.clip(128 + smooth * 60 / smooth.std(), 0, 255).astype(np.uint8)
    volume[0] = rng.normal(180, 3, (192, 192))
    volume[1][:, np.arange(192) % CROP < 36] = 255
    soft = cv2.GaussianBlur(noise[2], (0, 0), 5)
    volume[2] = np.clip(128 + soft * 60 / soft.std(), 0, 255)
    return volume


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 40}  # so that only its sections are cut
    tifffile.imwrite(directory / "fly.tif", make_volume(), imagej=True, resolution=(1 / 8, 1 / 8), metadata=metadata)
    return directory


@pytest.fixture(scope="module")
def work(corpus, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    flags = [str(corpus), str(work / "patches"), "--from-volumes", "-cs", str(CROP), "-p", "1"]
    assert crop_patches.main(flags) == 0
    assert deduplicate.main([str(work / "patches"), str(work / "groups"), "-d", "0", "-p", "1"]) == 0
    return work


@pytest.fixture
def fpaths(work):
    return work / "groups" / "deduplicated_fpaths.npz"


def run(fpaths, out, *flags):
    return filter_measures.main([str(fpaths), str(out), "-p", "1", *flags])


def section_of(patch):
    return int(patch.rsplit("_", 3)[1])


def reasons(out):
    decided = pd.read_parquet(out / "measures_decisions.parquet").set_index("patch")
    return decided["why"].str.partition(":")[0], decided["kept"]


def test_spoilt_patches_are_left_out_with_their_reasons_and_no_others(fpaths, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(fpaths, out) == 0
    why, kept = reasons(out)
    expected = [SPOILT.get(section_of(name), "within the limits of its dataset") for name in why.index]
    assert why.tolist() == expected
    assert len(set(expected)) == 4
    stems = [path.rpartition("/")[2].removesuffix(".tiff") for path in PathList(out / "measures_filtered_fpaths.npz")]
    assert stems == kept.index[kept].tolist() == [name for name in why.index if section_of(name) not in SPOILT]
    counts = pd.read_csv(out / "measures_counts.csv").iloc[0]
    assert counts[["dataset", "patches", "blank", "saturated", "blurred"]].tolist() == ["fly", len(why), 16, 16, 16]
    assert f"16 saturated, 16 blank, 16 blurred, {len(stems)} kept" in capsys.readouterr().out
    assert cv2.imread(str(out / "measures_filtered.png")).shape[0] > 500


def test_patches_without_a_table_or_with_an_old_one_are_measured_from_their_pixels(fpaths, work, tmp_path, capsys):
    run(fpaths, tmp_path / "by table")
    bare, old = tmp_path / "bare", tmp_path / "old"
    for directory in (bare, old):
        directory.mkdir()
        for path in (work / "patches").glob("*.tiff"):
            (directory / path.name).write_bytes(path.read_bytes())
        moved = [path.replace(str(work / "patches"), str(directory)) for path in PathList(fpaths)]
        write_path_list(tmp_path / f"{directory.name}.npz", moved)
    rows = pq.read_table(work / "patches" / "fly_patches.parquet")
    pq.write_table(
        rows.drop_columns(["mean", "deviation", "entropy", "blur", "saturated"]), old / "fly_patches.parquet"
    )
    for name in ("bare", "old"):
        capsys.readouterr()
        assert run(tmp_path / f"{name}.npz", tmp_path / f"by {name}") == 0
        assert f"{len(moved)} patches without measures in a table were read and measured" in capsys.readouterr().out
        decisions = [pq.read_table(tmp_path / by / "measures_decisions.parquet") for by in ("by table", f"by {name}")]
        assert decisions[0].equals(decisions[1])


def test_a_second_run_does_nothing_and_other_limits_are_noticed(fpaths, tmp_path, capsys):
    out = tmp_path / "out"
    run(fpaths, out)
    before = tree(out)
    assert run(fpaths, out) == 0 and tree(out) == before
    assert "nothing new" in capsys.readouterr().out
    assert run(fpaths, out, "--blank-bits", "9", "--blurred-above", "1", "--saturated-above", "1") == 0
    assert reasons(out)[1].all()
    run(fpaths, tmp_path / "fresh", "--blank-bits", "9", "--blurred-above", "1", "--saturated-above", "1")
    for name in filter_measures.OUTPUTS[:-1]:
        assert (out / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    assert run(fpaths, out, "--verify") == 0
    (out / "measures_counts.csv").write_text("mine")
    assert run(fpaths, out, "--verify") == 1


def test_what_cannot_be_read_is_named_and_the_others_are_judged(work, fpaths, tmp_path, capsys):
    paths = list(PathList(fpaths))[:40]
    here = [tmp_path / path.rpartition("/")[2] for path in paths]
    for copy in here:
        copy.write_bytes(b"no TIFF" if copy == here[5] else (work / "patches" / copy.name).read_bytes())
    write_path_list(tmp_path / "list.npz", map(str, here))
    assert run(tmp_path / "list.npz", tmp_path / "out") == 1
    assert str(here[5]) in capsys.readouterr().err
    decided = pd.read_parquet(tmp_path / "out" / "measures_decisions.parquet").set_index("patch")
    assert not decided["kept"][here[5].stem] and decided["why"].isna().sum() == 1
    assert pd.read_csv(tmp_path / "out" / "measures_counts.csv")["unreadable"].sum() == 1


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--blank-bits", "-1"], "argument --blank-bits: expected a number of at least 0, found '-1'"),
        (
            ["--blurred-above", "2"],
            "argument --blurred-above: expected a number of at least 0 and at most 1, found '2'",
        ),
    ],
)
def test_wrong_limits(fpaths, tmp_path, capsys, flags, said):
    with pytest.raises(SystemExit) as ended:
        run(fpaths, tmp_path / "out", *flags)
    assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_curate_ends_offline_in_a_set_and_says_of_every_patch_why(corpus, tmp_path, capsys, offline):
    out = tmp_path / "out"
    words = ["--volumes", str(corpus), "--out", str(out), "-cs", str(CROP), "-d", "0", "-nz", "6", "-p", "1"]
    assert curate.main([*words, "--filter", "measures"]) == 0
    patches = pd.read_parquet(out / "patches.parquet")
    judged = patches[patches["outcome"].isin(["informative", "uninformative"])]
    assert len(judged) == (patches["outcome"] != "duplicate").sum() > 0
    expected = [SPOILT.get(index, "within the limits of its dataset") for index in judged["index"]]
    assert judged["why"].str.partition(":")[0].tolist() == expected
    assert patches[["mean", "deviation", "entropy", "blur", "saturated"]].notna().all(axis=None)
    assert list((out / "reconstruct3d").glob("*.npy"))
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "What the measures left out and kept" in report and "blank: entropy" in report
    capsys.readouterr()
    assert curate.main([*words, "--filter", "measures"]) == 0
    assert "nothing new: the results in" in capsys.readouterr().out
    assert curate.main([*words, "--until", "deduplicate"]) == 0
    assert (pd.read_parquet(out / "patches.parquet")["outcome"] == "informative").any()
    assert curate.main(["--out", str(out), "--verify"]) == 0


def test_curate_without_weights_labels_or_network_names_the_ways_on(corpus, tmp_path, capsys, offline, monkeypatch):
    monkeypatch.setenv("EMCURATE_CACHE", str(tmp_path / "cache"))
    words = ["--volumes", str(corpus), "--out", str(tmp_path / "out"), "-cs", str(CROP), "-p", "1"]
    assert curate.main(words) == 1
    said = capsys.readouterr().out
    assert "--filter measures, which needs nothing more" in said and "give --labels" in said


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--filter", "measures", "--weights", "w.pth"], "argument --filter: expected no --weights with measures"),
        (["--filter", "measures", "--until", "classify_nn"], "expected filter_measures or another stage with --filter"),
        (["--until", "filter_measures"], "argument --until: expected --filter measures with filter_measures"),
    ],
)
def test_what_does_not_fit_together_is_a_wrong_argument(corpus, tmp_path, capsys, flags, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    with pytest.raises(SystemExit) as ended:
        curate.main(["--volumes", str(corpus), "--out", "out", *flags])
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_table_that_was_altered_is_refused(fpaths, work, tmp_path, capsys):
    (path,) = (work / "patches").glob("*_patches.parquet")
    whole = path.read_bytes(), path.stat().st_mtime_ns
    table = pq.read_table(path)
    entropy = pa.array(np.full(len(table), 7), table.schema.field("entropy").type)
    pq.write_table(
        table.set_column(table.schema.get_field_index("entropy"), table.schema.field("entropy"), entropy), path
    )
    try:
        assert run(fpaths, tmp_path / "out") == 1
        assert f"{path}: expected the {len(whole[0]):,} bytes that were noted" in capsys.readouterr().err
        assert not (tmp_path / "out" / "measures_filtered_fpaths.npz").exists()
    finally:
        path.write_bytes(whole[0])
        os.utime(path, ns=(whole[1], whole[1]))
