"""Tables of patches: every row against the files it tells of, and a naive reading of them."""

import importlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from emcurate.errors import InputError
from emcurate.patches import table_hashes, tables
from emcurate.patches.cuts import pack_bits, unpack_bits
from emcurate.patches.hashing import pack_hashes
from tests.textures import make_texture

cross_section3d = importlib.import_module("raw.cross_section3d")
cleanup2d = importlib.import_module("raw.cleanup2d")
crop_patches = importlib.import_module("raw.crop_patches")
deduplicate = importlib.import_module("deduplicated.deduplicate")


def main(stage, *arguments):
    return stage.main([*map(str, arguments), "-p", "1"])


@pytest.fixture
def patches(tmp_path):
    """Patches of a 16-bit volume of 8 x 4 x 5 nm voxels, three planes, and of two images of a group."""
    (tmp_path / "volumes").mkdir()
    (tmp_path / "images" / "grids").mkdir(parents=True)
    array = make_texture((9, 40, 70)).astype(np.uint16) * 200
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 8}
    path = tmp_path / "volumes" / "fly ö.tif"
    tifffile.imwrite(path, array, imagej=True, resolution=(1 / 5, 1 / 4), metadata=metadata)
    for index in range(2):
        tifffile.imwrite(tmp_path / "images" / "grids" / f"m{index}.tif", make_texture((1, 50, 33), seed=index)[0])
    sections, patches = tmp_path / "sections", tmp_path / "patches"
    assert main(cross_section3d, tmp_path / "volumes", sections, "--anisotropy", 9, "-s", 4) == 0
    assert main(cleanup2d, tmp_path / "images", sections) == 0
    assert main(crop_patches, sections, patches, "-cs", 16, "-hs", 5) == 0
    return patches


def test_every_patch_has_a_row_and_every_row_is_true(patches):
    tables_of = {path.name: pd.read_parquet(path) for path in patches.glob("*.parquet")}
    assert set(tables_of) == {"fly ö_patches.parquet", "grids_patches.parquet"}
    rows = pd.concat(tables_of.values())
    assert sorted(rows["patch"]) == sorted(path.stem for path in patches.glob("*.tiff"))
    for row in rows.itertuples():
        pixels = tifffile.imread(patches / f"{row.patch}.tiff")
        assert pixels.shape == (row.height, row.width)
        bits = np.load(patches / f"{row.patch}.npy")
        assert row.hash == np.packbits(bits.ravel()).tobytes()
        section, y, x = row.patch.rsplit("_", 2)
        assert (int(y), int(x)) == (row.y, row.x)
        place = section.partition("-LOC-")[2]
        assert row.dataset == section.partition("-LOC-")[0]
        if row.dataset == "grids":
            assert row.kind == "2d" and pd.isna(row.plane) and pd.isna(row.index) and pd.isna(row.pixel_size_x_nm)
            assert row.source.endswith(f"images/grids/{place.removeprefix('2d-')}.tif")
        else:
            plane, index = place.split("_")
            assert (row.kind, row.plane) == ("volume", int(plane))
            assert rows.loc[rows["patch"] == row.patch, "index"].item() == int(index)
            sizes = {0: (4, 5, 8), 1: (8, 5, 4), 2: (8, 4, 5)}[row.plane]
            assert (row.pixel_size_y_nm, row.pixel_size_x_nm, row.step_nm) == pytest.approx(sizes)
            assert (row.lo, row.hi) == (0, 65535)
    for table in tables_of.values():
        assert table["patch"].tolist() == sorted(table["patch"])


def test_exemplars_from_tables_equal_those_from_files(patches, tmp_path):
    assert main(deduplicate, patches, tmp_path / "a", "-d", 3) == 0
    for path in patches.glob("*.parquet"):
        path.unlink()
    assert main(deduplicate, patches, tmp_path / "b", "-d", 3) == 0
    for name in ("fly ö_exemplars.npy", "fly ö_groups.csv", "grids_exemplars.npy", "grids_groups.csv", "groups.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_hashes_are_read_from_tables_and_not_from_files(patches, tmp_path):
    for path in patches.glob("*.npy"):
        path.unlink()
    assert main(deduplicate, patches, tmp_path / "out", "-d", 3) == 0


@pytest.mark.parametrize("damage", ["delete", "truncate", "other"])
def test_a_lost_table_is_made_again_with_the_same_bytes(patches, tmp_path, damage):
    path = patches / "grids_patches.parquet"
    whole = path.read_bytes()
    if damage == "delete":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(whole[:-20])
    else:
        pd.DataFrame({"patch": ["x"]}).to_parquet(path)
    assert main(crop_patches, tmp_path / "sections", patches, "-cs", 16, "-hs", 5) == 0
    assert path.read_bytes() == whole


def test_a_table_grows_with_its_group_and_shrinks_when_pruned(patches, tmp_path):
    images, sections = tmp_path / "images", tmp_path / "sections"
    table = patches / "grids_patches.parquet"
    before = table.read_bytes()
    tifffile.imwrite(images / "grids" / "a new one.tif", make_texture((1, 50, 33), seed=9)[0])
    assert main(cleanup2d, images, sections) == 0
    assert main(crop_patches, sections, patches, "-cs", 16, "-hs", 5) == 0
    grown = pd.read_parquet(table)
    assert grown["patch"].tolist() == sorted(path.stem for path in patches.glob("grids*.tiff"))
    (images / "grids" / "a new one.tif").unlink()
    assert main(cleanup2d, images, sections, "--prune") == 0
    assert main(crop_patches, sections, patches, "-cs", 16, "-hs", 5, "--prune") == 0
    assert table.read_bytes() == before


def test_what_is_no_table_is_named(tmp_path):
    path = tmp_path / "a_patches.parquet"
    for content in (b"", b"PAR1", b"text"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="a table of patches"):
            tables.read_table(path)
    pd.DataFrame({"patch": ["x"]}).to_parquet(path)
    with pytest.raises(InputError, match="without dataset"):
        tables.read_table(path)
    with pytest.raises(InputError, match="no such file"):
        tables.read_table(tmp_path / "none")


def write_hashes(path, bits, names=None, rows_a_group=None, kind=None, side=None):
    """A table of patches as any program may write it, with no more than names and hashes."""
    packed = [np.packbits(each).tobytes() for each in bits]
    names = [f"a-LOC-2d_{i:03d}_0" for i in range(len(bits))] if names is None else names
    metadata = {tables.HASH_SIZE_KEY: str(side or bits.shape[1])}
    columns = {"hash": pa.array(packed, kind or pa.binary()), "patch": pa.array(names, pa.string())}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=rows_a_group)
    return names


@pytest.mark.parametrize("side", ["eight", "", "-3", "8.0"])
def test_a_size_of_hashes_that_is_no_number_is_named(tmp_path, side):
    table = pa.table({"patch": ["a-LOC-2d_0_0"], "hash": [b"12345678"]})
    path = tmp_path / "a_patches.parquet"
    pq.write_table(table.replace_schema_metadata({tables.HASH_SIZE_KEY: side}), path)
    with pytest.raises(InputError, match=r"a_patches\.parquet: expected a table of patches, found .*size of hashes"):
        table_hashes.read_hashes(path)


@pytest.mark.parametrize("side", [2, 5, 8, 11, 16])
@pytest.mark.parametrize("rows_a_group", [1, 3, 1000])
def test_hashes_are_read_group_by_group(tmp_path, side, rows_a_group):
    bits = np.random.default_rng(side).random((10, side, side)) < 0.5
    names = write_hashes(tmp_path / "a_patches.parquet", bits, rows_a_group=rows_a_group)
    read = table_hashes.read_hashes(tmp_path / "a_patches.parquet")
    assert read.names.to_pylist() == names
    assert np.array_equal(read.words, pack_hashes(bits))
    assert read.side == side


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(8)])
def test_hashes_are_read_whatever_type_another_program_gave_them(tmp_path, kind):
    bits = np.random.default_rng(0).random((5, 8, 8)) < 0.5
    write_hashes(tmp_path / "a_patches.parquet", bits, kind=kind)
    assert np.array_equal(table_hashes.read_hashes(tmp_path / "a_patches.parquet").words, pack_hashes(bits))


def test_an_empty_table_has_no_hashes(tmp_path):
    write_hashes(tmp_path / "a_patches.parquet", np.zeros((0, 8, 8), bool))
    read = table_hashes.read_hashes(tmp_path / "a_patches.parquet")
    assert (len(read.names), read.words.shape, read.side) == (0, (0, 1), 8)


def test_hashes_that_cannot_be_used_are_named(tmp_path):
    path, bits = tmp_path / "a_patches.parquet", np.ones((3, 8, 8), bool)
    write_hashes(path, bits, side=9)
    with pytest.raises(InputError, match="hashes of other sizes than 11 bytes"):
        table_hashes.read_hashes(path)
    write_hashes(path, bits, names=["a", None, "b"])
    with pytest.raises(InputError, match="rows without a name"):
        table_hashes.read_hashes(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="a damaged or other file"):
        table_hashes.read_hashes(path)
    pd.DataFrame({"patch": ["x"]}).to_parquet(path)
    with pytest.raises(InputError, match="without hash"):
        table_hashes.read_hashes(path)


def test_bits_come_back(tmp_path):
    for side in (2, 5, 8, 11):
        bits = np.random.default_rng(side).random((7, side, side)) < 0.5
        assert np.array_equal(unpack_bits(pack_bits(bits), side), bits)


def test_a_table_has_the_columns_that_are_promised(patches):
    names = pq.read_schema(patches / "grids_patches.parquet").names
    assert names[:16] == [
        *("patch", "dataset", "kind", "plane", "index", "y", "x", "height", "width"),
        *("pixel_size_y_nm", "pixel_size_x_nm", "step_nm", "source", "source_fingerprint", "lo", "hi"),
    ]
    assert names[16] == "hash"


def test_rows_of_a_refused_image_stay_as_its_patches_do(patches, tmp_path):
    images, sections = tmp_path / "images", tmp_path / "sections"
    before = pd.read_parquet(patches / "grids_patches.parquet")
    tifffile.imwrite(images / "grids" / "m1.tif", make_texture((1, 50, 33), seed=7)[0])
    tifffile.imwrite(images / "grids" / "m2.tif", make_texture((1, 50, 33), seed=8)[0])
    assert main(cleanup2d, images, sections, "--overwrite") == 0
    assert main(crop_patches, sections, patches, "-cs", 16, "-hs", 5) == 1
    after = pd.read_parquet(patches / "grids_patches.parquet")
    assert after["patch"].tolist() == sorted(path.stem for path in patches.glob("grids*.tiff"))
    old = after[after["patch"].isin(before["patch"])]
    assert old["hash"].tolist() == before["hash"].tolist()
    assert main(crop_patches, sections, patches, "-cs", 16, "-hs", 5, "--overwrite") == 0
    for row in pd.read_parquet(patches / "grids_patches.parquet").itertuples():
        assert row.hash == np.packbits(np.load(patches / f"{row.patch}.npy").ravel()).tobytes()


def test_rows_of_a_few_patches_are_found_without_reading_the_others(patches, tmp_path, monkeypatch):
    table = patches / "fly ö_patches.parquet"
    rows = pq.read_table(table)
    copy = tmp_path / "copy_patches.parquet"
    pq.write_table(rows, copy, row_group_size=4)
    names = rows["patch"].to_pylist()
    wanted = {names[0], names[9], names[-1], "fly ö-LOC-9_0_0_0", "a-LOC-0_0_0_0"}
    read = []
    read_row_group = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, *a, **k: read.append(a[0]) or read_row_group(self, *a, **k)
    )
    found = tables.read_rows(copy, wanted)
    assert [row["patch"] for row in found] == [names[0], names[9], names[-1]]
    assert found == [row for row in rows.to_pylist() if row["patch"] in wanted]
    assert read == [0, 2, (len(names) - 1) // 4]
    assert tables.read_rows(copy, set()) == []
