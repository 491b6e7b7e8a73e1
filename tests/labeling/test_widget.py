"""What the widget's browser side is told and can ask for, without a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from emcurate.images.sections import write_section
from emcurate.labeling.frontend import BROWSER, MODULES, join_modules
from emcurate.labeling.pace import LONGEST_PAUSE, Pace
from emcurate.labeling.session import Session
from emcurate.patches.label_log import LabelLog
from emcurate.patches.labels import load_labels
from emcurate.patches.pathlists import write_path_list

module = pytest.importorskip("emcurate.labeling.widget", reason="anywidget is not installed")

COUNT = 20
ROOM = {"width": 1000, "height": 420, "frame_width": 16, "frame_height": 38}


@pytest.fixture
def corpus(tmp_path):
    """Twenty patches and a model's scores of them: 0, 0.05, 0.1 and so on."""
    (tmp_path / "patches").mkdir()
    generator = np.random.default_rng(0)
    paths = [str(tmp_path / "patches" / f"fly-LOC-0_{i:03d}_0_0.tiff") for i in range(COUNT)]
    for path in paths:
        write_section(Path(path), generator.integers(0, 256, (16, 16), dtype=np.uint8))
    write_path_list(tmp_path / "list.npz", paths)
    np.save(tmp_path / "nn_scores.npy", np.arange(COUNT, dtype=np.float32) / COUNT)
    return tmp_path


class Asked:
    """A widget whose messages are kept, and a browser that asks it things."""

    def __init__(self, corpus, **options):
        self.corpus = corpus
        options = {"annotator": "anna", "scores": corpus / "nn_scores.npy", **options}
        self.widget = module.label_patches(corpus / "list.npz", corpus / "labels.npy", **options)
        self.session = self.widget.session
        self.sent = []
        self.widget.send = lambda content, buffers=None: self.sent.append(content)

    def ask(self, kind, **content):
        self.sent.clear()
        self.widget._receive(self.widget, {"type": kind, "client": "c", "request": 1, **content}, [])
        json.dumps(self.sent)
        return self.sent[-1]

    def saved(self):
        return load_labels(self.corpus / "labels.npy").tolist()


@pytest.fixture
def browser(corpus):
    return Asked(corpus)


def test_a_page_is_as_large_as_the_window_has_room_for_and_the_cursor_stays_on_its_patch(browser):
    page = browser.ask("ready", room=ROOM)
    assert (page["view"]["rows"], page["view"]["columns"], len(page["tiles"])) == (2, 5, 10)
    assert page["fresh"] and page["size"] == 172
    browser.ask("turn", page=1)
    cursor = browser.session.page_indices()[3]
    page = browser.ask("room", room={**ROOM, "width": 600, "height": 210}, cursor=cursor)
    assert page["cursor"] == cursor in [tile["index"] for tile in page["tiles"]]
    assert len(page["tiles"]) == 3 and not page["fresh"]
    page = browser.ask("arrange", changes={"columns": 7})
    assert not page["view"]["fit"], "who says how many columns there are wants no other number"
    assert len(browser.ask("room", room=ROOM)["tiles"]) == 7
    page = browser.ask("arrange", changes={"fit": True})
    assert (page["view"]["rows"], page["view"]["columns"]) == (2, 5)


def test_only_what_was_in_sight_is_marked(browser):
    browser.ask("ready", room=ROOM)
    page = browser.session.page_indices()
    elsewhere = int(browser.session.selected[15])
    browser.ask("rest", label="uninformative", seen=[*page[:4], elsewhere])
    assert [i for i, label in enumerate(browser.saved()) if label != "none"] == sorted(page[:4])


def test_the_models_labels_are_taken_for_what_is_in_sight_and_has_none_and_given_back_by_one_undo(browser):
    browser.ask("ready", room=ROOM)
    page = browser.session.page_indices()
    browser.ask("label", indices=[page[0]], label="unsure")
    tiles = {tile["index"]: tile for tile in browser.ask("turn", page=0)["tiles"]}
    browser.ask("accept", seen=page[:6])
    for index in page[1:6]:
        said = "informative" if index / COUNT > 0.5 else "uninformative"
        assert browser.saved()[index] == said == tiles[index]["model"]
        assert tiles[index]["score"] == pytest.approx(index / COUNT)
    assert browser.saved()[page[0]] == "unsure", "which is an answer of somebody who has looked"
    assert {browser.saved()[index] for index in page[6:]} == {"none"}
    answer = browser.ask("undo")
    assert answer["moved"] and browser.saved().count("none") == COUNT - 1


def test_without_scores_nothing_is_taken_and_it_is_said_what_is_missing(corpus):
    browser = Asked(corpus, scores=None)
    page = browser.ask("ready", room=ROOM)
    assert not page["scored"] and page["tiles"][0]["score"] is None is page["tiles"][0]["model"]
    assert "nn_scores.npy" in browser.ask("accept", seen=browser.session.page_indices())["error"]


def test_the_next_patch_without_a_label_is_found_across_pages_and_past_the_end(browser):
    browser.ask("ready", room=ROOM)
    order = browser.session.selected.tolist()
    browser.session.label([index for place, index in enumerate(order) if place not in (2, 7, 16)], "informative")
    browser.ask("label", indices=[order[7]], label="unsure", cursor=order[0])
    assert browser.ask("next")["cursor"] == order[2]
    page = browser.ask("next")
    assert (page["cursor"], page["page"]) == (order[16], 1), "unsure is not unseen"
    assert browser.ask("next")["cursor"] == order[2]
    (browser.corpus / "patches" / f"fly-LOC-0_{order[16]:03d}_0_0.tiff").unlink()
    browser.session.tiles._kept.clear()
    answer = browser.ask("next")
    assert (answer["cursor"], answer["moved"]) == (order[2], False), "what cannot be read is not jumped to"
    assert "No other patch" in answer["note"]


def test_labels_that_could_not_be_saved_are_told_until_others_are_and_the_cursor_waits(browser, monkeypatch):
    browser.ask("ready", room=ROOM)
    page = browser.session.page_indices()
    assert browser.ask("label", indices=[page[0]], label="informative", cursor=page[1])["unsaved"] == 0
    append = LabelLog.append

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LabelLog, "append", fail)
    for count, here in enumerate((1, 2), start=1):
        answer = browser.ask("label", indices=[page[here]], label="informative", cursor=page[here + 1])
        assert answer["unsaved"] == count and answer["moved"] and answer["cursor"] == page[1]
        assert "No space left" in answer["error"]
        assert answer["labels"][str(page[here])] == "none"
    answer = browser.ask("turn", page=1, labelled=True)
    assert (answer["page"], answer["cursor"]) == (0, page[1]), "a page is not turned by a label that is not saved"
    assert browser.ask("draw", changes={"stretch": True})["unsaved"] == 2, "to draw again saves nothing"
    monkeypatch.setattr(LabelLog, "append", append)
    answer = browser.ask("label", indices=[page[5]], label="informative", cursor=page[6])
    assert answer["unsaved"] == 2 and not answer["error"], "nor does it save others"
    assert browser.ask("label", indices=page[1:3], label="informative", cursor=page[3])["unsaved"] == 0
    assert browser.ask("turn", page=1, labelled=True)["page"] == 1


def test_who_said_what_is_told_where_several_did_and_hidden_from_who_wants_only_their_own(corpus):
    anna = Asked(corpus)
    page = anna.ask("ready", room=ROOM)
    assert page["alone"] and {len(tile["said"]) for tile in page["tiles"]} == {0}
    indices = anna.session.page_indices()
    anna.ask("label", indices=indices[:2], label="informative")
    Session(corpus / "list.npz", corpus / "labels.npy", annotator="ben").label(indices[1:3], "uninformative")
    anna.ask("label", indices=indices[5:6], label="informative")  # which takes in what ben has said
    page = anna.ask("turn", page=0)
    assert page["alone"] == ""
    assert [tile["said"] for tile in page["tiles"][:3]] == [{}, {"anna": "informative", "ben": "uninformative"}, {}]
    page = Asked(corpus, own_labels_only=True).ask("ready", room=ROOM)
    assert "OWN_LABELS_ONLY" in page["alone"] and {len(tile["said"]) for tile in page["tiles"]} == {0}


def test_alike_side_by_side_tells_how_far_it_is_and_orders_what_was_added_after_what_was_there(browser):
    browser.ask("ready", room=ROOM)
    page = browser.ask("arrange", changes={"order": "similar"})
    assert (browser.sent[0]["type"], browser.sent[0]["done"], browser.sent[0]["total"]) == ("progress", COUNT, COUNT)
    assert page["view"]["order"] == "similar"
    order = browser.session.selected.tolist()
    assert sorted(order) == list(range(COUNT)) and order != list(range(COUNT))
    names = [browser.session.paths[i] for i in order]
    browser.ask("label", indices=[order[0]], label="informative", cursor=order[1])
    added = browser.corpus / "patches" / "ant-LOC-0_000_0_0.tiff"
    write_section(added, np.zeros((16, 16), np.uint8))
    write_path_list(browser.corpus / "list.npz", [str(added), *browser.session.paths])
    grown = Asked(browser.corpus, scores=None)
    assert grown.session.view.order == "similar", "the next session goes on in the same order"
    assert [grown.session.paths[i] for i in grown.session.selected] == [*names, str(added)]


def test_an_order_that_cannot_be_had_leaves_the_view_as_it_was(browser, monkeypatch):
    browser.ask("ready", room=ROOM)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("emcurate.labeling.session.describe_patches", fail)
    page = browser.ask("arrange", changes={"order": "similar"})
    assert "Input/output error" in page["error"] and page["view"]["order"] == "random"


def test_surroundings_that_are_not_there_have_a_reason(browser):
    browser.ask("ready", room=ROOM)
    for kind in ("where", "surroundings"):
        answer = browser.ask(kind, index=3)
        assert "fly_patches.parquet" in answer["reason"] and answer["index"] == 3


def test_keys_are_sent_with_what_they_do_and_wrong_ones_are_one_line(corpus):
    page = Asked(corpus, keys={"informative": "1"}).ask("ready", room=ROOM)
    assert page["keys"]["informative"] == "1" and page["keys"].keys() == page["help"].keys()
    with pytest.raises(module.LabelingError, match="keys: expected"):
        module.label_patches(corpus / "list.npz", corpus / "labels.npy", keys={"informative": "z"})


def test_a_pace_counts_labels_without_pauses():
    pace = Pace()
    assert pace.per_minute() is None
    for number in range(31):
        pace.add(2, 1000.0 + number)
    assert pace.per_minute() == pytest.approx(120)
    pace.add(1, 1000.0 + 30 + LONGEST_PAUSE + 1)
    assert pace.per_minute() == pytest.approx(120)
    for number in range(400):
        pace.add(1, 5000.0 + 4 * number)
    assert pace.per_minute() == pytest.approx(15, abs=0.5), "what was long ago no longer counts"


def test_the_modules_of_the_browser_side_are_joined_whole_and_in_order():
    assert {path.stem for path in BROWSER.glob("*.js")} == set(MODULES)
    joined = join_modules()
    assert not re.search(r"^import\b", joined, re.MULTILINE)
    assert re.findall(r"^export\b.*", joined, re.MULTILINE) == ["export default { render };"]
    defined = re.findall(r"^(?:const|let|function) (\w+)", joined, re.MULTILINE)
    assert len(defined) == len(set(defined)), "names of one module must not be another's"
    for place, name in enumerate(MODULES):
        source = (BROWSER / f"{name}.js").read_text("utf-8")
        for names, other in re.findall(r'^import \{([^}]*)\} from "\./([a-z]+)\.js";', source, re.MULTILINE):
            assert other in MODULES[:place]
            exported = set(
                re.findall(r"^export (?:const|function) (\w+)", (BROWSER / f"{other}.js").read_text("utf-8"), re.M)
            )
            assert {one.strip() for one in names.split(",")} <= exported


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_browser_side_is_valid_javascript(tmp_path):
    (tmp_path / "widget.mjs").write_text(join_modules(), "utf-8")
    subprocess.run(["node", "--check", tmp_path / "widget.mjs"], check=True)
