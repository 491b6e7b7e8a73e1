"""With what a run was made: versions of this project and of what it computes with, and the commit it was taken from."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import emcurate

# What results could depend on: what decodes, resamples, hashes, trains and writes.
PACKAGES = (
    *("numpy", "pillow", "tifffile", "imagecodecs", "mrcfile", "pynrrd", "nibabel", "h5py", "tensorstore"),
    *("opencv-python-headless", "ImageHash", "scikit-image", "numba", "pyarrow", "pandas", "dask"),
    *("torch", "torchvision", "scikit-learn"),
)

GIT_SECONDS = 10  # until git has to answer


def find_versions() -> dict[str, str]:
    """Return the versions of this project, of Python and of the packages that are installed, by name."""
    found = {"emcurate": emcurate.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def find_commit() -> str | None:
    """Return the commit that this project runs from, with a plus where files differ from it; None if it is unknown."""
    root = Path(emcurate.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit, changes = _ask_git(root, "rev-parse", "HEAD"), _ask_git(root, "status", "--porcelain", "-uno")
    return f"{commit}+" if commit and changes else commit


def _ask_git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
