"""The torture of surroundings in its short form; and that it would notice."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emcurate.naming import VolumeSection
from emcurate.patches.cuts import Cut, write_cuts
from emcurate.patches.tables import TABLE_SUFFIX
from tests.torture.commands import Command, environment
from tests.torture.surroundings import Torture

DATASETS = 300
SCRIPT = """
import os, resource, sys
from pathlib import Path
out, how = Path(sys.argv[1]), sys.argv[2]
(out / ".emcurate").mkdir(exist_ok=True)
few = resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 64
(out / "result").write_text("other" if few and how == "other bytes" else "bytes")
if few and how == "traceback":
    raise RuntimeError("too many open files")
if few and how == "leftover":
    (out / ".emcurate-x.partial").write_text("half")
sys.exit(3 if few and how == "status" else 0)
"""


@pytest.mark.timeout(300)
def test_stages_do_their_work_where_little_is_given(tmp_path):
    torture = Torture(tmp_path)
    for what in ("64 open files", "caches that may not be written to", "closed streams"):
        assert torture.torture("deduplicate", what) == "done"
    assert torture.torture("crop_patches, hashes only", "64 open files") == "done"
    assert not torture.findings


def test_300_datasets_take_few_open_files(root, tmp_path):
    patches, out = tmp_path / "patches", tmp_path / "out"
    patches.mkdir()
    places = np.array([(0, 0, 32, 32), (0, 32, 32, 32)], np.int32)
    for number in range(DATASETS):
        hashes = np.random.default_rng(number).integers(0, 256, (2, 8), np.uint8)
        cuts = [Cut(VolumeSection(f"cell {number}", 0, 0, 1), places, hashes)]
        write_cuts(
            patches / f"cell {number}{TABLE_SUFFIX}", cuts, None, {"crop_size": 32, "hash_size": 8, "hash": "dhash"}
        )
    command = [sys.executable, str(root / "deduplicated" / "deduplicate.py"), str(patches), str(out), "-p", "2"]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", *command], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*_exemplars.npy"))) == DATASETS


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("other bytes", "1 files differ, such as ['result']"),
        ("traceback", "said 'Traceback"),
        ("leftover", "such as ['.emcurate-x.partial']"),
        ("status", "status 3"),
    ],
)
def test_a_script_that_misbehaves_is_found_out(tmp_path, how, found):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = Command(str(script), lambda corpus, out: [out, how])
    torture = Torture(tmp_path, {"it": command}, limit=30)
    torture.torture("it", "64 open files")
    assert found in "\n".join(torture.findings)
    assert Path(torture.out, "result").read_text() in ("bytes", "other")
