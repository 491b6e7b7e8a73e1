"""What scripts do before anything else: they read names of files in one way, whatever the locale."""

import os
import signal
import subprocess
import sys

import pytest
from PIL import Image

from emcurate.running.ledger_file import LedgerFile, ledger_path
from tests.kills import differing, tree
from tests.textures import make_texture

# Locales in which Python by itself would read names as ASCII, or letter by letter as Latin-1.
LOCALES = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LANG": "C", "LC_ALL": "", "LC_CTYPE": "", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
]


def run(root, script, *words, **variables):
    environment = {key: value for key, value in {**os.environ, **variables}.items() if value}
    command = [sys.executable, str(root / script), *map(str, words), "-p", "2"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, errors="surrogateescape")


@pytest.fixture
def images(tmp_path):
    # A directory whose name is no text in any alphabet: what was on a disk of another time.
    directory = tmp_path / "gr\udcf6\udcdfe" / "images"
    directory.mkdir(parents=True)
    for number, name in enumerate(("größe é", "組織", "e\u0301 a")):
        Image.fromarray(make_texture((1, 40, 40), seed=number)[0]).save(directory / f"{name}.png")
    return directory


@pytest.mark.parametrize("locale", LOCALES, ids=str)
def test_names_are_the_same_in_every_locale(root, images, tmp_path, locale):
    out = tmp_path / "out"
    first = run(root, "raw/cleanup2d.py", images, out / "sections", PYTHONUTF8="1")
    assert first.returncode == 0, first.stderr
    noted = LedgerFile(ledger_path(out / "sections", "cleanup2d")).entries
    again = run(root, "raw/cleanup2d.py", images, out / "sections", **locale)
    assert "0 sections written, 3 already done" in again.stdout, again.stderr
    elsewhere = run(root, "raw/cleanup2d.py", images, out / "other", **locale)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert not differing(tree(out / "sections"), tree(out / "other"))
    other = LedgerFile(ledger_path(out / "other", "cleanup2d")).entries
    assert {key: (line.source, line.dataset) for key, line in noted.items()} == {
        key: (line.source, line.dataset) for key, line in other.items()
    }


def test_a_script_that_begins_anew_keeps_its_words_and_its_status(root, tmp_path):
    wrong = run(root, "raw/cleanup2d.py", tmp_path / "größe", tmp_path / "out", **LOCALES[0])
    assert wrong.returncode == 2
    assert "größe: expected a directory, found nothing" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(("imported", "guarded"), [("emcurate.start", True), ("emcurate.running.signals", False)])
def test_a_script_of_somebody_else_keeps_its_own_way_with_interrupts(root, tmp_path, imported, guarded):
    script = tmp_path / "theirs.py"
    said = "signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    script.write_text(f"import {imported}, signal\nprint({said})")
    shown = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert shown.stdout.strip() == str(not guarded)
