"""Fixtures that several test files use."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from multiprocessing.util import Finalize
from pathlib import Path

import cv2
import mrcfile
import numpy as np
import pytest
import tifffile
from hypothesis import settings
from PIL import Image

from emcurate.running.locks import release_locks
from tests.textures import make_texture

ROOT = Path(__file__).resolve().parent.parent
# No test asserts a time: on a busy machine anything takes long now and then.
settings.register_profile("emcurate", deadline=None)
settings.load_profile("emcurate")

# Stages are scripts in plain directories; importlib finds them from the repository's root.
sys.path.insert(0, str(ROOT))


def pytest_configure(config: pytest.Config) -> None:
    """Give whatever the tests' processes put into the temporary directory one of its own, which goes with them.

    Killed processes cannot take away their sockets and locks. pytest's own directories stay where they always are.
    """
    if hasattr(config, "workerinput"):
        return  # one of xdist's processes, which inherits it
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    directory = tempfile.mkdtemp(prefix="emcurate-tests-")
    os.environ["TMPDIR"], tempfile.tempdir = directory, None
    # After all of multiprocessing's own, which has a directory in it.
    Finalize(None, shutil.rmtree, (directory, True), exitpriority=-1000)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Release what a test still holds while its directory is there: to note what is done in it would fail later."""
    with contextlib.suppress(OSError):
        release_locks()


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


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """A corpus of four images, an isotropic TIFF, a signed MRC and a video, in images/, volumes/ and videos/."""
    corpus = tmp_path_factory.mktemp("corpus")
    for name in ("images", "volumes", "videos"):
        (corpus / name).mkdir()
    for i, image in enumerate(make_texture((4, 128, 128))):
        Image.fromarray(image).save(corpus / "images" / f"micrograph {i}.png")
    tifffile.imwrite(
        corpus / "volumes" / "block.tif",
        make_texture((40, 96, 128)),
        imagej=True,
        resolution=(100, 100),
        metadata={"axes": "ZYX", "spacing": 0.01, "unit": "um"},
    )
    with mrcfile.new(corpus / "volumes" / "signed.mrc") as mrc:
        mrc.set_data((make_texture((16, 64, 64)).astype(np.int16) - 128).astype(np.int8))
        mrc.voxel_size = 100.0
    writer = cv2.VideoWriter(str(corpus / "videos" / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (96, 64))
    for frame in make_texture((6, 64, 96)):
        writer.write(np.repeat(frame[..., None], 3, axis=-1))
    writer.release()
    return corpus
