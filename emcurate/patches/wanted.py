"""Which patches are wanted of each section: all, or those that a list names; and how many these are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from emcurate import naming
from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.images.origins import Origin
from emcurate.outputs import digest_bytes
from emcurate.patches.cutting import Cutting, Sections
from emcurate.patches.grid import count_patches
from emcurate.patches.selection import Corners, Selection
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.running.sources import Source


class Material(Protocol):
    """Where sections come from: files in a directory, or volumes; see `DirectoryOfSections`."""

    root: Place
    named: Collection[str] | None
    sections: Mapping[str, naming.Section]
    is_renewed: bool
    known_limits: dict[str, tuple[float, float]]
    thin: Mapping[str, list[tuple[int, tuple[int, int]]]]

    def source(self, stem: str) -> Source: ...
    def state(self, stem: str) -> str: ...
    def size(self, stem: str) -> tuple[int, int]: ...
    def ready(self, datasets: Mapping[str, Sequence[str]], report: Report, workers: Workers) -> Iterator[list[str]]: ...
    def suits_threads(self, datasets: Collection[str]) -> bool: ...
    def divide(self, stems: Sequence[str], workers: Workers) -> Iterator[Sequence[str]]: ...
    def pieces(self, stems: Sequence[str]) -> tuple[Sections, ...]: ...
    def origin(self, stem: str) -> Origin: ...
    def details(self, dataset: str) -> dict[str, Any]: ...


class Wanted:
    """The patches wanted of some material.

    Parameters
    ----------
    material : Material
    how : Cutting
    selection : Selection, optional
        Those that a list names; all by default.

    Attributes
    ----------
    datasets : dict of str to list of str
        The names of each dataset's sections, in order.
    whole : set of str
        The datasets of which all patches are wanted nevertheless.
    """

    def __init__(self, material: Material, how: Cutting, selection: Selection | None) -> None:
        self.material, self.how, self.selection = material, how, selection
        self.datasets: dict[str, list[str]] = defaultdict(list)
        for stem in sorted(material.sections):
            self.datasets[material.sections[stem].dataset].append(stem)
        self.whole: set[str] = set()
        self._sizes: dict[str, tuple[int, int]] = {}

    def of(self, dataset: str) -> Selection | None:
        """Return which patches of a dataset are wanted, None for all."""
        return None if dataset in self.whole else self.selection

    def chosen(self, stem: str) -> Corners | None:
        """Return the patches wanted of a section, None for all."""
        chosen = self.of(self.material.sections[stem].dataset)
        return None if chosen is None else chosen.corners(stem)

    def has_any(self, stem: str) -> bool:
        """Return whether any patch of a section is wanted, as far as is known before it is cut."""
        chosen = self.of(self.material.sections[stem].dataset)
        return self.fits(stem) if chosen is None else chosen.has_any(stem)

    def fits(self, stem: str) -> bool:
        """Return whether a section is large enough for a patch that is not left out."""
        return min(self.size(stem)) >= self.how.min_size

    def size(self, stem: str) -> tuple[int, int]:
        """Return a section's height and width; of one that cannot be read, for cutting to report, those of a patch."""
        if stem not in self._sizes:
            try:
                self._sizes[stem] = self.material.size(stem)
            except (InputError, OSError):
                self._sizes[stem] = (self.how.crop_size, self.how.crop_size)
        return self._sizes[stem]

    def refuse_too_large(self) -> None:
        """Raise `InputError` if no section is large enough for any patch: nothing would come of it."""
        sections = self.material.sections
        sizes = [size for dataset in self.material.thin for _, size in self.material.thin[dataset]]
        if not (sections or sizes) or any(map(self.has_any, sections)):
            return
        largest = max([*sizes, *map(self.size, sections)], key=lambda size: (min(size), max(size)))
        least = self.how.min_size
        expected = f"sections of at least {least:,} pixels a side (--min-size; half of --crop-size if not given)"
        found = f"none; the largest has {largest[0]:,} x {largest[1]:,}"
        raise InputError(self.material.root, expected, found, "give a smaller --crop-size, or --min-size 1")

    def check_selection(self, report: Report) -> None:
        """Report patches that a list names of sections that the datasets here do not have."""
        if self.selection is None:
            return
        strange: dict[str, list[str]] = defaultdict(list)
        for stem in self.selection.sections():
            dataset = stem.partition(naming.MARK)[0]
            if dataset in self.datasets and stem not in self.material.sections:
                strange[dataset].append(stem)
        for dataset, stems in strange.items():
            expected = f"patches of the sections of {dataset} in {self.material.root}"
            found = f"some of {len(stems):,} others, such as {min(stems)}"
            advice = "cut from what the list's patches were cut from, with the same --axes, --spacing and --min-size"
            report.fail(InputError(self.selection.path, expected, found, advice))

    def digest(self, stems: Sequence[str]) -> str:
        """Return what changes when a list names other patches of some sections; there must be one."""
        assert self.selection is not None
        return digest_bytes("".join(self.selection.digest(stem) for stem in stems).encode())[:16]

    def count(self, stem: str) -> int:
        """Return how many patches are wanted of a section."""
        corners = self.chosen(stem)
        return self.count_all(*self.size(stem)) if corners is None else len(corners)

    def count_all(self, height: int, width: int) -> int:
        """Return how many patches there are of a section of some size, but for those that are left out."""
        return count_patches(height, width, self.how.crop_size, self.how.min_size)

    def count_small(self, dataset: str) -> int:
        """Return how many patches of a dataset are left out for their size."""
        sizes = [(1, self.size(stem)) for stem in self.datasets[dataset]] + self.material.thin.get(dataset, [])
        return sum(
            number * (count_patches(*size, self.how.crop_size) - self.count_all(*size)) for number, size in sizes
        )
