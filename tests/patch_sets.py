"""Small patches whose kind can be told at a glance, with path list and labels, for tests of the classifier."""

import itertools
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emcurate.images.sections import write_section
from emcurate.patches import labels
from emcurate.patches.pathlists import write_path_list

SIDE = 32


@dataclass(frozen=True)
class PatchSet:
    """A path list of patches, which of them are informative, and a label file."""

    fpaths: Path
    labels: Path
    paths: list[str]
    truth: np.ndarray


def make_patch(random, informative, shape=(SIDE, SIDE)):
    """A checkerboard of random place and strength, or flat noise."""
    patch = random.normal(128, 4, shape)
    if informative:
        rows, columns = np.indices(shape) + random.integers(0, 8, 2)[:, None, None]
        patch += random.uniform(30, 60) * (2 * ((rows // 4 + columns // 4) % 2) - 1)
    return np.clip(patch, 0, 255).astype(np.uint8)


def pack(paths, directory, per_shard=7):
    """Put patches into shards by Python's tarfile, one dataset after another; return their paths as members."""
    directory.mkdir(parents=True, exist_ok=True)
    members = {}
    by_dataset = itertools.groupby(sorted(map(Path, paths)), lambda path: path.name.partition("-LOC-")[0])
    for dataset, found in by_dataset:
        patches = list(found)
        for number, start in enumerate(range(0, len(patches), per_shard)):
            shard = directory / f"{dataset}-{number:05d}.tar"
            with tarfile.open(shard, "w") as tar:
                for path in patches[start : start + per_shard]:
                    tar.add(path, path.name)
                    members[str(path)] = f"{shard}/{path.name}"
    return [members[str(path)] for path in paths]


def make_patch_set(directory, count=40, labelled=24, datasets=4):
    """Write patches, alternately informative and not, the first `labelled` of them labelled."""
    random = np.random.default_rng(0)
    (directory / "patches").mkdir(parents=True)
    truth = np.arange(count) % 2 == 0
    paths = []
    for number, informative in enumerate(truth):
        # Two in a row of each dataset, so that every dataset has both kinds.
        dataset = f"set {number // 2 % datasets}"
        path = directory / "patches" / f"{dataset}-LOC-0_{number:03d}_0_0.tiff"
        shape = (SIDE, SIDE) if number % 5 else (SIDE - 7, SIDE)
        write_section(path, make_patch(random, informative, shape))
        paths.append(str(path))
    words = labels.new_labels(count)
    words[:labelled] = np.where(truth[:labelled], labels.INFORMATIVE, labels.UNINFORMATIVE)
    labels.save_labels(directory / labels.LABELS_FILE, words)
    write_path_list(directory / "fpaths.npz", paths)
    return PatchSet(directory / "fpaths.npz", directory / labels.LABELS_FILE, paths, truth)
