"""A day in small through all stages: what grows faster than the data? Hours, most of them the classifier's.

200,000 patches of 300 volumes, every tenth of them packed, 10,000 single 2D images, and one volume of two million
patches that is only hashed; the same with a quarter of each, and the ratio of the two. Each line is a whole command
line on two processes: seconds, seconds of cores, the memory of the largest process and of all together, open files of
one process, the room that its temporary files took, and its results. What grew faster than the data is named.

Reads:   nothing
Writes:  everything in a temporary directory
Example: python benchmarks/load.py --share 0.1
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np
from measuring import (
    MIB,
    Table,
    Usage,
    clear,
    count_files,
    describe_load,
    fast_directory,
    script,
    watch_command,
    write_texture,
)

from emcurate.patches.labels import INFORMATIVE, NONE, UNINFORMATIVE
from emcurate.patches.pathlists import PathList

CROP = 32
CUBE_SIDE = 2 * CROP  # 768 patches in the three planes
VOLUMES, IMAGES, LARGE_SIDE = 300, 10_000, 28 * CROP  # of the whole; a cube of 28 patches a side has 2.1 million
PACKED_EVERY = 10
IMAGE_SHAPE = (40, 48)
LABELS = 400

# How much of all is there in the smaller run, and how much faster than the data what is measured may seem to grow.
PART = 0.25
ALLOWED = 1.25

LEARNING = ("--init", "random", "--image-size", "32", "--epochs", "1", "--seed", "1")


@dataclass
class Cost:
    """What a command took, beside `Usage`: the bytes of its temporary files at most, and of its results."""

    usage: Usage
    temporary: int
    results: int

    def numbers(self) -> tuple[float, ...]:
        seconds, cpu, largest, together, open_files = astuple(self.usage)
        return seconds, cpu, largest / MIB, together / MIB, open_files, self.temporary / MIB, self.results / MIB


class Day:
    """All stages over a share of the data, in a directory."""

    def __init__(self, work: Path, share: float, classifies: bool) -> None:
        self.work, self.share, self.classifies = work, share, classifies
        self.temporary = work / "tmp"
        self.temporary.mkdir()
        self.costs: dict[str, Cost] = {}

    def measure(self, what: str, out: Path, name: str, *words: object) -> Path:
        """Run a stage and note what it took."""
        most = [0]

        def look() -> None:
            most[0] = max(most[0], sum(map(_hidden_bytes, (self.temporary, out))))

        usage = watch_command(["env", f"TMPDIR={self.temporary}", *script(name, *words, "-p", 2)], look)
        self.costs[what] = Cost(usage, most[0], count_files(out)[1])
        print(f"share {self.share:g}: {what}, {usage.seconds:.0f} s", file=sys.stderr, flush=True)
        return out

    def run(self) -> None:
        """Make the data and run the stages."""
        volumes, images, large = (self.work / name for name in ("volumes", "images", "large"))
        for directory in (volumes, images, large):
            directory.mkdir()
        for number in range(round(self.share * VOLUMES)):
            path = volumes / f"volume {number:04d}.nrrd"
            write_texture(path, (CUBE_SIDE,) * 3, CROP, number)
            if number % PACKED_EVERY == 0:
                _pack(path)
        random = np.random.default_rng(0)
        for number in range(round(self.share * IMAGES)):
            cv2.imwrite(str(images / f"image {number:05d}.png"), random.integers(0, 256, IMAGE_SHAPE, np.uint8))
        side = round(LARGE_SIDE * self.share ** (1 / 3) / CROP) * CROP
        write_texture(large / "large.nrrd", (side,) * 3, CROP)

        sections, patches, kept = self.work / "sections", self.work / "patches", self.work / "deduplicated"
        hashes, kept_of_large = self.work / "hashes", self.work / "deduplicated large"
        cutting = ("--from-volumes", "-cs", CROP)
        self.measure("cleanup2d", sections, "raw/cleanup2d.py", images, sections)
        self.measure("crop_patches, images", patches, "raw/crop_patches.py", sections, patches, *cutting[1:])
        self.measure(
            "crop_patches, volumes", patches, "raw/crop_patches.py", volumes, patches, *cutting, "--hashes-only"
        )
        self.measure("deduplicate", kept, "deduplicated/deduplicate.py", patches, kept)
        listed = kept / "deduplicated_fpaths.npz"
        self.measure(
            "crop_patches, exemplars", patches, "raw/crop_patches.py", volumes, patches, *cutting, "--only", listed
        )
        boxes, filtered = self.work / "boxes", self.classify(listed) if self.classifies else listed
        self.measure("reconstruct3d", boxes, "3d/reconstruct3d.py", filtered, volumes, boxes, "-nz", CROP)
        self.measure("crop_patches, 2 million", hashes, "raw/crop_patches.py", large, hashes, *cutting, "--hashes-only")
        self.measure(
            "deduplicate, 2 million", kept_of_large, "deduplicated/deduplicate.py", hashes, kept_of_large, "-d", "4"
        )

    def classify(self, listed: Path) -> Path:
        """Train on some patches and score all; return the list of the chosen ones."""
        labels = self.work / "labels.npy"
        np.save(labels, _some_labels(listed))
        trained, chosen = self.work / "trained", self.work / "chosen"
        self.measure("train_nn", trained, "filtered/train_nn.py", listed, labels, trained, *LEARNING)
        weights = trained / "patch_quality_classifier_nn.pth"
        self.measure("classify_nn", chosen, "filtered/classify_nn.py", listed, chosen, "--weights", weights)
        return chosen / "nn_filtered_fpaths.npz"


def _hidden_bytes(directory: Path) -> int:
    """Return the bytes of what is being written into a directory, or unpacked there."""
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith(".emcurate-") or directory.name == "tmp":
                    total += entry.stat().st_size
    except OSError:
        pass  # not there yet, or renamed meanwhile
    return total


def _pack(path: Path) -> None:
    """Put a raw NRRD's voxels into a gzip stream."""
    head, _, voxels = path.read_bytes().partition(b"\n\n")
    path.write_bytes(head.replace(b"encoding: raw", b"encoding: gzip") + b"\n\n" + gzip.compress(voxels, 1))


def _some_labels(listed: Path) -> np.ndarray:
    """Label some patches in turn: only the work counts here."""
    words = np.full(len(PathList(listed)), NONE, "<U13")
    places = np.linspace(0, len(words) - 1, min(LABELS, len(words))).astype(int)
    words[places[::2]], words[places[1::2]] = INFORMATIVE, UNINFORMATIVE
    return words


def main() -> int:
    """Print the table; return 1 if something grew faster than the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="part of all to do (default: %(default)s)")
    parser.add_argument("--no-classifier", action="store_true", help="leave out the stages that take most of the time")
    parser.add_argument("--dir", type=Path, help="where to work (default: in memory, if there is such a file system)")
    a = parser.parse_args()
    names = ("seconds", "cpu", "largest_MiB", "together_MiB", "open_files", "temporary_MiB", "results_MiB")
    forms = (">9.1f", ">9.1f", ">12.0f", ">13.0f", ">11.0f", ">14.1f", ">12.1f")
    print(f"{describe_load()}; share {a.share:g}, then {a.share * PART:g} of all and the ratio", flush=True)
    with fast_directory(a.dir) as work:
        days = []
        for share in (a.share * PART, a.share):
            place = work / f"{share:g}"
            place.mkdir()
            days.append(Day(place, share, not a.no_classifier))
            days[-1].run()
            clear(place)
    table = Table(work="<32", **dict(zip(names, forms, strict=True)), faster="<20")
    faster_in_all = 0
    for what in days[1].costs:
        small, large = days[0].costs[what].numbers(), days[1].costs[what].numbers()
        ratios = [b / s if s else 0.0 for s, b in zip(small, large, strict=True)]
        # Seconds of a busy machine say little, those of its cores do; results grow as the data do.
        faster = [name for name, ratio in zip(names[1:6], ratios[1:6], strict=True) if ratio > ALLOWED / PART]
        faster_in_all += len(faster)
        table.print([what, *large, ""])
        table.print([f"  of {PART:g}", *small, ""])
        table.print(["  ratio", *ratios, ", ".join(faster)])
    print(f"{describe_load()}; {faster_in_all} grew faster than the data")
    return 1 if faster_in_all else 0


if __name__ == "__main__":
    sys.exit(main())
