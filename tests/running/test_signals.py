"""Being told to stop, at any moment: one line, no traceback, nobody left behind, and a rerun that goes on."""

import importlib
import os
import signal
import subprocess
import sys
import time

import pytest

from emcurate import cli
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


INTERRUPTED_AT = """
import os, runpy, signal, sys

number, module, script, *arguments = sys.argv[1:]

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), int(number))

sys.argv = [script, *arguments]
sys.meta_path.insert(0, Interrupting())
runpy.run_path(script, run_name="__main__")
"""


# One of each kind: what emcurate.start itself loads, Python's own, a library, ours.
@pytest.mark.parametrize("name", STOPS)
@pytest.mark.parametrize("module", ["argparse", "numpy", "datetime", "emcurate.cli", "emcurate.patches.cutting"])
def test_an_interrupt_while_a_script_loads_is_one_line(root, sections, tmp_path, module, name):
    number = getattr(signal, name)
    run = interrupt_at(module, root, sections, tmp_path / "out", number)
    assert run.returncode == 128 + number, run.stderr
    assert run.stderr == "\ncrop_patches: interrupted before anything was done\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [ImportError, ModuleNotFoundError, OSError, MemoryError, SystemError])
def test_an_interrupt_that_a_library_makes_another_error_of_is_an_interrupt_still(error, capsys):
    def load():  # as the C code of some libraries does where it loads others
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error("numpy._core.multiarray failed to import") from None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        assert cli.close(load, "a_stage") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    shown = capsys.readouterr().err
    assert "stopped by SIGINT" in shown and "multiarray" not in shown


@pytest.mark.parametrize("name", STOPS)
def test_what_is_ignored_is_ignored_while_a_script_loads_too(root, sections, tmp_path, name):
    run = interrupt_at("numpy", root, sections, tmp_path / "out", getattr(signal, name), signal.SIG_IGN)
    assert run.returncode == 0, run.stderr


def interrupt_at(module, root, sections, out, number, before=signal.SIG_DFL):
    script = [root / "raw" / "crop_patches.py", *arguments(sections, out)]
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT, str(number.value), module, *script],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(number, before),
    )


@pytest.mark.parametrize("seconds", [0.05, 0.15, 0.3, 0.5])
def test_an_interrupt_at_any_time_of_the_start_shows_no_traceback_of_ours(root, sections, tmp_path, seconds):
    process = start(root, sections, tmp_path / "out")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT, 0, 1)  # 1 is Python's own, while it starts itself
    # What Python itself says before our first line has run is not ours to change: it starts itself, then reads the
    # script up to that line, then looks for the package.
    places = [f'File "{root / part}{os.sep}' for part in ("emcurate", "raw")]
    ours = [line.strip() for line in shown.splitlines() if any(place in line for place in places)]
    first = f'File "{root / "raw" / "crop_patches.py"}", line {line_of_start(root)}, in <module>'
    assert all(line == first or str(root / "emcurate" / "__init__.py") in line for line in ours), shown


def line_of_start(root):
    lines = (root / "raw" / "crop_patches.py").read_text().splitlines()
    return next(place for place, line in enumerate(lines, 1) if line.startswith("import emcurate.start"))
