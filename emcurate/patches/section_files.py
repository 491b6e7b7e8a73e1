"""Sections that lie in a directory, as cleanup2d.py and cross_section3d.py write them, for patches to be cut from."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.errors import InputError, describe_os_error
from emcurate.files import check_regular, describe_content, list_entries
from emcurate.images.origins import IMAGE, VOLUME, Origin
from emcurate.images.resampling import Factors, Scale, find_factors, resample, resampled_shape
from emcurate.images.sections import find_own_shape, read_section, read_size
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.running.sources import Source

SECTION_SUFFIXES = (".tiff", ".tif")

# What to do where the pixel size of a section is unknown.
HOW_TO_GIVE = "make sections with raw/cleanup2d.py --image-pixel-size or raw/cross_section3d.py --voxel-size"

# Sections that one job cuts at most: a second or two of work.
SECTIONS_A_JOB = 32

# Pixels of sections up to which threads cut them; see `emcurate.volumes.slabs`.
THREADED_PIXELS = 1 << 29

# Jobs a worker gets of one dataset at least, if there are enough sections, so that all end at about the same time.
JOBS_A_WORKER = 4


@dataclass(frozen=True)
class SectionFiles:
    """Some sections' files, read one by one, each brought to another pixel size where factors are given."""

    paths: tuple[Path, ...]
    factors: tuple[Factors | None, ...]

    def sections(self) -> Iterator[tuple[naming.Section, npt.NDArray[np.uint8] | InputError]]:
        """Yield each section's name and pixels, (height, width) uint8, or why it cannot be read."""
        for path, factors in zip(self.paths, self.factors, strict=True):
            pixels: npt.NDArray[np.uint8] | InputError
            try:
                pixels = resample(read_section(path), factors)
            except InputError as error:
                pixels = error
            except OSError as error:
                pixels = describe_os_error(error, path)
            yield naming.parse_section(path.stem), pixels


class DirectoryOfSections:
    """The sections in a directory.

    Parameters
    ----------
    imdir : Path
    report : Report
        Receives the files that are no sections by their names, or not files, and what cannot be resampled.
    scale : Scale
        The pixel size that they are brought to.

    Attributes
    ----------
    sections : dict of str to naming.Section
        By their names on disk without the extension.
    is_renewed : bool
        A group of images may grow, and its table with it.

    Raises
    ------
    InputError
        If there are none.
    """

    is_renewed = True
    named = None  # a directory shows what there is

    def __init__(self, imdir: Path, report: Report, scale: Scale = Scale()) -> None:
        self.root = imdir
        self._scale = scale
        self.known_limits: dict[str, tuple[float, float]] = {}  # what cut the sections noted them
        self.thin: dict[str, list[tuple[int, tuple[int, int]]]] = {}  # no section that is there is left out
        self._paths = _list_sections(imdir, report)
        self.sections = {stem: naming.parse_section(stem) for stem in self._paths}
        if not self.sections and not report.failures:
            advice = "run raw/cleanup2d.py or raw/cross_section3d.py first"
            raise InputError(imdir, "sections (.tiff)", describe_content(imdir), advice)
        notes = Notes(imdir)
        self._fingerprints: dict[str, str] = {}
        for stem, path in self._paths.items():
            try:
                self._fingerprints[stem] = notes.fingerprint(path)
            except InputError as error:
                report.fail(error)
            except OSError as error:
                report.fail(describe_os_error(error, path))
        self.sections = {stem: self.sections[stem] for stem in self._fingerprints}
        self._origins = {
            stem: _trace_origin(self._paths[stem], section, notes) for stem, section in self.sections.items()
        }
        self._factors: dict[str, Factors | None] = {}
        if scale.pixel_size_nm is not None:
            self._find_factors(report)

    def _find_factors(self, report: Report) -> None:
        """Find how much coarser each section becomes; those that cannot are left out.

        These are reported, the sections of a volume once.
        """
        unfit: dict[str, list[InputError]] = defaultdict(list)
        whose = {
            stem: section.dataset if isinstance(section, naming.VolumeSection) else stem
            for stem, section in self.sections.items()
        }
        for stem, section in self.sections.items():
            origin = self._origins[stem]
            rows, columns, _ = origin.sizes(section)
            size = None if rows is None or columns is None else (rows, columns)
            try:
                shape = read_size(self._paths[stem])
                self._factors[stem] = find_factors(self._scale, size, shape, self._paths[stem], HOW_TO_GIVE)
            except InputError as error:
                unfit[whose[stem]].append(error)
                continue
            if self._factors[stem] is not None:
                self._origins[stem] = replace(origin, pixel_size_nm=self._scale.pixel_size_nm)
        for errors in unfit.values():
            first, more = errors[0], len(errors) - 1
            found = first.found + (f" (and {more:,} more sections of that dataset)" if more else "")
            report.fail(InputError(first.path, first.expected, found, first.advice))
        self.sections = {stem: section for stem, section in self.sections.items() if whose[stem] not in unfit}

    def source(self, stem: str) -> Source:
        """Return a section as the ledger sees it."""
        section = self.sections[stem]
        is_part = isinstance(section, naming.VolumeSection)
        fingerprint = self._fingerprints[stem]
        return Source(
            self._paths[stem], fingerprint, section.dataset, owner=self.root, is_part=is_part, is_read_on=True
        )

    def state(self, stem: str) -> str:
        """Return what changes when a section does, or what is known of where it came from."""
        resampled = f" at {self._factors[stem]}" if self._factors.get(stem) else ""
        return f"{self._fingerprints[stem]} {self._origins[stem]}{resampled}"

    def size(self, stem: str) -> tuple[int, int]:
        """Return a section's height and width in pixels."""
        return resampled_shape(read_size(self._paths[stem]), self._factors.get(stem))

    def ready(self, datasets: Mapping[str, Sequence[str]], report: Report, workers: Workers) -> Iterator[list[str]]:
        """Yield datasets that can be cut now: here all of them."""
        yield list(datasets)

    def suits_threads(self, datasets: Collection[str]) -> bool:
        """Return whether datasets are sooner cut by threads: of a few sections, none of which has to be decoded.

        What decodes images may end its process.
        """
        pixels = 0.0
        for stem, section in self.sections.items():
            if section.dataset in datasets:
                try:
                    height, width = find_own_shape(self._paths[stem]) or (math.inf, math.inf)
                except OSError:
                    return False  # reading it says why
                pixels += height * width
                if pixels > THREADED_PIXELS:
                    return False
        return True

    def divide(self, stems: Sequence[str], workers: Workers) -> Iterator[Sequence[str]]:
        """Divide sections of one dataset among jobs."""
        count = max(1, min(SECTIONS_A_JOB, len(stems) // (workers.cores * JOBS_A_WORKER)))
        for start in range(0, len(stems), count):
            yield stems[start : start + count]

    def pieces(self, stems: Sequence[str]) -> tuple[SectionFiles, ...]:
        """Return what yields the pixels of some sections of one dataset."""
        paths = tuple(self._paths[stem] for stem in stems)
        return (SectionFiles(paths, tuple(self._factors.get(stem) for stem in stems)),)

    def details(self, dataset: str) -> dict[str, Any]:
        """Return what the ledger keeps of a dataset."""
        return {}

    def origin(self, stem: str) -> Origin:
        """Return where a section came from, as far as its directory knows."""
        return self._origins[stem]


def _trace_origin(path: Path, section: naming.Section, notes: Notes) -> Origin:
    kind = VOLUME if isinstance(section, naming.VolumeSection) else IMAGE
    line = notes.origin(path)
    if line is None:
        return Origin(kind)
    size, limits = line.details.get("voxel_size_nm"), line.details.get("limits")
    return Origin(
        line.details.get("kind", kind),
        line.source,
        line.fingerprint,
        size and (size[0], size[1], size[2]),
        limits and (limits[0], limits[1]),
        line.details.get("pixel_size_nm"),
        line.details.get("region_of"),
    )


def _list_sections(imdir: Path, report: Report) -> dict[str, Path]:
    """Return the sections of a directory by stem; files whose names do not parse are reported."""
    sections: dict[str, Path] = {}
    entries = [path for path in list_entries(imdir) if path.suffix.lower() in SECTION_SUFFIXES]
    for path in entries:
        try:
            naming.parse_section(path.stem)
        except naming.GrammarError:
            expected = f"a section's name such as 'name{naming.MARK}2d.tiff'"
            advice = "make sections with raw/cleanup2d.py or raw/cross_section3d.py first"
            report.fail(InputError(path, expected, f"{path.name!r}", advice))
            continue
        try:
            check_regular(path)
            naming.check_utf8(path.stem)
        except naming.GrammarError as error:
            report.fail(InputError(path, error.expected, error.found, "rename it"))
            continue
        except InputError as error:
            report.fail(error)
            continue
        if path.stem in sections:
            found = f"{sections.pop(path.stem)} of the same name"
            report.fail(InputError(path, "a name of its own", found, "remove one of them"))
        else:
            sections[path.stem] = path
    return sections
