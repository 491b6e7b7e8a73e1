"""Worker processes start whatever TMPDIR is called."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from emcurate.running.sockets import MOST_PATH_BYTES


@pytest.mark.parametrize("length", [1, 120, 200])
def test_workers_start_with_a_temporary_directory_of_a_long_name(tmp_path, root, length):
    temporary = tmp_path / ("t" * length)
    temporary.mkdir()
    assert length == 1 or len(os.fsencode(temporary)) > MOST_PATH_BYTES
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    command = [sys.executable, root / "raw" / "cleanup2d.py", tmp_path / "images", tmp_path / "sections", "-p", "2"]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("Failed")) == (0, 0), done.stderr
    assert len(list((tmp_path / "sections").glob("*.tiff"))) == 3
    assert list(temporary.iterdir()) == []
