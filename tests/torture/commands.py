"""The commands that are killed: each stage on a small corpus that another has made, and all stages in a row.

Their inputs are made when they are first wanted. Each command has two inputs at least, so that there are workers.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from tests.torture import children

ROOT = Path(__file__).resolve().parents[2]

CROP = ("-cs", "20")
SPACING = ("-s", "4")
MAKING_SECONDS = 120  # that making inputs may take

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
    renews : bool
        Whether it replaces its results of other parameters unasked, so that of two runs one may come after the other.
    """

    script: str
    words: Callable
    other: tuple[str, ...] = ()
    verify: Callable | None = None
    prepare: Callable | None = None
    among_inputs: bool = False
    renews: bool = False

    def spell(self, corpus, out, *more):
        """Return the command line."""
        script = Path(self.script)
        script = script if script.is_absolute() else ROOT / script
        return [sys.executable, str(script), *map(str, self.words(corpus, out)), "-p", "2", *more]

    def call(self, corpus, out, *more):
        """Return the module and the arguments for its `main`, in one process."""
        return self._module, [*map(str, self.words(corpus, out)), "-p", "1", *more]

    def spell_verify(self, corpus, out):
        """Return the command line that verifies the results."""
        return [sys.executable, str(ROOT / self.script), *self._verifying(corpus, out)]

    def call_verify(self, corpus, out):
        """Return the module and the arguments for its `main` that verify the results."""
        return self._module, self._verifying(corpus, out)

    @property
    def _module(self):
        return self.script.removesuffix(".py").replace("/", ".")

    def _verifying(self, corpus, out):
        words = self.verify(corpus, out) if self.verify else [*self.words(corpus, out), "--verify"]
        return [*map(str, words)]


def environment():
    """Return what the commands are run in: no import from anywhere but this copy of the repository."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def _copy_volumes(corpus, out):
    for path in corpus.volumes.glob("*.mrc"):
        shutil.copy(path, out)


def _curate(corpus, out):
    kinds = [word for kind in ("images", "volumes", "videos") for word in (f"--{kind}", getattr(corpus, kind))]
    return [*kinds, "--out", out, *CROP, *SPACING, "-nz", "12"]


def _coco(corpus, out):
    coco = corpus.sets / "coco"
    annotations, images = coco / "annotations", {"train": coco / "train2017.zip", "val": coco / "val2017"}
    words = [(f"--{part}-annotations", annotations / f"instances_{part}2017.json") for part in images]
    words += [(f"--{part}-images", path) for part, path in images.items()]
    return [*(word for pair in words for word in pair), "-o", out]


def _siim(corpus, out):
    return ["--metadata", corpus.sets / "siim" / "train.csv", "-o", out]


COMMANDS = {
    "vid2stack": Command("preprocess/vid2stack.py", lambda c, out: [c.videos, "-o", out], ("--format", "mrc")),
    "mrc2byte": Command("preprocess/mrc2byte.py", lambda c, out: [c.volumes, "-o", out], ("--rescale", "minmax")),
    "mrc2byte in place": Command(
        "preprocess/mrc2byte.py", lambda c, out: [out], ("--overwrite",), prepare=_copy_volumes, among_inputs=True
    ),
    "binvol": Command("preprocess/binvol.py", lambda c, out: [c.volumes, out], ("--factor", "3")),
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
    "deduplicate": Command("deduplicated/deduplicate.py", lambda c, out: [c.patches, out], ("-d", "3"), renews=True),
    "deduplicate, compared with all": Command(
        "deduplicated/deduplicate.py",
        lambda c, out: [c.patches, out, "--scope", "all", "--orientations", "--against", c.images],
        ("-d", "3"),
        renews=True,
    ),
    "train_nn": Command("filtered/train_nn.py", lambda c, out: [c.listed, c.labels, out, *LEARNING], ("--seed", "3")),
    "classify_nn": Command(
        "filtered/classify_nn.py", lambda c, out: [c.listed, out, "--weights", c.weights], ("--threshold", "0.3")
    ),
    "filter_measures": Command(
        "filtered/filter_measures.py", lambda c, out: [c.listed, out], ("--blank-bits", "0.5"), renews=True
    ),
    "embed": Command(
        "filtered/embed.py", lambda c, out: [c.listed, out, "--weights", c.weights], ("--image-size", "64")
    ),
    "select_diverse": Command(
        "filtered/select_diverse.py",
        lambda c, out: [c.listed, c.features, out, "--budget", "30", "--near-duplicates", "0.999"],
        ("--seed", "5"),
    ),
    "reconstruct3d": Command(
        "3d/reconstruct3d.py", lambda c, out: [c.listed, c.volumes, out, "-nz", "12"], ("-nz", "8")
    ),
    "export": Command(
        "data_prep/export.py",
        lambda c, out: [c.listed, out, "--format", "imagefolder", "--shard-size", "40"],
        ("--budget", "50"),
    ),
    "export to zarr": Command(
        "data_prep/export.py",
        lambda c, out: [c.listed, out, "--format", "zarr", "--shard-size", "40"],
        ("--format", "h5"),
    ),
    "trim_coco": Command(
        "data_prep/trim_coco.py",
        lambda c, out: [*_coco(c, out), "--train-samples", "12", "--val-samples", "8"],
        ("--seed", "5"),
    ),
    "trim_siim": Command(
        "data_prep/trim_siim.py",
        lambda c, out: _siim(c, out),
        ("--order", "stable"),
    ),
    "curate": Command(
        "curate.py",
        lambda c, out: [*_curate(c, out), "--weights", c.weights],
        ("--hash", "phash"),
        verify=lambda c, out: ["--out", out, "--verify"],
    ),
}


def _small(name, words, **changed):
    """Return a command with fewer inputs or results than the one of that name."""
    return replace(COMMANDS[name], words=words, **changed)


# Where every change of a file is a moment to be tried.
SMALL_COMMANDS = {
    **COMMANDS,
    "train_nn": _small("train_nn", lambda c, out: [c.listed, c.labels, out, *LEARNING, "--epochs", "2"]),
    "trim_coco": _small(
        "trim_coco",
        lambda c, out: [*_coco(c, out), "--targets", "3", "6", "--train-samples", "6", "--val-samples", "4"],
    ),
    "trim_siim": _small(
        "trim_siim",
        lambda c, out: [*_siim(c, out), "--images", c.sets / "siim" / "jpeg", "--benign", "0:4", "--malignant", "0:3"],
    ),
    "crop_patches, only those listed": _small(
        "crop_patches", lambda c, out: [c.volumes, out, *CROP, *SPACING, "--from-volumes", "--only", c.listed]
    ),
}


class Corpus:
    """Inputs of the commands, each made when it is first wanted."""

    images_made, image_shape = 12, (120, 160)
    volume_shape, signed_made, signed_shape = (24, 80, 88), 3, (12, 48, 48)
    videos_made, video_shape = 3, (12, 64, 96)
    sections_made = 24
    processes = "2"

    def __init__(self, directory):
        self.directory = directory

    def _make(self, name):
        path = self.directory / name
        path.mkdir()
        return path

    @cached_property
    def images(self):
        path = self._make("images")
        for number in range(self.images_made):
            Image.fromarray(make_texture((1, *self.image_shape), seed=number)[0]).save(path / f"image {number}.png")
        return path

    @cached_property
    def volumes(self):
        path = self._make("volumes")
        for number, name in enumerate(("fly", "worm")):
            tifffile.imwrite(path / f"{name}.tif", make_texture(self.volume_shape, seed=number), imagej=True)
        for number in range(self.signed_made):
            with mrcfile.new(path / f"signed{number}.mrc") as mrc:
                mrc.set_data((make_texture(self.signed_shape, seed=number).astype(np.int16) - 128).astype(np.int8))
                mrc.voxel_size = 100.0
        return path

    @cached_property
    def videos(self):
        path = self._make("videos")
        for number in range(self.videos_made):
            code = cv2.VideoWriter_fourcc(*"MJPG")
            writer = cv2.VideoWriter(str(path / f"film{number}.avi"), code, 5, self.video_shape[:0:-1])
            for frame in make_texture(self.video_shape, seed=number):
                writer.write(np.repeat(frame[..., None], 3, axis=-1))
            writer.release()
        return path

    @cached_property
    def sections(self):
        return write_sections(self._make("sections"), self.sections_made, self.image_shape, ["a", "b"])

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
    def features(self):
        return self._run("filtered/embed.py", self.listed, self.directory / "features", "--weights", self.weights)

    @cached_property
    def sets(self):
        out = self.directory / "sets"
        self._call("demo/make_classification_sets.py", out)
        return out

    def _run(self, script, *words, of=1):
        self._call(script, *words, "-p", self.processes)
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


class SmallCorpus(Corpus):
    """A corpus that gives few results, made without starting processes by what this one has loaded."""

    images_made, image_shape = 3, (44, 64)
    volume_shape, signed_made, signed_shape = (12, 40, 44), 2, (12, 40, 24)
    videos_made, video_shape = 2, (3, 64, 96)
    processes = "1"

    @cached_property
    def sections(self):
        return self._run("raw/cleanup2d.py", self.images, self.directory / "sections")

    def _call(self, script, *words):
        command = script.removesuffix(".py").replace("/", "."), [*map(str, words)]
        ((_, answer),) = children.run_all([command], MAKING_SECONDS)
        if answer.status != 0:
            raise SystemExit(f"{script} ended with status {answer.status}: {answer.out}{answer.err}")
