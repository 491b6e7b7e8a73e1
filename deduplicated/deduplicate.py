"""Keep one exemplar of each group of near-duplicate patches, dataset by dataset.

Reads:   PATCHDIR/{section}_{y}_{x}.npy, the hashes crop_patches.py writes, each beside its patch.
Writes:  SAVEDIR/{dataset}_exemplars.npy, the paths of the exemplars;
         SAVEDIR/{dataset}_groups.csv, for every patch its exemplar and the distance between their hashes;
         SAVEDIR/{dataset}_groups.png, a picture of the largest groups, where there are duplicates;
         SAVEDIR/deduplicated_fpaths.npz/, the path list of the exemplars of all datasets.
Example: python deduplicated/deduplicate.py work/patches work/deduplicated

Patches are taken one after another. One whose hash differs in at most --min_distance bits from that of an exemplar
already kept is that exemplar's duplicate; otherwise it becomes an exemplar itself. Datasets are never compared with
each other. A later run does only datasets that are new or whose patches or parameters have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from emcurate import cli, naming
from emcurate.errors import InputError
from emcurate.files import describe_content, make_output_directory, npy_bytes, read_npy, write_once
from emcurate.groups import find_groups
from emcurate.hashing import BoolArray, read_hash
from emcurate.images import read_section
from emcurate.jobs import Report, default_processes, progress, run_jobs
from emcurate.ledger import Entry, Ledger, Plan
from emcurate.pathlists import same_paths, write_path_list
from emcurate.pictures import DROPPED, KEPT, Group, Tile, draw_contact_sheet

STAGE = "deduplicate"
MIN_DISTANCE = 12  # bits of the 64 of a hash of side 8, as published
ORDERS = ("random", "name", "sharpest")
SEED = 0
PATH_LIST = "deduplicated_fpaths.npz"

FILES_PER_DATASET = 3  # exemplars, table, picture; the picture only where there are duplicates
CHUNK_PATCHES = 2000  # hashes a job reads: a fraction of a second
PICTURE_GROUPS = 12  # largest groups in a dataset's picture
PICTURE_MEMBERS = 9  # duplicates shown of each
LISTED_DATASETS = 20  # datasets named in the closing report


@dataclass
class Dataset:
    """The patches of one dataset: their names in alphabetical order and a fingerprint of their files."""

    name: str
    stems: list[str] = field(default_factory=list)
    stats: list[str] = field(default_factory=list)

    def fingerprint(self, patchdir: Path) -> str:
        """Return what changes when a patch is added, removed, changed or moved."""
        return hashlib.sha256("\n".join([str(patchdir), *self.stats]).encode()).hexdigest()


@dataclass(frozen=True)
class ChunkJob:
    """Some patches of one dataset whose hashes are to be read; `start` is the first one's position."""

    dataset: str
    start: int
    patchdir: Path
    stems: tuple[str, ...]
    measure_sharpness: bool


@dataclass(frozen=True)
class Chunk:
    """What was read: a hash for each patch (None where it cannot be read), the sharpness if wanted, the problems."""

    hashes: list[BoolArray | None]
    sharpness: list[float]
    problems: list[str]


@dataclass(frozen=True)
class PictureJob:
    """A dataset's largest groups, to be drawn: each a list of patches and distances, the exemplar first."""

    dataset: str
    path: Path
    patchdir: Path
    groups: tuple[list[tuple[str, int]], ...]


def measure_sharpness(patch: npt.NDArray[np.uint8]) -> float:
    """Return the variance of a patch's Laplacian, which falls with blur (Pech-Pacheco et al., ICPR 2000)."""
    return float(cv2.Laplacian(patch, cv2.CV_64F).var())


def order_patches(
    name: str, count: int, order: str, seed: int, sharpness: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Return the order in which the patches of a dataset are taken, as positions in alphabetical order.

    The random order depends on the seed and the dataset's name only, not on which other datasets there are.
    """
    if order == "random":
        return np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(count)
    if order == "sharpest":
        return np.argsort(-sharpness, kind="stable")
    return np.arange(count)


def list_datasets(patchdir: Path, with_pixels: bool, report: Report) -> dict[str, Dataset]:
    """Return the datasets whose patches lie in a directory; hashes and patches without their mate are reported."""
    stats: dict[str, dict[str, str]] = {".npy": {}, ".tiff": {}}
    with os.scandir(patchdir) as entries:
        for entry in entries:
            stem, dot, extension = entry.name.rpartition(".")
            if dot + extension in stats and naming.MARK in stem:
                stat = entry.stat()
                stats[dot + extension][stem] = f"{entry.name} {stat.st_size} {stat.st_mtime_ns}"
    hashes, patches = stats[".npy"], stats[".tiff"]
    for stem in sorted(hashes.keys() ^ patches.keys()):
        present, missing = (".npy", ".tiff") if stem in hashes else (".tiff", ".npy")
        report.fail(
            InputError(patchdir / (stem + present), f"{stem}{missing} beside it", "none", "crop its section again")
        )
    datasets: dict[str, Dataset] = {}
    for stem in sorted(hashes.keys() & patches.keys()):
        try:
            name = naming.parse_patch(stem).dataset
        except naming.GrammarError as error:
            report.fail(f"{patchdir / stem}.npy: {error}; only patches of raw/crop_patches.py belong here")
            continue
        dataset = datasets.setdefault(name, Dataset(name))
        dataset.stems.append(stem)
        dataset.stats.append(hashes[stem] + (patches[stem] if with_pixels else ""))
    return datasets


def read_chunk(job: ChunkJob) -> Chunk:
    """Read the hashes of some patches."""
    chunk = Chunk([], [], [])
    for stem in job.stems:
        try:
            bits = read_hash(job.patchdir / f"{stem}.npy")
            patch = read_section(job.patchdir / f"{stem}.tiff") if job.measure_sharpness else None
        except InputError as error:
            chunk.problems.append(str(error))
            chunk.hashes.append(None)
            chunk.sharpness.append(0.0)
        else:
            chunk.hashes.append(bits)
            chunk.sharpness.append(0.0 if patch is None else measure_sharpness(patch))
    return chunk


def read_datasets(
    datasets: Sequence[Dataset], patchdir: Path, with_pixels: bool, report: Report, **workers: Any
) -> dict[str, Chunk]:
    """Read the hashes of whole datasets, divided among the workers in pieces of equal size."""
    jobs = [
        ChunkJob(d.name, start, patchdir, tuple(d.stems[start : start + CHUNK_PATCHES]), with_pixels)
        for d in datasets
        for start in range(0, len(d.stems), CHUNK_PATCHES)
    ]
    pieces: dict[str, dict[int, Chunk]] = defaultdict(dict)
    for job, chunk in run_jobs(read_chunk, jobs, report, unit="chunk", **workers):
        pieces[job.dataset][job.start] = chunk
    whole = {d.name: Chunk([], [], []) for d in datasets}
    for name, parts in pieces.items():
        for _, part in sorted(parts.items()):
            whole[name].hashes.extend(part.hashes)
            whole[name].sharpness.extend(part.sharpness)
            whole[name].problems.extend(part.problems)
    return whole


def stack_hashes(dataset: Dataset, chunk: Chunk, patchdir: Path) -> tuple[list[str], npt.NDArray[np.bool_], Any]:
    """Return the names, hashes (n, side, side) and sharpness of the patches that could be read."""
    readable = [i for i, bits in enumerate(chunk.hashes) if bits is not None]
    hashes = [bits for bits in chunk.hashes if bits is not None]
    for i, bits in zip(readable, hashes, strict=True):
        if bits.shape != hashes[0].shape:
            raise InputError(
                patchdir / f"{dataset.stems[i]}.npy",
                f"a hash of side {len(hashes[0])} like that of {dataset.stems[readable[0]]}",
                f"side {len(bits)}",
                "cut the patches of one dataset with one --hash_size",
            )
    return [dataset.stems[i] for i in readable], np.stack(hashes), np.array(chunk.sharpness)[readable]


def draw_groups(job: PictureJob) -> int:
    """Draw a dataset's largest groups, if it has any; return how many files the dataset now has."""
    if not job.groups:
        job.path.unlink(missing_ok=True)
        return FILES_PER_DATASET - 1
    sheet = []
    for (exemplar, _), *duplicates in job.groups:
        tiles = [Tile(job.patchdir / f"{exemplar}.tiff", "exemplar", KEPT)]
        tiles += [Tile(job.patchdir / f"{name}.tiff", f"{bits} bits away", DROPPED) for name, bits in duplicates]
        sheet.append(Group(exemplar, tiles))
    title = f"{job.dataset}: largest groups of near-duplicates, those that differ most first"
    draw_contact_sheet(job.path, title, sheet, columns=PICTURE_MEMBERS + 1)
    return FILES_PER_DATASET


def exemplars_path(savedir: Path, dataset: str) -> Path:
    """Return where the paths of a dataset's exemplars are kept."""
    return savedir / f"{dataset}_exemplars.npy"


def groups_path(savedir: Path, dataset: str) -> Path:
    """Return where a dataset's table of groups is kept."""
    return savedir / f"{dataset}_groups.csv"


def picture_path(savedir: Path, dataset: str) -> Path:
    """Return where the picture of a dataset's groups is kept."""
    return savedir / f"{dataset}_groups.png"


def count_outputs(savedir: Path, dataset: str) -> int:
    """Return how many of a dataset's files are there."""
    return sum(path(savedir, dataset).exists() for path in (exemplars_path, groups_path, picture_path))


def write_path_list_of_all(datasets: Sequence[str], savedir: Path, report: Report) -> None:
    """Write the path list of the exemplars of all datasets, unless it is there already."""
    paths: list[str] = []
    for name in datasets:
        paths.extend(read_npy(exemplars_path(savedir, name)).tolist())
    report.count("exemplars in all", len(paths))
    if not same_paths(savedir / PATH_LIST, paths):
        write_path_list(savedir / PATH_LIST, paths)


def describe_plan(plan: Plan, report: Report) -> None:
    """Say which datasets are done and why; long lists are cut short."""
    reasons = {**dict.fromkeys(plan.new, "new"), **{key: f"again: {why}" for key, why in plan.stale.items()}}
    for name in sorted(reasons)[:LISTED_DATASETS]:
        report.note(f"{name}: {reasons[name]}")
    if len(reasons) > LISTED_DATASETS:
        report.note(f"... and {len(reasons) - LISTED_DATASETS:,} more datasets")
    report.count("datasets done", 0)
    report.count("datasets unchanged", len(plan.done))


def run(
    patchdir: Path,
    savedir: Path,
    *,
    min_distance: int = MIN_DISTANCE,
    order: str = "random",
    seed: int = SEED,
    overwrite: bool = False,
    processes: int | None = None,
    scheduler: str | None = None,
) -> Report:
    """Deduplicate every dataset in `patchdir`; see the module's docstring."""
    report = Report(STAGE)
    workers = {"processes": processes, "scheduler": scheduler}
    with_pixels = order == "sharpest"
    datasets = list_datasets(patchdir, with_pixels, report)
    if not datasets and not report.failures:
        raise InputError(patchdir, "patches and hashes", describe_content(patchdir), "run raw/crop_patches.py first")
    make_output_directory(savedir)
    ledger = Ledger(savedir, STAGE)
    parameters = {"min_distance": min_distance, "order": order, "seed": seed if order == "random" else None}
    fingerprints = {name: dataset.fingerprint(patchdir) for name, dataset in datasets.items()}
    plan = ledger.plan(fingerprints, parameters, {name: count_outputs(savedir, name) for name in datasets})
    describe_plan(plan, report)
    todo = [datasets[name] for name in (*plan.new, *plan.stale)]

    pictures = []
    chunks = read_datasets(todo, patchdir, with_pixels, report, **workers)
    for dataset in progress(todo, total=len(todo), label=STAGE, unit="dataset"):
        chunk = chunks.pop(dataset.name)
        report.failures.extend(chunk.problems)
        replace = overwrite or dataset.name in ledger.entries
        try:
            stems, hashes, sharpness = stack_hashes(dataset, chunk, patchdir)
            taken = order_patches(dataset.name, len(stems), order, seed, sharpness)
            groups = find_groups(stems, hashes, taken, min_distance, processes or default_processes())
            exemplars = [str(patchdir / f"{stem}.tiff") for stem in groups.exemplars()]
            write_once(groups_path(savedir, dataset.name), groups.table(), overwrite=replace)
            write_once(exemplars_path(savedir, dataset.name), npy_bytes(np.array(exemplars)), overwrite=replace)
        except InputError as error:
            report.fail(error)
            continue
        report.count("datasets done")
        report.count("patches", len(stems))
        report.count("duplicates", len(stems) - len(exemplars))
        largest = tuple(groups.largest(PICTURE_GROUPS, PICTURE_MEMBERS))
        pictures.append(PictureJob(dataset.name, picture_path(savedir, dataset.name), patchdir, largest))
        # A dataset of which something could not be read is done again next time.
        if chunk.problems:
            fingerprints.pop(dataset.name)
    for job, outputs in run_jobs(draw_groups, pictures, report, unit="picture", **workers):
        if job.dataset in fingerprints:
            ledger.record(job.dataset, Entry(fingerprints[job.dataset], parameters, outputs))
    finished = sorted(name for name in datasets if exemplars_path(savedir, name).exists())
    write_path_list_of_all(finished, savedir, report)
    for name in sorted(ledger.entries.keys() - datasets.keys()):
        report.warn(f"{name}: its patches are gone from {patchdir}; its exemplars are left out of {PATH_LIST}")
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "deduplicate.py")
    parser.add_argument("patchdir", type=cli.existing_directory, metavar="PATCHDIR", help="directory of patches")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    parser.add_argument(
        "-d",
        "--min_distance",
        "--min-distance",
        type=cli.natural_int,
        default=MIN_DISTANCE,
        metavar="BITS",
        help="patches at most so many bits apart are near-duplicates (default: %(default)s)",
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        default="random",
        help="take patches in seeded random order, by name, or the sharpest first (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=cli.natural_int,
        default=SEED,
        metavar="N",
        help="seed of the random order (default: %(default)s)",
    )
    cli.add_overwrite_flag(parser)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
