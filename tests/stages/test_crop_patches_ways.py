"""Every way to the same patches: from sections or volumes, hashed first, only some, as files or in shards, again."""

import gzip
import importlib
import random
import re
import shutil
import tarfile

import imagehash
import mrcfile
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from emcurate.patches.crop_plan import CropPlan
from emcurate.patches.pathlists import PathList, write_path_list
from emcurate.patches.shards import read_member
from emcurate.running.ledger import Ledger
from tests.textures import make_texture

cross_section3d = importlib.import_module("raw.cross_section3d")
crop_patches = importlib.import_module("raw.crop_patches")
deduplicate = importlib.import_module("deduplicated.deduplicate")

CROP, SHARD_SIZE = 16, 30
IN_SHARDS = ("--store", "tar", "--shard-size", SHARD_SIZE)


def main(stage, *arguments, processes=1):
    return stage.main([*map(str, arguments), "-p", str(processes)])


def tree(directory):
    """The bytes of every file below a directory, what is left of tables in the making too; not the ledgers."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.parent.name != ".emcurate"
    }


def times(directory):
    """When each file below a directory was written, the ledgers too."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def read_tables(directory):
    """The rows of all tables, but for where in shards patches are."""
    found = {path.name: pd.read_parquet(path) for path in directory.glob("*.parquet")}
    return {name: table.drop(columns=["shard", "offset"]) for name, table in found.items()}


def assert_same_tables(one, other):
    assert one.keys() == other.keys()
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, other[name], check_exact=True)


def read_shards(directory):
    """The content of each member of each shard, as tarfile reads it."""
    found = {}
    for path in sorted(directory.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                assert member.name not in found
                found[member.name] = tar.extractfile(member).read()
    return found


def write_volume(path, array, voxel_size_nm=(10, 10, 10)):
    z, y, x = voxel_size_nm
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": z}
    tifffile.imwrite(path, array, imagej=True, resolution=(1 / x, 1 / y), metadata=metadata)


def write_corpus(directory):
    """Two volumes: an isotropic one, cut along three planes, and one of 16 bits that is cut along one."""
    directory.mkdir()
    write_volume(directory / "fly.tif", make_texture((9, 40, 70)))
    write_volume(directory / "wing.tif", make_texture((4, 33, 50)).astype(np.uint16) * 200, (40, 10, 10))


@pytest.fixture
def volumes(tmp_path):
    write_corpus(tmp_path / "volumes")
    return tmp_path / "volumes"


class Ways:
    """The volumes, as sections too, and what every way gives that starts in an empty directory."""

    def __init__(self, root):
        self.root = root
        write_corpus(root / "volumes")
        write_volume(root / "volumes" / "leg.tif", make_texture((2, 20, 30)))  # too thin for two of its planes
        assert main(cross_section3d, root / "volumes", root / "sections", "-s", 3) == 0
        sections = root / "whole"
        assert main(crop_patches, root / "sections", sections, "-cs", CROP) == 0
        self.patches = {name: data for name, data in tree(sections).items() if name.endswith(".tiff")}
        self.hashes = {name: data for name, data in tree(sections).items() if name.endswith(".npy")}
        self.tables = read_tables(sections)
        names = sorted(self.patches)
        self.some = self.make_list("some", random.Random(0).sample(names, 25))
        self.others = self.make_list("others", random.Random(1).sample([n for n in names if n.startswith("fly")], 9))

    def make_list(self, name, patches):
        write_path_list(self.root / name, [f"/elsewhere/{patch}" for patch in patches])
        return self.root / name

    def run(self, material, out, *flags):
        more = ("--from-volumes", "-s", 3) if material == "volumes" else ()
        return main(crop_patches, self.root / material, out, "-cs", CROP, *more, *flags)

    def files_of(self, fpaths):
        """The files that patches of a list have: these, and their hashes."""
        stems = {path.rpartition("/")[2].removesuffix(".tiff") for path in PathList(fpaths)}
        both = {**self.patches, **self.hashes}
        return {f"{stem}.{extension}": both[f"{stem}.{extension}"] for stem in stems for extension in ("tiff", "npy")}


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    return Ways(tmp_path_factory.mktemp("ways"))


both_materials = pytest.mark.parametrize("material", ["sections", "volumes"])


def files_in(directory):
    return {name: data for name, data in tree(directory).items() if not name.endswith(".parquet")}


def write_mixed_corpus(directory):
    """Volumes of many kinds, among them one of floats with gaps, packed ones, and directories and files of slices."""
    directory.mkdir()
    write_volume(directory / "bytes.tif", make_texture((8, 40, 33)))
    write_volume(directory / "thick ö.tif", make_texture((5, 30, 44)).astype(np.uint16) * 150 + 900, (40, 10, 10))
    floats = make_texture((6, 32, 32)).astype(np.float32) - 70.5
    floats[2, 3:9, 4:20] = np.nan
    floats[0, 0, 0] = np.inf
    write_volume(directory / "floats.tif", floats)
    tifffile.imwrite(directory / "pages.tif", make_texture((7, 33, 20)), photometric="minisblack")
    with mrcfile.new(directory / "signed.mrc") as mrc:
        mrc.set_data((make_texture((6, 36, 24)).astype(np.int16) - 128).astype(np.int8))
        mrc.voxel_size = 100.0
    with mrcfile.new(directory / "x.mrc") as mrc:
        mrc.set_data(make_texture((5, 25, 40)).astype(np.int16) * 3)
        mrc.voxel_size = 50.0
    packed = gzip.compress((directory / "x.mrc").read_bytes(), mtime=0)
    (directory / "packed.mrc.gz").write_bytes(packed)
    (directory / "x.mrc").unlink()
    (directory / "slices").mkdir()
    for index, plane in enumerate(make_texture((11, 24, 40))):
        Image.fromarray(plane).save(directory / "slices" / f"{index}.png")


@pytest.mark.parametrize(
    "cutting",
    [
        (),
        ("-s", 4, "-a", 0, 2),
        ("--rescale", "percentile", "-s", 3),
        ("--rescale", "minmax", "--voxel-size", 8, 8, 8, "-a", 1),
    ],
    ids=["all sections", "every fourth and the last", "percentiles", "one plane"],
)
def test_patches_from_volumes_equal_those_from_sections(tmp_path, cutting):
    volumes, sections, one, other = (tmp_path / name for name in ("volumes", "sections", "one", "other"))
    write_mixed_corpus(volumes)
    assert main(cross_section3d, volumes, sections, *cutting) == 0
    assert main(crop_patches, sections, one, "-cs", CROP, "-hs", 5) == 0
    assert main(crop_patches, volumes, other, "-cs", CROP, "-hs", 5, "--from-volumes", *cutting) == 0
    assert len(files_in(one)) > 100
    assert files_in(one) == files_in(other)
    assert_same_tables(read_tables(one), read_tables(other))


def test_any_number_of_processes_gives_the_same_bytes_from_volumes_and_in_shards(volumes, tmp_path):
    for way in ((), ("--hashes-only",), IN_SHARDS):
        made = []
        for processes in (1, 2):
            out = tmp_path / f"{len(way)}-{processes}"
            flags = ("-cs", CROP, "--from-volumes", *way)
            assert main(crop_patches, volumes, out, *flags, processes=processes) == 0
            made.append(tree(out))
        assert made[0] == made[1]


@both_materials
def test_hashing_alone_makes_the_tables_of_a_full_run_and_nothing_else(ways, tmp_path, material):
    out = tmp_path / "out"
    assert ways.run(material, out, "--hashes-only") == 0
    assert set(tree(out)) == {f"{name}_patches.parquet" for name in ("fly", "leg", "wing")}
    assert_same_tables(read_tables(out), ways.tables)


@both_materials
@pytest.mark.parametrize("hash", ["dhash", "phash"])
def test_hashes_are_those_of_imagehash_whatever_is_written(ways, tmp_path, material, hash):
    kinds = {"dhash": imagehash.dhash, "phash": imagehash.phash}
    assert ways.run(material, tmp_path / "out", "--hashes-only", "--hash", hash) == 0
    rows = pd.concat(read_tables(tmp_path / "out").values())
    for row in rows.sample(30, random_state=0).itertuples():
        with Image.open(ways.root / "whole" / f"{row.patch}.tiff") as image:
            bits = kinds[hash](image.resize((CROP, CROP), resample=2), 8).hash
        assert row.hash == np.packbits(bits.ravel()).tobytes()


@both_materials
def test_the_short_way_makes_the_exemplars_of_the_long_way(ways, tmp_path, material):
    long, short = tmp_path / "long", tmp_path / "short"
    assert ways.run(material, long / "p") == 0
    assert main(deduplicate, long / "p", long / "e", "-d", 6) == 0
    assert ways.run(material, short / "p", "--hashes-only") == 0
    tables = tree(short / "p")
    assert main(deduplicate, short / "p", short / "e", "-d", 6) == 0
    listed = [path.rpartition("/")[2] for path in PathList(short / "e" / "deduplicated_fpaths.npz")]
    assert listed == [path.rpartition("/")[2] for path in PathList(long / "e" / "deduplicated_fpaths.npz")]
    assert 0 < len(listed) < len(ways.patches)
    assert ways.run(material, short / "p", "--only", short / "e" / "deduplicated_fpaths.npz") == 0
    assert tree(short / "p") == {**tables, **ways.files_of(short / "e" / "deduplicated_fpaths.npz")}
    assert all((short / "p" / name).samefile(path) for name, path in zip(listed, _paths(short), strict=True))
    for name in ("fly_groups.csv", "wing_groups.csv"):
        assert (short / "e" / name).read_bytes() == (long / "e" / name).read_bytes()
    before = times(short)
    assert ways.run(material, short / "p", "--hashes-only") == 0
    assert main(deduplicate, short / "p", short / "e", "-d", 6) == 0
    assert ways.run(material, short / "p", "--only", short / "e" / "deduplicated_fpaths.npz") == 0
    assert times(short) == before


def _paths(work):
    return list(PathList(work / "e" / "deduplicated_fpaths.npz"))


@both_materials
def test_only_some_patches_in_a_new_directory(ways, tmp_path, material):
    assert ways.run(material, tmp_path / "p", "--only", ways.some) == 0
    assert files_in(tmp_path / "p") == ways.files_of(ways.some)
    listed = {name.removesuffix(".tiff") for name in files_in(tmp_path / "p")}
    for name, table in read_tables(tmp_path / "p").items():
        expected = ways.tables[name]
        expected = expected[expected["patch"].isin(listed)].reset_index(drop=True)
        pd.testing.assert_frame_equal(table, expected, check_exact=True)


@both_materials
def test_another_list_removes_what_is_no_longer_named(ways, tmp_path, material):
    for fpaths in (ways.some, ways.others, ways.some):
        assert ways.run(material, tmp_path / "p", "--only", fpaths) == 0
        assert files_in(tmp_path / "p") == ways.files_of(fpaths)
    assert ways.run(material, tmp_path / "fresh", "--only", ways.some) == 0
    assert tree(tmp_path / "p") == tree(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("patches", "words"),
    [
        (["fly-LOC-0_0_0_7.tiff"], "on its grid|a grid without it"),
        (["other-LOC-0_0_0_0.tiff", "other-LOC-2d_0_0.tiff"], "only patches of others"),
        (["holiday.png"], "found holiday.png|holiday.png"),
        (["fly-LOC-0_0_0_0.tiff", "fly-LOC-0_0"], "fly-LOC-0_0"),
        (["fly-LOC-0_0_0_99999999999.tiff"], "99999999999"),
        ([], "an empty"),
    ],
    ids=["off the grid", "of others", "a picture", "a section", "a number beyond any image", "empty"],
)
@both_materials
def test_a_list_that_does_not_fit_is_refused_with_a_reason(ways, tmp_path, capsys, material, patches, words):
    fpaths = tmp_path / "list"
    write_path_list(fpaths, [f"/x/{name}" for name in patches])
    assert ways.run(material, tmp_path / "p", "--hashes-only") == 0
    before = tree(tmp_path / "p")
    capsys.readouterr()
    assert ways.run(material, tmp_path / "p", "--only", fpaths) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert any(word in error for word in words.split("|"))
    assert tree(tmp_path / "p") == before


def test_patches_of_other_datasets_in_a_list_are_left_to_their_own_run(ways, tmp_path):
    names = [path.rpartition("/")[2] for path in PathList(ways.some)]
    fpaths = tmp_path / "list"
    write_path_list(
        fpaths, [*(f"/x/{name}" for name in names), "/y/other-LOC-2d_0_0.tiff", "/y/other-LOC-0_3_16_0.tiff"]
    )
    assert ways.run("volumes", tmp_path / "p", "--only", fpaths) == 0
    assert files_in(tmp_path / "p") == ways.files_of(ways.some)


@both_materials
def test_tarfile_reads_the_patches_in_shards_and_tables_say_where_each_begins(ways, tmp_path, material):
    assert ways.run(material, tmp_path / "p", *IN_SHARDS) == 0
    assert read_shards(tmp_path / "p") == ways.patches
    assert_same_tables(read_tables(tmp_path / "p"), ways.tables)
    assert_places_in_shards(tmp_path / "p", ways.patches)


def assert_places_in_shards(directory, patches):
    """Every one of some patches, and no other, begins where its row says."""
    rows = pd.concat(map(pd.read_parquet, directory.glob("*.parquet")))
    held = rows[rows["shard"].notna() | rows["offset"].notna()]
    assert sorted(f"{patch}.tiff" for patch in held["patch"]) == sorted(patches)
    content = {path.name: path.read_bytes() for path in directory.glob("*.tar")}
    for row in held.itertuples():
        data = patches[f"{row.patch}.tiff"]
        assert content[row.shard][int(row.offset) :][: len(data)] == data


def test_a_shard_holds_whole_sections_and_no_more_patches_than_it_may(ways, tmp_path):
    for size in (1, SHARD_SIZE, 10000):
        out = tmp_path / str(size)
        assert ways.run("volumes", out, "--store", "tar", "--shard-size", size) == 0
        seen = set()
        for path in sorted(out.glob("*.tar")):
            with tarfile.open(path) as tar:
                names = tar.getnames()
            sections = {name.rsplit("_", 2)[0] for name in names}
            assert len(names) <= size or len(sections) == 1
            assert not sections & seen
            seen |= sections
        assert len(list(out.glob("*.tar"))) == {1: len(seen), 10000: 3}.get(size, len(list(out.glob("*.tar"))))


@both_materials
@pytest.mark.parametrize(
    "way", [(), ("--hashes-only",), ("--only", "some"), IN_SHARDS, (*IN_SHARDS, "--only", "some")], ids=str
)
def test_a_second_run_does_nothing(ways, tmp_path, material, way):
    way = [ways.root / word if word == "some" else word for word in way]
    assert ways.run(material, tmp_path / "p", *way) == 0
    before = times(tmp_path / "p")
    assert ways.run(material, tmp_path / "p", *way) == 0
    assert times(tmp_path / "p") == before
    assert ways.run(material, tmp_path / "p", *way, "--verify") == 0


FILES, HASHES, SHARDS = (), ("--hashes-only",), IN_SHARDS


@both_materials
@pytest.mark.parametrize(
    ("first", "then", "like"),
    [
        (HASHES, FILES, FILES),
        (FILES, HASHES, FILES),
        (HASHES, SHARDS, SHARDS),
        (SHARDS, HASHES, SHARDS),
        (SHARDS, (*HASHES, "--overwrite"), SHARDS),
        (FILES, (*HASHES, "--overwrite"), FILES),
        (("--only", "some"), FILES, FILES),
        ((*SHARDS, "--only", "some"), SHARDS, SHARDS),
        (FILES, ("--only", "some"), FILES),
        (FILES, (*SHARDS, "--overwrite"), SHARDS),
        (("--only", "some"), (*SHARDS, "--only", "some", "--overwrite"), (*SHARDS, "--only", "some")),
        (SHARDS, ("--store", "tar", "--shard-size", 50, "--overwrite"), ("--store", "tar", "--shard-size", 50)),
    ],
    ids=lambda way: " ".join(map(str, way)) or "files",
)
def test_one_way_after_another_ends_as_that_alone_would(ways, tmp_path, material, first, then, like):
    for name, flags in (("p", first), ("p", then), ("fresh", like)):
        words = [ways.root / word if word == "some" else word for word in flags]
        assert ways.run(material, tmp_path / name, *words) == 0
    assert tree(tmp_path / "p") == tree(tmp_path / "fresh")
    before = times(tmp_path / "p")
    words = [ways.root / word if word == "some" else word for word in then if word != "--overwrite"]
    assert ways.run(material, tmp_path / "p", *words) == 0
    assert times(tmp_path / "p") == before


@pytest.mark.parametrize(("first", "then"), [(FILES, SHARDS), (SHARDS, FILES), (SHARDS, ("--only", "some"))])
def test_files_and_shards_are_never_mixed_without_being_asked(ways, tmp_path, capsys, first, then):
    assert ways.run("volumes", tmp_path / "p", *first) == 0
    before = times(tmp_path / "p")
    words = [ways.root / word if word == "some" else word for word in then]
    assert ways.run("volumes", tmp_path / "p", *words) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert times(tmp_path / "p") == before


def words_of(ways, flags):
    """Flags, with the names of lists replaced by where these lie."""
    return [ways.root / word if word in ("some", "others") else word for word in flags]


@both_materials
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)], ids=["hashed", "in files"])
def test_some_patches_in_shards_leave_the_row_of_every_other(ways, tmp_path, material, overwrite):
    assert ways.run(material, tmp_path / "p", *(() if overwrite else HASHES)) == 0
    for name in ("others", "some"):
        assert ways.run(material, tmp_path / "p", *SHARDS, "--only", ways.root / name, *overwrite) == 0
        overwrite = ()
        wanted = {file: data for file, data in ways.files_of(ways.root / name).items() if file.endswith(".tiff")}
        assert read_shards(tmp_path / "p") == wanted
        assert_same_tables(read_tables(tmp_path / "p"), ways.tables)
        assert_places_in_shards(tmp_path / "p", wanted)
        written = times(tmp_path / "p")
        assert ways.run(material, tmp_path / "p", *SHARDS, "--only", ways.root / name) == 0
        assert times(tmp_path / "p") == written


@both_materials
@pytest.mark.parametrize("store", [FILES, SHARDS], ids=["files", "shards"])
def test_a_list_takes_nothing_from_a_directory_that_holds_all(ways, tmp_path, capsys, material, store):
    assert ways.run(material, tmp_path / "p", *store) == 0
    before = times(tmp_path / "p")
    assert ways.run(material, tmp_path / "p", *store, "--only", ways.some) == 0
    assert times(tmp_path / "p") == before
    said = capsys.readouterr().out
    assert "removed" not in said
    assert "has all patches of fly, leg, wing" in said
    victim = min(path for path in (tmp_path / "p").iterdir() if path.suffix == (".tar" if store else ".tiff"))
    content = victim.read_bytes()
    victim.unlink()  # what is lost of all patches is made again, whichever are asked for
    assert ways.run(material, tmp_path / "p", *store, "--only", ways.some) == 0
    if store:
        assert victim.read_bytes() == content


@both_materials
@pytest.mark.parametrize("store", [FILES, SHARDS], ids=["files", "shards"])
def test_to_overwrite_with_a_list_leaves_only_its_patches_and_the_rows_of_all(ways, tmp_path, material, store):
    assert ways.run(material, tmp_path / "p", *store) == 0
    assert ways.run(material, tmp_path / "p", *store, "--only", ways.some, "--overwrite") == 0
    assert ways.run(material, tmp_path / "q", *HASHES) == 0
    assert ways.run(material, tmp_path / "q", *store, "--only", ways.some) == 0
    assert tree(tmp_path / "p") == tree(tmp_path / "q")
    before = times(tmp_path / "p")
    assert ways.run(material, tmp_path / "p", *store, "--only", ways.some) == 0
    assert times(tmp_path / "p") == before


@both_materials
@pytest.mark.parametrize("before", [HASHES, FILES], ids=["hashed before", "in a new directory"])
@pytest.mark.parametrize("store", [FILES, SHARDS], ids=["files", "shards"])
def test_what_another_list_removes_is_counted(ways, tmp_path, capsys, material, store, before):
    def names(fpaths):
        return {file for file in ways.files_of(fpaths) if file.endswith(".tiff")}

    if before:
        assert ways.run(material, tmp_path / "p", *before) == 0
    for fpaths, earlier in ((ways.some, None), (ways.others, ways.some), (ways.others, ways.others)):
        capsys.readouterr()
        assert ways.run(material, tmp_path / "p", *store, "--only", fpaths) == 0
        gone = len(names(earlier) - names(fpaths)) if earlier else 0
        said = re.findall(r"([\d,]+) patches removed that the list no longer names", capsys.readouterr().out)
        assert said == ([str(gone)] if gone else [])


@both_materials
@pytest.mark.parametrize("then", [FILES, ("--only", "some")], ids=["files", "some"])
def test_once_shards_are_replaced_no_row_speaks_of_them(ways, tmp_path, material, then):
    assert ways.run(material, tmp_path / "p", *SHARDS) == 0
    assert ways.run(material, tmp_path / "p", *words_of(ways, then), "--overwrite") == 0
    assert not list((tmp_path / "p").glob("*.tar"))
    assert_places_in_shards(tmp_path / "p", {})
    assert_same_tables(read_tables(tmp_path / "p"), ways.tables)
    everything = {**ways.patches, **ways.hashes}
    assert files_in(tmp_path / "p") == (ways.files_of(ways.some) if then else everything)


def damage(path, kind):
    if kind == "deleted":
        path.unlink()
    elif kind == "cut off":
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "edited":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    else:
        shutil.copy(path.with_name(kind), path)


@both_materials
@pytest.mark.parametrize("kind", ["deleted", "cut off", "edited", "wing_patches.parquet"])
@pytest.mark.parametrize(
    "way",
    [FILES, HASHES, ("--only", "some"), SHARDS, (*SHARDS, "--only", "some")],
    ids=["files", "hashes", "some", "shards", "some in shards"],
)
def test_a_damaged_table_is_made_again_whole_in_every_way(ways, tmp_path, material, way, kind):
    assert ways.run(material, tmp_path / "p", "--hashes-only") == 0
    assert ways.run(material, tmp_path / "p", *words_of(ways, way)) == 0
    before = tree(tmp_path / "p")
    damage(tmp_path / "p" / "fly_patches.parquet", kind)
    assert ways.run(material, tmp_path / "p", *words_of(ways, way)) == 0
    assert tree(tmp_path / "p") == before


@pytest.mark.parametrize("kind", ["deleted", "cut off", "edited", "fly-00001.tar"])
@pytest.mark.parametrize("way", [SHARDS, (*SHARDS, "--only", "some")], ids=["all", "some"])
def test_a_damaged_shard_is_made_again(ways, tmp_path, way, kind):
    flags = ("--store", "tar", "--shard-size", 10, *words_of(ways, way[len(SHARDS) :]))
    assert ways.run("volumes", tmp_path / "p", *flags) == 0
    before = tree(tmp_path / "p")
    damage(tmp_path / "p" / "fly-00000.tar", kind)
    assert ways.run("volumes", tmp_path / "p", *flags) == 0
    assert tree(tmp_path / "p") == before


def test_hashing_alone_and_naming_patches_to_write_exclude_each_other(ways, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        ways.run("volumes", tmp_path / "p", "--hashes-only", "--only", ways.some)
    assert caught.value.code == 2
    assert "--only" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


class ShortWay:
    """The hash-first way up to the list of exemplars, on volumes of its own."""

    def __init__(self, root):
        self.root, self.volumes, self.patches = root, root / "volumes", root / "p"
        self.fpaths = root / "e" / "deduplicated_fpaths.npz"
        write_corpus(self.volumes)
        assert self.crop("--hashes-only") == 0
        assert main(deduplicate, self.patches, root / "e", "-d", 6) == 0

    def crop(self, *flags, out=None, crop=CROP):
        return main(crop_patches, self.volumes, out or self.patches, "-cs", crop, "--from-volumes", "-a", 0, *flags)


@pytest.fixture
def short(tmp_path):
    return ShortWay(tmp_path)


def change_volume(short):
    write_volume(short.volumes / "fly.tif", make_texture((5, 40, 70), seed=5))


@pytest.mark.parametrize("store", [(), IN_SHARDS], ids=["files", "shards"])
def test_patches_are_never_cut_from_a_volume_that_has_changed_since_it_was_hashed(short, capsys, store):
    before = tree(short.patches)
    change_volume(short)
    assert short.crop("--only", short.fpaths, *store) == 1
    assert "its input has changed" in capsys.readouterr().err
    after = tree(short.patches)
    assert not [name for name in after if name.startswith("fly") and name != "fly_patches.parquet"]
    assert after["fly_patches.parquet"] == before["fly_patches.parquet"]
    assert [name for name in after if name.startswith("wing-")]  # the other volume goes on


@pytest.mark.parametrize(
    "flags",
    [("-cs", 20), ("-hs", 4), ("--hash", "phash"), ("-s", 2), ("--rescale", "minmax"), ("--voxel-size", 9, 9, 9)],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_patches_are_never_cut_otherwise_than_they_were_hashed(short, capsys, flags):
    before = tree(short.patches)
    assert short.crop("--only", short.fpaths, *flags) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert tree(short.patches) == before


@pytest.mark.parametrize("then", [HASHES, FILES, IN_SHARDS], ids=["hashes", "files", "shards"])
@pytest.mark.parametrize("way", [FILES, ("--only", "list"), IN_SHARDS], ids=["files", "some", "shards"])
@pytest.mark.parametrize("what", ["volume", "spacing", "crop size"])
def test_after_overwriting_with_something_else_a_directory_is_that_of_a_fresh_run(short, tmp_path, way, what, then):
    assert short.crop(*[short.fpaths if word == "list" else word for word in way]) == 0
    (short.volumes / "wing.tif").unlink()
    flags = {"spacing": ("-s", 2), "crop size": ("-cs", 20)}.get(what, ())
    if what == "volume":
        change_volume(short)
    assert short.crop(*flags, *then, "--overwrite") == 0
    assert short.crop(*flags, *then, out=tmp_path / "fresh") == 0
    assert tree(short.patches) == tree(tmp_path / "fresh")


@pytest.mark.parametrize("store", [(), IN_SHARDS], ids=["files", "shards"])
def test_what_came_of_a_gone_volume_is_named_and_pruned(short, capsys, store):
    assert short.crop("--only", short.fpaths, *store) == 0
    (short.volumes / "wing.tif").unlink()
    assert short.crop("--only", short.fpaths, *store) == 0
    assert "wing" in capsys.readouterr().err
    assert [name for name in tree(short.patches) if name.startswith("wing")]
    assert short.crop("--only", short.fpaths, *store, "--prune") == 0
    assert not [name for name in tree(short.patches) if name.startswith("wing")]


def test_a_directory_that_was_moved_or_copied_between_the_steps_goes_on(short, tmp_path):
    shutil.copytree(short.patches, tmp_path / "copied", copy_function=shutil.copyfile)
    assert short.crop("--only", short.fpaths) == 0
    expected = tree(short.patches)
    assert short.crop("--only", short.fpaths, out=tmp_path / "copied") == 0
    assert tree(tmp_path / "copied") == expected


def test_a_list_of_patches_of_another_size_is_refused_though_their_names_are_on_the_grid(short, tmp_path, capsys):
    assert short.crop("--only", short.fpaths, out=tmp_path / "other", crop=CROP // 2) == 1
    assert f"cut with --crop-size {CROP}" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert short.crop("--only", short.fpaths, *IN_SHARDS) == 0
    assert main(deduplicate, short.patches, tmp_path / "e", "-d", 6, "--overwrite") == 0
    assert short.crop("--only", short.fpaths, out=tmp_path / "other", crop=CROP // 2) == 1


def test_listed_patches_of_sections_that_are_not_cut_are_named_and_the_others_written(short, tmp_path, capsys):
    assert short.crop("--only", short.fpaths, "-s", 3, out=tmp_path / "other") == 1
    error = capsys.readouterr().err
    assert "fly-LOC-0_1" in error and "--spacing" in error
    listed = {path.rpartition("/")[2] for path in PathList(short.fpaths)}
    sections = {f"fly-LOC-0_{index}" for index in (0, 3, 6, 8)} | {f"wing-LOC-0_{index}" for index in (0, 3)}
    expected = {name for name in listed if name.rsplit("_", 2)[0] in sections}
    assert {path.name for path in (tmp_path / "other").glob("*.tiff")} == expected


def test_volumes_and_their_sections_never_share_a_directory(short, tmp_path, capsys):
    before = tree(short.patches)
    assert main(cross_section3d, short.volumes, tmp_path / "sections") == 0
    for flags in ((), ("--overwrite",), ("--hashes-only",)):
        assert main(crop_patches, tmp_path / "sections", short.patches, "-cs", CROP, *flags) == 1
        assert "a dataset name of its own" in capsys.readouterr().err
        assert tree(short.patches) == before


def test_two_runs_never_write_into_one_directory_at_once(short, capsys):
    fcntl = pytest.importorskip("fcntl")
    before = tree(short.patches)
    with open(short.patches / ".emcurate" / "crop_patches.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert short.crop("--only", short.fpaths) == 1
        assert "another that is under way" in capsys.readouterr().err
    assert tree(short.patches) == before
    assert short.crop("--only", short.fpaths) == 0


def test_the_short_way_into_shards_ends_with_the_same_exemplars_listed_by_their_shards(short, tmp_path):
    def exemplars(directory):
        return {path.name: path.read_bytes() for path in (tmp_path / directory).glob("*_groups.csv")}

    listed, groups = [path.rpartition("/")[2] for path in PathList(short.fpaths)], exemplars("e")
    for _ in range(2):
        assert short.crop("--only", short.fpaths, *IN_SHARDS) == 0
        assert main(deduplicate, short.patches, tmp_path / "e", "-d", 6) == 0
        assert [path.rpartition("/")[2] for path in PathList(short.fpaths)] == listed
        assert exemplars("e") == groups
        found = read_shards(short.patches)
        assert sorted(found) == sorted(listed)
        assert all(bytes(read_member(path)) == found[path.rpartition("/")[2]] for path in PathList(short.fpaths))
    written = times(tmp_path)
    assert short.crop("--hashes-only") == 0
    assert main(deduplicate, short.patches, tmp_path / "e", "-d", 6) == 0
    assert short.crop("--only", short.fpaths, *IN_SHARDS) == 0
    assert times(tmp_path) == written


@both_materials
def test_files_that_outlived_hashing_go_when_shards_replace_them(ways, tmp_path, material):
    for flags in (("--only", ways.some), HASHES, (*SHARDS, "--overwrite")):
        assert ways.run(material, tmp_path / "p", *flags) == 0
    assert ways.run(material, tmp_path / "fresh", *SHARDS) == 0
    assert tree(tmp_path / "p") == tree(tmp_path / "fresh")
    written = times(tmp_path / "p")
    assert ways.run(material, tmp_path / "p", *SHARDS) == 0
    assert times(tmp_path / "p") == written


def left_out(out):
    """How many patches a run said that it left out."""
    found = re.search(r"(\d+) left out, with a side under", out)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("least", [1, 8, 12])
def test_patches_with_a_side_under_the_least_are_left_out_and_counted(tmp_path, ways, capsys, least):
    every = tmp_path / "every"
    assert main(crop_patches, ways.root / "sections", every, "-cs", CROP, "--min-size", 1) == 0
    capsys.readouterr()
    large = {
        name: data
        for name, data in tree(every).items()
        if name.endswith(".tiff") and min(tifffile.imread(every / name).shape) >= least
    }
    small = len(list(every.glob("*.tiff"))) - len(large)
    assert len(large) > 0 and (small > 0) == (least > 2)
    for material in ("sections", "volumes"):
        for flags in ([], ["--hashes-only"], IN_SHARDS):
            out = tmp_path / f"{material} {' '.join(map(str, flags))}"
            assert ways.run(material, out, "--min-size", least, *flags) == 0
            assert left_out(capsys.readouterr().out) == small
            tables = read_tables(out)
            assert {f"{name}.tiff" for table in tables.values() for name in table["patch"]} == set(large)
            if not flags:
                assert {n: data for n, data in tree(out).items() if n.endswith(".tiff")} == large
            before = times(out)
            assert ways.run(material, out, "--min-size", least, *flags) == 0
            again = capsys.readouterr().out
            assert left_out(again) == small and "crop_patches: 0 sections cut" in again
            assert times(out) == before


def test_half_a_patch_is_the_least_if_nothing_is_said(tmp_path, ways):
    for side, half in ((16, 8), (17, 9)):
        assert main(crop_patches, ways.root / "sections", tmp_path / "usual", "-cs", side, "--overwrite") == 0
        out = tmp_path / str(side)
        assert main(crop_patches, ways.root / "sections", out, "-cs", side, "--min-size", half) == 0
        assert tree(tmp_path / "usual") == tree(out)


def test_a_thin_volume_is_cut_only_across_it_and_that_is_said(tmp_path, capsys):
    (tmp_path / "volumes").mkdir()
    for name, shape in (("z", (6, 40, 50)), ("y", (40, 6, 50)), ("x", (40, 50, 6)), ("two", (6, 6, 50))):
        write_volume(tmp_path / "volumes" / f"{name}.tif", make_texture(shape))
    assert main(crop_patches, tmp_path / "volumes", tmp_path / "out", "-cs", 16, "--from-volumes", "-s", 4) == 0
    out = capsys.readouterr().out
    thin = {
        "z": "1 (xz), 6 x 50 pixels and plane 2 (yz), 6 x 40 pixels",
        "y": "0 (xy), 6 x 50 pixels and plane 2 (yz), 40 x 6 pixels",
        "x": "0 (xy), 50 x 6 pixels and plane 1 (xz), 40 x 6 pixels",
    }
    for name, plane in (("z", "0 (xy)"), ("y", "1 (xz)"), ("x", "2 (yz)")):
        said = f"{tmp_path / 'volumes' / name}.tif: sections of plane {thin[name]}, are too thin for patches of 8"
        assert f"{said} (--min-size); only plane {plane} is cut\n" in out
        assert read_tables(tmp_path / "out")[f"{name}_patches.parquet"]["plane"].unique().tolist() == [int(plane[0])]
    assert "2 (yz), 6 x 6 pixels, are too thin for patches of 8 (--min-size); nothing is cut" in out
    assert not list((tmp_path / "out").glob("two*"))


@both_materials
def test_a_crop_size_larger_than_everything_is_refused_before_anything_is_written(tmp_path, ways, capsys, material):
    more = ("--from-volumes",) if material == "volumes" else ()
    assert main(crop_patches, ways.root / material, tmp_path / "out", "-cs", 5000, *more) == 1
    error = capsys.readouterr().err
    assert "expected sections of at least 2,500 pixels a side (--min-size; half of --crop-size if not given), " in error
    assert "found none; the largest has 40 x 70; give a smaller --crop-size, or --min-size 1" in error
    assert not tree(tmp_path / "out")


def test_a_least_side_above_the_crop_size_is_a_wrong_argument(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(crop_patches, tmp_path, tmp_path / "out", "-cs", 16, "--min-size", 17)
    assert caught.value.code == 2
    assert "argument --min-size: expected at most the --crop-size, 16, found 17" in capsys.readouterr().err


@both_materials
def test_another_least_side_is_refused_and_replaces_all_with_overwrite(tmp_path, ways, capsys, material):
    out = tmp_path / "out"
    assert ways.run(material, out, "--min-size", 1) == 0
    small = tree(out)
    assert ways.run(material, out) == 1
    assert "min_size 8" in capsys.readouterr().err and tree(out) == small
    assert ways.run(material, out, "--overwrite") == 0
    assert ways.run(material, tmp_path / "fresh") == 0
    assert tree(out) == tree(tmp_path / "fresh") != small
    write_path_list(tmp_path / "list", [str(out / name) for name in small if name.endswith(".tiff")])
    assert ways.run(material, tmp_path / "only", "--only", tmp_path / "list") == 1
    assert "a grid without it" in capsys.readouterr().err or material == "volumes"


def test_a_list_of_patches_that_would_be_left_out_is_refused(tmp_path, ways, capsys):
    assert ways.run("sections", tmp_path / "all", "--min-size", 1) == 0
    write_path_list(tmp_path / "list", [str(path) for path in (tmp_path / "all").glob("*.tiff")])
    assert ways.run("sections", tmp_path / "some", "--only", tmp_path / "list") == 1
    error = capsys.readouterr().err
    assert f"patches of at least 8 pixels a side, found those in {tmp_path / 'all'}, cut with --min-size 1" in error
    assert not tree(tmp_path / "some")


def lose_ledgers(directory):
    for path in (directory / ".emcurate").glob("*.jsonl"):
        path.unlink()


@pytest.mark.parametrize("store", [(), IN_SHARDS], ids=["files", "shards"])
def test_the_short_way_goes_on_as_if_nothing_had_happened_when_its_ledger_is_lost(short, store):
    assert short.crop("--only", short.fpaths, *store) == 0
    before = tree(short.patches)
    lose_ledgers(short.patches)
    assert short.crop("--hashes-only") == 0
    assert short.crop("--only", short.fpaths, *store) == 0
    assert tree(short.patches) == before
    assert short.crop("--verify") == 0
    written = times(short.patches)
    assert short.crop("--hashes-only") == 0
    assert short.crop("--only", short.fpaths, *store) == 0
    assert times(short.patches) == written


@pytest.mark.parametrize("what", ["another's patch", "one more"])
def test_files_that_nobody_noted_are_left_by_hashing_and_refused_by_what_would_mix_with_them(short, capsys, what):
    listed = [path.rpartition("/")[2] for path in PathList(short.fpaths)]
    assert short.crop("--only", short.fpaths) == 0
    patch = min(short.patches.glob("fly*.tiff"))
    if what == "one more":
        patch = short.patches / min(
            f"{stem}.tiff"
            for stem in read_tables(short.patches)["fly_patches.parquet"]["patch"]
            if f"{stem}.tiff" not in listed
        )
    patch.write_bytes(b"mine")
    lose_ledgers(short.patches)
    capsys.readouterr()
    for _ in range(2):
        assert short.crop("--hashes-only") == 0
        assert "of which nobody knows how they were made; they are left" in capsys.readouterr().err
        assert short.crop("--only", short.fpaths) == 1
        assert patch.name in capsys.readouterr().err
        assert patch.read_bytes() == b"mine"
    assert short.crop("--hashes-only", "--overwrite") == 0
    assert short.crop("--only", short.fpaths) == 0
    assert sorted(path.name for path in short.patches.glob("*.tiff")) == sorted(listed)


def test_a_refused_size_of_shards_writes_nothing(volumes, tmp_path, capsys):
    sections, flags = tmp_path / "sections", ("-cs", "16", "-s", "3", "--store", "tar", "--shard-size")
    main(cross_section3d, volumes, sections, "-s", "3")
    for source, more in ((volumes, ("--from-volumes", *flags)), (sections, (*flags[:2], *flags[4:]))):
        out = tmp_path / f"from {source.name}"
        assert main(crop_patches, source, out, *more, "10000") == 0
        before, made = tree(out), times(out)
        capsys.readouterr()
        assert main(crop_patches, source, out, *more, "40") == 1
        assert "--overwrite" in capsys.readouterr().err
        assert tree(out) == before
        assert {path for path, at in times(out).items() if made.get(path) != at and path.parent == out} == set()
        assert main(crop_patches, source, out, *more, "40", "--overwrite") == 0
        assert len(list(out.glob("*.tar"))) > len([name for name in before if name.endswith(".tar")])


@both_materials
@pytest.mark.parametrize(("first", "then"), [(FILES, SHARDS), (SHARDS, FILES)], ids=["to shards", "to files"])
@pytest.mark.parametrize("limited", [(), ("--only", "some")], ids=["from all", "from some"])
def test_what_goes_elsewhere_is_not_counted_as_gone(ways, tmp_path, capsys, material, first, then, limited):
    assert ways.run(material, tmp_path / "p", *first, *words_of(ways, limited)) == 0
    before = on_disk(tmp_path / "p")
    capsys.readouterr()
    assert ways.run(material, tmp_path / "p", *then, "--only", ways.others, "--overwrite") == 0
    gone = re.findall(r"([\d,]+) patches removed that the list no longer names", capsys.readouterr().out)
    assert gone == [str(len(before - on_disk(tmp_path / "p")))]


def on_disk(directory):
    """The names of all patches that lie in a directory, in files or in shards."""
    return {path.name for path in directory.glob("*.tiff")} | {
        name for path in directory.glob("*.tar") for name in tarfile.open(path).getnames()
    }


@both_materials
@pytest.mark.parametrize("store", [FILES, SHARDS], ids=["files", "shards"])
@pytest.mark.parametrize("kind", ["stopped", "killed"])
@pytest.mark.parametrize("jobs", [1, 3, 4])
def test_what_a_list_takes_from_a_run_that_was_broken_off_is_counted(
    ways, tmp_path, capsys, monkeypatch, material, store, kind, jobs
):
    def broken_off(plan, job, done, report):
        seen.append(job)
        if len(seen) > jobs:
            raise KeyboardInterrupt
        take(plan, job, done, report)

    take, seen = CropPlan.take, []
    with monkeypatch.context() as patch:
        patch.setattr(CropPlan, "take", broken_off)
        if kind == "killed":  # nothing of it is noted, though all of it is there
            patch.setattr(Ledger, "note", lambda self: None)
        assert ways.run(material, tmp_path / "p", *store) == 130
    before = on_disk(tmp_path / "p")
    assert before
    capsys.readouterr()
    assert ways.run(material, tmp_path / "p", *store, "--only", ways.others) == 0
    said = capsys.readouterr().out
    gone = re.findall(r"([\d,]+) patches removed that the list no longer names", said)
    assert [int(number) for number in gone] == [number for number in [len(before - on_disk(tmp_path / "p"))] if number]
    held = re.findall(r"has all patches of ([^,]*)", said)
    for name in held:
        assert {patch for patch in ways.patches if patch.startswith(f"{name}-")} <= on_disk(tmp_path / "p")
    left = {path.name for path in tmp_path.joinpath("p").iterdir() if path.name.endswith((".tiff", ".tar"))}
    assert ways.run(material, tmp_path / "p", *store, "--only", ways.others) == 0
    assert {path.name for path in tmp_path.joinpath("p").iterdir() if path.name.endswith((".tiff", ".tar"))} == left
