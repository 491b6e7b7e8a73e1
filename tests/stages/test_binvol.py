import importlib
import tracemalloc

import mrcfile
import nrrd
import numpy as np
import pytest
import SimpleITK
import tifffile

from emcurate.volumes.binning import iter_binned_planes
from emcurate.volumes.volume import open_volume
from tests.results import contents

binvol = importlib.import_module("preprocess.binvol")

RNG = np.random.default_rng(0)
VOXELS = RNG.integers(0, 256, (25, 33, 42)).astype(np.uint8)
NM = (40.0, 4.0, 5.0)
TYPES = {
    "uint8": VOXELS,
    "uint16": VOXELS.astype(np.uint16) * 257,
    "int16": VOXELS.astype(np.int16) * 200 - 20000,
    "float32": RNG.normal(0, 1e3, VOXELS.shape).astype(np.float32),
}


def run(*arguments, status=0):
    assert binvol.main([*map(str, arguments), "-p", "1"]) == status


def block_mean(voxels, factors):
    """Every block by itself, in exact numbers."""
    shape = [side // factor for side, factor in zip(voxels.shape, factors, strict=True)]
    found = np.empty(shape)
    z, y, x = factors
    for at in np.ndindex(*shape):
        block = voxels[at[0] * z : (at[0] + 1) * z, at[1] * y : (at[1] + 1) * y, at[2] * x : (at[2] + 1) * x]
        found[at] = block.astype(np.float64).sum() / block.size
    return found


def write_volume(path, voxels, nm=NM):
    z, y, x = nm
    header = {"space dimension": 3, "space directions": np.diag([x, y, z]), "space units": ["nm"] * 3}
    nrrd.write(str(path), voxels, header | {"encoding": "raw"}, index_order="C")
    return path


def read(path):
    if path.suffix == ".mrc":
        with mrcfile.open(path) as mrc:
            return mrc.data.view(np.uint8) if mrc.data.dtype == np.int8 else mrc.data
    return tifffile.imread(path) if path.suffix == ".tif" else nrrd.read(str(path), index_order="C")[0]


@pytest.fixture
def voldir(tmp_path):
    (tmp_path / "volumes").mkdir()
    write_volume(tmp_path / "volumes" / "cell.nrrd", VOXELS)
    return tmp_path / "volumes"


@pytest.mark.parametrize("format", ["tif", "nrrd", "mrc"])
@pytest.mark.parametrize("name", list(TYPES))
def test_each_voxel_is_the_mean_of_its_block(tmp_path, format, name):
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "cell.nrrd", TYPES[name])
    run(tmp_path / "in", tmp_path / "out", "--factor", 2, 3, 5, "--format", format)
    path = tmp_path / "out" / f"cell.{format}"
    found, expected = read(path), block_mean(TYPES[name], (2, 3, 5))
    assert found.dtype == TYPES[name].dtype
    assert found.shape == (12, 11, 8)
    assert np.array_equal(found, np.rint(expected) if found.dtype.kind in "iu" else expected.astype(np.float32))
    opened = open_volume(path)
    assert opened.voxel_size_nm == pytest.approx((80, 12, 25), rel=1e-6)
    assert np.array_equal(opened.read(), found)
    if format != "tif":
        image = SimpleITK.ReadImage(str(path))
        assert np.array_equal(SimpleITK.GetArrayFromImage(image).view(found.dtype), found) or name == "uint8"


@pytest.mark.parametrize("name", ["int16", "uint16", "float32"])
def test_an_mrc_header_tells_its_values(tmp_path, name):
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "cell.nrrd", TYPES[name])
    run(tmp_path / "in", tmp_path / "out", "--format", "mrc")
    with mrcfile.open(tmp_path / "out" / "cell.mrc") as mrc:
        assert mrcfile.validate(tmp_path / "out" / "cell.mrc")
        data, header = mrc.data.astype(np.float64), mrc.header
        told = [float(header[field]) for field in ("dmin", "dmax", "dmean", "rms")]
        assert told == pytest.approx([data.min(), data.max(), data.mean(), data.std()], rel=1e-5, abs=1e-2)
        assert b"binvol" in bytes(header["label"][0])


def test_the_default_is_two_along_every_axis(voldir, tmp_path):
    run(voldir, tmp_path / "out")
    assert np.array_equal(read(tmp_path / "out" / "cell.tif"), np.rint(block_mean(VOXELS, (2, 2, 2))))


def test_to_a_pixel_size_thicker_sections_keep_their_thickness(voldir, tmp_path, capsys):
    run(voldir, tmp_path / "out", "--pixel-size", 10)
    found = read(tmp_path / "out" / "cell.tif")
    assert "cell: 25 × 33 × 42 voxels to 25 × 13 × 21 of 40 x 10 x 10 nm (z, y, x)" in capsys.readouterr().out
    wide = VOXELS.astype(float).reshape(25, 33, 21, 2).mean(axis=3)
    fine = np.repeat(wide, 2, axis=1)[:, :65].reshape(25, 13, 5, 21).mean(axis=2)
    assert np.abs(found - fine).max() <= 0.5 + 1e-9
    assert open_volume(tmp_path / "out" / "cell.tif").voxel_size_nm == pytest.approx((40, 10, 10))


@pytest.mark.parametrize(("factor", "count"), [((2.5, 1.0, 1.0), 10), ((1.1, 2.0, 1.3), 22), ((24.9, 33.0, 42.0), 1)])
def test_blocks_that_end_within_voxels_are_weighed(voldir, factor, count):
    found = np.stack(list(iter_binned_planes(open_volume(voldir / "cell.nrrd"), factor)))
    assert len(found) == count
    edges = [np.arange(int(side / f + 1e-9) + 1) * f for side, f in zip(VOXELS.shape, factor, strict=True)]
    weights = []
    for side, edge in zip(VOXELS.shape, edges, strict=True):
        old = np.arange(side)
        weights.append(
            (np.minimum(edge[1:, None], old + 1) - np.maximum(edge[:-1, None], old)).clip(0) / (edge[1] - edge[0])
        )
    expected = np.einsum("az,by,cx,zyx->abc", *weights, VOXELS.astype(float), optimize=True)
    assert np.abs(found - expected).max() <= 0.5 + 1e-9


def test_other_types_become_the_next_that_all_formats_have(tmp_path):
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "bits.tif", VOXELS > 128, photometric="minisblack")
    tifffile.imwrite(tmp_path / "in" / "signed.tif", VOXELS.view(np.int8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "in" / "double.tif", VOXELS / 7, photometric="minisblack")
    tifffile.imwrite(tmp_path / "in" / "long.tif", VOXELS.astype(np.uint32) * 1000, photometric="minisblack")
    run(tmp_path / "in", tmp_path / "out")
    for name, expected in (
        ("bits", np.rint(block_mean((VOXELS > 128) * 255, (2, 2, 2))).astype(np.uint8)),
        ("signed", np.rint(block_mean(VOXELS.view(np.int8), (2, 2, 2))).astype(np.int16)),
        ("double", block_mean(VOXELS / 7, (2, 2, 2)).astype(np.float32)),
        ("long", block_mean(VOXELS.astype(np.float64) * 1000, (2, 2, 2)).astype(np.float32)),
    ):
        found = read(tmp_path / "out" / f"{name}.tif")
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
        assert open_volume(tmp_path / "out" / f"{name}.tif").voxel_size_nm is None


@pytest.mark.parametrize("kind", ["gz", "packed"])
def test_packed_volumes_are_read_plane_by_plane(tmp_path, kind, monkeypatch):
    (tmp_path / "in").mkdir()
    if kind == "gz":
        nrrd.write(str(tmp_path / "in" / "cell.nrrd"), VOXELS, {"encoding": "gzip"}, index_order="C")
    else:
        tifffile.imwrite(tmp_path / "in" / "cell.tif", VOXELS, compression="zlib", photometric="minisblack")
    run(tmp_path / "in", tmp_path / "out", "--format", "nrrd")
    assert np.array_equal(read(tmp_path / "out" / "cell.nrrd"), np.rint(block_mean(VOXELS, (2, 2, 2))))


@pytest.mark.parametrize("block_bytes", [1, 3000, 1 << 27])
def test_blocks_of_planes_change_nothing(voldir, tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr("emcurate.volumes.volume.BLOCK_BYTES", block_bytes)
    run(voldir, tmp_path / "out", "--factor", 3)
    assert np.array_equal(read(tmp_path / "out" / "cell.tif"), np.rint(block_mean(VOXELS, (3, 3, 3))))


def test_memory_does_not_grow_with_depth(tmp_path, monkeypatch):
    monkeypatch.setattr("emcurate.volumes.volume.BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr("emcurate.volumes.layouts.CHUNK_BYTES", 1 << 20)
    peaks = []
    for depth in (64, 512):
        path = write_volume(tmp_path / f"{depth}.nrrd", np.zeros((depth, 256, 256), np.uint8))
        volume = open_volume(path)
        tracemalloc.start()
        assert sum(1 for _ in iter_binned_planes(volume, (2.0, 2.0, 2.0))) == depth // 2
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2


def test_a_second_run_does_nothing_and_other_blocks_need_overwrite(voldir, tmp_path, capsys):
    out = tmp_path / "out"
    run(voldir, out)
    before = contents(out)
    capsys.readouterr()
    run(voldir, out)
    assert "0 volumes binned, 1 already done" in capsys.readouterr().out
    for flags in (["--factor", 3], ["--pixel-size", 40], ["--format", "mrc"]):
        run(voldir, out, *flags, status=1)
        assert "--overwrite" in capsys.readouterr().err
        assert contents(out) == before
    run(voldir, out, "--factor", 3, "--overwrite")
    run(voldir, tmp_path / "fresh", "--factor", 3)
    assert contents(out) == contents(tmp_path / "fresh") != before


def test_another_format_leaves_only_volumes_of_other_directories_to_be_binned_again(voldir, tmp_path, capsys):
    out = tmp_path / "out"
    run(voldir, out)
    run(voldir, out, "--format", "mrc", "--overwrite")
    assert "other inputs" not in capsys.readouterr().err
    (tmp_path / "others").mkdir()
    write_volume(tmp_path / "others" / "other.nrrd", VOXELS)
    run(tmp_path / "others", out, "--format", "mrc")
    (tmp_path / "link").symlink_to(voldir)
    run(tmp_path / "link", out, "--format", "tif", "--overwrite")
    assert f"results of 1 other inputs, from {tmp_path / 'others'}, were made with" in capsys.readouterr().err
    run(voldir, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_what_cannot_be_binned_is_named_and_the_others_done(voldir, tmp_path, capsys):
    write_volume(voldir / "coarse.nrrd", VOXELS, (40, 20, 20))
    nrrd.write(str(voldir / "unknown.nrrd"), VOXELS, {"encoding": "raw"}, index_order="C")
    (voldir / "broken.mrc").write_bytes(b"MAP " * 30)
    run(voldir, tmp_path / "out", "--pixel-size", 10, status=1)
    error = capsys.readouterr().err
    assert "coarse.nrrd: expected voxels of at most --pixel-size 10 nm along y and x, found 40 x 20 x 20 nm" in error
    assert "unknown.nrrd: expected voxels" in error and "found an unknown voxel size; give their size with" in error
    assert "broken.mrc: expected an MRC header" in error
    assert list(contents(tmp_path / "out")) == ["cell.tif"]
    run(voldir, tmp_path / "other", "--factor", 26, 2, 2, status=1)
    assert (
        "cell.nrrd: expected sides of at least 26 x 2 x 2 voxels (z, y, x), found 25 x 33 x 42"
        in capsys.readouterr().err
    )
    run(voldir, tmp_path / "given", "--pixel-size", 10, "--voxel-size", 5, 5, 5, status=1)
    assert len(contents(tmp_path / "given")) == 3


@pytest.mark.parametrize(
    "words",
    ["--factor 2 2", "--factor 0", "--factor 2 --pixel-size 8", "--pixel-size -1", "--format jpg"],
)
def test_wrong_arguments_end_with_usage(voldir, tmp_path, words):
    with pytest.raises(SystemExit) as caught:
        binvol.main([str(voldir), str(tmp_path / "out"), *words.split()])
    assert caught.value.code == 2
    assert not (tmp_path / "out").exists()
