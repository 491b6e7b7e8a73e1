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
    assert "notes.txt: not an image by its extension" in text


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


@pytest.mark.parametrize("rivals", [("a.png", "a.tif"), ("a.png", "a/1.png"), ("A/1.png", "a/2.png")])
def test_two_inputs_of_one_name_are_refused(tmp_path, capsys, rivals):
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    for name in (*rivals, "other.png"):
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(corpus / name)
    assert cleanup2d.main([str(corpus), str(out)]) == 1
    error = capsys.readouterr().err
    assert all(name in error for name in rivals)
    assert list(read_all(out)) == ["other-LOC-2d.tiff"]


def save(path, pixels=GREY):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_whatever_is_not_read_is_named_with_what_to_do_however_deep_it_lies(tmp_path, capsys):
    corpus = tmp_path / "corpus"
    save(corpus / "good.png")
    save(corpus / "group" / "1.png")
    save(corpus / "group" / "before" / "2.png")
    save(corpus / "a" / "b" / "c" / "3.png")
    save(corpus / ".hidden" / "4.png")
    for name in ("noext", "v.mrc", "f.mp4", "q.xyz", "group/notes.txt", "a/y.czi", "z.zarr/0.0"):
        (corpus / name).parent.mkdir(exist_ok=True)
        (corpus / name).write_bytes(b"x")
    (corpus / "a" / "link").symlink_to(corpus / "group")
    assert cleanup2d.main([str(corpus), str(tmp_path / "out")]) == 0
    assert sorted(read_all(tmp_path / "out")) == ["good-LOC-2d.tiff", "group-LOC-2d-1.tiff"]
    out = capsys.readouterr().out
    lines = [line.removeprefix(f"not read: {corpus}/") for line in out.splitlines() if line.startswith("not read")]
    told = dict(line.split(": ", 1) for line in lines)
    deeper = "deeper than one sub-directory; name "
    assert told == {
        "a/b/c/3.png": f"{deeper}{corpus / 'a' / 'b'} itself, or move it up",
        "a/link": f"a link to a directory, below others; name {corpus / 'group'} itself",
        "a/y.czi": "not an image by its extension; save it as OME-TIFF, for example with bfconvert of Bio-Formats",
        "f.mp4": "not an image by its extension; give its directory to preprocess/vid2stack.py",
        "group/before/2.png": f"{deeper}{corpus / 'group'} itself, or move it up",
        "group/notes.txt": "not an image by its extension; nothing is to be done where it is a note",
        "noext": "not an image: it has no extension; give it the extension of its format, or leave it",
        "q.xyz": "not an image by its extension; convert it to TIFF, or leave it",
        "v.mrc": "not an image by its extension; give its directory to raw/cross_section3d.py",
        "z.zarr": "not an image by its extension; give its directory to raw/cross_section3d.py",
    }
    assert out.splitlines()[-1] == "cleanup2d: 2 sections written, 0 already done, 10 not read."


def test_many_that_are_not_read_are_counted(tmp_path, capsys):
    corpus = tmp_path / "corpus"
    save(corpus / "good.png")
    for number in range(1, 31):
        (corpus / f"{number}.txt").touch()
    assert cleanup2d.main([str(corpus), str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out.splitlines()
    lines = [line for line in out if line.startswith("not read")]
    assert len(lines) == 21
    assert lines[19].startswith(f"not read: {corpus}/20.txt: ")
    assert lines[20] == "not read: ... and 10 more: 10 .txt files"
    assert out[-1].endswith("30 not read.")


def test_a_microscopes_text_file_beside_an_image_is_read_however_deep_and_a_note_is_not(tmp_path, capsys):
    corpus = tmp_path / "corpus"
    text = "[SemImageFile]\r\nDataSize={1}x{0}\r\nPixelSize=5\r\n".format(*GREY.shape)
    for place in ("a", "group/b", "worm/raw/c"):
        save(corpus / f"{place}.png")
        (corpus / f"{place}.txt").write_text(text)
        (corpus / f"{place}.jpg.txt").write_text("seen on Monday")
    save(corpus / "d.png")
    save(corpus / "d.jpg")
    (corpus / "d.txt").write_text(text)
    assert cleanup2d.main([str(corpus), str(tmp_path / "out"), "--prefer", "jpg"]) == 0
    out = capsys.readouterr().out
    unread = sorted(line.split(": ")[1] for line in out.splitlines() if line.startswith("not read: "))
    named = ("a.jpg.txt", "d.png", "group/b.jpg.txt", "worm/raw/c.jpg.txt")
    assert unread == [str(corpus / name) for name in named]
    assert "pixel size of 4 images, such as a.png: Hitachi" in out


def test_a_directory_called_raw_or_the_like_bears_the_name_of_the_one_above(tmp_path, capsys):
    for specimen in ("fly", "mouse"):
        save(tmp_path / specimen / "Images" / "1.png")
        assert cleanup2d.main([str(tmp_path / specimen), str(tmp_path / "out")]) == 0
    save(tmp_path / "corpus" / "worm" / "raw" / "1.png")
    assert cleanup2d.main([str(tmp_path / "corpus"), str(tmp_path / "out")]) == 0
    assert sorted(read_all(tmp_path / "out")) == [f"{name}-LOC-2d-1.tiff" for name in ("fly", "mouse", "worm")]
    assert "not read" not in capsys.readouterr().out


def test_results_under_the_name_of_such_a_directory_are_named_and_pruned(tmp_path, capsys, monkeypatch):
    save(tmp_path / "fly" / "raw" / "1.png")
    arguments = [str(tmp_path / "fly"), str(tmp_path / "out")]
    with monkeypatch.context() as before:  # as the first version did
        before.setattr("emcurate.corpora.images.name_directory", lambda path: path.name)
        assert cleanup2d.main(arguments) == 0
    assert list(read_all(tmp_path / "out")) == ["raw-LOC-2d-1.tiff"]
    assert cleanup2d.main(arguments) == 0
    assert "results under the name raw are of what is now called fly" in capsys.readouterr().err
    assert cleanup2d.main([*arguments, "--prune"]) == 0
    assert list(read_all(tmp_path / "out")) == ["fly-LOC-2d-1.tiff"]


def test_files_of_one_name_are_one_line_a_folder_and_one_of_each_can_be_preferred(tmp_path, capsys):
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    for name in ("a", "b", "c", "group/d"):
        for extension in ("jpg", "tiff"):
            save(corpus / f"{name}.{extension}")
    save(corpus / "e.jpg")
    assert cleanup2d.main([str(corpus), str(out)]) == 1
    failed = capsys.readouterr().err.split("Failed:\n")[1].splitlines()
    advice = "take one of each with --prefer jpg or --prefer tiff, or move the others away"
    assert failed == [
        f"  {corpus}: expected one file of a name, found 3 names with several, such as a.jpg and a.tiff; {advice}",
        f"  {corpus / 'group'}: expected one file of a name, found one name with several, such as d.jpg and d.tiff; "
        f"{advice}",
    ]
    assert list(read_all(out)) == ["e-LOC-2d.tiff"]
    # Any spelling of the extension chooses.
    assert cleanup2d.main([str(corpus), str(out), "--prefer", ".TIF"]) == 0
    assert len(read_all(out)) == 5
    told = capsys.readouterr().out
    assert told.count("a second file of the name of ") == 4
    assert f"{corpus / 'a.jpg'}: a second file of the name of a.tiff; --prefer tif takes that one" in told
    ledger = (out / ".emcurate" / "cleanup2d.jsonl").read_text()
    assert "a.tiff" in ledger and "a.jpg" not in ledger


@pytest.mark.parametrize("word", ["", ".", "a b", "*"])
def test_what_is_no_extension_cannot_be_preferred(tmp_path, capsys, word):
    with pytest.raises(SystemExit) as caught:
        cleanup2d.main([str(tmp_path), str(tmp_path / "out"), "--prefer", word])
    assert caught.value.code == 2
    assert "expected an extension such as tif" in capsys.readouterr().err


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
