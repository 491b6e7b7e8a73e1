"""trim_siim: the published order and cut, and rows whose text stays as it was."""

import csv
import gzip
import hashlib
import importlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter

import numpy as np
import pytest

from emcurate.outputs import digest_file
from tests.results import check_each_selection_after_another, contents

trim_siim = importlib.import_module("data_prep.trim_siim")

HEADER = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"

# What ISIC 2020 holds.
ROWS, MALIGNANT = 33_126, 584


def make_metadata(rows=ROWS, malignant=MALIGNANT, seed=0, patients=2056, header=HEADER):
    """Return a metadata csv with the real file's numbers of rows and classes."""
    rng = np.random.default_rng(seed)
    is_malignant = np.zeros(rows, bool)
    is_malignant[rng.choice(rows, malignant, replace=False)] = True
    ages = rng.integers(2, 18, rows) * 5
    owners = rng.integers(0, patients, rows)
    lines = [header]
    for i in range(rows):
        age = "" if i % 487 == 0 else ages[i]
        kind, diagnosis = ("malignant", "melanoma") if is_malignant[i] else ("benign", "unknown")
        lines.append(f"ISIC_{i * 7:07},IP_{owners[i]:07},male,{age},torso,{diagnosis},{kind},{int(is_malignant[i])}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def full_text():
    return make_metadata()


@pytest.fixture(scope="module")
def full(full_text, tmp_path_factory):
    path = tmp_path_factory.mktemp("siim") / "train.csv"
    path.write_text(full_text)
    return path


def run(*arguments):
    return trim_siim.main([str(argument) for argument in arguments])


def rows_of(path):
    return path.read_text().splitlines()[1:]


def test_published_rows_of_the_full_file(full, full_text, tmp_path):
    assert run("--metadata", full, "-o", tmp_path) == 0
    lines = full_text.splitlines()
    classes = np.array([line.split(",")[6] for line in lines[1:]], dtype=object)
    ordered = [lines[1:][i] for i in np.argsort(classes, kind="quicksort")]
    benign = [line for line in ordered if ",benign," in line][2000:4000]
    malignant = [line for line in ordered if ",malignant," in line][50:550]
    assert (tmp_path / "metadata_small.csv").read_text() == "\n".join([lines[0], *benign, *malignant]) + "\n"


def test_published_order_is_that_of_pandas_on_object_columns(full, tmp_path):
    pandas = pytest.importorskip("pandas")
    run("--metadata", full, "-o", tmp_path)
    frame = pandas.read_csv(full, dtype={"benign_malignant": object})
    ordered = frame.sort_values("benign_malignant")
    benign = ordered[ordered["benign_malignant"] == "benign"][2000:4000]
    malignant = ordered[ordered["benign_malignant"] == "malignant"][50:550]
    expected = pandas.concat([benign, malignant])["image_name"].tolist()
    assert [row.split(",")[0] for row in rows_of(tmp_path / "metadata_small.csv")] == expected
    assert expected != sorted(expected)  # it does not keep the order of the file


def test_stable_order_keeps_the_order_of_the_file(full, tmp_path):
    assert run("--metadata", full, "-o", tmp_path, "--order", "stable") == 0
    names = [row.split(",")[0] for row in rows_of(tmp_path / "metadata_small.csv")]
    assert names[:2000] == sorted(names[:2000])
    assert names[2000:] == sorted(names[2000:])


def test_other_cut(full, tmp_path):
    flags = ["--order", "stable", "--benign", "0:3", "--malignant", "2:4"]
    assert run("--metadata", full, "-o", tmp_path, *flags) == 0
    rows = list(csv.DictReader(full.open()))
    benign = [row["image_name"] for row in rows if row["benign_malignant"] == "benign"][:3]
    malignant = [row["image_name"] for row in rows if row["benign_malignant"] == "malignant"][2:4]
    assert [row.split(",")[0] for row in rows_of(tmp_path / "metadata_small.csv")] == benign + malignant


AWKWARD = [
    b'"ISIC_1",IP_1,45,"a, quoted ""word""",benign',
    b"ISIC_2,IP_2,,nan,benign",
    b"ISIC_3,IP_2,45.0, spaced ,malignant",
    b'ISIC_4,"",007,"two\nlines",malignant',
    b"ISIC_5,IP_5,1e3,caf\xc3\xa9,benign",
    b"ISIC_6,IP_6,,latin caf\xe9,malignant",
]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_rows_are_copied_byte_for_byte(tmp_path, ending, mark, last):
    head = mark + b"isic_id,patient_id,age,note,benign_malignant"
    data = ending.join([head, *AWKWARD]) + (ending if last else b"")
    (tmp_path / "m.csv").write_bytes(data)
    flags = ["--benign", "0:3", "--malignant", "0:3", "--order", "stable"]
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o", *flags) == 0
    expected = [head] + [AWKWARD[i] for i in (0, 1, 4, 2, 3, 5)]
    assert (tmp_path / "o" / "metadata_small.csv").read_bytes() == ending.join(expected) + ending


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("first", [b'"image_name"', b'"image_name, ""quoted""",image_name', b"image_name"])
def test_a_quoted_header_is_read_after_a_byte_order_mark_and_stays_as_it_is(tmp_path, mark, ending, first):
    odd = b'"x","' if first.count(b",") else b'"'
    head = mark + first + b',"patient_id","benign_malignant"'
    rows = [odd + b'a","p","benign"', odd + b'b","q","malignant"']
    (tmp_path / "m.csv").write_bytes(ending.join([head, *rows, b""]))
    flags = ["--benign", "0:1", "--malignant", "0:1", "--one-per-patient"]
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o", *flags) == 0
    assert (tmp_path / "o" / "metadata_small.csv").read_bytes() == ending.join([head, *rows, b""])


def test_blank_lines_are_skipped(tmp_path):
    (tmp_path / "m.csv").write_text("file_name,patient_id,benign_malignant\n\na,1,benign\n\nb,2,malignant\n\n")
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o", "--benign", "0:1", "--malignant", "0:1") == 0
    assert (tmp_path / "o" / "metadata_small.csv").read_text() == (
        "file_name,patient_id,benign_malignant\na,1,benign\nb,2,malignant\n"
    )


def test_report(full, tmp_path):
    run("--metadata", full, "-o", tmp_path)
    rows = list(csv.DictReader((tmp_path / "metadata_small.csv").open()))
    report = {row["class"]: row for row in csv.DictReader((tmp_path / "trim_report.csv").open())}
    for name, available in (("benign", ROWS - MALIGNANT), ("malignant", MALIGNANT)):
        counts = Counter(row["patient_id"] for row in rows if row["benign_malignant"] == name)
        assert report[name] == {
            "class": name,
            "available": str(available),
            "taken": str(counts.total()),
            "patients": str(len(counts)),
            "rows_per_patient": f"{counts.total() / len(counts):.2f}",
            "most_rows_of_a_patient": str(max(counts.values())),
        }


def test_warns_of_a_patient_with_many_rows(tmp_path, capsys):
    (tmp_path / "m.csv").write_text(make_metadata(6000, 600, patients=150))
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o") == 0
    assert "patients have more than 10 of the rows chosen (IP_" in capsys.readouterr().err


def test_one_per_patient(tmp_path):
    (tmp_path / "m.csv").write_text(make_metadata(6000, 600, patients=300))
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "all") == 0
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "one", "--one-per-patient") == 0
    everything = list(csv.DictReader((tmp_path / "all" / "metadata_small.csv").open()))
    kept = list(csv.DictReader((tmp_path / "one" / "metadata_small.csv").open()))
    assert Counter(row["patient_id"] for row in kept) == Counter({row["patient_id"] for row in everything})
    with_melanoma = {row["patient_id"] for row in everything if row["target"] == "1"}
    assert {row["patient_id"] for row in kept if row["target"] == "1"} == with_melanoma
    names = [row["image_name"] for row in everything]
    places = [names.index(row["image_name"]) for row in kept]
    assert places == sorted(places)


@pytest.mark.parametrize("share", ["0.8", "0.5"])
def test_split_shares_no_patient(full, tmp_path, share):
    assert run("--metadata", full, "-o", tmp_path, "--split", share, "--by", "patient") == 0
    small, train, test = (
        list(csv.DictReader((tmp_path / f"metadata_{name}.csv").open())) for name in ("small", "train", "test")
    )
    assert {row["patient_id"] for row in train}.isdisjoint(row["patient_id"] for row in test)
    assert sorted(map(str, train + test)) == sorted(map(str, small))
    assert len(train) / len(small) == pytest.approx(float(share), abs=0.01)
    melanomas = [sum(row["target"] == "1" for row in rows) for rows in (train, small)]
    assert melanomas[0] / melanomas[1] == pytest.approx(float(share), abs=0.05)


def test_split_by_image_and_seed(full, tmp_path):
    for seed in ("1", "2"):
        flags = ["--split", "0.8", "--by", "image", "--seed", seed]
        assert run("--metadata", full, "-o", tmp_path / seed, *flags) == 0
    assert len(rows_of(tmp_path / "1" / "metadata_train.csv")) == 2000
    first, second = ((tmp_path / seed / "metadata_train.csv").read_text() for seed in "12")
    assert first != second
    small = [(tmp_path / seed / "metadata_small.csv").read_text() for seed in "12"]
    assert small[0] == small[1]


@pytest.mark.parametrize("second", ["{}", "{}.jpg"], ids=["the same name", "its file's name"])
def test_split_by_image_keeps_rows_of_one_image_on_one_side(tmp_path, second):
    rows = [(f"ISIC_{i}", f"IP_{i}", "malignant" if i % 2 else "benign") for i in range(20)]
    lines = [",".join((way.format(row[0]), *row[1:])) for row in rows for way in ("{}", second)]
    (tmp_path / "m.csv").write_text("\n".join(["image_name,patient_id,benign_malignant", *lines]) + "\n")
    flags = ["--benign", "0:20", "--malignant", "0:20", "--split", "0.5", "--by", "image"]
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o", *flags) == 0
    train, test = (
        [row.split(",")[0].removesuffix(".jpg") for row in rows_of(tmp_path / "o" / f"metadata_{name}.csv")]
        for name in ("train", "test")
    )
    assert set(train).isdisjoint(test)
    assert len(train) == len(test) == 20


def test_without_patients(tmp_path, capsys):
    (tmp_path / "m.csv").write_text("image_name,benign_malignant\na,benign\nb,malignant\n")
    command = ["--metadata", tmp_path / "m.csv", "--benign", "0:1", "--malignant", "0:1"]
    assert run(*command, "-o", tmp_path / "o") == 0
    assert "no column patient_id" in capsys.readouterr().err
    assert (tmp_path / "o" / "trim_report.csv").read_text().splitlines()[1] == "benign,1,1,,,"
    assert run(*command, "-o", tmp_path / "p", "--split", "0.5") == 1
    assert "expected a column patient_id, found the columns image_name, benign_malignant" in capsys.readouterr().err


def test_rows_without_patient_stand_alone(tmp_path, capsys):
    text = "image_name,patient_id,benign_malignant\na,,benign\nb,,benign\nc,p,malignant\n"
    (tmp_path / "m.csv").write_text(text)
    flags = ["--benign", "0:2", "--malignant", "0:1", "--one-per-patient"]
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o", *flags) == 0
    assert "2 rows without a patient_id" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "o" / "metadata_small.csv")) == 3


def few(tmp_path, column="image_name", suffix=""):
    names = ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4", "ISIC_5"]
    lines = [f"{name}{suffix},p{i},{'malignant' if i > 2 else 'benign'}" for i, name in enumerate(names)]
    path = tmp_path / "m.csv"
    path.write_text("\n".join([f"{column},patient_id,benign_malignant", *lines]) + "\n")
    return ["--metadata", path, "--benign", "0:3", "--malignant", "0:2"]


@pytest.mark.parametrize(
    ("column", "suffix"), [("image_name", ""), ("isic_id", ""), ("file_name", ".jpg"), ("file_name", ".JPG")]
)
def test_images_are_gathered_from_anywhere_below(tmp_path, capsys, column, suffix):
    images = tmp_path / "images"
    places = {"ISIC_1": "ISIC_1.jpg", "ISIC_2": "a/ISIC_2.JPG", "ISIC_3": "a/b/c/ISIC_3.jpeg", "ISIC_4": "ISIC_4.DCM"}
    for name, place in {**places, "x": "a/ISIC_9.jpg", "y": "a/ISIC_5.txt"}.items():
        (images / place).parent.mkdir(parents=True, exist_ok=True)
        (images / place).write_text(name)
    command = [*few(tmp_path, column, suffix), "--images", images, "-o", tmp_path / "o"]
    assert run(*command) == 1
    assert f"ISIC_5{suffix}: expected an image in {images}, found none of that name" in capsys.readouterr().err
    gathered = {path.name: path.read_text() for path in (tmp_path / "o" / "images").iterdir()}
    assert gathered == {place.split("/")[-1]: name for name, place in places.items()}
    (images / "ISIC_5.png").write_text("ISIC_5")
    assert run(*command) == 0
    assert (tmp_path / "o" / "images" / "ISIC_5.png").read_text() == "ISIC_5"
    capsys.readouterr()
    assert run(*command) == 0
    assert "0 files written, 3 files already there, 5 rows chosen, 0 images placed, 5 images already there" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_links_and_output_inside_the_image_directory(tmp_path, link):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(1, 6):
        (images / f"ISIC_{i}.jpg").write_text(str(i))
    for _ in range(2):
        assert run(*few(tmp_path), "--images", images, "-o", images / "small", "--link", link) == 0
    gathered = images / "small" / "images" / "ISIC_1.jpg"
    assert gathered.samefile(images / "ISIC_1.jpg")
    assert gathered.is_symlink() == (link == "symbolic")


def test_one_kind_is_preferred_and_two_of_it_are_ambiguous(tmp_path, capsys):
    images = tmp_path / "images"
    (images / "a").mkdir(parents=True)
    for i in range(1, 6):
        (images / f"ISIC_{i}.jpg").write_text("jpg")
        (images / f"ISIC_{i}.dcm").write_text("dcm")
    (images / "a" / "ISIC_2.jpg").write_text("another")
    assert run(*few(tmp_path), "--images", images, "-o", tmp_path / "o") == 1
    assert "ISIC_2: expected one .jpg file of that name, found" in capsys.readouterr().err
    gathered = sorted(path.name for path in (tmp_path / "o" / "images").iterdir())
    assert gathered == ["ISIC_1.jpg", "ISIC_3.jpg", "ISIC_4.jpg", "ISIC_5.jpg"]


FEW_ROWS = "a,1,benign\nb,2,malignant\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a csv file with a header, found an empty file"),
        (
            "name,benign_malignant\na,benign\n",
            "expected a column image_name, isic_id or file_name, found the columns name",
        ),
        ("image_name,patient_id,target\na,1,0\n", "expected a column benign_malignant, found the columns image_name"),
        (
            "image_name,patient_id,benign_malignant\n",
            "at least 4,000 benign rows for --benign 2000:4000, found 0 (no rows)",
        ),
        (
            "image_name,patient_id,benign_malignant\n" + FEW_ROWS + "c,3,\n",
            "at least 4,000 benign rows for --benign 2000:4000, found 1 (benign 1, malignant 1, empty 1)",
        ),
        (
            "image_name,patient_id,benign_malignant\n" + FEW_ROWS + "c,3,Benign\nd,3,Benign\n",
            "expected classes spelled benign and malignant, found Benign 2, benign 1, malignant 1",
        ),
        ("image_name,patient_id,benign_malignant\na,1\n", "expected 3 cells in the row ending at line 2, found 2"),
        ('image_name,patient_id,benign_malignant\n"a,1,benign\n', "expected a csv file, found unexpected end of data"),
    ],
)
def test_bad_metadata(tmp_path, capsys, text, message):
    (tmp_path / "m.csv").write_text(text)
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert message in err
    assert str(tmp_path / "m.csv") in err
    assert not (tmp_path / "o").exists()


def packed(text):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.csv", text)
    return buffer.getvalue()


GOOD = "image_name,patient_id,benign_malignant\na,1,benign\nb,2,malignant\n"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'[{"image_name": "a"}]', "JSON"),
        (b'\xef\xbb\xbf \n {"image_name": ["a"]}', "JSON"),
        (packed(GOOD), "a zip archive or an Excel workbook"),
        (gzip.compress(GOOD.encode()), "a file packed with gzip"),
        (b"<!DOCTYPE html><html></html>", "a web page or XML"),
        (b"PAR1\x15\x04", "a Parquet table"),
        (GOOD.encode("utf-16"), "text in UTF-16"),
        (b"a,b\n\0\0\0", "binary data"),
    ],
    ids=["list", "object", "zip", "gzip", "page", "parquet", "utf-16", "binary"],
)
def test_another_kind_of_file_is_named_where_a_csv_is_expected(tmp_path, capsys, data, kind):
    (tmp_path / "m.csv").write_bytes(data)
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o") == 1
    assert f"m.csv: expected a csv file with a header, found {kind}; name the metadata csv" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


# SHA-256, its first digits, of the file as Kaggle has it (ages such as 45.0) and as the ISIC archive has it (45), and
# of what pandas 3.1 and a literal cut make of it.
REAL = {
    "98c68a10eb669215e3458ad193a24a58": "31aee2976cc7087e4aa4d04c8ade69b7",
    "4461ae621981f6ece22d9861de60654f": "d5b51c3a0adabcb3d1e7e25296284c2e",
}


def test_the_real_file_gives_the_rows_that_pandas_gives_and_no_patient_on_both_sides(real_data, tmp_path):
    path = real_data / "siim" / "train.csv"
    if not path.is_file():
        pytest.skip(f"no SIIM-ISIC 2020 metadata at {path}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    assert digest in REAL, "another file, or one that a program has rewritten"
    assert run("--metadata", path, "-o", tmp_path, "--split", "0.8") == 0
    made = {name: (tmp_path / f"metadata_{name}.csv").read_bytes() for name in ("small", "train", "test")}
    assert hashlib.sha256(made["small"]).hexdigest()[:32] == REAL[digest]
    lines = set(path.read_bytes().splitlines(keepends=True))
    assert lines.issuperset(made["small"].splitlines(keepends=True))
    patients = [{line.split(b",")[1] for line in made[name].splitlines()[1:]} for name in ("train", "test")]
    assert patients[0].isdisjoint(patients[1])
    assert (len(patients[0]), len(patients[1])) == (991, 257)
    report = (tmp_path / "trim_report.csv").read_text().splitlines()
    assert report[1:] == ["benign,32542,2000,1057,1.89,11", "malignant,584,500,383,1.31,6"]
    assert 'license: "cc-by-nc-4.0"' in (tmp_path / "README.md").read_text()


def test_shortage_of_malignant_rows(tmp_path, capsys):
    (tmp_path / "m.csv").write_text(make_metadata(5000, 549))
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o") == 1
    assert "at least 550 malignant rows for --malignant 50:550, found 549 (benign 4,451, malignant 549)" in (
        capsys.readouterr().err
    )


def test_repeated_images_are_told(tmp_path, capsys):
    (tmp_path / "m.csv").write_text("image_name,patient_id,benign_malignant\na,1,benign\na,2,malignant\n")
    assert run("--metadata", tmp_path / "m.csv", "-o", tmp_path / "o", "--benign", "0:1", "--malignant", "0:1") == 0
    assert "1 of the rows chosen name an image that another one names too" in capsys.readouterr().err


def test_other_result_is_not_overwritten_without_flag(full, tmp_path, capsys):
    assert run("--metadata", full, "-o", tmp_path) == 0
    before = (tmp_path / "metadata_small.csv").read_bytes()
    assert run("--metadata", full, "-o", tmp_path, "--order", "stable") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "metadata_small.csv").read_bytes() == before
    assert run("--metadata", full, "-o", tmp_path, "--order", "stable", "--overwrite") == 0
    assert (tmp_path / "metadata_small.csv").read_bytes() != before


@pytest.fixture
def gathered(tmp_path):
    """A finished set with images and lists for training and testing, and the command that made it but for its cut."""
    (tmp_path / "all").mkdir()
    for i in range(1, 6):
        (tmp_path / "all" / f"ISIC_{i}.jpg").write_text(f"picture {i}")
    metadata = few(tmp_path)[:2]
    command = [*metadata, "--images", tmp_path / "all", "--malignant", "0:2", "-o"]
    assert run(*command, tmp_path / "o", "--benign", "0:3", "--split", "0.5", "--by", "image") == 0
    return tmp_path / "o", command


def test_another_cut_is_refused_whole_and_with_overwrite_leaves_nothing_of_the_earlier_one(gathered, tmp_path, capsys):
    out, command = gathered
    before = contents(out)
    assert {"metadata_train.csv", "metadata_test.csv", "images/ISIC_1.jpg"} < set(before)
    flags = ["--benign", "1:3", "--order", "stable"]
    assert run(*command, out, *flags) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert contents(out) == before
    assert run(*command, out, *flags, "--overwrite") == 0
    assert run(*command, tmp_path / "fresh", *flags) == 0
    assert contents(out) == contents(tmp_path / "fresh") != before


@pytest.mark.parametrize("harm", ["missing", "truncated", "altered"])
@pytest.mark.parametrize("name", ["metadata_small.csv", "metadata_test.csv", "trim_report.csv", "images/ISIC_2.jpg"])
def test_a_harmed_output_is_made_again_without_a_flag(gathered, capsys, name, harm):
    out, command = gathered
    before = contents(out)
    if harm == "missing":
        (out / name).unlink()
    else:
        (out / name).write_bytes(before[name][:5] if harm == "truncated" else before[name] + b"?")
    for written in ("1 files written", "0 files written"):
        assert run(*command, out, "--benign", "0:3", "--split", "0.5", "--by", "image") == 0
        assert contents(out) == before
        assert (written in capsys.readouterr().out) == (not name.startswith("images") or written[0] == "0")


def test_images_can_come_later_and_go_on_when_some_were_missing(tmp_path, capsys):
    images = tmp_path / "all"
    images.mkdir()
    (images / "ISIC_1.jpg").write_text("1")
    assert run(*few(tmp_path), "-o", tmp_path / "o") == 0
    assert run(*few(tmp_path), "-o", tmp_path / "o", "--images", images) == 1
    assert len(contents(tmp_path / "o")) == 4
    for i in range(2, 6):
        (images / f"ISIC_{i}.png").write_text(str(i))
    capsys.readouterr()
    assert run(*few(tmp_path), "-o", tmp_path / "o", "--images", images) == 0
    assert "4 images placed, 1 images already there" in capsys.readouterr().out
    assert run(*few(tmp_path), "-o", tmp_path / "at once", "--images", images) == 0
    assert contents(tmp_path / "o") == contents(tmp_path / "at once")
    # A run without them leaves them, even if it has something to mend; one that is harmed it cannot mend.
    (tmp_path / "o" / "trim_report.csv").unlink()
    assert run(*few(tmp_path), "-o", tmp_path / "o") == 0
    assert contents(tmp_path / "o") == contents(tmp_path / "at once")
    (tmp_path / "o" / "images" / "ISIC_3.png").unlink()
    for _ in range(2):
        assert run(*few(tmp_path), "-o", tmp_path / "o") == 1
        assert "1 missing or altered, such as images/ISIC_3.png; give --images" in capsys.readouterr().err


def test_images_are_never_brought_to_where_they_come_from(tmp_path, capsys):
    images = tmp_path / "o" / "images"
    images.mkdir(parents=True)
    for i in range(1, 6):
        (images / f"ISIC_{i}.jpg").write_text(str(i))
    for flags in ([], ["--benign", "0:1", "--overwrite"]):
        assert run(*few(tmp_path), *flags, "--images", images, "-o", tmp_path / "o") == 1
        assert "expected a directory of its own for the results" in capsys.readouterr().err
        assert len(list(images.iterdir())) == 5


CUTS = [
    ["--benign", "0:3", "--split", "0.5", "--by", "image"],
    ["--benign", "0:3", "--split", "0.5", "--by", "patient", "--seed", 1],
    ["--benign", "1:2"],
    ["--benign", "1:3", "--order", "stable", "--one-per-patient"],
]


def test_any_cut_after_any_other_equals_a_fresh_one_or_is_refused_whole(gathered, tmp_path):
    _, command = gathered
    order = (1, 2, 3, 0, 2, 0, 3, 1, 0)  # each after each but for a few
    check_each_selection_after_another(lambda *words: run(*command, *words), CUTS, order, tmp_path)


WHOLE = ["--benign", "0:3", "--split", "0.5", "--by", "image"]


@pytest.mark.parametrize("link", ["copy", "hard", "symbolic"])
@pytest.mark.parametrize("way", ["replaced", "written over"])
def test_a_changed_source_image_is_refused_alone_and_replaced_with_overwrite(tmp_path, capsys, link, way):
    images, out = tmp_path / "all", tmp_path / "o"
    images.mkdir()
    for i in range(1, 6):
        (images / f"ISIC_{i}.jpg").write_text(f"picture {i}")
    command = [*few(tmp_path), "--images", images, "--link", link]
    assert run(*command, "-o", out) == 0
    before = contents(out)
    other = tmp_path / "other"
    other.write_text("picture 7")  # as long
    if way == "replaced":
        other.replace(images / "ISIC_2.jpg")
    else:
        shutil.copyfile(other, images / "ISIC_2.jpg")
    (out / "images" / "ISIC_4.jpg").unlink()
    is_seen_through = link == "symbolic" or (link, way) == ("hard", "written over")
    for placed in (1, 0):
        capsys.readouterr()
        assert run(*command, "-o", out) == 1
        told = capsys.readouterr()
        assert f"{images / 'ISIC_2.jpg'}: expected the image that was placed as {out / 'images' / 'ISIC_2.jpg'}" in (
            told.err
        )
        assert "1 failed" in told.out
        assert f"{placed} images placed, {4 - placed} images already there" in told.out
        assert contents(out) == before | ({"images/ISIC_2.jpg": b"picture 7"} if is_seen_through else {})
    assert run(*command, "-o", out, "--overwrite") == 0
    assert run(*command, "-o", tmp_path / "fresh") == 0
    assert contents(out) == contents(tmp_path / "fresh")
    assert run(*command, "-o", out) == 0
    assert run("--verify", "-o", out) == 0


def test_a_touched_source_image_is_read_once_and_is_the_same(gathered, tmp_path, capsys, monkeypatch):
    out, command = gathered
    before = contents(out)
    os.utime(tmp_path / "all" / "ISIC_2.jpg", (1, 1))
    read = []
    monkeypatch.setattr(
        "emcurate.fetching.placing.digest_file",
        lambda path, _digest=digest_file: read.append(path.name) or _digest(path),
    )
    for names in (["ISIC_2.jpg"], []):
        read.clear()
        assert run(*command, out, *WHOLE, "-p", 1) == 0
        assert "0 images placed, 5 images already there" in capsys.readouterr().out
        assert read == names
    assert contents(out) == before


@pytest.mark.parametrize("is_as_made", [True, False])
def test_an_image_whose_source_is_gone_stays_even_if_another_is_mended(gathered, tmp_path, capsys, is_as_made):
    out, command = gathered
    before = contents(out)
    (tmp_path / "all" / "ISIC_2.jpg").unlink()
    if not is_as_made:
        (out / "images" / "ISIC_4.jpg").unlink()
    for _ in range(2):
        assert run(*command, out, *WHOLE) == 1
        told = capsys.readouterr().err
        assert "ISIC_2: expected an image in" in told
        assert "not of this selection" not in told
        assert contents(out).items() >= before.items()


@pytest.mark.parametrize("is_as_made", [True, False])
@pytest.mark.parametrize(("old", "new"), [("jpg", "png"), ("png", "jpg")])
def test_an_image_that_comes_under_another_name_is_refused_and_with_overwrite_takes_the_place_of_the_earlier(
    tmp_path, capsys, old, new, is_as_made
):
    images, out = tmp_path / "all", tmp_path / "o"
    images.mkdir()
    for i in range(1, 6):
        (images / f"ISIC_{i}.{old}").write_text(f"picture {i}")
    command = [*few(tmp_path), "--images", images]
    assert run(*command, "-o", out) == 0
    before = contents(out)
    (images / f"ISIC_2.{old}").rename(images / f"ISIC_2.{new}")
    if not is_as_made:
        (out / "images" / f"ISIC_4.{old}").unlink()
    for _ in range(2):
        assert run(*command, "-o", out, "--prune") == 1
        placed = out / "images" / f"ISIC_2.{old}"
        assert f"ISIC_2.{new}: expected the image that was placed as {placed}, found one of another name" in (
            capsys.readouterr().err
        )
        assert contents(out) == before
    (out / "images" / "ISIC_2.dcm").write_text("a stranger's")
    for _ in range(2):
        assert run(*command, "-o", out, "--overwrite") == 0
        assert "1 files are not of this selection, such as ISIC_2.dcm; they were left there" in capsys.readouterr().err
    (out / "images" / "ISIC_2.dcm").unlink()
    assert run(*command, "-o", tmp_path / "fresh") == 0
    assert contents(out) == contents(tmp_path / "fresh")
    assert run(*command, "-o", out) == 0
    assert run("--verify", "-o", out) == 0


def test_both_of_an_images_files_that_an_earlier_version_brought_stay_until_overwrite(gathered, tmp_path, monkeypatch):
    out, command = gathered
    (tmp_path / "all" / "ISIC_2.jpg").rename(tmp_path / "all" / "ISIC_2.png")
    with monkeypatch.context() as patch:
        patch.setattr("emcurate.trimming.siim_output.find_other_names", lambda names, earlier: {})
        run(*command, out, *WHOLE)
    before = contents(out)
    assert {"images/ISIC_2.jpg", "images/ISIC_2.png"} < before.keys()
    (out / "images" / "ISIC_4.jpg").unlink()
    assert run(*command, out, *WHOLE) == 1
    assert contents(out) == before
    assert run(*command, out, *WHOLE, "--overwrite") == 0
    assert run(*command, tmp_path / "fresh", *WHOLE) == 0
    assert contents(out) == contents(tmp_path / "fresh")


def test_files_beside_the_gathered_images_are_told_of(gathered, capsys):
    out, command = gathered
    (out / "images" / "ISIC_9.jpg").write_text("of an earlier version")
    assert run(*command, out, "--benign", "0:3", "--split", "0.5", "--by", "image") == 0
    assert "1 files are not of this selection, such as ISIC_9.jpg; they were left there" in capsys.readouterr().err


def test_users_own_image_is_not_overwritten_by_any_rerun(gathered, tmp_path, capsys):
    _, command = gathered
    mine = tmp_path / "p" / "images" / "ISIC_2.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for _ in range(2):
        assert run(*command, tmp_path / "p", "--benign", "0:3") == 1
        assert f"{mine}: expected no such file" in capsys.readouterr().err
        assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    "flags",
    [[], ["--benign", "4000:2000"], ["--benign", "all"], ["--split", "1"], ["--split", "0"], ["--order", "random"]],
)
def test_wrong_arguments(full, tmp_path, flags):
    with pytest.raises(SystemExit) as stopped:
        run(*(["--metadata", full, "-o", tmp_path] if flags else []), *flags)
    assert stopped.value.code == 2


def test_runs_as_a_script_from_anywhere(full, tmp_path, root):
    command = [sys.executable, root / "data_prep" / "trim_siim.py", "--metadata", full]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trim_siim: 3 files written, 2,500 rows chosen." in done.stdout
    assert len(rows_of(tmp_path / "trimmed_siim" / "metadata_small.csv")) == 2500


def test_verify_needs_no_metadata_and_looks_where_the_set_went(full, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("--metadata", full) == 0
    assert run("--verify") == 0
    assert "3 files verified" in capsys.readouterr().out
    (tmp_path / "trimmed_siim" / "metadata_small.csv").write_text("?")
    assert run("--verify") == 1
    with pytest.raises(SystemExit) as stopped:
        run("-o", tmp_path)
    assert stopped.value.code == 2
    assert "argument --metadata: expected the metadata csv, found none" in capsys.readouterr().err
