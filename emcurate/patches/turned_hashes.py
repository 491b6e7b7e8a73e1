"""The hashes of patches in all orientations, computed of their pixels where their table has none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.patches.datasets import PATCH_EXTENSION, Hashes
from emcurate.patches.hash_settings import HashSettings, read_settings
from emcurate.patches.hashing import WordArray, pack_hashes
from emcurate.patches.names import take_names
from emcurate.patches.orientations import ORIENTATIONS, hash_orientations
from emcurate.running.jobs import Workers
from emcurate.running.made import MadeWhenAsked
from emcurate.running.report import Report

CHUNK_PATCHES = 500  # hashed in a job: a second or so


@dataclass(frozen=True)
class TurnJob:
    """Patches whose pixels are to be hashed: their files, or members of shards, and where in the dataset they begin."""

    path: Path
    patches: tuple[str, ...]
    start: int
    how: HashSettings


class TurnJobs(MadeWhenAsked[TurnJob]):
    """The jobs of a dataset, each made when it is asked for: names of millions are no Python strings at once."""

    def __init__(self, read: Hashes, patchdir: Path, how: HashSettings) -> None:
        self._read, self._patchdir, self._how = read, patchdir, how

    def __len__(self) -> int:
        return -(-len(self._read.words) // CHUNK_PATCHES)

    def make(self, number: int) -> TurnJob:
        """Return a job."""
        start = number * CHUNK_PATCHES
        places = np.arange(start, min(start + CHUNK_PATCHES, len(self._read.words)))
        names = take_names(self._read.names, places)
        if self._read.shards is not None:
            names = self._read.shards.put_before(names, places)
        patches = tuple(f"{name}.{PATCH_EXTENSION}" for name in names.to_pylist())
        return TurnJob(self._patchdir, patches, start, self._how)


def with_orientations(
    found: Iterable[tuple[str, Hashes]], patchdir: Path, report: Report, workers: Workers
) -> Iterator[tuple[str, Hashes]]:
    """Yield datasets with the hashes of all orientations; patches that cannot be read are reported and left out.

    Raises
    ------
    InputError
        If it is not known how the patches were hashed.
    """
    how = None
    for name, read in found:
        if read.turned is not None:
            yield name, read
            continue
        how = read_settings(patchdir) if how is None else how
        turned = np.zeros((len(read.words), ORIENTATIONS, read.words.shape[1]), np.uint64)
        is_there = np.zeros(len(read.words), np.bool_)
        jobs = TurnJobs(read, patchdir, replace(how, hash_size=read.side))
        for job, (words, good, problems) in workers.run(hash_turned, jobs, report, unit="chunk"):
            report.fail_all(problems)
            turned[job.start + good], is_there[job.start + good] = words, True
        is_same = (turned[:, 0] == read.words).all(axis=1)
        if (wrong := np.flatnonzero(is_there & ~is_same)).size:
            example = patchdir / f"{read.names[int(wrong[0])].as_py()}.{PATCH_EXTENSION}"
            found_there = f"another hash of {len(wrong):,} patches of {name}"
            report.fail(InputError(example, f"pixels with the hash noted ({how})", found_there, _CUT_AGAIN))
        if (good := np.flatnonzero(is_there & is_same)).size:
            yield name, replace(read.take(good), turned=turned[good])


_WANTED = "patches, or their hashes in all orientations in the table"
_CUT_AGAIN = "cut them again with crop_patches.py --orientations"


def hash_turned(job: TurnJob) -> tuple[WordArray, npt.NDArray[np.int64], list[str]]:
    """Hash patches in all orientations.

    Returns
    -------
    words : (n, 8, words) uint64
    good : (n,) int64
        Which of the job's patches could be read.
    problems : list of str
        What is wrong with the others; said once of all that have no file, such as those that were only hashed.
    """
    from emcurate.patches.reading import patch_exists, read_patch  # here, since most runs need no pixels

    found, good, problems = [], [], []
    only_hashed = str(InputError(job.path, _WANTED, "patches that were only hashed as they are", _CUT_AGAIN))
    for number, name in enumerate(job.patches):
        try:
            patch = read_patch(job.path / name)
        except InputError as error:
            problem = str(error) if patch_exists(job.path / name) else only_hashed
            problems += [problem] if problem not in problems else []
            continue
        found.append(pack_hashes(hash_orientations(patch, job.how.crop_size, job.how.hash_size, job.how.kind)))
        good.append(number)
    words = np.stack(found) if found else np.zeros((0, ORIENTATIONS, 1), np.uint64)
    return words, np.array(good, np.int64), problems
