"""A ledger is believed as far as it is as it was written: what is altered is named, and counts as not done."""

import importlib
import json
import os
import time

import msgspec
import pytest
from PIL import Image

from emcurate.outputs import Output
from emcurate.running import ledger_file
from emcurate.running.ledger_file import LedgerFile, ledger_path, read_headers, take_altered
from emcurate.running.ledger_lines import DONE, DROPPED, SPOILT, Line, read_lines, spell_line
from emcurate.running.report import Report
from emcurate.running.verification import verify
from tests.results import contents
from tests.textures import make_texture, write_sections

HEADER = Line(stage="copy", product="copies", version="0.1.0", parameters={"limits": [1, 2]})
LINES = [
    HEADER,
    *(
        Line(
            input=f"größe {number}",
            state=DONE,
            made_with="00",
            dataset="fly",
            details={"patches": number},
            outputs=msgspec.Raw(msgspec.json.encode([Output(f"{number}.tiff", 5, 7, "0f")])),
        )
        for number in range(3)
    ),
]


@pytest.fixture(autouse=True)
def nothing_is_left_of_what_other_tests_have_read():
    take_altered()


def spell_old(line):
    """Return a line as version 0.1.0 wrote it."""
    return msgspec.json.encode(line)


def read(tmp_path, texts):
    path = tmp_path / "copy.jsonl"
    path.write_bytes(b"\n".join(texts) + b"\n")
    altered = []
    return list(read_lines(path, altered)), altered


def test_a_line_is_json_as_any_reader_takes_it():
    told = json.loads(spell_line(LINES[1]))
    assert told["input"] == "größe 0" and told["outputs"] == [["0.tiff", 5, 7, "0f"]]
    assert len(told.pop("check")) == 32
    assert told == json.loads(spell_old(LINES[1]))


def test_what_is_as_it_was_written_is_believed(tmp_path):
    assert read(tmp_path, map(spell_line, LINES)) == (LINES, [])


@pytest.mark.parametrize("bit", [0, 5, 7])
def test_no_flipped_bit_of_a_line_is_believed(tmp_path, bit):
    texts = [*map(spell_line, LINES)]
    for place in range(len(texts[2])):
        flipped = bytearray(texts[2])
        flipped[place] ^= 1 << bit
        lines, altered = read(tmp_path, [*texts[:2], bytes(flipped), texts[3]])
        assert lines == [*LINES[:2], LINES[3]], place
        # One that has become two, or no JSON and without the mark of a check, is like one that a kill cut off.
        assert altered == [3] or place >= len(texts[2]) - 44 or b"\n" in flipped, place


@pytest.mark.parametrize("number", range(len(LINES)))
@pytest.mark.parametrize("spaces", [(",", ":"), (", ", ": ")], ids=["as it was", "with spaces"])
def test_no_line_that_a_hand_has_changed_is_believed(tmp_path, number, spaces):
    texts = [*map(spell_line, LINES)]
    told = json.loads(texts[number])
    told["dataset"] = "worm"
    texts[number] = json.dumps(told, separators=spaces).encode()
    assert read(tmp_path, texts) == ([line for line in LINES if line is not LINES[number]], [number + 1])


def test_whatever_a_kill_leaves_of_a_line_is_passed_over_without_a_word(tmp_path):
    text = spell_line(LINES[2])
    for length in range(len(text)):
        assert read(tmp_path, [spell_line(HEADER), text[:length], spell_line(LINES[3])]) == ([HEADER, LINES[3]], [])


def test_ledgers_without_checks_are_read_as_before(tmp_path):
    assert read(tmp_path, map(spell_old, LINES)) == (LINES, [])


def test_after_a_line_with_a_check_all_must_have_one(tmp_path):
    texts = [spell_old(HEADER), spell_old(LINES[1]), spell_line(LINES[2]), spell_old(LINES[3])]
    assert read(tmp_path, texts) == (LINES[:3], [4])


def test_what_is_added_to_an_older_ledger_has_checks_and_so_has_all_once_it_is_written_anew(tmp_path, monkeypatch):
    path = tmp_path / ".emcurate" / "copy.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"\n".join(map(spell_old, LINES)) + b"\n")
    LedgerFile(path).append([Line(input="new", state=DONE)])
    texts = path.read_bytes().split()
    assert [b'"check"' in text for text in path.read_bytes().splitlines() if text] == [False] * 4 + [True], texts
    monkeypatch.setattr("emcurate.running.ledger_file.LINES_WORTH_COMPACTING", 1)
    ledger = LedgerFile(path)
    ledger._lines = 100
    ledger.compact()
    assert all(b'"check"' in text for text in path.read_bytes().splitlines() if text)
    assert LedgerFile(path).entries == ledger.entries and not take_altered()


def test_an_altered_header_is_that_of_another_version(tmp_path):
    path = tmp_path / ".emcurate" / "copy.jsonl"
    path.parent.mkdir()
    path.write_bytes(spell_line(HEADER).replace(b"copies", b"images") + b"\n" + spell_line(LINES[1]) + b"\n")
    assert LedgerFile(path).header is None
    assert read_headers(tmp_path) == [Line()]
    assert take_altered() == {path: "line 1"} and not take_altered()


@pytest.mark.parametrize("odd", ["x", -1, 0.5, None, True, [1], {"a": 1}])
def test_a_count_that_no_stage_would_note_is_none(odd):
    assert Line(details={"patches": odd}).count_of("patches") == 0
    assert Line().count_of("patches") == 0
    assert Line(details={"patches": 7}).count_of("patches") == 7


def make_directory(path):
    path.mkdir()
    return path


def alter(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_an_altered_line_told_of_is_named_and_made_again_once(tmp_path, capsys):
    main = importlib.import_module("raw.cleanup2d").main
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name in ("a", "b"):
        Image.fromarray(make_texture((1, 20, 30))[0]).save(images / f"{name}.png")
    command = [str(images), str(out), "-p", "1"]
    assert main(command) == 0
    ledger, before = ledger_path(out, "cleanup2d"), contents(out)
    (number,) = [n for n, text in enumerate(ledger.read_text().splitlines(), 1) if '"b-LOC-2d.tiff"' in text]
    alter(ledger, '"b-LOC-2d.tiff",', '"b-LOC-2d.tiff", ')
    capsys.readouterr()
    assert main([*command, "--verify"]) == 1
    said = capsys.readouterr().err
    assert f"{ledger}: expected the lines that cleanup2d wrote, found line {number} altered" in said
    assert "warning" not in said
    assert main(command) == 0
    told, err = capsys.readouterr()
    assert err.count(f"warning: {ledger}: altered since it was written, line {number};") == 1
    assert "cleanup2d: 0 sections written, 2 already done" in told
    assert contents(out) == before
    for again in (command, [*command, "--verify"]):
        assert main(again) == 0
        assert not capsys.readouterr().err


@pytest.mark.parametrize("odd", ['"x"', "[]", "9" * 40])
def test_an_odd_count_in_a_ledger_is_no_traceback_and_counts_for_nothing(tmp_path, capsys, odd):
    main = importlib.import_module("raw.crop_patches").main
    sections = write_sections(make_directory(tmp_path / "sections"), 2, (40, 40), ["a"])
    out = tmp_path / "out"
    command = [str(sections), str(out), "-cs", "20", "-p", "1"]
    assert main(command) == 0
    ledger, before = ledger_path(out, "crop_patches"), contents(out)
    alter(ledger, '"patches":8', f'"patches":{odd}')
    for ended in ("altered since it was written", ""):
        capsys.readouterr()
        assert main(command) == 0
        assert ended in capsys.readouterr().err
        assert contents(out) == before
    # In a ledger of version 0.1.0, where nothing tells that it was altered:
    texts = [msgspec.json.encode(line) for line in read_lines(ledger)]
    ledger.write_bytes(b"\n".join(texts).replace(b'"patches":8', f'"patches":{odd}'.encode()) + b"\n")
    assert main(command) in (0, 1)


def test_the_next_stage_names_an_altered_line_too(tmp_path, capsys):
    images, sections = tmp_path / "images", tmp_path / "sections"
    images.mkdir()
    Image.fromarray(make_texture((1, 40, 40))[0]).save(images / "a.png")
    assert importlib.import_module("raw.cleanup2d").main([str(images), str(sections), "-p", "1"]) == 0
    ledger = ledger_path(sections, "cleanup2d")
    alter(ledger, '"dataset":"a"', '"dataset":"b"')
    capsys.readouterr()
    importlib.import_module("raw.crop_patches").main([str(sections), str(tmp_path / "out"), "-cs", "20", "-p", "1"])
    assert f"{ledger}: altered since it was written" in capsys.readouterr().err


def read_often(path, monkeypatch):
    """Return what counts how often lines of a ledger are read while it is read three times, and the last of these."""
    read = []
    monkeypatch.setattr(ledger_file, "read_lines", lambda *a: read.append(a) or read_lines(*a))
    return [LedgerFile(path) for _ in range(3)][-1], len(read)


def make_ledger(tmp_path, lines=LINES, *, age=10.0):
    path = ledger_path(tmp_path, "copy")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\n".join(map(spell_line, lines)) + b"\n")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_a_ledger_that_is_as_it_was_is_read_once(tmp_path, monkeypatch):
    ledger, times = read_often(make_ledger(tmp_path), monkeypatch)
    assert times == 1
    assert (ledger.header, list(ledger.entries.values())) == (LINES[0], LINES[1:])
    ledger.append([Line(input=LINES[1].input, state=DROPPED)])  # one knows nothing of what another reader does
    assert len(ledger.entries) == 2
    again, times = read_often(ledger.path, monkeypatch)
    assert len(again.entries) == 2


@pytest.mark.parametrize("limit", [("KEPT_BYTES", 10), ("SURELY_LATER_NS", 10**15)])
def test_large_and_just_written_ledgers_are_read_each_time(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(ledger_file, *limit)
    assert read_often(make_ledger(tmp_path), monkeypatch)[1] == 3


def test_a_ledger_that_was_altered_in_place_is_read_anew(tmp_path):
    path = make_ledger(tmp_path)
    assert not LedgerFile(path).altered
    status = path.stat()
    text = path.read_bytes()
    assert text.count(b'"0f"') == 3
    with path.open("r+b") as file:
        file.write(text.replace(b'"0f"', b'"0e"', 1))
    assert LedgerFile(path).altered == [2]
    # As somebody does who means to be overlooked: the time of the change of its state tells.
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert LedgerFile(path).altered == [2]
    assert len(LedgerFile(path).entries) == 2


def test_to_verify_changes_nothing_of_what_was_read(tmp_path):
    path = make_ledger(tmp_path)
    report = Report("copy")
    verify(tmp_path, "copy", report)
    assert len(report.failures) == 3 and [line.state for line in LINES[1:]] == [DONE] * 3
    assert {line.state for line in LedgerFile(path).entries.values()} == {SPOILT}
