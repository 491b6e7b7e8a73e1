"""The chain from raw files to subvolumes, by the one command that runs it all."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import dask.array
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from emcurate import naming
from emcurate.curation import steps
from emcurate.errors import InputError
from emcurate.patches.labels import INFORMATIVE, NONE, UNINFORMATIVE
from emcurate.patches.pathlists import PathList
from tests.textures import make_texture

curate = importlib.import_module("curate")

CROP = 32


def inputs(corpus):
    return [part for name in ("images", "volumes", "videos") for part in (f"--{name}", str(corpus / name))]


def snapshot(directory):
    return {p.relative_to(directory): p.stat().st_mtime_ns for p in directory.rglob("*") if p.is_file()}


def test_from_raw_files_to_subvolumes_and_again(small_corpus, tmp_path, capsys):
    out = tmp_path / "out"
    common = [*inputs(small_corpus), "--out", str(out), "--crop-size", str(CROP), "--spacing", "3"]
    assert curate.main([*common, "--until", "deduplicate"]) == 0
    listed = out / "deduplicate" / "deduplicated_fpaths.npz"
    paths = list(PathList(listed))
    patches = [naming.parse_patch(path.rpartition("/")[2].removesuffix(".tiff")) for path in paths]
    assert {p.dataset for p in patches} == {"block", "signed", "film", *(f"micrograph {i}" for i in range(4))}
    assert {p.section.plane for p in patches if p.dataset == "block"} == {0, 1, 2}
    # The third axis of a film is time: it is cut frame by frame only.
    assert {p.section.plane for p in patches if p.dataset == "film"} == {0}
    assert not (out / "classify_nn").exists()

    spread = np.array([tifffile.imread(path).std() for path in paths])
    labels = np.where(spread > 20, INFORMATIVE, UNINFORMATIVE)
    labels[::4] = NONE
    np.save(tmp_path / "labels.npy", labels)
    learning = ["--init", "random", "--image-size", "32", "--epochs", "2", "--batch-size", "16", "-nz", "12"]
    command = [*common, *learning, "--labels", str(tmp_path / "labels.npy")]
    capsys.readouterr()
    assert curate.main(command) == 0
    text = capsys.readouterr().out
    # No section of a volume is written, and the classifier judges.
    for stage in curate.SCRIPTS.keys() - {"cross_section3d", "filter_measures"}:
        assert f"\n{stage} " in text
    predictions = np.load(out / "classify_nn" / "nn_predictions.npy")
    assert len(predictions) == len(paths)
    assert np.array_equal(predictions[labels != NONE], (labels == INFORMATIVE)[labels != NONE])
    filtered = dask.array.from_npy_stack(str(out / "classify_nn" / "nn_filtered_fpaths.npz")).compute().tolist()
    assert filtered == [path for path, keep in zip(paths, predictions, strict=True) if keep]
    volume = tifffile.imread(small_corpus / "volumes" / "block.tif")
    saved = list((out / "reconstruct3d").glob("block-LOC-3d-ISO-*.npy"))
    assert saved
    for path in saved:
        z, y, x = naming.parse_subvolume(path.stem).start
        box = np.load(path)
        assert np.array_equal(box, volume[z : z + box.shape[0], y : y + box.shape[1], x : x + box.shape[2]])

    before = snapshot(out)
    capsys.readouterr()
    assert curate.main(command) == 0
    assert snapshot(out) == before
    assert "0 sections written" in capsys.readouterr().out


def test_the_report_tells_what_has_been_done_so_far(small_corpus, tmp_path, capsys):
    out, corpus = tmp_path / "out", tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    (corpus / "volumes" / "broken.mrc").write_bytes(b"no")
    common = [*inputs(corpus), "--out", str(out), "--crop-size", str(CROP), "--spacing", "3"]
    assert curate.main([*common, "--until", "deduplicate"]) == 1
    page = (out / "report.html").read_text()
    assert f"look at {out / 'report.html'}" in capsys.readouterr().out
    exemplars = len(PathList(out / "deduplicate" / "deduplicated_fpaths.npz"))
    assert f"<b>{exemplars:,}</b>" in page
    for words in (
        "block",
        "film",
        "micrograph 3",
        "broken.mrc",
        "labeling.ipynb",
        "--until deduplicate",
        "crop_patches",
    ):
        assert words in page, words
    assert page.count("data:image/webp") > 10
    (out / "report.html").write_text("mine")
    assert curate.main([*common, "--until", "deduplicate"]) == 1
    assert (out / "report.html").read_text() == "mine"
    said = capsys.readouterr()
    assert "another file, which was left" in said.out + said.err


def test_exemplars_are_the_same_whether_all_patches_are_kept_or_none_but_them(small_corpus, tmp_path):
    common = [*inputs(small_corpus), "--crop-size", str(CROP), "--spacing", "3", "--until", "deduplicate"]
    assert curate.main([*common, "--out", str(tmp_path / "short")]) == 0
    assert curate.main([*common, "--out", str(tmp_path / "long"), "--keep", "all"]) == 0
    lists = [list(PathList(tmp_path / way / "deduplicate" / "deduplicated_fpaths.npz")) for way in ("short", "long")]
    names = [[path.rpartition("/")[2] for path in paths] for paths in lists]
    assert names[0] == names[1]
    for short, long in zip(*lists, strict=True):
        assert Path(short).read_bytes() == Path(long).read_bytes()
    for path in (tmp_path / "long" / "deduplicate").glob("*.csv"):
        assert path.read_bytes() == (tmp_path / "short" / "deduplicate" / path.name).read_bytes()
    written = {path.name for path in (tmp_path / "short" / "crop_patches").glob("*.tiff")}
    assert written == set(names[0])
    assert len(list((tmp_path / "long" / "crop_patches").glob("*.tiff"))) > len(written)
    assert not (tmp_path / "short" / "cross_section3d").exists()
    # Duplicates that were never written are drawn from where they were found.
    short, long = (np.asarray(Image.open(tmp_path / way / "deduplicate" / "groups.png")) for way in ("short", "long"))
    assert np.array_equal(short, long)


def test_what_was_begun_one_way_is_not_gone_on_with_the_other(small_corpus, tmp_path, capsys):
    common = ["--volumes", str(small_corpus / "volumes"), "--crop-size", "32", "--spacing", "9", "-p", "1"]
    common += ["--until", "deduplicate", "--out", str(tmp_path / "out")]
    assert curate.main(common) == 0
    before = snapshot(tmp_path / "out")
    assert curate.main([*common, "--keep", "all"]) == 1
    assert "use another --out" in capsys.readouterr().err
    assert snapshot(tmp_path / "out") == before


def test_a_bad_file_is_named_last_and_the_rest_goes_on(small_corpus, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(make_texture((1, 64, 64))[0]).save(images / "good.png")
    (images / "bad.png").touch()
    arguments = ["--images", str(images), "--out", str(tmp_path / "out"), "--crop-size", "32", "--until", "deduplicate"]
    assert curate.main(arguments) == 1
    captured = capsys.readouterr()
    assert "bad.png" in captured.err.strip().splitlines()[-1]
    assert "Traceback" not in captured.err
    assert len(PathList(tmp_path / "out" / "deduplicate" / "deduplicated_fpaths.npz")) > 0


def test_a_volume_of_which_a_part_cannot_be_hashed_is_counted_by_what_there_is(
    small_corpus, tmp_path, capsys, monkeypatch
):
    crop, cut = curate.load_stage("crop_patches"), curate.load_stage("crop_patches").cut

    def cut_but_for_one(job):
        if job.dataset == "block" and min(job.chosen).startswith("block-LOC-1"):
            raise InputError(job.path, "voxels", "none", "look at it")
        return cut(job)

    monkeypatch.setattr(crop, "cut", cut_but_for_one)
    arguments = ["--volumes", str(small_corpus / "volumes"), "--out", str(tmp_path / "out"), "--crop-size", "32"]
    assert curate.main([*arguments, "-p", "1", "--until", "deduplicate"]) == 1
    table = pd.read_parquet(tmp_path / "out" / "patches.parquet")
    rows = table[table["dataset"] == "block"]
    sections = len(rows.groupby(["plane", "index"]))
    assert set(rows["plane"]) == {0, 2}
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("block "))
    counts = [int(number.replace(",", "")) for number in line.split()[1:]]
    assert counts[:2] == [sections, len(rows)]
    assert counts[3] + counts[4] == len(rows)


def test_nothing_usable_stops_with_a_reason(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    assert curate.main(["--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "images: stopped at cleanup2d" in captured.out
    assert "an empty directory" in captured.err


def test_an_image_and_a_volume_of_one_name_are_refused(small_corpus, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(make_texture((1, 64, 64))[0]).save(images / "block.png")
    arguments = ["--images", str(images), "--volumes", str(small_corpus / "volumes"), "--out", str(tmp_path / "out")]
    out = tmp_path / "out"
    assert curate.main([*arguments, "--spacing", "20", "--crop-size", "32", "--until", "deduplicate"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "block-LOC-2d.tiff" in error
    assert "volumes/block.tif" in error
    # The image came first, and keeps its name; the other volume goes on.
    assert {naming.parse_patch(path.stem).section for path in (out / "crop_patches").glob("block*.tiff")} == {
        naming.ImageSection("block")
    }
    assert (out / "deduplicate" / "signed_exemplars.npy").exists()


@pytest.mark.parametrize("arguments", [["--out", "x"], ["--images", "nowhere", "--out", "x"], ["--images", "."]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        curate.main(arguments)
    assert caught.value.code == 2
    assert "usage: curate.py" in capsys.readouterr().err


def test_a_wrong_forwarded_flag_ends_with_usage_before_anything_runs(small_corpus, tmp_path, capsys):
    for flags in (["--crop-size", "0"], ["--percentiles", "1", "99"], ["--init", "nowhere.pth"], ["-nz", "x"]):
        labels = tmp_path / "labels.npy"
        np.save(labels, np.array(["none"]))
        arguments = [
            "--volumes",
            str(small_corpus / "volumes"),
            "--out",
            str(tmp_path / "out"),
            "--labels",
            str(labels),
        ]
        with pytest.raises(SystemExit) as caught:
            curate.main([*arguments, *flags])
        assert caught.value.code == 2
        assert "usage" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("side", "bits"), [(8, 64), (4, 16)])
def test_a_distance_that_makes_all_duplicates_is_a_wrong_argument(small_corpus, tmp_path, capsys, side, bits):
    arguments = [
        "--images",
        str(small_corpus / "images"),
        "--out",
        str(tmp_path / "out"),
        "-cs",
        "64",
        "-hs",
        str(side),
    ]
    with pytest.raises(SystemExit) as caught:
        curate.main([*arguments, "-d", str(bits)])
    assert caught.value.code == 2
    assert f"argument -d/--min_distance: expected fewer bits than the {bits} of a hash" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert curate.main([*arguments, "-d", str(bits - 1), "--until", "deduplicate"]) == 0
    deduplicate = curate.load_stage("deduplicate")
    with pytest.raises(SystemExit):
        deduplicate.main([str(tmp_path / "out" / "crop_patches"), str(tmp_path / "again"), "-d", str(bits)])
    assert f"fewer bits than the {bits} of a hash here" in capsys.readouterr().err


def test_flags_are_known_in_every_spelling_of_their_stage(small_corpus, tmp_path):
    arguments = ["--images", str(small_corpus / "images"), "--until", "deduplicate", "-p", "1"]
    spelt = [["-cs", "64", "-hs", "8", "-d", "3"], ["--crop_size", "64", "--hash-size", "8", "--min_distance", "3"]]
    for at, flags in enumerate(spelt):
        assert curate.main([*arguments, *flags, "--out", str(tmp_path / str(at))]) == 0
    tables = [(tmp_path / str(at) / "deduplicate" / "micrograph 0_groups.csv").read_bytes() for at in range(2)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("broken", ["images", "videos", "volumes"])
def test_what_is_broken_of_one_kind_stops_no_other(small_corpus, tmp_path, capsys, broken):
    corpus = tmp_path / "corpus"
    shutil.copytree(small_corpus, corpus)
    for path in (corpus / broken).iterdir():
        path.write_bytes(b"broken")
    kinds = [word for kind in ("images", "videos", "volumes") for word in (f"--{kind}", str(corpus / kind))]
    out = tmp_path / "out"
    assert curate.main([*kinds, "--out", str(out), "--crop-size", "32", "-s", "10", "--until", "deduplicate"]) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    datasets = {path.name.split("-LOC-")[0] for path in (out / "crop_patches").glob("*.tiff")}
    expected = {"images": "micrograph 0", "videos": "film", "volumes": "block"}
    for kind, dataset in expected.items():
        assert (dataset in datasets) == (kind != broken)
    assert any(str(corpus / broken) in line for line in captured.err.split("Failed:")[-1].splitlines())
    assert "\ndeduplicate " in captured.out


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "/full"), MemoryError("8 GiB")])
def test_failures_and_the_table_survive_what_breaks_a_later_stage_off(
    small_corpus, tmp_path, capsys, monkeypatch, error
):
    images = tmp_path / "images"
    shutil.copytree(small_corpus / "images", images)
    (images / "bad.png").touch()
    crop = curate.load_stage("crop_patches")
    monkeypatch.setattr(crop, "DirectoryOfSections", lambda *arguments: (_ for _ in ()).throw(error))
    assert curate.main(["--images", str(images), "--out", str(tmp_path / "out"), "--until", "deduplicate"]) == 1
    captured = capsys.readouterr()
    failed = captured.err.split("Failed:\n")[1].splitlines()
    assert "bad.png" in failed[0]
    assert "no space left" in failed[1] or "enough memory" in failed[1]
    assert "\ncrop_patches " in captured.out and "images: stopped at crop_patches" in captured.out


def test_an_interrupt_shows_the_table_so_far(small_corpus, tmp_path, capsys, monkeypatch):
    crop = curate.load_stage("crop_patches")
    monkeypatch.setattr(crop, "DirectoryOfSections", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    assert curate.main(["--images", str(small_corpus / "images"), "--out", str(tmp_path / "out")]) == 130
    captured = capsys.readouterr()
    assert "\ncleanup2d " in captured.out
    assert "run the same command again" in captured.err


def test_a_second_run_into_one_directory_says_so_and_stops_whichever_stage_the_first_is_at(
    small_corpus, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    command = [*inputs(small_corpus), "--out", str(out), "--until", "cleanup2d", "-p", "1"]
    said = []

    def start_another(step, module):
        before = snapshot(out)
        script = [sys.executable, curate.__file__, *command, "--rescale", "minmax"]
        said.append(subprocess.run(script, capture_output=True, text=True))
        assert snapshot(out) == before
        return real(step, module)

    real = steps.run_step
    monkeypatch.setattr(steps, "run_step", start_another)
    assert curate.main(command) == 0
    assert len(said) == 3
    for done in said:
        assert done.returncode == 1
        assert f"{out}: expected no other run that writes there, found another that is under way" in done.stderr
    monkeypatch.setattr(steps, "run_step", real)
    assert curate.main(command) == 0  # the lock has ended with its run


def test_mrc_files_are_judged_in_as_many_processes_as_asked_for(small_corpus, tmp_path, capsys):
    command = ["--volumes", str(small_corpus / "volumes"), "--out", str(tmp_path / "out"), "--until", "mrc2byte"]
    assert curate.main([*command, "-p", "1", "--rescale", "minmax"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("$ python preprocess/mrc2byte"))
    assert line.endswith("volumes --processes 1 --dry-run")


def test_every_flag_of_a_stage_is_known_here_or_decided_here():
    known = {name for action in curate.build_parser()._actions for name in action.option_strings}
    for stage in curate.SCRIPTS:
        for action in curate.load_stage(stage).build_parser()._actions:
            if action.dest not in curate.DECIDED_HERE:
                assert known >= set(action.option_strings), f"{stage}: {action.option_strings}"


def test_the_demos_truth_fits_its_corpus(tmp_path):
    make_corpus = importlib.import_module("demo.make_corpus")
    rng = np.random.default_rng(1)
    scene = make_corpus.make_scene((8, 96, 96), rng, repeats=[(5, 2)], charged=[7])
    assert scene.source.tolist() == [0, 1, 2, 3, 4, 2, 6, 7]
    assert not scene.informative[7].any()
    tissue, resin = scene.pixels[:7][scene.informative[:7]], scene.pixels[:7][~scene.informative[:7]]
    # Resin is flat and bright; tissue is darker and varied.
    assert resin.std() < 0.06 < tissue.std()
    assert tissue.mean() < resin.mean()
    # The repeated slice differs from its source by noise only.
    noise = scene.pixels[5] - scene.pixels[2]
    assert abs(noise.std() - 2**0.5 * make_corpus.NOISE) < 0.01


def test_script_runs_from_any_directory(small_corpus, tmp_path, root):
    command = [sys.executable, str(root / "curate.py"), "--images", str(small_corpus / "images"), "--out", "out"]
    command += ["--until", "crop_patches", "--crop-size", "64", "-p", "1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    ledger = tmp_path / "out" / "crop_patches" / ".emcurate" / "crop_patches.jsonl"
    entries = [json.loads(line) for line in ledger.read_text().splitlines() if line]
    assert sorted(len(entry["outputs"]) for entry in entries if entry.get("state") == "done") == [1] * 4 + [8] * 4


def test_reading_the_command_line_loads_nothing_that_only_some_runs_need(root):
    heavy = {"torch", "requests", "matplotlib", "pandas", "numba", "dask", "distributed", "cv2", "nibabel", "sklearn"}
    heavy |= {"tensorstore", "h5py", "scipy", "skimage", "imagehash", "pooch"}
    code = f"import sys, curate; curate.build_parser(); print(sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_to_the_exemplars_loads_neither_pandas_nor_what_draws_charts(small_corpus, tmp_path, root):
    heavy = {"torch", "requests", "matplotlib", "pandas", "dask", "distributed", "nibabel", "sklearn", "scipy"}
    words = ["--images", small_corpus / "images", "--out", tmp_path / "out", "--until", "deduplicate"]
    words += ["--crop-size", "64", "-p", "1"]
    code = f"import sys, curate; curate.main({[*map(str, words)]!r}); print(sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert (tmp_path / "out" / "report.html").is_file()
    assert done.stdout.splitlines()[-1] == "[]"
