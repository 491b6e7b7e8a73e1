"""How training and classifying take labels: by the patches' names, and never by place where the list is another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emcurate.classifier.labelled import take_labels
from emcurate.errors import InputError
from emcurate.labeling.store import LabelStore
from emcurate.patches.label_files import LabelFiles, save_labels_of
from emcurate.patches.labels import LABELS, load_labels, save_labels
from emcurate.patches.pathlists import PathList, write_path_list
from emcurate.running.report import Report

UNI, INF, NONE, UNSURE = range(4)


def patches(first: int, count: int, directory: str = "/data/p") -> list[str]:
    return [f"{directory}/fly-LOC-0_{i:03d}_0_0.tiff" for i in range(first, first + count)]


def path_list(directory: Path, paths: list[str]) -> PathList:
    write_path_list(directory / "list.npz", paths)
    return PathList(directory / "list.npz")


@pytest.fixture
def file(tmp_path):
    """Labels of 20 patches with their log: 10 informative, 5 uninformative, 2 unsure."""
    path = tmp_path / "patch_quality_labels.npy"
    store = LabelStore(path, patches(0, 20), "anna")
    store.set_labels(range(17), [INF] * 10 + [UNI] * 5 + [UNSURE] * 2)
    return path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_labels_of_the_same_list_are_taken_without_a_word_and_unsure_decides_nothing(file, tmp_path):
    before, report = contents(tmp_path), Report("train_nn")
    codes = take_labels(file, path_list(tmp_path, patches(0, 20, "/mnt/elsewhere")), report)
    assert codes.tolist() == [INF] * 10 + [UNI] * 5 + [NONE] * 5
    assert report.warnings == report.notes == [] and contents(tmp_path) == before


def test_labels_of_another_list_of_the_same_length_follow_their_patches(file, tmp_path, capsys):
    """A new deduplication lists 8 of the patches, and 12 others."""
    report = Report("train_nn")
    newer = patches(100, 12) + patches(0, 4) + patches(13, 4)
    before = contents(tmp_path)
    codes = take_labels(file, path_list(tmp_path, newer), report)
    assert codes.tolist() == [NONE] * 12 + [INF] * 4 + [UNI] * 2 + [NONE] * 2
    assert report.warnings == [
        f"{file}: the list has changed since it was labelled: 8 labels were carried over to their patches; "
        "9 belong to patches no longer listed and wait in the log"
    ]
    assert contents(tmp_path) == before, "nobody's labels are changed by reading them"


@pytest.mark.parametrize("lost", [[], ["state"], ["listed", "state"]])
def test_labels_of_none_of_the_patches_are_an_error_with_advice(file, tmp_path, lost):
    for name in lost:
        getattr(LabelFiles(file), name).unlink()
    with pytest.raises(
        InputError, match=r"labels\.npy: expected labels of patches .* none of them listed; use the list"
    ):
        take_labels(file, path_list(tmp_path, patches(100, 20)), Report("train_nn"))
    with pytest.raises(InputError, match="none of them listed"):
        take_labels(file, path_list(tmp_path, patches(17, 3) + patches(50, 17)), Report("train_nn"))


def test_labels_typed_in_by_hand_count_and_are_told(file, tmp_path):
    labels = load_labels(file)
    labels[[0, 19]] = "uninformative"
    save_labels(file, labels)
    report = Report("train_nn")
    codes = take_labels(file, path_list(tmp_path, patches(0, 20)), report)
    assert codes[[0, 1, 19]].tolist() == [UNI, INF, UNI]
    assert report.notes == [f"{file}: 2 labels that are in the file and not in its log count as typed in by hand"]
    # So they do for another list, since the patches of the one they were typed for are known.
    assert take_labels(file, path_list(tmp_path, patches(0, 30)[::-1]), Report("train_nn"))[[29, 28, 10]].tolist() == [
        UNI,
        INF,
        UNI,
    ]


def test_labels_that_a_session_has_not_come_to_write_are_taken_from_the_log(file, tmp_path):
    behind, state = file.read_bytes(), LabelFiles(file).state.read_bytes()
    LabelStore(file, patches(0, 20), "anna").set_labels([19], [INF])
    file.write_bytes(behind)
    LabelFiles(file).state.write_bytes(state)
    report = Report("train_nn")
    assert take_labels(file, path_list(tmp_path, patches(0, 20)), report)[19] == INF
    assert report.warnings == report.notes == []


def test_without_a_log_the_first_list_is_remembered_and_no_other_accepted(tmp_path):
    file = tmp_path / "labels.npy"
    words = np.array(LABELS)[[INF, UNI] * 10]
    save_labels(file, words)
    mine, report = path_list(tmp_path, patches(0, 20)), Report("train_nn")
    assert take_labels(file, mine, report).tolist() == [INF, UNI] * 10
    (note,) = report.notes
    assert "no log tells of which patches these labels are" in note and "labels.state.json" in note
    again = Report("train_nn")
    assert take_labels(file, path_list(tmp_path, patches(0, 20, "/moved")), again).tolist() == [INF, UNI] * 10
    assert again.notes == [] and again.warnings == []
    for other in (patches(5, 20), patches(0, 20)[::-1], patches(0, 19)):
        with pytest.raises(
            InputError, match=r"expected (20|19) labels, one for each path .* no log \(labels\.log\.jsonl\)"
        ):
            take_labels(file, path_list(tmp_path, other), Report("train_nn"))
    # Labels that were made anew belong to whichever list they are used with next.
    save_labels(file, words[::-1])
    assert take_labels(file, path_list(tmp_path, patches(5, 20)), Report("train_nn")).tolist() == [UNI, INF] * 10


def test_labels_a_program_saves_with_their_paths_are_held_to_them(tmp_path):
    file = tmp_path / "labels.npy"
    save_labels_of(file, np.array(["informative", "uninformative"]), patches(0, 2))
    report = Report("train_nn")
    assert take_labels(file, path_list(tmp_path, patches(0, 2)), report).tolist() == [INF, UNI]
    assert report.notes == []
    with pytest.raises(InputError, match="found 2 of another list of that length, and no log"):
        take_labels(file, path_list(tmp_path, patches(0, 2)[::-1]), Report("train_nn"))
    with pytest.raises(InputError, match="expected 1 labels"):
        save_labels_of(file, np.array(["informative", "uninformative"]), patches(0, 1))


def test_where_nobody_may_write_beside_labels_they_are_taken_all_the_same(tmp_path, monkeypatch):
    file = tmp_path / "labels.npy"
    save_labels(file, np.array(["informative", "uninformative"]))

    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("emcurate.patches.label_files.write_bytes", refuse)
    codes = take_labels(file, path_list(tmp_path, patches(0, 2)), Report("train_nn"))
    assert codes.tolist() == [INF, UNI] and [path.name for path in tmp_path.glob("labels*")] == ["labels.npy"]


def test_labels_of_patches_in_shards_are_those_of_the_files(file, tmp_path):
    members = patches(0, 20, "/data/shards/fly-00000.tar")[::-1]
    assert take_labels(file, path_list(tmp_path, members), Report("train_nn")).tolist() == (
        [NONE] * 5 + [UNI] * 5 + [INF] * 10
    )


def test_a_damaged_log_is_told_and_what_it_lost_is_taken_from_the_file(file, tmp_path):
    log = LabelFiles(file).log
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:3], b"nonsense\n", *lines[4:]]))
    report = Report("train_nn")
    codes = take_labels(file, path_list(tmp_path, patches(0, 20)), report)
    assert codes.tolist() == [INF] * 10 + [UNI] * 5 + [NONE] * 5
    assert report.warnings == [f"{file}: 1 damaged lines of its log were passed over"]


def test_unsure_labels_train_nothing_whether_they_are_logged_or_not(tmp_path):
    file = tmp_path / "labels.npy"
    save_labels(file, np.array(["unsure", "informative", "none"]))
    assert take_labels(file, path_list(tmp_path, patches(0, 3)), Report("x")).tolist() == [NONE, INF, NONE]
