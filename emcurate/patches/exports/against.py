"""Which patches of a listing are near-duplicates of another set's, by the hashes of their pixels."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emcurate.errors import InputError
from emcurate.patches.columns import as_column, in_one
from emcurate.patches.hash_settings import HashSettings, read_settings
from emcurate.patches.hashing import WordArray, compute_hash, count_words, pack_hashes
from emcurate.patches.leaks import LEAK_COLUMNS, Leaks, LeaksShown, find_leaks
from emcurate.patches.listing import Listing, LookJob, LookJobs, Seen
from emcurate.patches.other_sets import read_other
from emcurate.patches.reading import read_patch
from emcurate.running.jobs import Workers
from emcurate.running.report import Report


@dataclass(frozen=True)
class Against:
    """What an export is compared with: a directory, up to how many bits, and whether what is near is left out."""

    directory: Path
    distance: int
    drops: bool


def find_listed_leaks(listing: Listing, seen: Seen, against: Against, report: Report, workers: Workers) -> Leaks:
    """Return which readable patches are near-duplicates of another set's; counts go to the report.

    Raises
    ------
    InputError
        If there is no other set, or patches of the listing were hashed in several ways.
    """
    ways = {directory: read_settings(directory) for directory in listing.directories if directory.is_dir()}
    if len(set(ways.values())) > 1:
        found = "; ".join(f"{how} in {directory}" for directory, how in ways.items())
        raise InputError(
            listing.paths.directory, "patches cut with one size, for --against", found, "export them apart"
        )
    how = next(iter(ways.values()), HashSettings())
    other = read_other(against.directory, how, report, workers)
    words, is_hashed = hash_listed(listing, how, report, workers)
    rows = np.flatnonzero(is_hashed & seen.readable)
    some = find_leaks(in_one(listing.table["patch"]), words[rows], other, against.distance, workers.cores)
    leaks = Leaks(some.patches, rows[some.rows], other, some.place, some.bits)
    report.count("patches of the other set", len(other))
    report.count("leaks", len(leaks))
    shown = LeaksShown(0)
    shown.add(leaks.bits, [])
    report.notes += shown.rows()
    return leaks


def hash_listed(
    listing: Listing, how: HashSettings, report: Report, workers: Workers
) -> tuple[WordArray, npt.NDArray[np.bool_]]:
    """Return the hashes of all patches of a listing, (n, words) uint64, and which could be read."""
    words = np.zeros((len(listing), count_words(how.hash_size)), np.uint64)
    is_hashed = np.zeros(len(listing), np.bool_)
    hash_these = functools.partial(hash_some, how=how)
    for job, (found, good) in workers.run(hash_these, LookJobs(listing), report, unit="chunk"):
        words[job.rows[good]], is_hashed[job.rows[good]] = found, True
    return words, is_hashed


def hash_some(job: LookJob, how: HashSettings) -> tuple[WordArray, npt.NDArray[np.int64]]:
    """Return the hashes of those of a job's patches that can be read, and which these are."""
    hashes, good = [], []
    for number, path in enumerate(job.paths):
        try:
            hashes.append(compute_hash(read_patch(path), how.crop_size, how.hash_size, how.kind))
        except (InputError, OSError):
            continue
        good.append(number)
    nothing = np.zeros((0, count_words(how.hash_size)), np.uint64)
    return pack_hashes(np.stack(hashes)) if hashes else nothing, np.array(good, np.int64)


def describe_leaks(leaks: Leaks, rows: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
    """Return what is known of leaks of some patches of the listing, by column; null of those that are none."""
    at = np.searchsorted(leaks.rows, rows)
    at = np.minimum(at, max(0, len(leaks) - 1))
    is_none = np.ones(len(rows), np.bool_) if not len(leaks) else leaks.rows[at] != rows
    where = as_column(at, pa.int64(), is_none)
    names = leaks.other.names.cast(pa.string()).take(as_column(leaks.place, pa.int64()))
    bits = as_column(leaks.bits.astype(np.int32), pa.int32())
    return dict(zip(LEAK_COLUMNS, (names.take(where), bits.take(where)), strict=True))
