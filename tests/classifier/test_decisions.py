"""Labels win over scores, and the counts and pictures show what was decided."""

import csv
import io

import numpy as np
import pytest

from emcurate.classifier.decisions import choose_tiles, count_by_dataset, count_table, dataset_of, predict


def test_labels_win_and_unreadable_patches_are_not_kept():
    scores = np.array([0.9, 0.5, 0.1, np.nan, 0.9, 0.1, np.nan], np.float32)
    codes = np.array([2, 2, 2, 2, 0, 1, 1], np.uint8)
    predictions = predict(scores, codes, 0.5)
    assert predictions.dtype == np.uint8
    assert predictions.tolist() == [1, 0, 0, 0, 0, 1, 1]
    assert predict(scores, codes, 0.05).tolist() == [1, 1, 1, 0, 0, 1, 1]


def test_sheets_show_the_surest_and_the_least_certain():
    scores = np.array([0.9, 0.99, 0.2, 0.01, 0.55, 0.45, np.nan, 0.999], np.float32)
    codes = np.array([2, 2, 2, 2, 2, 2, 2, 1], np.uint8)
    chosen = choose_tiles(scores, codes, 0.5, 2)
    assert {name: positions.tolist() for name, positions in chosen.items()} == {
        "surest_informative": [1, 0],
        "surest_uninformative": [3, 2],
        "least_certain": [4, 5],
    }


def test_counts_add_up():
    scores = np.array([0.9, 0.1, np.nan, 0.9, 0.1], np.float32)
    codes = np.array([2, 2, 2, 0, 1], np.uint8)
    predictions = predict(scores, codes, 0.5)
    counts = count_by_dataset(["b", "a", "a", "b", "b"], scores, codes, predictions)
    assert [list(vars(row).values()) for row in counts.values()] == [[2, 0, 0, 0, 1, 1, 0], [3, 1, 1, 1, 0, 0, 2]]
    assert list(counts) == ["a", "b"]


def test_counts_are_those_of_a_plain_loop():
    random = np.random.default_rng(0)
    names = [f"set {n}" for n in random.integers(0, 5, 300)]
    scores = np.where(random.random(300) < 0.1, np.nan, random.random(300)).astype(np.float32)
    codes = random.integers(0, 3, 300).astype(np.uint8)
    predictions = predict(scores, codes, 0.5)
    counts = count_by_dataset(iter(names), scores, codes, predictions)
    for name, row in counts.items():
        mine = [i for i in range(300) if names[i] == name]
        unlabelled = [i for i in mine if codes[i] == 2]
        assert row.patches == len(mine)
        assert row.labelled_uninformative == sum(codes[i] == 0 for i in mine)
        assert row.labelled_informative == sum(codes[i] == 1 for i in mine)
        assert row.unreadable == sum(bool(np.isnan(scores[i])) for i in unlabelled)
        assert row.scored_informative == sum(scores[i] > 0.5 for i in unlabelled)
        assert row.scored_uninformative == sum(scores[i] <= 0.5 for i in unlabelled)
        assert row.kept == row.labelled_informative + row.scored_informative
    assert sum(row.patches for row in counts.values()) == 300


def test_the_table_has_a_row_a_dataset():
    paths = ["/data/b, c-LOC-2d_0_0.tiff", "/data/a-LOC-0_1_0_0.tiff", "/data/other/patch.tiff"]
    scores, codes = np.array([0.9, 0.1, np.nan], np.float32), np.full(3, 2, np.uint8)
    table = count_table(paths, scores, codes, predict(scores, codes, 0.5))
    rows = list(csv.DictReader(io.StringIO(table.decode(), newline="")))
    assert [(row["dataset"], row["kept"], row["unreadable"]) for row in rows] == [
        ("a", "0", "0"),
        ("b, c", "1", "0"),
        ("other", "0", "1"),
    ]


@pytest.mark.parametrize(
    ("path", "dataset"), [("/x/fly brain-LOC-0_12_0_224.tiff", "fly brain"), ("/x/y/odd name.tiff", "y")]
)
def test_a_patch_is_of_the_dataset_its_name_tells_or_else_of_its_directory(path, dataset):
    assert dataset_of(path) == dataset
