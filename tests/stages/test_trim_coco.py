"""trim_coco: the published selection, its targets, and what is written about it."""

import csv
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.coco_sets import NAMES, image_directory, make_content, run, small, write


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
    assert "4 files written" in done.stdout
    assert len(list((tmp_path / "trimmed" / "train2017").iterdir())) == 12
