"""The patches and hashes in a directory: listed by section or by dataset, and the hashes read in parallel."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emcurate import naming
from emcurate.errors import InputError, describe_os_error
from emcurate.files import list_files
from emcurate.patches import table_hashes
from emcurate.patches.hashing import WordArray, pack_hashes, read_hash
from emcurate.patches.measures import BLUR, MEASURES, SATURATED, measure_patch, sharpness_of
from emcurate.patches.names import as_names, take_names
from emcurate.patches.shards import dataset_of_shard
from emcurate.patches.tables import TABLE_SUFFIX, is_measured, round_as_tables
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

PATCH_EXTENSION, HASH_EXTENSION = "tiff", "npy"

CHUNK_PATCHES = 2000  # hashes a job reads: a fraction of a second
SHARP_CHUNK_PATCHES = 100  # of which the pixels are read and measured too


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
    names : LargeStringArray of n
        The patches' names in alphabetical order.
    words : (n, words) uint64
        As `emcurate.patches.hashing.pack_hashes` packs them.
    side : int
        Of a hash, in bits.
    sharpness : (n,) float64, optional
        Where it was asked for.
    complete : bool
        Whether every patch of the dataset is among them.
    shards : Shards, optional
        Where any patch lies in one.
    saturated : (n,) float64, optional
        The share of wholly black or white pixels in each, where that is known of all.
    turned : (n, 8, words) uint64, optional
        The hashes of all orientations, the first of them `words`, where they were asked for and are known.
    """

    names: pa.LargeStringArray
    words: WordArray
    side: int
    sharpness: npt.NDArray[np.float64] | None = None
    complete: bool = True
    shards: table_hashes.Shards | None = None
    saturated: npt.NDArray[np.float64] | None = None
    turned: WordArray | None = None

    def take(self, places: npt.NDArray[np.int64]) -> Hashes:
        """Return this of the patches at some places, in order; of fewer than all it is not complete."""
        if len(places) == len(self.words):
            return self
        of_each = {name: getattr(self, name) for name in ("words", "sharpness", "saturated", "turned")}
        return replace(
            self,
            names=take_names(self.names, places),
            **{name: values[places] for name, values in of_each.items() if values is not None and len(values)},
            complete=False,
            shards=None if self.shards is None else self.shards.take(places),
        )

    @property
    def seen(self) -> WordArray:
        """What is compared: the hashes of all orientations where these are known, else `words`."""
        return self.words if self.turned is None else self.turned


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
    """What was read of a chunk: of each readable patch its name, its hash's side and words, and what was measured."""

    stems: list[str] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    words: list[bytes] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)
    saturated: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listed:
    """The datasets of a directory, by name; and names of others, of which something is there that cannot be used."""

    datasets: dict[str, Dataset]
    unusable: frozenset[str]


def list_datasets(patchdir: Path, with_sharpness: bool, report: Report, *, may_need_pixels: bool = False) -> Listed:
    """Return the datasets whose patches lie in a directory; what is there without what belongs to it is reported.

    Where a dataset has a table, that is believed, and its files are not looked at. `with_sharpness` asks for how sharp
    the patches are: of a dataset whose table does not tell, the files are looked at, and it counts as changed when only
    the pixels of a patch have. With `may_need_pixels` so counts a dataset without a table.
    """
    tables = _list_tables(patchdir, report)
    unmeasured = {n for n in tables if with_sharpness and not _is_measured(tables[n])}
    for name in unmeasured:
        del tables[name]
    unreadable = {name for name, dataset in tables.items() if dataset.table is None}
    stats: dict[str, dict[str, str]] = {HASH_EXTENSION: {}, PATCH_EXTENSION: {}}
    shards: dict[str, list[str]] = defaultdict(list)  # that no table tells of
    with os.scandir(patchdir) as entries:
        for entry in entries:
            stem, _, extension = entry.name.rpartition(".")
            owner, mark, _ = stem.partition(naming.MARK)
            if (stored := dataset_of_shard(entry.name)) is not None and stored not in tables:
                shards[stored].append(entry.name)
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
    for name, bare in sorted(shards.items()):
        more = f" ({len(bare):,} shards)" if len(bare) > 1 else ""
        wanted, advice = f"{name}{TABLE_SUFFIX} beside it, with the hashes", "run raw/crop_patches.py again"
        report.fail(InputError(patchdir / min(bare), wanted, f"none{more}", advice))
    alone = {stem.partition(naming.MARK)[0] for stem in hashes.keys() ^ patches.keys()}
    datasets = {name: dataset for name, dataset in tables.items() if name not in unreadable}
    for stem in sorted(hashes.keys() & patches.keys()):
        try:
            name = naming.parse_patch(stem).dataset
            if not stem.isascii():
                naming.check_utf8(stem)
        except naming.GrammarError as error:
            report.fail(f"{patchdir / stem}.{HASH_EXTENSION}: {error}; only patches of crop_patches.py belong here")
            continue
        dataset = datasets.setdefault(name, Dataset(name))
        dataset.stems.append(stem)
        dataset.stats.append(hashes[stem] + (patches[stem] if with_sharpness or may_need_pixels else ""))
    for name in sorted(unmeasured - datasets.keys()):
        wanted, found = "the measures of its patches, or files of these beside it", "neither"
        advice = "remove it and run raw/crop_patches.py again: patches stay as they are"
        report.fail(InputError(patchdir / f"{name}{TABLE_SUFFIX}", wanted, found, advice))
    return Listed(datasets, frozenset({*unreadable, *unmeasured, *shards, *alone} - datasets.keys()))


def read_hashes(
    datasets: Sequence[Dataset],
    patchdir: Path,
    with_sharpness: bool,
    report: Report,
    workers: Workers,
    *,
    with_turned: bool = False,
) -> Iterator[tuple[str, Hashes]]:
    """Yield the hashes of one dataset after another; those in files are read by the workers.

    `with_turned` asks for those of all orientations too, where tables have them.

    What cannot be read, or has another size than most of its dataset's, is reported and left out; so is a dataset of
    which nothing is left.
    """
    for dataset in datasets:
        if dataset.table is not None:
            try:
                # Here, since a worker would have to send back all that it reads.
                read = table_hashes.read_hashes(dataset.table, with_turned, with_sharpness)
            except InputError as error:
                report.fail(error)
                continue
            if len(read.words):
                yield (
                    dataset.name,
                    Hashes(
                        read.names,
                        read.words,
                        read.side,
                        read.sharpness,
                        shards=read.shards,
                        saturated=read.saturated,
                        turned=read.turned,
                    ),
                )
    at_once = SHARP_CHUNK_PATCHES if with_sharpness else CHUNK_PATCHES
    jobs = [
        ChunkJob(dataset.name, patchdir, tuple(dataset.stems[start : start + at_once]), with_sharpness)
        for dataset in datasets
        for start in range(0, len(dataset.stems), at_once)
    ]
    missing = Counter(job.dataset for job in jobs)
    of_name = {dataset.name: dataset for dataset in datasets}
    chunks: dict[str, list[Chunk]] = defaultdict(list)
    for job, chunk in workers.run(read_chunk, jobs, report, unit="chunk"):
        report.fail_all(chunk.problems)
        chunks[job.dataset].append(chunk)
        missing[job.dataset] -= 1
        if not missing[job.dataset]:
            yield from join_chunks(of_name[job.dataset], chunks.pop(job.dataset), patchdir, report)
    for name, some in chunks.items():  # those of which a chunk was lost
        yield from join_chunks(of_name[name], some, patchdir, report)


def _list_tables(patchdir: Path, report: Report) -> dict[str, Dataset]:
    """Return the datasets that have a table, without reading it; one that cannot be read is reported, and left out."""
    notes = Notes(patchdir, TABLE_SUFFIX)
    found = {}
    for path in list_files(patchdir, [TABLE_SUFFIX]):
        name = path.name.removesuffix(TABLE_SUFFIX)
        found[name] = Dataset(name)
        try:
            notes.refuse_altered(path)  # rows that are missing or doubled would be missed nowhere
            found[name] = Dataset(name, stats=[notes.fingerprint(path)], table=path)
        except InputError as error:
            report.fail(error)
        except OSError as error:
            report.fail(describe_os_error(error, path))
    return found


def _is_measured(dataset: Dataset) -> bool:
    """Return whether a dataset's table has the measures of its patches; so do those that reading will report."""
    with contextlib.suppress(InputError, OSError):
        return dataset.table is None or is_measured(dataset.table)
    return True


def read_chunk(job: ChunkJob) -> Chunk:
    """Read the hashes of some patches, and how sharp they are if that is wanted."""
    if job.with_sharpness:
        from emcurate.patches.reading import read_patch  # here, since most runs need no pixels

    chunk = Chunk()
    for stem in job.stems:
        try:
            bits = read_hash(job.patchdir / f"{stem}.{HASH_EXTENSION}")
            sharpness, saturated = 0.0, math.nan
            if job.with_sharpness:
                sharpness, saturated = measure_pixels(read_patch(job.patchdir / f"{stem}.{PATCH_EXTENSION}"))
        except InputError as error:
            chunk.problems.append(str(error))
            continue
        except OSError as error:
            chunk.problems.append(f"{job.patchdir / stem}.{HASH_EXTENSION}: {error.strerror or error}")
            continue
        chunk.stems.append(stem)
        chunk.sides.append(len(bits))
        chunk.words.append(pack_hashes(bits[None]).tobytes())
        chunk.sharpness.append(sharpness)
        chunk.saturated.append(saturated)
    return chunk


def join_chunks(
    dataset: Dataset, chunks: Sequence[Chunk], patchdir: Path, report: Report
) -> Iterator[tuple[str, Hashes]]:
    """Yield the chunks of a dataset as one, in alphabetical order whatever order they came in, if anything is left."""
    chunks = sorted(chunks, key=lambda chunk: chunk.stems[:1])
    sides = Counter(side for chunk in chunks for side in chunk.sides)
    if not sides:
        return
    side = sides.most_common(1)[0][0]
    rows = []
    for chunk in chunks:
        for row in zip(chunk.stems, chunk.sides, chunk.words, chunk.sharpness, chunk.saturated, strict=True):
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
    saturated = np.array([row[4] for row in rows])
    yield (
        dataset.name,
        Hashes(
            as_names(row[0] for row in rows),
            np.frombuffer(b"".join(row[2] for row in rows), np.uint64).reshape(len(rows), -1),
            side,
            np.array([row[3] for row in rows]),
            complete=len(rows) == len(dataset.stems),
            saturated=None if np.isnan(saturated).any() else saturated,
        ),
    )


def measure_pixels(patch: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return how sharp a patch is, and which share of its pixels is wholly black or white.

    Sharp is 1 less scikit-image's `blur_effect`, which is 1 where nothing is sharp; of a patch too narrow to tell it is
    0.
    """
    found = round_as_tables(np.array([list(measure_patch(patch).values())]))[0]
    blur, saturated = (found[MEASURES.index(name)] for name in (BLUR, SATURATED))
    return float(sharpness_of(blur)), float(saturated)
