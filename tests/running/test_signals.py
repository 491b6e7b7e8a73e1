"""Being told to stop, at any moment: one line, no traceback, nobody left behind, and a rerun that goes on."""

import importlib
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.kills import differing, tree
from tests.textures import write_sections

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

crop_patches = importlib.import_module("raw.crop_patches")

STOPS = ("SIGINT", "SIGTERM", "SIGHUP")


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    return write_sections(tmp_path_factory.mktemp("sections"), 12, (180, 180), ["cell"])


@pytest.fixture(scope="module")
def whole(sections, tmp_path_factory):
    """What a run makes that is told nothing."""
    out = tmp_path_factory.mktemp("whole")
    assert crop_patches.main(arguments(sections, out)) == 0
    return tree(out)


def arguments(sections, out, processes="1"):
    return [str(sections), str(out), "-cs", "8", "-p", processes]


def start(root, sections, out, processes="2"):
    return subprocess.Popen(
        [sys.executable, str(root / "raw" / "crop_patches.py"), *arguments(sections, out, processes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has this ignored, which children inherit.
        preexec_fn=lambda: [signal.signal(getattr(signal, name), signal.SIG_DFL) for name in STOPS],
    )


@pytest.mark.parametrize(("name", "processes"), [("SIGINT", "1"), ("SIGINT", "2"), ("SIGTERM", "2"), ("SIGHUP", "1")])
def test_a_run_that_is_told_to_stop_says_one_line_and_is_finished_by_the_next(
    root, sections, whole, tmp_path, name, processes
):
    out = tmp_path / "out"
    process = start(root, sections, out, processes)
    while process.poll() is None and not (out.is_dir() and any(out.glob("*.npy"))):
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    told = time.monotonic()
    said, shown = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name), shown
    lines = [line for line in shown.replace("\r", "\n").split("\n") if line and "job/s]" not in line]
    assert len(lines) == 1 and "run the same command again to go on" in lines[0]
    assert f"stopped by {name} with " in lines[0] and " sections cut, " in lines[0]
    assert "Traceback" not in said + shown
    assert time.monotonic() - told < 60
    assert not [line for line in running() if str(out) in line]
    assert crop_patches.main(arguments(sections, out)) == 0
    assert not differing(tree(out), whole)


def running():
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("seconds", [0.05, 0.15, 0.3, 0.5])
def test_an_interrupt_while_a_script_loads_shows_no_traceback_of_ours(root, sections, tmp_path, seconds):
    process = start(root, sections, tmp_path / "out")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT, 0, 1)  # 1 is Python's own, while it starts itself
    # What Python itself says before it runs the first line of a script is not ours to change.
    assert not any(f'File "{root / part}' in shown for part in ("emcurate", "raw"))
