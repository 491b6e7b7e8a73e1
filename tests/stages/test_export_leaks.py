"""export.py --against: near-duplicates of a benchmark's images, by a loop over imagehash's hashes."""

import importlib

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emcurate.patches.joined import Results, write_joined
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import read_patch
from tests.kills import differing, tree
from tests.textures import make_texture

cleanup2d, crop_patches, deduplicate, export = (
    importlib.import_module(name)
    for name in ("raw.cleanup2d", "raw.crop_patches", "deduplicated.deduplicate", "data_prep.export")
)
CROP = 32

# What tells of patches, beside them.
TELLING = ["datasheet.json", "datasheet.md", "patches.parquet"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Exemplars of four images, as files and in shards; and a benchmark with tiles of two of them, noise and a mask."""
    work = tmp_path_factory.mktemp("work")
    for name in ("images", "benchmark/deep"):
        (work / name).mkdir(parents=True)
    for seed, name in enumerate(("eye", "fly", "wing", "zebra fish")):
        pixels = make_texture((1, 70, 128), seed=seed)[0]
        Image.fromarray(pixels).save(work / "images" / f"{name}.png")
        if seed < 2:
            noise = np.random.default_rng(seed).normal(0, 12 * seed, (CROP, CROP))
            tile = np.clip(pixels[32:64, 32:64] + noise, 0, 255).astype(np.uint8)
            Image.fromarray(tile).save(work / "benchmark" / "deep" / f"tile {seed}.png")
    noise = np.random.default_rng(9).integers(0, 256, (CROP, CROP)).astype(np.uint8)
    Image.fromarray(noise).save(work / "benchmark" / "noise.tif")
    Image.fromarray(np.full((CROP, CROP), 7, np.uint8)).save(work / "benchmark" / "mask.png")
    cleanup2d.main([str(work / "images"), str(work / "sections")])
    for name, flags in (("files", ()), ("shards", ("--store", "tar"))):
        crop_patches.main([str(work / "sections"), str(work / name), "-cs", str(CROP), "-p", "1", *flags])
        deduplicate.main([str(work / name), str(work / f"groups {name}"), "-d", "0"])
    return work


def find_leaks(work, name, distance):
    """Of each listed patch the nearest image of the benchmark with anything in it, and how far it is."""
    found = {}
    tiles = [*sorted((work / "benchmark").glob("*.tif")), *sorted((work / "benchmark").rglob("tile*.png"))]
    hashes = [imagehash.dhash(Image.open(path)) for path in tiles]
    for path in PathList(work / f"groups {name}" / "deduplicated_fpaths.npz"):
        image = Image.fromarray(read_patch(path)).resize((CROP, CROP), Image.Resampling.BILINEAR)
        distances = [imagehash.dhash(image) - there for there in hashes]
        if min(distances) <= distance:
            tile = tiles[int(np.argmin(distances))].relative_to(work / "benchmark").as_posix()
            found[path.rpartition("/")[2].removesuffix(".tiff")] = (tile, min(distances))
    return found


def run(work, name, out, *flags):
    fpaths = work / f"groups {name}" / "deduplicated_fpaths.npz"
    return export.main([str(fpaths), str(out), "--format", "imagefolder", "--relative", "-p", "1", *map(str, flags)])


@pytest.mark.parametrize("name", ["files", "shards"])
@pytest.mark.parametrize("distance", [12, 2])
def test_leaks_are_told_of_and_left_out_where_asked(work, tmp_path, capsys, name, distance):
    expected = find_leaks(work, name, distance)
    assert {image for image, _ in expected.values()} >= {"deep/tile 0.png"} and len(expected) >= 1
    against = ("--against", work / "benchmark", "--leak-distance", distance)
    assert run(work, name, tmp_path / "told", *against) == 0
    said = capsys.readouterr().out
    assert f"{len(expected)} leaks" in said and "0 to 4 bits apart" in said and "1 blank patches" in said
    account = pq.read_table(tmp_path / "told" / "patches.parquet").to_pylist()
    listed = [row for row in account if row["outcome"] == "exported"]
    for row in account:
        assert (row["leak_of"], row["leak_distance"]) == expected.get(row["patch"], (None, None))
    assert run(work, name, tmp_path / "plain") == 0
    plain = tree(tmp_path / "plain")
    assert differing(tree(tmp_path / "told"), plain) == TELLING  # nothing else is another
    assert "leak_of" not in pq.read_schema(tmp_path / "plain" / "patches.parquet").names
    assert run(work, name, tmp_path / "clean", *against, "--drop-leaks") == 0
    account = pq.read_table(tmp_path / "clean" / "patches.parquet").to_pylist()
    left_out = {row["patch"]: row["why"] for row in account if row["outcome"] == "left out"}
    assert left_out == dict.fromkeys(expected, "near-duplicates of the other set's")
    assert sum(row["outcome"] == "exported" for row in account) == len(listed) - len(expected)
    assert len(list((tmp_path / "clean" / "train").rglob("*.png"))) == len(listed) - len(expected)


def test_a_changed_benchmark_renews_the_account_and_other_flags_are_refused(work, tmp_path, capsys):
    benchmark = tmp_path / "benchmark"
    benchmark.mkdir()
    for path in (work / "benchmark").rglob("tile*"):
        (benchmark / path.name).write_bytes(path.read_bytes())
    flags = ("--against", benchmark)
    assert run(work, "files", tmp_path / "out", *flags) == 0
    before = tree(tmp_path / "out")
    assert run(work, "files", tmp_path / "out", *flags) == 0
    assert not differing(tree(tmp_path / "out"), before)
    for other in ((), (*flags, "--leak-distance", "3"), (*flags, "--drop-leaks")):
        capsys.readouterr()
        assert run(work, "files", tmp_path / "out", *other) == 1
        assert "--overwrite" in capsys.readouterr().err
    (benchmark / "tile 0.png").unlink()
    assert run(work, "files", tmp_path / "out", *flags, "--overwrite") == 0
    assert differing(tree(tmp_path / "out"), before) == TELLING
    (benchmark / "broken.png").write_bytes(b"\x89PNG")
    assert run(work, "files", tmp_path / "out", *flags) == 1
    assert "broken.png" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(work, "files", tmp_path / "other", "--drop-leaks")


def test_what_deduplicate_said_of_leaks_is_in_an_account_too(work, tmp_path):
    groups = tmp_path / "groups"
    assert deduplicate.main([str(work / "files"), str(groups), "-d", "2", "--against", str(work / "benchmark")]) == 0
    fpaths = groups / "deduplicated_fpaths.npz"
    assert export.main([str(fpaths), str(tmp_path / "out"), "--format", "imagefolder", "-p", "1"]) == 0
    account = pq.read_table(tmp_path / "out" / "patches.parquet").to_pylist()
    write_joined(tmp_path / "joined.parquet", Results((work / "files",), groups))
    joined = {row["patch"]: row for row in pq.read_table(tmp_path / "joined.parquet").to_pylist()}
    assert any(row["leak_of"] for row in account)
    for row in account:
        assert (row["leak_of"], row["leak_distance"]) == (
            joined[row["patch"]]["leak_of"],
            joined[row["patch"]]["leak_distance"],
        )
