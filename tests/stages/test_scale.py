"""Patches of one scale: pixel sizes reach the table, --pixel-size brings sections to one, by whichever way."""

import importlib

import nrrd
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from emcurate.labeling.surroundings import Surroundings
from emcurate.patches.pathlists import write_path_list
from tests.kills import differing
from tests.results import contents
from tests.sem_images import BAR, write_fei
from tests.textures import make_texture

cleanup2d = importlib.import_module("raw.cleanup2d")
cross_section3d = importlib.import_module("raw.cross_section3d")
crop_patches = importlib.import_module("raw.crop_patches")
deduplicate = importlib.import_module("deduplicated.deduplicate")
reconstruct3d = importlib.import_module("3d.reconstruct3d")

TEXTURE = make_texture((1, 150, 201))[0] // 2 + np.random.default_rng(0).integers(0, 100, (150, 201)).astype(np.uint8)
VOXELS = make_texture((46, 60, 81), seed=1) // 2 + np.random.default_rng(1).integers(0, 100, (46, 60, 81), np.uint8)
NM = (4.5, 4.0, 5.0)  # z, y, x


def block_mean(pixels, rows, columns):
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    blocks = pixels[: height * rows, : width * columns].reshape(height, rows, width, columns).astype(float)
    return np.rint(blocks.sum(axis=(1, 3)) / (rows * columns)).astype(np.uint8)


def run(stage, *arguments, status=0):
    assert stage.main([*map(str, arguments), "-p", "1"]) == status


def rows_of(directory, dataset):
    return pd.read_parquet(directory / f"{dataset}_patches.parquet")


@pytest.fixture
def images(tmp_path):
    directory = tmp_path / "images"
    directory.mkdir()
    tifffile.imwrite(directory / "tem.tif", TEXTURE, imagej=True, resolution=(250, 250), metadata={"unit": "um"})
    write_fei(directory / "sem.tif", TEXTURE, pixel=2e-9)
    Image.fromarray(TEXTURE).save(directory / "plain.png", dpi=(96, 96))
    return directory


@pytest.fixture
def volumes(tmp_path):
    directory = tmp_path / "volumes"
    directory.mkdir()
    z, y, x = NM
    header = {"space dimension": 3, "space directions": np.diag([x, y, z]), "space units": ["nm"] * 3}
    nrrd.write(str(directory / "cell.nrrd"), VOXELS, header | {"encoding": "raw"}, index_order="C")
    return directory


def test_pixel_sizes_of_images_reach_the_table(images, tmp_path, capsys):
    run(cleanup2d, images, tmp_path / "sections")
    said = capsys.readouterr().out
    assert "pixel size of tem.tif: ImageJ" in said
    assert "pixel size of plain.png: unknown, only a resolution of 96 dpi" in said
    assert f"info bar below the scan in sem.tif, {BAR} rows" in said
    run(crop_patches, tmp_path / "sections", tmp_path / "patches", "-cs", 50)
    for name, size in (("tem", 4.0), ("sem", 2.0), ("plain", None)):
        rows = rows_of(tmp_path / "patches", name)
        for column in ("pixel_size_y_nm", "pixel_size_x_nm"):
            assert rows[column].isna().all() if size is None else np.allclose(rows[column], size, rtol=1e-6)
        assert rows["step_nm"].isna().all()
    assert np.array_equal(tifffile.imread(tmp_path / "sections" / "tem-LOC-2d.tiff"), TEXTURE)


@pytest.mark.parametrize(("flag", "rows"), [("none", 150 + BAR), ("auto", 150), ("40", 139)])
def test_the_info_bar_is_cropped_if_asked_for(images, tmp_path, capsys, flag, rows):
    run(cleanup2d, images, tmp_path / "out", "--crop-bar", flag)
    assert tifffile.imread(tmp_path / "out" / "sem-LOC-2d.tiff").shape == (rows, 201)
    assert len(tifffile.imread(tmp_path / "out" / "tem-LOC-2d.tiff")) == (110 if flag == "40" else 150)
    said = capsys.readouterr().out
    assert ("1 info bars cropped" in said) == (flag == "auto")
    assert ("left whole, since nothing tells of an info bar: 2 images" in said) == (flag == "auto")


def test_a_bar_as_high_as_the_image_fails_for_that_image(images, tmp_path, capsys):
    run(cleanup2d, images, tmp_path / "out", "--crop-bar", 150, status=1)
    assert [path.name for path in (tmp_path / "out").glob("*.tiff")] == ["sem-LOC-2d.tiff"]
    assert capsys.readouterr().err.count("expected more than the 150 rows of --crop-bar, found 150") == 2


@pytest.mark.parametrize("flag", ["-3", "0", "some"])
def test_a_bar_of_no_rows_ends_with_usage(images, tmp_path, flag):
    with pytest.raises(SystemExit) as caught:
        cleanup2d.main([str(images), str(tmp_path / "out"), f"--crop-bar={flag}"])
    assert caught.value.code == 2


def test_images_are_brought_to_one_pixel_size(images, tmp_path, capsys):
    run(cleanup2d, images, tmp_path / "out", "--pixel-size", 8, "--crop-bar", "auto", status=1)
    error = capsys.readouterr().err
    assert "plain.png: expected a pixel size, to bring it to --pixel-size 8, found none that is known" in error
    assert "96 dpi" in error and "--image-pixel-size" in error
    for name, factor in (("tem", 2), ("sem", 4)):
        found = tifffile.imread(tmp_path / "out" / f"{name}-LOC-2d.tiff")
        assert np.array_equal(found, block_mean(TEXTURE, factor, factor))
    run(crop_patches, tmp_path / "out", tmp_path / "patches", "-cs", 20, "--pixel-size", 8)
    for name in ("tem", "sem"):
        assert (rows_of(tmp_path / "patches", name)[["pixel_size_y_nm", "pixel_size_x_nm"]] == 8).all(axis=None)


def test_what_the_files_do_not_say_can_be_given(images, tmp_path):
    run(cleanup2d, images, tmp_path / "out", "--pixel-size", 8, "--image-pixel-size", 4, 2)
    found = tifffile.imread(tmp_path / "out" / "plain-LOC-2d.tiff")
    assert np.array_equal(found, block_mean(TEXTURE, 2, 4))


def test_detail_is_not_invented_unless_allowed(images, tmp_path, capsys):
    run(cleanup2d, images, tmp_path / "out", "--pixel-size", 3, status=1)
    assert "tem.tif: expected pixels of at most --pixel-size 3 nm, found one of 4 x 4 nm" in capsys.readouterr().err
    assert not (tmp_path / "out" / "tem-LOC-2d.tiff").exists()
    run(cleanup2d, images, tmp_path / "out", "--pixel-size", 3, "--allow-upsampling", status=1)
    assert tifffile.imread(tmp_path / "out" / "tem-LOC-2d.tiff").shape == (200, 268)


def test_images_are_resampled_before_or_while_they_are_cut(images, tmp_path):
    run(cleanup2d, images, tmp_path / "fine")
    run(cleanup2d, images, tmp_path / "coarse", "--pixel-size", 7, status=1)
    run(crop_patches, tmp_path / "fine", tmp_path / "one", "-cs", 20, "--pixel-size", 7, status=1)
    run(crop_patches, tmp_path / "coarse", tmp_path / "other", "-cs", 20)
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    # The tables are the same but for what they say of themselves.
    assert set(differing(one, other)) <= {"tem_patches.parquet", "sem_patches.parquet"}
    for name in ("tem", "sem"):
        assert rows_of(tmp_path / "one", name).equals(rows_of(tmp_path / "other", name))


@pytest.mark.parametrize("nm", [10.0, 13.0])
def test_each_plane_of_a_volume_has_its_own_factors(volumes, tmp_path, nm):
    run(cross_section3d, volumes, tmp_path / "sections", "--pixel-size", nm, "-s", 9)
    for plane in range(3):
        y, x = (size for axis, size in enumerate(NM) if axis != plane)
        rows, columns = (side for axis, side in enumerate(VOXELS.shape) if axis != plane)
        found = tifffile.imread(tmp_path / "sections" / f"cell-LOC-{plane}_09.tiff")
        assert found.shape == (int(rows * y / nm), int(columns * x / nm))
        source = np.take(VOXELS, 9, plane).astype(float)
        first = source[: int(np.ceil(nm / y)), : int(np.ceil(nm / x))].copy()
        first[-1] *= nm / y % 1 or 1
        first[:, -1] *= nm / x % 1 or 1
        assert found[0, 0] == np.rint(first.sum() * y * x / nm**2)
    run(crop_patches, tmp_path / "sections", tmp_path / "patches", "-cs", 15)
    table = rows_of(tmp_path / "patches", "cell")
    assert (table[["pixel_size_y_nm", "pixel_size_x_nm"]] == nm).all(axis=None)
    assert table.groupby("plane")["step_nm"].unique().explode().to_dict() == dict(enumerate(NM))


def test_volumes_are_resampled_alike_by_every_way(volumes, tmp_path):
    how = ("-cs", 15, "--pixel-size", 10)
    run(cross_section3d, volumes, tmp_path / "coarse", "--pixel-size", 10, "-s", 9)
    run(crop_patches, tmp_path / "coarse", tmp_path / "a", "-cs", 15)
    run(cross_section3d, volumes, tmp_path / "fine", "-s", 9)
    run(crop_patches, tmp_path / "fine", tmp_path / "b", *how)
    run(crop_patches, volumes, tmp_path / "c", "--from-volumes", "-s", 9, *how)
    run(crop_patches, volumes, tmp_path / "d", "--from-volumes", "-s", 9, *how, "--hashes-only")
    run(deduplicate, tmp_path / "d", tmp_path / "list", "-d", 24)
    only = ("--only", tmp_path / "list" / "deduplicated_fpaths.npz")
    run(crop_patches, volumes, tmp_path / "d", "--from-volumes", "-s", 9, *how, *only)
    patches = {way: {n: data for n, data in contents(tmp_path / way).items() if n.endswith(".tiff")} for way in "abcd"}
    assert len(patches["a"]) > 20
    assert not differing(patches["a"], patches["b"]) and not differing(patches["b"], patches["c"])
    assert 0 < len(patches["d"]) < len(patches["c"])
    assert not differing(patches["d"], {name: patches["c"].get(name) for name in patches["d"]})
    tables = [rows_of(tmp_path / way, "cell").drop(columns=["source", "source_fingerprint"]) for way in "abcd"]
    assert all(table.equals(tables[0]) for table in tables)


def test_another_pixel_size_needs_overwrite(volumes, images, tmp_path, capsys):
    ways = {
        "cleanup": (cleanup2d, images, "--image-pixel-size", 1, 1),
        "cross": (cross_section3d, volumes, "-s", 9),
        "crop": (crop_patches, volumes, "--from-volumes", "-s", 9, "-cs", 15),
    }
    for name, (stage, source, *flags) in ways.items():
        out, fresh = tmp_path / name, tmp_path / f"{name} fresh"
        run(stage, source, out, *flags)
        before = contents(out)
        run(stage, source, out, *flags, "--pixel-size", 10, status=1)
        assert "--overwrite" in capsys.readouterr().err
        assert contents(out) == before
        run(stage, source, out, *flags, "--pixel-size", 10, "--overwrite")
        run(stage, source, fresh, *flags, "--pixel-size", 10)
        assert contents(out) == contents(fresh) != before


def test_a_volume_without_a_voxel_size_is_named_and_the_others_done(volumes, tmp_path, capsys):
    nrrd.write(str(volumes / "unknown.nrrd"), VOXELS, {"encoding": "raw"}, index_order="C")
    for stage, flags in ((cross_section3d, ()), (crop_patches, ("--from-volumes", "-cs", 15))):
        run(stage, volumes, tmp_path / stage.STAGE, "--pixel-size", 10, "-s", 9, *flags, status=1)
        error = capsys.readouterr().err
        assert "unknown.nrrd: expected a pixel size, to bring it to --pixel-size 10, found none that is known" in error
        assert "--voxel-size Z Y X" in error
        assert all(name.startswith("cell") for name in contents(tmp_path / stage.STAGE))
    run(cross_section3d, volumes, tmp_path / "given", "--pixel-size", 10, "-s", 9, "--voxel-size", 5, 5, 5)


def test_a_plane_of_larger_voxels_is_named(volumes, tmp_path, capsys):
    run(cross_section3d, volumes, tmp_path / "out", "--pixel-size", 4.6, status=1)
    assert "4 x 5 nm (y, x), which shows less detail in plane 0 (xy)" in capsys.readouterr().err


def test_subvolumes_are_cut_where_resampled_patches_were_found(volumes, tmp_path):
    run(crop_patches, volumes, tmp_path / "patches", "--from-volumes", "-cs", 10, "--pixel-size", 10)
    rows = rows_of(tmp_path / "patches", "cell").query("plane == 0 and y == 10 and x == 20")
    assert len(rows) == 46
    write_path_list(tmp_path / "list.npz", [f"{tmp_path}/patches/{name}.tiff" for name in rows["patch"]])
    run(reconstruct3d, tmp_path / "list.npz", volumes, tmp_path / "out", "-nz", 20)
    found = sorted((tmp_path / "out").glob("*.npy"))
    assert [path.name for path in found] == ["cell-LOC-3d-ANISO-00_25_40_zyx.npy", "cell-LOC-3d-ANISO-20_25_40_zyx.npy"]
    box = np.load(found[0], allow_pickle=False)
    assert np.array_equal(box, VOXELS[:20, 25:50, 40:60])
    patch = tifffile.imread(tmp_path / "patches" / "cell-LOC-0_00_10_20.tiff")
    assert patch[0, 0] == np.rint((box[0, :2, :2].sum() + box[0, 2, :2].sum() / 2) / 5)


@pytest.mark.parametrize("flags", [(), ("--pixel-size", 20)])
def test_a_list_of_patches_of_another_scale_is_refused(volumes, tmp_path, capsys, flags):
    how = ("--from-volumes", "-s", 9, "-cs", 10)
    run(crop_patches, volumes, tmp_path / "patches", *how, "--pixel-size", 10, "--hashes-only")
    run(deduplicate, tmp_path / "patches", tmp_path / "list")
    only = ("--only", tmp_path / "list" / "deduplicated_fpaths.npz")
    run(crop_patches, volumes, tmp_path / "other", *how, *flags, *only, status=1)
    assert "with --pixel-size 10; cut with that" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["volumes", "sections"])
def test_a_resampled_patch_is_shown_in_its_surroundings(volumes, tmp_path, way):
    source = volumes
    if way == "sections":
        source = tmp_path / "sections"
        run(cross_section3d, volumes, source, "-s", 5, "--pixel-size", 5)
    flags = ("--from-volumes", "-s", 5) if way == "volumes" else ()
    run(crop_patches, source, tmp_path / "patches", "-cs", 10, "--pixel-size", 10, *flags)
    for name in ("cell-LOC-0_10_10_20", "cell-LOC-1_10_0_10", "cell-LOC-2_80_10_0"):
        path = tmp_path / "patches" / f"{name}.tiff"
        patch = tifffile.imread(path)
        scene = Surroundings().read(str(path), patch)
        row, column, height, width = map(int, scene.box)
        assert np.array_equal(scene.pixels[row : row + height, column : column + width], patch)
        assert scene.pixels.size > patch.size


def test_a_volume_that_is_thin_at_the_scale_is_cut_across_and_what_is_left_out_is_counted(tmp_path, volumes, capfd):
    scaled = ["--pixel-size", 10, "-s", 9, "-cs", 24]  # 46 x 60 x 81 voxels become 20 x 24 x 40 pixels
    run(crop_patches, volumes, tmp_path / "p", "--from-volumes", *scaled, "--min-size", 22)
    said = capfd.readouterr().out
    assert "are too thin for patches of 22 (--min-size); only plane 0 (xy) is cut" in said
    assert "plane 1 (xz), 20 x 40 pixels and plane 2 (yz), 20 x 24 pixels" in said
    made = rows_of(tmp_path / "p", "cell")
    assert set(made["plane"]) == {0} and made["width"].min() >= 22
    run(crop_patches, volumes, tmp_path / "all", "--from-volumes", *scaled, "--min-size", 1)
    whole = rows_of(tmp_path / "all", "cell")
    small = int((whole[["height", "width"]].min(axis=1) < 22).sum())
    assert len(whole) - small == len(made) and small > 0
    assert f"{small} left out" in said
