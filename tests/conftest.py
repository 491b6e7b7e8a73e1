"""Fixtures that several test files use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Stages are scripts in plain directories; importlib finds them from the repository's root.
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real microscope files, which are not part of the project; see EMCURATE_DATA."""
    directory = Path(os.environ.get("EMCURATE_DATA", ROOT.parent / "shared" / "data"))
    if not directory.is_dir():
        pytest.skip(f"no real data at {directory}; set EMCURATE_DATA to a directory that holds it")
    return directory
