import csv
import importlib
import os
import shutil
import subprocess
import sys

import cv2
import dask.array
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from emcurate import naming
from emcurate.comparison import outcome
from emcurate.images.origins import Origin
from emcurate.patches import covering, duplicates
from emcurate.patches import datasets as patches
from emcurate.patches.cuts import Cut, pack_bits, write_cuts
from tests.textures import make_texture

deduplicate = importlib.import_module("deduplicated.deduplicate")

RNG = np.random.default_rng(0)


def write_patches(directory, dataset, hashes, first=0):
    """Patches with given hashes; the pixels only matter to --order sharpest."""
    directory.mkdir(exist_ok=True)
    for i, bits in enumerate(hashes, first):
        stem = f"{dataset}-LOC-0_{i // 10:03d}_{i % 10 * 64}_0"
        np.save(directory / f"{stem}.npy", bits)
        noise = np.random.default_rng(i).integers(0, 256, (16, 16)).astype(np.uint8)
        tifffile.imwrite(directory / f"{stem}.tiff", cv2.GaussianBlur(noise, (0, 0), 0.3 + (i * 7 % 11) / 5))


def make_hashes(count, side=8):
    centres = RNG.random((max(1, count // 8), side, side)) < 0.5
    return centres[RNG.integers(0, len(centres), count)] ^ (RNG.random((count, side, side)) < 0.06)


@pytest.fixture
def patchdir(tmp_path):
    write_patches(tmp_path / "patches", "fly", make_hashes(90))
    write_patches(tmp_path / "patches", "two words.ö", make_hashes(40))
    return tmp_path / "patches"


def load_hashes(patchdir, dataset):
    paths = sorted(patchdir.glob(f"{dataset}-LOC-*.npy"))
    return {path.stem: np.load(path) for path in paths}


def read_groups(savedir, dataset):
    with open(savedir / f"{dataset}_groups.csv", newline="") as file:
        return {row["patch"]: (row["exemplar"], int(row["distance"])) for row in csv.DictReader(file)}


def read_results(savedir):
    return {
        p.relative_to(savedir): p.read_bytes() for p in savedir.rglob("*") if p.is_file() and ".emcurate" not in p.parts
    }


def naive_exemplars(hashes, names, distance):
    kept = []
    for name in names:
        if all(np.count_nonzero(hashes[name] != hashes[other]) > distance for other in kept):
            kept.append(name)
    return kept


def test_order_by_name_equals_the_naive_loop(patchdir, tmp_path):
    assert deduplicate.main([str(patchdir), str(tmp_path / "out"), "--order", "name", "-d", "9"]) == 0
    every = []
    for dataset in ("fly", "two words.ö"):
        hashes = load_hashes(patchdir, dataset)
        expected = naive_exemplars(hashes, sorted(hashes), 9)
        assert 1 < len(expected) < len(hashes)
        paths = [str(patchdir / f"{name}.tiff") for name in sorted(expected)]
        assert np.load(tmp_path / "out" / f"{dataset}_exemplars.npy").tolist() == paths
        every += paths
    assert dask.array.from_npy_stack(str(tmp_path / "out" / "deduplicated_fpaths.npz")).compute().tolist() == every


@pytest.mark.parametrize("order", ["random", "name", "sharpest"])
@pytest.mark.parametrize("distance", [0, 5, 12])
def test_exemplars_are_far_apart_and_duplicates_close_to_theirs(patchdir, tmp_path, order, distance):
    savedir = tmp_path / "out"
    assert deduplicate.main([str(patchdir), str(savedir), "--order", order, "--min_distance", str(distance)]) == 0
    hashes, groups = load_hashes(patchdir, "fly"), read_groups(savedir, "fly")
    assert set(groups) == set(hashes)
    exemplars = {e for e, _ in groups.values()}
    for first in exemplars:
        assert groups[first] == (first, 0)
        for second in exemplars - {first}:
            assert np.count_nonzero(hashes[first] != hashes[second]) > distance
    for patch, (exemplar, stated) in groups.items():
        assert np.count_nonzero(hashes[patch] != hashes[exemplar]) == stated <= distance


def naive_blur(pixels):
    """How little of the differences between neighbours a mean of 11 takes away, along the axis where that is more.

    Crete et al. 2007, with Sobel's differences, by OpenCV.
    """
    pixels = pixels / 255
    found = []
    at_borders = {"borderType": cv2.BORDER_REFLECT}
    for kernel, order in (((1, 11), (0, 1)), ((11, 1), (1, 0))):
        blurred = cv2.blur(pixels, kernel, **at_borders)
        sharp, soft = (
            np.abs(cv2.Sobel(some, cv2.CV_64F, *order, **at_borders))[2:-1, 2:-1] for some in (pixels, blurred)
        )
        found.append((sharp.sum() - np.maximum(0, sharp - soft).sum()) / sharp.sum())
    return max(found)


def test_blur_lowers_the_sharpness():
    noise = RNG.integers(0, 256, (64, 64)).astype(np.uint8)
    sharpness = [patches.measure_pixels(cv2.GaussianBlur(noise, (0, 0), sigma))[0] for sigma in (0.1, 0.6, 1, 2, 4)]
    assert sharpness == sorted(sharpness, reverse=True)
    assert 0 < sharpness[-1] < sharpness[0] < 1
    assert sharpness[0] == pytest.approx(1 - naive_blur(noise))
    assert patches.measure_pixels(np.full((64, 64), 9, np.uint8)) == (0, 0)
    for shape in ((3, 64), (1, 1)):
        assert patches.measure_pixels(np.zeros(shape, np.uint8)) == (0, 1)


def test_what_an_earlier_measure_ordered_is_done_again(patchdir, tmp_path, capsys, monkeypatch):
    out, argv = tmp_path / "out", [str(patchdir), str(tmp_path / "out"), "--order", "sharpest"]
    monkeypatch.setattr(deduplicate, "SHARPNESS", "Laplacian")
    deduplicate.main(argv)
    monkeypatch.undo()
    deduplicate.main(argv)
    assert "again: parameters changed, from sharpness Laplacian to sharpness blur_effect" in capsys.readouterr().out
    deduplicate.main([str(patchdir), str(tmp_path / "fresh"), "--order", "sharpest"])
    assert read_results(out) == read_results(tmp_path / "fresh")


def test_sharpest_keeps_the_sharpest_of_each_group(patchdir, tmp_path):
    deduplicate.main([str(patchdir), str(tmp_path / "out"), "--order", "sharpest"])
    hashes = load_hashes(patchdir, "fly")
    blur = {n: naive_blur(tifffile.imread(patchdir / f"{n}.tiff")) for n in hashes}
    by_sharpness = sorted(hashes, key=lambda name: (blur[name], name))
    expected = sorted(naive_exemplars(hashes, by_sharpness, 12))
    assert sorted({e for e, _ in read_groups(tmp_path / "out", "fly").values()}) == expected
    assert expected != sorted(naive_exemplars(hashes, sorted(hashes), 12))


def test_random_order_follows_the_seed_and_not_the_other_datasets(patchdir, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        deduplicate.main([str(patchdir), str(tmp_path / name), "--seed", seed])
    assert read_groups(tmp_path / "a", "fly") == read_groups(tmp_path / "b", "fly")
    assert read_groups(tmp_path / "a", "fly") != read_groups(tmp_path / "c", "fly")
    for path in patchdir.glob("two words*"):
        path.unlink()
    deduplicate.main([str(patchdir), str(tmp_path / "alone"), "--seed", "1"])
    assert read_groups(tmp_path / "alone", "fly") == read_groups(tmp_path / "a", "fly")


@pytest.mark.parametrize("order", ["random", "sharpest"])
def test_any_number_of_processes_gives_the_same_bytes(patchdir, tmp_path, order, monkeypatch):
    monkeypatch.setattr(patches, "CHUNK_PATCHES", 7)
    monkeypatch.setattr(patches, "SHARP_CHUNK_PATCHES", 7)
    for processes in ("1", "2"):
        deduplicate.main([str(patchdir), str(tmp_path / processes), "-p", processes, "--order", order])
    assert read_results(tmp_path / "1") == read_results(tmp_path / "2")


def test_only_what_is_new_or_changed_is_done_again(patchdir, tmp_path, capsys):
    savedir = tmp_path / "out"

    def run(*arguments):
        capsys.readouterr()
        assert deduplicate.main([str(patchdir), str(savedir), *arguments]) == 0
        return capsys.readouterr().out

    assert "2 datasets done" in run()
    before = read_results(savedir)
    assert "0 datasets done, 2 datasets unchanged" in run()
    assert read_results(savedir) == before

    write_patches(patchdir, "new", make_hashes(5))
    text = run()
    assert "new: new" in text
    assert "1 datasets done, 2 datasets unchanged" in text

    write_patches(patchdir, "fly", make_hashes(1), first=90)
    text = run()
    assert "fly: again: its input has changed" in text
    assert "1 datasets done, 2 datasets unchanged" in text

    text = run("-d", "3")
    assert text.count("parameters changed, from min_distance 12 to min_distance 3") == 3
    assert "3 datasets done, 0 datasets unchanged" in text
    listed = dask.array.from_npy_stack(str(savedir / "deduplicated_fpaths.npz")).compute().tolist()
    assert listed == [
        path for name in ("fly", "new", "two words.ö") for path in np.load(savedir / f"{name}_exemplars.npy").tolist()
    ]


def test_an_interrupted_run_is_finished_with_the_same_bytes(patchdir, tmp_path):
    whole, cut_short = tmp_path / "whole", tmp_path / "cut"
    deduplicate.main([str(patchdir), str(whole)])
    deduplicate.main([str(patchdir), str(cut_short)])
    (cut_short / "fly_groups.csv").unlink()
    (cut_short / "deduplicated_fpaths.npz" / "0.npy").unlink()
    assert deduplicate.main([str(patchdir), str(cut_short)]) == 0
    assert read_results(cut_short) == read_results(whole)
    (cut_short / ".emcurate" / "deduplicate.jsonl").unlink()
    (cut_short / "fly_groups.csv").unlink()
    assert deduplicate.main([str(patchdir), str(cut_short), "--overwrite"]) == 0
    assert read_results(cut_short) == read_results(whole)


def test_a_users_own_file_is_not_overwritten(patchdir, tmp_path, capsys):
    savedir = tmp_path / "out"
    savedir.mkdir()
    (savedir / "fly_groups.csv").write_text("mine")
    assert deduplicate.main([str(patchdir), str(savedir)]) == 1
    assert "fly_groups.csv" in capsys.readouterr().err
    assert (savedir / "fly_groups.csv").read_text() == "mine"
    assert (savedir / "two words.ö_exemplars.npy").exists()


def test_bad_hashes_are_named_and_the_rest_done(patchdir, tmp_path, capsys):
    broken, alone, other = sorted(patchdir.glob("fly*.npy"))[:3]
    broken.write_bytes(b"\x93NUMPY")
    alone.unlink()
    np.save(patchdir / "two words.ö-LOC-0_000_0_0.npy", np.zeros((4, 4), bool))
    other.with_suffix(".tiff").unlink()
    np.save(patchdir / "odd-LOC-name.npy", np.zeros((8, 8), bool))
    tifffile.imwrite(patchdir / "odd-LOC-name.tiff", np.zeros((8, 8), np.uint8))
    assert deduplicate.main([str(patchdir), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for name in (broken.name, alone.with_suffix(".tiff").name, other.name, "odd-LOC-name"):
        assert name in error
    assert "--hash_size" in error
    assert len(read_groups(tmp_path / "out", "fly")) == 87


def test_a_dataset_of_which_nothing_can_be_read(patchdir, tmp_path, capsys):
    for path in patchdir.glob("fly*.npy"):
        path.write_bytes(b"")
    assert deduplicate.main([str(patchdir), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("fly-LOC-") == 20 and "... and 70 more" in error
    failures = tmp_path / "out" / ".emcurate" / "deduplicate.failures.txt"
    assert failures.read_text().count("fly-LOC-") == 90
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "fly_exemplars.npy").exists()
    assert (tmp_path / "out" / "two words.ö_exemplars.npy").exists()


def test_patches_that_are_gone_leave_the_list(patchdir, tmp_path, capsys):
    savedir = tmp_path / "out"
    deduplicate.main([str(patchdir), str(savedir)])
    for path in patchdir.glob("fly*"):
        path.unlink()
    assert deduplicate.main([str(patchdir), str(savedir)]) == 0
    error = capsys.readouterr().err
    assert "what fly came of is gone" in error
    assert "--prune" in error
    listed = dask.array.from_npy_stack(str(savedir / "deduplicated_fpaths.npz")).compute()
    assert all("two words" in path for path in listed)


def test_no_patches(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert deduplicate.main([str(tmp_path / "empty"), str(tmp_path / "out")]) == 1
    assert "expected patches and hashes" in capsys.readouterr().err


def test_real_near_duplicate_frames_collapse(real_data, tmp_path):
    cleanup2d, crop = (importlib.import_module(f"raw.{name}") for name in ("cleanup2d", "crop_patches"))
    cleanup2d.main([str(real_data / "images2d"), str(tmp_path / "s")])
    crop.main([str(tmp_path / "s"), str(tmp_path / "p")])
    deduplicate.main([str(tmp_path / "p"), str(tmp_path / "d")])
    groups = read_groups(tmp_path / "d", "ti_tem_near_duplicates")
    # Eight frames of two by two patches each show four places.
    assert len(groups) == 32
    assert len({exemplar for exemplar, _ in groups.values()}) <= 8


def test_script_runs_from_any_directory(patchdir, tmp_path, root):
    command = [sys.executable, str(root / "deduplicated" / "deduplicate.py"), "patches", "out", "-d", "12"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    first = np.load(tmp_path / "out" / "fly_exemplars.npy")[0]
    assert first.startswith(str(patchdir))


def loaded_modules(tmp_path, root, *arguments):
    """What a run of the script loads: the names of all modules."""
    command = [sys.executable, "-X", "importtime", str(root / "deduplicated" / "deduplicate.py"), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}


def write_table(directory, dataset, hashes, saturated=None):
    """A table as --hashes-only leaves it: no patch is written."""
    directory.mkdir(exist_ok=True)
    count = len(hashes)
    places = np.stack([np.arange(count) // 10 * 64, np.arange(count) % 10 * 64], 1)
    places = np.concatenate([places, np.full((count, 2), 64)], 1).astype(np.int32)
    section = naming.VolumeSection(dataset, 0, 7, 3)
    origin = Origin("volume", f"/data/{dataset}.mrc")
    settings = {"crop_size": 64, "hash_size": hashes.shape[1], "hash": "dhash"}
    measures = None if saturated is None else np.repeat(np.array(saturated, float)[:, None], 5, axis=1)
    cut = Cut(section, places, pack_bits(hashes), measures=measures)
    write_cuts(directory / f"{dataset}_patches.parquet", [cut], lambda stem: origin, settings)
    return dict(zip([f"{section.stem}_{y}_{x}" for y, x, _, _ in places], hashes, strict=True))


def test_few_hashes_load_neither_a_compiler_nor_what_reads_and_draws_pictures(tmp_path, root):
    write_table(tmp_path / "patches", "fly", make_hashes(10))
    heavy = {"numba", "dask", "scipy", "pandas", "matplotlib", "cv2", "tifffile", "PIL", "pyarrow.dataset"}
    for _ in range(2):
        assert not loaded_modules(tmp_path, root, "patches", "out") & heavy


def test_the_compiler_is_loaded_only_when_there_is_something_to_do(tmp_path, root):
    write_table(tmp_path / "patches", "fly", RNG.random((duplicates.FEW + 1, 8, 8)) < 0.5)
    assert "numba" in loaded_modules(tmp_path, root, "patches", "out")
    assert "numba" not in loaded_modules(tmp_path, root, "patches", "out")


def test_shards_that_were_copied_with_their_tables_alone_are_drawn_alike(tmp_path, capsys):
    crop_patches = importlib.import_module("raw.crop_patches")
    (tmp_path / "sections").mkdir()
    tifffile.imwrite(tmp_path / "sections" / "fly-LOC-2d.tiff", make_texture((1, 200, 200))[0])
    assert crop_patches.main([str(tmp_path / "sections"), str(tmp_path / "p"), "-cs", "40", "--store", "tar"]) == 0
    (tmp_path / "copy").mkdir()
    for path in [*(tmp_path / "p").glob("*.tar"), *(tmp_path / "p").glob("*.parquet")]:
        shutil.copy(path, tmp_path / "copy")
    assert deduplicate.main([str(tmp_path / "p"), str(tmp_path / "out"), "-d", "20"]) == 0
    assert deduplicate.main([str(tmp_path / "copy"), str(tmp_path / "of copy"), "-d", "20"]) == 0
    assert "not written yet" not in capsys.readouterr().out
    assert (tmp_path / "of copy" / "groups.png").read_bytes() == (tmp_path / "out" / "groups.png").read_bytes()


def test_tables_alone_give_exemplars_and_no_picture(tmp_path, capsys):
    patchdir, savedir = tmp_path / "patches", tmp_path / "out"
    hashes = write_table(patchdir, "fly", make_hashes(90))
    for pictures in ("few", "all"):
        assert deduplicate.main([str(patchdir), str(savedir), "--order", "name", "--pictures", pictures]) == 0
        assert "the patches are not written yet" in capsys.readouterr().out
        expected = naive_exemplars(hashes, sorted(hashes), 12)
        assert 1 < len(expected) < 90
        assert np.load(savedir / "fly_exemplars.npy").tolist() == [f"{patchdir / name}.tiff" for name in expected]
        assert not list(savedir.glob("*.png"))
    assert deduplicate.main([str(patchdir), str(savedir), "--order", "name", "--pictures", "all"]) == 0
    assert "0 datasets done, 1 datasets unchanged" in capsys.readouterr().out


def test_sharpest_needs_measures_or_pixels(patchdir, tmp_path, capsys):
    write_table(patchdir, "worm", make_hashes(9))  # as an earlier version would, without measures
    assert deduplicate.main([str(patchdir), str(tmp_path / "out"), "--order", "sharpest"]) == 1
    error = capsys.readouterr().err
    assert "worm_patches.parquet: expected the measures of its patches, or files" in error
    assert "run raw/crop_patches.py again" in error
    assert (tmp_path / "out" / "fly_exemplars.npy").exists()
    assert not (tmp_path / "out" / "worm_exemplars.npy").exists()


@pytest.mark.parametrize("scope", ["dataset", "all"])
def test_the_sharpest_are_the_same_however_patches_are_stored(tmp_path, capsys, scope):
    crop_patches = importlib.import_module("raw.crop_patches")
    (tmp_path / "sections").mkdir()
    for name, sigma in (("fly", 0.8), ("wing", 2)):
        section = make_texture((1, 300, 420), seed=len(name))[0]
        section[:, :200] = cv2.GaussianBlur(section[:, 200:400], (0, 0), sigma)  # near-duplicates that are less sharp
        tifffile.imwrite(tmp_path / "sections" / f"{name}-LOC-2d.tiff", section)
    found = {}
    for way in ((), ("--store", "tar"), ("--hashes-only",)):
        patches, out = tmp_path / f"p{way}", tmp_path / f"d{way}"
        assert crop_patches.main([str(tmp_path / "sections"), str(patches), "-cs", "40", *way]) == 0
        assert deduplicate.main([str(patches), str(out), "--order", "sharpest", "--scope", scope, "-d", "16"]) == 0
        found[way] = {name: read_groups(out, name) for name in ("fly", "wing")}
    assert found[()] == found["--store", "tar"] == found["--hashes-only",]
    assert any(patch != exemplar for patch, (exemplar, _) in found[()]["fly"].items())
    for table in (tmp_path / "p()").glob("*.parquet"):
        table.unlink()  # then they are measured by the pixels in their files
    argv = [str(tmp_path / "p()"), str(tmp_path / "of files"), "--order", "sharpest", "--scope", scope, "-d", "16"]
    assert deduplicate.main(argv) == 0
    assert {name: read_groups(tmp_path / "of files", name) for name in ("fly", "wing")} == found[()]


@pytest.mark.parametrize("scope", ["dataset", "all"])
def test_guards_are_the_same_of_tables_and_of_pixels(tmp_path, scope):
    crop_patches = importlib.import_module("raw.crop_patches")
    (tmp_path / "sections").mkdir()
    for name in ("fly", "wing"):
        section = make_texture((1, 480, 480), seed=len(name))[0].clip(1, 254)
        section[:, ::24] = 0  # a 24th of each patch, which table and pixels hold with other digits
        tifffile.imwrite(tmp_path / "sections" / f"{name}-LOC-2d.tiff", section)
    assert crop_patches.main([str(tmp_path / "sections"), str(tmp_path / "p"), "-cs", "24"]) == 0
    flags = ["--order", "sharpest", "--blank-guard", "--scope", scope]
    assert deduplicate.main([str(tmp_path / "p"), str(tmp_path / "of tables"), *flags]) == 0
    for table in (tmp_path / "p").glob("*.parquet"):
        table.unlink()
    assert deduplicate.main([str(tmp_path / "p"), str(tmp_path / "of pixels"), *flags]) == 0
    for name in ("fly", "wing"):
        assert read_groups(tmp_path / "of pixels", name) == read_groups(tmp_path / "of tables", name)


@pytest.mark.parametrize("flags", [("--store", "tar"), ()], ids=["shards", "files"])
def test_what_lost_its_table_or_hashes_is_named_and_not_gone(tmp_path, capsys, flags):
    crop_patches = importlib.import_module("raw.crop_patches")
    (tmp_path / "sections").mkdir()
    for name in ("fly", "wing"):
        tifffile.imwrite(tmp_path / "sections" / f"{name}-LOC-2d.tiff", make_texture((1, 200, 200), seed=len(name))[0])
    patches, out = tmp_path / "p", tmp_path / "out"
    assert crop_patches.main([str(tmp_path / "sections"), str(patches), "-cs", "40", *flags]) == 0
    assert deduplicate.main([str(patches), str(out)]) == 0
    before = (out / "wing_groups.csv").read_bytes()
    for lost in [*patches.glob("wing_*.parquet"), *patches.glob("wing-*.npy")]:
        lost.unlink()
    for more in ([], ["--prune"], ["--overwrite"]):
        capsys.readouterr()
        assert deduplicate.main([str(patches), str(out), *more]) == 1
        said = capsys.readouterr()
        assert (
            "wing-00000.tar: expected wing_patches.parquet beside it" in said.err if flags else "wing-LOC" in said.err
        )
        assert "gone" not in said.err + said.out
        assert (out / "wing_groups.csv").read_bytes() == before


def test_datasets_are_noted_as_they_are_done(tmp_path, monkeypatch, capsys):
    patchdir, savedir = tmp_path / "patches", tmp_path / "out"
    for number in range(7):
        write_table(patchdir, f"fly {number}", make_hashes(20))
    monkeypatch.setattr(outcome, "NOTED_DATASETS", 2)

    def break_off(name, *arguments):
        if name == "fly 5":
            raise KeyboardInterrupt
        return order_patches(name, *arguments)

    order_patches = covering.order_patches
    with monkeypatch.context() as patch:
        patch.setattr(covering, "order_patches", break_off)
        assert deduplicate.main([str(patchdir), str(savedir)]) == 130
    capsys.readouterr()
    assert deduplicate.main([str(patchdir), str(savedir)]) == 0
    assert "3 datasets done, 4 datasets unchanged" in capsys.readouterr().out
    assert deduplicate.main([str(patchdir), str(tmp_path / "whole")]) == 0
    assert read_results(savedir) == read_results(tmp_path / "whole")


def test_the_picture_of_all_is_the_same_whether_groups_are_found_or_read(patchdir, tmp_path):
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    new = {path.name: path.read_bytes() for path in patchdir.glob("two words*")}
    for name in new:
        (patchdir / name).unlink()
    deduplicate.main([str(patchdir), str(grown)])
    for name, data in new.items():
        (patchdir / name).write_bytes(data)
    deduplicate.main([str(patchdir), str(grown)])
    deduplicate.main([str(patchdir), str(whole)])
    assert read_results(grown) == read_results(whole)
    assert (whole / "groups.png").exists()


@pytest.mark.parametrize("pictures", ["few", "all"])
def test_when_the_ledger_is_lost_the_same_results_are_found_in_place(patchdir, tmp_path, capsys, pictures):
    savedir = tmp_path / "results"
    command = [str(patchdir), str(savedir), "--pictures", pictures]
    assert deduplicate.main(command) == 0
    before = read_results(savedir)
    pictures = sorted(savedir.glob("*.png"))
    assert pictures
    (savedir / ".emcurate" / "deduplicate.jsonl").unlink()
    assert deduplicate.main(command) == 0
    assert read_results(savedir) == before
    assert deduplicate.main([*command, "--verify"]) == 0
    for picture in pictures:
        (savedir / ".emcurate" / "deduplicate.jsonl").unlink()
        picture.write_bytes(b"mine")
        capsys.readouterr()
        assert deduplicate.main(command) == 1
        assert f"{picture}: expected no such file, or the very bytes" in capsys.readouterr().err
        assert picture.read_bytes() == b"mine"
        picture.write_bytes(before[picture.relative_to(savedir)])


def test_a_name_that_is_no_text_is_named(patchdir, tmp_path, capsys):
    odd = os.fsdecode(b"grid-LOC-2d-\xe9_0_0")
    try:
        np.save(patchdir / f"{odd}.npy", np.zeros((8, 8), bool))
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    tifffile.imwrite(patchdir / f"{odd}.tiff", np.zeros((8, 8), np.uint8))
    assert deduplicate.main([str(patchdir), str(tmp_path / "out")]) == 1
    assert "a name in UTF-8" in capsys.readouterr().err
    assert (tmp_path / "out" / "fly_exemplars.npy").exists()


def write_masked(directory, make_shares):
    """A table of patches with random bits where they are not blank, and these shares of them blank."""
    hashes = RNG.random((60, 8, 8)) < 0.5
    hashes[30:] = hashes[:30]  # each has a twin
    shares = make_shares(60)
    for bits, share in zip(hashes, shares, strict=True):
        bits.reshape(-1)[: round(64 * share)] = False
    hashes[30:].reshape(30, -1)[:, -3] ^= True
    names = write_table(directory, "fly", hashes, saturated=shares)
    return names, dict(zip(names, shares, strict=True))


def naive_exemplars_of_alike(hashes, shares, order, distance):
    """Greedy cover as it is said: only those that may differ by as many bits are compared."""
    exemplars = []
    for name in order:
        allowed = round(distance * (1 - shares[name]))
        near = (
            np.count_nonzero(hashes[name] != hashes[other]) <= allowed
            for other in exemplars
            if round(distance * (1 - shares[other])) == allowed
        )
        if not any(near):
            exemplars.append(name)
    return exemplars


@pytest.mark.parametrize("distance", [3, 12, 20])
def test_patches_with_masks_may_differ_by_fewer_bits_and_only_from_those_with_as_large_ones(tmp_path, distance):
    patchdir, savedir = tmp_path / "patches", tmp_path / "out"
    hashes, shares = write_masked(patchdir, lambda count: np.repeat([0, 0.02, 0.3, 0.6, 0.9, 1], 10)[:count])
    flags = ["--order", "name", "-d", str(distance)]
    deduplicate.main([str(patchdir), str(savedir), *flags, "--blank-guard"])
    expected = naive_exemplars_of_alike(hashes, shares, sorted(hashes), distance)
    paths = [path.rpartition("/")[2].removesuffix(".tiff") for path in np.load(savedir / "fly_exemplars.npy").tolist()]
    assert paths == sorted(expected)
    without = naive_exemplars(hashes, sorted(hashes), distance)
    deduplicate.main([str(patchdir), str(tmp_path / "off"), *flags])
    assert len(np.load(tmp_path / "off" / "fly_exemplars.npy")) == len(without) <= len(expected)


def test_a_guard_changes_nothing_where_nothing_is_blank_and_is_advised_where_much_is(tmp_path, capsys):
    for name, share in (("fine", 0.01), ("masked", 0.7)):
        patchdir = tmp_path / name
        write_masked(patchdir, lambda count, share=share: np.full(count, share))
        capsys.readouterr()
        for out, flags in (("off", []), ("on", ["--blank-guard"])):
            assert deduplicate.main([str(patchdir), str(tmp_path / f"{name} {out}"), *flags]) == 0
        said = capsys.readouterr().out
        assert ("look at --blank-guard" in said) == (name == "masked")
        same = (tmp_path / f"{name} off" / "fly_groups.csv").read_bytes() == (
            tmp_path / f"{name} on" / "fly_groups.csv"
        ).read_bytes()
        assert same == (name == "fine")
        again = deduplicate.main([str(patchdir), str(tmp_path / f"{name} off"), "--blank-guard"])
        assert again == 0 and "again: parameters changed" in capsys.readouterr().out


def test_a_guard_needs_measures_and_takes_them_from_pixels_that_are_read_anyway(patchdir, tmp_path, capsys):
    assert deduplicate.main([str(patchdir), str(tmp_path / "out"), "--blank-guard"]) == 1
    assert "a table with the measures of all its patches, for --blank-guard" in capsys.readouterr().err
    assert deduplicate.main([str(patchdir), str(tmp_path / "out"), "--blank-guard", "--order", "sharpest"]) == 0
    write_table(tmp_path / "old", "fly", make_hashes(9))
    assert deduplicate.main([str(tmp_path / "old"), str(tmp_path / "out2"), "--blank-guard"]) == 1
    assert "run raw/crop_patches.py again: patches stay as they are" in capsys.readouterr().err


def test_tables_that_were_exchanged_are_named_and_built_upon_by_nothing(tmp_path, capsys):
    crop_patches = importlib.import_module("raw.crop_patches")
    patches, images = tmp_path / "patches", tmp_path / "images"
    images.mkdir()
    for seed, name in enumerate(("eye", "fly", "wing")):
        tifffile.imwrite(images / f"{name}-LOC-2d.tiff", make_texture((1, 64, 64), seed=seed)[0])
    assert crop_patches.main([str(images), str(patches), "-cs", "16", "-p", "1", "--hashes-only"]) == 0
    one, other = patches / "eye_patches.parquet", patches / "fly_patches.parquet"
    one.rename(tmp_path / "x")
    other.rename(one)
    (tmp_path / "x").rename(other)
    shutil.rmtree(patches / ".emcurate")  # which would tell that it made neither
    assert deduplicate.main([str(patches), str(tmp_path / "out"), "-p", "1"]) == 1
    err = capsys.readouterr().err
    assert f"{one}: expected the patches of eye, found those of fly" in err and str(other) in err
    made = {path.name for path in (tmp_path / "out").glob("*_exemplars.npy")}
    assert made == {"wing_exemplars.npy"}


@pytest.mark.parametrize("change", ["shortened", "doubled", "another row"])
def test_tables_that_were_altered_are_named_and_made_again(tmp_path, capsys, change):
    crop_patches = importlib.import_module("raw.crop_patches")
    patches, images = tmp_path / "patches", tmp_path / "images"
    images.mkdir()
    for seed, name in enumerate(("eye", "fly")):
        tifffile.imwrite(images / f"{name}-LOC-2d.tiff", make_texture((1, 64, 64), seed=seed)[0])
    cut = [str(images), str(patches), "-cs", "16", "-p", "1", "--hashes-only"]
    assert crop_patches.main(cut) == 0
    path = patches / "fly_patches.parquet"
    whole = path.read_bytes()
    table = pq.read_table(path)
    if change == "another row":
        hashes = table["hash"].to_pylist()
        table = table.set_column(table.schema.get_field_index("hash"), table.schema.field("hash"), [hashes[::-1]])
    else:
        table = table.slice(0, 5) if change == "shortened" else pa.concat_tables([table, table.slice(3, 1)])
    pq.write_table(table, path)
    assert deduplicate.main([str(patches), str(tmp_path / "out"), "-p", "1"]) == 1
    assert f"{path}: expected the {len(whole):,} bytes that were noted" in capsys.readouterr().err
    assert {made.name for made in (tmp_path / "out").glob("*_exemplars.npy")} == {"eye_exemplars.npy"}
    assert crop_patches.main(cut) == 0 and path.read_bytes() == whole
    assert deduplicate.main([str(patches), str(tmp_path / "out"), "-p", "1"]) == 0
    assert {made.name for made in (tmp_path / "out").glob("*_exemplars.npy")} == {
        "eye_exemplars.npy",
        "fly_exemplars.npy",
    }


def test_a_table_that_was_copied_is_the_same(tmp_path):
    crop_patches = importlib.import_module("raw.crop_patches")
    patches, images = tmp_path / "patches", tmp_path / "images"
    images.mkdir()
    tifffile.imwrite(images / "fly-LOC-2d.tiff", make_texture((1, 64, 64))[0])
    assert crop_patches.main([str(images), str(patches), "-cs", "16", "-p", "1", "--hashes-only"]) == 0
    shutil.copytree(patches, tmp_path / "copy", copy_function=shutil.copyfile)
    assert deduplicate.main([str(tmp_path / "copy"), str(tmp_path / "out"), "-p", "1"]) == 0
