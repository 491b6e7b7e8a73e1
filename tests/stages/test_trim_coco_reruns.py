"""trim_coco run again: what is done, refused, replaced, made again, and left alone."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.coco_sets import break_off_after_gathering, image_directory, jpeg, make_content, run, small, write
from tests.ledgers import forge
from tests.results import check_each_selection_after_another, contents


def test_rerun_says_that_all_is_done_and_changes_nothing(tmp_path, capsys):
    images = image_directory(tmp_path / "all", range(1, 13))
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o", "--train-images", images]
    command += ["--masks", "--layout", "imagefolder"]
    assert run(*command) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("*") if p.is_file()}
    capsys.readouterr()
    assert run(*command) == 0
    out = capsys.readouterr().out
    assert "0 files written" in out
    assert "0 images placed" in out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("*") if p.is_file()} == before


def test_other_result_is_not_overwritten_without_flag(tmp_path, capsys):
    images = image_directory(tmp_path / "all", range(1, 13))
    command = ["--train-annotations", small(tmp_path), "-o", tmp_path / "o", "--train-images", images]
    assert run(*command, "--targets", 3, "--train-samples", 4) == 0
    before = (tmp_path / "o" / "labels_train.json").read_bytes()
    assert run(*command, "--targets", 6, "--train-samples", 2) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "o" / "labels_train.json").read_bytes() == before
    assert run(*command, "--targets", 6, "--train-samples", 2, "--overwrite") == 0
    assert "files are not of this selection" not in capsys.readouterr().err


@pytest.fixture
def masked(tmp_path):
    """A finished selection with everything there can be, and the command that made it but for its targets."""
    images = image_directory(tmp_path / "all", range(1, 13))
    command = ["--train-annotations", small(tmp_path), "--train-images", images, "--layout", "imagefolder", "--masks"]
    assert run(*command, "-o", tmp_path / "o", "--targets", 3, "--train-samples", 4) == 0
    return tmp_path / "o", command


@pytest.mark.parametrize(
    "flags",
    [
        ["--targets", 6, "--train-samples", 4],
        ["--targets", 3, "--train-samples", 6],
        ["--targets", 3, "--train-samples", 4, "--seed", 1],
    ],
)
def test_another_selection_is_refused_whole_and_with_overwrite_leaves_nothing_of_the_earlier_one(
    tmp_path, capsys, masked, flags
):
    out, command = masked
    before = contents(out)
    assert run(*command, "-o", out, *flags) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert contents(out) == before
    assert run(*command, "-o", out, *flags, "--overwrite") == 0
    assert run(*command, "-o", tmp_path / "fresh", *flags) == 0
    assert contents(out) == contents(tmp_path / "fresh") != before


SELECTIONS = [
    ["--targets", 3, "--train-samples", 4, "--masks", "--layout", "imagefolder"],
    ["--targets", 3, "--train-samples", 4],
    ["--targets", 6, 1, "--train-samples", 4, "--layout", "imagefolder"],
    ["--targets", 6, "--train-samples", 2, "--masks"],
    ["--targets", 1, "--train-samples", 6, "--seed", 7],
]


def test_any_selection_after_any_other_equals_a_fresh_one_or_is_refused_whole(tmp_path):
    images = image_directory(tmp_path / "all", range(1, 13))
    command = ["--train-annotations", small(tmp_path), "--train-images", images, "-o"]
    order = (1, 2, 3, 4, 0, 2, 4, 1, 3, 0, 3, 1, 4, 3, 2, 1, 0)
    check_each_selection_after_another(lambda *words: run(*command, *words), SELECTIONS, order, tmp_path)


def test_metadata_of_images_that_nobody_noted_is_told_of(masked, capsys):
    # The loader would take it for that of the images, though it is of another selection.
    out, _ = masked
    (out / ".emcurate" / "trim_coco.jsonl").unlink()
    images = out.parent / "all"
    command = ["--train-annotations", out.parent / "instances_train2017.json", "--train-images", images, "-o", out]
    assert run(*command, "--targets", 3, "--train-samples", 4, "--overwrite") == 0
    assert "1 files are not of this selection, such as metadata.jsonl" in capsys.readouterr().err


def test_overwrite_without_images_removes_metadata_masks_and_lists_of_missing_images(tmp_path):
    labels = [(i, [3] if i % 2 else [1, 6]) for i in range(1, 61)]
    path = write(tmp_path / "a.json", make_content(labels))
    images = image_directory(tmp_path / "all", range(1, 11))
    command = ["--train-annotations", path, "-o", tmp_path / "o"]
    more = ["--train-images", images, "--masks", "--layout", "imagefolder"]
    assert run(*command, "--targets", 3, *more) == 1
    assert (tmp_path / "o" / "missing_train2017.txt").exists()
    assert run(*command, "--targets", 6, "--train-samples", 2, "--overwrite") == 0
    left = set(contents(tmp_path / "o"))
    chosen = set(json.loads((tmp_path / "o" / "labels_train.json").read_text()))
    assert left - chosen == {"labels_train.json", "trim_report.csv", "balance_train.png", "README.md"}


@pytest.mark.parametrize("harm", ["missing", "truncated", "altered"])
@pytest.mark.parametrize(
    "name",
    [
        "labels_train.json",
        "balance_train.png",
        "instances_train_trimmed.json",
        "trim_report.csv",
        "train2017/metadata.jsonl",
        "image",
    ],
)
def test_a_harmed_output_is_made_again_without_a_flag(masked, capsys, name, harm):
    out, command = masked
    before = contents(out)
    path = out / (name if name != "image" else min(n for n in before if n.endswith(".jpg")))
    if harm == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if harm == "truncated" else data[:-3] + b"???")
    assert run(*command, "-o", out, "--targets", 3, "--train-samples", 4) == 0
    assert contents(out) == before
    capsys.readouterr()
    assert run(*command, "-o", out, "--targets", 3, "--train-samples", 4) == 0
    assert "0 files written" in capsys.readouterr().out


def test_a_rerun_reads_neither_the_images_nor_their_source(masked, tmp_path, monkeypatch):
    out, command = masked
    opened = []
    monkeypatch.setattr("builtins.open", lambda *a, _open=open, **k: opened.append(str(a[0])) or _open(*a, **k))
    assert run(*command, "-o", out, "--targets", 3, "--train-samples", 4, "-p", 1) == 0
    assert opened
    assert not [path for path in opened if path.endswith(".jpg")]


def test_images_can_come_later(tmp_path):
    images = image_directory(tmp_path / "all", range(1, 13))
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "--layout", "imagefolder"]
    assert run(*command, "-o", tmp_path / "late") == 0
    assert run(*command, "-o", tmp_path / "late", "--train-images", images) == 0
    assert run(*command, "-o", tmp_path / "at once", "--train-images", images) == 0
    assert contents(tmp_path / "late") == contents(tmp_path / "at once")
    # Nor does a later run without them take them away, even if it has something to mend.
    (tmp_path / "late" / "labels_train.json").unlink()
    assert run(*command, "-o", tmp_path / "late") == 0
    assert contents(tmp_path / "late") == contents(tmp_path / "at once")


def test_a_harmed_image_that_cannot_be_brought_is_a_failure_until_it_is(masked, capsys):
    out, command = masked
    before = contents(out)
    name = min(name for name in before if name.endswith(".jpg"))
    (out / name).write_bytes(b"")
    at = command.index("--train-images")
    without_images = [*command[:at], *command[at + 2 :]]
    for _ in range(2):
        assert run(*without_images, "-o", out, "--targets", 3, "--train-samples", 4) == 1
        assert f"1 missing or altered, such as {name}; give --train-images or --download" in capsys.readouterr().err
    assert run(*command, "-o", out, "--targets", 3, "--train-samples", 4) == 0
    assert contents(out) == before


def test_another_selection_is_refused_even_after_mending_the_earlier_one_failed(masked, tmp_path):
    out, command = masked
    (out / min(name for name in contents(out) if name.endswith(".jpg"))).unlink()
    before = contents(out)
    (tmp_path / "no.zip").write_bytes(b"no archive")
    broken = [tmp_path / "no.zip" if argument == tmp_path / "all" else argument for argument in command]
    assert run(*broken, "-o", out, "--targets", 3, "--train-samples", 4) == 1
    assert run(*command, "-o", out, "--targets", 6, "--train-samples", 4) == 1
    assert contents(out) == before


def test_images_are_never_brought_to_where_they_come_from(tmp_path, capsys):
    # Else they would be noted as results, and --overwrite with other targets would remove them.
    for source in (tmp_path / "o" / "train2017", tmp_path / "o"):
        shutil.rmtree(tmp_path / "o", ignore_errors=True)
        (tmp_path / "o").mkdir()
        image_directory(tmp_path / "o" / "train2017", range(1, 13))
        command = ["--train-annotations", small(tmp_path), "-o", tmp_path / "o", "--train-images", source]
        for flags in (["--targets", 3], ["--targets", 6, "--train-samples", 2, "--overwrite"]):
            assert run(*command, *flags) == 1
            assert "expected a directory of its own for the results" in capsys.readouterr().err
            assert len(list((tmp_path / "o" / "train2017").iterdir())) == 12


def test_a_split_trimmed_otherwise_is_told_of(tmp_path, capsys):
    path = small(tmp_path)
    assert run("--val-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0
    assert "trimmed with other" not in capsys.readouterr().err
    assert run("--train-annotations", path, "--targets", 6, "--seed", 1, "-o", tmp_path / "o", "--overwrite") == 0
    assert "val was trimmed with other targets, seed; to have both alike, give --val-annotations" in (
        capsys.readouterr().err
    )


def test_the_list_of_missing_images_stays_as_long_as_they_are_missing(tmp_path):
    labels = [(i, [3] if i % 2 else [1, 6]) for i in range(1, 61)]
    images = image_directory(tmp_path / "all", range(1, 11))
    command = ["--train-annotations", write(tmp_path / "a.json", make_content(labels)), "-o", tmp_path / "o"]
    listing = tmp_path / "o" / "missing_train2017.txt"
    for flags in (["--targets", 3], ["--targets", 3], ["--targets", 6, "--overwrite"], ["--targets", 6]):
        assert run(*command, *flags, "--train-images", images) == 1
        assert listing.read_text().split() == [f"{i:012}.jpg" for i in range(11, 61)]
    assert run(*command, "--targets", 6) == 0
    assert listing.exists()
    for i in range(11, 61):
        (images / f"{i:012}.jpg").write_bytes(jpeg(i))
    for _ in range(2):
        assert run(*command, "--targets", 6, "--train-images", images) == 0
        assert not listing.exists()
    assert run("--verify", "-o", tmp_path / "o") == 0


def test_a_run_for_one_split_leaves_the_other_alone(tmp_path, capsys):
    (tmp_path / "val").mkdir()
    train, val = small(tmp_path), small(tmp_path / "val", 6)
    images = image_directory(tmp_path / "all", range(1, 13))
    both = ["--train-annotations", train, "--train-images", images, "--val-annotations", val, "--val-images", images]
    both = ["-o", tmp_path / "o", "--train-samples", 4, *both]
    assert run(*both, "--targets", 3) == 0
    before = contents(tmp_path / "o")
    for flags in ([], ["--prune"], ["--overwrite"]):
        capsys.readouterr()
        assert run(*both[:8], "--targets", 3, *flags) == 0
        assert "warning" not in capsys.readouterr().err
        assert contents(tmp_path / "o") == before
    assert run(*both[:8], "--targets", 6, "--overwrite") == 0
    after = contents(tmp_path / "o")
    assert after["labels_train.json"] != before["labels_train.json"]
    assert {n: d for n, d in after.items() if "val" in n} == {n: d for n, d in before.items() if "val" in n}
    assert [line.split(",")[:2] for line in after["trim_report.csv"].decode().splitlines()[1:]] == [
        ["train", "6"],
        ["val", "3"],
    ]


def test_a_directory_that_an_earlier_version_made_is_taken_over(masked, capsys):
    out, command = masked
    before = contents(out)
    for path in (out / ".emcurate").iterdir():
        path.unlink()
    assert run(*command, "-o", out, "--targets", 3, "--train-samples", 4) == 0
    assert "0 files written" in capsys.readouterr().out
    assert contents(out) == before
    (out / ".emcurate" / "trim_coco.jsonl").unlink()
    assert run(*command, "-o", out, "--targets", 6, "--train-samples", 4) == 1
    assert contents(out) == before


def test_verify_compares_every_file_with_what_was_written(masked, capsys):
    out, command = masked
    assert run("--verify", "-o", out) == 0
    assert f"{len(contents(out))} files verified" in capsys.readouterr().out
    name = min(name for name in contents(out) if name.endswith(".jpg"))
    stat, data = (out / name).stat(), (out / name).read_bytes()
    (out / name).write_bytes(data[:-1] + b"?")
    os.utime(out / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run("--verify", "-o", out) == 1
    assert name in capsys.readouterr().err
    assert run(*command, "-o", out, "--targets", 3, "--train-samples", 4) == 0
    assert (out / name).read_bytes() == data


def test_broken_training_file_does_not_stop_validation(tmp_path, capsys):
    (tmp_path / "bad.json").write_text('{"images": [')
    good = small(tmp_path)
    command = ["--val-annotations", good, "--targets", 3, "-o", tmp_path / "o", "--train-annotations"]
    assert run(*command, tmp_path / "bad.json") == 1
    assert f"{tmp_path / 'bad.json'}: expected COCO annotations" in capsys.readouterr().err
    assert set(contents(tmp_path / "o")) == {"labels_val.json", "trim_report.csv", "balance_val.png", "README.md"}
    report = tmp_path / "o" / "trim_report.csv"
    assert [line.split(",")[0] for line in report.read_text().splitlines()] == ["split", "val"]
    assert run(*command, good) == 0
    assert [line.split(",")[0] for line in report.read_text().splitlines()] == ["split", "train", "val"]
    assert run(*command, tmp_path / "bad.json", "--list-categories") == 1
    assert "val images" in capsys.readouterr().out


def test_users_own_report_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "trim_report.csv").write_text("mine")
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path]
    assert run(*command) == 1
    assert "trim_report.csv: expected no such file" in capsys.readouterr().err
    assert (tmp_path / "trim_report.csv").read_text() == "mine"


def test_users_own_image_is_not_overwritten(tmp_path, capsys):
    images = image_directory(tmp_path / "all", range(1, 13))
    mine = tmp_path / "o" / "train2017" / f"{3:012}.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o", "--train-images", images]
    assert run(*command) == 1
    assert "another file" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"
    assert run(*command, "--overwrite") == 0
    assert mine.read_bytes() == jpeg(3)


def test_a_list_of_the_users_own_stays_after_a_run_that_was_broken_off_too(tmp_path, capsys, monkeypatch):
    images = image_directory(tmp_path / "all", range(1, 13))
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o", "--train-images", images]
    mine = tmp_path / "o" / "instances_train_trimmed.json"
    mine.parent.mkdir()
    mine.write_text("mine")

    def break_off(*arguments, **flags):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("emcurate.trimming.coco_output.gather", break_off)
        assert run(*command) == 130
    for _ in range(2):
        assert run(*command) == 1
        assert "1 other files of its name, of which nobody knows how they were made" in capsys.readouterr().err
        assert mine.read_text() == "mine"


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "zip"])
def test_an_image_that_a_power_cut_emptied_is_brought_again(tmp_path, monkeypatch, packed):
    source = image_directory(tmp_path / "all", range(1, 13))
    if packed:
        source = shutil.make_archive(tmp_path / "images", "zip", source)
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "--train-samples", 8, "--train-images", source]
    with monkeypatch.context() as patch:
        break_off_after_gathering(patch)
        assert run(*command, "-o", tmp_path / "o") == 130
    (emptied, *_) = sorted((tmp_path / "o" / "train2017").iterdir())
    emptied.write_bytes(b"")
    assert run(*command, "-o", tmp_path / "o") == 0
    assert run(*command, "-o", tmp_path / "whole") == 0
    assert contents(tmp_path / "o") == contents(tmp_path / "whole")


def replace_image(source, number, packed):
    """Put another image in the place of one, in a directory, of which there may be an archive."""
    (source / f"{number:012}.jpg").write_bytes(jpeg(number + 100))
    if packed:
        shutil.make_archive(source, "zip", source)


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "zip"])
def test_a_changed_source_image_is_refused_alone_and_replaced_with_overwrite(tmp_path, capsys, packed):
    images = image_directory(tmp_path / "all", range(1, 13))
    source = shutil.make_archive(images, "zip", images) if packed else images
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "--train-images", source, "-p", 1]
    command += ["--layout", "imagefolder"]
    out = tmp_path / "o"
    assert run(*command, "-o", out) == 0
    before = contents(out)
    replace_image(images, 3, packed)
    name = f"{3:012}.jpg"
    for _ in range(2):
        capsys.readouterr()
        assert run(*command, "-o", out) == 1
        told = capsys.readouterr()
        assert f"that was placed as {out / 'train2017' / name}, found another" in told.err
        assert (f"{source}: expected the {name}" if packed else f"{source / name}: expected the image") in told.err
        assert f"0 images placed, {len(before) - 6} images already there" in told.out
        assert contents(out) == before
    assert run(*command, "-o", out, "--overwrite") == 0
    assert run(*command, "-o", tmp_path / "fresh") == 0
    assert contents(out) == contents(tmp_path / "fresh") != before
    assert run(*command, "-o", out) == 0


def test_images_from_another_source_are_the_same_if_they_hold_the_same(tmp_path, capsys):
    images = image_directory(tmp_path / "all", range(1, 13))
    archive = shutil.make_archive(images, "zip", images)
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o", "--train-images"]
    assert run(*command, images) == 0
    for source in (archive, archive, images):
        capsys.readouterr()
        assert run(*command, source) == 0
        assert "0 images placed" in capsys.readouterr().out
    replace_image(images, 3, packed=True)
    assert run(*command, archive) == 1


def test_images_that_an_earlier_version_brought_are_compared_with_their_source(masked, tmp_path, capsys):
    out, command = masked
    command += ["-o", out, "--targets", 3, "--train-samples", 4]
    before = contents(out)
    forge(out / ".emcurate" / "trim_coco.jsonl", '"sources"', '"nothing of theirs"')
    number = int(Path(min(name for name in before if name.endswith(".jpg"))).stem)
    replace_image(tmp_path / "all", number, packed=False)
    assert run(*command) == 1
    assert f"{number:012}.jpg: expected the image that was placed as" in capsys.readouterr().err
    assert contents(out) == before
    (tmp_path / "all" / f"{number:012}.jpg").write_bytes(jpeg(number))
    assert run(*command) == 0
    assert contents(out) == before
