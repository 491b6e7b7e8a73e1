"""reconstruct3d.py --format, --centre, --limit and --animate, read back by zarr-python, tifffile and Pillow."""

import importlib
import itertools
import shutil

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from emcurate import naming, partials
from emcurate.curation.closing import count_datasets
from emcurate.patches.pathlists import write_path_list
from emcurate.running import ledger as ledgers
from emcurate.running.ledger_file import LedgerFile, ledger_path
from emcurate.volumes.boxes import Box, measure_overlap
from emcurate.volumes.volume import open_volume
from tests.kills import differing, killed_after, tree

reconstruct3d, cross_section3d, crop_patches = (
    importlib.import_module(name) for name in ("3d.reconstruct3d", "raw.cross_section3d", "raw.crop_patches")
)
SHAPE = (30, 70, 66)
SIZE = (40.0, 4.0, 8.0)  # nm, (z, y, x): three that differ
RNG = np.random.default_rng(0)


def make_volume(dtype):
    if np.dtype(dtype).kind == "f":
        return RNG.normal(0, 1, SHAPE).astype(dtype)
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, SHAPE, dtype, endpoint=True)


def prepare(root, volumes, *flags):
    """A directory of volumes as plain TIFFs, without a voxel size, and a list of all their patches."""
    (root / "volumes").mkdir()
    for name, volume in volumes.items():
        tifffile.imwrite(root / "volumes" / f"{name}.tif", volume, photometric="minisblack")
    patches = root / "patches"
    words = ["--from-volumes", "-cs", "32", "-s", "2", "-p", "1", *flags]
    assert crop_patches.main([str(root / "volumes"), str(patches), *words]) == 0
    write_path_list(root / "filtered.npz", sorted(patches.glob("*.tiff")))
    return root


@pytest.fixture(scope="module")
def uint8(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("uint8"), {"fly": make_volume(np.uint8)})


def run(root, out, *flags):
    return reconstruct3d.main([str(root / "filtered.npz"), str(root / "volumes"), str(out), "-p", "1", *flags])


SIZED = ("--voxel-size", *map(str, SIZE))


def place_of(path):
    return naming.parse_subvolume(path.name.rpartition(".")[0])


def stored_as(volume, place, shape):
    """What of a volume a box of some stored shape must hold, in the order of its axes."""
    sides = dict(zip(place.axes, shape, strict=True))
    box = tuple(slice(at, at + sides[axis]) for at, axis in zip(place.start, "zyx", strict=True))
    return volume[box].transpose(["zyx".index(axis) for axis in place.axes])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize(("format", "flags"), [
    ("tiff", ()), ("tiff", ("--cross-plane",)), ("zarr", ("--cross-plane",)), ("zarr-0.4", ()),
])  # fmt: skip
def test_boxes_are_read_back_with_their_voxel_size(tmp_path, dtype, format, flags):
    volume = make_volume(dtype)
    root = prepare(tmp_path, {"fly": volume})
    assert run(root, tmp_path / "out", "-nz", "20", "--format", format, *SIZED, *flags) == 0
    paths = sorted(path for path in (tmp_path / "out").iterdir() if path.name != ".emcurate")
    assert len(paths) > 3
    for path in paths:
        place = place_of(path)
        sizes = [dict(zip("zyx", SIZE, strict=True))[axis] for axis in place.axes]
        if format == "tiff":
            assert path.suffix == ".tiff"
            with tifffile.TiffFile(path) as tiff:
                found = tiff.asarray()
                page = tiff.pages[0]
                if tiff.is_imagej:
                    assert dtype in ("uint8", "uint16", "float32")
                    assert (tiff.imagej_metadata["spacing"], tiff.imagej_metadata["unit"]) == (sizes[0], "nm")
                    for tag, size in (("YResolution", sizes[1]), ("XResolution", sizes[2])):
                        numerator, denominator = page.tags[tag].value
                        assert denominator / numerator == pytest.approx(size)
                else:
                    pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
                    assert [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"] == sizes
                    assert pixels["PhysicalSizeXUnit"] == "nm"
        else:
            group = zarr.open_group(path, mode="r")
            assert group.metadata.zarr_format == (2 if format == "zarr-0.4" else 3)
            said = group.attrs["multiscales"] if format == "zarr-0.4" else group.attrs["ome"]["multiscales"]
            assert [(axis["name"], axis["unit"]) for axis in said[0]["axes"]] == [(a, "nanometer") for a in place.axes]
            (level,) = said[0]["datasets"]
            scale, moved = level["coordinateTransformations"]
            starts = [dict(zip("zyx", place.start, strict=True))[axis] for axis in place.axes]
            assert scale["scale"] == sizes
            assert moved["translation"] == [at * size for at, size in zip(starts, sizes, strict=True)]
            found = group[level["path"]][:]
        assert found.dtype == dtype
        assert np.array_equal(found, stored_as(volume, place, found.shape))
        # And by this project's own reader, which takes a stack's pages for z, but an image's axes by their names.
        again = open_volume(path)
        assert again.voxel_size_nm == pytest.approx(sizes if format == "tiff" else SIZE)


def test_sizes_come_from_the_volume_and_one_that_is_unknown_stays_so(tmp_path, uint8):
    for format, read in (("tiff", tifffile.imread), ("zarr", lambda path: zarr.open_group(path, mode="r")["0"][:])):
        out = tmp_path / format
        assert run(uint8, out, "-nz", "20", "--format", format) == 0
        path = sorted(path for path in out.iterdir() if path.name != ".emcurate")[0]
        assert open_volume(path).voxel_size_nm is None
        assert read(path).shape
    (tmp_path / "volumes").mkdir()
    with mrcfile.new(tmp_path / "volumes" / "fly.mrc") as mrc:
        mrc.set_data(tifffile.imread(uint8 / "volumes" / "fly.tif").astype(np.int16))
        mrc.voxel_size = 50.0  # Å
    filtered = str(uint8 / "filtered.npz")
    assert (
        reconstruct3d.main([filtered, str(tmp_path / "volumes"), str(tmp_path / "m"), "-nz", "20", "--format", "tiff"])
        == 0
    )
    assert open_volume(next((tmp_path / "m").glob("*.tiff"))).voxel_size_nm == pytest.approx((5, 5, 5))
    sizes = tmp_path / "sizes.csv"
    sizes.write_text("name,z,y,x\nfly,9,8,7\n")
    flags = ["-nz", "20", "--format", "zarr", *SIZED, "--voxel-sizes", str(sizes)]
    assert run(uint8, tmp_path / "named", *flags) == 0
    assert open_volume(next((tmp_path / "named").glob("*.zarr"))).voxel_size_nm == (9, 8, 7)


def test_arrays_of_numpy_stay_as_they_were(tmp_path, uint8):
    assert run(uint8, tmp_path / "out", "-nz", "20", *SIZED) == 0  # of which they keep no word
    volume = tifffile.imread(uint8 / "volumes" / "fly.tif")
    paths = list((tmp_path / "out").glob("*"))
    assert paths and all(path.suffix == ".npy" for path in paths if path.name != ".emcurate")
    for path in (tmp_path / "out").glob("*.npy"):
        found = np.load(path, allow_pickle=False)
        np.save(tmp_path / "again.npy", np.ascontiguousarray(stored_as(volume, place_of(path), found.shape)))
        assert path.read_bytes() == (tmp_path / "again.npy").read_bytes()
    header = LedgerFile(ledger_path(tmp_path / "out", "reconstruct3d")).header
    assert header.parameters == {"nz": 20, "cross_plane": False}


def test_a_type_that_tiff_has_not_is_named_and_the_others_done(tmp_path, capsys):
    volumes = {"halves": make_volume(np.float16), "fly": make_volume(np.uint8)}
    root = prepare(tmp_path, volumes)
    assert run(root, tmp_path / "out", "-nz", "20", "--format", "tiff") == 1
    error = capsys.readouterr().err
    assert "expected voxels of uint8" in error and "found float16; give --format zarr or npy" in error
    assert {place_of(path).dataset for path in (tmp_path / "out").glob("*.tiff")} == {"fly"}
    assert run(root, tmp_path / "zarr", "-nz", "20", "--format", "zarr") == 0
    for path in (tmp_path / "zarr").glob("*.zarr"):
        place, found = place_of(path), zarr.open_group(path, mode="r")["0"][:]
        assert np.array_equal(found, stored_as(volumes[place.dataset], place, found.shape))


# --- flipbooks ---


@pytest.mark.parametrize("anisotropic", [False, True])
def test_flipbooks_are_centred_on_patches(tmp_path, uint8, capsys, anisotropic):
    root = uint8
    if anisotropic:
        root = prepare(tmp_path, {"fly": make_volume(np.uint8)}, "-a", "0")
    out = tmp_path / "out"
    assert run(root, out, "-nz", "5", "--centre", "--format", "tiff", "--animate") == 0
    said = capsys.readouterr().out
    patches = {path.stem: tifffile.imread(path) for path in (root / "patches").glob("*.tiff")}
    volume = tifffile.imread(root / "volumes" / "fly.tif")
    boxes, seen = [], set()
    for path in sorted(out.glob("*.tiff")):
        place, found = place_of(path), tifffile.imread(path)
        plane = "zyx".index(place.axes[0])
        assert place.axes == ("zyx", "yzx", "xzy")[plane] and len(found) == 5
        assert place.isotropic is not anisotropic
        assert np.array_equal(found, stored_as(volume, place, found.shape))
        rest = [at for axis, at in enumerate(place.start) if axis != plane]
        index = str(place.start[plane] + 2).zfill(len(str(SHAPE[plane] - 1)))
        name = f"fly-LOC-{plane}_{index}_{rest[0]}_{rest[1]}"
        assert np.array_equal(found[2], patches[name])
        seen.add((plane, place.start[plane] + 2, *rest))
        sides = dict(zip(place.axes, found.shape, strict=True))
        stop = tuple(at + sides[axis] for at, axis in zip(place.start, "zyx", strict=True))
        boxes.append(Box(place.start, stop))
        with Image.open(path.with_suffix(".webp")) as animation:
            assert (animation.n_frames, animation.info["loop"]) == (5, 0)
            for number, frame in enumerate(found):
                animation.seek(number)
                assert np.array_equal(np.asarray(animation.convert("RGB")), np.repeat(frame[..., None], 3, axis=-1))
    assert {plane for plane, *_ in seen} == ({0} if anisotropic else {0, 1, 2})
    for first, second in itertools.combinations(boxes, 2):
        assert measure_overlap(first, second) <= 0.1
    # What is not there is too near to an end, or overlaps what is.
    whole = {}
    for stem in patches:
        patch = naming.parse_patch(stem)
        plane, at = patch.section.plane, patch.section.index
        if 2 <= at < SHAPE[plane] - 2:
            spans = [(patch.y, patch.y + patches[stem].shape[0]), (patch.x, patch.x + patches[stem].shape[1])]
            spans.insert(plane, (at - 2, at + 3))
            whole[stem] = Box(*zip(*spans, strict=True))
    assert f"{len(patches)} patches; {len(patches) - len(whole)} less than 2 sections from an end" in said
    for box in whole.values():
        assert any(measure_overlap(box, other) > 0.1 for other in boxes)


@pytest.mark.parametrize("flags", [("-nz", "5", "--centre"), ("-nz", "12")])
def test_a_limit_takes_some_that_are_spread_or_the_best(tmp_path, uint8, flags, capsys):
    assert run(uint8, tmp_path / "all", *flags) == 0
    whole = tree(tmp_path / "all")
    capsys.readouterr()
    assert run(uint8, tmp_path / "some", *flags, "--limit", "4") == 0
    assert f"{len(whole) - 4} more were left out by --limit 4" in capsys.readouterr().out
    some = tree(tmp_path / "some")
    assert len(some) == 4 < len(whole) and all(whole[name] == data for name, data in some.items())
    if "--centre" in flags:
        # By lot, one of each quarter of all: of more than one plane, and no neighbours.
        assert len({naming.parse_subvolume(name[:-4]).axes for name in some}) > 1
    assert run(uint8, tmp_path / "many", *flags, "--limit", "10000") == 0
    assert not differing(tree(tmp_path / "many"), whole)


@pytest.mark.parametrize(
    "flags", [("-nz", "4", "--centre"), ("--centre", "-nz", "5", "--cross-plane"), ("--limit", "0")]
)
def test_wrong_flags_end_with_usage(tmp_path, uint8, flags, capsys):
    with pytest.raises(SystemExit) as end:
        run(uint8, tmp_path / "out", *flags)
    assert end.value.code == 2 and "usage" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sixteen_bits_are_seen_by_what_they_take_up(tmp_path):
    volume = (make_volume(np.uint8).astype(np.uint16) * 4) + 300  # of 65535
    root = prepare(tmp_path, {"fly": volume})
    assert run(root, tmp_path / "out", "-nz", "5", "--centre", "--animate", "--limit", "2") == 0
    with Image.open(next((tmp_path / "out").glob("*.webp"))) as animation:
        grey = np.asarray(animation.convert("L"))
    assert grey.min() < 10 and grey.max() > 245


# --- reruns ---


def test_other_flags_are_noticed_and_a_damaged_chunk_is_made_again(tmp_path, uint8, capsys):
    out = tmp_path / "out"
    flags = ["-nz", "20", "--format", "zarr"]
    assert run(uint8, out, *flags) == 0
    before = tree(out)
    capsys.readouterr()
    assert run(uint8, out, *flags) == 0
    assert "0 subvolumes written, 1 volumes already done" in capsys.readouterr().out
    for other in (["-nz", "20"], [*flags, "--animate"], [*flags, "--limit", "2"], ["-nz", "21", "--centre"]):
        assert run(uint8, out, *other) == 1
        assert "--overwrite" in capsys.readouterr().err
        assert not differing(tree(out), before)
    chunk = next(path for path in out.rglob("0/c/0/0/0"))
    chunk.write_bytes(b"other" + chunk.read_bytes()[5:])
    assert run(uint8, out, *flags, "--verify") == 1
    assert chunk.relative_to(out).as_posix() in capsys.readouterr().err
    assert run(uint8, out, *flags) == 0
    assert not differing(tree(out), before)
    shutil.rmtree(chunk.parents[3])
    assert run(uint8, out, *flags) == 0
    assert not differing(tree(out), before)
    for other in (["-nz", "20", "--format", "tiff", "--animate"], ["-nz", "20"], flags):
        assert run(uint8, out, *other, "--overwrite") == 0
        fresh = tmp_path / f"fresh{len(other)}{other[-1]}"
        assert run(uint8, fresh, *other) == 0
        assert not differing(tree(out), tree(fresh))


def test_what_is_somebodys_own_is_not_replaced(tmp_path, uint8, capsys):
    assert run(uint8, tmp_path / "out", "-nz", "20", "--format", "zarr") == 0
    name = next(path.name for path in (tmp_path / "out").glob("*.zarr"))
    mine = tmp_path / "mine"
    (mine / name).mkdir(parents=True)
    (mine / name / "notes.txt").write_text("mine")
    assert run(uint8, mine, "-nz", "20", "--format", "zarr") == 1
    assert name in capsys.readouterr().err
    assert [path.name for path in (mine / name).iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("flags", [("--format", "zarr", "--animate"), ("--format", "tiff", "--centre", "-nz", "5")])
def test_a_run_killed_at_any_moment_is_finished_with_the_same_bytes(tmp_path, uint8, flags, monkeypatch):
    monkeypatch.setattr(ledgers, "NOTED_SECONDS", -1.0)
    monkeypatch.setattr(partials, "_is_dead", lambda match, alone: True)
    flags = ("-nz", "20", *flags, "--limit", "3")
    with killed_after(10**9) as happened:
        assert run(uint8, tmp_path / "whole", *flags) == 0
    whole = tree(tmp_path / "whole")
    for moment in range(0, len(happened), max(1, len(happened) // 10)):
        with killed_after(moment):
            run(uint8, tmp_path / f"{moment}", *flags)
        assert run(uint8, tmp_path / f"{moment}", *flags) == 0
        assert not differing(tree(tmp_path / f"{moment}"), whole)


def test_any_number_of_processes_gives_the_same_bytes(tmp_path, uint8):
    flags = ["-nz", "5", "--centre", "--limit", "5", "--animate", "--format", "tiff"]
    for processes in ("1", "2"):
        assert run(uint8, tmp_path / processes, *flags, "-p", processes) == 0
    assert not differing(tree(tmp_path / "1"), tree(tmp_path / "2"))


def test_curate_hands_the_flags_on_and_counts_subvolumes_not_files(small_corpus, tmp_path, uint8):
    curate = importlib.import_module("curate")
    volumes, videos = (str(small_corpus / kind) for kind in ("volumes", "videos"))
    flags = ["--format", "zarr", "--centre", "-nz", "5", "--limit", "7", "--animate", "--voxel-size", "3", "2", "1"]
    command = ["--volumes", volumes, "--videos", videos, "--out", str(tmp_path / "o"), "--weights", __file__, *flags]
    checked = curate.check(curate.parse(command))
    (convert,) = (step.argv for step, _ in checked if step.stage == "vid2stack")
    assert "--format" not in convert
    handed = [arguments for step, arguments in checked if step.stage == "reconstruct3d"]
    assert len(handed) == 2
    for arguments in handed:
        names = ("subvolume_format", "centre", "limit", "animate", "voxel_size")
        assert [arguments[name] for name in names] == ["zarr", True, 7, True, [3, 2, 1]]
    assert run(uint8, tmp_path / "out", *flags) == 0
    counts = count_datasets(tmp_path, (tmp_path, "crop_patches"), (tmp_path / "out", "reconstruct3d"))
    assert counts["fly"].subvolumes == 7
