"""How many times as fast as the published method each stage is, from a volume to exemplars and back to subvolumes.

Both are run as whole command lines, the start of Python included, in turn, from the same volume, and the medians
compared: of seconds, and of seconds that cores worked, which a busy machine changes less. published.py says what the
published method is. The floor is what writing the same bytes takes: for files each is opened, written and closed, for
shards there is one stream. Results are compared too, in the first round: sections and patches pixel by pixel, hashes,
exemplars, subvolumes. They must be equal.

Reads:   --volume FILE, MRC or NRRD of unsigned bytes; else one is made
Writes:  everything in a temporary directory, in memory where there is such a file system
Example: python benchmarks/pipeline.py --volume cell.mrc --crop 128
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from history import add_flags, compare
from measuring import (
    HERE,
    ROUNDS,
    Table,
    Usage,
    clear,
    describe_load,
    fast_directory,
    run_command,
    script,
    write_texture,
)
from published import load_volume

SIDE, CROP = 320, 64  # of the volume that is made: 24,000 patches
NZ = 64


@dataclass(frozen=True)
class Step:
    """A command line that fills a directory, and the steps that must have run before.

    `keeps` says that it is run again on what it has written.
    """

    command: list[str]
    out: Path
    needs: tuple[str, ...] = ()
    keeps: bool = False


@dataclass(frozen=True)
class Row:
    """A line of the table: a step, the published steps that do the same, and what compares their results.

    `floor` says how the files written by the step are written again for comparison.
    """

    step: str
    published: tuple[str, ...]
    check: Callable[[], None] | None = None
    floor: bool = False


class Pipeline:
    """The steps and rows for one volume, in a directory."""

    def __init__(self, work: Path, voldir: Path, crop: int, processes: int) -> None:
        self.work, self.voldir = work, voldir
        cut, end = ["-cs", crop], ["-p", processes]
        all_sizes = ["--min-size", 1]  # the published method leaves no sliver out
        out = {name: work / name.replace(" ", "-") for name in PUBLISHED + OURS}
        self.out = out

        def published(name: str, *words: object) -> list[str]:
            return script("benchmarks/published.py", name, *words, *end)

        def crop_patches(source: Path, to: str, *words: object) -> Step:
            needs = () if source == voldir else ("sections",)
            return Step(script("raw/crop_patches.py", source, out[to], *cut, *all_sizes, *words, *end), out[to], needs)

        exemplars = out["their exemplars"] / "deduplicated_fpaths.npz"
        deduplicate = ["deduplicated/deduplicate.py", out["hashes of sections"], out["deduplicate"], "--order", "name"]
        curate = ["curate.py", "--volumes", voldir, "--out", out["volume to exemplars"], *cut, *all_sizes]
        curate += ["--until", "deduplicate", "--order", "name"]
        filtered = out["volume to exemplars"] / "deduplicate" / "deduplicated_fpaths.npz"
        back = [voldir, out["reconstruct3d"], "-nz", NZ]
        volumes = "--from-volumes"
        self.steps = {
            "their sections": Step(published("sections", voldir, out["their sections"]), out["their sections"]),
            "sections": Step(script("raw/cross_section3d.py", voldir, out["sections"], *end), out["sections"]),
            "their patches": Step(
                published("patches", out["their sections"], out["their patches"], *cut),
                out["their patches"],
                ("their sections",),
            ),
            "files of sections": crop_patches(out["sections"], "files of sections"),
            "shards of sections": crop_patches(out["sections"], "shards of sections", "--store", "tar"),
            "hashes of sections": crop_patches(out["sections"], "hashes of sections", "--hashes-only"),
            "files of volumes": crop_patches(voldir, "files of volumes", volumes),
            "shards of volumes": crop_patches(voldir, "shards of volumes", volumes, "--store", "tar"),
            "hashes of volumes": crop_patches(voldir, "hashes of volumes", volumes, "--hashes-only"),
            "their exemplars": Step(
                published("deduplicate", out["their patches"], out["their exemplars"]),
                out["their exemplars"],
                ("their patches",),
            ),
            "deduplicate": Step(script(*deduplicate, *end), out["deduplicate"], ("hashes of sections",)),
            "volume to exemplars": Step(script(*curate, *end), out["volume to exemplars"]),
            "their subvolumes": Step(
                published("reconstruct", exemplars, voldir, out["their subvolumes"], "-nz", NZ, *cut),
                out["their subvolumes"],
                ("their exemplars",),
            ),
            "reconstruct3d": Step(
                script("3d/reconstruct3d.py", filtered, *back, *end), out["reconstruct3d"], ("volume to exemplars",)
            ),
        }
        for name in OURS:
            step = self.steps[name]
            self.steps[f"{name}, again"] = Step(step.command, step.out, (*step.needs, name), keeps=True)
        through = ("their sections", "their patches")
        patches = ("their patches",)
        rows = [
            Row("sections", ("their sections",), self.check_sections, floor=True),
            Row("files of sections", patches, lambda: self.check_files("files of sections"), floor=True),
            Row("shards of sections", patches, lambda: self.check_shards("shards of sections"), floor=True),
            Row("hashes of sections", patches, lambda: self.check_hashes("hashes of sections")),
            Row("files of volumes", through, lambda: self.check_files("files of volumes"), floor=True),
            Row("shards of volumes", through, lambda: self.check_shards("shards of volumes"), floor=True),
            Row("hashes of volumes", through, lambda: self.check_hashes("hashes of volumes")),
            Row("deduplicate", ("their exemplars",), self.check_exemplars),
            Row("volume to exemplars", (*through, "their exemplars"), self.check_volume_to_exemplars),
            Row("reconstruct3d", ("their subvolumes",), self.check_subvolumes, floor=True),
        ]
        self.rows = {row.step: row for row in rows}
        self.rows |= {f"{row.step}, again": Row(f"{row.step}, again", row.published) for row in rows}

    def chosen_steps(self, rows: list[str]) -> list[str]:
        """Return the steps that some rows need, in order: each of ours stands behind the published one."""
        wanted: set[str] = set()
        left = [step for row in rows for step in (row, *self.rows[row].published)]
        while left:
            step = left.pop()
            wanted.add(step)
            left += self.steps[step].needs
        order = list(self.steps)
        # A step is run again directly after it has run.
        return sorted(wanted, key=lambda step: (order.index(step.removesuffix(", again")), step.endswith("again")))

    def run(self, rows: list[str], rounds: int) -> dict[str, list[Usage]]:
        """Run all that some rows need in turn; return what the steps took, and the floors by "floor of"."""
        usage: dict[str, list[Usage]] = {}
        steps = self.chosen_steps(rows)
        for number in range(rounds):
            for place, name in enumerate(steps):
                step = self.steps[name]
                if not step.keeps:
                    clear(step.out)
                usage.setdefault(name, []).append(run_command(step.command))
                row = self.rows.get(name)
                if row is not None and name in rows:
                    if row.check is not None and number == 0:
                        row.check()
                    if row.floor:
                        usage.setdefault(f"floor of {name}", []).append(self.write_floor(step.out))
                self.clear_unneeded(steps[place + 1 :], rows if number == 0 else [])
        return usage

    def clear_unneeded(self, later: list[str], to_check: list[str]) -> None:
        """Remove the results that no later step reads and no later row is compared with."""
        needed = {name for step in later for name in (step, *self.steps[step].needs)}
        needed |= {name for step in later if step in to_check for name in self.rows[step].published}
        kept = {self.steps[name].out for name in needed}
        for step in self.steps.values():
            if step.out not in kept:
                clear(step.out)

    def write_floor(self, out: Path) -> Usage:
        """Return what it takes to write the files of a directory with os.write, without what is in hidden ones."""
        listing, again = self.work / "sizes.txt", self.work / "floor"
        with os.scandir(out) as entries:
            listing.write_text("".join(f"{e.stat().st_size} {e.name}\n" for e in entries if e.is_file()))
        clear(again)
        usage = run_command([sys.executable, str(HERE / "floor.py"), str(listing), str(again)])
        clear(again)
        return usage

    def check_sections(self) -> None:
        expect_equal(images_in(self.out["their sections"]), self.out["sections"], "sections")

    def check_files(self, name: str) -> None:
        theirs = self.out["their patches"]
        expect_equal(images_in(theirs), self.out[name], name)
        names = {path.name for path in theirs.glob("*.npy")}
        if names != {path.name for path in self.out[name].glob("*.npy")}:
            sys.exit(f"{name}: other hashes than published")
        for file in names:
            if not np.array_equal(np.load(theirs / file), np.load(self.out[name] / file)):
                sys.exit(f"{name}: {file} is another hash than published")

    def check_shards(self, name: str) -> None:
        found = {}
        for shard in self.out[name].glob("*.tar"):
            with tarfile.open(shard) as tar:
                for member in tar:
                    found[member.name] = tar.extractfile(member).read()
        theirs = self.out["their patches"]
        if found.keys() != {path.name for path in theirs.glob("*.tiff")}:
            sys.exit(f"{name}: other patches than published")
        for file, data in found.items():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            if not np.array_equal(pixels, read_image(theirs / file)):
                sys.exit(f"{name}: {file} has other pixels than published")

    def check_hashes(self, name: str) -> None:
        found = {}
        for file in self.out[name].glob("*_patches.parquet"):
            table = pq.read_table(file, columns=["patch", "hash"])
            found |= dict(zip(table["patch"].to_pylist(), table["hash"].to_pylist(), strict=True))
        theirs = {path.stem: np.load(path) for path in self.out["their patches"].glob("*.npy")}
        if found != {patch: np.packbits(hash).tobytes() for patch, hash in theirs.items()}:
            sys.exit(f"{name}: other hashes than published")

    def check_exemplars(self) -> None:
        if names_in(self.out["deduplicate"]) != names_in(self.out["their exemplars"]):
            sys.exit("deduplicate: other exemplars than published")

    def check_volume_to_exemplars(self) -> None:
        out = self.out["volume to exemplars"]
        names = names_in(self.out["their exemplars"])
        if names_in(out / "deduplicate") != names:
            sys.exit("volume to exemplars: other exemplars than published")
        chosen = ((name, read_image(self.out["their patches"] / name)) for name in names)
        expect_equal(chosen, out / "crop_patches", "volume to exemplars")

    def check_subvolumes(self) -> None:
        theirs, ours = (
            sorted(np.load(path).tobytes() for path in self.out[name].glob("*.npy"))
            for name in ("their subvolumes", "reconstruct3d")
        )
        if theirs != ours or not theirs:
            sys.exit(f"reconstruct3d: {len(ours)} subvolumes other than the {len(theirs)} published ones")


PUBLISHED = ("their sections", "their patches", "their exemplars", "their subvolumes")
OURS = (
    *("sections", "files of sections", "shards of sections", "hashes of sections"),
    *("files of volumes", "shards of volumes", "hashes of volumes"),
    *("deduplicate", "volume to exemplars", "reconstruct3d"),
)


def read_image(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def images_in(directory: Path) -> Iterator[tuple[str, np.ndarray]]:
    return ((path.name, read_image(path)) for path in directory.glob("*.tiff"))


def names_in(directory: Path) -> list[str]:
    """Return the file names of the exemplars in a directory of deduplicate, in order."""
    return [Path(path).name for file in sorted(directory.glob("*_exemplars.npy")) for path in np.load(file).tolist()]


def expect_equal(theirs: Iterator[tuple[str, np.ndarray]], ours: Path, what: str) -> None:
    """End the benchmark unless a directory holds these images and no others."""
    left = {path.name for path in ours.glob("*.tiff")}
    for name, pixels in theirs:
        if name not in left or not np.array_equal(read_image(ours / name), pixels):
            sys.exit(f"{what}: {name} is missing or has other pixels than published")
        left.discard(name)
    if left:
        sys.exit(f"{what}: {len(left)} more than published")


def warm_up(work: Path, crop: int, processes: int) -> None:
    """Run every step once on a small volume, so that nothing is compiled or read from disk while time is taken."""
    voldir = work / "small"
    voldir.mkdir()
    write_texture(voldir / "small.nrrd", (3 * NZ,) * 3, NZ)
    small = Pipeline(work / "warm-up", voldir, NZ, processes)
    small.work.mkdir()
    small.run([*OURS, *(f"{name}, again" for name in OURS)], 1)
    clear(small.work)


def print_rows(pipeline: Pipeline, rows: list[str], usage: Mapping[str, list[Usage]]) -> list[dict[str, float]]:
    """Print the table and return the ratios of seconds and of the seconds that cores worked."""
    seconds = {step: statistics.median(run.seconds for run in runs) for step, runs in usage.items()}
    cpu = {step: statistics.median(run.cpu for run in runs) for step, runs in usage.items()}
    table = Table(
        work="<26",
        seconds=">8.2f",
        published=">10.2f",
        ratio=">7.1f",
        cpu=">7.2f",
        published_cpu=">14.2f",
        cpu_ratio=">10.1f",
        floor=">7.2f",
        of_the_floor=">13.1f",
        cpu_of_it=">10.1f",
    )
    ratios: dict[str, float] = {}
    cpu_ratios: dict[str, float] = {}
    for name in rows:
        published, work = (sum(taken[step] for step in pipeline.rows[name].published) for taken in (seconds, cpu))
        ratios[name] = published / seconds[name]
        cpu_ratios[name] = work / cpu[name]
        cells = [name, seconds[name], published, ratios[name], cpu[name], work, cpu_ratios[name]]
        if floor := seconds.get(f"floor of {name}"):
            cells += [floor, seconds[name] / floor, cpu[name] / cpu[f"floor of {name}"]]
        table.print(cells + [None] * (len(table.formats) - len(cells)))
    return [ratios, cpu_ratios]


def main() -> None:
    names = [name for ours in OURS for name in (ours, f"{ours}, again")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, metavar="FILE", help="MRC or NRRD of unsigned bytes (default: make one)")
    parser.add_argument("--side", type=int, default=SIDE, help="voxels a side of the one made (default: %(default)s)")
    parser.add_argument("--crop", type=int, default=CROP, help="side of the patches (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help="only some rows")
    parser.add_argument("--dir", type=Path, help="where to work (default: in memory, if there is such a file system)")
    parser.add_argument("-p", "--processes", type=int, default=2)
    add_flags(parser)
    a = parser.parse_args()
    with fast_directory(a.dir) as work:
        voldir = work / "volumes"
        voldir.mkdir()
        if a.volume:
            place_volume(a.volume, voldir / f"given{a.volume.suffix}")
        else:
            write_texture(voldir / "made.nrrd", (a.side,) * 3, a.crop)
        volume = next(voldir.iterdir())
        sides = "x".join(map(str, load_volume(volume).shape))
        warm_up(work, a.crop, a.processes)
        setup = f"{volume.stem} volume {sides}, crop {a.crop}, -p {a.processes}"
        print(f"{setup}; median of {a.rounds} rounds; {describe_load()}", flush=True)
        pipeline = Pipeline(work, voldir, a.crop, a.processes)
        usage = pipeline.run(a.rows, a.rounds)
        ratios, cpu_ratios = print_rows(pipeline, a.rows, usage)
    print(f"all results equal; {describe_load()}")
    compare("pipeline", setup, ratios, a, cpu_ratios)


def place_volume(volume: Path, to: Path) -> None:
    """Have a volume in a directory of its own, without copying it if that can be."""
    try:
        os.link(volume, to)
    except OSError:
        shutil.copyfile(volume, to)


if __name__ == "__main__":
    main()
