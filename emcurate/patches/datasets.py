"""The patches and hashes in a directory: listed by section or by dataset, and the hashes read in parallel."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.errors import InputError
from emcurate.files import list_files
from emcurate.patches.hashing import BoolArray, read_hash
from emcurate.patches.reading import read_patch
from emcurate.patches.tables import TABLE_SUFFIX, hash_size_of, hashes_of, read_table, unpack_bits
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

PATCH_EXTENSION, HASH_EXTENSION = "tiff", "npy"

CHUNK_PATCHES = 2000  # hashes a job reads: a fraction of a second


@dataclass
class Dataset:
    """The patches of one dataset: its table, or else their names in alphabetical order; and what was seen of either."""

    name: str
    stems: list[str] = field(default_factory=list)
    stats: list[str] = field(default_factory=list)
    table: Path | None = None

    def fingerprint(self, patchdir: Path) -> str:
        """Return what changes when a patch is added, removed, changed or moved."""
        text = "\n".join([str(patchdir), *self.stats])
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def example(self, patchdir: Path) -> Path:
        """Return a file that is there as long as the dataset is."""
        return self.table or patchdir / f"{self.stems[0]}.{HASH_EXTENSION}"


@dataclass(frozen=True)
class Hashes:
    """The hashes of a dataset's patches, those that can be used.

    Attributes
    ----------
    stems : list of n str
    bits : (n, side, side) bool
    sharpness : (n,) float64
        Zeros unless it was asked for.
    complete : bool
        Whether every patch of the dataset is among them.
    """

    stems: list[str]
    bits: BoolArray
    sharpness: npt.NDArray[np.float64]
    complete: bool


@dataclass(frozen=True)
class TableJob:
    """One dataset whose table is to be read."""

    dataset: str
    path: Path


@dataclass(frozen=True)
class ChunkJob:
    """Some patches of one dataset whose hashes are to be read."""

    dataset: str
    patchdir: Path
    stems: tuple[str, ...]
    with_sharpness: bool

    @property
    def path(self) -> Path:
        """The first of the hashes, which stands for the chunk in messages."""
        return self.patchdir / f"{self.stems[0]}.{HASH_EXTENSION}"


@dataclass
class Chunk:
    """What was read of a chunk: for each readable patch its name, its hash's side and bytes, its sharpness."""

    stems: list[str] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    bits: list[bytes] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def list_datasets(patchdir: Path, with_pixels: bool, report: Report) -> dict[str, Dataset]:
    """Return the datasets whose patches lie in a directory; hashes and patches without their mate are reported.

    Where a dataset has a table, that is believed, and its files are not looked at. `with_pixels` says that pixels are
    wanted too, and that a dataset counts as changed when only the pixels of a patch have: then the files are looked at.
    """
    tables = {} if with_pixels else _list_tables(patchdir)
    stats: dict[str, dict[str, str]] = {HASH_EXTENSION: {}, PATCH_EXTENSION: {}}
    with os.scandir(patchdir) as entries:
        for entry in entries:
            stem, _, extension = entry.name.rpartition(".")
            owner, mark, _ = stem.partition(naming.MARK)
            if extension in stats and mark and owner not in tables:
                try:
                    stat = entry.stat()
                except OSError as error:
                    found = "a link that leads nowhere" if entry.is_symlink() else error.strerror or str(error)
                    report.fail(InputError(entry.path, "a patch or a hash", found, "mend it, or cut its section again"))
                    continue
                if not entry.is_file():
                    report.fail(InputError(entry.path, "a patch or a hash", "no file", "take it out of the directory"))
                    continue
                stats[extension][stem] = f"{entry.name} {stat.st_size} {stat.st_mtime_ns}"
    hashes, patches = stats[HASH_EXTENSION], stats[PATCH_EXTENSION]
    for stem in sorted(hashes.keys() ^ patches.keys()):
        there, missing = (HASH_EXTENSION, PATCH_EXTENSION) if stem in hashes else (PATCH_EXTENSION, HASH_EXTENSION)
        report.fail(
            InputError(patchdir / f"{stem}.{there}", f"{stem}.{missing} beside it", "none", "cut its section again")
        )
    datasets = dict(tables)
    for stem in sorted(hashes.keys() & patches.keys()):
        try:
            name = naming.parse_patch(stem).dataset
        except naming.GrammarError as error:
            report.fail(f"{patchdir / stem}.{HASH_EXTENSION}: {error}; only patches of crop_patches.py belong here")
            continue
        dataset = datasets.setdefault(name, Dataset(name))
        dataset.stems.append(stem)
        dataset.stats.append(hashes[stem] + (patches[stem] if with_pixels else ""))
    return datasets


def read_hashes(
    datasets: Sequence[Dataset], patchdir: Path, with_sharpness: bool, report: Report, workers: Workers
) -> dict[str, Hashes]:
    """Read the hashes of whole datasets, divided among the workers.

    What cannot be read, or has another size than most of its dataset's, is reported and left out; so is a dataset of
    which nothing is left.
    """
    found: dict[str, Hashes] = {}
    tables = [TableJob(dataset.name, dataset.table) for dataset in datasets if dataset.table is not None]
    for table_job, hashes in workers.run(read_hashes_of_table, tables, report, unit="table"):
        if hashes.stems:
            found[table_job.dataset] = hashes
    jobs = [
        ChunkJob(dataset.name, patchdir, tuple(dataset.stems[start : start + CHUNK_PATCHES]), with_sharpness)
        for dataset in datasets
        for start in range(0, len(dataset.stems), CHUNK_PATCHES)
    ]
    chunks: dict[str, list[Chunk]] = defaultdict(list)
    for job, chunk in workers.run(read_chunk, jobs, report, unit="chunk"):
        report.fail_all(chunk.problems)
        if chunk.stems:
            chunks[job.dataset].append(chunk)
    for dataset in datasets:
        if dataset.name in chunks:
            found[dataset.name] = join_chunks(dataset, chunks[dataset.name], patchdir, report)
    return {dataset.name: found[dataset.name] for dataset in datasets if dataset.name in found}


def read_hashes_of_table(job: TableJob) -> Hashes:
    """Read the hashes of a dataset from its table."""
    table = read_table(job.path, ["patch", "hash"])
    bits = unpack_bits(hashes_of(table), hash_size_of(table))
    return Hashes(table["patch"].to_pylist(), bits, np.zeros(len(bits)), complete=True)


def _list_tables(patchdir: Path) -> dict[str, Dataset]:
    """Return the datasets that have a table, without reading it."""
    notes = Notes(patchdir, TABLE_SUFFIX)
    found = {}
    for path in list_files(patchdir, [TABLE_SUFFIX]):
        name = path.name.removesuffix(TABLE_SUFFIX)
        found[name] = Dataset(name, stats=[notes.fingerprint(path)], table=path)
    return found


def read_chunk(job: ChunkJob) -> Chunk:
    """Read the hashes of some patches, and how sharp they are if that is wanted."""
    chunk = Chunk()
    for stem in job.stems:
        try:
            bits = read_hash(job.patchdir / f"{stem}.{HASH_EXTENSION}")
            sharpness = 0.0
            if job.with_sharpness:
                sharpness = measure_sharpness(read_patch(job.patchdir / f"{stem}.{PATCH_EXTENSION}"))
        except InputError as error:
            chunk.problems.append(str(error))
            continue
        except OSError as error:
            chunk.problems.append(f"{job.patchdir / stem}.{HASH_EXTENSION}: {error.strerror or error}")
            continue
        chunk.stems.append(stem)
        chunk.sides.append(len(bits))
        chunk.bits.append(bits.tobytes())
        chunk.sharpness.append(sharpness)
    return chunk


def join_chunks(dataset: Dataset, chunks: Sequence[Chunk], patchdir: Path, report: Report) -> Hashes:
    """Put the chunks of a dataset together, in alphabetical order whatever order they came in."""
    side = Counter(side for chunk in chunks for side in chunk.sides).most_common(1)[0][0]
    rows = []
    for chunk in chunks:
        for row in zip(chunk.stems, chunk.sides, chunk.bits, chunk.sharpness, strict=True):
            if row[1] == side:
                rows.append(row)
                continue
            report.fail(
                InputError(
                    patchdir / f"{row[0]}.{HASH_EXTENSION}",
                    f"a hash of side {side}, like most of {dataset.name}",
                    f"side {row[1]}",
                    "cut the patches of one dataset with one --hash_size",
                )
            )
    rows.sort()
    return Hashes(
        stems=[row[0] for row in rows],
        bits=np.frombuffer(b"".join(row[2] for row in rows), np.bool_).reshape(-1, side, side),
        sharpness=np.array([row[3] for row in rows]),
        complete=len(rows) == len(dataset.stems),
    )


def measure_sharpness(patch: npt.NDArray[np.uint8]) -> float:
    """Return the variance of a patch's Laplacian, which falls with blur (Pech-Pacheco et al., ICPR 2000)."""
    return float(cv2.Laplacian(patch, cv2.CV_64F).var())
