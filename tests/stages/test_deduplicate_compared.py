"""deduplicate.py --scope all, --orientations, --against and --preview, each against loops over imagehash's hashes."""

import csv
import importlib
import re
import shutil
from pathlib import Path

import dask.array
import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from emcurate import partials
from emcurate.comparison import outcome
from emcurate.patches.joined import Results, write_joined
from emcurate.patches.leaks import name_bands
from emcurate.reporting.summary import summarize
from emcurate.running import ledger as ledgers
from tests.kills import differing, killed_after, tree
from tests.patches.test_nearest import cover_naively, hash_naively
from tests.textures import make_texture

deduplicate, crop, cleanup2d = (
    importlib.import_module(name) for name in ("deduplicated.deduplicate", "raw.crop_patches", "raw.cleanup2d")
)
CROP = 32
DISTANCE = 12
NAMES = ("fly", "wing", "zebra fish")


def make_images():
    """Three pictures, of which the second has places of the first, and the third places of it that are turned.

    Two places of each are nearly the same.
    """
    fly, wing, fish = (np.ascontiguousarray(p[:, :96]) for p in make_texture((3, 96, 192), seed=4))
    for number, pixels in enumerate((fly, wing, fish)):
        noise = np.random.default_rng(number).normal(0, 20 * number, (CROP, CROP))
        pixels[64:, 64:] = np.clip(pixels[32:64, 32:64] + noise, 0, 255)
    wing[:32, :64] = fly[32:64, 32:96]
    fish[:32, :32] = np.rot90(fly[:32, 32:64])
    fish[32:64, 64:] = fly[64:, :32][:, ::-1]
    return dict(zip(NAMES, (fly, wing, fish), strict=True))


def cut_naively(pixels, side=CROP):
    """The patches of a picture whose sides are whole multiples of a patch's, by row and column."""
    height, width = pixels.shape
    return {(y, x): pixels[y : y + side, x : x + side] for y in range(0, height, side) for x in range(0, width, side)}


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Sections, and their patches: as files of a run without all orientations, and as tables of one with these."""
    root = tmp_path_factory.mktemp("cut")
    (root / "images").mkdir()
    for name, pixels in make_images().items():
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
    assert cleanup2d.main([str(root / "images"), str(root / "sections")]) == 0
    sections, flags = str(root / "sections"), ("-cs", str(CROP))
    assert crop.main([sections, str(root / "files"), *flags]) == 0
    assert crop.main([sections, str(root / "tables"), *flags, "--hashes-only", "--orientations"]) == 0
    assert crop.main([sections, str(root / "shards"), *flags, "--store", "tar", "--shard-size", "5"]) == 0
    return root


def seen_patches():
    """The names of all patches, in order, with their hashes in all orientations, by imagehash."""
    return {
        f"{name}-LOC-2d_{y}_{x}": np.array(hash_naively(patch, 8))
        for name, pixels in make_images().items()
        for (y, x), patch in sorted(cut_naively(pixels).items(), key=lambda item: f"{item[0][0]}_{item[0][1]}")
    }


def read_groups(savedir):
    rows = {}
    for name in NAMES:
        with open(savedir / f"{name}_groups.csv", newline="") as file:
            of_this = {row["patch"]: (row["exemplar"], int(row["distance"])) for row in csv.DictReader(file)}
        assert all(patch.startswith(f"{name}-LOC-") for patch in of_this)
        rows |= of_this
    return rows


def expected_groups(seen, together, turned):
    """What the rule says of patches: (exemplar, distance) by patch."""
    found = {}
    for some in [NAMES] if together else [(name,) for name in NAMES]:
        names = [patch for patch in seen if patch.partition("-LOC-")[0] in some]
        hashes = [seen[patch] if turned else seen[patch][:1] for patch in names]
        for i, k in enumerate(cover_naively(hashes, DISTANCE)):
            distance = (hashes[i] != hashes[k][0]).sum(axis=(1, 2)).min()
            found[names[i]] = (names[k], distance)
    return found


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("turned", "patches"), [(False, "files"), (True, "files"), (True, "tables"), (True, "shards")])
def test_groups_are_those_of_the_naive_loop(cut, tmp_path, together, turned, patches):
    flags = ["--order", "name", *(["--scope", "all"] if together else []), *(["--orientations"] if turned else [])]
    assert deduplicate.main([str(cut / patches), str(tmp_path), *flags]) == 0
    expected = expected_groups(seen_patches(), together, turned)
    assert read_groups(tmp_path) == expected
    exemplars = {name: [patch for patch in expected if expected[patch][0] == patch] for name in NAMES}
    listed = []
    for name in NAMES:
        of_this = [patch for patch in exemplars[name] if patch.startswith(f"{name}-LOC-")]
        paths = np.load(tmp_path / f"{name}_exemplars.npy", allow_pickle=False)
        assert [path.rpartition("/")[2].removesuffix(".tiff") for path in paths] == of_this
        listed += paths.tolist()
    assert dask.array.from_npy_stack(tmp_path / "deduplicated_fpaths.npz").compute().tolist() == listed
    if patches == "shards":
        assert all(".tar/" in path for path in listed)


def test_scope_and_orientations_find_what_was_hidden(cut, tmp_path):
    counts = {}
    for flags in ((), ("--scope", "all"), ("--scope", "all", "--orientations")):
        savedir = tmp_path / f"{len(flags)}"
        assert deduplicate.main([str(cut / "files"), str(savedir), *flags, "--order", "name"]) == 0
        counts[flags] = len(dask.array.from_npy_stack(savedir / "deduplicated_fpaths.npz").compute())
        groups = read_groups(savedir)
    # Two places of the first picture are in the second, and two more, turned or mirrored, in the third.
    assert groups["wing-LOC-2d_0_0"] == ("fly-LOC-2d_32_32", 0)
    assert groups["zebra fish-LOC-2d_0_0"][0] == "fly-LOC-2d_0_32"
    assert groups["zebra fish-LOC-2d_32_64"][0] == "fly-LOC-2d_64_0"
    assert counts[()] > counts["--scope", "all"] > counts["--scope", "all", "--orientations"]


def test_a_dataset_all_of_which_is_anothers_has_no_exemplars(cut, tmp_path, capsys):
    patches = tmp_path / "patches"
    patches.mkdir()
    for path in (cut / "files").glob("fly-LOC-*"):
        shutil.copy(path, patches)
        shutil.copy(path, patches / path.name.replace("fly", "copy"))
    assert deduplicate.main([str(patches), str(tmp_path / "out"), "--scope", "all", "--order", "name"]) == 0
    with open(tmp_path / "out" / "fly_groups.csv", newline="") as file:
        assert all(row["exemplar"].startswith("copy-LOC-") for row in csv.DictReader(file))
    assert np.load(tmp_path / "out" / "fly_exemplars.npy", allow_pickle=False).tolist() == []
    listed = dask.array.from_npy_stack(tmp_path / "out" / "deduplicated_fpaths.npz").compute()
    assert len(listed) and all("/copy-LOC-" in path for path in listed)
    joined = tmp_path / "patches.parquet"
    write_joined(joined, Results((patches,), tmp_path / "out"))
    assert {row["why"] for row in pq.read_table(joined).to_pylist() if row["dataset"] == "fly"} == {
        f"{bits} bits from its exemplar, of another dataset" for bits in {0, *_distances(tmp_path / "out", "fly")}
    }
    # A group over two datasets is counted whole.
    assert max(size for _, size in summarize(joined).groups) >= 2


def _distances(savedir, name):
    with open(savedir / f"{name}_groups.csv", newline="") as file:
        return {int(row["distance"]) for row in csv.DictReader(file)}


def results(savedir):
    return {name: data for name, data in tree(savedir).items() if ".emcurate" not in name}


def test_what_one_dataset_changes_all_are_done_again_for(cut, tmp_path, capsys):
    patches, savedir = tmp_path / "patches", tmp_path / "out"
    shutil.copytree(cut / "files", patches)

    def run(*flags):
        capsys.readouterr()
        assert deduplicate.main([str(patches), str(savedir), *flags]) == 0
        return capsys.readouterr().out

    assert "3 datasets done, 0 datasets unchanged" in run()
    assert "again: parameters changed, from no scope" in (text := run("--scope", "all")) or "scope all" in text
    assert "0 datasets done, 3 datasets unchanged" in run("--scope", "all")
    before = results(savedir)
    (savedir / "wing_groups.csv").unlink()
    assert "1 datasets done, 2 datasets unchanged" in run("--scope", "all")
    assert results(savedir) == before
    (patches / "fly_patches.parquet").unlink()
    for path in patches.glob("fly-LOC-2d_32_*"):
        path.unlink()
    assert "3 datasets done" in run("--scope", "all")
    assert "fly-LOC-2d_32_32" not in (savedir / "wing_groups.csv").read_text()
    assert "3 datasets done" in run("--scope", "all", "--orientations")
    deduplicate.main([str(patches), str(tmp_path / "fresh"), "--scope", "all", "--orientations"])
    assert results(savedir) == results(tmp_path / "fresh")


def test_orientations_need_pixels_or_their_hashes(cut, tmp_path, capsys):
    sections = str(cut / "sections")
    assert crop.main([sections, str(tmp_path / "p"), "-cs", str(CROP), "--hashes-only"]) == 0
    assert deduplicate.main([str(tmp_path / "p"), str(tmp_path / "out"), "--orientations"]) == 1
    error = capsys.readouterr().err
    assert "crop_patches.py --orientations" in error and error.count("expected patches, or their hashes") == 1
    patches = tmp_path / "files"
    shutil.copytree(cut / "files", patches)
    partly = tmp_path / "partly"  # as a run leaves it that writes exemplars only
    shutil.copytree(cut / "files", partly)
    for path in sorted(partly.glob("*.tiff"))[::2]:
        path.unlink()
    assert deduplicate.main([str(partly), str(tmp_path / "q"), "--orientations"]) == 1
    error = capsys.readouterr().err
    assert error.count("only hashed") == 1 and "no such file" not in error
    odd, broken = patches / "wing-LOC-2d_0_0.tiff", patches / "fly-LOC-2d_0_0.tiff"
    tifffile.imwrite(odd, make_texture((1, CROP, CROP), seed=99)[0], photometric="minisblack")
    broken.write_bytes(b"")
    assert deduplicate.main([str(patches), str(tmp_path / "o"), "--orientations"]) == 1
    error = capsys.readouterr().err
    assert f"{odd}: expected pixels with the hash noted" in error and str(broken) in error
    groups = read_groups(tmp_path / "o")
    assert len(groups) == 25 and not {odd.stem, broken.stem} & groups.keys()


# --- another set ---


@pytest.fixture
def other(tmp_path):
    """A benchmark: a tile as it is, a larger image with a place of one, a turned tile, noise, a mask, and a text."""
    images = make_images()
    benchmark = tmp_path / "benchmark"
    (benchmark / "deep" / "er").mkdir(parents=True)
    Image.fromarray(images["fly"][32:64, :32]).save(benchmark / 'tile, "one".png')
    noise = np.random.default_rng(3).integers(0, 256, (70, 64)).astype(np.uint8)
    noise[32:64, 32:] = images["wing"][64:, :32]
    tifffile.imwrite(benchmark / "deep" / "er" / "large.tif", noise.astype(np.uint16) * 257)
    Image.fromarray(np.ascontiguousarray(np.rot90(images["zebra fish"][64:, 32:64]))).save(benchmark / "turned.png")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(benchmark / "mask.png")
    (benchmark / "README.md").write_text("what this is")
    return benchmark


def find_leaks_naively(other, turned):
    """Of each patch the nearest of all patches of the images of a set, if it is near enough."""
    others = []
    for path in sorted(other.rglob("*")):
        if path.suffix in (".png", ".tif"):
            pixels = (
                (tifffile.imread(path) >> 8).astype(np.uint8) if path.suffix == ".tif" else np.array(Image.open(path))
            )
            height, width = (max(1, round(side / CROP)) * CROP for side in pixels.shape)
            for (y, x), patch in cut_naively(pixels[:height, :width]).items():
                if len(np.unique(patch)) > 1:
                    image = Image.fromarray(patch).resize((CROP, CROP), Image.Resampling.BILINEAR)
                    others.append((path.relative_to(other).as_posix(), y, x, imagehash.dhash(image).hash))
    found = {}
    for patch, hashes in seen_patches().items():
        hashes = hashes if turned else hashes[:1]
        distances = [(hashes != there).sum(axis=(1, 2)).min() for *_, there in others]
        if min(distances) <= DISTANCE:
            name, y, x, _ = others[int(np.argmin(distances))]
            found[patch] = (name, str(y), str(x), str(min(distances)))
    return found


def read_leaks(savedir):
    found = {}
    for name in NAMES:
        with open(savedir / f"{name}_leaks.csv", newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["patch", "leak_of", "row", "column", "leak_distance"]
        found |= {patch: tuple(others) for patch, *others in rows[1:]}
    return found


@pytest.mark.parametrize("turned", [False, True])
def test_leaks_are_those_of_the_naive_loop(cut, tmp_path, other, capsys, turned):
    flags = ["--against", str(other), *(["--orientations"] if turned else [])]
    assert deduplicate.main([str(cut / "files"), str(tmp_path / "out"), *flags]) == 0
    said = capsys.readouterr()
    expected = find_leaks_naively(other, turned)
    found = read_leaks(tmp_path / "out")
    # Of several that are equally near the first in the order of walking counts, which is another than that of paths.
    assert {patch: leak[3] for patch, leak in found.items()} == {patch: leak[3] for patch, leak in expected.items()}
    assert found["fly-LOC-2d_32_0"] == ('tile, "one".png', "0", "0", "0")
    assert found["wing-LOC-2d_64_0"] == ("deep/er/large.tif", "32", "32", "0")
    assert (found.get("zebra fish-LOC-2d_64_32") == ("turned.png", "0", "0", "0")) == turned
    assert f"{len(expected)} leaks" in said.out and "1 blank patches" in said.out
    assert "1 files, such as README.md, are no images" in said.err
    assert (tmp_path / "out" / "leaks.png").exists()
    # What there was without is as it would be.
    plain = tmp_path / "plain"
    deduplicate.main([str(cut / "files"), str(plain), *flags[2:]])
    leaks = {name for name in results(tmp_path / "out") if "leaks" in name}
    assert differing(results(tmp_path / "out"), results(plain)) == sorted(leaks)


def test_leaks_among_patches_of_another_run(cut, tmp_path):
    """Of a benchmark's volumes, or images, cut before; and in the place where curate.py has them."""
    sections = tmp_path / "sections"
    sections.mkdir()
    for path in (cut / "sections").glob("wing*"):
        shutil.copy(path, sections / path.name.replace("wing", "test set"))
    out = tmp_path / "curated"
    assert crop.main([str(sections), str(out / "crop_patches"), "-cs", str(CROP), "--hashes-only"]) == 0
    for number, against in enumerate((out, out / "crop_patches")):
        savedir = tmp_path / f"{number}"
        assert deduplicate.main([str(cut / "tables"), str(savedir), "--against", str(against)]) == 0
        found = read_leaks(savedir)
        for y, x in cut_naively(make_images()["wing"]):
            name, *place, bits = found[f"wing-LOC-2d_{y}_{x}"]
            assert place == ["", ""] and bits == "0" and name.startswith("test set-LOC-2d_")
        assert (savedir / "leaks.png").exists()


@pytest.mark.parametrize("kind", ["dhash", "ahash"])
def test_how_patches_were_hashed_is_seen_where_nobody_noted_it(cut, tmp_path, kind, capsys):
    """As of patches that the published scripts have cut."""
    patches, against = tmp_path / "patches", tmp_path / "tiles"
    crop_flags = ["-cs", str(CROP), "-hs", "6", "--hash", kind]
    assert crop.main([str(cut / "sections"), str(patches), *crop_flags]) == 0
    shutil.rmtree(patches / ".emcurate")
    for path in patches.glob("*.parquet"):
        path.unlink()
    against.mkdir()
    Image.fromarray(make_images()["fly"]).save(against / "whole.png")
    flags = ["--against", str(against), "--orientations", "-d", "2"]
    assert deduplicate.main([str(patches), str(tmp_path / "out"), *flags]) == 0
    leaks = read_leaks(tmp_path / "out")
    for y, x in cut_naively(make_images()["fly"]):
        name, *_, bits = leaks[f"fly-LOC-2d_{y}_{x}"]
        assert (name, bits) == ("whole.png", "0")
    np.save(patches / "fly-LOC-2d_0_0.npy", np.eye(6) > 0)
    assert deduplicate.main([str(patches), str(tmp_path / "out"), *flags]) == 1
    assert "a hash of its patch" in capsys.readouterr().err


def test_a_damaged_table_of_another_set_stops_no_other(cut, tmp_path, capsys):
    against = shutil.copytree(cut / "tables", tmp_path / "tables")
    broken = against / "fly_patches.parquet"  # the first
    broken.write_bytes(broken.read_bytes()[:500])
    for _ in range(2):  # not forgotten
        assert deduplicate.main([str(cut / "files"), str(tmp_path / "out"), "--against", str(against)]) == 1
        assert str(broken) in capsys.readouterr().err
    leaks = read_leaks(tmp_path / "out")
    assert leaks["zebra fish-LOC-2d_0_0"][3] == "0" and leaks["fly-LOC-2d_32_32"][0] == "wing-LOC-2d_0_0"


def test_patches_hashed_otherwise_and_the_patches_themselves_are_no_other_set(cut, tmp_path, capsys):
    assert crop.main([str(cut / "sections"), str(tmp_path / "p"), "-cs", "48", "--hashes-only"]) == 0
    (tmp_path / "empty").mkdir()
    for against, words in (
        (tmp_path / "p", "--crop-size 48"),
        (cut / "files", "the patches themselves"),
        (tmp_path / "empty", "images or patches to compare with"),
    ):
        assert deduplicate.main([str(cut / "files"), str(tmp_path / "out"), "--against", str(against)]) == 1
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        deduplicate.main([str(cut / "files"), str(tmp_path / "out"), "--against", str(tmp_path / "nowhere")])


def test_another_set_that_changed_is_noticed_and_one_no_more_wanted_leaves_nothing(cut, tmp_path, other, capsys):
    savedir = tmp_path / "out"

    def run(*flags, status=0):
        capsys.readouterr()
        assert deduplicate.main([str(cut / "files"), str(savedir), *flags]) == status
        return capsys.readouterr()

    run()
    assert "again: made with" in run("--against", str(other)).out
    assert "3 datasets unchanged" in run("--against", str(other)).out
    before = read_leaks(savedir)
    (other / 'tile, "one".png').unlink()
    assert "3 datasets done" in run("--against", str(other)).out
    assert "fly-LOC-2d_32_0" in before and read_leaks(savedir).get("fly-LOC-2d_32_0", ("",))[0] != 'tile, "one".png'
    (other / "broken.png").write_bytes(b"\x89PNG\r\n")
    assert "broken.png" in run("--against", str(other), status=1).err
    assert "broken.png" in run("--against", str(other), status=1).err  # not forgotten
    (other / "broken.png").unlink()
    assert "3 datasets done" in run("--against", str(other)).out
    capsys.readouterr()
    assert deduplicate.main([str(cut / "files"), str(savedir), "--verify"]) == 0
    run()
    assert not [name for name in results(savedir) if "leaks" in name]


def test_leaks_are_in_the_account_and_in_the_summary(cut, tmp_path, other):
    savedir, joined = tmp_path / "out", tmp_path / "patches.parquet"
    plain = write_joined(joined, Results((cut / "files",), savedir))
    assert plain == 27 and "leak_of" not in pq.read_schema(joined).names
    deduplicate.main([str(cut / "files"), str(savedir), "--against", str(other)])
    results_of = Results((cut / "files",), savedir)
    assert {path.name for path in results_of.files()} >= {f"{name}_leaks.csv" for name in NAMES}
    assert write_joined(joined, results_of, overwrite=True) == 27
    leaks = read_leaks(savedir)
    for row in pq.read_table(joined).to_pylist():
        image, _, _, bits = leaks.get(row["patch"], (None, None, None, None))
        assert (row["leak_of"], row["leak_distance"]) == (image, None if bits is None else int(bits))
    numbers = np.zeros(len(name_bands()), int)
    for *_, bits in leaks.values():
        numbers[min(max(0, -(-int(bits) // 4) - 1), 3)] += 1
    summary = summarize(joined)
    assert sum(np.array(counts) for _, counts in summary.list_leaks()).tolist() == numbers.tolist()


@pytest.mark.parametrize("flags", [("--scope", "all", "--orientations"), ("--against", "other")])
def test_a_run_killed_at_any_moment_is_finished_with_the_same_bytes(cut, tmp_path, other, flags, monkeypatch):
    monkeypatch.setattr(ledgers, "NOTED_SECONDS", -1.0)
    monkeypatch.setattr(partials, "_is_dead", lambda match, alone: True)
    monkeypatch.setattr(outcome, "NOTED_DATASETS", 1)
    flags = [str(other) if word == "other" else word for word in flags] + ["-p", "1"]
    with killed_after(10**9) as happened:
        assert deduplicate.main([str(cut / "files"), str(tmp_path / "whole"), *flags]) == 0
    whole = tree(tmp_path / "whole")
    for moment in range(0, len(happened), max(1, len(happened) // 10)):
        savedir = tmp_path / f"{moment}"
        with killed_after(moment):
            deduplicate.main([str(cut / "files"), str(savedir), *flags])
        assert deduplicate.main([str(cut / "files"), str(savedir), *flags]) == 0
        assert not differing(tree(savedir), whole)


# --- ahead ---


@pytest.mark.parametrize("flags", [(), ("--scope", "all"), ("--orientations", "-d", "6")])
def test_a_preview_says_what_would_come_and_writes_a_picture_only(cut, tmp_path, capsys, flags):
    savedir = tmp_path / "out"
    assert deduplicate.main([str(cut / "files"), str(savedir), "-d", "3"]) == 0
    before = results(savedir)
    capsys.readouterr()
    command = [str(cut / "files"), str(savedir), "--preview", *flags]
    assert deduplicate.main(command) == 0
    text = capsys.readouterr().out
    assert differing(results(savedir), before) == ["preview.png"]
    assert deduplicate.main(command) == 0  # done
    assert capsys.readouterr().out == text
    lines = {int(line.split()[0]): line.split()[1:3] for line in text.splitlines() if line.split()[0].isdigit()}
    assert lines.keys() >= {4, 8, 12, 16}
    for distance, (duplicates, exemplars) in lines.items():
        fresh = tmp_path / f"{distance}"
        assert deduplicate.main([str(cut / "files"), str(fresh), *flags, "-d", str(distance)]) == 0
        count = len(dask.array.from_npy_stack(fresh / "deduplicated_fpaths.npz").compute())
        assert (duplicates, exemplars) == (str(27 - count), str(count))
    capsys.readouterr()
    assert deduplicate.main([str(cut / "files"), str(savedir), "-d", "3"]) == 0
    assert "3 datasets unchanged" in capsys.readouterr().out


def test_a_preview_of_what_was_only_hashed_cuts_what_it_shows_again(cut, tmp_path, capsys):
    assert deduplicate.main([str(cut / "tables"), str(tmp_path / "out"), "--preview"]) == 0
    assert "look at pairs at the border" in capsys.readouterr().out
    assert deduplicate.main([str(cut / "files"), str(tmp_path / "other"), "--preview"]) == 0
    assert (tmp_path / "out" / "preview.png").read_bytes() == (tmp_path / "other" / "preview.png").read_bytes()
    with pytest.raises(SystemExit):
        deduplicate.main([str(cut / "files"), str(tmp_path / "o"), "--preview", "--against", str(tmp_path)])


def test_real_patches_turned_are_found_by_orientations_alone(real_data, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    names = []
    for path in sorted((real_data / "images2d" / "mixed_patches").iterdir()):
        try:
            pixels = np.array(Image.open(path).convert("L"))
        except OSError:
            continue
        if pixels.shape == (224, 224):
            names.append(path.stem)
            for k in range(4):
                Image.fromarray(np.ascontiguousarray(np.rot90(pixels, k))).save(images / f"{path.stem} turned {k}.png")
    assert len(names) >= 10
    cleanup2d.main([str(images), str(tmp_path / "s")])
    crop.main([str(tmp_path / "s"), str(tmp_path / "p"), "--orientations", "--hashes-only"])
    kept = {}
    for flags in ((), ("--orientations",)):
        savedir = tmp_path / f"o{len(flags)}"
        assert deduplicate.main([str(tmp_path / "p"), str(savedir), "--scope", "all", "-d", "4", *flags]) == 0
        kept[flags] = len(dask.array.from_npy_stack(savedir / "deduplicated_fpaths.npz").compute())
    assert kept["--orientations",] == len(names)
    assert kept[()] > 3 * len(names)


def test_curate_hands_all_of_it_on(small_corpus, tmp_path, capsys, root, monkeypatch):
    curate = importlib.import_module("curate")
    out, images = tmp_path / "out", small_corpus / "images"
    command = ["--images", str(images), "--volumes", str(small_corpus / "volumes"), "--out", str(out), "-cs", "32"]
    benchmark = shutil.copytree(images, tmp_path / "benchmark")
    compared = ["--scope", "all", "--orientations", "--against", str(benchmark), "--until", "deduplicate"]
    assert curate.main([*command, "--preview", "--scope", "all"]) == 0
    assert [path.name for path in (out / "deduplicate").iterdir() if path.name != ".emcurate"] == ["preview.png"]
    assert set(pq.read_table(out / "patches.parquet")["outcome"].to_pylist()) == {"cut"}
    assert curate.main([*command, *compared]) == 1  # other hashes are wanted of what is cut already
    assert "orientations" in capsys.readouterr().err
    assert curate.main([*command, *compared, "--overwrite"]) == 0
    alone = tmp_path / "alone"
    assert deduplicate.main([str(out / "crop_patches"), str(alone), *compared[:-2]]) == 0
    names = {name for name in results(alone) if name.endswith((".csv", ".npy"))}
    assert len(names) >= 3 * 6 and all(
        (out / "deduplicate" / name).read_bytes() == (alone / name).read_bytes() for name in names
    )
    account = pq.read_table(out / "patches.parquet").to_pylist()
    # Of what shows anything at all: the right half of these images is blank.
    assert {row["leak_distance"] for row in account if row["kind"] == "2d"} == {0, None}
    assert "hash_turned" not in account[0]
    page = (out / "report.html").read_text()
    assert "<h2>Leaks</h2>" in page and "Patches that are near-duplicates of another set" in page
    assert str(benchmark) in (out / "datasheet.json").read_text()
    capsys.readouterr()
    assert curate.main([*command, *compared]) == 0
    assert "0 datasets done" in capsys.readouterr().out
    # As the README takes them out.
    readme = (root / "README.md").read_text(encoding="utf-8")
    (tmp_path / "work").symlink_to(out)
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"<!-- leaks -->\n```python\n(.*?)```", readme, re.DOTALL)[1], {})
    left = {path.stem for path in map(Path, dask.array.from_npy_stack(tmp_path / "clean_fpaths.npz").compute())}
    outcomes = {row["patch"]: row["leak_distance"] for row in account if row["outcome"] == "exemplar"}
    assert left == {patch for patch, bits in outcomes.items() if bits is None or bits > 8}
    assert 0 < len(left) < len(outcomes)
