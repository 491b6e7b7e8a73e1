"""The labelling session without a browser: labels, undo, order, filters, what is on disk, and what is in the log."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from emcurate.errors import InputError
from emcurate.images.sections import write_section
from emcurate.labeling import writer as writer_module
from emcurate.labeling.agreement import compare_annotators
from emcurate.labeling.order import NO_DATASET, number_datasets, order_by_dataset, order_by_uncertainty
from emcurate.labeling.session import Session
from emcurate.labeling.store import LabelStore
from emcurate.labeling.tiles import describe_place, load_tile
from emcurate.labeling.view import View
from emcurate.patches.label_log import LabelLog
from emcurate.patches.labels import LABELS, load_labels, save_labels
from emcurate.patches.pathlists import PathList, write_path_list
from emcurate.patches.selected import SELECTED_FILE, encode_selected
from tests.patch_sets import pack

SMALL = View(rows=2, columns=3)


def write_patches(directory: Path, names: list[str], seed: int = 0) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    paths = []
    for name in names:
        path = directory / f"{name}.tiff"
        write_section(path, generator.integers(0, 256, (16, 16), dtype=np.uint8))
        paths.append(str(path))
    return paths


def fly_names(count: int) -> list[str]:
    return [f"fly-LOC-0_{i:03d}_0_0" for i in range(count)]


@pytest.fixture
def corpus(tmp_path):
    """Twenty patches of three datasets, and where labels go."""
    names = (
        fly_names(14) + [f"mouse-LOC-1_{i}_0_0" for i in range(4)] + ["grids-LOC-2d-a b_0_0", "grids-LOC-2d-é_0_224"]
    )
    paths = write_patches(tmp_path / "patches", names)
    write_path_list(tmp_path / "list.npz", paths)
    return tmp_path


def open_session(directory, **options) -> Session:
    session = Session(directory / "list.npz", directory / "patch_quality_labels.npy", **options)
    session.arrange(rows=2, columns=3)
    return session


def on_disk(directory) -> list[str]:
    return load_labels(directory / "patch_quality_labels.npy").tolist()


def log_lines(directory) -> list[dict]:
    """What the log says of patches."""
    lines = (directory / "patch_quality_labels.log.jsonl").read_text("utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["action"] != "list"]


# -- labels ----------------------------------------------------------------------------------------------------------


def test_every_change_is_on_disk_at_once_in_the_published_format(corpus):
    session = open_session(corpus)
    assert on_disk(corpus) == ["none"] * 20
    session.label([3], "informative")
    session.label([5, 7], "uninformative")
    labels = np.load(corpus / "patch_quality_labels.npy", allow_pickle=False)
    assert labels.ndim == 1 and labels.dtype.kind == "U"
    assert {i: v for i, v in enumerate(labels.tolist()) if v != "none"} == {
        3: "informative",
        5: "uninformative",
        7: "uninformative",
    }
    session.label([3], "none")
    assert on_disk(corpus)[3] == "none"


def test_toggle_makes_informative_uninformative_and_all_others_informative(corpus):
    session = open_session(corpus)
    session.label([0], "informative")
    session.label([1], "uninformative")
    session.toggle([0, 1, 2])
    assert on_disk(corpus)[:3] == ["uninformative", "informative", "informative"]


def test_the_rest_of_a_page_is_what_has_no_label_and_only_of_this_page(corpus):
    session = open_session(corpus)
    page = session.page_indices()
    session.label([page[1]], "uninformative")
    assert sorted(session.label_rest("informative")) == sorted(set(page) - {page[1]})
    assert on_disk(corpus)[page[1]] == "uninformative"
    assert Counter(on_disk(corpus)) == {"none": 14, "informative": 5, "uninformative": 1}


def test_undo_takes_back_everything_down_to_the_first_label(corpus):
    session = open_session(corpus)
    generator = np.random.default_rng(0)
    states = [on_disk(corpus)]
    for _ in range(60):
        indices = generator.choice(20, generator.integers(1, 5), replace=False).tolist()
        if session.label(indices, str(generator.choice(["informative", "uninformative", "none"]))):
            states.append(on_disk(corpus))
    assert session.store.undo_count == len(states) - 1 > 40
    for state in reversed(states[:-1]):
        assert session.undo()
        assert on_disk(corpus) == state
    assert session.undo() == []


def test_a_label_given_again_is_no_action_to_undo(corpus):
    session = open_session(corpus)
    assert session.label([4], "informative") == [4]
    assert session.label([4], "informative") == []
    assert session.store.undo_count == 1


def test_undo_goes_to_the_page_of_what_it_changed(corpus):
    session = open_session(corpus)
    first = session.page_indices()[0]
    session.label([first], "informative")
    session.turn(2)
    session.undo()
    assert session.page == 0 and session.cursor == first


def test_undo_goes_back_behind_a_restart(corpus):
    session = open_session(corpus)
    session.label([1], "informative")
    session.label([1, 2], "uninformative")
    session.undo()
    session.label([6], "informative")
    again = open_session(corpus)
    assert again.store.undo_count == 2
    assert again.undo() == [6] and again.undo() == [1] and again.undo() == []
    assert on_disk(corpus) == ["none"] * 20


def test_a_session_goes_on_where_the_last_one_stopped(corpus):
    session = open_session(corpus)
    session.arrange(order="dataset", stretch=True, size=320)
    session.turn(2)
    shown = session.page_indices()
    again = Session(corpus / "list.npz", corpus / "patch_quality_labels.npy")
    assert (again.page, again.page_indices(), again.cursor) == (2, shown, shown[0])
    assert (again.view.order, again.view.stretch, again.view.size) == ("dataset", True, 320)


def test_a_place_kept_by_version_0_1_is_gone_on_from_unless_the_list_is_another(corpus):
    state = corpus / "patch_quality_labels.state.json"
    save_labels(corpus / "patch_quality_labels.npy", np.array(["informative"] + ["none"] * 19))
    state.write_text(json.dumps({"applied": 0, "views": {"": {"cursor": 11, "order": "dataset"}}}))
    session = Session(corpus / "list.npz", corpus / "patch_quality_labels.npy")
    assert (session.cursor, session.view.order) == (11, "dataset")
    write_path_list(corpus / "list.npz", list(session.paths)[::-1])
    again = Session(corpus / "list.npz", corpus / "patch_quality_labels.npy", annotator="anna")
    assert again.cursor == again.selected[0]


def test_a_first_session_begins_at_the_first_patch_without_a_label(corpus):
    order = np.random.default_rng(0).permutation(20)
    labels = np.full(20, "none", "<U13")
    labels[order[:13]] = "informative"
    save_labels(corpus / "patch_quality_labels.npy", labels)
    session = Session(corpus / "list.npz", corpus / "patch_quality_labels.npy")
    assert session.cursor == order[13]
    assert session.cursor in session.page_indices()


def test_unsure_is_a_label_of_its_own_that_decides_nothing(corpus):
    np.save(corpus / "nn_scores.npy", np.full(20, 0.9, np.float32))
    session = open_session(corpus, annotator="anna", scores=corpus / "nn_scores.npy")
    page = session.page_indices()
    session.label(page[:2], "unsure")
    assert [on_disk(corpus)[i] for i in page[:3]] == ["unsure", "unsure", "none"]
    session.label_rest("uninformative")
    assert session.counts() == {"uninformative": 4, "informative": 0, "none": 14, "unsure": 2}
    ben = open_session(corpus, annotator="ben", scores=corpus / "nn_scores.npy")
    ben.label(page[:3], "informative")
    (pair,) = ben.agreement()
    assert (pair.both, pair.same) == (1, 0), "what anna is unsure of can neither agree nor disagree"
    assert ben.said(page[0]) == {"anna": "unsure", "ben": "informative"}
    assert ben.said(page[2]) == {"anna": "uninformative", "ben": "informative"}
    ben.arrange(disagreement="annotators")
    assert ben.selected.tolist() == [page[2]]
    session.arrange(disagreement="model")
    assert sorted(session.selected) == sorted(page[2:]), "only what she decided can be disputed"


# -- files that cannot be labelled -----------------------------------------------------------------------------------


@pytest.fixture
def damaged(corpus):
    (corpus / "patches" / "fly-LOC-0_003_0_0.tiff").unlink()
    (corpus / "patches" / "fly-LOC-0_004_0_0.tiff").write_bytes(b"")
    (corpus / "patches" / "fly-LOC-0_005_0_0.tiff").write_bytes(b"II*\0nonsense")
    return corpus


def test_missing_and_broken_patches_say_so_and_take_no_label(damaged):
    session = open_session(damaged)
    session.arrange(rows=4, columns=5)
    problems = {i: t.problem for i, t in zip(session.page_indices(), session.page_tiles(), strict=True) if t.problem}
    assert sorted(problems) == [3, 4, 5]
    assert problems[3] == "no such file" and "empty file" in problems[4]
    session.label([2, 3, 4, 5], "informative")
    session.toggle([3, 4])
    session.label_rest("uninformative")
    assert on_disk(damaged)[2:6] == ["informative", "none", "none", "none"]
    assert Counter(on_disk(damaged)) == {"informative": 1, "uninformative": 16, "none": 3}


def test_a_label_of_a_patch_that_has_gone_can_be_taken_away(corpus):
    session = open_session(corpus)
    session.label([3], "informative")
    (corpus / "patches" / "fly-LOC-0_003_0_0.tiff").unlink()
    again = open_session(corpus)
    again.label([3], "uninformative")
    assert on_disk(corpus)[3] == "informative"
    again.label([3], "none")
    assert on_disk(corpus)[3] == "none"


def test_a_patch_put_back_can_be_labelled(damaged):
    session = open_session(damaged)
    session.label([3], "informative")
    write_patches(damaged / "patches", ["fly-LOC-0_003_0_0"])
    session.label([3], "informative")
    assert on_disk(damaged)[3] == "informative"


def test_tiles_carry_exact_pixels_and_limits_that_cut_half_a_percent(tmp_path):
    pixels = np.clip(np.random.default_rng(0).normal(120, 12, (200, 224)), 0, 255).astype(np.uint8)
    write_section(tmp_path / "a.tiff", pixels)
    tile = load_tile(str(tmp_path / "a.tiff"))
    assert np.array_equal(tile.pixels, pixels) and tile.reduction == 1
    low, high = tile.limits
    assert (pixels < low).mean() <= 0.005 <= (pixels <= low).mean()
    assert (pixels > high).mean() <= 0.005 <= (pixels >= high).mean()


def test_a_huge_patch_is_drawn_reduced_by_block_means(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 2100), dtype=np.uint8)
    write_section(tmp_path / "a.tiff", pixels)
    tile = load_tile(str(tmp_path / "a.tiff"))
    means = pixels.reshape(500, 3, 700, 3).mean((1, 3))
    assert tile.reduction == 3 and tile.pixels.shape == (500, 700)
    assert np.abs(tile.pixels - means).max() <= 0.501


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/a/fly-LOC-2_042_224_0.tiff", "yz plane, slice 42, row 224, column 0"),
        ("/a/grids-LOC-2d-a 1_0_448.tiff", "image a 1, row 0, column 448"),
        ("/a/scan-LOC-2d_0_0.tiff", "2D image, row 0, column 0"),
        ("/a/holiday.png", "holiday.png"),
    ],
)
def test_places_are_told_in_words(path, place):
    assert describe_place(path) == place


# -- orders, filters, counts -----------------------------------------------------------------------------------------


def test_random_order_is_a_permutation_that_the_seed_decides(corpus):
    one, two = open_session(corpus).selected, open_session(corpus).selected
    other = open_session(corpus, seed=1).selected
    assert sorted(one) == list(range(20)) and one.tolist() != list(range(20))
    assert one.tolist() == two.tolist() != other.tolist()


def test_datasets_take_turns_until_each_runs_out():
    datasets = np.repeat(np.arange(4, dtype=np.int32), [1000, 3, 1, 50])
    order = order_by_dataset(datasets, seed=5)
    assert sorted(order) == list(range(len(datasets)))
    turns = datasets[order]
    assert sorted(turns[:4]) == [0, 1, 2, 3]
    assert sorted(turns[4:7]) == sorted(turns[7:10]) == [0, 1, 3]
    assert np.all(turns[-900:] == 0)
    # Within a dataset patches are shuffled, so that the first are not neighbours.
    assert order[datasets[order] == 0].tolist() != list(range(1000))


def test_the_least_certain_come_first_and_those_without_score_last():
    scores = np.array([0.9, 0.5, np.nan, 0.1, 0.45, 0.7])
    assert order_by_uncertainty(scores, 0.5).tolist() == [1, 4, 5, 0, 3, 2]
    assert order_by_uncertainty(scores, 0.9).tolist()[0] == 0


def test_filters_by_label_dataset_and_part_of_a_name(corpus):
    session = open_session(corpus)
    session.label([0, 15], "informative")
    session.arrange(label="informative")
    assert sorted(session.selected) == [0, 15]
    session.arrange(dataset="mouse")
    assert session.selected.tolist() == [15]
    session.arrange(label="none", dataset="GR")
    assert sorted(session.selected) == [18, 19]
    session.arrange(dataset="nothing like it")
    assert (session.page_indices(), session.page_count, session.cursor) == ([], 1, -1)
    assert session.label_rest("informative") == [] and session.page_tiles() == []


def test_a_dataset_whose_name_is_part_of_another_can_be_had_alone(tmp_path):
    paths = write_patches(tmp_path / "p", ["fly-LOC-2d_0_0", "fly2-LOC-2d_0_0"])
    write_path_list(tmp_path / "list.npz", paths)
    session = open_session(tmp_path)
    session.arrange(dataset="fly")
    assert session.selected.tolist() == [0]


def test_patches_stay_on_a_filtered_page_until_the_filter_is_applied_again(corpus):
    session = open_session(corpus)
    session.arrange(label="none")
    page = session.page_indices()
    session.label(page[:2], "informative")
    assert session.page_indices() == page
    session.arrange(label="none")
    assert len(session.selected) == 18


def test_scores_give_an_order_and_what_the_model_disputes(corpus):
    scores = np.linspace(0, 1, 20, dtype=np.float32)
    scores[0] = np.nan
    np.save(corpus / "nn_scores.npy", scores)
    session = open_session(corpus, scores=corpus / "nn_scores.npy", order="uncertain")
    assert sorted(session.page_indices()[:2]) == [9, 10]
    session.label([0, 1, 18], "informative")
    session.label([2, 17], "uninformative")
    session.arrange(disagreement="model")
    assert sorted(session.selected) == [1, 17]


def test_scores_of_another_list_and_orders_without_scores_are_refused(corpus):
    np.save(corpus / "nn_scores.npy", np.zeros(19, np.float32))
    with pytest.raises(InputError, match=r"nn_scores\.npy: expected 20 scores.*found 19"):
        open_session(corpus, scores=corpus / "nn_scores.npy")
    with pytest.raises(InputError, match="expected scores of a model"):
        open_session(corpus, order="uncertain")
    with pytest.raises(InputError, match=r"expected one of random, .*, diverse, found 'sorted'"):
        open_session(corpus, order="sorted")


def write_ranks(path, names, ranks):
    none, count = np.full(len(names), -1), len(names)
    levels = [np.zeros(count, np.int32)]
    cosines = np.full(count, np.nan, np.float32)
    column = pa.array(names, pa.string())
    path.write_bytes(encode_selected(column, np.array(ranks), 5, levels, none, cosines))


def test_ranks_of_a_selection_give_an_order_by_name(corpus, tmp_path):
    names = [Path(path).stem for path in open_session(corpus).paths]
    ranks = np.random.default_rng(5).permutation(20)
    ranks[ranks >= 15] = -1
    shuffled = np.random.default_rng(6).permutation(20)
    (tmp_path / "selected").mkdir()
    write_ranks(tmp_path / "selected" / SELECTED_FILE, [names[i] for i in shuffled], ranks[shuffled])
    session = open_session(corpus, diverse=tmp_path / "selected", order="diverse")
    assert ranks[session.selected[:15]].tolist() == list(range(15))
    assert session.selected[15:].tolist() == np.flatnonzero(ranks < 0).tolist()
    with pytest.raises(InputError, match="expected ranks of a selection, found none"):
        open_session(corpus, order="diverse")
    write_ranks(tmp_path / "others.parquet", ["other-LOC-2d_0_0"], [0])
    with pytest.raises(InputError, match="expected ranks of this list's patches, found those of others"):
        open_session(corpus, diverse=tmp_path / "others.parquet")


def test_ranks_are_the_first_order_of_a_new_label_file_and_no_other(corpus, tmp_path):
    names = [Path(path).stem for path in PathList(corpus / "list.npz")]
    write_ranks(tmp_path / "ranks.parquet", names, list(range(20)))
    session = open_session(corpus, diverse=tmp_path / "ranks.parquet")
    assert session.view.order == "diverse"
    session.arrange(order="random")
    assert open_session(corpus, diverse=tmp_path / "ranks.parquet").view.order == "random"


def test_counts_by_label_and_dataset(corpus):
    session = open_session(corpus)
    session.label([0, 1, 14], "informative")
    session.label([2], "uninformative")
    assert session.counts() == {"uninformative": 1, "informative": 3, "none": 16, "unsure": 0}
    rows = dict(zip(session.dataset_names, session.dataset_counts().tolist(), strict=True))
    assert rows == {"fly": [1, 2, 11, 0], "mouse": [0, 1, 3, 0], "grids": [0, 0, 2, 0]}


def test_pages_cover_the_list_once_and_turning_stops_at_the_ends(corpus):
    session = open_session(corpus)
    assert session.page_count == 4
    seen = [i for page in range(4) for i in session.page_indices(page)]
    assert sorted(seen) == list(range(20)) and len(session.page_indices(3)) == 2
    session.turn(99)
    assert session.page == 3
    session.turn(-5)
    assert session.page == 0


@pytest.mark.parametrize("shuffled", [False, True])
def test_datasets_of_many_paths_equal_a_plain_loop(shuffled):
    paths = [f"/d/p {i % 3}/set {k}-LOC-0_{i}_0_0.tiff" for k in range(12) for i in range(40)]
    paths += ["/d/x-LOC-y/plain.tiff", "plain.tiff", r"C:\patches\fly-LOC-2d_0_0.tiff", "/d/é-LOC-/q-LOC-2d_0_0.tiff"]
    if shuffled:
        np.random.default_rng(0).shuffle(paths)
    codes, names = number_datasets(np.array_split(np.array(paths), 7))

    def dataset(path):
        before, mark, _ = path.replace("\\", "/").rpartition("/")[2].partition("-LOC-")
        return before if mark else NO_DATASET

    assert [names[code] for code in codes] == [dataset(path) for path in paths]


def test_opening_reads_no_patch_and_a_page_reads_only_its_own(corpus, monkeypatch):
    read = []
    monkeypatch.setattr(
        "emcurate.labeling.tiles.read_patch", lambda path: read.append(str(path)) or np.zeros((4, 4), np.uint8)
    )
    session = open_session(corpus)
    assert read == []
    session.turn(3)
    session.page_tiles()
    assert sorted(read) == sorted(session.paths[i] for i in session.page_indices())


# -- on disk ---------------------------------------------------------------------------------------------------------


def test_the_log_says_who_when_which_and_what(corpus):
    session = open_session(corpus, annotator="Zoë")
    session.label([3, 18], "informative")
    session.undo()
    lines = log_lines(corpus)
    fly, grids = "fly-LOC-0_003_0_0.tiff", "grids-LOC-2d-a b_0_0.tiff"
    assert [(r["annotator"], r["action"], r["patch"], r["label"], r["previous"]) for r in lines] == [
        ("Zoë", "label", fly, "informative", "none"),
        ("Zoë", "label", grids, "informative", "none"),
        ("Zoë", "undo", fly, "none", "informative"),
        ("Zoë", "undo", grids, "none", "informative"),
    ]
    assert lines[0]["time"] == lines[1]["time"] < lines[2]["time"]
    assert lines[0]["act"] == lines[1]["act"] == lines[2]["undoes"] != lines[2]["act"]
    assert str(corpus) not in (corpus / "patch_quality_labels.log.jsonl").read_text("utf-8"), "no absolute path"


def test_labels_made_elsewhere_are_taken_up_and_kept_in_the_log(corpus):
    labels = np.array(["none"] * 18 + ["informative", "uninformative"])
    save_labels(corpus / "patch_quality_labels.npy", labels)
    session = open_session(corpus)
    assert session.counts()["informative"] == 1
    assert [(r["annotator"], r["action"], r["patch"], r["label"]) for r in log_lines(corpus)] == [
        ("(file)", "import", "grids-LOC-2d-a b_0_0.tiff", "informative"),
        ("(file)", "import", "grids-LOC-2d-é_0_224.tiff", "uninformative"),
    ]
    assert on_disk(corpus) == labels.tolist()


def test_labels_changed_between_sessions_win_over_the_log(corpus):
    open_session(corpus).label([1, 2], "informative")
    save_labels(corpus / "patch_quality_labels.npy", np.array(["uninformative"] * 2 + ["none"] * 18))
    session = open_session(corpus)
    assert on_disk(corpus)[:3] == ["uninformative", "uninformative", "none"]
    assert open_session(corpus).counts() == session.counts()


def test_labels_changed_during_a_session_are_kept_aside(corpus):
    session = open_session(corpus)
    session.label([1], "informative")
    foreign = np.array(["uninformative"] * 20)
    save_labels(corpus / "patch_quality_labels.npy", foreign)
    session.label([2], "informative")
    assert on_disk(corpus)[:3] == ["none", "informative", "informative"]
    (backup,) = corpus.glob("patch_quality_labels.2*.npy")
    assert load_labels(backup).tolist() == foreign.tolist()
    assert any(backup.name in notice for notice in session.store.notices)


def test_a_lost_label_file_comes_back_from_the_log(corpus):
    open_session(corpus).label([1, 2], "informative")
    before = on_disk(corpus)
    (corpus / "patch_quality_labels.npy").unlink()
    session = open_session(corpus)
    assert on_disk(corpus) == before
    assert "was missing" in session.store.notices[0]


KILLED = """
import os, sys
from pathlib import Path
from emcurate.labeling import writer
from emcurate.labeling.session import Session
def die(*arguments):
    os.kill(os.getpid(), 9)
writer.write_codes = die
session = Session(Path(sys.argv[1]) / "list.npz", Path(sys.argv[1]) / "patch_quality_labels.npy", annotator="anna")
session.label([4, 9], "informative")
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_session_killed_before_the_file_was_written_loses_nothing(corpus, root):
    open_session(corpus).label([1], "uninformative")
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(corpus)], env=environment, cwd=corpus, timeout=120)
    assert done.returncode == -9
    assert Counter(on_disk(corpus)) == {"none": 19, "uninformative": 1}
    session = open_session(corpus, annotator="anna")
    assert {i: v for i, v in enumerate(on_disk(corpus)) if v != "none"} == {
        1: "uninformative",
        4: "informative",
        9: "informative",
    }
    assert session.undo() == [4, 9]


ACKNOWLEDGING = """
import sys
from pathlib import Path
from emcurate.labeling import writer
from emcurate.labeling.store import LabelStore
from emcurate.patches.pathlists import PathList
writer.LABELS_WRITTEN_AT_ONCE = 0
labels = LabelStore(Path(sys.argv[1]) / "patch_quality_labels.npy", PathList(Path(sys.argv[1]) / "list.npz"))
for i in range(100_000):
    labels.set_labels([i % 20], [(i // 20) % 2])
    print(i, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("count", [1, 37, 150])
def test_what_was_acknowledged_survives_a_kill_at_any_moment(corpus, root, count):
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", ACKNOWLEDGING, str(corpus)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(count):
            process.stdout.readline()
        process.kill()
        last = count - 1 + len(process.stdout.read().split())
    expected = np.full(20, 2)
    for i in range(last + 1):
        expected[i % 20] = (i // 20) % 2
    session = open_session(corpus)
    # One more may have reached the log without having been acknowledged.
    following = expected.copy()
    following[(last + 1) % 20] = ((last + 1) // 20) % 2
    assert session.labels.tolist() in (expected.tolist(), following.tolist())
    assert on_disk(corpus) == [LABELS[code] for code in session.labels]


def test_a_line_cut_off_in_the_log_is_passed_over_and_labelling_goes_on(corpus):
    open_session(corpus).label([1], "informative")
    log = corpus / "patch_quality_labels.log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"time": "2026-01-01T00:00:00", "annot')
    open_session(corpus).label([2], "informative")
    session = open_session(corpus)
    assert on_disk(corpus)[1:3] == ["informative", "informative"]
    assert "1 damaged lines" in session.store.notices[0]


def test_a_full_disk_is_told_and_the_label_not_taken(corpus, monkeypatch):
    session = open_session(corpus)
    session.label([1], "informative")
    before = (corpus / "patch_quality_labels.log.jsonl").read_bytes()

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        session.label([2], "informative")
    monkeypatch.undo()
    assert (corpus / "patch_quality_labels.log.jsonl").read_bytes() == before
    assert session.labels[2] == session.labels[3]
    session.label([3], "informative")
    assert Counter(on_disk(corpus))["informative"] == 2


def test_long_lists_are_written_by_a_thread_and_are_complete_after_flush(corpus, monkeypatch):
    monkeypatch.setattr(writer_module, "LABELS_WRITTEN_AT_ONCE", 5)
    session = open_session(corpus)
    for index in range(20):
        session.label([index], "informative" if index % 3 else "uninformative")
    session.store.flush()
    assert on_disk(corpus) == ["informative" if i % 3 else "uninformative" for i in range(20)]
    state = json.loads((corpus / "patch_quality_labels.state.json").read_text())
    assert state["applied"] == (corpus / "patch_quality_labels.log.jsonl").stat().st_size


def test_a_file_that_cannot_be_written_is_told_and_caught_up_later(corpus, monkeypatch):
    session = open_session(corpus)

    def fail(path, codes):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(writer_module, "write_codes", fail)
    with pytest.raises(InputError, match="Input/output error"):
        session.label([2], "informative")
    monkeypatch.undo()
    session.label([3], "informative")
    assert on_disk(corpus)[2:4] == ["informative", "informative"]


def test_two_sessions_on_one_file_do_not_overwrite_each_other(corpus):
    one, two = open_session(corpus, annotator="anna"), open_session(corpus, annotator="ben")
    one.label([1], "informative")
    two.label([2], "uninformative")
    one.label([3], "informative")
    assert on_disk(corpus)[1:4] == ["informative", "uninformative", "informative"]
    one.undo()
    one.undo()
    assert on_disk(corpus)[1:4] == ["none", "uninformative", "none"]
    assert one.undo() == []
    assert two.store.undo_count == 1


def test_undo_leaves_what_somebody_else_said_since(corpus):
    one, two = open_session(corpus, annotator="anna"), open_session(corpus, annotator="ben")
    one.label([1], "informative")
    two.label([1], "uninformative")
    one.undo()
    assert on_disk(corpus)[1] == "uninformative"
    assert open_session(corpus, annotator="anna").store.own[1] == 2


def test_parallel_processes_lose_no_label(corpus, root):
    code = (
        "import sys; from pathlib import Path; from emcurate.labeling.store import LabelStore;"
        "from emcurate.patches.pathlists import PathList; d = Path(sys.argv[1]); k = int(sys.argv[2]);"
        "s = LabelStore(d / 'patch_quality_labels.npy', PathList(d / 'list.npz'), sys.argv[2]);"
        "[s.set_labels([i], [k]) for i in range(k, 20, 2)]"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", code, str(corpus)]
    running = [subprocess.Popen([*command, str(k)], env=environment) for k in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    assert on_disk(corpus) == ["uninformative", "informative"] * 10


# -- two people ------------------------------------------------------------------------------------------------------


def test_agreement_is_cohens_kappa_of_what_both_labelled(corpus):
    anna, ben = open_session(corpus, annotator="anna"), open_session(corpus, annotator="ben", own_labels_only=True)
    anna.label(list(range(12)), "informative")
    anna.label([10, 11], "uninformative")
    ben = open_session(corpus, annotator="ben", own_labels_only=True)
    assert ben.counts()["none"] == 20, "what anna said must not show"
    ben.label(list(range(1, 9)), "informative")
    ben.label([9, 10, 11, 12], "uninformative")
    (pair,) = ben.agreement()
    # Both labelled 1..11: nine informative and two uninformative by anna, eight and three by ben; they differ at 9.
    observed, chance = 10 / 11, (9 * 8 + 2 * 3) / 121
    assert (pair.first, pair.second, pair.both, pair.same) == ("anna", "ben", 11, 10)
    assert pair.kappa == pytest.approx((observed - chance) / (1 - chance))
    ben.arrange(disagreement="annotators")
    assert ben.selected.tolist() == [9]


def test_agreement_without_anything_to_compare_is_undefined():
    (pair,) = compare_annotators({"a": {1: "informative"}, "b": {2: "informative"}})
    assert pair.both == 0 and np.isnan(pair.kappa)
    (pair,) = compare_annotators({"a": {1: "informative"}, "b": {1: "informative"}})
    assert (pair.both, pair.same) == (1, 1) and np.isnan(pair.kappa)


def test_own_labels_only_never_takes_away_what_it_does_not_show(corpus):
    open_session(corpus, annotator="anna").label([1], "informative")
    ben = open_session(corpus, annotator="ben", own_labels_only=True)
    ben.label([1], "none")
    assert on_disk(corpus)[1] == "informative"
    ben.label([1], "informative")
    assert [pair.both for pair in ben.agreement()] == [1]


# -- lists that change -----------------------------------------------------------------------------------------------


def relist(corpus, paths):
    write_path_list(corpus / "list.npz", paths)


def labelled_names(corpus) -> dict[str, str]:
    session_paths = [str(p) for chunk in sorted((corpus / "list.npz").glob("*.npy")) for p in np.load(chunk)]
    return {Path(p).stem: label for p, label in zip(session_paths, on_disk(corpus), strict=True) if label != "none"}


def test_labels_follow_their_patches_when_the_list_grows_and_is_reordered(corpus):
    session = open_session(corpus, annotator="anna")
    session.label([0, 15], "informative")
    session.label([19], "uninformative")
    session.label([7], "informative")
    session.label([7], "none")
    before, old = labelled_names(corpus), on_disk(corpus)
    paths = [session.paths[i] for i in range(20)]
    grown = write_patches(corpus / "patches", [f"worm-LOC-0_{i}_0_0" for i in range(5)]) + paths[::-1]
    relist(corpus, grown)
    again = open_session(corpus, annotator="anna")
    assert labelled_names(corpus) == before
    assert "3 labels were carried over" in again.store.notices[0]
    (backup,) = corpus.glob("patch_quality_labels.2*.npy")
    assert load_labels(backup).tolist() == old
    assert again.store.undo_count == 4
    # From here on it is an ordinary session, in which all can be taken back, wherever the patches are now.
    again.label([0], "uninformative")
    third = open_session(corpus, annotator="anna")
    assert third.store.notices == [] and third.store.undo_count == 5
    assert labelled_names(corpus) == {**before, "worm-LOC-0_0_0_0": "uninformative"}
    assert third.undo() == [0] and third.undo() == [17]
    assert labelled_names(corpus) == {**before, "fly-LOC-0_007_0_0": "informative"}


@pytest.mark.parametrize("order", ["random", "dataset"])
def test_a_list_that_grows_keeps_the_order_people_are_in_the_middle_of(corpus, order):
    session = open_session(corpus, order=order)
    session.turn(2)
    session.label(session.page_indices()[:2], "informative")
    pages = [[Path(session.paths[i]).name for i in session.page_indices(page)] for page in range(3)]
    new = write_patches(corpus / "patches", [f"ant-LOC-0_{i}_0_0" for i in range(15)])
    old = list(session.paths)
    relist(corpus, sorted(new + old))
    grown = open_session(corpus)
    assert grown.page == 2 and Path(grown.paths[grown.cursor]).name == pages[2][0]
    assert [[Path(grown.paths[i]).name for i in grown.page_indices(page)] for page in range(3)] == pages
    assert sorted(grown.selected) == list(range(35))
    # Those that came later come after all others, and stay where they are when others go and come back.
    later = [Path(grown.paths[i]).name for i in grown.selected[20:]]
    assert all(name.startswith("ant") for name in later)
    relist(corpus, [path for path in sorted(new + old) if "mouse" not in path])
    shrunk = [Path(grown.paths[i]).name for i in grown.selected if "mouse" not in grown.paths[i]]
    less = open_session(corpus)
    if order == "random":
        assert [Path(less.paths[i]).name for i in less.selected] == shrunk
    assert sorted(less.selected) == list(range(31))
    relist(corpus, old[::-1] + new)
    again = open_session(corpus)
    assert [Path(again.paths[i]).name for i in again.selected] == [name for page in pages for name in page] + [
        Path(session.paths[i]).name for i in session.page_indices(3)
    ] + later


def test_a_list_reordered_at_the_same_length_is_noticed(corpus):
    session = open_session(corpus)
    session.label([0], "informative")
    before = labelled_names(corpus)
    relist(corpus, [session.paths[i] for i in np.roll(np.arange(20), 1)])
    open_session(corpus)
    assert labelled_names(corpus) == before and on_disk(corpus)[1] == "informative"


def test_labels_of_patches_taken_off_the_list_wait_for_their_return(corpus):
    session = open_session(corpus, annotator="anna")
    session.label([3, 4], "informative")
    before = labelled_names(corpus)
    paths = [session.paths[i] for i in range(20)]
    relist(corpus, paths[:4])
    short = open_session(corpus, annotator="anna")
    assert labelled_names(corpus) == {"fly-LOC-0_003_0_0": "informative"}
    assert "1 belong to patches no longer listed" in short.store.notices[0]
    relist(corpus, paths)
    open_session(corpus, annotator="anna")
    assert labelled_names(corpus) == before


def test_labels_follow_patches_whose_directory_was_moved(corpus):
    session = open_session(corpus, annotator="anna")
    session.label([3, 18], "informative")
    before = labelled_names(corpus)
    (corpus / "patches").rename(corpus / "elsewhere")
    relist(corpus, sorted(str(p) for p in (corpus / "elsewhere").iterdir()))
    open_session(corpus, annotator="anna")
    assert labelled_names(corpus) == before


def test_a_list_whose_patches_were_moved_is_refused_with_the_way_to_say_so(corpus):
    session = open_session(corpus, annotator="anna")
    session.label([3, 18], "informative")
    before = {path: path.read_bytes() for path in corpus.iterdir() if path.is_file()}
    moved = corpus.with_name(f"{corpus.name} moved")
    corpus.rename(moved)
    with pytest.raises(InputError) as refused:
        open_session(moved, annotator="anna")
    assert f"reroot=({str(corpus)!r}, {str(moved)!r})" in refused.value.advice
    assert {corpus / path.name: path.read_bytes() for path in moved.iterdir() if path.is_file()} == before
    again = open_session(moved, annotator="anna", reroot=(str(corpus), str(moved)))
    assert again.page_tiles()[0].problem == ""
    assert again.labels.tolist() == session.labels.tolist()


def test_a_session_on_shards_is_that_on_files_and_takes_their_labels_over(corpus):
    paths = list(PathList(corpus / "list.npz"))
    of_files = open_session(corpus, order="random")
    of_files.label([3], "informative")
    tiles = [of_files.page_tiles() for page in range(of_files.page_count) if of_files.turn(page) is None]
    members = pack(paths, corpus / "shards", per_shard=4)
    write_path_list(corpus / "list.npz", members)
    shutil.rmtree(corpus / "patches")
    of_shards = open_session(corpus, order="random")
    assert of_shards.labels.tolist() == of_files.labels.tolist()
    assert of_shards.dataset_names == of_files.dataset_names
    for page, expected in enumerate(tiles):
        of_shards.turn(page)
        for found, tile in zip(of_shards.page_tiles(), expected, strict=True):
            assert (found.limits, found.problem) == (tile.limits, "")
            np.testing.assert_array_equal(found.pixels, tile.pixels)
    of_shards.label([5], "uninformative")
    assert on_disk(corpus)[5] == "uninformative"
    assert [describe_place(path) for path in members] == [describe_place(path) for path in paths]


def test_a_shard_or_member_that_is_missing_says_so_and_takes_no_label(corpus):
    paths = list(PathList(corpus / "list.npz"))
    members = pack(paths, corpus / "shards", per_shard=4)
    gone = members[0].rpartition("/")[0]
    Path(gone).unlink()
    members[19] = members[19].replace("_224.tiff", "_225.tiff")
    write_path_list(corpus / "list.npz", members)
    session = open_session(corpus)
    problems = {}
    for page in range(session.page_count):
        session.turn(page)
        problems |= dict(zip(session.page_indices(), session.page_tiles(), strict=True))
    lost = {i for i, path in enumerate(members) if path.startswith(gone)}
    assert len(lost) == 4
    assert {i for i, tile in problems.items() if tile.problem} == {*lost, 19}
    assert problems[0].problem == "no such shard"
    assert problems[19].problem.startswith("no such member")
    assert session.label([0, 19], "informative") == []


def test_each_annotators_labels_are_carried_over(corpus):
    anna, ben = open_session(corpus, annotator="anna"), open_session(corpus, annotator="ben")
    anna.label([1, 2, 3], "informative")
    ben.label([2], "uninformative")
    ben.label([3], "informative")
    ben.label([1], "informative")
    ben.label([1], "none")
    before = labelled_names(corpus)
    agreement = [(p.both, p.same) for p in ben.agreement()]
    assert agreement == [(2, 1)]
    relist(corpus, [ben.paths[i] for i in range(19, -1, -1)])
    again = open_session(corpus, annotator="ben")
    assert [(p.both, p.same) for p in again.agreement()] == agreement
    assert (
        labelled_names(corpus) == before == {"fly-LOC-0_002_0_0": "uninformative", "fly-LOC-0_003_0_0": "informative"}
    )


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_session_killed_while_it_carried_labels_over_puts_none_on_another_patch(corpus, root):
    session = open_session(corpus, annotator="anna")
    session.label([0, 5], "informative")
    session.label([19], "uninformative")
    before = labelled_names(corpus)
    relist(corpus, [session.paths[i] for i in np.roll(np.arange(20), 3)])
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(corpus)], env=environment, cwd=corpus, timeout=120)
    assert done.returncode == -9
    again = open_session(corpus, annotator="anna")
    assert labelled_names(corpus) == before
    assert again.counts() == {"uninformative": 1, "informative": 2, "none": 17, "unsure": 0}


def test_a_carrying_over_cut_short_in_the_log_is_done_again(corpus):
    session = open_session(corpus, annotator="anna")
    session.label([0, 5], "informative")
    before = labelled_names(corpus)
    log = corpus / "patch_quality_labels.log.jsonl"
    files = {path: path.read_bytes() for path in corpus.glob("patch_quality_labels.*") if path != log}
    relist(corpus, [session.paths[i] for i in np.roll(np.arange(20), 3)])
    open_session(corpus, annotator="anna")
    lines = log.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["action"] == "list"
    # As a killed session leaves it: one label carried over, and half a line.
    log.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    for path, content in files.items():
        path.write_bytes(content)
    relist(corpus, [session.paths[i] for i in np.roll(np.arange(20), 9)])
    again = open_session(corpus, annotator="anna")
    assert labelled_names(corpus) == before
    assert np.array_equal(again.store.own, again.store.codes)
    again.label([7], "uninformative")
    assert len(labelled_names(corpus)) == 3


def test_a_session_open_while_the_list_changed_must_be_opened_again(corpus):
    session = open_session(corpus)
    session.label([0], "informative")
    relist(corpus, [session.paths[i] for i in range(19, -1, -1)])
    open_session(corpus)
    with pytest.raises(InputError, match="run the cell again"):
        session.label([1], "informative")
    assert Counter(on_disk(corpus)) == {"none": 19, "informative": 1}


def test_labels_of_another_list_without_a_log_are_refused_untouched(corpus):
    save_labels(corpus / "patch_quality_labels.npy", np.array(["informative"] * 7))
    with pytest.raises(InputError, match=r"expected 20 labels.*found 7, and no log"):
        open_session(corpus)
    assert on_disk(corpus) == ["informative"] * 7


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"\x93NUMPY broken", "labels"), (None, "no label")],
)
def test_damaged_label_files_are_refused_untouched(corpus, content, found):
    path = corpus / "patch_quality_labels.npy"
    if content is None:
        np.save(path, np.array(["good"] * 20))
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"patch_quality_labels\.npy: expected"):
        open_session(corpus)
    assert path.read_bytes() == before


def test_an_empty_list_is_refused(tmp_path):
    write_path_list(tmp_path / "list.npz", [])
    with pytest.raises(InputError, match="at least one path"):
        open_session(tmp_path)


def test_a_log_nobody_wrote_is_empty(tmp_path):
    assert LabelLog(tmp_path / "none.log.jsonl").read_new().records == []


def test_the_store_serves_any_sequence_of_paths(tmp_path):
    store = LabelStore(tmp_path / "labels.npy", ["a", "b"], "me")
    assert store.set_labels([1], [0]) == [1]
    assert load_labels(tmp_path / "labels.npy").tolist() == ["none", "uninformative"]


# -- the widget's messages -------------------------------------------------------------------------------------------


@pytest.fixture
def widget(corpus):
    module = pytest.importorskip("emcurate.labeling.widget", reason="anywidget is not installed")
    widget = module.label_patches(str(corpus / "list.npz"), corpus / "patch_quality_labels.npy", annotator=" anna ")
    widget.sent = []
    widget.send = lambda content, buffers=None: widget.sent.append((content, buffers))
    return widget


def ask(widget, **message):
    widget.sent.clear()
    widget._receive(widget, {"client": "c", "request": 7, **message}, [])
    return [content for content, _ in widget.sent]


def test_a_page_is_sent_as_its_pixels_and_nothing_of_other_pages(widget):
    (page,) = ask(widget, type="ready")
    (buffers,) = [buffers for _, buffers in widget.sent]
    assert len(page["tiles"]) == len(buffers) == 12
    assert [buffers[tile["buffer"]] for tile in page["tiles"]] == [
        load_tile(tile["path"]).pixels.tobytes() for tile in page["tiles"]
    ]
    json.dumps(page)
    assert (page["client"], page["request"], page["pages"], page["total"]) == ("c", 7, 2, 20)


def test_labels_are_answered_with_what_is_saved(widget, corpus):
    indices = widget.session.page_indices()
    (answer,) = ask(widget, type="label", indices=indices[:2], label="informative", cursor=indices[2])
    assert [answer["labels"][str(i)] for i in indices[:3]] == ["informative", "informative", "none"]
    assert answer["counts"] == {"uninformative": 0, "informative": 2, "none": 18, "unsure": 0}
    assert Session(corpus / "list.npz", corpus / "patch_quality_labels.npy", annotator="anna").cursor == indices[2]


def test_an_undo_on_another_page_brings_that_page(widget):
    indices = widget.session.page_indices()
    ask(widget, type="label", indices=indices[:1], label="informative", cursor=indices[1])
    ask(widget, type="turn", page=1)
    (page,) = ask(widget, type="undo")
    assert (page["type"], page["page"], page["cursor"]) == ("page", 0, indices[0])


def test_the_patch_at_the_cursor_stays_in_sight_when_the_grid_changes(widget):
    last = widget.session.page_indices()[11]
    (page,) = ask(widget, type="arrange", changes={"rows": 1, "columns": 2}, cursor=last)
    assert page["cursor"] == last in [tile["index"] for tile in page["tiles"]] and len(page["tiles"]) == 2


def test_what_cannot_be_done_is_an_error_and_the_labels_as_they_are(widget, monkeypatch):
    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    indices = widget.session.page_indices()
    (labels,) = ask(widget, type="label", indices=indices[:1], label="informative", cursor=indices[1])
    assert labels["unsaved"] and "No space left on device" in labels["error"]
    assert labels["labels"][str(indices[0])] == "none"


def test_details_hold_counts_by_dataset_and_agreement(widget, corpus):
    ask(widget, type="label", indices=[0, 1], label="informative", cursor=0)
    Session(corpus / "list.npz", corpus / "patch_quality_labels.npy", annotator="ben").label([1], "informative")
    ask(widget, type="label", indices=[14], label="uninformative", cursor=0)
    (details,) = ask(widget, type="details")
    json.dumps(details)
    assert details["rows"][0] == {
        "name": "fly",
        "total": 14,
        "informative": 2,
        "uninformative": 0,
        "none": 12,
        "unsure": 0,
    }
    assert details["agreement"] == [{"first": "anna", "second": "ben", "both": 1, "same": 1, "kappa": None}]


def test_what_keeps_a_notebook_from_opening_is_one_line(corpus):
    module = pytest.importorskip("emcurate.labeling.widget", reason="anywidget is not installed")
    with pytest.raises(module.LabelingError) as caught:
        module.label_patches(corpus / "nowhere.npz", corpus / "patch_quality_labels.npy")
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert str(corpus / "nowhere.npz") in str(caught.value)
