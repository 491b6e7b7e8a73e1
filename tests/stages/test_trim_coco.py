"""trim_coco: the published selection, images from everywhere, and files that should not be trusted."""

import csv
import errno
import hashlib
import importlib
import io
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.results import contents
from tests.web import serve

trim_coco = importlib.import_module("data_prep.trim_coco")

NAMES = {1: "person", 3: "car", 6: "bus", 13: "stop sign", 81: "sink", 92: "banner"}


def jpeg(number):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (number % 256, 50, 100)).save(buffer, "JPEG")
    return buffer.getvalue()


def make_content(labels, names=NAMES, first_id=1):
    """Return annotation file content from (image id, category ids) pairs, in this order."""
    images = sorted({image for image, _ in labels})
    pairs = [(image, category) for image, categories in labels for category in categories]
    return {
        "images": [
            {"id": i, "file_name": f"{i:012}.jpg", "width": 8, "height": 6, "coco_url": f"http://127.0.0.1:9/{i}.jpg"}
            for i in images
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "iscrowd": 0,
                "area": 4.5,
                "bbox": [1, 1, 3, 3],
                "segmentation": [[1.25, 1, 4, 1.0, 4, 4.75]],
            }
            for number, (image, category) in enumerate(pairs, start=first_id)
        ],
        "categories": [{"id": i, "name": name, "supercategory": "thing"} for i, name in names.items()],
    }


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def select_literally(content, folder, targets, samples, seed=42):
    """The rule of the published script, word for word, sharing nothing with the project's code."""
    categories_of, order = {}, []
    for annotation in content["annotations"]:
        image = annotation["image_id"]
        if image not in categories_of:
            order.append(image)
            categories_of[image] = []
        if annotation["category_id"] not in categories_of[image]:
            categories_of[image].append(annotation["category_id"])
    union = set()
    for target in targets:
        generator = np.random.RandomState(seed)
        positives = [image for image in order if target in categories_of[image]]
        negatives = [image for image in order if target not in categories_of[image]]
        half = samples // 2
        union |= set(generator.choice(positives, half, replace=len(positives) < half).tolist())
        union |= set(generator.choice(negatives, half, replace=len(negatives) < half).tolist())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    return {f"{folder}/{names[image]}": categories_of[image] for image in order if image in union}


def small(tmp_path, count=12):
    """Twelve annotated images: person on all odd ones, car on every third, bus on the rest."""
    labels = [(i, [1] * (i % 2) + [3] * (i % 3 == 0) + [6] * (i % 2 == 0 and i % 3 != 0)) for i in range(count, 0, -1)]
    return write(tmp_path / "instances_train2017.json", make_content(labels))


def image_directory(path, numbers):
    path.mkdir()
    for i in numbers:
        (path / f"{i:012}.jpg").write_bytes(jpeg(i))
    return path


def run(*arguments):
    return trim_coco.main([str(argument) for argument in arguments])


# --- the selection ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train", "val", "seed"), [(500, 250, 42), (20, 10, 42), (6, 4, 7)])
def test_selection_equals_literal_rule_on_real_annotations(real_data, tmp_path, train, val, seed):
    directory = real_data / "coco_tiny80" / "annotations"
    flags = [] if (train, val, seed) == (500, 250, 42) else ["--train-samples", train, "--val-samples", val]
    flags += [] if seed == 42 else ["--seed", seed]
    files = {split: directory / f"instances_{split}2017.json" for split in ("train", "val")}
    status = run("--train-annotations", files["train"], "--val-annotations", files["val"], "-o", tmp_path, *flags)
    assert status == 0
    published = [3, 6, 31, 35, 36, 37, 40, 41, 43, 46, 47, 50, 53, 64, 75, 76, 78, 80, 85, 89]
    for split, samples in (("train", train), ("val", val)):
        content = json.loads(files[split].read_text())
        expected = select_literally(content, f"{split}2017", published, samples, seed)
        assert (tmp_path / f"labels_{split}.json").read_text() == json.dumps(expected, indent=2)


@pytest.mark.parametrize("seed", [0, 1])
def test_selection_equals_literal_rule_on_generated_annotations(tmp_path, seed):
    generator = random.Random(seed)
    rare, common, nearly_all = 13, 3, 1
    labels = []
    for image in generator.sample(range(1, 10**6), 4000):
        present = [nearly_all] if generator.random() < 0.97 else []
        present += [common] if generator.random() < 0.4 else []
        present += [rare] if generator.random() < 0.02 else []
        present += generator.choices([6, 81, 92], k=generator.randrange(3))
        generator.shuffle(present)
        labels.append((image, present or [81]))
    content = make_content(labels)
    generator.shuffle(content["annotations"])
    path = write(tmp_path / "a.json", content)
    status = run("--train-annotations", path, "--targets", rare, common, nearly_all, "-o", tmp_path / "out")
    assert status == 0
    expected = select_literally(content, "train2017", [rare, common, nearly_all], 500)
    assert (tmp_path / "out" / "labels_train.json").read_text() == json.dumps(expected, indent=2)
    rows = list(csv.DictReader((tmp_path / "out" / "trim_report.csv").open()))
    # Too few with the rare one, too few without the one that nearly all show, enough of the common one.
    assert [row["positives_with_replacement"] for row in rows] == ["yes", "no", "no"]
    assert [row["negatives_with_replacement"] for row in rows] == ["no", "no", "yes"]
    for row, target in zip(rows, (rare, common, nearly_all), strict=True):
        having = len({a["image_id"] for a in content["annotations"] if a["category_id"] == target})
        assert (row["split"], row["target"], row["name"]) == ("train", str(target), NAMES[target])
        assert (int(row["positives_available"]), int(row["negatives_available"])) == (having, 4000 - having)
        assert (row["positives_taken"], row["negatives_taken"]) == ("250", "250")


def test_published_text_form(tmp_path):
    labels = [(9, [3, 1, 3, 6]), (2, [1])]
    path = write(tmp_path / "a.json", make_content(labels))
    run("--val-annotations", path, "--targets", 3, "--val-samples", 2, "-o", tmp_path)
    assert (tmp_path / "labels_val.json").read_text() == (
        '{\n  "val2017/000000000009.jpg": [\n    3,\n    1,\n    6\n  ],\n'
        '  "val2017/000000000002.jpg": [\n    1\n  ]\n}'
    )


def test_things_and_stuff_are_merged_by_image(tmp_path):
    things = write(tmp_path / "things.json", make_content([(1, [1]), (2, [3]), (3, [1])]))
    stuff = make_content([(3, [92]), (1, [92, 81]), (4, [81])], {92: "banner", 81: "sink"}, first_id=1)
    stuff_path = write(tmp_path / "stuff.json", stuff)
    status = run("--train-annotations", things, stuff_path, "--targets", "banner", 1, "-o", tmp_path / "o", "--masks")
    assert status == 0
    labels = json.loads((tmp_path / "o" / "labels_train.json").read_text())
    assert list(labels.items()) == [
        ("train2017/000000000001.jpg", [1, 92, 81]),
        ("train2017/000000000002.jpg", [3]),
        ("train2017/000000000003.jpg", [1, 92]),
        ("train2017/000000000004.jpg", [81]),
    ]
    masks = json.loads((tmp_path / "o" / "instances_train_trimmed.json").read_text())
    assert len({annotation["id"] for annotation in masks["annotations"]}) == 7
    assert {category["id"] for category in masks["categories"]} == set(NAMES)


def test_crowds_count_and_bare_images_do_not(tmp_path):
    content = make_content([(1, [3]), (2, [1])])
    content["annotations"][0]["iscrowd"] = 1
    content["images"].append({"id": 50, "file_name": "bare.jpg"})
    run("--train-annotations", write(tmp_path / "a.json", content), "--targets", 3, "-o", tmp_path)
    assert set(json.loads((tmp_path / "labels_train.json").read_text())) == {
        "train2017/000000000001.jpg",
        "train2017/000000000002.jpg",
    }


# --- targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "\n", "\r\n\r\n"])
def test_targets_by_id_name_and_file(tmp_path, ending, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listing = tmp_path / "targets.txt"
    listing.write_bytes(f"car: 3\nbus: 6{ending}".encode())
    path = small(tmp_path)
    run("--train-annotations", path, "-o", "by_file", "--targets", listing)
    run("--train-annotations", path, "-o", "by_name", "--targets", "bus", "car", "bus")
    run("--train-annotations", path, "-o", "by_id", "--targets", "6", "3")
    texts = [(tmp_path / name / "labels_train.json").read_text() for name in ("by_file", "by_name", "by_id")]
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("stopsign", "'stopsign', which is no category (near: 'stop sign' (13)"),
        ("Person", "near: 'person' (1)"),
        ("stop", "'stop sign' (13)"),
        ("12", "12 (near: 3 'car', 6 'bus', 13 'stop sign')"),
        ("xylophone", "'xylophone', which is no category and no file"),
    ],
)
def test_unknown_target_is_refused_with_near_ones(tmp_path, capsys, target, message):
    assert run("--train-annotations", small(tmp_path), "-o", tmp_path / "o", "--targets", target) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("car: 3\nbus 6", "'name: id' in line 2"),
        ("car: 2", "2 (near: "),
        ("bus: 3", "3 to be 'car' in line 1"),
        ("\n", "at least one 'name: id' line"),
    ],
)
def test_bad_target_file(tmp_path, capsys, text, message):
    (tmp_path / "t.txt").write_text(text)
    assert run("--train-annotations", small(tmp_path), "-o", tmp_path / "o", "--targets", tmp_path / "t.txt") == 1
    assert message in capsys.readouterr().err


def test_target_without_positives(tmp_path, capsys):
    path = small(tmp_path)
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 3, 81) == 1
    assert "81 'sink' (0 with, 12 without)" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 3, 81, "--skip-empty") == 0
    assert "left out of train: 81 'sink'" in capsys.readouterr().err
    assert run("--train-annotations", path, "-o", tmp_path / "p", "--targets", 3) == 0
    assert (tmp_path / "o" / "labels_train.json").read_bytes() == (tmp_path / "p" / "labels_train.json").read_bytes()
    report = list(csv.reader((tmp_path / "o" / "trim_report.csv").open()))
    assert report[2] == ["train", "81", "sink", "0", "0", "no", "12", "0", "no"]


def test_target_on_every_image(tmp_path, capsys):
    path = write(tmp_path / "a.json", make_content([(1, [3]), (2, [3])]))
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 3) == 1
    assert "3 'car' (2 with, 0 without)" in capsys.readouterr().err


def test_list_categories(tmp_path, capsys):
    path = small(tmp_path)
    assert run("--train-annotations", path, "--list-categories", "-o", tmp_path / "o") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "name", "train", "images"]
    assert [line.split() for line in lines[1:5]] == [
        ["1", "person", "6"],
        ["3", "car", "4"],
        ["6", "bus", "4"],
        ["13", "stop", "sign", "0"],
    ]
    assert not (tmp_path / "o").exists()


# --- images ----------------------------------------------------------------------------------------------------------


def test_same_result_from_directory_zip_and_links(tmp_path):
    path = small(tmp_path)
    images = image_directory(tmp_path / "all", range(1, 13))
    with zipfile.ZipFile(tmp_path / "train2017.zip", "w") as archive:
        for image in images.iterdir():
            archive.write(image, f"train2017/{image.name}")
    common = ["--train-annotations", path, "--targets", 3, "--train-samples", 4]
    sources = {
        "copied": [images],
        "hard": [images, "--link", "hard"],
        "symbolic": [images, "--link", "symbolic"],
        "unzipped": [tmp_path / "train2017.zip", "-p", 2],
    }
    results = {}
    for name, flags in sources.items():
        for _ in range(2):  # the second run finds everything in place
            assert run(*common, "-o", tmp_path / name, "--train-images", *flags) == 0
        folder = tmp_path / name / "train2017"
        results[name] = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    chosen = {key.split("/")[1] for key in json.loads((tmp_path / "copied" / "labels_train.json").read_text())}
    assert set(results["copied"]) == chosen
    assert 0 < len(chosen) < 12
    assert all(result == results["copied"] for result in results.values())
    name = min(chosen)
    assert (tmp_path / "hard" / "train2017" / name).samefile(images / name)
    assert (tmp_path / "symbolic" / "train2017" / name).is_symlink()
    assert not (tmp_path / "copied" / "train2017" / name).samefile(images / name)


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
    assert left - chosen == {"labels_train.json", "trim_report.csv", "balance_train.png"}


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
    assert set(contents(tmp_path / "o")) == {"labels_val.json", "trim_report.csv", "balance_val.png"}
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


@pytest.mark.parametrize("zipped", [False, True])
def test_missing_images_are_listed_and_the_rest_done(tmp_path, capsys, zipped):
    images = image_directory(tmp_path / "all", range(1, 11))
    if zipped:
        with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
            for image in images.iterdir():
                archive.write(image, image.name)
        images = tmp_path / "i.zip"
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o", "--train-images", images]
    command += ["--layout", "imagefolder"]
    assert run(*command) == 1
    err = capsys.readouterr().err
    assert f"{11:012}.jpg: expected an image in {images}, found none" in err
    assert f"{12:012}.jpg" in err
    assert len(json.loads((tmp_path / "o" / "labels_train.json").read_text())) == 12
    assert len(list((tmp_path / "o" / "train2017").glob("*.jpg"))) == 10
    metadata = tmp_path / "o" / "train2017" / "metadata.jsonl"
    assert len(metadata.read_text().splitlines()) == 10
    if not zipped:
        for i in (11, 12):
            (images / f"{i:012}.jpg").write_bytes(jpeg(i))
        assert run(*command) == 0
        assert len(metadata.read_text().splitlines()) == 12


def test_many_missing_images_are_listed_in_a_file(tmp_path, capsys):
    labels = [(i, [3] if i % 2 else [1]) for i in range(1, 61)]
    path = write(tmp_path / "a.json", make_content(labels))
    images = image_directory(tmp_path / "all", range(1, 11))
    command = ["--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--train-images", images]
    assert run(*command) == 1
    listing = tmp_path / "o" / "missing_train2017.txt"
    assert f"30 more images are missing; {listing} lists all 50" in capsys.readouterr().err
    assert listing.read_text().split() == [f"{i:012}.jpg" for i in range(11, 61)]
    for i in range(11, 61):
        (images / f"{i:012}.jpg").write_bytes(jpeg(i))
    assert run(*command) == 0
    assert not listing.exists()


def test_damaged_zip_entry_is_named_and_the_rest_done(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
        for i in range(1, 13):
            archive.writestr(f"train2017/{i:012}.jpg", jpeg(i))
        offset = archive.getinfo(f"train2017/{5:012}.jpg").header_offset
    data = bytearray((tmp_path / "i.zip").read_bytes())
    data[offset + 200] ^= 255
    (tmp_path / "i.zip").write_bytes(data)
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o"]
    assert run(*command, "--train-images", tmp_path / "i.zip") == 1
    assert f"expected a readable train2017/{5:012}.jpg, found Bad CRC-32" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "o" / "train2017").iterdir()} == {f"{i:012}.jpg" for i in range(1, 13)} - {
        f"{5:012}.jpg"
    }


def test_link_in_a_zip_is_refused(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
        entry = zipfile.ZipInfo(f"{1:012}.jpg")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/hosts")
        archive.writestr(f"{2:012}.jpg", jpeg(2))
    path = write(tmp_path / "a.json", make_content([(1, [3]), (2, [1])]))
    command = ["--train-annotations", path, "--targets", 3, "-o", tmp_path / "o"]
    assert run(*command, "--train-images", tmp_path / "i.zip", "--link", "hard") == 1
    err = capsys.readouterr().err
    assert f"expected {1:012}.jpg to be a file, found a link" in err
    assert "images in an archive are written out; --link hard is for directories" in err
    assert [p.name for p in (tmp_path / "o" / "train2017").iterdir()] == [f"{2:012}.jpg"]


def test_hard_link_to_another_file_system(tmp_path, capsys, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    images = image_directory(tmp_path / "all", range(1, 13))
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o", "-p", 1]
    assert run(*command, "--train-images", images, "--link", "hard") == 1
    assert "none (Invalid cross-device link); use --link symbolic or --link copy" in capsys.readouterr().err


def test_no_zip_at_all(tmp_path, capsys):
    (tmp_path / "i.zip").write_bytes(b"no archive")
    command = ["--train-annotations", small(tmp_path), "--targets", 3, "-o", tmp_path / "o"]
    assert run(*command, "--train-images", tmp_path / "i.zip") == 1
    assert "expected a complete zip archive" in capsys.readouterr().err


# --- downloads -------------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_unless_asked(tmp_path, capsys):
    asked = []
    with serve(lambda handler: asked.append(handler.path)) as url:
        content = make_content([(1, [3]), (2, [1])])
        for image in content["images"]:
            image["coco_url"] = f"{url}/{image['file_name']}"
        path = write(tmp_path / "a.json", content)
        assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0
        empty = image_directory(tmp_path / "empty", [])
        assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--train-images", empty) == 1
    assert asked == []
    assert "--download" in capsys.readouterr().out


def test_download_fetches_only_what_is_chosen_and_not_at_hand(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("emcurate.fetching.downloads.FIRST_PAUSE_SECONDS", 0.01)
    asked, breaks = [], {f"/{7:012}.jpg": 1, f"/{8:012}.jpg": 99}

    def answer(handler):
        asked.append(handler.path)
        body = jpeg(int(handler.path[1:-4]))
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if breaks.get(handler.path, 0):
            breaks[handler.path] -= 1
            body = body[:100]
        handler.wfile.write(body)

    with serve(answer) as url:
        labels = [(i, [3] if i % 2 else [1]) for i in range(1, 21)]
        content = make_content(labels)
        for image in content["images"]:
            image["coco_url"] = f"{url}/{image['file_name']}"
        content["images"][8].pop("coco_url")  # image 9
        path = write(tmp_path / "a.json", content)
        at_hand = image_directory(tmp_path / "some", range(1, 5))
        command = ["--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--train-samples", 2000]
        command += ["--download", "--train-images", at_hand]
        assert run(*command) == 1
        err = capsys.readouterr().err
        assert f"/{8:012}.jpg: expected {len(jpeg(8)):,} bytes, found a connection that broke off after 100" in err
        assert (
            f"{9:012}.jpg: expected an image in {at_hand}, found none of that name; no address is known for it" in err
        )
        assert {name[1:] for name in asked} == {f"{i:012}.jpg" for i in range(5, 21)} - {f"{9:012}.jpg"}
        folder = tmp_path / "o" / "train2017"
        there = {p.name: p.read_bytes() for p in folder.glob("*.jpg")}
        assert there == {f"{i:012}.jpg": jpeg(i) for i in range(1, 21) if i not in (8, 9)}
        asked.clear()
        breaks.clear()
        assert run(*command) == 1  # image 9 is still nowhere
        assert set(asked) == {f"/{8:012}.jpg"}
        assert (folder / f"{8:012}.jpg").read_bytes() == jpeg(8)


def test_downloads_run_side_by_side(tmp_path):
    together = threading.Barrier(8)

    def answer(handler):
        together.wait(20)  # breaks, and with it the test, unless eight ask at the same time
        body = jpeg(1)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serve(answer) as url:
        content = make_content([(i, [3] if i % 2 else [1]) for i in range(1, 17)])
        for image in content["images"]:
            image["coco_url"] = f"{url}/{image['file_name']}"
        path = write(tmp_path / "a.json", content)
        assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--download") == 0
    assert len(list((tmp_path / "o" / "train2017").iterdir())) == 16


def test_download_refuses_local_files(tmp_path, capsys):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    content = make_content([(1, [3]), (2, [1])])
    for image in content["images"]:
        image["coco_url"] = secret.as_uri()
    path = write(tmp_path / "a.json", content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--download") == 1
    assert "expected an http or https address" in capsys.readouterr().err
    assert list((tmp_path / "o" / "train2017").iterdir()) == []


# --- masks and layouts -----------------------------------------------------------------------------------------------


def test_masks_load_in_pycocotools_with_segmentations_unchanged(tmp_path, real_data):
    coco = pytest.importorskip("pycocotools.coco").COCO
    source = real_data / "coco_tiny80" / "annotations" / "instances_val2017.json"
    assert run("--val-annotations", source, "--targets", 3, 1, "--val-samples", 20, "-o", tmp_path, "--masks") == 0
    before, after = coco(str(source)), coco(str(tmp_path / "instances_val_trimmed.json"))
    chosen = {key.split("/")[1] for key in json.loads((tmp_path / "labels_val.json").read_text())}
    assert {image["file_name"] for image in after.imgs.values()} == chosen
    assert {i: before.imgs[i] for i in after.imgs} == after.imgs
    assert after.cats == before.cats
    expected = [a for a in before.dataset["annotations"] if a["image_id"] in after.imgs]
    assert after.dataset["annotations"] == expected
    assert any(a["iscrowd"] for a in expected)
    for annotation in expected:
        mask = after.annToMask(after.anns[annotation["id"]])
        np.testing.assert_array_equal(mask, before.annToMask(before.anns[annotation["id"]]))


def test_annotations_that_share_an_id_get_their_own_in_masks(tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco").COCO
    content = make_content([(1, [3, 1]), (2, [1])])
    content["annotations"][1]["id"] = 1
    content["annotations"].append(dict(content["annotations"][2]))  # the very same record twice
    path = write(tmp_path / "a.json", content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--masks") == 0
    assert "1 annotations had no id or one that another has" in capsys.readouterr().err
    loaded = coco(str(tmp_path / "o" / "instances_train_trimmed.json"))
    assert sorted(loaded.anns) == [1, 3, 4]
    assert loaded.anns[4] == {**content["annotations"][1], "id": 4}


def test_imagefolder_layout_loads_with_labels(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "val").mkdir()
    train, val = small(tmp_path), small(tmp_path / "val", 6)
    images = image_directory(tmp_path / "all", range(1, 13))
    command = ["--train-annotations", train, "--val-annotations", val, "--targets", 3, "--train-samples", 4]
    command += ["--train-images", images, "--val-images", images, "--layout", "imagefolder", "-o", tmp_path / "o"]
    assert run(*command) == 0
    program = (
        "import datasets, json, sys; d = datasets.load_dataset('imagefolder', data_dir=sys.argv[1]);"
        "print(json.dumps({s: [[r['labels'], r['label_names'], r['image'].size] for r in d[s]] for s in d}))"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "o"], env=environment, capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert set(loaded) == {"train", "validation"}
    for split, name in (("train", "train"), ("validation", "val")):
        labels = list(json.loads((tmp_path / "o" / f"labels_{name}.json").read_text()).values())
        by_labels = sorted([[l, [NAMES[i] for i in l], [8, 6]] for l in labels], key=str)  # noqa: E741
        assert sorted(loaded[split], key=str) == by_labels


def test_balance_picture_is_a_picture(tmp_path):
    run("--train-annotations", small(tmp_path), "--targets", 3, 6, "-o", tmp_path / "o")
    with Image.open(tmp_path / "o" / "balance_train.png") as image:
        assert len(image.convert("RGB").getcolors(1 << 16)) > 3


# --- files not to be trusted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg", "C:\\x.jpg", "..\\x.jpg", "", "a//b.jpg", "x\0.jpg"],
)
def test_file_name_that_leads_out_is_refused(tmp_path, capsys, name):
    content = make_content([(1, [3]), (2, [1])])
    content["images"][0]["file_name"] = name
    path = write(tmp_path / "a.json", content)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    images = image_directory(tmp_path / "all", [1, 2])
    command = ["--train-annotations", path, "--targets", 3, "--train-images", images, "-o", tmp_path / "o" / "p"]
    assert run(*command) == 1
    assert "expected file names inside the image directory" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_link_in_image_directory_is_not_followed_out(tmp_path, capsys):
    (tmp_path / "secret").write_bytes(b"secret")
    images = image_directory(tmp_path / "all", [2])
    (images / f"{1:012}.jpg").symlink_to(tmp_path / "secret")
    path = write(tmp_path / "a.json", make_content([(1, [3]), (2, [1])]))
    assert run("--train-annotations", path, "--targets", 3, "--train-images", images, "-o", tmp_path / "o") == 1
    assert "which a link leads out of" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "o" / "train2017").iterdir()] == [f"{2:012}.jpg"]


def test_link_in_output_is_not_written_through(tmp_path, capsys):
    outside = tmp_path / "outside"
    outside.mkdir()
    content = make_content([(1, [3]), (2, [1])])
    content["images"][0]["file_name"] = "sub/one.jpg"
    images = image_directory(tmp_path / "all", [2])
    (images / "sub").mkdir()
    (images / "sub" / "one.jpg").write_bytes(jpeg(1))
    path = write(tmp_path / "a.json", content)
    command = ["--train-annotations", path, "--targets", 3, "--train-images", images]
    assert run(*command, "-o", tmp_path / "fine") == 0
    assert (tmp_path / "fine" / "train2017" / "sub" / "one.jpg").read_bytes() == jpeg(1)
    (tmp_path / "o" / "train2017").mkdir(parents=True)
    (tmp_path / "o" / "train2017" / "sub").symlink_to(outside)
    assert run(*command, "-o", tmp_path / "o") == 1
    assert "which a link leads out of" in capsys.readouterr().err
    assert list(outside.iterdir()) == []


BAD_JSON = {
    "empty": (b"", "an empty file"),
    "truncated": (b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "cat', "truncated"),
    "text": (b"hello", "no complete JSON"),
    "results": (b'[{"image_id": 1, "category_id": 3, "score": 0.5}]', "JSON that is no object (a list of results?)"),
    "other": (b'{"info": {}, "data": []}', "an object of info, data, without annotations and images"),
    "test": (b'{"info": {}, "images": [], "categories": []}', "without annotations"),
    "captions": (
        b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "id": 7, "caption": "a dog"}]}',
        "annotations of image_id, id, caption, without category_id",
    ),
    "strings": (
        b'{"images": [{"id": "1", "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "category_id": 2}]}',
        "Expected `int`, got `str` - at `$.images[0].id`",
    ),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_bad_json(tmp_path, capsys, kind):
    data, message = BAD_JSON[kind]
    (tmp_path / "a.json").write_bytes(data)
    assert run("--train-annotations", tmp_path / "a.json", "-o", tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert str(tmp_path / "a.json") in err
    assert message in err
    assert "Traceback" not in err


def test_byte_order_mark_is_fine(tmp_path):
    path = small(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0


def test_annotations_of_unknown_images_are_left_out(tmp_path, capsys):
    content = make_content([(1, [3]), (2, [1]), (3, [3]), (4, [3])])
    content["images"] = content["images"][:2]
    path = write(tmp_path / "a.json", content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--masks") == 0
    assert "2 images (3, 4) that annotations name but the images list lacks" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "o" / "labels_train.json").read_text())) == 2


def test_missing_categories(tmp_path, capsys):
    content = make_content([(1, [3]), (2, [1]), (2, [77])])
    content["categories"] = [c for c in content["categories"] if c["id"] != 77]
    path = write(tmp_path / "a.json", content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0
    assert "1 category (77) without an entry" in capsys.readouterr().err
    del content["categories"]
    write(path, content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o2") == 0
    assert "no categories list" in capsys.readouterr().err
    assert run("--train-annotations", path, "--targets", "car", "-o", tmp_path / "o3") == 1
    first, second = tmp_path / "o" / "labels_train.json", tmp_path / "o2" / "labels_train.json"
    assert first.read_bytes() == second.read_bytes()


def test_duplicate_image_ids(tmp_path, capsys):
    content = make_content([(1, [3]), (2, [1])])
    content["images"].append(dict(content["images"][0]))
    path = write(tmp_path / "a.json", content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o") == 0
    assert "1 images are listed twice" in capsys.readouterr().err
    content["images"][-1]["file_name"] = "other.jpg"
    write(path, content)
    assert run("--train-annotations", path, "--targets", 3, "-o", tmp_path / "o2") == 1
    assert "image id 1 for 000000000001.jpg and other.jpg" in capsys.readouterr().err


def test_two_images_of_one_name(tmp_path, capsys):
    content = make_content([(1, [3]), (2, [1])])
    content["images"][1]["file_name"] = content["images"][0]["file_name"]
    assert run("--train-annotations", write(tmp_path / "a.json", content), "--targets", 3, "-o", tmp_path / "o") == 1
    assert "a file name of its own for each image" in capsys.readouterr().err


def test_merged_files_must_agree_on_categories(tmp_path, capsys):
    one = write(tmp_path / "1.json", make_content([(1, [3])]))
    other = write(tmp_path / "2.json", make_content([(1, [3])], {3: "cat"}))
    assert run("--train-annotations", one, other, "-o", tmp_path / "o") == 1
    assert "category 3 called 'car' and 'cat'" in capsys.readouterr().err


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "expected --train-annotations, --val-annotations or both"),
        (["--train-annotations", "nowhere.json"], "expected a file, found nothing"),
        (["--train-annotations", __file__, "--train-samples", "5"], "expected an even number, found '5'"),
        (["--train-annotations", __file__, "--val-images", "."], "expected --val-annotations too"),
        (["--train-annotations", __file__, "--train-images", "nowhere"], "expected a file, found nothing"),
    ],
)
def test_wrong_arguments(capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        run(*flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help_tells_the_three_numberings_apart(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    for words in ("1 to 182", "0 to 181", "255", "merges all things"):
        assert words in text


def test_runs_as_a_script_from_anywhere(tmp_path, root):
    images = image_directory(tmp_path / "all", range(1, 13))
    command = [sys.executable, root / "data_prep" / "trim_coco.py", "--train-annotations", small(tmp_path)]
    command += ["--targets", "car", "--train-images", images]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 files written" in done.stdout
    assert len(list((tmp_path / "trimmed" / "train2017").iterdir())) == 12
