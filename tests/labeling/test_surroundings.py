"""A patch in its section: found through its table, in a section's file, a volume, or where the person says."""

from __future__ import annotations

import importlib
import shutil

import numpy as np
import pytest
import tifffile

from emcurate.errors import InputError
from emcurate.images.sections import write_section
from emcurate.labeling.surroundings import REACH, Surroundings
from emcurate.patches.reading import read_patch

SIDE = 16


def run(stage, *arguments):
    assert importlib.import_module(stage).main([str(argument) for argument in arguments]) == 0


@pytest.fixture
def image(tmp_path):
    """An image of noise, 96 x 112, as its own file, section and patches with their table."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 112), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "cell.tif", pixels)
    run("raw.cleanup2d", tmp_path / "images", tmp_path / "sections", "-p", 1)
    run("raw.crop_patches", tmp_path / "sections", tmp_path / "patches", "-cs", SIDE, "-p", 1)
    return tmp_path, pixels


@pytest.fixture
def volume(tmp_path):
    """A 16-bit volume of noise, of which patches were cut without writing a section."""
    voxels = np.random.default_rng(1).integers(0, 65536, (12, 64, 80), dtype=np.uint16)
    (tmp_path / "volumes").mkdir()
    tifffile.imwrite(tmp_path / "volumes" / "fly.tif", voxels)
    arguments = ["--from-volumes", "-cs", SIDE, "-p", 1, "--rescale", "dtype", "--voxel-size", 10, 10, 10]
    run("raw.crop_patches", tmp_path / "volumes", tmp_path / "patches", *arguments)
    return tmp_path, np.rint(voxels / 65535 * 255).astype(np.uint8)


def look(path, sources=None):
    return Surroundings(sources).read(str(path), read_patch(path))


def assert_shows(scene, section, y, x):
    """The scene is the part of `section` around the patch at y, x, and its box is the patch."""
    top, left = max(y - REACH * SIDE, 0), max(x - REACH * SIDE, 0)
    assert np.array_equal(scene.pixels, section[top : y + (REACH + 1) * SIDE, left : x + (REACH + 1) * SIDE])
    assert scene.box == (y - top, x - left, SIDE, SIDE)


def test_around_a_patch_is_its_section_cut_off_at_the_edges(image):
    directory, pixels = image
    for y, x in ((0, 0), (48, 48), (80, 96)):
        path = directory / "patches" / f"cell-LOC-2d_{y}_{x}.tiff"
        assert Surroundings().missing(str(path), (SIDE, SIDE)) == ""
        scene = look(path)
        assert_shows(scene, pixels, y, x)
        assert scene.source == directory / "sections" / "cell-LOC-2d.tiff"


def test_in_a_volume_it_is_read_along_the_patchs_plane_with_the_patchs_grey_values(volume):
    directory, voxels = volume
    sections = {"0_07": voxels[7], "1_40": voxels[:, 40], "2_33": voxels[:, :, 33]}
    for name, section in sections.items():
        y = 32 if name.startswith("0") else 0
        path = directory / "patches" / f"fly-LOC-{name}_{y}_16.tiff"
        scene = look(path)
        if name.startswith("0"):
            assert_shows(scene, section, y, 16)
        else:
            assert np.array_equal(scene.pixels, section[:, : 16 + (REACH + 1) * SIDE])


def test_a_patch_in_a_shard_has_surroundings_too(image):
    directory, pixels = image
    run("raw.crop_patches", directory / "sections", directory / "shards", "-cs", SIDE, "-p", 1, "--store", "tar")
    path = directory / "shards" / "cell-00000.tar" / "cell-LOC-2d_48_48.tiff"
    assert_shows(look(path), pixels, 48, 48)


def test_what_was_moved_is_found_where_the_person_says(image, volume):
    directory, pixels = image
    path = directory / "patches" / "cell-LOC-2d_48_48.tiff"
    (directory / "sections").rename(directory / "elsewhere")
    assert "cell-LOC-2d.tiff: expected where this patch was cut from, found nothing" in Surroundings().missing(
        str(path), (SIDE, SIDE)
    )
    assert_shows(look(path, directory / "elsewhere"), pixels, 48, 48)


def test_a_volume_that_was_moved_is_known_by_its_name(volume):
    directory, voxels = volume
    (directory / "volumes").rename(directory / "elsewhere")
    path = directory / "patches" / "fly-LOC-0_07_32_16.tiff"
    with pytest.raises(InputError, match="name the directory in which it lies now in SOURCES"):
        look(path)
    assert_shows(look(path, directory / "elsewhere"), voxels[7], 32, 16)


def test_patches_without_a_table_need_the_sections_named_and_say_so(image):
    directory, pixels = image
    (directory / "copies").mkdir()
    path = directory / "copies" / "cell-LOC-2d_48_48.tiff"
    shutil.copy(directory / "patches" / path.name, path)
    reason = Surroundings().missing(str(path), (SIDE, SIDE))
    assert "expected a table (cell_patches.parquet) beside the patch" in reason and "SOURCES" in reason
    assert_shows(look(path, directory / "sections"), pixels, 48, 48)
    stranger = directory / "copies" / "photo.tiff"
    write_section(stranger, np.zeros((SIDE, SIDE), np.uint8))
    assert "only such names say where a patch is from" in Surroundings().missing(str(stranger), (SIDE, SIDE))


def test_another_section_of_the_same_name_is_never_shown_as_the_patchs_own(image):
    directory, pixels = image
    path = directory / "patches" / "cell-LOC-2d_48_48.tiff"
    write_section(directory / "sections" / "cell-LOC-2d.tiff", 255 - pixels, overwrite=True)
    with pytest.raises(InputError, match="expected the pixels of the patch at row 48, column 48, found others"):
        look(path)
    (directory / "kept").mkdir()
    write_section(directory / "kept" / "cell-LOC-2d.tiff", pixels)
    assert look(path, directory / "kept").source == directory / "kept" / "cell-LOC-2d.tiff"


def test_a_damaged_table_is_a_reason_and_no_traceback(image):
    directory, _ = image
    (directory / "patches" / "cell_patches.parquet").write_bytes(b"no table")
    assert "a table of patches" in Surroundings().missing(
        str(directory / "patches" / "cell-LOC-2d_48_48.tiff"), (SIDE, SIDE)
    )
