"""Whatever a file is called, it is treated once, drawn, listed, and told of in one line."""

from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from emcurate.images.sections import write_section
from emcurate.patches.pathlists import write_path_list
from tests.textures import make_texture
from tests.torture import children
from tests.torture.odd_entries import odd_names

ENDS_OF_LINES = ["\u2028", "\u0085", "\u2029", "\x1c", "\r", "\n", "\r\n", "\x0b", "\x0c"]


def run(stage, *words):
    return import_module(stage).main([*map(str, words), "-p", "1"])


@pytest.fixture
def corpus(tmp_path):
    """Two alike images and a volume each with an end of a line in its name, as some programs have them."""
    (tmp_path / "images").mkdir()
    (tmp_path / "volumes").mkdir()
    for number, end in enumerate(ENDS_OF_LINES):
        for letter in "ab":
            Image.fromarray(make_texture((1, 32, 32))[0]).save(tmp_path / "images" / f"{letter}{end}{number}.png")
        voxels = make_texture((4, 32, 32), seed=number)
        tifffile.imwrite(tmp_path / "volumes" / f"v{end}{number}.tif", voxels, photometric="minisblack")
    return tmp_path


def test_names_with_ends_of_lines_are_done_once(corpus, capsys):
    stages = [
        ("raw.cleanup2d", "images", "sections"),
        ("raw.cross_section3d", "volumes", "sections"),
        ("raw.crop_patches", "sections", "patches", "-cs", "32"),
        ("deduplicated.deduplicate", "patches", "unique"),
    ]
    for stage, inputs, out, *words in stages:
        assert run(stage, corpus / inputs, corpus / out, *words) == 0, capsys.readouterr().err
    assert (corpus / "unique" / "groups.png").exists()
    for path in (corpus / "unique").glob("*_groups.csv"):
        groups = pd.read_csv(path, lineterminator="\n" if "\r" in path.name else None)
        assert list(groups.columns) == ["patch", "exemplar", "distance"]
        assert set(groups["patch"]) >= set(groups["exemplar"])
    files = [path for path in corpus.rglob("*") if path.is_file() and ".emcurate" not in path.parts]
    before = {path: path.stat().st_mtime_ns for path in files}
    capsys.readouterr()
    for stage, inputs, out, *words in stages:
        assert run(stage, corpus / inputs, corpus / out, *words) == 0
    said = capsys.readouterr().out
    for words in ("0 sections written, 18 already done", "0 sections cut", "0 datasets done, 27 datasets unchanged"):
        assert words in said
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_message_is_one_line_and_steers_no_terminal(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    names = ["a\n  other: expected nothing", "b\x1b[31m\x07", "c\rd", "e\u2028f", "é", "g"]
    for name in names:
        (images / f"{name}.png").write_bytes(b"no image")
    assert run("raw.cleanup2d", images, tmp_path / "out") == 1
    failed = capsys.readouterr().err.partition("Failed:\n")[2]
    lines = failed.split("\n")[:-1]
    assert len(lines) == len(names) and all(line.startswith(f"  {images}") for line in lines)
    assert not set(failed) & set("\x1b\x07\r\u2028")
    assert "b\\x1b[31m\\x07.png: expected an image" in failed and "é.png: expected" in failed


def test_odd_names_are_done_or_named(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    names = odd_names("image", ".png")
    for name in names:
        Image.fromarray(make_texture((1, 32, 32))[0]).save(tmp_path / "image.png")
        (tmp_path / "image.png").rename(tmp_path / "images" / name)
    run("raw.cleanup2d", tmp_path / "images", tmp_path / "sections")
    failed = capsys.readouterr().err.partition("Failed:\n")[2]
    done = {path.name for path in (tmp_path / "sections").glob("*.tiff")}
    assert len(failed.splitlines()) + len(done) == len(set(names))
    assert np.mean([name.removesuffix(".png") + "-LOC-2d.tiff" in done for name in names]) > 0.6


# Directories that must not be looked into


def run_as_others_would(stage, *words):
    """Run a stage in a process that may read no more than others; return its status and what it said of failures."""
    ((_, answer),) = children.run_all([(stage, [*map(str, words), "-p", "1"])], 60)
    return answer.status, answer.err.partition("Failed:\n")[2]


@pytest.fixture
def locked(tmp_path):
    """A directory of good inputs beside two that may not be listed, or of which only the names may be seen."""
    directory = tmp_path / "in"
    for name in ("good", "unlisted", "named"):
        (directory / name).mkdir(parents=True)
        for z, plane in enumerate(make_texture((3, 32, 32))):
            Image.fromarray(plane).save(directory / name / f"{z}.png")
    (directory / "unlisted").chmod(0o000)
    (directory / "named").chmod(0o444)
    yield directory
    for name in ("unlisted", "named"):
        (directory / name).chmod(0o755)


@pytest.mark.parametrize("stage", ["raw.cleanup2d", "raw.cross_section3d"])
def test_a_directory_that_must_not_be_read_is_named_and_stops_no_other(locked, tmp_path, stage):
    status, failed = run_as_others_would(stage, locked, tmp_path / "out")
    assert status == 1
    for name in ("unlisted", "named"):
        assert f"  {locked / name}" in failed and "permission denied" in failed
    assert "please report it" not in failed and f"{locked / 'good'}" not in failed
    assert {path.name.partition("-")[0] for path in (tmp_path / "out").glob("*.tiff")} == {"good"}


def test_volumes_that_must_not_be_read_stop_no_reconstruction(locked, tmp_path):
    write_section(tmp_path / "good-LOC-0_1_0_0.tiff", make_texture((3, 32, 32))[1])
    write_path_list(tmp_path / "list.npz", [str(tmp_path / "good-LOC-0_1_0_0.tiff")])
    status, failed = run_as_others_would(
        "3d.reconstruct3d", tmp_path / "list.npz", locked, tmp_path / "out", "-nz", "3"
    )
    assert status in (0, 1) and "Traceback" not in failed
    assert len(list((tmp_path / "out").glob("good-LOC-3d-*.npy"))) == 1, failed
