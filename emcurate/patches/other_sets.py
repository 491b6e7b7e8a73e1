"""Another set of images or patches, such as a benchmark's, hashed like the patches that are compared with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from emcurate import naming
from emcurate.errors import InputError, describe_os_error
from emcurate.files import describe_content, list_files
from emcurate.outputs import digest_bytes, fingerprint_tree
from emcurate.patches.datasets import HASH_EXTENSION, list_datasets, read_hashes
from emcurate.patches.hash_settings import HashSettings, read_settings
from emcurate.patches.hashing import WordArray, count_words, pack_hashes
from emcurate.patches.names import as_names
from emcurate.patches.tables import TABLE_SUFFIX
from emcurate.running.jobs import Workers
from emcurate.running.ledger_file import LEDGER_DIRECTORY
from emcurate.running.report import Report

# Where curate.py has patches, in its OUT.
PATCHES_BELOW = "crop_patches"

CHUNK_IMAGES = 10  # read and hashed in a job: a fraction of a second

SMALLEST = 1  # side of a patch, in pixels: of a benchmark's small images none is left out


@dataclass(frozen=True)
class OtherSet:
    """The patches of another set.

    Attributes
    ----------
    directory : Path
    is_patches : bool
        Whether it holds patches and hashes of crop_patches.py; images otherwise, which are cut on the same grid.
    names : LargeStringArray of n
        Of the patches; or the path of each's image from `directory` on, with slashes.
    places : (n, 2) int32
        Row and column of a patch in its image, in pixels; -1 where its name says so.
    words : (n, words) uint64
    """

    directory: Path
    is_patches: bool
    names: pa.LargeStringArray
    places: npt.NDArray[np.int32]
    words: WordArray

    def __len__(self) -> int:
        return len(self.words)


def find_patches_in(directory: Path) -> Path | None:
    """Return the directory itself, or that in it of crop_patches.py, if it has patches and hashes; None for images."""
    for place in (directory, directory / PATCHES_BELOW):
        if place.is_dir() and (list_files(place, [TABLE_SUFFIX]) or _has_hashes(place)):
            return place
    return None


def _has_hashes(directory: Path) -> bool:
    with os.scandir(directory) as entries:
        return any(entry.name.endswith(f".{HASH_EXTENSION}") and naming.MARK in entry.name for entry in entries)


def fingerprint_other(directory: Path) -> str:
    """Return what changes when any image, or any patch, of another set does.

    Raises
    ------
    InputError
        If it cannot be looked through.
    """
    try:
        if (patchdir := find_patches_in(directory)) is None:
            return fingerprint_tree(directory)
        datasets = list_datasets(patchdir, False, Report("")).datasets.values()
    except OSError as error:
        raise describe_os_error(error, directory) from None
    return digest_bytes("".join(dataset.fingerprint(patchdir) for dataset in datasets).encode())


def read_other(directory: Path, how: HashSettings, report: Report, workers: Workers) -> OtherSet:
    """Return the patches of another set; what cannot be read is reported.

    Images are looked for at any depth. Each is cut on the grid of crop_patches.py, so that one no larger than a patch
    is one patch; those without two different pixels say nothing and are left out.

    Raises
    ------
    InputError
        If it has none, or its patches were hashed in another way.
    """
    patchdir = find_patches_in(directory)
    found = _read_images(directory, how, report, workers) if patchdir is None else _read_patches(patchdir, how, report)
    if not len(found):
        advice = "name a directory of images, or the PATCHDIR that crop_patches.py wrote (for volumes, too)"
        raise InputError(directory, "images or patches to compare with", describe_content(directory), advice)
    return found


def _read_patches(patchdir: Path, how: HashSettings, report: Report) -> OtherSet:
    said = read_settings(patchdir)
    if said != how:
        raise InputError(patchdir, f"patches cut with {how}", f"patches cut with {said}", "cut them so")
    datasets = list(list_datasets(patchdir, False, report).datasets.values())
    names, words = [], []
    for name, read in read_hashes(datasets, patchdir, False, report, Workers(1)):
        if read.side != how.hash_size:
            found = f"a side of {read.side} in {name}"
            report.fail(InputError(patchdir, f"hashes of side {how.hash_size}", found, "cut its patches again"))
            continue
        names.append(read.names)
        words.append(read.words)
    joined = pa.concat_arrays(names) if names else as_names([])
    nothing = np.zeros((0, count_words(how.hash_size)), np.uint64)
    places = np.full((len(joined), 2), -1, np.int32)
    return OtherSet(patchdir, True, joined, places, np.concatenate([nothing, *words]))


@dataclass(frozen=True)
class ImageJob:
    """Images to be cut and hashed."""

    path: Path
    images: tuple[Path, ...]
    how: HashSettings


@dataclass
class ImagesHashed:
    """What came of a job: of each patch its image's place in the job, its row and column, and its hash."""

    images: npt.NDArray[np.int64]
    places: npt.NDArray[np.int32]
    words: WordArray
    blank: int
    problems: list[str]


def _read_images(directory: Path, how: HashSettings, report: Report, workers: Workers) -> OtherSet:
    paths = _list_images(directory, report)
    parts = (tuple(paths[start : start + CHUNK_IMAGES]) for start in range(0, len(paths), CHUNK_IMAGES))
    jobs = [ImageJob(some[0], some, how) for some in parts]
    found: dict[Path, ImagesHashed] = {}
    for job, hashed in workers.run(hash_images, jobs, report, unit="chunk"):
        report.fail_all(hashed.problems)
        found[job.path] = hashed
    if blank := sum(hashed.blank for hashed in found.values()):
        report.count("blank patches to compare with, left out", blank)
    done = [(job, found[job.path]) for job in jobs if job.path in found]
    names = as_names(
        _spell(job.images[image].relative_to(directory)) for job, hashed in done for image in hashed.images.tolist()
    )
    nothing = ImagesHashed(
        np.zeros(0, np.int64), np.zeros((0, 2), np.int32), np.zeros((0, count_words(how.hash_size)), np.uint64), 0, []
    )
    some = [nothing, *(hashed for _, hashed in done)]
    places, words = (np.concatenate([getattr(each, name) for each in some]) for name in ("places", "words"))
    return OtherSet(directory, False, names, places, words)


def _spell(path: Path) -> str:
    return path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _list_images(directory: Path, report: Report) -> list[Path]:
    """Return the images at any depth, in order; other files are told of by their number and the first."""
    from emcurate.images.reading import IMAGE_SUFFIXES  # here, since few runs compare with other sets

    images: list[Path] = []
    others: list[Path] = []
    for place, below, files in os.walk(directory):
        below[:] = sorted(name for name in below if name != LEDGER_DIRECTORY)
        for name in sorted(files):
            (images if name.lower().endswith(IMAGE_SUFFIXES) else others).append(Path(place, name))
    if others:
        report.warn(
            f"{directory}: {len(others):,} files, such as {others[0].name}, are no images by their extensions and are "
            "not compared with; of volumes give the PATCHDIR that crop_patches.py --from-volumes --hashes-only makes"
        )
    return images


def hash_images(job: ImageJob) -> ImagesHashed:
    """Cut images on the grid and hash the patches."""
    from emcurate.images.pixels import Rescale, to_uint8  # here, as above
    from emcurate.images.reading import read_image
    from emcurate.patches.cutting import list_places
    from emcurate.patches.section_hashes import hash_places

    how = job.how
    done = ImagesHashed(np.zeros(0, np.int64), np.zeros((0, 2), np.int32), np.zeros(0, np.uint64), 0, [])
    numbers, places, words = [], [], []
    for number, path in enumerate(job.images):
        try:
            pixels = to_uint8(read_image(path), Rescale(), path)
        except InputError as error:
            done.problems.append(str(error))
            continue
        grid = list_places(*pixels.shape, how.crop_size, SMALLEST)
        is_blank = np.array([np.ptp(pixels[y : y + height, x : x + width]) == 0 for y, x, height, width in grid])
        done.blank += int(is_blank.sum())
        grid = grid[~is_blank]
        if not len(grid):
            continue
        numbers.append(np.full(len(grid), number))
        places.append(grid[:, :2])
        words.append(pack_hashes(hash_places(pixels, grid, how.crop_size, how.hash_size, how.kind)))
    nothing = np.zeros((0, count_words(how.hash_size)), np.uint64)
    done.images, done.places = np.concatenate([done.images, *numbers]), np.concatenate([done.places, *places])
    done.words = np.concatenate([nothing, *words])
    return done


@dataclass(frozen=True)
class ReadOther:
    """Reads patches of images by paths that stand for them.

    Attributes
    ----------
    patches : mapping of Path to (image, row, column)
    crop_size : int
    """

    patches: Mapping[Path, tuple[Path, int, int]]
    crop_size: int

    def __call__(self, path: Path) -> npt.NDArray[np.uint8]:
        """Return the pixels of a patch; raises `InputError`."""
        from emcurate.images.pixels import Rescale, to_uint8
        from emcurate.images.reading import read_image

        image, row, column = self.patches[path]
        pixels = to_uint8(read_image(image), Rescale(), image)
        return pixels[row : row + self.crop_size, column : column + self.crop_size]
