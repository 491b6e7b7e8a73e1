"""Volumes in chunked formats through the stages: all that comes out is what the same voxels give as NRRD."""

import importlib

import h5py
import nrrd
import numpy as np
import pandas as pd
import pytest

from emcurate.patches.pathlists import write_path_list
from tests.results import contents
from tests.textures import make_texture
from tests.volumes.chunked_volumes import write_ome_zarr
from tests.volumes.n5_volumes import write_n5_array

cross_section3d = importlib.import_module("raw.cross_section3d")
crop_patches = importlib.import_module("raw.crop_patches")
reconstruct3d = importlib.import_module("3d.reconstruct3d")

VOXELS = make_texture((40, 48, 50)).astype(np.uint16) * 200
VOXEL_SIZE = (9.0, 8.0, 8.0)


def write_nrrd(directory):
    fields = {"space dimension": 3, "space units": ["nm"] * 3, "space directions": np.diag(VOXEL_SIZE[::-1])}
    nrrd.write(str(directory / "a.nrrd"), VOXELS.T, fields)


def write_hdf5(directory):
    with h5py.File(directory / "a.h5", "w") as file:
        raw = file.create_dataset("volumes/raw", data=VOXELS, chunks=(8, 16, 16), compression="gzip")
        raw.attrs["resolution"] = VOXEL_SIZE


def write_n5(directory):
    resolution = {"pixelResolution": {"dimensions": VOXEL_SIZE[::-1], "unit": "nm"}}
    write_n5_array(directory / "a.n5", VOXELS, resolution)


FORMATS = {
    "hdf5": write_hdf5,
    "n5": write_n5,
    "ome_zarr_0.4": lambda directory: write_ome_zarr(directory / "a.ome.zarr", VOXELS, scale=VOXEL_SIZE),
    "ome_zarr_0.5": lambda directory: write_ome_zarr(
        directory / "a.ome.zarr", VOXELS, scale=VOXEL_SIZE, version="0.5", shards=(16, 16, 16)
    ),
}


def run_stages(volumes, out):
    """Cut sections, patches and subvolumes; return their bytes, and the tables but for where volumes lie."""
    sections, patches, boxes = out / "sections", out / "patches", out / "boxes"
    processes = ["-p", "2"]
    assert cross_section3d.main([str(volumes), str(sections), "-s", "7", *processes]) == 0
    assert crop_patches.main([str(volumes), str(patches), "--from-volumes", "-cs", "16", *processes]) == 0
    write_path_list(out / "chosen.npz", sorted(patches.rglob("*.tiff")))
    assert reconstruct3d.main([str(out / "chosen.npz"), str(volumes), str(boxes), "-nz", "8", *processes]) == 0
    assert list(boxes.glob("*.npy"))
    files = {name: data for part in (sections, patches, boxes) for name, data in contents(part).items()}
    tables = {name: pd.read_parquet(path) for path in sorted(patches.glob("*.parquet")) for name in [path.name]}
    files = {name: data for name, data in files.items() if not name.endswith(".parquet")}
    return files, {name: table.drop(columns=["source", "source_fingerprint"]) for name, table in tables.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_chunked_volumes_give_what_the_same_voxels_give_as_nrrd(tmp_path, form):
    (tmp_path / "plain").mkdir()
    (tmp_path / "chunked").mkdir()
    write_nrrd(tmp_path / "plain")
    FORMATS[form](tmp_path / "chunked")
    files, tables = run_stages(tmp_path / "plain", tmp_path / "plain out")
    same_files, same_tables = run_stages(tmp_path / "chunked", tmp_path / "chunked out")
    assert len(files) > 100
    assert files == same_files
    assert tables.keys() == same_tables.keys() and tables
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, same_tables[name], check_exact=True)
