"""Labels are read, checked and saved as what they are: words parallel to a path list."""

from __future__ import annotations

import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.patches import labels


def test_saved_labels_come_back_and_can_be_written_to(tmp_path):
    path = tmp_path / labels.LABELS_FILE
    labels.save_labels(path, np.array(["none", "informative"]))
    loaded = labels.load_labels(path, ["a.tiff", "b.tiff"])
    assert loaded.tolist() == ["none", "informative"]
    loaded[0] = "uninformative"
    assert loaded[0] == "uninformative"


def test_labels_of_a_narrow_array_are_not_cut_short():
    checked = labels.check_labels(np.array(["none", "none"]), "labels.npy")
    checked[0] = labels.UNINFORMATIVE
    assert checked.tolist() == ["uninformative", "none"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([["none"]]), "expected a 1-D array of strings, found a 2-D array"),
        (np.array([0, 1]), "found a 1-D array of int64"),
        (np.array(["none"]), "expected 2 labels, one for each path of the list, found 1"),
        (np.array(["none", "good"]), r"found 'good' \(first at index 1\)"),
        (np.array(["Informative", ""]), "found '', 'Informative'"),
    ],
)
def test_what_is_no_label_array_is_refused(tmp_path, array, message):
    path = tmp_path / "labels.npy"
    np.save(path, array)
    with pytest.raises(InputError, match=message) as error:
        labels.load_labels(path, ["a.tiff", "b.tiff"])
    assert error.value.path == str(path)


def test_many_unknown_words_are_counted_not_listed():
    with pytest.raises(InputError, match="and 5 other words"):
        labels.check_labels(np.array([f"word {i}" for i in range(10)]), "labels.npy")


def test_pickled_labels_are_not_unpickled(tmp_path):
    path = tmp_path / "labels.npy"
    np.save(path, np.array(["none", None], object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        labels.load_labels(path)


def test_a_bad_array_does_not_replace_a_good_file(tmp_path):
    path = tmp_path / "labels.npy"
    labels.save_labels(path, labels.new_labels(2))
    with pytest.raises(InputError):
        labels.save_labels(path, np.array(["informativ", "none"]))
    assert labels.load_labels(path).tolist() == ["none", "none"]
    assert [p.name for p in tmp_path.iterdir()] == ["labels.npy"]


def test_codes_and_counts():
    words = np.array(["none", "informative", "uninformative", "informative", "unsure"])
    codes = labels.encode_labels(words)
    assert codes.tolist() == [2, 1, 0, 1, 3]
    assert labels.decode_labels(codes).tolist() == words.tolist()
    assert labels.count_labels(words) == {"uninformative": 1, "informative": 2, "none": 1, "unsure": 1}
