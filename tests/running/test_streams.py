"""A terminal that cannot be written to stops no work."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from emcurate.running.streams import Voice, speak
from tests.textures import make_texture

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(make_texture((1, 30, 30), seed=number)[0]).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def run(root, images, redirections):
    script = root / "raw" / "cleanup2d.py"
    command = f'"{sys.executable}" "{script}" "{images}" "{images.parent / "out"}" {redirections}'
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)


@needs_full_device
@pytest.mark.parametrize(
    ("redirections", "status"),
    [
        (">/dev/full", 1),
        ("2>/dev/full", 1),
        (">/dev/full 2>/dev/full", 1),
        ("2>&-", 0),
        (">&- 2>&- <&-", 0),
        ("| true; exit ${PIPESTATUS[0]}", 1),
    ],
)
def test_the_work_is_done_whatever_the_terminal_does(root, images, redirections, status):
    ended = run(root, images, redirections)
    assert sorted(path.name for path in (images.parent / "out").glob("*.tiff")) == [
        f"{n}-LOC-2d.tiff" for n in range(3)
    ]
    assert "Traceback" not in ended.stdout + ended.stderr
    # A pipe that is closed may have taken the one line before.
    assert ended.returncode == status or ("true" in redirections and ended.returncode == 0)


@needs_full_device
def test_what_could_not_be_said_is_said_where_it_can_be(root, images):
    ended = run(root, images, ">/dev/full")
    assert "cleanup2d: standard output could not be written: No space left on device" in ended.stderr


@needs_full_device
def test_a_voice_falls_silent_and_remembers_why():
    with open("/dev/full", "w") as full:
        voice = Voice(full)
        voice.write("nothing")
        voice.flush()
        assert voice.error is not None
        voice.write("more")
        voice.flush()


def test_the_streams_are_as_they_were_after_the_block():
    before = sys.stdout, sys.stderr
    with speak():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
