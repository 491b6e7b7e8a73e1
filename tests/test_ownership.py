"""Whose files are these, as a user meets it: results among inputs, other flags, changed and gone inputs, damage, names.

Every directory is compared with that of a fresh run, results only, the ledgers apart.
"""

import importlib
import os
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

import curate
from emcurate.patches.pathlists import write_path_list
from tests.textures import make_texture

vid2stack = importlib.import_module("preprocess.vid2stack")
mrc2byte = importlib.import_module("preprocess.mrc2byte")
cleanup2d = importlib.import_module("raw.cleanup2d")
cross_section3d = importlib.import_module("raw.cross_section3d")
crop_patches = importlib.import_module("raw.crop_patches")
deduplicate = importlib.import_module("deduplicated.deduplicate")
reconstruct3d = importlib.import_module("3d.reconstruct3d")


def tree(directory):
    """The bytes of every result below a directory; of the pickled `info` of a path list only that it is there."""
    return {
        path.relative_to(directory).as_posix(): "" if path.name == "info" else path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".emcurate" not in path.parts
    }


def main(stage, *arguments):
    return stage.main([*map(str, arguments), "-p", "1"])


def write_volume(path, array, voxel_size_nm=(10, 10, 10)):
    z, y, x = voxel_size_nm
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": z}
    tifffile.imwrite(path, array, imagej=True, resolution=(1 / x, 1 / y), metadata=metadata)


class Work:
    """A directory of volumes, and the four exact stages run on it into directories of one parent."""

    def __init__(self, root, volumes):
        self.root, self.volumes = root, volumes

    def run(self, *flags, cutting=(), cropping=()):
        status = main(cross_section3d, self.volumes, self.root / "sections", *cutting, *flags)
        status |= main(crop_patches, self.root / "sections", self.root / "patches", "-cs", 16, *cropping, *flags)
        return status | main(deduplicate, self.root / "patches", self.root / "exemplars", "-d", 4, *flags)


@pytest.fixture
def volumes(tmp_path):
    directory = tmp_path / "volumes"
    directory.mkdir()
    write_volume(directory / "fly.tif", make_texture((24, 40, 48)))
    return directory


@pytest.fixture
def work(tmp_path, volumes):
    (tmp_path / "work").mkdir()
    return Work(tmp_path / "work", volumes)


def fresh_run(work, tmp_path, **flags):
    """Move what is there away and run everything anew in its place, so that the paths in lists are the same."""
    made = work.root.rename(tmp_path / "made")
    work.root.mkdir()
    assert work.run(**flags) == 0
    fresh = tree(work.root)
    shutil.rmtree(work.root)
    made.rename(work.root)
    return fresh


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("-s", 1), ("-s", 10)),
        ((), ("--voxel-size", 40, 4, 4)),
        ((), ("-a", 0)),
        (("--anisotropy", 0.1, "--voxel-size", 12, 10, 10), ("--anisotropy", 0.3, "--voxel-size", 12, 10, 10)),
    ],
    ids=["spacing", "voxel size", "axes", "anisotropy"],
)
def test_after_overwriting_all_directories_equal_those_of_a_fresh_run(work, tmp_path, capsys, before, after):
    assert work.run(cutting=before) == 0
    kept = tree(work.root)
    assert main(cross_section3d, work.volumes, work.root / "sections", *after) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert tree(work.root) == kept
    assert work.run("--overwrite", cutting=after) == 0
    assert tree(work.root) == fresh_run(work, tmp_path, cutting=after)


def test_without_overwriting_the_stages_behind_refuse_what_is_not_theirs_any_more(work, capsys):
    assert work.run() == 0
    patches = tree(work.root / "patches")
    assert main(cross_section3d, work.volumes, work.root / "sections", "-s", 10, "--overwrite") == 0
    assert main(crop_patches, work.root / "sections", work.root / "patches", "-cs", 16) == 1
    assert "parts of it that are gone" in capsys.readouterr().err
    assert tree(work.root / "patches") == patches


def test_two_crop_sizes_never_share_a_directory(work, tmp_path, capsys):
    assert work.run() == 0
    write_volume(work.volumes / "wing.tif", make_texture((8, 32, 32)))
    assert main(cross_section3d, work.volumes, work.root / "sections") == 0
    assert main(crop_patches, work.root / "sections", work.root / "patches", "-cs", 20) == 1
    error = capsys.readouterr().err
    assert "crop_size 20" in error and "crop_size 16" in error
    assert not list((work.root / "patches").glob("wing*"))
    assert work.run("--overwrite", cropping=("-cs", 20)) == 0
    assert tree(work.root) == fresh_run(work, tmp_path, cropping=("-cs", 20))


@pytest.mark.parametrize("change", ["more slices", "fewer slices", "appended", "swapped names"])
def test_a_changed_volume_is_refused_or_replaced_whole(work, tmp_path, capsys, change):
    slices = work.volumes / "stack"
    slices.mkdir()
    planes = make_texture((11, 32, 32))
    for index, plane in enumerate(planes[:9]):
        Image.fromarray(plane).save(slices / f"{index}.png")
    if change == "fewer slices":
        Image.fromarray(planes[9]).save(slices / "9.png")
    assert work.run() == 0
    if change == "more slices":
        Image.fromarray(planes[10]).save(slices / "10.png")
    elif change == "fewer slices":
        (slices / "9.png").unlink()
    elif change == "swapped names":
        (slices / "1.png").rename(tmp_path / "1.png")
        (slices / "2.png").rename(slices / "1.png")
        (tmp_path / "1.png").rename(slices / "2.png")
    else:
        write_volume(work.volumes / "fly.tif", make_texture((30, 40, 48)))
    kept = tree(work.root / "sections")
    assert main(cross_section3d, work.volumes, work.root / "sections") == 1
    assert "its input has changed" in capsys.readouterr().err
    assert tree(work.root / "sections") == kept
    assert work.run("--overwrite") == 0
    assert tree(work.root) == fresh_run(work, tmp_path)


def test_what_came_of_a_gone_volume_is_named_and_pruned_in_every_stage(work, tmp_path, capsys):
    write_volume(work.volumes / "wing.tif", make_texture((8, 32, 32)))
    assert work.run() == 0
    (work.volumes / "wing.tif").unlink()
    capsys.readouterr()
    assert work.run() == 0
    assert "what wing came of is gone" in capsys.readouterr().err
    assert list((work.root / "sections").glob("wing*"))
    assert work.run("--prune") == 0
    assert tree(work.root) == fresh_run(work, tmp_path)
    assert not [path for path in work.root.rglob("*") if path.name.startswith("wing")]


@pytest.mark.parametrize("directory", ["sections", "patches", "exemplars"])
@pytest.mark.parametrize("damage", ["deleted", "emptied", "halved", "flipped"])
def test_a_damaged_result_is_made_again_and_stages_behind_need_nothing(work, directory, damage):
    assert work.run() == 0
    whole = tree(work.root)
    for victim in [path for path in sorted((work.root / directory).rglob("*.*")) if path.is_file()][::7]:
        if ".emcurate" in victim.parts or victim.name == "info":
            continue
        data = victim.read_bytes()
        if damage == "deleted":
            victim.unlink()
        else:
            flipped = data[:-1] + bytes([data[-1] ^ 1])
            victim.write_bytes({"emptied": b"", "halved": data[: len(data) // 2], "flipped": flipped}[damage])
    assert work.run() == 0
    assert tree(work.root) == whole


def test_verify_compares_contents_and_says_which_differ(work, capsys):
    assert work.run() == 0
    directories = {cross_section3d: "sections", crop_patches: "patches", deduplicate: "exemplars"}
    sources = {cross_section3d: work.volumes, crop_patches: work.root / "sections", deduplicate: work.root / "patches"}
    for stage, directory in directories.items():
        assert main(stage, sources[stage], work.root / directory, "--verify") == 0
    victim = sorted((work.root / "patches").glob("*.tiff"))[3]
    stat, data = victim.stat(), bytearray(victim.read_bytes())
    data[-5] ^= 255
    victim.write_bytes(data)
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    capsys.readouterr()
    assert main(crop_patches, work.root / "sections", work.root / "patches", "--verify") == 1
    assert victim.name in capsys.readouterr().err
    assert work.run() == 0
    assert main(crop_patches, work.root / "sections", work.root / "patches", "--verify") == 0


def test_curating_into_the_directory_of_the_inputs_takes_no_result_for_an_input(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    write_volume(data / "fly.tif", make_texture((20, 40, 48)))
    (data / "grids").mkdir()
    for index in range(3):
        Image.fromarray(make_texture((1, 40, 40))[0]).save(data / "grids" / f"m{index}.png")
    arguments = ["--volumes", data, "--out", data, "--crop-size", 16, "--until", "deduplicate", "--spacing", 4]
    assert curate.main([*map(str, arguments), "-p", "1"]) == 0
    first = tree(data)
    for _ in range(2):
        assert curate.main([*map(str, arguments), "-p", "1"]) == 0
        assert tree(data) == first
    out = capsys.readouterr().out
    assert "results of crop_patches: crop_patches" in out
    # Nor do 2D images: neither sections nor the pictures of groups.
    (data / "fly.tif").unlink()
    assert main(cleanup2d, data, tmp_path / "images") == 0
    assert sorted(tree(tmp_path / "images")) == [f"grids-LOC-2d-m{index}.tiff" for index in range(3)]


def test_a_directory_of_results_alone_is_no_input(work, capsys):
    assert work.run() == 0
    capsys.readouterr()
    assert main(cleanup2d, work.root / "sections", work.root / "again") == 1
    assert "expected images" in capsys.readouterr().err
    assert main(cleanup2d, work.root, work.root / "again") == 1
    assert not (work.root / "again").exists()


def test_copied_results_are_no_volume(work, tmp_path, capsys):
    assert work.run() == 0
    shutil.copytree(work.root / "patches", work.volumes / "old", ignore=shutil.ignore_patterns(".emcurate"))
    assert main(cross_section3d, work.volumes, work.root / "sections") == 1
    assert f"{work.volumes / 'old'}: expected slices of a volume" in capsys.readouterr().err


def test_videos_made_into_volumes_beside_them_are_volumes_and_not_made_again(small_corpus, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(small_corpus / "videos", videos)
    assert main(vid2stack, videos) == 0
    assert main(cross_section3d, videos, tmp_path / "sections", "-a", 0) == 0
    assert len(tree(tmp_path / "sections")) == 6


@pytest.mark.parametrize("first", ["image", "volume"])
def test_an_image_and_a_volume_of_one_name_do_not_share_sections_or_patches(tmp_path, capsys, first):
    for kind in ("images", "volumes"):
        (tmp_path / kind).mkdir()
    Image.fromarray(make_texture((1, 40, 40))[0]).save(tmp_path / "images" / "a.png")
    write_volume(tmp_path / "volumes" / "a.tif", make_texture((4, 40, 40)))
    cut = {
        "image": lambda out: main(cleanup2d, tmp_path / "images", out),
        "volume": lambda out: main(cross_section3d, tmp_path / "volumes", out),
    }
    second = "volume" if first == "image" else "image"
    shared = tmp_path / "shared"
    assert cut[first](shared) == 0
    kept = tree(shared)
    assert cut[second](shared) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "images" / "a.png") in error and str(tmp_path / "volumes" / "a.tif") in error
    assert tree(shared) == kept
    assert cut[second](tmp_path / "apart") == 0
    assert main(crop_patches, shared, tmp_path / "patches", "-cs", 16) == 0
    kept = tree(tmp_path / "patches")
    assert main(crop_patches, tmp_path / "apart", tmp_path / "patches", "-cs", 16) == 1
    assert "a dataset name of its own" in capsys.readouterr().err
    assert tree(tmp_path / "patches") == kept


def test_images_of_one_name_from_two_directories_do_not_share_a_section(tmp_path, capsys):
    for name in "AB":
        (tmp_path / name).mkdir()
        Image.fromarray(make_texture((1, 40, 40), seed=ord(name))[0]).save(tmp_path / name / "img.png")
    assert main(cleanup2d, tmp_path / "A", tmp_path / "out") == 0
    kept = tree(tmp_path / "out")
    assert main(cleanup2d, tmp_path / "B", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "A" / "img.png") in error and str(tmp_path / "B" / "img.png") in error
    assert main(cleanup2d, tmp_path / "B", tmp_path / "out", "--overwrite") == 1
    assert tree(tmp_path / "out") == kept


def test_names_that_differ_only_in_case_are_refused(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for name in ("Cell.png", "cell.png"):
        Image.fromarray(make_texture((1, 40, 40))[0]).save(tmp_path / "images" / name)
    assert main(cleanup2d, tmp_path / "images", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert all(str(tmp_path / "images" / name) in error for name in ("Cell.png", "cell.png"))
    assert not tree(tmp_path / "out")


def test_a_video_and_a_volume_of_one_name_do_not_share_sections(small_corpus, tmp_path, capsys):
    (tmp_path / "volumes").mkdir()
    write_volume(tmp_path / "volumes" / "film.tif", make_texture((5, 40, 40)))
    assert main(vid2stack, small_corpus / "videos", "-o", tmp_path / "stacks") == 0
    assert main(cross_section3d, tmp_path / "volumes", tmp_path / "sections") == 0
    assert main(cross_section3d, tmp_path / "stacks", tmp_path / "sections", "-a", 0) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "stacks" / "film.tif") in error and str(tmp_path / "volumes" / "film.tif") in error


def test_boxes_of_other_patches_are_not_kept(work, tmp_path, capsys):
    def run(*flags):
        write_path_list(tmp_path / "filtered.npz", sorted((work.root / "patches").glob("*.tiff")))
        return main(reconstruct3d, tmp_path / "filtered.npz", work.volumes, work.root / "boxes", "-nz", 12, *flags)

    assert work.run() == 0
    assert run() == 0
    assert run("-nz", 10) == 1
    kept = tree(work.root / "boxes")
    assert work.run("--overwrite", cropping=("-cs", 20)) == 0
    assert run() == 1
    assert "its patches in" in capsys.readouterr().err
    assert tree(work.root / "boxes") == kept
    assert run("--overwrite") == 0
    made = tree(work.root / "boxes")
    shutil.rmtree(work.root / "boxes")
    assert run() == 0
    assert tree(work.root / "boxes") == made


def forget_tables(work):
    """Leave hashes in files only, as another program would write them."""
    for path in (work.root / "patches").glob("*_patches.parquet"):
        path.unlink()


def test_a_mended_hash_renews_its_dataset_by_itself(work, capsys):
    assert work.run() == 0
    forget_tables(work)
    assert main(deduplicate, work.root / "patches", work.root / "exemplars", "-d", 4) == 0
    whole = tree(work.root / "exemplars")
    victim = sorted((work.root / "patches").glob("*.npy"))[5]
    data = victim.read_bytes()
    victim.write_bytes(data[:40])
    capsys.readouterr()
    assert main(deduplicate, work.root / "patches", work.root / "exemplars", "-d", 4) == 1
    error = capsys.readouterr().err
    assert error.count(victim.name) == 1
    assert victim.stem not in (work.root / "exemplars" / "fly_groups.csv").read_text()
    victim.write_bytes(data)
    assert main(deduplicate, work.root / "patches", work.root / "exemplars", "-d", 4) == 0
    assert tree(work.root / "exemplars") == whole


def test_a_dangling_link_and_an_unreadable_hash_cost_themselves(work, capsys):
    assert work.run() == 0
    forget_tables(work)
    first, second = sorted((work.root / "patches").glob("*.npy"))[3:5]
    first.unlink()
    first.symlink_to(work.root / "nowhere")
    second.unlink()
    second.mkdir()
    capsys.readouterr()
    assert main(deduplicate, work.root / "patches", work.root / "exemplars", "-d", 4) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert first.name in captured.err and second.name in captured.err
    table = (work.root / "exemplars" / "fly_groups.csv").read_text()
    rows = len(list((work.root / "patches").glob("*.tiff"))) - 2
    assert len(table.splitlines()) == rows + 1


def test_a_dangling_link_and_a_name_that_is_no_text_cost_themselves(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(make_texture((1, 40, 40))[0]).save(images / "good.png")
    (images / "gone.png").symlink_to(tmp_path / "nowhere")
    try:
        shutil.copy(images / "good.png", Path(os.fsdecode(os.fsencode(images) + b"/caf\xe9.png")))
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    assert main(cleanup2d, images, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "a link that leads nowhere" in error
    assert "expected a name in UTF-8" in error
    assert list(tree(tmp_path / "out")) == ["good-LOC-2d.tiff"]


@pytest.mark.parametrize("name", ["a-LOC-b", "a-LOC"])
def test_names_that_would_be_ambiguous_are_refused_by_the_first_stage(tmp_path, capsys, name):
    for kind in ("images", "volumes"):
        (tmp_path / kind).mkdir()
    Image.fromarray(make_texture((1, 40, 40))[0]).save(tmp_path / "images" / f"{name}.png")
    write_volume(tmp_path / "volumes" / f"{name}.tif", make_texture((4, 40, 40)))
    assert main(cleanup2d, tmp_path / "images", tmp_path / "out") == 1
    assert main(cross_section3d, tmp_path / "volumes", tmp_path / "out") == 1
    assert capsys.readouterr().err.count("expected a name without '-LOC-'") == 2


def test_mrc_bytes_written_elsewhere_are_known_for_what_they_are(tmp_path, capsys):
    source, out = tmp_path / "mrc", tmp_path / "bytes"
    source.mkdir()
    with mrcfile.new(source / "a.mrc") as file:
        file.set_data(np.arange(-60, 60, dtype=np.int8).reshape(4, 5, 6))
    assert main(mrc2byte, source, "-o", out) == 0
    made = tree(out)
    (out / "a.mrc").write_bytes(made["a.mrc"][:-9])
    assert main(mrc2byte, source, "-o", out) == 0
    assert tree(out) == made
    (source / "a.mrc").unlink()
    with mrcfile.new(source / "b.mrc") as file:
        file.set_data(np.arange(-60, 60, dtype=np.int8).reshape(4, 5, 6))
    assert main(mrc2byte, source, "-o", out, "--prune") == 0
    assert list(tree(out)) == ["b.mrc"]


def save_image(path, seed=0):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(make_texture((1, 40, 40), seed=seed)[0]).save(path)


def test_what_lay_in_the_directory_before_is_never_replaced_however_often_one_runs(tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    save_image(images / "a.png")
    assert main(cleanup2d, images, out) == 0
    save_image(images / "b.png", 1)
    mine = {"b-LOC-2d.tiff": b"mine", "b-LOC-2d.txt": b"notes", "b-LOC-2d/rois.zip": b"rois"}
    for name, data in mine.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(data)
    for _ in range(3):
        assert main(cleanup2d, images, out) == 1
        assert {name: (out / name).read_bytes() for name in mine} == mine
    assert main(cleanup2d, images, out, "--overwrite") == 0
    assert (out / "b-LOC-2d.tiff").read_bytes() != b"mine"
    assert (out / "b-LOC-2d.txt").read_bytes() == b"notes" and (out / "b-LOC-2d/rois.zip").read_bytes() == b"rois"


def test_pictures_and_lists_of_users_are_not_replaced_by_deduplicate(work, capsys):
    assert work.run() == 0
    shutil.rmtree(work.root / "exemplars")
    mine = work.root / "exemplars"
    mine.mkdir()
    (mine / "groups.png").write_bytes(b"mine")
    write_path_list(mine / "deduplicated_fpaths.npz", ["/a/b.tiff"])
    (mine / "deduplicated_fpaths.npz" / "note.txt").write_text("mine")
    kept = tree(mine)
    for _ in range(2):
        assert main(deduplicate, work.root / "patches", mine, "-d", 4) == 1
        assert {name: data for name, data in tree(mine).items() if name in kept} == kept


def test_unsigned_bytes_are_not_written_over_the_originals_through_a_link(tmp_path, capsys):
    source = tmp_path / "mrc"
    source.mkdir()
    with mrcfile.new(source / "a.mrc") as file:
        file.set_data(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    original = (source / "a.mrc").read_bytes()
    (tmp_path / "link").symlink_to(source)
    for _ in range(2):
        assert main(mrc2byte, source, "-o", tmp_path / "link") == 1
        assert (source / "a.mrc").read_bytes() == original


@pytest.mark.parametrize("reason", ["refused for its name", "a link to a disk that is away", "unreadable group"])
def test_only_what_is_not_there_counts_as_gone(tmp_path, capsys, reason):
    images, out = tmp_path / "images", tmp_path / "out"
    save_image(images / "a.png")
    save_image(tmp_path / "disk" / "b.png", 1)
    (images / "b.png").symlink_to(tmp_path / "disk" / "b.png")
    save_image(images / "g" / "c.png", 2)
    assert main(cleanup2d, images, out) == 0
    kept = tree(out)
    if reason == "refused for its name":
        tifffile.imwrite(images / "a.tif", np.zeros((9, 9), np.uint8))
    elif reason == "a link to a disk that is away":
        (tmp_path / "disk").rename(tmp_path / "away")
    else:
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        (images / "g").chmod(0)
    assert main(cleanup2d, images, out, "--prune") == 1
    assert "is gone" not in capsys.readouterr().err
    assert tree(out) == kept


def test_results_of_other_parameters_are_not_adopted_when_they_come_back(tmp_path):
    """Two directories' results in one place; then each again, with other parameters."""
    for name in "ab":
        save_image(tmp_path / "one" / f"{name}.png", ord(name))
    tifffile.imwrite(tmp_path / "one" / "a.tif", make_texture((1, 30, 30))[0].astype(np.uint16) * 3)
    (tmp_path / "one" / "a.png").unlink()
    save_image(tmp_path / "two" / "c.png", 3)
    out = tmp_path / "out"
    assert main(cleanup2d, tmp_path / "one", out) == 0
    assert main(cleanup2d, tmp_path / "two", out, "--rescale", "minmax", "--overwrite") == 0
    assert list(tree(out)) == ["c-LOC-2d.tiff"]
    assert main(cleanup2d, tmp_path / "one", out, "--rescale", "minmax") == 0
    assert main(cleanup2d, tmp_path / "one", tmp_path / "fresh", "--rescale", "minmax") == 0
    fresh = tree(tmp_path / "fresh")
    assert {name: data for name, data in tree(out).items() if name in fresh} == fresh


def test_a_dataset_that_was_away_is_not_taken_for_done_with_another_distance(work, tmp_path):
    write_volume(work.volumes / "wing.tif", make_texture((8, 32, 32)))
    assert work.run() == 0
    patches, exemplars = work.root / "patches", work.root / "exemplars"
    away = tmp_path / "away"
    away.mkdir()
    for path in list(patches.glob("wing*")):
        path.rename(away / path.name)
    assert main(deduplicate, patches, exemplars, "-d", 2) == 0
    for path in away.iterdir():
        path.rename(patches / path.name)
    assert main(deduplicate, patches, exemplars, "-d", 2) == 0
    made = tree(exemplars)
    shutil.rmtree(exemplars)
    assert main(deduplicate, patches, exemplars, "-d", 2) == 0
    assert tree(exemplars) == made


def test_the_path_list_is_whole_again_after_a_hash_could_not_be_read(work, monkeypatch):
    assert work.run() == 0
    forget_tables(work)
    whole = work.root / "whole"
    assert main(deduplicate, work.root / "patches", whole, "-d", 4) == 0
    from emcurate.patches import datasets

    read, victim = datasets.read_hash, sorted((work.root / "patches").glob("*.npy"))[5]

    def deny(path):
        if path == victim:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    shutil.rmtree(work.root / "exemplars")
    monkeypatch.setattr(datasets, "read_hash", deny)
    assert main(deduplicate, work.root / "patches", work.root / "exemplars", "-d", 4) == 1
    monkeypatch.undo()
    assert main(deduplicate, work.root / "patches", work.root / "exemplars", "-d", 4) == 0
    assert tree(work.root / "exemplars") == tree(whole)


def test_only_one_run_at_a_time_writes_into_a_directory(work, tmp_path, root):
    import subprocess
    import sys

    assert work.run() == 0
    holder = (
        "import sys, time; from pathlib import Path; from emcurate.running.locks import hold_lock; "
        "hold_lock(Path(sys.argv[1]), Path('x')); print('held', flush=True); time.sleep(600)"
    )
    lock = work.root / "sections" / ".emcurate" / "cross_section3d.lock"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    other = subprocess.Popen([sys.executable, "-c", holder, str(lock)], stdout=subprocess.PIPE, env=environment)
    try:
        other.stdout.readline()
        command = [sys.executable, str(root / "raw" / "cross_section3d.py"), str(work.volumes)]
        command += [str(work.root / "sections"), "-s", "3", "--overwrite"]
        before = tree(work.root)
        refused = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert refused.returncode == 1
        assert "expected no other run that writes there" in refused.stderr
        assert tree(work.root) == before
    finally:
        other.kill()
        other.wait()
    # A lock does not outlive who held it.
    assert subprocess.run(command, capture_output=True, env=environment).returncode == 0


def test_a_group_is_one_owner_even_when_some_of_its_images_are_gone(tmp_path, capsys):
    save_image(tmp_path / "A" / "g" / "i1.png", 1)
    save_image(tmp_path / "A" / "g" / "i2.png", 2)
    save_image(tmp_path / "B" / "g" / "i3.png", 3)
    assert main(cleanup2d, tmp_path / "A", tmp_path / "out") == 0
    (tmp_path / "A" / "g" / "i1.png").unlink()
    assert main(cleanup2d, tmp_path / "B", tmp_path / "out") == 1
    assert "a dataset name of its own" in capsys.readouterr().err
    assert not (tmp_path / "out" / "g-LOC-2d-i3.tiff").exists()


def test_a_name_stays_taken_while_results_of_a_gone_owner_are_there(tmp_path, capsys):
    save_image(tmp_path / "images" / "a.png")
    (tmp_path / "volumes").mkdir()
    write_volume(tmp_path / "volumes" / "a.tif", make_texture((4, 40, 40)))
    out = tmp_path / "out"
    assert main(cleanup2d, tmp_path / "images", out) == 0
    (tmp_path / "images" / "a.png").unlink()
    save_image(tmp_path / "images" / "b.png", 1)
    assert main(cross_section3d, tmp_path / "volumes", out) == 1
    assert "--prune" in capsys.readouterr().err
    assert main(cleanup2d, tmp_path / "images", out, "--prune") == 0
    assert main(cross_section3d, tmp_path / "volumes", out) == 0


def test_a_name_that_moved_from_volumes_to_images_is_overwritten_as_in_a_fresh_run(tmp_path, volumes, capsys):
    save_image(tmp_path / "images" / "b.png")
    shutil.copyfile(volumes / "fly.tif", volumes / "a.tif")

    def crop(outdir):
        assert main(cleanup2d, tmp_path / "images", outdir / "sections", "--overwrite") == 0
        assert main(crop_patches, outdir / "sections", outdir / "patches", "-cs", 16, "--overwrite") == 0
        assert main(crop_patches, volumes, outdir / "patches", "-cs", 16, "--from-volumes", "--overwrite") == 0
        return tree(outdir / "patches")

    before = crop(tmp_path / "out")
    assert any(str(name).startswith("a-LOC-0") for name in before)
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "a.png")
    (volumes / "a.tif").unlink()
    after = crop(tmp_path / "out")
    assert "results removed" in capsys.readouterr().out
    assert after == crop(tmp_path / "fresh")


def test_a_stray_section_is_not_taken_into_a_new_volume(work, capsys):
    assert work.run() == 0
    write_volume(work.volumes / "wing.tif", make_texture((8, 32, 32)))
    stray = work.root / "sections" / "wing-LOC-0_99.tiff"
    stray.write_bytes(b"stray")
    assert main(cross_section3d, work.volumes, work.root / "sections") == 1
    assert str(stray) in capsys.readouterr().err
    assert main(cross_section3d, work.volumes, work.root / "sections", "--overwrite") == 0
    assert not stray.exists()


def test_an_input_directory_behind_a_link_is_the_same(tmp_path):
    save_image(tmp_path / "images" / "a.png")
    save_image(tmp_path / "images" / "b.png", 1)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert main(cleanup2d, tmp_path / "images", tmp_path / "out") == 0
    (tmp_path / "images" / "b.png").unlink()
    assert main(cleanup2d, tmp_path / "link", tmp_path / "out", "--prune") == 0
    assert list(tree(tmp_path / "out")) == ["a-LOC-2d.tiff"]


def test_pictures_drawn_by_a_stage_are_no_micrographs_wherever_they_are_copied_to(work, tmp_path, capsys):
    assert work.run() == 0
    save_image(tmp_path / "images" / "good.png")
    shutil.copy(work.root / "exemplars" / "groups.png", tmp_path / "images" / "pretty.png")
    assert main(cleanup2d, tmp_path / "images", tmp_path / "out") == 1
    assert "a picture that emcurate drew" in capsys.readouterr().err
    assert list(tree(tmp_path / "out")) == ["good-LOC-2d.tiff"]


def test_sections_of_one_name_in_two_spellings_are_refused(tmp_path, capsys):
    (tmp_path / "sections").mkdir()
    for suffix in ("tif", "tiff"):
        tifffile.imwrite(tmp_path / "sections" / f"a-LOC-2d.{suffix}", make_texture((1, 40, 40))[0])
    assert main(crop_patches, tmp_path / "sections", tmp_path / "patches", "-cs", 16) == 1
    error = capsys.readouterr().err
    assert "a-LOC-2d.tif " in error and "a-LOC-2d.tiff:" in error
    assert not tree(tmp_path / "patches")


def test_new_sections_do_not_join_refused_ones_of_a_dataset(work, capsys):
    assert main(cross_section3d, work.volumes, work.root / "sections", "-s", 4) == 0
    assert main(crop_patches, work.root / "sections", work.root / "patches", "-cs", 16) == 0
    kept = tree(work.root / "patches")
    write_volume(work.volumes / "fly.tif", make_texture((24, 40, 48), seed=5))
    assert main(cross_section3d, work.volumes, work.root / "sections", "-s", 2, "--overwrite") == 0
    assert main(crop_patches, work.root / "sections", work.root / "patches", "-cs", 16) == 1
    assert tree(work.root / "patches") == kept


def test_two_maps_of_one_stem_made_unsigned_can_be_run_again(tmp_path):
    source = tmp_path / "mrc"
    source.mkdir()
    for name in ("a.mrc", "a.map"):
        with mrcfile.new(source / name) as file:
            file.set_data(np.arange(-60, 60, dtype=np.int8).reshape(4, 5, 6))
    for _ in range(2):
        assert main(mrc2byte, source, "-o", tmp_path / "out") == 0


def test_a_copied_project_goes_on_by_itself(work, tmp_path):
    assert work.run() == 0
    shutil.copytree(work.root, tmp_path / "copy")
    copy = Work(tmp_path / "copy", work.volumes)
    assert main(crop_patches, copy.root / "sections", copy.root / "patches", "-cs", 16) == 0
    assert tree(copy.root / "patches") == tree(work.root / "patches")


def test_exemplars_of_two_patch_directories_do_not_share_a_directory(work, tmp_path, capsys):
    assert work.run() == 0
    shutil.copytree(work.root / "patches", tmp_path / "others")
    kept = tree(work.root / "exemplars")
    assert main(deduplicate, tmp_path / "others", work.root / "exemplars", "-d", 4) == 1
    assert str(work.root / "patches") in capsys.readouterr().err
    assert tree(work.root / "exemplars") == kept
    assert main(deduplicate, tmp_path / "others", work.root / "exemplars", "-d", 4, "--overwrite") == 0
    (warning,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:"))
    assert f"inputs in {work.root / 'patches'} are removed" in warning
    assert main(deduplicate, tmp_path / "others", work.root / "exemplars", "-d", 4, "--overwrite") == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(("stage", "name"), [(cleanup2d, "p.png"), (cross_section3d, "p.mrc"), (vid2stack, "p.mp4")])
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_pipes_and_links_that_lead_nowhere_are_named_and_not_waited_for(tmp_path, capsys, stage, name, kind):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    os.mkfifo(inputs / name) if kind == "pipe" else (inputs / name).symlink_to(tmp_path / "nowhere")
    out = ["-o", tmp_path / "out"] if stage is vid2stack else [tmp_path / "out"]
    assert main(stage, inputs, *out) == 1
    error = capsys.readouterr().err
    assert f"{inputs / name}: expected a file, found" in error
    assert {"pipe": "a pipe", "link": "a link that leads nowhere"}[kind] in error


def test_letters_that_some_disks_take_for_one(tmp_path, capsys):
    for name in ("straße.png", "strasse.png", "e\u0301.png", "\u00e9.png"):
        save_image(tmp_path / "images" / name)
    assert main(cleanup2d, tmp_path / "images", tmp_path / "out") == 1
    assert sorted(tree(tmp_path / "out")) == ["strasse-LOC-2d.tiff", "straße-LOC-2d.tiff"]


def test_directories_with_bytes_that_are_no_text(small_corpus, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        odd.mkdir()
    except OSError:
        pytest.skip("this disk takes UTF-8 names only")
    shutil.copytree(small_corpus / "volumes", odd / "volumes")
    work = Work(odd / "work", odd / "volumes")
    for flags in ((), ("--overwrite",), ("--prune",)):
        assert work.run(*flags, cutting=("-s", 10)) == 0
    assert list((odd / "work" / "exemplars").glob("block_exemplars.npy"))
    assert main(vid2stack, small_corpus / "videos", "-o", odd / "stacks") == 0
