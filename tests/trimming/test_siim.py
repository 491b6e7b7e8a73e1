"""The rules of the SIIM-ISIC set: the order of its rows, and who ends up on which side."""

import hashlib
import io

import numpy as np
import pytest

from emcurate.trimming import siim

# What ISIC 2020 holds.
ROWS, MALIGNANT = 33_126, 584


@pytest.mark.parametrize("seed", range(3))
def test_order_with_missing_and_other_classes_equals_pandas(seed):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(seed)
    choices = ["benign", "malignant", "indeterminate", "", "NA", "nan", "NULL"]
    classes = rng.choice(choices, 5000, p=[0.7, 0.1, 0.1, 0.04, 0.02, 0.02, 0.02]).tolist()
    text = "n,benign_malignant\n" + "".join(f"{i},{name}\n" for i, name in enumerate(classes))
    frame = pandas.read_csv(io.StringIO(text), dtype={"benign_malignant": object})
    assert siim.order_rows(classes) == frame.sort_values("benign_malignant")["n"].tolist()


def test_order_is_pinned():
    # Computed once with numpy 2.4 and checked with 1.26 and 2.0: the published rows must not depend on the version.
    classes = ["malignant" if i % 3 == 0 else "benign" for i in range(20)]
    assert siim.order_rows(classes, "stable") == [i for i in range(20) if i % 3] + list(range(0, 20, 3))
    assert siim.order_rows(classes) == [19, 1, 2, 17, 4, 5, 16, 7, 8, 10, 11, 14, 13, 15, 0, 18, 6, 3, 12, 9]
    # As many as the real file has, spread over it by a stride.
    classes = ["malignant" if i * 7919 % ROWS < MALIGNANT else "benign" for i in range(ROWS)]
    assert classes.count("malignant") == MALIGNANT
    order = ",".join(map(str, siim.order_rows(classes)))
    assert (
        hashlib.sha256(order.encode()).hexdigest() == "e3c52918312dc4645eba8108a8f4ffa42bfb65cd2d4038c7476005deffc15c59"
    )


def test_one_row_per_patient_prefers_a_malignant_one_and_then_the_first():
    patients = ["a", "a", "b", "b", "c", "a"]
    taken = {"benign": [0, 2, 3, 4], "malignant": [1, 5]}
    assert siim.keep_one_per_patient(taken, patients) == {"benign": [2, 4], "malignant": [1]}


def test_no_owner_is_on_both_sides_and_all_rows_are_somewhere():
    rng = np.random.default_rng(5)
    owners = [f"p{i}" for i in rng.integers(0, 40, 400)]
    taken = {"benign": list(range(300)), "malignant": list(range(300, 400))}
    training, testing = siim.split_rows(taken, owners, 0.7, seed=3)
    assert sorted(training + testing) == list(range(400))
    assert {owners[i] for i in training}.isdisjoint(owners[i] for i in testing)
    assert siim.split_rows(taken, owners, 0.7, seed=3) == (training, testing)
    assert siim.split_rows(taken, owners, 0.7, seed=4) != (training, testing)


def test_the_first_chosen_row_of_an_image_owns_its_others_and_no_row_without_a_name_another():
    names = ["a", "b", "a.jpg", "", "", "NA", "a", "c"]
    assert siim.find_image_owners(names, [1, 2, 3, 4, 5, 6, 7]) == ["0", "1", "2", "3", "4", "5", "2", "7"]
    # What splits were made of before images were told apart by name: they must not change.
    assert siim.find_image_owners(names, [7, 1, 0]) == [str(row) for row in range(8)]


@pytest.mark.parametrize(
    ("name", "files", "expected"),
    [
        ("x", ["x.dcm", "x.png", "x.jpeg", "x.JPG"], "x.JPG"),
        ("x", ["x.dcm", "x.png"], "x.png"),
        ("x.jpg", ["x.png"], "x.png"),
        ("x.1", ["x.1.jpg", "x.jpg"], "x.1.jpg"),
        ("y", ["x.jpg"], None),
    ],
)
def test_of_an_images_files_the_preferred_kind_is_chosen(tmp_path, name, files, expected):
    for file in files:
        (tmp_path / file).touch()
    chosen = siim.choose_image(name, siim.find_images(tmp_path, tmp_path / "elsewhere"))
    assert (chosen and chosen.name) == expected


def test_images_of_an_earlier_run_are_no_source(tmp_path):
    (tmp_path / "small" / "images").mkdir(parents=True)
    (tmp_path / "small" / "images" / "x.jpg").touch()
    assert siim.find_images(tmp_path, tmp_path / "small" / "images") == {}
