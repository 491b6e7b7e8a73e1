"""The commands that are killed: each stage on a small corpus that another has made, and all stages in a row.

Their inputs are made when they are first wanted. Each command has two inputs at least, so that there are workers.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import mrcfile
import numpy as np
import tifffile
from PIL import Image

from emcurate.patches.labels import INFORMATIVE, UNINFORMATIVE
from emcurate.patches.pathlists import PathList
from tests.textures import make_texture, write_sections

ROOT = Path(__file__).resolve().parents[2]

CROP = ("-cs", "20")
SPACING = ("-s", "4")
LEARNING = ("--init", "random", "--image-size", "32", "--epochs", "1", "--batch-size", "16")


@dataclass(frozen=True)
class Command:
    """A script and its arguments.

    Attributes
    ----------
    words : callable
        The arguments, from the inputs and the output directory.
    other : tuple of str
        What makes other results of the same inputs, for a second run at the same time; none: not tried.
    verify : callable or None
        The arguments that compare the results with their digests, from the same two; None: `words` and ``--verify``.
    prepare : callable or None
        What lies in the output directory before, from the same two.
    among_inputs : bool
        Whether the results replace the inputs, so that none of them can be made again.
    """

    script: str
    words: Callable
    other: tuple[str, ...] = ()
    verify: Callable | None = None
    prepare: Callable | None = None
    among_inputs: bool = False

    def spell(self, corpus, out, *more):
        """Return the command line."""
        script = Path(self.script)
        script = script if script.is_absolute() else ROOT / script
        return [sys.executable, str(script), *map(str, self.words(corpus, out)), "-p", "2", *more]

    def spell_verify(self, corpus, out):
        """Return the command line that verifies the results."""
        words = self.verify(corpus, out) if self.verify else [*self.words(corpus, out), "--verify"]
        return [sys.executable, str(ROOT / self.script), *map(str, words)]


def environment():
    """Return what the commands are run in: no import from anywhere but this copy of the repository."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def _copy_volumes(corpus, out):
    for path in corpus.volumes.glob("*.mrc"):
        shutil.copy(path, out)


def _curate(corpus, out):
    kinds = [word for kind in ("images", "volumes", "videos") for word in (f"--{kind}", getattr(corpus, kind))]
    return [*kinds, "--out", out, *CROP, *SPACING, "-nz", "12"]


COMMANDS = {
    "vid2stack": Command("preprocess/vid2stack.py", lambda c, out: [c.videos, "-o", out], ("--format", "mrc")),
    "mrc2byte": Command("preprocess/mrc2byte.py", lambda c, out: [c.volumes, "-o", out], ("--rescale", "minmax")),
    "mrc2byte in place": Command(
        "preprocess/mrc2byte.py", lambda c, out: [out], prepare=_copy_volumes, among_inputs=True
    ),
    "cleanup2d": Command("raw/cleanup2d.py", lambda c, out: [c.images, out], ("--rescale", "minmax")),
    "sample_rois": Command(
        "preprocess/sample_rois.py",
        lambda c, out: [c.volumes, out, "--size", "12", "--count", "40"],
        ("--seed", "5"),
    ),
    "cross_section3d": Command(
        "raw/cross_section3d.py", lambda c, out: [c.volumes, out, *SPACING], ("--rescale", "minmax")
    ),
    "crop_patches": Command("raw/crop_patches.py", lambda c, out: [c.sections, out, *CROP], ("--hash", "phash")),
    "crop_patches into shards": Command(
        "raw/crop_patches.py",
        lambda c, out: [c.sections, out, *CROP, "--store", "tar", "--shard-size", "50"],
        ("--hash", "phash"),
    ),
    "crop_patches, hashes only": Command(
        "raw/crop_patches.py",
        lambda c, out: [c.volumes, out, *CROP, *SPACING, "--from-volumes", "--hashes-only"],
        ("--hash", "phash"),
    ),
    "deduplicate": Command("deduplicated/deduplicate.py", lambda c, out: [c.patches, out], ("-d", "3")),
    "train_nn": Command("filtered/train_nn.py", lambda c, out: [c.listed, c.labels, out, *LEARNING], ("--seed", "3")),
    "classify_nn": Command(
        "filtered/classify_nn.py", lambda c, out: [c.listed, out, "--weights", c.weights], ("--threshold", "0.3")
    ),
    "reconstruct3d": Command(
        "3d/reconstruct3d.py", lambda c, out: [c.listed, c.volumes, out, "-nz", "12"], ("-nz", "8")
    ),
    "trim_coco": Command(
        "data_prep/trim_coco.py",
        lambda c, out: [
            *("--train-annotations", c.sets / "coco" / "annotations" / "instances_train2017.json"),
            *("--val-annotations", c.sets / "coco" / "annotations" / "instances_val2017.json"),
            *("--train-images", c.sets / "coco" / "train2017.zip", "--val-images", c.sets / "coco" / "val2017"),
            *("--train-samples", "12", "--val-samples", "8", "-o", out),
        ],
        ("--seed", "5"),
    ),
    "trim_siim": Command(
        "data_prep/trim_siim.py",
        lambda c, out: ["--metadata", c.sets / "siim" / "train.csv", "-o", out],
        ("--order", "stable"),
    ),
    "curate": Command(
        "curate.py",
        lambda c, out: [*_curate(c, out), "--weights", c.weights],
        ("--hash", "phash"),
        verify=lambda c, out: ["--out", out, "--verify"],
    ),
}


class Corpus:
    """Inputs of the commands, each made when it is first wanted."""

    def __init__(self, directory):
        self.directory = directory

    def _make(self, name):
        path = self.directory / name
        path.mkdir()
        return path

    @cached_property
    def images(self):
        path = self._make("images")
        for number in range(12):
            Image.fromarray(make_texture((1, 120, 160), seed=number)[0]).save(path / f"image {number}.png")
        return path

    @cached_property
    def volumes(self):
        path = self._make("volumes")
        for number, name in enumerate(("fly", "worm")):
            tifffile.imwrite(path / f"{name}.tif", make_texture((24, 80, 88), seed=number), imagej=True)
        for number in range(3):
            with mrcfile.new(path / f"signed{number}.mrc") as mrc:
                mrc.set_data((make_texture((12, 48, 48), seed=number).astype(np.int16) - 128).astype(np.int8))
                mrc.voxel_size = 100.0
        return path

    @cached_property
    def videos(self):
        path = self._make("videos")
        for number in range(3):
            code = cv2.VideoWriter_fourcc(*"MJPG")
            writer = cv2.VideoWriter(str(path / f"film{number}.avi"), code, 5, (96, 64))
            for frame in make_texture((12, 64, 96), seed=number):
                writer.write(np.repeat(frame[..., None], 3, axis=-1))
            writer.release()
        return path

    @cached_property
    def sections(self):
        return write_sections(self._make("sections"), 24, (120, 160), ["a", "b"])

    @cached_property
    def patches(self):
        return self._run(
            "raw/crop_patches.py", self.volumes, self.directory / "patches", *CROP, *SPACING, "--from-volumes"
        )

    @cached_property
    def listed(self):
        out = self._run("deduplicated/deduplicate.py", self.patches, self.directory / "deduplicated")
        return out / "deduplicated_fpaths.npz"

    @cached_property
    def labels(self):
        path = self.directory / "labels.npy"
        darker = [np.mean(tifffile.imread(patch)) < 200 for patch in PathList(self.listed)]
        np.save(path, np.where(darker, INFORMATIVE, UNINFORMATIVE))
        return path

    @cached_property
    def weights(self):
        words = [self.listed, self.labels, self.directory / "classifier", *LEARNING]
        return self._run("filtered/train_nn.py", *words, of=2) / "patch_quality_classifier_nn.pth"

    @cached_property
    def sets(self):
        out = self.directory / "sets"
        self._call("demo/make_classification_sets.py", out)
        return out

    def _run(self, script, *words, of=1):
        self._call(script, *words, "-p", "2")
        return words[of]

    def _call(self, script, *words):
        done = subprocess.run(
            [sys.executable, str(ROOT / script), *map(str, words)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{script} ended with status {done.returncode}: {done.stdout}{done.stderr}")
