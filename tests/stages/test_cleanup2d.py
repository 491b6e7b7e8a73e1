import importlib
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

cleanup2d = importlib.import_module("raw.cleanup2d")

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (30, 40)).astype(np.uint8)


@pytest.fixture
def corpus(tmp_path):
    corpus = tmp_path / "corpus"
    (corpus / "grids").mkdir(parents=True)
    Image.fromarray(GREY).save(corpus / "one ö.v2.png")
    Image.fromarray(GREY).save(corpus / "grids" / "7.JPG", quality=95)
    tifffile.imwrite(corpus / "grids" / "8.tif", GREY.astype(np.uint16) * 257)
    (corpus / "notes.txt").write_text("not an image")
    return corpus


def read_all(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_images_and_groups_become_sections(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    assert cleanup2d.main([str(corpus), str(out), "-p", "2"]) == 0
    assert sorted(read_all(out)) == ["grids-LOC-2d-7.tiff", "grids-LOC-2d-8.tiff", "one ö.v2-LOC-2d.tiff"]
    assert np.array_equal(tifffile.imread(out / "one ö.v2-LOC-2d.tiff"), GREY)
    # 257 * v of 65535 is v of 255
    assert np.array_equal(tifffile.imread(out / "grids-LOC-2d-8.tiff"), GREY)
    text = capsys.readouterr().out
    assert "3 sections written" in text
    assert "left alone, not images by their extension: 1 .txt files" in text


def test_a_second_run_does_nothing_and_says_so(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    cleanup2d.main([str(corpus), str(out)])
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    capsys.readouterr()
    assert cleanup2d.main([str(corpus), str(out)]) == 0
    assert "0 sections written, 3 already done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_an_interrupted_run_is_finished_with_the_same_bytes(corpus, tmp_path):
    whole, cut_short = tmp_path / "whole", tmp_path / "cut"
    cleanup2d.main([str(corpus), str(whole)])
    cleanup2d.main([str(corpus), str(cut_short)])
    # As a kill leaves it: a section missing, another written but not noted, a partial file of a dead process.
    (cut_short / "grids-LOC-2d-8.tiff").unlink()
    (cut_short / ".emcurate" / "cleanup2d.jsonl").unlink()
    cleanup2d.main([str(corpus), str(cut_short)])
    assert read_all(cut_short) == read_all(whole)


def test_other_parameters_need_overwrite(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    cleanup2d.main([str(corpus), str(out)])
    before = read_all(out)
    assert cleanup2d.main([str(corpus), str(out), "--rescale", "minmax"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert read_all(out) == before
    assert cleanup2d.main([str(corpus), str(out), "--rescale", "minmax", "--overwrite"]) == 0
    changed = tifffile.imread(out / "grids-LOC-2d-8.tiff")
    assert (changed.min(), changed.max()) == (0, 255)


def test_a_changed_image_is_not_written_over_its_old_section_unasked(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    cleanup2d.main([str(corpus), str(out)])
    Image.fromarray(255 - GREY).save(corpus / "one ö.v2.png")
    assert cleanup2d.main([str(corpus), str(out)]) == 1
    assert "one ö.v2.png" in capsys.readouterr().err
    assert np.array_equal(tifffile.imread(out / "one ö.v2-LOC-2d.tiff"), GREY)
    assert cleanup2d.main([str(corpus), str(out), "--overwrite"]) == 0
    assert np.array_equal(tifffile.imread(out / "one ö.v2-LOC-2d.tiff"), 255 - GREY)


def test_bad_images_are_named_and_the_others_done(corpus, tmp_path, capsys):
    (corpus / "empty.png").touch()
    (corpus / "text.tif").write_text("text")
    tifffile.imwrite(corpus / "stack.tif", np.stack([GREY] * 3), photometric="minisblack")
    out = tmp_path / "out"
    assert cleanup2d.main([str(corpus), str(out)]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.strip().splitlines()[-3:]
    for name in ("empty.png", "text.tif", "stack.tif"):
        assert any(name in line and "expected" in line and "found" in line for line in last)
    assert len(read_all(out)) == 3


@pytest.mark.parametrize("rivals", [("a.png", "a.tif"), ("a.png", "a/1.png"), ("g/1.png", "g/1.tif")])
def test_two_inputs_of_one_name_are_refused(tmp_path, capsys, rivals):
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    for name in (*rivals, "other.png"):
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(corpus / name)
    assert cleanup2d.main([str(corpus), str(out)]) == 1
    error = capsys.readouterr().err
    assert all(name in error for name in rivals)
    assert list(read_all(out)) == ["other-LOC-2d.tiff"]


def test_a_name_that_holds_the_mark_is_refused(tmp_path, capsys):
    (tmp_path / "corpus" / "a-LOC-b").mkdir(parents=True)
    Image.fromarray(GREY).save(tmp_path / "corpus" / "a-LOC-b" / "1.png")
    Image.fromarray(GREY).save(tmp_path / "corpus" / "x-LOC-2d.png")
    assert cleanup2d.main([str(tmp_path / "corpus"), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("a name without '-LOC-'") == 2


@pytest.mark.parametrize("content", [None, "some text"])
def test_nothing_to_do_is_an_error(tmp_path, capsys, content):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    if content:
        (corpus / "notes.txt").write_text(content)
    assert cleanup2d.main([str(corpus), str(tmp_path / "out")]) == 1
    assert "expected images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_are_never_taken_for_inputs(corpus, capsys):
    assert cleanup2d.main([str(corpus), str(corpus / "." / "grids" / "..")]) == 1
    assert "directory of its own" in capsys.readouterr().err
    for _ in range(2):
        assert cleanup2d.main([str(corpus), str(corpus / "out")]) == 0
    assert len(read_all(corpus / "out")) == 3


def test_warnings_reach_the_user_from_any_process(tmp_path, capsys):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in "ab":
        tifffile.imwrite(corpus / f"{name}.tif", GREY.astype(np.uint16))
    assert cleanup2d.main([str(corpus), str(tmp_path / "out"), "-p", "2"]) == 0
    assert capsys.readouterr().err.count("--rescale percentile would use all of them") == 2


@pytest.mark.parametrize(
    "arguments", [[], ["nowhere", "out"], ["--percentiles", "5", "1", ".", "out"], ["-p", "0", ".", "o"]]
)
def test_wrong_arguments_end_with_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cleanup2d.main(arguments)
    assert caught.value.code == 2
    assert "usage: cleanup2d.py" in capsys.readouterr().err


def test_script_runs_from_any_directory(corpus, tmp_path, root):
    command = [sys.executable, str(root / "raw" / "cleanup2d.py"), "corpus", "out"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().splitlines()[-1].startswith("cleanup2d: 3 sections written")


def test_real_images(real_data, tmp_path, capsys):
    assert cleanup2d.main([str(real_data / "images2d"), str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].strip().startswith(str(real_data))
    assert len(read_all(tmp_path / "out")) == 31
