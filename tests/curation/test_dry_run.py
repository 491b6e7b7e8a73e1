"""curate.py --dry-run: it says what a run then does, and writes nothing."""

import importlib
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from emcurate.curation.ahead import foresee
from emcurate.curation.closing import count_datasets
from emcurate.curation.plan import keeps_everything
from emcurate.running.report import Report
from tests.textures import make_texture

curate = importlib.import_module("curate")


@pytest.fixture(scope="module")
def corpus(small_corpus, tmp_path_factory):
    """The small corpus, and what is odd: slivers, groups, slices, thin and broken files, and what is no input."""
    corpus = tmp_path_factory.mktemp("odd") / "corpus"
    shutil.copytree(small_corpus, corpus)
    for name, shape in (("group/raw/1", (70, 33)), ("group/raw/2", (20, 90)), ("sliver", (9, 60))):
        (corpus / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_texture((1, *shape))[0]).save(corpus / "images" / f"{name}.png")
    tifffile.imwrite(corpus / "images" / "deep.tif", make_texture((1, 50, 80))[0].astype(np.uint16) * 200)
    (corpus / "images" / "broken.tif").write_bytes(b"II*\0")
    (corpus / "images" / "notes.txt").touch()
    tifffile.imwrite(corpus / "volumes" / "thin.tif", make_texture((6, 64, 90)), photometric="minisblack")
    tifffile.imwrite(corpus / "volumes" / "speck.tif", make_texture((4, 5, 90)), photometric="minisblack")
    (corpus / "volumes" / "wing" / "slices").mkdir(parents=True)
    for index, plane in enumerate(make_texture((20, 64, 40))):
        Image.fromarray(plane).save(corpus / "volumes" / "wing" / "slices" / f"{index}.png")
    (corpus / "volumes" / "broken.mrc").write_bytes(b"x" * 2000)
    (corpus / "videos" / "broken.mp4").write_bytes(b"x")
    return corpus


def arguments(corpus, out, *flags):
    kinds = [word for kind in ("images", "volumes", "videos") for word in (f"--{kind}", str(corpus / kind))]
    return [*kinds, "--out", str(out), "-cs", "32", "-s", "3", "--until", "deduplicate", "-p", "1", *flags]


def look_ahead(words):
    """What is foreseen, and the report of it."""
    parsed, report = curate.build_parser().parse_args(words), Report("test")
    checked = curate.check(parsed)
    return list(foresee(parsed, checked, report, keeps_all=keeps_everything(parsed))), report


def times(*directories):
    return {path: path.stat().st_mtime_ns for directory in directories for path in directory.rglob("*")}


def bytes_of(directory, *patterns):
    return sum(path.stat().st_size for pattern in patterns for path in directory.glob(pattern))


@pytest.mark.parametrize("flags", [(), ("--keep", "all"), ("--min-size", "1"), ("--pixel-size", "25"),
                                   ("--keep", "all", "--min-size", "20", "-a", "0", "2")],
                         ids=lambda flags: " ".join(flags))  # fmt: skip
def test_what_is_foreseen_is_what_a_run_does(corpus, tmp_path, capsys, flags):
    before = times(corpus, tmp_path)
    out = tmp_path / "out"
    words = arguments(corpus, out, *flags)
    foreseen, report = look_ahead(words)
    assert not out.exists()
    assert times(corpus, tmp_path) == before
    curate.main(words)
    done = count_datasets(out, (out / "crop_patches", "crop_patches"), (out / "reconstruct3d", "reconstruct3d"))
    for name, counts in done.items():
        of_name = [one for one in foreseen if one.dataset == name]
        for noun, number in (
            ("sections", counts.sections),
            ("patches", counts.patches),
            ("small", counts.left_out_small),
        ):
            assert sum(getattr(one, noun) for one in of_name) == number, (name, noun)
    # Of the others nothing came.
    assert not [one for one in foreseen if one.dataset not in done and one.patches]
    written = bytes_of(out / "cleanup2d", "*.tiff")
    if "all" in flags:
        written += bytes_of(out / "cross_section3d", "*.tiff")
        patches = bytes_of(out / "crop_patches", "*.tiff", "*.npy")
        assert sum(one.patch_bytes for one in foreseen) == patches
    assert sum(one.section_bytes for one in foreseen) == written
    # What fails is foreseen too, and what is not read.
    failed = capsys.readouterr().err.split("Failed:\n")[1]
    for name in ("broken.tif", "broken.mrc", "broken.mp4"):
        assert name in failed and any(name in failure for failure in report.failures)
    assert [item.path.name for item in report.left_out] == ["notes.txt"]


def test_it_is_said_in_a_table_and_nothing_is_written(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    assert curate.main(arguments(corpus, out, "--dry-run")) == 1  # for the broken files
    text = capsys.readouterr().out
    assert not out.exists()
    line = next(line for line in text.splitlines() if line.endswith("volumes/block.tif"))
    assert line.split()[:10] == ["block", "40", "x", "96", "x", "128", "uint8", "10", "x", "10"]
    assert "thin.tif: " in text and "only plane 0 (xy) is cut" in text
    assert f"free in {out}: " in text
    assert "stages: vid2stack, mrc2byte, cleanup2d, crop_patches, deduplicate; nothing was written" in text
    # The same is said where results are already there, and they stay as they are.
    curate.main(arguments(corpus, out))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    curate.main(arguments(corpus, out, "--dry-run"))
    assert [line for line in capsys.readouterr().out.splitlines() if "free in" not in line] == [
        line for line in text.splitlines() if "free in" not in line
    ]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_kind_that_cannot_be_used_stops_no_other(corpus, tmp_path):
    (tmp_path / "volumes").mkdir()
    words = arguments(corpus, tmp_path / "out")
    words[words.index("--volumes") + 1] = str(tmp_path / "volumes")
    foreseen, report = look_ahead(words)
    assert {one.dataset for one in foreseen} >= {"film", "group", "deep"}
    assert any(f"{tmp_path / 'volumes'}: expected volumes" in failure for failure in report.failures)


def test_a_wrong_flag_is_told_before_anything_is_looked_at(corpus, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        curate.main(arguments(corpus, tmp_path / "out", "--dry-run", "--min-size", "33"))
    assert caught.value.code == 2
    assert "argument --min-size" in capsys.readouterr().err


def test_a_name_of_two_kinds_of_inputs_is_refused_as_the_run_refuses_it(corpus, tmp_path, capsys):
    for name in ("i", "v"):
        (tmp_path / name).mkdir()
    tifffile.imwrite(tmp_path / "i" / "cell.tif", make_texture((1, 64, 64))[0])
    tifffile.imwrite(tmp_path / "v" / "cell.tif", make_texture((8, 64, 64)), imagej=True, metadata={"axes": "ZYX"})
    words = ["--images", str(tmp_path / "i"), "--volumes", str(tmp_path / "v"), "--out", str(tmp_path / "out")]
    words += ["-cs", "32", "--until", "deduplicate", "-p", "1"]
    for more in (["--dry-run"], []):
        assert curate.main([*words, *more]) == 1
        assert f"{tmp_path / 'v' / 'cell.tif'}: expected a dataset name of its own" in capsys.readouterr().err
