"""Times that cannot be: inputs of the future or of before 1970, and a clock that jumps back between runs."""

import os
from importlib import import_module

import pytest
import tifffile
from PIL import Image

from tests.textures import make_texture

BEFORE_1970, FUTURE = -(10**9), 15 * 10**9  # seconds; 1938 and 2445
DAY = 86_400

STAGES = [
    ("raw.cleanup2d", "images", "sections"),
    ("raw.cross_section3d", "volumes", "sections"),
    ("raw.crop_patches", "sections", "patches", "-cs", "16"),
    ("deduplicated.deduplicate", "patches", "unique"),
    ("3d.reconstruct3d", "unique/deduplicated_fpaths.npz", "volumes", "boxes", "-nz", "4"),
]


def run(corpus):
    for stage, *words in STAGES:
        inputs = [str(corpus / word) if "/" in word or word.isalpha() else word for word in words]
        assert import_module(stage).main([*inputs, "-p", "1"]) == 0


def set_times(directory, seconds):
    for path in directory.rglob("*"):
        if path.is_file():
            os.utime(path, (seconds, seconds))


def mtimes(corpus):
    return {
        path: path.stat().st_mtime_ns for path in corpus.rglob("*") if path.is_file() and ".emcurate" not in str(path)
    }


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "volumes").mkdir()
    for number in range(2):
        Image.fromarray(make_texture((1, 32, 32), seed=number)[0]).save(tmp_path / "images" / f"image {number}.png")
        voxels = make_texture((8, 32, 32), seed=number)
        tifffile.imwrite(tmp_path / "volumes" / f"volume {number}.tif", voxels, photometric="minisblack")
    return tmp_path


@pytest.mark.parametrize("seconds", [BEFORE_1970, FUTURE])
def test_inputs_of_any_time_are_done_once(corpus, capsys, seconds):
    set_times(corpus, seconds)
    run(corpus)
    before = mtimes(corpus)
    capsys.readouterr()
    run(corpus)
    said = capsys.readouterr()
    assert mtimes(corpus) == before
    for words in ("0 sections written, 2 already done", "0 sections written, 2 volumes already done", "0 sections cut"):
        assert words in said.out
    assert "Failed" not in said.err


def test_an_input_that_is_older_than_its_results_is_seen_to_have_changed(corpus, capsys):
    # As if its results had been made by a clock that was put back since.
    words = [str(corpus / "images"), str(corpus / "sections"), "-p", "1"]
    stage = import_module("raw.cleanup2d")
    assert stage.main(words) == 0
    changed = corpus / "images" / "image 1.png"
    before = changed.stat().st_mtime
    Image.fromarray(make_texture((1, 32, 32), seed=7)[0]).save(changed)
    os.utime(changed, (before - DAY, before - DAY))
    capsys.readouterr()
    assert stage.main(words) == 1
    assert f"{changed}: expected the input that its results in" in capsys.readouterr().err
    assert stage.main([*words, "--overwrite"]) == 0
    assert "1 sections written, 1 already done" in capsys.readouterr().out
