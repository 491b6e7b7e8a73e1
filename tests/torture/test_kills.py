"""The torture of kills in its short form; and that it would notice."""

import io
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from tests.torture.commands import Command
from tests.torture.kills import DAMAGES_DONE, NOTICED, RESTORED, VERIFIED, Torture, names_in
from tests.torture.processes import KINDS
from tests.torture.watching import Watcher

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="who started whom is read from /proc")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["cleanup2d", "crop_patches into shards"])
def test_whatever_is_killed_the_same_command_finishes_it(tmp_path, name):
    torture = Torture("0", tmp_path)
    said = torture.torture(name, trials=len(KINDS), damages=0)
    assert not torture.findings, "\n".join(torture.findings)
    assert "killed" in said and "two at once: the second says so" in said


@pytest.mark.timeout(300)
def test_a_damaged_result_is_noticed_whatever_was_done_to_it(tmp_path):
    torture = Torture("0", tmp_path)
    torture.name, torture.command = "cleanup2d", torture.commands["cleanup2d"]
    assert torture.learn()
    said = torture.damage(len(DAMAGES_DONE))
    assert not torture.findings, "\n".join(torture.findings)
    assert all(words.endswith(NOTICED) for words in said.split(", "))
    assert RESTORED in said and VERIFIED in said


# What the torture notices. Scripts of a few lines stand for stages; they write `0.json` to `19.json`.

HONEST = """
import os, pathlib, sys, time
out = pathlib.Path(sys.argv[1])
for number in range(20):
    if not (out / f"{number}.json").exists():
        (out / ".x").write_text("[1, 2]")
        os.replace(out / ".x", out / f"{number}.json")
    time.sleep(0.01)
"""
WAYS = {
    "writes under final names": (
        HONEST.replace(
            '(out / ".x").write_text',
            f'(out / f"{{number}}.json").write_text("[1,"); time.sleep(0.03)\n{" " * 8}(out / ".x").write_text',
        ),
        "under its final name and not whole",
    ),
    "forgets the rest": (HONEST.replace("for number", "if any(out.iterdir()): sys.exit()\nfor number"), "differ from"),
    "leaves a note": (HONEST.replace("for number", "(out / str(os.getpid())).write_text('1')\nfor number"), "differ"),
    "leaves a process": (
        HONEST.replace("for number", "if not os.fork():\n    time.sleep(30)\nfor number"),
        "left a process",
    ),
    "hangs": (HONEST.replace("for number", "if any(out.iterdir()): time.sleep(600)\nfor number"), "did not end within"),
    "never ends well": (
        HONEST.replace("for number", "if any(out.iterdir()): sys.exit(1)\nfor number"),
        "still status 1",
    ),
    "says what went on": (
        HONEST.replace("for number", "if any(out.iterdir()): raise ValueError\nfor number"),
        "said 'Traceback",
    ),
}


def wait_for_some_results(torture, run, _):
    while run.is_running() and len(names_in(torture.out)) < 5:
        time.sleep(0.001)


def put(tmp_path, monkeypatch, code, limit=30):
    """Kill a script as a whole, in the middle; return what is found."""
    monkeypatch.setattr("tests.torture.kills.ORPHAN_SECONDS", 0.2)
    monkeypatch.setattr("tests.torture.kills.KINDS", KINDS[:1])
    monkeypatch.setattr("tests.torture.kills.RERUNS", 1)
    monkeypatch.setattr(Torture, "pass_time", wait_for_some_results)
    script = tmp_path / "script.py"
    script.write_text(code)
    torture = Torture("3", tmp_path, {"script": Command(str(script), lambda _, out: [out])}, limit=limit)
    torture.torture("script", trials=1, damages=0)
    return "\n".join(torture.findings)


def test_a_script_that_keeps_all_promises_is_not_found_fault_with(tmp_path, monkeypatch):
    assert not put(tmp_path, monkeypatch, HONEST)


@pytest.mark.parametrize("way", WAYS)
def test_a_script_that_breaks_a_promise_is_found(tmp_path, monkeypatch, way):
    code, found = WAYS[way]
    assert found in put(tmp_path, monkeypatch, code, 2 if way == "hangs" else 30)


def test_a_damage_that_nobody_notices_is_found(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\nout = pathlib.Path(sys.argv[1])\nif not any(out.iterdir()): (out / 'a.json').touch()"
    )
    torture = Torture("0", tmp_path, {"script": Command(str(script), lambda _, out: [out])})
    torture.name, torture.command = "script", torture.commands["script"]
    assert torture.learn()
    (torture.out / "a.json").write_text("harm")
    assert torture.notice("a.json changed") not in NOTICED
    assert "not noticed" in torture.findings[0]


def make_tar():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("a")
        member.size = 30_000
        archive.addfile(member, io.BytesIO(b"x" * 30_000))
    return stream.getvalue()


def make_npy():
    stream = io.BytesIO()
    np.save(stream, np.arange(100))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.tar", make_tar()), ("a.npy", make_npy()), ("a.csv", b"a,b\n1,2\n3,4\n"), ("a.json", b"[1, 2]")],
)
def test_the_watcher_knows_whole_files_from_those_cut_off(tmp_path, name, data):
    for length in (len(data), len(data) // 2, 0):
        (tmp_path / name).write_bytes(data[:length])
        watcher = Watcher(tmp_path)
        watcher.look()
        assert watcher.seen == 1
        assert bool(watcher.problems) == (length < len(data))
