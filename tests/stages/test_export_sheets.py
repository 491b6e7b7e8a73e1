"""The datasheets of an export: valid by the library that reads them, true, and as lasting as the export itself."""

import hashlib
import importlib
import json
import shutil

import pandas as pd
import pytest
from PIL import Image

import curate
from emcurate import durability
from emcurate.patches.pathlists import PathList, write_path_list
from tests.kills import differing, tree
from tests.textures import make_texture

export = importlib.import_module("data_prep.export")

OTHER_LICENCE = "https://example.org/terms?of=use"


@pytest.fixture(scope="module", autouse=True)
def the_disk_is_not_waited_for():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durability._Wanted, "value", False)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Two sets that curate.py made under licences of their own, the first of two datasets; the lists of exemplars."""
    work = tmp_path_factory.mktemp("work")
    for out, names, licences in (
        ("one", ("eye", "fly"), ["CC-BY-4.0", f"fly={OTHER_LICENCE}"]),
        ("two", ("wing",), ["CC0-1.0"]),
    ):
        (work / f"{out} images").mkdir()
        for seed, name in enumerate(names):
            pixels = make_texture((1, 96, 96), seed=seed + 10 * len(names))[0]
            Image.fromarray(pixels).save(work / f"{out} images" / f"{name}.png")
        words = ["--images", work / f"{out} images", "--out", work / out, "-cs", 32, "-p", 1, "--until", "deduplicate"]
        assert curate.main([*map(str, words), "--licence", *licences]) == 0
    return work


def listed(work, out="one"):
    return work / out / "deduplicate" / "deduplicated_fpaths.npz"


def run(fpaths, outdir, *flags, status=0):
    words = [fpaths, outdir, "--format", "imagefolder", "--shard-size", "5", "-p", 1, *flags]
    assert export.main([*map(str, words)]) == status
    return json.loads((outdir / "datasheet.json").read_text()) if status == 0 else None


@pytest.mark.parametrize("flags", [[], ["--format", "webdataset"], ["--format", "zarr"], ["--format", "h5"]])
def test_mlcroissant_finds_no_error_and_reads_the_rows(work, tmp_path, flags):
    mlcroissant = pytest.importorskip("mlcroissant")
    sheet = run(listed(work), tmp_path / "out", "--split", "0.5", *flags)
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "out" / "datasheet.json"))
    assert dataset.metadata.license == ["eye: CC-BY-4.0", f"fly: {OTHER_LICENCE}"]
    rows = pd.read_parquet(tmp_path / "out" / "patches.parquet")
    found = {record["patches/patch"].decode(): record["patches/split"] for record in dataset.records("patches")}
    expected = rows.set_index("patch")["split"].dropna().to_dict()
    assert {patch: split.decode() for patch, split in found.items() if isinstance(split, bytes)} == expected
    # The patterns name what holds patches, all of it.
    patterns = [pattern for each in sheet["distribution"][1:] for pattern in each["includes"]]
    matched = {path for pattern in patterns for path in (tmp_path / "out").glob(pattern) if path.is_file()}
    holding = {tmp_path / "out" / name for name in rows["file"].dropna()}
    assert {path for path in matched if path.suffix != ".json"} >= {path for path in holding if path.is_file()}
    assert {pattern.split("/")[0].split("-")[0].split(".")[0] for pattern in patterns} == {"train", "val"}


def test_it_tells_what_was_exported_how_and_of_what(work, tmp_path):
    sheet = run(listed(work), tmp_path / "out", "--budget", "7", "--seed", "3")
    facts, rows = sheet["emcurate"], pd.read_parquet(tmp_path / "out" / "patches.parquet")
    counted = {name: some["outcome"].value_counts().to_dict() for name, some in rows.groupby("dataset")}
    assert {name: each["outcomes"] for name, each in facts["datasets"].items()} == counted
    assert sum(each["outcomes"].get("exported", 0) for each in facts["datasets"].values()) == 7
    assert sheet["description"].startswith(f"7 of {len(rows)} patches of 2 ")
    assert facts["parameters"]["crop_patches"]["crop_size"] == 32 and facts["parameters"]["export"]["seed"] == 3
    inputs = {each["path"]: each["sha256"] for each in facts["inputs"]}
    for path in (work / "one images").iterdir():
        assert inputs.pop(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(inputs) == [str(listed(work))]
    based_on = work / "one" / "datasheet.json"
    assert [(each["path"], each["sha256"]) for each in facts["based_on"]] == [
        (str(based_on), hashlib.sha256(based_on.read_bytes()).hexdigest())
    ]
    text = (tmp_path / "out" / "datasheet.md").read_text()
    assert str(based_on) in text and "left out" in text and "| fly | https://example.org" in text


def test_each_dataset_keeps_the_licence_of_its_own_set_unless_one_is_given_for_all(work, tmp_path, capsys):
    write_path_list(tmp_path / "both.npz", [*PathList(listed(work)), *PathList(listed(work, "two"))])
    told = {"eye": "CC-BY-4.0", "fly": OTHER_LICENCE, "wing": "CC0-1.0"}
    facts = run(tmp_path / "both.npz", tmp_path / "1")["emcurate"]
    assert facts["licences"] == told and len(facts["based_on"]) == 2
    assert run(tmp_path / "both.npz", tmp_path / "2", "--licence", "wing=MIT")["emcurate"]["licences"] == told | {
        "wing": "MIT"
    }
    assert run(tmp_path / "both.npz", tmp_path / "3", "--licence", "MIT")["license"] == ["MIT"]
    # Of one set all is under one licence, which is that of all.
    assert run(listed(work, "two"), tmp_path / "4")["license"] == ["CC0-1.0"]
    capsys.readouterr()
    run(listed(work), tmp_path / "5", "--licence", "wing=MIT")
    assert "there is no dataset of that name" in capsys.readouterr().err


def test_they_stay_are_mended_and_follow_what_they_tell_of(work, tmp_path, capsys):
    out, fpaths = tmp_path / "out", listed(work)
    run(fpaths, out, "--relative")
    whole = tree(out)
    run(fpaths, out, "--relative")
    run(fpaths, tmp_path / "other", "--relative", "-p", 2)
    assert not differing(tree(out), whole) and not differing(tree(tmp_path / "other"), whole)
    for name in ("datasheet.json", "datasheet.md"):
        with (out / name).open("ab") as file:
            file.write(b"\n")
        capsys.readouterr()
        run(fpaths, out, "--relative", "--verify", status=1)
        assert name in capsys.readouterr().err
        run(fpaths, out, "--relative")
        assert not differing(tree(out), whole)
    run(fpaths, out, "--relative", "--verify")
    # Without what was noted of them, the same bytes are found in place; of a licence that is new they tell.
    shutil.rmtree(out / ".emcurate")
    run(fpaths, out, "--relative")
    assert not differing(tree(out), whole)
    assert run(fpaths, out, "--relative", "--licence", "MIT")["license"] == ["MIT"]
    assert run(fpaths, out, "--relative")["license"] == ["MIT"]
    run(fpaths, out, "--relative", "--budget", "4", status=1)
    assert run(fpaths, out, "--relative", "--budget", "4", "--overwrite")["description"].startswith("4 of ")


@pytest.mark.parametrize("name", ["datasheet.json", "datasheet.md"])
def test_a_users_own_file_of_that_name_stays(work, tmp_path, capsys, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    run(listed(work), tmp_path / "out", status=1)
    assert str(tmp_path / "out" / name) in capsys.readouterr().err
    assert (tmp_path / "out" / name).read_text() == "mine" and (tmp_path / "out" / "patches.parquet").exists()


def test_a_damaged_datasheet_of_the_set_is_named_and_the_export_goes_on(work, tmp_path, capsys):
    shutil.copytree(work / "two", tmp_path / "two")
    (tmp_path / "two" / "datasheet.json").write_text("{")
    moved = ["--reroot", work / "two", tmp_path / "two"]
    sheet = run(listed(tmp_path, "two"), tmp_path / "out", *moved)
    err = capsys.readouterr().err
    assert f"{tmp_path / 'two' / 'datasheet.json'}: expected a datasheet" in err and "license" not in sheet


def test_of_a_list_somebody_made_all_is_told_that_the_stages_noted_beside_its_patches(work, tmp_path):
    some = list(PathList(listed(work)))[::3]
    write_path_list(tmp_path / "hand.npz", some)
    run(tmp_path / "hand.npz", tmp_path / "out")
    rows = pd.read_parquet(tmp_path / "out" / "patches.parquet").set_index("patch")
    whole = pd.read_parquet(work / "one" / "patches.parquet").set_index("patch")
    left = rows[rows["outcome"] != "exported"]
    assert len(left) == len(whole) - len(some)
    pd.testing.assert_frame_equal(left[["outcome", "why"]], whole.loc[left.index, ["outcome", "why"]])
    assert rows["exemplar"].equals(whole.loc[rows.index, "exemplar"])


def test_of_a_list_from_two_sets_nothing_is_told_that_nobody_knows(work, tmp_path):
    some = [*list(PathList(listed(work)))[::2], *PathList(listed(work, "two"))]
    write_path_list(tmp_path / "both.npz", some)
    run(tmp_path / "both.npz", tmp_path / "out")
    rows = pd.read_parquet(tmp_path / "out" / "patches.parquet")
    assert set(rows["why"]) == {"listed in both.npz", "not listed, and nothing here tells what became of it"}
    assert (rows["outcome"] == "exported").sum() == len(some)


def test_a_licence_of_what_is_not_there_is_not_told_neither_now_nor_later(work, tmp_path):
    assert "wing" not in run(listed(work), tmp_path / "out", "--licence", "wing=MIT")["emcurate"]["licences"]
    assert "wing" not in run(listed(work), tmp_path / "out", "--licence", "fly=MIT")["emcurate"]["licences"]


def test_a_copied_export_is_its_own_directory(work, tmp_path):
    run(listed(work), tmp_path / "one", "--relative", "--budget", "6")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    run(listed(work), tmp_path / "two", "--relative", "--budget", "6")
    assert not differing(tree(tmp_path / "two"), tree(tmp_path / "one"))
    assert (
        run(listed(work), tmp_path / "two", "--relative", "--budget", "7", "--overwrite")["description"][:5] == "7 of "
    )
    run(listed(work), tmp_path / "two", "--relative", "--budget", "7", "--verify")


def test_moved_patches_are_guessed_as_by_the_other_stages(work, tmp_path, capsys):
    shutil.copytree(work / "two", tmp_path / "moved")
    write_path_list(
        tmp_path / "hand.npz", [p.replace(str(work / "two"), "/gone") for p in PathList(listed(work, "two"))]
    )
    shutil.rmtree(tmp_path / "moved" / "deduplicate" / "deduplicated_fpaths.npz")
    shutil.move(tmp_path / "hand.npz", tmp_path / "moved" / "deduplicate" / "deduplicated_fpaths.npz")
    run(listed(tmp_path, "moved"), tmp_path / "out", status=1)
    assert f"--reroot /gone {tmp_path / 'moved'}" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["out", "out/lists"])
def test_an_export_is_never_based_on_itself_wherever_its_list_lies(work, tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    fpaths = tmp_path / place / "hand.npz"
    write_path_list(fpaths, list(PathList(listed(work))))
    first = run(fpaths, tmp_path / "out")
    whole = tree(tmp_path / "out")
    assert [each["path"] for each in first["emcurate"]["based_on"]] == [str(work / "one" / "datasheet.json")]
    for _ in range(2):
        assert run(fpaths, tmp_path / "out") == first
    assert not differing(tree(tmp_path / "out"), whole)
