import gzip
import importlib
import itertools
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import mrcfile
import msgspec
import numpy as np
import pytest
import tifffile
from PIL import Image

from emcurate import naming
from emcurate.patches.pathlists import write_path_list
from emcurate.running.ledger_file import LedgerFile, ledger_path
from emcurate.running.ledger_lines import DONE, Line
from emcurate.running.report import Report
from emcurate.volumes.boxes import Box, measure_overlap
from emcurate.volumes.columns import group_patches
from tests.patch_sets import pack

reconstruct3d = importlib.import_module("3d.reconstruct3d")
cross_section3d = importlib.import_module("raw.cross_section3d")
crop_patches = importlib.import_module("raw.crop_patches")

RNG = np.random.default_rng(0)
SHAPE = (70, 150, 100)
VOLUME = RNG.integers(0, 256, SHAPE).astype(np.uint8)


@pytest.fixture
def voldir(tmp_path):
    voldir = tmp_path / "volumes"
    voldir.mkdir()
    tifffile.imwrite(
        voldir / "block ö.tif", VOLUME, imagej=True, resolution=(100, 100),
        metadata={"axes": "ZYX", "spacing": 0.01, "unit": "um"},
    )  # fmt: skip
    return voldir


def cut(tmp_path, voldir, crop, *arguments):
    cross_section3d.main([str(voldir), str(tmp_path / "sections"), *arguments])
    crop_patches.main([str(tmp_path / "sections"), str(tmp_path / "patches"), "-cs", str(crop), "--min-size", "1"])
    paths = sorted((tmp_path / "patches").glob("*.tiff"))
    assert paths
    write_path_list(tmp_path / "filtered.npz", paths)
    return paths


def run(tmp_path, voldir, *arguments):
    return reconstruct3d.main([str(tmp_path / "filtered.npz"), str(voldir), str(tmp_path / "out"), *arguments])


def read_boxes(directory, volume):
    """Each saved box, its voxels compared with those of the volume at the place its name tells."""
    boxes = []
    for path in sorted(directory.glob("*.npy")):
        place = naming.parse_subvolume(path.stem)
        stored = np.load(path)
        voxels = stored.transpose([place.axes.index(axis) for axis in "zyx"])
        stop = tuple(start + side for start, side in zip(place.start, voxels.shape, strict=True))
        box = Box(place.start, stop)
        assert np.array_equal(voxels, volume[box.slices])
        boxes.append((place, box, stored))
    return boxes


@pytest.mark.parametrize(("crop", "nz"), [(64, 32), (128, 64), (224, 40), (30, 29)])
@pytest.mark.parametrize("cross_plane", [False, True])
def test_boxes_hold_the_volumes_voxels_and_do_not_overlap(tmp_path, voldir, crop, nz, cross_plane):
    cut(tmp_path, voldir, crop, "-s", "3")
    assert run(tmp_path, voldir, "-nz", str(nz), *(["--cross-plane"] if cross_plane else [])) == 0
    boxes = read_boxes(tmp_path / "out", VOLUME)
    assert boxes
    for place, box, stored in boxes:
        assert (place.dataset, place.isotropic, place.widths) == ("block ö", True, (2, 3, 2))
        assert min(box.shape) >= nz // 2
        assert place.axes == "zyx" or cross_plane
        assert not cross_plane or stored.shape[0] == min(stored.shape)
    for (_, first, _), (_, second, _) in itertools.combinations(boxes, 2):
        assert measure_overlap(first, second) <= 0.1


def test_only_intervals_with_enough_informative_patches(tmp_path, voldir):
    paths = cut(tmp_path, voldir, 64, "-a", "0")
    # Of the column at (64, 0): 4 sections in 0..31, which is more than 32 // 10, and 3 in 32..63, which is not.
    wanted = {f"block ö-LOC-0_{z:02d}_64_0" for z in (1, 5, 9, 31, 40, 41, 42)}
    write_path_list(tmp_path / "filtered.npz", [p for p in paths if p.stem in wanted])
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert [p.name for p in (tmp_path / "out").glob("*.npy")] == ["block ö-LOC-3d-ANISO-00_064_00_zyx.npy"]
    ((_, box, _),) = read_boxes(tmp_path / "out", VOLUME)
    assert box.shape == (32, 64, 64)


def test_anisotropic_means_only_plane_0_occurs(tmp_path, voldir):
    cut(tmp_path, voldir, 64, "-a", "0", "2", "-s", "2")
    run(tmp_path, voldir, "-nz", "32")
    assert {place.isotropic for place, _, _ in read_boxes(tmp_path / "out", VOLUME)} == {True}


@pytest.mark.parametrize("kind", ["mrc", "mrc.gz", "float mrc", "slices", "lzw"])
def test_other_formats_and_types(tmp_path, kind):
    voldir = tmp_path / "volumes"
    voldir.mkdir()
    volume = VOLUME
    if kind == "slices":
        (voldir / "block").mkdir()
        for z, plane in enumerate(VOLUME):
            Image.fromarray(plane).save(voldir / "block" / f"{z}.png")
    elif kind == "lzw":
        tifffile.imwrite(voldir / "block.tif", VOLUME, compression="lzw", photometric="minisblack")
    else:
        volume = VOLUME.astype(np.float32) / 7 if kind == "float mrc" else VOLUME.astype(np.uint16)
        with mrcfile.new(voldir / "block.mrc") as mrc:
            mrc.set_data(volume)
        if kind == "mrc.gz":
            packed = gzip.compress((voldir / "block.mrc").read_bytes())
            (voldir / "block.mrc").unlink()
            (voldir / "block.mrc.gz").write_bytes(packed)
    cut(tmp_path, voldir, 64, "-s", "4")
    assert run(tmp_path, voldir, "-nz", "32") == 0
    boxes = read_boxes(tmp_path / "out", volume)
    assert boxes
    assert {stored.dtype for _, _, stored in boxes} == {volume.dtype}
    assert [p.name for p in (tmp_path / "out").glob(".*")] == [".emcurate"]


def files_of(directory):
    return {p.name: p.read_bytes() for p in directory.glob("*.npy")}


def test_rerun_interrupted_run_and_changed_list(tmp_path, voldir, capsys):
    paths = cut(tmp_path, voldir, 64, "-s", "3")
    run(tmp_path, voldir, "-nz", "32")
    before = files_of(tmp_path / "out")
    capsys.readouterr()
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert "0 subvolumes written, 1 volumes already done" in capsys.readouterr().out

    next((tmp_path / "out").glob("*.npy")).unlink()
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert files_of(tmp_path / "out") == before

    write_path_list(tmp_path / "filtered.npz", [p for p in paths if "-LOC-0" in p.name])
    assert run(tmp_path, voldir, "-nz", "32") == 1
    error = capsys.readouterr().err
    assert "--overwrite" in error
    assert f"its patches in {tmp_path / 'filtered.npz'} have changed" in error
    assert files_of(tmp_path / "out") == before
    assert run(tmp_path, voldir, "-nz", "32", "--overwrite") == 0
    assert all("-ANISO-" in name for name in files_of(tmp_path / "out"))


def test_patches_that_are_made_again_are_the_same(tmp_path, voldir, capsys):
    paths = cut(tmp_path, voldir, 64, "-s", "3")
    assert run(tmp_path, voldir, "-nz", "32") == 0
    before = files_of(tmp_path / "out")
    for path in paths:
        os.utime(path, ns=(1, 1))
    capsys.readouterr()
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert "1 volumes already done" in capsys.readouterr().out
    tifffile.imwrite(voldir / "block ö.tif", VOLUME, metadata={"axes": "ZYX"})
    assert run(tmp_path, voldir, "-nz", "32") == 1
    assert "its patches" not in capsys.readouterr().err
    assert files_of(tmp_path / "out") == before


def test_a_patch_that_is_missing_is_named_and_is_no_changed_list(tmp_path, voldir, capsys):
    paths = cut(tmp_path, voldir, 64, "-s", "3")
    assert run(tmp_path, voldir, "-nz", "32") == 0
    before = files_of(tmp_path / "out")
    content = paths[0].read_bytes()
    paths[0].unlink()
    assert run(tmp_path, voldir, "-nz", "32") == 1
    error = capsys.readouterr().err
    assert paths[0].name in error and "have changed" not in error
    paths[0].write_bytes(content)
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert files_of(tmp_path / "out") == before


def textured(shape):
    """A volume that shows something, as noise without any structure hardly does once it is clipped."""
    return cv2.GaussianBlur(np.random.default_rng(shape[0]).normal(0, 90, shape), (0, 0), 2).clip(-20, 20) * 5 + 120


OTHERS = {
    "another": lambda voxels: np.random.default_rng(7).integers(0, 256, voxels.shape).astype(np.uint8),
    "inverse": lambda voxels: 255 - voxels,
    "upside down": lambda voxels: voxels[::-1],
    "mirrored": lambda voxels: voxels[:, :, ::-1].copy(),
    "black": np.zeros_like,
    "no numbers": lambda voxels: np.full(voxels.shape, np.nan, np.float32),
}
FORMS = {
    "16 bits": lambda voxels: voxels.astype(np.uint16) * 97 + 1000,
    "signed": lambda voxels: (voxels.astype(np.int16) - 128).astype(np.int8),
    "float": lambda voxels: (voxels / 255).astype(np.float32),
    "clipped": lambda voxels: ((voxels.astype(int) - 40) * 3 // 2).clip(0, 255).astype(np.uint8),
    "hot pixels": lambda voxels: np.where(RNG.random(voxels.shape) < 0.001, 65535, voxels.astype(np.uint16)),
}


def write_volume(path, voxels):
    tifffile.imwrite(
        path, voxels.astype(voxels.dtype), imagej=voxels.dtype != np.int8, resolution=(100, 100),
        metadata={"axes": "ZYX", "spacing": 0.01, "unit": "um"},
    )  # fmt: skip


@pytest.mark.parametrize("nm", [None, 20])
@pytest.mark.parametrize("kind", [*OTHERS, *FORMS])
def test_a_volume_that_shows_something_else_than_the_patches_is_refused(tmp_path, capsys, kind, nm):
    volumes, voxels = tmp_path / "volumes", textured((70, 150, 100)).astype(np.uint8)
    volumes.mkdir()
    write_volume(volumes / "block.tif", voxels)
    flags = [] if nm is None else ["--pixel-size", str(nm)]
    patches = [str(volumes), str(tmp_path / "patches"), "--from-volumes", "-s", "3", "--min-size", "1", *flags]
    assert crop_patches.main([*patches, "-cs", "32"]) == 0
    write_path_list(tmp_path / "filtered.npz", sorted((tmp_path / "patches").glob("*.tiff")))
    write_volume(volumes / "block.tif", {**OTHERS, **FORMS}[kind](voxels))
    capsys.readouterr()
    assert run(tmp_path, volumes, "-nz", "16") == (kind in OTHERS)
    if kind in OTHERS:
        assert "block.tif: expected the volume that the patches in" in capsys.readouterr().err
    assert bool(files_of(tmp_path / "out")) == (kind in FORMS)


def test_another_size_of_a_patch_counts(tmp_path, voldir, capsys):
    paths = cut(tmp_path, voldir, 64, "-s", "3")
    assert run(tmp_path, voldir, "-nz", "32") == 0
    pixels = np.asarray(Image.open(paths[0]))
    Image.fromarray(pixels[:-1]).save(paths[0])
    assert run(tmp_path, voldir, "-nz", "32") == 1
    assert "its patches" in capsys.readouterr().err


def test_where_nothing_came_of_one_list_another_needs_no_leave(tmp_path, voldir, capsys):
    paths = cut(tmp_path, voldir, 64, "-s", "3")
    write_path_list(tmp_path / "filtered.npz", paths[:3])
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert not files_of(tmp_path / "out")
    write_path_list(tmp_path / "filtered.npz", paths)
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert files_of(tmp_path / "out")


def test_results_noted_with_the_times_of_patches_are_still_theirs(tmp_path, voldir, capsys):
    def time_of(path):
        return f"{Path(path).stat().st_size} bytes, {Path(path).stat().st_mtime_ns}"

    paths = cut(tmp_path, voldir, 64, "-s", "3")
    assert run(tmp_path, voldir, "-nz", "32") == 0
    file = LedgerFile(ledger_path(tmp_path / "out", "reconstruct3d"))
    line = file.entries["block ö"]
    patches = group_patches(map(str, paths), Report("test"))["block ö"]
    earlier = f"{line.fingerprint.rpartition('; ')[0]}; {patches.fingerprint(time_of)}"
    file.append([msgspec.structs.replace(line, fingerprint=earlier)])
    capsys.readouterr()
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert "1 volumes already done" in capsys.readouterr().out
    os.utime(patches.first, ns=(1, 1))  # nobody knows whether it is the patch of then
    assert run(tmp_path, voldir, "-nz", "32") == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_any_number_of_processes_gives_the_same_bytes(tmp_path, voldir, processes):
    cut(tmp_path, voldir, 64, "-s", "5")
    run(tmp_path, voldir, "-nz", "32", "-p", processes)
    shutil.move(tmp_path / "out", tmp_path / "first")
    run(tmp_path, voldir, "-nz", "32", "-p", "1")
    assert files_of(tmp_path / "first") == files_of(tmp_path / "out")


@pytest.mark.parametrize("other_tiff", [False, True])
def test_patches_in_shards_give_the_same_boxes(tmp_path, voldir, capsys, other_tiff):
    paths = cut(tmp_path, voldir, 64, "-s", "3")
    run(tmp_path, voldir, "-nz", "32")
    shutil.move(tmp_path / "out", tmp_path / "of_files")
    assert files_of(tmp_path / "of_files")
    if other_tiff:
        for path in paths:
            Image.fromarray(tifffile.imread(path)).save(path, compression="tiff_lzw")
    write_path_list(tmp_path / "filtered.npz", pack(paths, tmp_path / "shards", per_shard=50))
    shutil.rmtree(tmp_path / "patches")
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert files_of(tmp_path / "of_files") == files_of(tmp_path / "out")
    capsys.readouterr()
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert "1 volumes already done" in capsys.readouterr().out
    # A shard that is written anew with the same patches is the same, and one that has lost them is not.
    shard = next((tmp_path / "shards").glob("*-00000.tar"))
    with tarfile.open(shard, "a") as tar:
        tar.add(__file__, "more.txt")
    assert run(tmp_path, voldir, "-nz", "32") == 0
    content = shard.read_bytes()
    shard.write_bytes(bytes(len(content)))
    assert run(tmp_path, voldir, "-nz", "32") == 1
    error = capsys.readouterr().err
    assert "expected a patch in a shard" in error and "have changed" not in error
    shard.write_bytes(content)
    assert run(tmp_path, voldir, "-nz", "32") == 0
    # A list of which most shards are elsewhere is not taken.
    shutil.move(tmp_path / "shards", tmp_path / "moved")
    assert run(tmp_path, voldir, "-nz", "32", "--overwrite") == 1
    assert "--reroot" in capsys.readouterr().err
    moved = ["--reroot", str(tmp_path / "shards"), str(tmp_path / "moved")]
    assert run(tmp_path, voldir, "-nz", "32", "--overwrite", *moved) == 0
    assert files_of(tmp_path / "of_files") == files_of(tmp_path / "out")


def test_patches_that_are_gone_are_named_and_reroot_finds_them(tmp_path, voldir, capsys):
    cut(tmp_path, voldir, 64, "-s", "3")
    shutil.move(tmp_path / "patches", tmp_path / "moved")
    assert run(tmp_path, voldir, "-nz", "32") == 1
    error = capsys.readouterr().err
    assert "no such file" in error
    assert "--reroot" in error
    assert "Traceback" not in error
    moved = ["--reroot", str(tmp_path / "patches"), str(tmp_path / "moved")]
    assert run(tmp_path, voldir, "-nz", "32", *moved) == 0
    assert read_boxes(tmp_path / "out", VOLUME)


def test_another_volume_of_the_same_name(tmp_path, voldir, capsys):
    cut(tmp_path, voldir, 64, "-s", "3")
    tifffile.imwrite(voldir / "block ö.tif", VOLUME[:, :60], photometric="minisblack")
    assert run(tmp_path, voldir, "-nz", "32") == 1
    assert "can have been cut from" in capsys.readouterr().err


def test_patches_of_images_are_left_out_and_foreign_names_reported(tmp_path, voldir, capsys):
    paths = cut(tmp_path, voldir, 64, "-s", "3")
    write_path_list(tmp_path / "filtered.npz", [*paths, tmp_path / "grid-LOC-2d_0_0.tiff", tmp_path / "cat.png"])
    assert run(tmp_path, voldir, "-nz", "32") == 1
    captured = capsys.readouterr()
    assert "1 patches of 2D images left out" in captured.out
    assert "cat.png" in captured.err


def test_no_volumes(tmp_path, voldir, capsys):
    cut(tmp_path, voldir, 64, "-s", "9")
    (tmp_path / "empty").mkdir()
    assert run(tmp_path, tmp_path / "empty") == 1
    assert "expected volumes" in capsys.readouterr().err


def test_script_runs_from_any_directory(tmp_path, voldir, root):
    cut(tmp_path, voldir, 64, "-s", "3")
    script = str(root / "3d" / "reconstruct3d.py")
    command = [sys.executable, script, "filtered.npz", "volumes", "out", "-nz", "32"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert read_boxes(tmp_path / "out", VOLUME)


def test_boxes_of_several_planes_at_one_voxel_have_names_of_their_own(tmp_path, voldir):
    # A flat box of each plane at the same corner: their overlap, a twelfth, is too small for them to be taken for one.
    paths = cut(tmp_path, voldir, 64)
    corner = [path for path in paths if path.stem.endswith("_0_0")]
    keep = [path for path in corner if naming.parse_patch(path.stem).section.index < 10]
    dropped = naming.parse_patch(keep[0].stem)
    write_path_list(tmp_path / "filtered.npz", [path for path in keep if naming.parse_patch(path.stem) != dropped])
    assert run(tmp_path, voldir, "-nz", "10") == 0
    names = sorted(path.stem.partition("-LOC-")[2] for path in (tmp_path / "out").glob("*.npy"))
    assert names == [
        "3d-ISO-00_000_00_zyx",
        "3d-ISO-00_000_00_zyx_10x64x64",
        "3d-ISO-00_000_00_zyx_64x64x10",
    ]
    boxes = read_boxes(tmp_path / "out", VOLUME)
    assert {box.shape for _, box, _ in boxes} == {(10, 64, 64), (64, 10, 64), (64, 64, 10)}


def test_why_few_subvolumes_come_out_is_said_in_one_line(tmp_path, voldir, capsys):
    cut(tmp_path, voldir, 64, "--spacing", "10")
    capsys.readouterr()
    assert run(tmp_path, voldir, "-nz", "64") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "pieces of columns" in line]
    assert len(lines) == 1
    assert "more than 6 of 64 sections" in lines[0]


def note_unread(tmp_path, count):
    """Have it noted beside the list that so many patches of it could not be read, as classify_nn.py does."""
    path = ledger_path(tmp_path, "classify_nn")
    header = Line(stage="classify_nn", product="filtered patches", parameters={})
    LedgerFile(path).append([header, Line(input="classify_nn", state=DONE, details={"unreadable": count})])


def test_a_list_that_was_made_in_want_of_patches_may_grow(tmp_path, voldir, capsys):
    paths = cut(tmp_path, voldir, 64, "-s", "3")
    assert run(tmp_path, voldir, "-nz", "32") == 0
    whole = files_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    write_path_list(tmp_path / "filtered.npz", paths[: len(paths) // 2])
    note_unread(tmp_path, len(paths) - len(paths) // 2)
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert files_of(tmp_path / "out") != whole
    assert run(tmp_path, voldir, "-nz", "32") == 0
    write_path_list(tmp_path / "filtered.npz", paths)
    note_unread(tmp_path, 0)
    assert run(tmp_path, voldir, "-nz", "32") == 0
    assert files_of(tmp_path / "out") == whole
    # What was made of a whole list is replaced only when asked.
    write_path_list(tmp_path / "filtered.npz", paths[: len(paths) // 2])
    assert run(tmp_path, voldir, "-nz", "32") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == whole
