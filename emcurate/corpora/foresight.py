"""What would come of the inputs of a run, told by their headers: sections, patches, bytes."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emcurate import naming
from emcurate.corpora.images import claim_names, find_images
from emcurate.corpora.videos import list_videos, open_video
from emcurate.errors import InputError
from emcurate.images.cleaning import Cleaning, plan_section
from emcurate.images.reading import peek_image
from emcurate.images.resampling import Scale, find_factors, in_plane, resampled_shape
from emcurate.images.sections import count_bytes
from emcurate.patches.cutting import list_places
from emcurate.patches.grid import count_patches
from emcurate.patches.hashing import hash_npy
from emcurate.running.claims import refuse_bad_names, refuse_odd_files
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.volumes.cut_settings import HowToCut
from emcurate.volumes.section_source import DirectoryOfVolumes
from emcurate.volumes.sections import HOW_TO_GIVE, section_indices

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Grid:
    """How sections are cut into patches.

    Parameters
    ----------
    crop_size, min_size : int
        Sides of a full patch, and of the smallest that is kept, in pixels.
    hash_size : int
        Of a hash that becomes a file beside each patch; 0 where none does.
    """

    crop_size: int
    min_size: int
    hash_size: int


@dataclass(frozen=True)
class Foreseen:
    """What is known of one input, and what would come of it.

    Attributes
    ----------
    path : str
    dataset : str
    size, dtype, pixel_size, planes : str
        In words.
    sections, patches, small : int
        `small` are the patches that would be left out for their size.
    section_bytes, patch_bytes : int
        Of the sections' files, 0 where none is written; and of those of all patches.
    """

    path: str
    dataset: str
    size: str
    dtype: str
    pixel_size: str
    planes: str
    sections: int
    patches: int
    small: int
    section_bytes: int
    patch_bytes: int


@dataclass(frozen=True)
class PeekJob:
    """One image of which only the header is read."""

    path: Path
    sidecar: Path | None
    how: Cleaning


def foresee_image(job: PeekJob) -> tuple[tuple[int, int], str, str, tuple[int, int]]:
    """Return an image's size, type and pixel size, and the size of its section."""
    shape, dtype = peek_image(job.path)
    plan = plan_section(job.path, shape, job.sidecar, job.how)
    return shape, dtype.name, spell_sizes(plan.calibration.size_nm), plan.shape


def foresee_images(
    imdir: Path, prefer: str | None, how: Cleaning, grid: Grid, report: Report, workers: Workers
) -> list[Foreseen]:
    """Return what would come of the images of a directory; what would be left out is told to the report."""
    images, sidecars = find_images(imdir, prefer, report)
    claims = {path: claim_names(path, section) for path, section in images.items()}
    usable = refuse_odd_files(refuse_bad_names(claims, report), report)
    jobs = [PeekJob(path, sidecars.get(path), how) for path in usable]
    found = {}
    for job, (shape, dtype, size, section) in workers.run(foresee_image, jobs, report, unit="image"):
        counts = _cut({section: 1}, grid, written=True)
        found[job.path] = Foreseen(
            str(job.path), images[job.path].dataset, spell_shape(shape), dtype, size, "", *counts
        )
    return [found[path] for path in usable if path in found]


def foresee_volumes(material: DirectoryOfVolumes, grid: Grid, *, writes_sections: bool) -> list[Foreseen]:
    """Return what would come of volumes that are opened; sections too thin for patches are only written with all."""
    cut: dict[str, Counter[tuple[int, int]]] = {name: Counter() for name in material.volumes}
    planes: dict[str, set[int]] = {name: set() for name in material.volumes}
    for stem, section in material.sections.items():
        assert isinstance(section, naming.VolumeSection)
        cut[section.dataset][material.size(stem)] += 1
        planes[section.dataset].add(section.plane)
    found = []
    for name, volume in material.volumes.items():
        thin = Counter[tuple[int, int]]()
        for number, size in material.thin[name]:
            thin[size] += number
        sections, patches, small, section_bytes, patch_bytes = _cut(cut[name], grid, written=writes_sections)
        extra = _cut(thin, grid, written=writes_sections)
        found.append(
            Foreseen(
                str(volume.path),
                name,
                spell_shape(volume.shape),
                volume.dtype.name,
                spell_sizes(volume.voxel_size_nm),
                " ".join(map(str, sorted(planes[name]))) or "none",
                sections + (extra[0] if writes_sections else 0),
                patches,
                small + extra[2],
                section_bytes + extra[3],
                patch_bytes,
            )
        )
    return found


@dataclass(frozen=True)
class FramesJob:
    """One video of which only what it announces is read."""

    path: Path
    how: HowToCut
    scale: Scale


def foresee_video(job: FramesJob) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return how many frames a video announces, their height and width, and those of its sections."""
    with open_video(job.path) as video:
        if not video.frames:
            found, advice = "one that does not", "run preprocess/vid2stack.py to find out"
            raise InputError(job.path, "a video that says how many frames it has", found, advice)
        size = None if job.how.voxel_size is None else in_plane(job.how.voxel_size, 0)
        factors = find_factors(job.scale, size, video.shape, job.path, HOW_TO_GIVE)
        return (video.frames, *video.shape), resampled_shape(video.shape, factors)


def foresee_videos(
    viddir: Path,
    prefer: str | None,
    how: HowToCut,
    scale: Scale,
    grid: Grid,
    report: Report,
    *,
    writes_sections: bool,
) -> list[Foreseen]:
    """Return what would come of the videos of a directory, as far as they announce it."""
    videos = list_videos(viddir, prefer, report)
    names = {path: naming.strip_extension(path.name) for path in videos}
    usable = refuse_odd_files(refuse_bad_names({path: [(name, path)] for path, name in names.items()}, report), report)
    found = []
    # Here, not by workers: OpenCV takes longer to load than headers to read.
    jobs = [FramesJob(path, how, scale) for path in usable]
    for job, (shape, section) in Workers(1).run(foresee_video, jobs, report, unit="video"):
        sections = sum(map(len, section_indices(shape[0], how.spacing)))
        counts = _cut({section: sections}, grid, written=writes_sections)
        size = spell_sizes(how.voxel_size)
        found.append(Foreseen(str(job.path), names[job.path], spell_shape(shape), "uint8", size, "0", *counts))
    return found


def spell_shape(shape: Iterable[int]) -> str:
    """Return the sides of an image or volume in words."""
    return " x ".join(f"{side:,}" for side in shape)


def spell_sizes(sizes_nm: Iterable[float] | None) -> str:
    """Return the sides of a pixel or voxel in words."""
    return UNKNOWN if sizes_nm is None else " x ".join(f"{size:.4g}" for size in sizes_nm)


def _cut(sizes: Mapping[tuple[int, int], int], grid: Grid, *, written: bool) -> tuple[int, int, int, int, int]:
    """Return the sections, patches and patches left out of sections of some sizes, and the bytes of their files."""
    sections = patches = small = section_bytes = patch_bytes = 0
    for (height, width), number in sizes.items():
        places = list_places(height, width, grid.crop_size, grid.min_size)
        sections += number
        patches += number * len(places)
        small += number * (count_patches(height, width, grid.crop_size) - len(places))
        section_bytes += number * count_bytes(height, width) if written else 0
        patch_bytes += number * _count_patch_bytes(height, width, grid)
    return sections, patches, small, section_bytes, patch_bytes


@functools.lru_cache
def _count_patch_bytes(height: int, width: int, grid: Grid) -> int:
    """Return the bytes of the files of a section's patches, and of their hashes'."""
    sides = Counter((int(h), int(w)) for _, _, h, w in list_places(height, width, grid.crop_size, grid.min_size))
    of_hash = len(hash_npy(np.zeros((grid.hash_size, grid.hash_size), np.bool_))) if grid.hash_size else 0
    return sum(number * (count_bytes(h, w) + of_hash) for (h, w), number in sides.items())
