"""Exports: every format as its own library reads it, pixel for pixel; which patches, and whose files these are."""

import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from emcurate import durability, partials
from emcurate.patches.pathlists import PathList, write_path_list
from emcurate.running import ledger as ledgers
from tests.kills import differing, killed_after, tree
from tests.textures import make_texture

cleanup2d = importlib.import_module("raw.cleanup2d")
crop_patches = importlib.import_module("raw.crop_patches")
deduplicate = importlib.import_module("deduplicated.deduplicate")
export = importlib.import_module("data_prep.export")

# Words by which the datasets library tells splits apart, and a dot and a letter that others trip over.
IMAGES = ("val", "a test set", "train.v2", "größe")
CROP = 16


@pytest.fixture(scope="module", autouse=True)
def the_disk_is_not_waited_for():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durability._Wanted, "value", False)
        yield


def main(stage, *arguments):
    return stage.main([*map(str, arguments), "-p", "1"])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Exemplars of a volume of known voxel size and of four images, patches at edges smaller."""
    work = tmp_path_factory.mktemp("work")
    (work / "volumes").mkdir()
    (work / "images").mkdir()
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 8}
    volume = make_texture((20, 41, 44))
    tifffile.imwrite(work / "volumes" / "fly.tif", volume, imagej=True, resolution=(1 / 8, 1 / 8), metadata=metadata)
    for seed, name in enumerate(IMAGES):
        Image.fromarray(make_texture((1, 64, 50), seed=seed)[0]).save(work / "images" / f"{name}.png")
    assert main(cleanup2d, work / "images", work / "sections") == 0
    assert main(crop_patches, work / "volumes", work / "patches", "--from-volumes", "-cs", CROP, "-s", 3) == 0
    assert main(crop_patches, work / "sections", work / "patches", "-cs", CROP) == 0
    assert main(deduplicate, work / "patches", work / "groups", "-d", 2) == 0
    return work


@pytest.fixture(scope="module")
def fpaths(work):
    return work / "groups" / "deduplicated_fpaths.npz"


@pytest.fixture(scope="module")
def pixels(fpaths):
    """What each listed patch is, read by another library."""
    return {Path(path).stem: tifffile.imread(path) for path in PathList(fpaths)}


def run(fpaths, outdir, *flags):
    return main(export, fpaths, outdir, *flags)


def account(outdir):
    return pd.read_parquet(outdir / "patches.parquet")


def load_imagefolder(outdir, cache):
    datasets = pytest.importorskip("datasets")
    found = {}
    for split, rows in datasets.load_dataset("imagefolder", data_dir=str(outdir), cache_dir=str(cache)).items():
        for row in rows:
            found[row["patch"]] = {"train": "train", "validation": "val"}[split], np.asarray(row["image"]), row
        assert len({row["patch"] for row in rows}) == len(rows)
    return found


def load_webdataset(outdir, cache):
    webdataset = pytest.importorskip("webdataset")
    found = {}
    for shard in sorted(outdir.glob("*.tar")):
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False).decode("l8"):
            image = sample["png" if "png" in sample else "tiff"]
            found[sample["json"]["patch"]] = shard.name.partition("-")[0], image, sample["json"]
    return found


def load_zarr(outdir, cache):
    zarr = pytest.importorskip("zarr")
    rows = account(outdir)
    arrays = {split: zarr.open(outdir / f"{split}.zarr", mode="r") for split in rows["split"].dropna().unique()}
    assert {name: array.shape[0] for name, array in arrays.items()} == rows["split"].value_counts().to_dict()
    exported = rows[rows["split"].notna()]
    return {row.patch: (row.split, arrays[row.split][int(row.row)], row._asdict()) for row in exported.itertuples()}


def load_h5(outdir, cache):
    h5py = pytest.importorskip("h5py")
    found, rows = {}, account(outdir).set_index("patch")
    for path in sorted(outdir.glob("*.h5")):
        with h5py.File(path) as file:
            for i, name in enumerate(file["patch"].asstr()):
                row = {"weight": file["weight"][i], "height": file["height"][i], "width": file["width"][i]}
                found[name] = path.name.partition("-")[0], file["images"][i], row
                assert (rows.loc[name, "row"], rows.loc[name, "file"]) == (i, str(path))
    return found


LOADERS = {"imagefolder": load_imagefolder, "webdataset": load_webdataset, "zarr": load_zarr, "h5": load_h5}
FILES = ("imagefolder", "webdataset")


@pytest.mark.parametrize("format", LOADERS)
@pytest.mark.parametrize("image", ["png", "tiff"])
def test_every_patch_comes_back_pixel_for_pixel_with_what_is_known_of_it(fpaths, pixels, tmp_path, format, image):
    if format not in FILES and image == "tiff":
        return
    flags = ["--format", format, "--image", image, "--split", "0.6", "--by", "dataset", "--shard-size", "7"]
    assert run(fpaths, tmp_path / "out", *flags) == 0
    found = LOADERS[format](tmp_path / "out", tmp_path / "cache")
    rows = account(tmp_path / "out").set_index("patch")
    assert set(found) == set(pixels) == set(rows.index[rows["outcome"] == "exported"])
    for name, (split, patch, known) in found.items():
        truth = pixels[name]
        height, width = truth.shape
        if format in FILES:
            assert np.array_equal(patch, truth)
        else:
            assert patch.shape == (CROP, CROP) and np.array_equal(patch[:height, :width], truth)
            assert patch.sum(dtype=int) == truth.sum(dtype=int)
        assert split == rows.loc[name, "split"]
        assert (known["height"], known["width"]) == (height, width)
        assert known["weight"] == pytest.approx(rows.loc[name, "weight"])
        if format in FILES:
            assert known["dataset"] == rows.loc[name, "dataset"]
            if known["dataset"] == "fly":
                assert known["pixel_size_x_nm"] == pytest.approx(8)
                assert {known["plane"], known["index"]} == {rows.loc[name, "plane"], rows.loc[name, "index"]}
    # No dataset is in both, and within a split all datasets weigh the same.
    assert (rows.groupby("dataset")["split"].nunique() <= 1).all() and rows["split"].nunique() == 2
    masses = rows.groupby(["split", "dataset"])["weight"].sum()
    for split in ("train", "val"):
        assert masses[split].to_numpy() == pytest.approx(masses[split].mean())


def test_a_torch_loader_reads_what_the_account_names(fpaths, pixels, tmp_path):
    torch = pytest.importorskip("torch")
    assert run(fpaths, tmp_path / "out", "--format", "imagefolder", "--size", CROP) == 0
    listed = (tmp_path / "out" / "train.txt").read_text().splitlines()
    files = account(tmp_path / "out").set_index("file")["patch"]

    class Patches(torch.utils.data.Dataset):
        def __len__(self):
            return len(listed)

        def __getitem__(self, i):
            return np.asarray(Image.open(listed[i])), listed[i]

    seen = {}
    for images, paths in torch.utils.data.DataLoader(Patches(), batch_size=16):
        seen |= {files[path]: image.numpy() for image, path in zip(images, paths, strict=True)}
    assert set(seen) == set(pixels)
    for name, image in seen.items():
        height, width = pixels[name].shape
        assert np.array_equal(image[:height, :width], pixels[name])


def test_relative_paths_let_an_export_be_moved(fpaths, pixels, tmp_path):
    assert run(fpaths, tmp_path / "out", "--format", "imagefolder", "--relative") == 0
    (tmp_path / "out").rename(tmp_path / "moved")
    rows = account(tmp_path / "moved")
    listed = (tmp_path / "moved" / "train.txt").read_text().splitlines()
    assert sorted(rows["file"].dropna()) == sorted(listed)
    for row in rows[rows["file"].notna()].itertuples():
        assert np.array_equal(np.asarray(Image.open(tmp_path / "moved" / row.file)), pixels[row.patch])
    assert not rows["source"].str.startswith("/").any()
    assert all((tmp_path / "moved" / source).resolve().is_file() for source in set(rows["source"]))


@pytest.mark.parametrize("fit", ["pad", "skip", "resize"])
def test_sizes_are_made_one_as_asked_for(fpaths, pixels, tmp_path, fit):
    assert run(fpaths, tmp_path / "out", "--format", "webdataset", "--size", 16, "--fit", fit) == 0
    found = load_webdataset(tmp_path / "out", None)
    odd = {name for name, patch in pixels.items() if patch.shape != (16, 16)}
    assert odd and len(odd) < len(pixels)
    assert set(found) == (set(pixels) - odd if fit == "skip" else set(pixels))
    for name, (_, patch, known) in found.items():
        height, width = pixels[name].shape
        assert patch.shape == (16, 16)
        if name not in odd:
            assert np.array_equal(patch, pixels[name])
        elif fit == "pad":
            assert np.array_equal(patch, np.pad(pixels[name], ((0, 16 - height), (0, 16 - width))))
        else:
            expected = Image.fromarray(pixels[name]).resize((16, 16), Image.Resampling.BILINEAR)
            assert np.array_equal(patch, np.asarray(expected))
            if known["dataset"] == "fly":
                assert known["pixel_size_y_nm"] == pytest.approx(8 * height / 16)
    rows = account(tmp_path / "out").set_index("patch")
    if fit == "skip":
        assert set(rows.loc[sorted(odd), "outcome"]) == {"left out"}
        assert set(rows.loc[sorted(odd), "why"]) == {"not 16 x 16 pixels"}


def test_a_size_below_that_of_patches_is_refused_or_shrinks_them(fpaths, tmp_path, capsys):
    assert run(fpaths, tmp_path / "out", "--format", "zarr", "--size", 9) == 1
    assert "--fit resize or skip" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert run(fpaths, tmp_path / "out", "--format", "zarr", "--size", 9, "--fit", "resize") == 0


def test_budgets_are_shared_and_what_is_left_out_has_a_reason(fpaths, pixels, tmp_path):
    sizes = pd.Series([name.partition("-LOC-")[0] for name in pixels]).value_counts()
    least = sizes.min()
    budget = 4 * least + 3
    assert run(fpaths, tmp_path / "even", "--format", "zarr", "--budget", budget) == 0
    rows = account(tmp_path / "even")
    drawn = rows[rows["outcome"] == "exported"]["dataset"].value_counts()
    assert drawn.sum() == budget and drawn.max() - drawn.min() <= 1
    left = rows[rows["outcome"] == "left out"]
    assert len(left) == len(pixels) - budget and set(left["why"]) == {f"beyond {budget:,} in all"}
    assert run(fpaths, tmp_path / "size", "--format", "zarr", "--budget", budget, "--balance", "size") == 0
    by_size = account(tmp_path / "size")
    shares = by_size[by_size["outcome"] == "exported"]["dataset"].value_counts() / budget
    assert abs(shares - sizes / sizes.sum()).max() <= 1 / budget
    assert run(fpaths, tmp_path / "each", "--format", "zarr", "--per-dataset", 3) == 0
    each = account(tmp_path / "each")
    assert set(each[each["outcome"] == "exported"]["dataset"].value_counts()) == {3}


# How much of an export by weight is to be of a dataset, by how many patches it has.
BALANCES = {"even": lambda size: 1, "sqrt": lambda size: size**0.5, "size": lambda size: size}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A list of images in four directories, each with one of another size; and how many besides these each has."""
    root = tmp_path_factory.mktemp("uneven")
    sizes = {"a": 2, "b": 9, "c": 25, "d": 64}
    for name, size in sizes.items():
        (root / name).mkdir()
        for number in range(size + 1):
            Image.new("L", (4, 4) if number else (5, 4)).save(root / name / f"{name} {number}.png")
    write_path_list(root / "list.npz", sorted(map(str, root.glob("?/*.png"))))
    return root / "list.npz", sizes


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize(
    "flags",
    [(), ("--budget", 3), ("--budget", 40), ("--per-dataset", 7), ("--per-dataset", 7, "--budget", 20)],
)
@pytest.mark.parametrize("split", [(), ("--split", 0.6)])
def test_by_weight_datasets_come_up_by_their_sizes_however_many_were_drawn(uneven, tmp_path, balance, flags, split):
    fpaths, sizes = uneven
    words = ("--format", "zarr", "--size", 4, "--fit", "skip", "--balance", balance)
    assert run(fpaths, tmp_path / "out", *words, *flags, *split) == 0
    rows = account(tmp_path / "out")
    for _, exported in rows[rows["outcome"] == "exported"].groupby("split"):
        mass = exported.groupby("dataset")["weight"].sum() / exported["weight"].sum()
        wanted = {name: BALANCES[balance](sizes[name]) for name in set(exported["dataset"])}
        assert mass.to_dict() == pytest.approx({name: n / sum(wanted.values()) for name, n in wanted.items()})
        assert (exported.groupby("dataset")["weight"].nunique() == 1).all()
        assert exported["weight"].mean() == pytest.approx(1)


def test_shards_are_read_as_files_are(work, fpaths, tmp_path):
    words = ["--from-volumes", "-cs", CROP, "-s", 3, "--only", fpaths, "--store", "tar", "--shard-size", 20]
    patches = tmp_path / "patches"
    assert main(crop_patches, work / "volumes", patches, *words) == 0
    names = [Path(path).name for path in PathList(fpaths) if "/fly-LOC" in path]
    table = pd.read_parquet(patches / "fly_patches.parquet").set_index("patch")
    members = [patches / table.loc[name.removesuffix(".tiff"), "shard"] / name for name in names]
    write_path_list(tmp_path / "shards.npz", map(str, members))
    write_path_list(tmp_path / "files.npz", [str(work / "patches" / name) for name in names])
    for name in ("shards", "files"):
        assert run(tmp_path / f"{name}.npz", tmp_path / name, "--format", "webdataset") == 0
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / n).glob("*.tar")} for n in ("shards", "files"))
    assert first and not differing(first, second)


def test_lists_of_any_images_can_be_exported(tmp_path):
    random = np.random.default_rng(0)
    images = {}
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            image = random.integers(0, 256, (20, 30)).astype(np.uint8)
            path = tmp_path / folder / f"{folder} {number}.png"
            Image.fromarray(image).save(path)
            images[path.stem] = image
    write_path_list(tmp_path / "list.npz", sorted(map(str, tmp_path.glob("?/*.png"))))
    assert run(tmp_path / "list.npz", tmp_path / "out", "--format", "webdataset", "--split", "0.5") == 0
    found = load_webdataset(tmp_path / "out", None)
    assert {name: known["dataset"] for name, (*_, known) in found.items()} == {name: name[0] for name in images}
    assert all(np.array_equal(patch, images[name]) for name, (_, patch, _) in found.items())
    assert set(account(tmp_path / "out")["outcome"]) == {"exported"}


def test_what_cannot_be_read_is_named_and_left_out_and_the_rest_goes_on(work, fpaths, tmp_path, capsys):
    patches = tmp_path / "patches"
    shutil.copytree(work / "patches", patches)
    paths = [path.replace(str(work / "patches"), str(patches)) for path in PathList(fpaths)]
    Path(paths[0]).unlink()
    with open(paths[1], "r+b") as file:
        file.truncate(200)
    write_path_list(tmp_path / "list.npz", [*paths, paths[2]])  # listed twice, exported once
    assert run(tmp_path / "list.npz", tmp_path / "out", "--format", "h5") == 1
    error = capsys.readouterr().err
    assert paths[0] in error and paths[1] in error and "Traceback" not in error
    rows = account(tmp_path / "out").set_index("patch")
    names = [Path(path).stem for path in paths]
    assert rows.loc[names[:2], "outcome"].tolist() == ["unreadable"] * 2
    assert rows.loc[names[2:], "outcome"].tolist() == ["exported"] * (len(names) - 2)
    assert len(load_h5(tmp_path / "out", None)) == len(names) - 2


def test_moved_patches_stop_it_before_anything_is_written_and_reroot_finds_them(work, fpaths, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(work, moved)
    write_path_list(tmp_path / "list.npz", [path.replace(str(work), "/old/place") for path in PathList(fpaths)])
    assert run(tmp_path / "list.npz", tmp_path / "out", "--format", "h5") == 1
    assert "--reroot OLD NEW" in capsys.readouterr().err and not (tmp_path / "out").exists()
    flags = ["--format", "h5", "--reroot", "/old/place", moved]
    assert run(tmp_path / "list.npz", tmp_path / "out", *flags) == 0


def test_two_patches_of_one_name_are_refused(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / folder / "1.png")
    write_path_list(tmp_path / "list.npz", [str(tmp_path / "a" / "1.png"), str(tmp_path / "b" / "1.png")])
    assert run(tmp_path / "list.npz", tmp_path / "out", "--format", "h5") == 1
    assert "of one name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--format", "imagefolder", "--fit", "pad"],
        ["--format", "h5", "--by", "dataset"],
        ["--format", "h5", "--split", "1"],
        ["--format", "csv"],
        ["--format", "h5", "--budget", "0"],
        [],
    ],
)
def test_wrong_arguments_end_with_usage(fpaths, tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as caught:
        run(fpaths, tmp_path / "out", *flags)
    assert caught.value.code == 2 and "usage: export.py" in capsys.readouterr().err


def test_one_dataset_cannot_be_split(work, fpaths, tmp_path, capsys):
    write_path_list(tmp_path / "list.npz", [path for path in PathList(fpaths) if "/fly-LOC" in path])
    assert run(tmp_path / "list.npz", tmp_path / "out", "--format", "h5", "--split", "0.9") == 1
    assert "two datasets at least" in capsys.readouterr().err


# Each way made of another, and of another list; what was made of the one must not be left beside the other.
WAYS = {
    "imagefolder": ["--format", "imagefolder", "--shard-size", "20"],
    "split": ["--format", "imagefolder", "--shard-size", "20", "--split", "0.5"],
    "webdataset": ["--format", "webdataset", "--shard-size", "20"],
    "zarr": ["--format", "zarr", "--shard-size", "20"],
    "h5": ["--format", "h5", "--shard-size", "20"],
    "fewer": ["--format", "imagefolder", "--shard-size", "20", "--budget", "15"],
}


def test_another_way_is_refused_or_with_overwrite_becomes_that_of_a_fresh_run(fpaths, tmp_path):
    fresh = {}
    out = tmp_path / "out"
    for name, flags in WAYS.items():
        assert run(fpaths, out, *flags) == 0
        fresh[name] = tree(out)
        assert run(fpaths, out, *flags) == 0
        assert not differing(tree(out), fresh[name])
        shutil.rmtree(out)
    now = "imagefolder"
    assert run(fpaths, out, *WAYS[now]) == 0
    for later in ("split", "zarr", "fewer", "h5", "webdataset"):
        assert run(fpaths, out, *WAYS[later]) == 1
        assert not differing(tree(out), fresh[now])
        assert run(fpaths, out, *WAYS[later], "--overwrite") == 0
        assert not differing(tree(out), fresh[later])
        now = later


def test_a_shorter_or_longer_list_is_refused_or_replaces_all(fpaths, tmp_path, capsys):
    paths, out = list(PathList(fpaths)), tmp_path / "out"
    lists = {"all": paths, "fewer": paths[:40], "others": paths[5:]}
    fresh = {}
    for name, some in lists.items():
        write_path_list(tmp_path / "list.npz", some)
        assert run(tmp_path / "list.npz", out, *WAYS["imagefolder"]) == 0
        fresh[name] = tree(out)
        shutil.rmtree(out)
    write_path_list(tmp_path / "list.npz", lists["all"])
    assert run(tmp_path / "list.npz", out, *WAYS["imagefolder"]) == 0
    now = "all"
    for later in ("fewer", "others", "all"):
        write_path_list(tmp_path / "list.npz", lists[later])
        capsys.readouterr()
        assert run(tmp_path / "list.npz", out, *WAYS["imagefolder"]) == 1
        said = capsys.readouterr()
        assert "--overwrite" in said.err
        assert "0 pieces written" in said.out and "patches in train" not in said.out and "left out" not in said.out
        assert not differing(tree(out), fresh[now])
        assert run(tmp_path / "list.npz", out, *WAYS["imagefolder"], "--overwrite") == 0
        assert f"{len(lists[later])} patches in train, 0 patches left out" in capsys.readouterr().out
        assert not differing(tree(out), fresh[later])
        now = later
    # The same patches by another list are another one's: its name is in the table.
    write_path_list(tmp_path / "other.npz", lists["fewer"])
    assert run(tmp_path / "other.npz", out, *WAYS["imagefolder"]) == 1
    assert run(tmp_path / "other.npz", out, *WAYS["imagefolder"], "--overwrite") == 0


@pytest.mark.parametrize("name", ["imagefolder", "webdataset", "zarr", "h5"])
def test_a_killed_run_is_finished_by_the_next_with_the_same_bytes(fpaths, tmp_path, monkeypatch, name):
    monkeypatch.setattr(ledgers, "NOTED_SECONDS", -1.0)
    monkeypatch.setattr(partials, "_is_dead", lambda match, alone: True)
    out = tmp_path / "out"
    flags = [*WAYS[name], "--budget", "50"]
    with killed_after(np.inf) as changes:
        assert run(fpaths, out, *flags) == 0
    whole = tree(out)
    moments = np.linspace(1, len(changes) - 1, 7).astype(int)
    for moment in moments:
        shutil.rmtree(out)
        with killed_after(moment):
            run(fpaths, out, *flags)
        # A Zarr array is not to be seen before it is whole: what is missing of it reads as zeros.
        assert not (out / "train.zarr" / "zarr.json").exists() or len(list(out.glob("train.zarr/c/*/0/0"))) == 3
        assert run(fpaths, out, *flags) == 0
        assert not differing(tree(out), whole)


def test_a_users_own_files_are_not_replaced(fpaths, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "train" / "00000").mkdir(parents=True)
    mine = [out / "train" / "00000" / "00000000.png", out / "train.txt", out / "patches.parquet"]
    for path in mine:
        path.write_text("mine")
        assert run(fpaths, out, *WAYS["imagefolder"]) == 1
        assert all(other.read_text() == "mine" for other in mine if other.exists() and other.stat().st_size == 4)
        assert path.read_text() == "mine"
        assert str(path) in capsys.readouterr().err
        shutil.rmtree(out)
        (out / "train" / "00000").mkdir(parents=True)


def test_damage_is_noticed_and_mended(fpaths, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(fpaths, out, *WAYS["zarr"]) == 0
    whole = tree(out)
    path = out / "train.zarr" / "c" / "1" / "0" / "0"
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(time, time))
    assert main(export, fpaths, out, "--format", "zarr", "--verify") == 1
    assert str(path) in capsys.readouterr().err
    assert run(fpaths, out, *WAYS["zarr"]) == 0
    assert not differing(tree(out), whole)


def test_any_number_of_processes_gives_the_same_bytes(fpaths, tmp_path):
    for format in ("imagefolder", "h5"):
        words = ["--format", format, "--shard-size", 20, "--relative"]
        for processes in ("1", "2"):
            argv = [str(fpaths), str(tmp_path / "out"), *map(str, words), "-p", processes]
            assert export.main(argv) == 0
            (tmp_path / "out").rename(tmp_path / processes)
        assert not differing(tree(tmp_path / "1"), tree(tmp_path / "2"))
        for processes in ("1", "2"):
            shutil.rmtree(tmp_path / processes)


def test_an_export_among_inputs_is_never_taken_for_input(work, fpaths, tmp_path, capsys):
    images = tmp_path / "images"
    shutil.copytree(work / "images", images)
    assert run(fpaths, images / "out", *WAYS["imagefolder"]) == 0
    assert main(cleanup2d, images, tmp_path / "sections") == 0
    assert "results of export" in capsys.readouterr().out
    assert len(list((tmp_path / "sections").glob("*.tiff"))) == len(IMAGES)
