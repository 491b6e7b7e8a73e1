"""Time, memory, files and bytes at growing numbers of patches: straight lines, or not.

One volume: patches of 32 pixels of three planes, only hashed; these deduplicated; their exemplars cut; all written as
shards and as files; and each again, when there is nothing to do. Many datasets: as many volumes of 768 patches each.
Many images: each a dataset with one patch. Every line is a whole command line, run once.

The memory is that of the largest process (what it ever held, pages of mapped files included) and that of all together
at any time (shared pages counted once), read from /proc: Linux only. Files and bytes are those of the results, with
what is noted of them in .emcurate.

Reads:   nothing
Writes:  everything in a temporary directory, in memory where there is such a file system, else say --dir
Example: python benchmarks/scaling.py --sizes 10000 100000 1000000 --files-to 100000 --tables 4000000
         python benchmarks/scaling.py --sizes --datasets 300 --images 10000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from measuring import (
    MIB,
    Table,
    clear,
    count_files,
    describe_load,
    fast_directory,
    script,
    watch_command,
    write_texture,
)

CROP = 32
PLANES = 3

# A cube of k patches a side has k² in each of its 3 · 32 k sections.
PATCHES_OF_UNIT_CUBE = PLANES * CROP

SIZES, FILES_TO = [10_000, 100_000], 100_000
DATASETS, CUBE_OF_DATASET = 30, 2
IMAGES, IMAGE_SIDE = 1_000, 64


class Scaling:
    """The command lines, in a directory, and the table they fill."""

    def __init__(self, work: Path, processes: int) -> None:
        self.work, self.end = work, ["-p", processes]
        self.table = Table(
            work="<34",
            patches=">10,d",
            seconds=">8.1f",
            cpu=">8.1f",
            us_a_patch=">10.1f",
            largest_MiB=">11.0f",
            together_MiB=">12.0f",
            files=">10,d",
            MB=">9.1f",
        )

    def measure(self, what: str, patches: int, out: Path, name: str, *words: object) -> None:
        """Run a stage, and run it again, and print both lines."""
        command = script(name, *words, *self.end)
        for again in ("", ", again"):
            usage = watch_command(command)
            files, size = (None, None) if again else count_files(out)
            self.table.print(
                [
                    what + again,
                    patches,
                    usage.seconds,
                    usage.cpu,
                    usage.seconds / patches * 1e6,
                    usage.largest / MIB,
                    usage.together / MIB,
                    files,
                    None if size is None else size / 1e6,
                ]
            )

    def out(self, name: str) -> Path:
        """Return a directory that is not there yet."""
        clear(self.work / name)
        return self.work / name

    def hash_and_deduplicate(self, voldir: Path, patches: int) -> tuple[Path, Path]:
        hashes, kept = self.out("hashes"), self.out("deduplicated")
        self.crop("hashes only", patches, voldir, hashes, "--hashes-only")
        self.measure("deduplicate", patches, kept, "deduplicated/deduplicate.py", hashes, kept)
        return hashes, kept / "deduplicated_fpaths.npz"

    def crop(self, what: str, patches: int, voldir: Path, out: Path, *words: object) -> None:
        self.measure(what, patches, out, "raw/crop_patches.py", voldir, out, "--from-volumes", "-cs", CROP, *words)

    def one_volume(self, wanted: int, files_to: int, tables_only: bool) -> None:
        side = max(1, round((wanted / PATCHES_OF_UNIT_CUBE) ** (1 / 3)))
        patches = PATCHES_OF_UNIT_CUBE * side**3
        voldir = self.out("volumes")
        voldir.mkdir()
        write_texture(voldir / "one.nrrd", (side * CROP,) * 3, CROP)
        hashes, exemplars = self.hash_and_deduplicate(voldir, patches)
        if not tables_only:
            self.crop("exemplars, --only", patches, voldir, hashes, "--only", exemplars)
            clear(hashes)
            shards = self.out("shards")
            self.crop("shards", patches, voldir, shards, "--store", "tar")
            clear(shards)
        if not tables_only and patches <= 1.1 * files_to:
            files = self.out("files")
            self.crop("files", patches, voldir, files)
            clear(files)

    def many_volumes(self, count: int) -> None:
        voldir = self.out("volumes")
        voldir.mkdir()
        for number in range(count):
            write_texture(voldir / f"volume-{number:04d}.nrrd", (CUBE_OF_DATASET * CROP,) * 3, CROP, number)
        print(f"{count:,} volumes")
        self.hash_and_deduplicate(voldir, count * PATCHES_OF_UNIT_CUBE * CUBE_OF_DATASET**3)

    def many_images(self, count: int) -> None:
        imdir, sections, patches, kept = map(self.out, ("images", "sections", "patches", "deduplicated"))
        imdir.mkdir()
        for number, image in enumerate(make_images(count)):
            cv2.imwrite(str(imdir / f"image-{number:05d}.png"), image)
        print(f"{count:,} images")
        self.measure("cleanup2d", count, sections, "raw/cleanup2d.py", imdir, sections)
        self.measure("crop_patches", count, patches, "raw/crop_patches.py", sections, patches, "-cs", IMAGE_SIDE)
        self.measure("deduplicate", count, kept, "deduplicated/deduplicate.py", patches, kept)


def make_images(count: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for _ in range(count):
        yield random.integers(0, 256, (IMAGE_SIDE, IMAGE_SIDE)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, metavar="N", help=f"patches; default: {SIZES}")
    parser.add_argument(
        "--files-to",
        type=int,
        default=FILES_TO,
        metavar="N",
        help="most patches written as files (default: %(default)s)",
    )
    parser.add_argument("--tables", type=int, nargs="*", default=[], metavar="N", help="patches that are only hashed")
    parser.add_argument("--datasets", type=int, default=DATASETS, help="volumes (default: %(default)s; 0: none)")
    parser.add_argument("--images", type=int, default=IMAGES, help="2D images (default: %(default)s; 0: none)")
    parser.add_argument("--dir", type=Path, help="where to work (default: in memory, if there is such a file system)")
    parser.add_argument("-p", "--processes", type=int, default=2)
    a = parser.parse_args()
    print(f"patches of {CROP} pixels, -p {a.processes}; {describe_load()}")
    with fast_directory(a.dir) as work:
        scaling = Scaling(work, a.processes)
        for number in a.sizes:
            scaling.one_volume(number, a.files_to, tables_only=False)
        for number in a.tables:
            scaling.one_volume(number, a.files_to, tables_only=True)
        if a.datasets:
            scaling.many_volumes(a.datasets)
        if a.images:
            scaling.many_images(a.images)
    print(describe_load())


if __name__ == "__main__":
    main()
