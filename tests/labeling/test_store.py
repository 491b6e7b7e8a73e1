"""The labels of a list on disk: whose they are, that they follow their patches, and what becomes of odd files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from emcurate.errors import InputError
from emcurate.labeling import annotator as annotator_module
from emcurate.labeling import writer as writer_module
from emcurate.labeling.store import LabelStore
from emcurate.patches import label_history
from emcurate.patches.label_files import LabelFiles
from emcurate.patches.labels import LABELS, load_labels, new_labels, save_labels

UNI, INF, NONE, UNSURE = range(4)
NAMES = [f"fly-LOC-0_{i}_0_0.tiff" for i in range(6)]
LAPTOP = [f"/Users/anna/patches/{name}" for name in NAMES]
CLUSTER = [f"/scratch/lab/p/{name}" for name in NAMES]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "patch_quality_labels.npy"


def words(file: Path) -> list[str]:
    return load_labels(file).tolist()


def log_of(file: Path) -> Path:
    return LabelFiles(file).log


# -- patches, wherever they lie --------------------------------------------------------------------------------------


def test_corrections_made_on_another_machine_are_there_on_the_first_one_again(file):
    LabelStore(file, LAPTOP, "anna").set_labels(range(6), [INF] * 6)
    on_cluster = LabelStore(file, CLUSTER, "anna")
    assert on_cluster.notices == [], "the same patches in the same order are the same list"
    on_cluster.set_labels([0, 1, 2, 3], [UNI] * 4)
    again = LabelStore(file, LAPTOP, "anna")
    assert again.codes.tolist() == again.own.tolist() == [UNI, UNI, UNI, UNI, INF, INF]


def test_two_people_with_two_mount_points_keep_their_labels(file):
    anna, ben = LabelStore(file, LAPTOP, "anna"), LabelStore(file, CLUSTER, "ben")
    anna.set_labels([0, 1], [INF, INF])
    ben.set_labels([1, 2], [UNI, UNI])
    anna.set_labels([3], [INF])
    for paths in (LAPTOP, CLUSTER, [f"/third/{name}" for name in NAMES]):
        store = LabelStore(file, paths, "carla")
        assert store.annotations() == {
            "anna": {0: "informative", 1: "informative", 3: "informative"},
            "ben": {1: "uninformative", 2: "uninformative"},
        }
        assert store.codes.tolist() == [INF, UNI, UNI, INF, NONE, NONE]


def test_paths_of_windows_name_the_same_patches(file):
    LabelStore(file, [rf"C:\data\{name}" for name in NAMES], "anna").set_labels([2], [INF])
    assert LabelStore(file, LAPTOP, "anna").codes.tolist() == [NONE, NONE, INF, NONE, NONE, NONE]


def test_labels_of_an_older_list_of_the_same_length_go_to_no_other_patch(file):
    LabelStore(file, LAPTOP, "anna").set_labels([0, 1, 2], [INF, UNI, UNSURE])
    newer = [f"/p/new-LOC-0_{i}_0_0.tiff" for i in range(3)] + LAPTOP[:3]
    store = LabelStore(file, newer, "anna")
    assert words(file) == ["none"] * 3 + ["informative", "uninformative", "unsure"]
    assert "3 labels were carried over" in store.notices[0] and "no longer listed" not in store.notices[0]


def test_a_list_of_altogether_other_patches_is_refused_and_all_stays_as_it_was(file):
    LabelStore(file, LAPTOP, "anna").set_labels([0, 1], [INF, UNI])
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    with pytest.raises(InputError, match="found labels of 2 patches, none of them listed; use the list these labels"):
        LabelStore(file, [f"/p/mouse-LOC-0_{i}_0_0.tiff" for i in range(6)], "anna")
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == before
    # Some of the patches, of which none is labelled, are a list that has become shorter.
    assert LabelStore(file, LAPTOP[2:], "anna").codes.tolist() == [NONE] * 4
    assert LabelStore(file, LAPTOP, "anna").codes.tolist() == [INF, UNI, NONE, NONE, NONE, NONE]


def test_two_patches_of_one_name_are_told_apart_by_their_directories(file):
    paths = ["/p/a/1.png", "/p/b/1.png", "/p/b/2.png"]
    LabelStore(file, paths, "anna").set_labels([0, 1, 2], [INF, UNI, INF])
    assert [json.loads(line).get("patch") for line in log_of(file).read_text().splitlines()[1:]] == [
        "a/1.png",
        "b/1.png",
        "2.png",
    ]
    moved = ["/q/b/1.png", "/q/2.png", "/q/a/1.png"]
    assert LabelStore(file, moved, "anna").codes.tolist() == [UNI, INF, INF]
    # Of directories that were renamed it is not known which is which; of a list that has one of them only it is.
    assert LabelStore(file, ["/r/2.png", "/r/c/1.png"], "anna").codes.tolist() == [INF, NONE]
    assert LabelStore(file, ["/r/2.png", "/r/c/1.png", "/r/d/1.png"], "anna").codes.tolist() == [INF, NONE, NONE]
    assert LabelStore(file, ["/r/2.png", "/r/b/1.png"], "anna").codes.tolist() == [INF, UNI]


def test_a_path_listed_twice_is_one_patch(file):
    store = LabelStore(file, [LAPTOP[0], LAPTOP[1], LAPTOP[0]], "anna")
    store.set_labels([0], [INF])
    assert words(file) == ["informative", "none", "informative"]
    assert sorted(store.undo()) == [0, 2] and words(file) == ["none"] * 3


def test_a_name_written_by_macos_and_by_linux_is_one_name(file):
    LabelStore(file, ["/p/fliége-LOC-2d_0_0.tiff", "/p/x.tiff"], "anna").set_labels([0], [INF])
    assert LabelStore(file, ["/p/x.tiff", "/p/flie\u0301ge-LOC-2d_0_0.tiff"], "anna").codes.tolist() == [NONE, INF]


def test_a_name_that_is_no_unicode_is_kept(file):
    odd = os.fsdecode(b"/p/fly\xff-LOC-2d_0_0.tiff")
    LabelStore(file, [odd, *LAPTOP], "anna").set_labels([0], [INF])
    assert LabelStore(file, [*CLUSTER, odd], "anna").codes.tolist() == [NONE] * 6 + [INF]


# -- whose labels ----------------------------------------------------------------------------------------------------


def test_undo_takes_back_ones_own_act_and_leaves_what_others_said(file):
    anna, ben = LabelStore(file, LAPTOP, "anna"), LabelStore(file, LAPTOP, "ben")
    anna.set_labels([0], [INF])
    ben.set_labels([0], [UNI])
    anna.set_labels([0], [UNSURE])
    assert anna.undo() == [0] and words(file)[0] == "uninformative"
    # Ben's label was given while anna's stood, and goes back to no label that nobody holds any more.
    assert anna.undo() == [0] and words(file)[0] == "uninformative"
    assert ben.undo() == [0] and words(file)[0] == "none"
    assert anna.undo() == ben.undo() == []
    assert LabelStore(file, LAPTOP, "anna").said(0) == {}


def test_undo_of_a_label_below_another_persons_brings_back_no_label_of_ones_own(file):
    anna, ben = LabelStore(file, LAPTOP, "anna"), LabelStore(file, LAPTOP, "ben")
    anna.set_labels([0], [INF])
    ben.set_labels([0], [UNI])
    anna.undo()
    ben.undo()
    assert words(file)[0] == "none", "nobody says informative any more"
    anna.set_labels([1], [INF])
    ben.set_labels([1], [INF])
    anna.undo()
    assert words(file)[1] == "informative", "ben still says so"
    assert LabelStore(file, LAPTOP, "carla").said(1) == {"ben": "informative"}


def test_a_session_does_not_take_back_what_another_of_the_same_name_does_meanwhile(file):
    one, two = LabelStore(file, LAPTOP, "anna"), LabelStore(file, LAPTOP, "anna")
    one.set_labels([0], [INF])
    two.set_labels([1], [INF])
    assert (one.undo_count, two.undo_count) == (1, 1)
    assert two.undo() == [1] and two.undo() == []
    assert words(file)[:2] == ["informative", "none"]
    later = LabelStore(file, LAPTOP, "anna")
    assert later.undo() == [0]
    assert one.undo() == [], "it is taken back already"


def test_without_a_name_the_login_and_the_machine_are_the_name(file, monkeypatch):
    def login(user, host):
        monkeypatch.setattr(annotator_module.getpass, "getuser", lambda: user)
        monkeypatch.setattr(annotator_module.socket, "gethostname", lambda: host)
        return LabelStore(file, LAPTOP)

    anna, ben = login("anna", "ws1.lab.example"), login("ben", "ws1.lab.example")
    pi, other_pi = login("pi", "scope1"), login("pi", "scope2")
    for index, store in enumerate((anna, ben, pi, other_pi)):
        store.set_labels([index], [INF])
    assert LabelStore(file, LAPTOP, "x").annotators() == ["anna@ws1", "ben@ws1", "pi@scope1", "pi@scope2"]
    assert ben.undo() == [1] and ben.undo() == []
    assert words(file)[:4] == ["informative", "none", "informative", "informative"]
    again = login("anna", "ws1.lab.example")
    assert again.annotator == "anna@ws1" and again.undo() == [0]


NAMELESS = """
import sys
from pathlib import Path
from emcurate.labeling.store import LabelStore
store = LabelStore(Path(sys.argv[1]), sys.argv[2:])
store.set_labels([1], [0])
print(store.annotator, *store.notices, sep="|", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs file locks")
def test_two_at_once_who_share_a_login_are_two_people(file, root):
    mine = LabelStore(file, LAPTOP)
    mine.set_labels([0], [INF])
    done = subprocess.run(
        [sys.executable, "-c", NAMELESS, str(file), *LAPTOP],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    name, notice = done.stdout.strip().split("|")
    assert name == f"{mine.annotator} (2)" and "Set ANNOTATOR" in notice
    assert mine.undo() == [0] and mine.undo() == []
    assert words(file)[:2] == ["none", "uninformative"]


def test_names_with_blanks_around_them_are_one_name(file):
    LabelStore(file, LAPTOP, " anna ").set_labels([0], [INF])
    assert LabelStore(file, LAPTOP, "anna").undo() == [0]


# -- typed in by hand ------------------------------------------------------------------------------------------------


def type_in(file: Path, labels: dict[int, str]) -> None:
    array = load_labels(file)
    for index, label in labels.items():
        array[index] = label
    save_labels(file, array)


@pytest.mark.parametrize("missing", ["", "state", "listed", "log", "state listed", "state log"])
@pytest.mark.parametrize("change", ["", "grown", "reordered"])
def test_corrections_typed_in_by_hand_survive_whatever_else_is_missing(file, missing, change):
    store = LabelStore(file, LAPTOP, "anna")
    store.set_labels([0, 1], [INF, INF])
    store.set_labels([2], [UNI])
    type_in(file, {1: "uninformative", 4: "informative"})
    for name in missing.split():
        getattr(LabelFiles(file), name).unlink()
    new = ["/p/ant-LOC-0_0_0_0.tiff"]
    paths = {"": LAPTOP, "grown": new + CLUSTER, "reordered": CLUSTER[::-1]}[change]
    expected = dict(
        zip(NAMES, ["informative", "uninformative", "uninformative", "none", "informative", "none"], strict=True)
    )
    if change and "listed" in missing:
        # Nothing knows any more of which patches the labels were that are in the file only: it is kept, and said.
        store = LabelStore(file, paths, "anna")
        (backup,) = file.parent.glob("patch_quality_labels.2*.npy")
        assert words(backup) == list(expected.values())
        assert any("labels typed into the file are not used" in n and backup.name in n for n in store.notices)
        assert dict(zip(map(os.path.basename, paths), words(file), strict=True))[NAMES[0]] == "informative"
        return
    store = LabelStore(file, paths, "anna")
    found = dict(zip(map(os.path.basename, paths), words(file), strict=True))
    assert {name: found[name] for name in NAMES} == expected
    # And not only in the file: they are in the log, and survive the next change of the list.
    file.unlink()
    again = LabelStore(file, LAPTOP, "anna")
    assert words(file) == list(expected.values())
    assert again.said(4) == {}, "nobody of a name said so"


def test_a_label_typed_in_between_two_sessions_wins_over_what_the_log_said_before(file):
    LabelStore(file, LAPTOP, "anna").set_labels([0, 1], [INF, INF])
    type_in(file, {0: "none"})
    store = LabelStore(file, LAPTOP, "anna")
    assert store.codes.tolist()[:2] == [NONE, INF]
    assert store.notices == ["1 labels found in the file alone count as typed in by hand, and are logged so"]
    store.set_labels([0], [UNI])
    assert LabelStore(file, LAPTOP, "anna").codes.tolist()[:2] == [UNI, INF]


def test_a_label_file_that_lags_behind_a_log_without_a_state_follows_the_log_and_is_kept(file):
    store = LabelStore(file, LAPTOP, "anna")
    store.set_labels([0], [INF])
    behind = file.read_bytes()
    store.set_labels([1], [INF])
    file.write_bytes(behind)
    LabelFiles(file).state.unlink()
    again = LabelStore(file, LAPTOP, "anna")
    assert words(file)[:2] == ["informative", "informative"]
    (backup,) = file.parent.glob("patch_quality_labels.2*.npy")
    assert backup.read_bytes() == behind and backup.name in again.notices[-1]


def test_each_label_file_has_a_log_of_its_own(tmp_path):
    anna = LabelStore(tmp_path / "labels.alice", LAPTOP, "anna")
    ben = LabelStore(tmp_path / "labels.bob", LAPTOP, "ben")
    anna.set_labels([0], [INF])
    ben.set_labels([0, 1], [UNI, UNI])
    assert words(tmp_path / "labels.alice")[:2] == ["informative", "none"]
    assert LabelStore(tmp_path / "labels.alice", LAPTOP, "anna").annotators() == ["anna"]
    assert LabelStore(tmp_path / "labels.bob", LAPTOP, "ben").annotators() == ["ben"]
    assert words(tmp_path / "labels.bob")[:2] == ["uninformative", "uninformative"]
    assert {"labels.alice.log.jsonl", "labels.bob.log.jsonl"} <= {path.name for path in tmp_path.iterdir()}


def test_a_log_that_two_label_files_shared_is_left_and_their_labels_taken_from_the_files(tmp_path):
    shared = tmp_path / "labels.log.jsonl"
    shared.write_text(old_line(0, "anna", "label", 0, LAPTOP[0], "informative") * 2)
    before = shared.read_bytes()
    save_labels(tmp_path / "labels.alice", np.array(["unsure", *["none"] * 5]))
    store = LabelStore(tmp_path / "labels.alice", LAPTOP, "anna")
    assert store.codes.tolist() == [UNSURE] + [NONE] * 5 and shared.read_bytes() == before
    assert store.notices[0] == "labels.log.jsonl, which labels.alice shared with other files, is not read any more"
    assert LabelStore(tmp_path / "labels.alice", LAPTOP, "anna").notices == []


def test_two_label_files_that_would_share_a_log_are_refused(tmp_path):
    LabelStore(tmp_path / "labels.npy", LAPTOP, "anna").set_labels([0], [INF])
    save_labels(tmp_path / "labels", new_labels(6))
    for name in ("labels", "labels.npy"):
        with pytest.raises(InputError, match="beside it, whose log has the same name; rename one of them"):
            LabelStore(tmp_path / name, LAPTOP, "anna")


def test_a_long_list_is_written_even_if_its_state_goes_meanwhile(file, monkeypatch):
    monkeypatch.setattr(writer_module, "LABELS_WRITTEN_AT_ONCE", 2)
    store = LabelStore(file, LAPTOP, "anna")
    LabelFiles(file).state.unlink()
    store.set_labels([0], [INF])
    store.flush()
    assert words(file)[0] == "informative"
    # One who has opened another list meanwhile is not written over.
    LabelStore(file, CLUSTER[::-1], "ben").flush()
    store._writer.write_soon(store.codes)
    store.flush()
    assert words(file)[-1] == "informative"


# -- clocks, machines, damage ----------------------------------------------------------------------------------------


def test_a_clock_that_was_put_back_makes_no_label_older(file, monkeypatch):
    class Clock(datetime):
        shift = timedelta()

        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + cls.shift

    monkeypatch.setattr(label_history, "datetime", Clock)
    for days, code in ((0, INF), (-400, UNI), (3000, UNSURE), (-3, INF)):
        Clock.shift = timedelta(days=days)
        LabelStore(file, LAPTOP, "anna").set_labels([0], [code])
        monkeypatch.setattr(Clock, "shift", timedelta(days=-5000))
        assert LabelStore(file, CLUSTER, "ben").codes[0] == code
    times = [json.loads(line)["time"] for line in log_of(file).read_text().splitlines()]
    assert times == sorted(times)


def test_logs_of_two_copies_joined_into_one_keep_the_newest_of_each(file, tmp_path):
    """Two people labelled copies of one directory; `cat` joins their logs, in either order."""
    LabelStore(file, LAPTOP, "anna").set_labels([0, 1, 2], [INF, INF, INF])
    copies = []
    for who, code in (("anna", UNI), ("ben", UNSURE)):
        copy = tmp_path / who / file.name
        copy.parent.mkdir()
        for source in (file, LabelFiles(file).log, LabelFiles(file).state, LabelFiles(file).listed):
            (copy.parent / source.name).write_bytes(source.read_bytes())
        copies.append(LabelStore(copy, CLUSTER, who))
        copies[-1].set_labels([1], [code])
    copies[0].undo()
    copies[0].set_labels([2], [UNI])
    found = []
    for number, (first, second) in enumerate((copies, copies[::-1])):
        joined = tmp_path / f"joined{number}" / file.name
        joined.parent.mkdir()
        log_of(joined).write_bytes(log_of(first.path).read_bytes() + log_of(second.path).read_bytes())
        store = LabelStore(joined, LAPTOP, "carla")
        found.append((store.codes.tolist(), store.annotations()))
    assert found[0] == found[1]
    assert found[0] == (
        [INF, UNSURE, UNI, NONE, NONE, NONE],
        {
            "anna": {0: "informative", 1: "informative", 2: "uninformative"},
            "ben": {1: "unsure"},
        },
    )


def test_a_joined_log_put_in_the_place_of_ones_own_is_caught_up_with(file, tmp_path):
    LabelStore(file, LAPTOP, "anna").set_labels([0, 1], [INF, INF])
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy, ignore=lambda *_: ["copy"])
    LabelStore(copy / file.name, CLUSTER, "ben").set_labels([1, 2], [UNI, UNI])
    LabelStore(file, LAPTOP, "anna").set_labels([3], [INF])
    type_in(file, {5: "unsure"})
    log_of(file).write_bytes(log_of(file).read_bytes() + log_of(copy / file.name).read_bytes())
    store = LabelStore(file, LAPTOP, "anna")
    assert store.codes.tolist() == [INF, UNI, UNI, INF, NONE, UNSURE]
    assert store.annotators() == ["anna", "ben"]


def test_lines_of_others_between_reading_and_writing_are_taken_in(file, monkeypatch):
    """Where a network file system knows no locks, two machines write at once."""
    monkeypatch.setattr("emcurate.patches.label_log.wait_for_lock", lambda file: None)
    anna, ben = LabelStore(file, LAPTOP, "anna"), LabelStore(file, CLUSTER, "ben")
    append = anna.log.append

    def append_late(records):
        records = list(records)
        ben.set_labels([1], [UNI])
        append(records)

    monkeypatch.setattr(anna.log, "append", append_late)
    anna.set_labels([0], [INF])
    assert anna.codes.tolist()[:2] == [INF, UNI]
    assert words(file)[:2] == ["informative", "uninformative"]


def test_a_half_written_last_line_costs_nothing_else(file):
    store = LabelStore(file, LAPTOP, "anna")
    store.set_labels([0], [INF])
    with open(log_of(file), "ab") as log:
        log.write(b'{"time": "2026-01-01T00:00:00", "annot')
    store.set_labels([1], [UNI])
    again = LabelStore(file, LAPTOP, "anna")
    assert again.codes.tolist()[:2] == [INF, UNI]
    assert again.notices == ["1 damaged lines of its log were passed over"]


DAMAGES = {
    "zeros": lambda line: b"\0" * (len(line) - 1) + b"\n",
    "not json": lambda line: b"<<<<<<< HEAD\n",
    "cut": lambda line: line[: len(line) // 2] + b"\n",
    "other type": lambda line: (
        b'{"time": 3, "annotator": [], "action": "label", "patch": {}, "label": "informative"}\n'
    ),
    "no time": lambda line: line.replace(b'"time": "2', b'"time": "x2'),
    "other label": lambda line: line.replace(b'"label": "informative"', b'"label": "excellent"'),
    "list": lambda line: b"[1, 2]\n",
    "number": lambda line: b"17\n",
    "not utf-8": lambda line: line.replace(b"fly", b"\xff\xfe"),
    "deep": lambda line: b"[" * 100_000 + b"\n",
    "gone": lambda line: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_damaged_log_has_lost_is_taken_from_the_file(file, damage):
    store = LabelStore(file, LAPTOP, "anna")
    for index in range(4):
        store.set_labels([index], [INF])
    lines = log_of(file).read_bytes().splitlines(keepends=True)
    lines[2] = DAMAGES[damage](lines[2])
    log_of(file).write_bytes(b"".join(lines))
    again = LabelStore(file, CLUSTER, "anna")
    assert again.codes.tolist() == [INF, INF, INF, INF, NONE, NONE]
    assert LabelStore(file, LAPTOP, "anna").codes.tolist() == [INF, INF, INF, INF, NONE, NONE]


def test_a_log_that_another_has_taken_the_place_of_is_noticed(file):
    store = LabelStore(file, LAPTOP, "anna")
    store.set_labels([0], [INF])
    older = log_of(file).read_bytes()
    store.set_labels([1], [UNI])
    log_of(file).write_bytes(older)
    with pytest.raises(InputError, match="run the cell again"):
        store.set_labels([2], [INF])
    again = LabelStore(file, LAPTOP, "anna")
    assert again.codes.tolist()[:3] == [INF, UNI, NONE], "what the older log lacks is in the file"
    log_of(file).unlink()
    with pytest.raises(InputError, match="run the cell again"):
        again.set_labels([2], [INF])
    assert LabelStore(file, LAPTOP, "anna").codes.tolist()[:3] == [INF, UNI, NONE]


def test_a_damaged_table_of_patches_is_named(file):
    LabelStore(file, LAPTOP, "anna").set_labels([0], [INF])
    LabelFiles(file).listed.write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"patches\.parquet: expected the table .* restore it, or remove it"):
        LabelStore(file, LAPTOP, "anna")
    LabelFiles(file).listed.unlink()
    assert LabelStore(file, LAPTOP, "anna").codes[0] == INF


def test_times_without_a_zone_and_at_the_end_of_time_are_taken_as_they_are(file):
    log_of(file).write_text(
        "".join(
            json.dumps(
                {"time": time, "annotator": "x", "action": "label", "act": time, "patch": NAMES[0], "label": label}
            )
            + "\n"
            for time, label in (("9999-12-31T23:59:59.999999", "informative"), ("2020-01-01", "uninformative"))
        )
    )
    store = LabelStore(file, LAPTOP, "anna")
    assert store.codes[0] == INF
    store.set_labels([0], [UNI])
    assert store.codes[0] == UNI == LabelStore(file, LAPTOP, "anna").codes[0]


# -- what version 0.1 left -------------------------------------------------------------------------------------------


def old_line(time: int, who: str, action: str, index: int, path: str = "", label: str = "none", before: str = "none"):
    moment = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=time)
    line = {
        "time": moment.isoformat(timespec="microseconds"),
        "annotator": who,
        "action": action,
        "index": index,
        "path": path,
        "label": label,
        "previous": before,
    }
    return json.dumps(line) + "\n"


def old_log() -> str:
    """Anna labels on her laptop and corrects on a cluster, ben labels there, and she opens all on her laptop again."""
    lines = [old_line(0, "anna", "label", i, LAPTOP[i], "informative") for i in range(4)]
    lines += [old_line(1, "anna", "label", 4, LAPTOP[4], "informative"), old_line(2, "anna", "undo", 4, LAPTOP[4])]
    lines += [old_line(3 + i, "anna", "carry", i, CLUSTER[i], "informative") for i in range(4)]
    lines += [old_line(9, "(file)", "list", 4)]
    # The cluster's clock is an hour behind.
    lines += [old_line(-3600, "anna", "label", i, CLUSTER[i], "uninformative") for i in range(2)]
    lines += [old_line(-3590, "ben", "label", 5, CLUSTER[5], "informative")]
    lines += [old_line(-3590, "ben", "label", 2, CLUSTER[2], "uninformative", "informative")]
    lines += [old_line(20 + i, "anna", "carry", i, LAPTOP[i], "informative") for i in range(4)]
    lines += [old_line(26, "ben", "carry", 5, LAPTOP[5], "informative"), old_line(27, "(file)", "list", 5)]
    return "".join(lines)


@pytest.mark.parametrize("paths", [LAPTOP, CLUSTER, [f"/third/{name}" for name in NAMES], CLUSTER[::-1]])
@pytest.mark.parametrize("with_file", [True, False])
def test_a_log_of_version_0_1_is_read_by_names_and_gives_corrections_back(file, paths, with_file):
    log_of(file).write_text(old_log())
    if with_file:
        save_labels(file, np.array(["informative"] * 4 + ["none", "informative"]))
    store = LabelStore(file, paths, "anna")
    found = dict(zip(map(os.path.basename, paths), words(file), strict=True))
    assert [found[name] for name in NAMES] == [
        "uninformative",
        "uninformative",
        "uninformative",
        "informative",
        "none",
        "informative",
    ]
    said = {who: {Path(paths[i]).name: v for i, v in labels.items()} for who, labels in store.annotations().items()}
    assert said == {
        "anna": dict(zip(NAMES[:4], ["uninformative"] * 2 + ["informative"] * 2, strict=True)),
        "ben": {NAMES[2]: "uninformative", NAMES[5]: "informative"},
    }
    if with_file:
        (backup,) = file.parent.glob("patch_quality_labels.2*.npy")
        assert backup.name in " ".join(store.notices)
    assert len(store.undo()) == 2, "the two corrections"


def test_what_a_log_gives_does_not_hang_on_the_hash_seed(file, root):
    log_of(file).write_text(old_log() + old_line(30, "anna", "label", 0, "/third/" + NAMES[0], "unsure"))
    code = (
        "import sys; from pathlib import Path; from emcurate.labeling.store import LabelStore;"
        "s = LabelStore(Path(sys.argv[1]), sys.argv[2:], 'x'); print(s.codes.tolist(), s.annotations())"
    )
    answers = set()
    for seed in range(5):
        directory = file.parent / str(seed)
        directory.mkdir()
        log_of(directory / file.name).write_bytes(log_of(file).read_bytes())
        environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", code, str(directory / file.name), *(f"/fourth/{name}" for name in NAMES)]
        answers.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(answers) == 1 and answers.pop().startswith("[3, 0, 0, 1, 2, 1]")


def test_in_a_log_of_version_0_1_two_patches_of_one_name_stay_two(file):
    paths = ["/p/a/1.png", "/p/b/1.png"]
    log_of(file).write_text(
        old_line(0, "anna", "label", 0, paths[0], "informative")
        + old_line(1, "anna", "label", 1, paths[1], "uninformative")
    )
    assert LabelStore(file, ["/q/b/1.png", "/q/a/1.png"], "anna").codes.tolist() == [UNI, INF]


@pytest.mark.parametrize("typed", [{}, {5: "unsure"}])
def test_a_label_nobody_holds_that_an_undo_of_version_0_1_left_is_not_taken_for_typed_in(file, typed):
    """Its file said what the one had found when labelling, though the other had taken that back since."""
    lines = [
        old_line(0, "anna", "label", 0, LAPTOP[0], "informative"),
        old_line(1, "ben", "label", 0, LAPTOP[0], "uninformative", "informative"),
        old_line(2, "anna", "undo", 0, LAPTOP[0], "uninformative", "uninformative"),
        old_line(3, "ben", "undo", 0, LAPTOP[0], "informative", "uninformative"),
        *(old_line(4 + i, "ben", "label", i, LAPTOP[i], "informative") for i in range(1, 4)),
    ]
    log_of(file).write_text("".join(lines))
    save_labels(file, np.array(["informative"] * 4 + ["none"] * 2))
    type_in(file, typed)
    store = LabelStore(file, CLUSTER, "anna")
    assert store.codes.tolist() == [NONE, INF, INF, INF, NONE, UNSURE if typed else NONE]
    (backup,) = file.parent.glob("patch_quality_labels.2*.npy")
    assert words(backup)[0] == "informative" and any(backup.name in notice for notice in store.notices)


def test_labels_typed_into_a_file_of_version_0_1_survive_too(file):
    lines = [old_line(i, "anna", "label", i, LAPTOP[i], "informative") for i in range(4)]
    log_of(file).write_text("".join(lines))
    labels = new_labels(6)
    labels[:4] = "informative"
    labels[[1, 5]] = "uninformative"
    save_labels(file, labels)
    LabelFiles(file).state.write_text(json.dumps({"applied": len("".join(lines)), "file": "another, 1"}))
    store = LabelStore(file, LAPTOP, "anna")
    assert words(file) == labels.tolist() and "2 labels found in the file alone" in store.notices[0]


def test_lines_with_what_a_later_version_may_add_are_read(file):
    store = LabelStore(file, LAPTOP, "anna")
    store.set_labels([0], [INF])
    log = log_of(file)
    log.write_text(log.read_text().replace('"action"', '"mood": "good", "action"'))
    assert LabelStore(file, LAPTOP, "anna").codes[0] == LABELS.index("informative")


# -- kills -----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


def die_at(monkeypatch, step: int) -> None:
    """End the process at its so-many-th call that makes something last: before it, and with odd steps after it."""
    calls = iter(range(step + 1, 0, -1))

    def dying(function):
        def call(*arguments, **options):
            left = next(calls, 0)
            if left == 2 and step % 2:
                function(*arguments, **options)
            if left <= 2:
                raise Killed
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    monkeypatch.setattr(shutil, "copy2", dying(shutil.copy2))


GROWN = ["/p/ant-LOC-0_0_0_0.tiff", *CLUSTER[:3], "/p/ant-LOC-0_1_0_0.tiff", *CLUSTER[3:]]


@pytest.mark.parametrize("then", ["again", "back", "third"])
@pytest.mark.parametrize("lost", ["", "state", "listed"])
@pytest.mark.parametrize("new", [GROWN, CLUSTER[::-1], CLUSTER[:4]], ids=["grown", "reordered", "shrunk"])
def test_a_kill_at_any_step_of_taking_up_another_list_costs_no_label(file, monkeypatch, new, lost, then):
    LabelStore(file, LAPTOP, "anna").set_labels([0, 1, 3], [INF, UNI, UNSURE])
    type_in(file, {2: "informative"})
    start = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    expected = dict(zip(NAMES, ["informative", "uninformative", "informative", "unsure", "none", "none"], strict=True))
    paths = {"again": new, "back": LAPTOP, "third": [*GROWN[::-1], "/p/bee-LOC-0_0_0_0.tiff"]}[then]
    for step in range(100):
        for path in file.parent.iterdir():
            path.unlink()
        for name, content in start.items():
            (file.parent / name).write_bytes(content)
        with monkeypatch.context() as patch:
            die_at(patch, step)
            try:
                LabelStore(file, new, "anna")
                done = True
            except Killed:
                done = False
        if lost and (file.parent / getattr(LabelFiles(file), lost)).exists() and step > 4:
            getattr(LabelFiles(file), lost).unlink()
        store = LabelStore(file, paths, "anna")
        found = dict(zip([Path(path).name for path in paths], words(file), strict=True))
        assert found == {name: expected.get(name, "none") for name in found}, step
        assert store.own.tolist() == [
            LABELS.index("none" if name == NAMES[2] else expected.get(name, "none")) for name in found
        ]
        if done:
            break
    assert 8 < step < 60
