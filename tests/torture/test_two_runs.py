"""Two runs into one output: of every stage the second says so, changes nothing and stops; then it can have its turn."""

import contextlib
import os
from pathlib import Path

import pytest

from emcurate.running.ledger_file import lock_path
from tests.quick import make_stages_quick
from tests.torture import children
from tests.torture.commands import ROOT, SMALL_COMMANDS, Command, SmallCorpus
from tests.torture.faults import load

fcntl = pytest.importorskip("fcntl")

RUN_SECONDS = 60
SCRIPTS = [
    *(
        path
        for place in ("preprocess", "raw", "deduplicated", "filtered", "3d", "data_prep")
        for path in sorted((ROOT / place).glob("*.py"))
    ),
    ROOT / "curate.py",
]

# It waits for the lock before it asks any server, of which there is none here.
DOWNLOAD = Command("data_prep/download_trimmed.py", lambda corpus, out: ["siim", "-o", out])
# Of the ways of one stage, the first; and the one that changes its inputs.
OF_SCRIPT = {command.script: name for name, command in reversed(SMALL_COMMANDS.items())}
NAMES = [name for name in SMALL_COMMANDS if name in OF_SCRIPT.values() or SMALL_COMMANDS[name].among_inputs]
COMMANDS = {**{name: SMALL_COMMANDS[name] for name in NAMES}, "download_trimmed": DOWNLOAD}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        make_stages_quick(patch.setattr)
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        yield SmallCorpus(tmp_path_factory.mktemp("two"))


@contextlib.contextmanager
def locked(path):
    """Hold the lock of a file, or of a directory, as another run would: on an open file of its own."""
    path.parent.mkdir(exist_ok=True)
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_WRONLY | os.O_CREAT)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def run(command, corpus, out):
    module, argv = command.call(corpus, out)
    if command is DOWNLOAD:
        argv = argv[: argv.index("-p")]
    ((_, answer),) = children.run_all([(module, argv)], RUN_SECONDS)
    load(answer.loaded)
    return answer


def contents(out):
    """Return what lies below a directory, but for locks."""
    files = (path for path in Path(out).rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(out): path.read_bytes() for path in files}


def test_every_stage_is_tried():
    assert {ROOT / command.script for command in COMMANDS.values()} == {*SCRIPTS}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_second_run_into_an_output_says_so_and_stops(tmp_path, corpus, name):
    command, out = COMMANDS[name], tmp_path / "out"
    out.mkdir()
    if command.prepare:
        command.prepare(corpus, out)
    before = contents(out)
    with locked(out if command.among_inputs else lock_path(out, Path(command.script).stem)):
        second = run(command, corpus, out)
    assert second.status == 1, second.err
    assert f"{out}: expected no other run that writes there, found another that is under way" in second.err
    assert "Traceback" not in second.err
    assert contents(out) == before
    if command is not DOWNLOAD:
        later = run(command, corpus, out)
        assert later.status == 0, later.err
        assert contents(out) != before
