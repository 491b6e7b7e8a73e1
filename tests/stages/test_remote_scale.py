"""One scale from volumes of several levels, here and on servers: what a single level by itself gives."""

import importlib

import nrrd
import numpy as np
import pandas as pd
import pytest

from emcurate.images.sections import read_section
from emcurate.labeling.surroundings import Surroundings
from emcurate.patches.pathlists import write_path_list
from tests.kills import differing
from tests.results import contents
from tests.textures import make_texture
from tests.volumes.chunked_volumes import write_ome_zarr
from tests.web import serve_directory

cross_section3d = importlib.import_module("raw.cross_section3d")
crop_patches = importlib.import_module("raw.crop_patches")
reconstruct3d = importlib.import_module("3d.reconstruct3d")

VOXELS = make_texture((48, 60, 72), seed=2) // 2 + np.random.default_rng(2).integers(0, 100, (48, 60, 72), np.uint8)
SIDE = 8  # of a voxel, nm; at level 1, which drops every other one, twice that
WANTED = 24  # nm: 3 voxels of level 0, one and a half of level 1


@pytest.fixture
def address(tmp_path):
    (tmp_path / "pub").mkdir()
    write_ome_zarr(tmp_path / "pub" / "cell.ome.zarr", VOXELS, scale=(SIDE,) * 3, chunks=(16, 16, 16))
    with serve_directory(tmp_path / "pub") as (url, _):
        yield f"{url}/cell.ome.zarr"


def write_level(directory, level):
    directory.mkdir()
    step = 2**level
    header = {"space dimension": 3, "space directions": np.eye(3) * SIDE * step, "space units": ["nm"] * 3}
    nrrd.write(str(directory / "cell.nrrd"), np.ascontiguousarray(VOXELS[::step, ::step, ::step]), header,
               index_order="C")  # fmt: skip
    return directory


def run(stage, *arguments, status=0):
    assert stage.main([*map(str, arguments), "-p", "1"]) == status


def cut_both_ways(volumes, out, *flags):
    """Return the bytes of sections, patches and boxes, and the table but for where the volume lies."""
    scaled = [*flags, "--pixel-size", WANTED]
    run(cross_section3d, volumes, out / "sections", "-s", "5", *scaled)
    run(crop_patches, volumes, out / "patches", "--from-volumes", "-s", "5", "-cs", "8", *scaled)
    run(crop_patches, volumes, out / "hashes", "--from-volumes", "-s", "5", "-cs", "8", "--hashes-only", *scaled)
    write_path_list(out / "chosen.npz", sorted((out / "patches").glob("*.tiff")))
    files = contents(out / "sections") | contents(out / "patches")
    table = pd.read_parquet(out / "patches" / "cell_patches.parquet")
    hashed = pd.read_parquet(out / "hashes" / "cell_patches.parquet")
    pd.testing.assert_frame_equal(table.drop(columns=["shard"]), hashed.drop(columns=["shard"]))
    return (
        {name: data for name, data in files.items() if not name.endswith(".parquet")},
        table.drop(columns=["source", "source_fingerprint"]),
    )


@pytest.mark.parametrize("flags", [["--level", "1"], []], ids=["level", "nearest finer level"])
def test_a_level_on_a_server_at_one_scale_gives_what_that_level_in_a_file_gives(tmp_path, address, flags):
    here = write_level(tmp_path / "here", 1)
    files, table = cut_both_ways(address, tmp_path / "there", *flags)
    same_files, same_table = cut_both_ways(here, tmp_path / "same")
    assert len(files) > 100 and not differing(files, same_files)
    pd.testing.assert_frame_equal(table, same_table, check_exact=True)
    assert set(table["pixel_size_x_nm"]) == {WANTED} and set(table["step_nm"]) == {2 * SIDE}

    boxes = {}
    for volumes, out, words in ((address, tmp_path / "there", flags), (here, tmp_path / "same", [])):
        run(reconstruct3d, out / "chosen.npz", volumes, out / "boxes", "-nz", "8", *words)
        boxes[out.name] = contents(out / "boxes")
    assert boxes["there"] and not differing(boxes["there"], boxes["same"])


def test_patches_at_one_scale_are_shown_in_their_surroundings_on_a_server(tmp_path, address):
    out = tmp_path / "patches"
    run(crop_patches, address, out, "--from-volumes", "-s", "20", "-cs", "8", "--pixel-size", WANTED)
    found = Surroundings()
    for path in sorted(out.glob("*_8_8.tiff")):
        patch = read_section(path)
        scene = found.read(str(path), patch)  # which looks whether the patch is there
        assert str(scene.source) == address and min(scene.pixels.shape) > max(patch.shape)


def test_a_voxel_size_that_is_given_is_that_of_the_level_that_is_read(tmp_path, address, capfd):
    size, here = (6, 6, 6), write_level(tmp_path / "here", 0)
    same, _ = cut_both_ways(here, tmp_path / "same", "--voxel-size", *size)
    given, _ = cut_both_ways(address, tmp_path / "given", "--voxel-size", *size)
    listed = tmp_path / "volumes.csv"
    listed.write_text(f"address,voxel_size\n{address},6 6 6\n")
    in_list, _ = cut_both_ways(listed, tmp_path / "listed")
    assert not differing(given, same) and not differing(in_list, same)
    listed.write_text(f"address,voxel_size\n{address},12 12 12\n")
    capfd.readouterr()
    run(cross_section3d, listed, tmp_path / "listed" / "sections", "-s", "5", "--pixel-size", WANTED, status=1)
    assert "voxel_size" in capfd.readouterr().err
