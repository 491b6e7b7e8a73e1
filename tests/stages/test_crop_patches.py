import importlib
import subprocess
import sys

import imagehash
import numpy as np
import pytest
import tifffile
from PIL import Image

from emcurate.patches.crop_plan import CropPlan

crop_patches = importlib.import_module("raw.crop_patches")

RNG = np.random.default_rng(0)


def write_sections(directory, **shapes):
    directory.mkdir(exist_ok=True)
    sections = {}
    for name, shape in shapes.items():
        sections[name] = RNG.integers(0, 256, shape).astype(np.uint8)
        tifffile.imwrite(directory / f"{name}-LOC-2d.tiff", sections[name])
    return sections


def files_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize(("crop", "hash_size"), [(64, 8), (100, 16), (224, 2)])
def test_patches_and_hashes(tmp_path, crop, hash_size):
    sections = write_sections(tmp_path / "s", a=(230, 260), **{"ö b_1": (90, 150)})
    out = tmp_path / "p"
    sides = ["-cs", str(crop), "-hs", str(hash_size), "--min-size", "1"]
    assert crop_patches.main([str(tmp_path / "s"), str(out), *sides]) == 0
    expected = set()
    for name, section in sections.items():
        expected.add(f"{name}_patches.parquet")
        rows, columns = (max(1, round(side / crop)) for side in section.shape)
        for y in range(0, rows * crop, crop):
            for x in range(0, columns * crop, crop):
                stem = f"{name}-LOC-2d_{y}_{x}"
                expected |= {f"{stem}.tiff", f"{stem}.npy"}
                patch = section[y : y + crop, x : x + crop]
                assert np.array_equal(tifffile.imread(out / f"{stem}.tiff"), patch)
                image = Image.fromarray(patch).resize((crop, crop), resample=2)
                bits = np.load(out / f"{stem}.npy")
                assert (bits.dtype, bits.shape) == (bool, (hash_size, hash_size))
                assert np.array_equal(bits, imagehash.dhash(image, hash_size).hash)
    assert set(files_of(out)) == expected


def test_any_number_of_processes_gives_the_same_bytes(tmp_path):
    write_sections(tmp_path / "s", a=(130, 200), b=(70, 70), c=(64, 300))
    for processes in ("1", "2"):
        crop_patches.main([str(tmp_path / "s"), str(tmp_path / processes), "--crop-size", "64", "-p", processes])
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_rerun_and_interrupted_run(tmp_path, capsys):
    write_sections(tmp_path / "s", a=(130, 200), b=(70, 70))
    out = tmp_path / "p"
    crop_patches.main([str(tmp_path / "s"), str(out), "-cs", "64"])
    before = files_of(out)
    capsys.readouterr()
    assert crop_patches.main([str(tmp_path / "s"), str(out), "-cs", "64"]) == 0
    assert "0 sections cut, 7 patches, 0 files written, 2 sections already done" in capsys.readouterr().out
    (out / "a-LOC-2d_64_0.npy").unlink()
    (out / "a-LOC-2d_0_128.tiff").unlink()
    assert crop_patches.main([str(tmp_path / "s"), str(out), "-cs", "64"]) == 0
    assert "1 sections cut, 7 patches, 2 files written" in capsys.readouterr().out
    assert files_of(out) == before


def test_two_crop_sizes_are_never_mixed(tmp_path, capsys):
    write_sections(tmp_path / "s", a=(130, 200))
    out = tmp_path / "p"
    crop_patches.main([str(tmp_path / "s"), str(out), "-cs", "64"])
    before = files_of(out)
    assert crop_patches.main([str(tmp_path / "s"), str(out), "-cs", "100"]) == 1
    assert "crop_size 100" in capsys.readouterr().err
    assert files_of(out) == before
    assert crop_patches.main([str(tmp_path / "s"), str(out), "-cs", "100", "--overwrite"]) == 0
    patches = {f"a-LOC-2d_0_{x}.{e}" for x in (0, 100) for e in ("tiff", "npy")}
    assert set(files_of(out)) == {*patches, "a_patches.parquet"}


def test_bad_sections_are_named_and_the_others_cut(tmp_path, capsys):
    write_sections(tmp_path / "s", a=(64, 64))
    (tmp_path / "s" / "b-LOC-2d.tiff").write_bytes((tmp_path / "s" / "a-LOC-2d.tiff").read_bytes()[:-100])
    tifffile.imwrite(tmp_path / "s" / "c-LOC-2d.tiff", np.zeros((64, 64), np.uint16))
    tifffile.imwrite(tmp_path / "s" / "holiday.tiff", np.zeros((64, 64), np.uint8))
    (tmp_path / "s" / "d-LOC-2d.tiff").touch()
    assert crop_patches.main([str(tmp_path / "s"), str(tmp_path / "p"), "-cs", "64"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for name in ("b-LOC-2d", "c-LOC-2d", "d-LOC-2d", "holiday"):
        assert f"{name}.tiff: expected" in error
    assert set(files_of(tmp_path / "p")) == {"a-LOC-2d_0_0.tiff", "a-LOC-2d_0_0.npy", "a_patches.parquet"}


def test_patches_are_never_taken_for_sections(tmp_path, capsys):
    write_sections(tmp_path / "s", a=(64, 64))
    assert crop_patches.main([str(tmp_path / "s"), str(tmp_path / "s")]) == 1
    assert "directory of its own" in capsys.readouterr().err
    assert len(files_of(tmp_path / "s")) == 1


def test_no_sections(tmp_path, capsys):
    (tmp_path / "s").mkdir()
    assert crop_patches.main([str(tmp_path / "s"), str(tmp_path / "p")]) == 1
    assert "expected sections" in capsys.readouterr().err


def test_script_runs_from_any_directory(tmp_path, root):
    write_sections(tmp_path / "s", a=(64, 64))
    command = [sys.executable, str(root / "raw" / "crop_patches.py"), "s", "p", "--crop_size", "32", "--hash_size", "4"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "4 patches" in result.stdout.splitlines()[-1]


@pytest.mark.parametrize("flags", [[], ["--hashes-only"], ["--store", "tar"]])
def test_cutting_loads_no_library_that_only_others_need(tmp_path, root, flags):
    write_sections(tmp_path / "s", a=(230, 260))
    script = root / "raw" / "crop_patches.py"
    command = [sys.executable, "-X", "importtime", str(script), "s", "p", "-cs", "64", "-p", "1", *flags]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    loaded = {line.rpartition("|")[2].strip() for line in lines}
    assert "numpy" in loaded
    assert not loaded & {"numba", "dask", "scipy", "pandas", "matplotlib", "cv2", "requests", "torch"}


@pytest.mark.parametrize("flags", [(), ("--store", "tar"), ("--hashes-only",)], ids=["files", "shards", "hashes"])
def test_a_run_that_is_stopped_says_how_many_patches_there_are(tmp_path, capsys, monkeypatch, flags):
    write_sections(tmp_path / "s", a=(130, 200), b=(70, 70), c=(64, 320))
    take = CropPlan.take

    def stop_at_c(plan, job, done, report):
        if job.dataset == "c":
            raise KeyboardInterrupt
        take(plan, job, done, report)

    with monkeypatch.context() as stopped:
        stopped.setattr(CropPlan, "take", stop_at_c)
        assert crop_patches.main([str(tmp_path / "s"), str(tmp_path / "p"), "-cs", "64", "-p", "1", *flags]) == 130
    assert "with 2 sections cut, 7 patches" in capsys.readouterr().err
    assert crop_patches.main([str(tmp_path / "s"), str(tmp_path / "p"), "-cs", "64", "-p", "1", *flags]) == 0
    assert "sections cut, 12 patches" in capsys.readouterr().out
