"""The sections of a volume: at which indices, under which names, and in which slabs they are cut."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from emcurate import naming
from emcurate.volumes.volume import Volume

# Voxels a job holds at a time, in bytes; a job works on at least one section, however large. Larger slabs read a
# volume fewer times over (a slab of yz sections touches every page of the file), but each process holds one.
SLAB_BYTES = 1 << 27


# Sections a job cuts at most, so that even a small volume keeps every process busy.
SLAB_SECTIONS = 64


def section_indices(size: int, spacing: int) -> list[range]:
    """Return the indices at which an axis is cut: 0, s, 2s, … and the last, as one or two ranges.

    >>> section_indices(10, 3), section_indices(9, 3)
    ([range(0, 10, 3)], [range(0, 9, 3), range(8, 9)])
    """
    regular = range(0, size, spacing)
    return [regular] if regular[-1] == size - 1 else [regular, range(size - 1, size)]


def name_sections(volume: Volume, planes: Iterable[int], spacing: int) -> set[str]:
    """Return the file names of every section that a volume gives."""
    return {
        section_name(volume, plane, index)
        for plane in planes
        for indices in section_indices(volume.shape[plane], spacing)
        for index in indices
    }


def section_name(volume: Volume, plane: int, index: int) -> str:
    """Return a section's file name."""
    width = naming.index_width(volume.shape[plane])
    return f"{naming.VolumeSection(volume.name, plane, index, width).stem}.tiff"


def divide(volume: Volume, planes: Iterable[int], spacing: int) -> Iterator[tuple[int, range]]:
    """Divide a volume's sections into slabs: yield the plane and the indices of each."""
    for plane in planes:
        section_bytes = volume.size // volume.shape[plane] * volume.dtype.itemsize
        at_once = min(SLAB_SECTIONS, max(1, SLAB_BYTES // max(1, section_bytes)))
        for indices in section_indices(volume.shape[plane], spacing):
            for start in range(0, len(indices), at_once):
                yield plane, indices[start : start + at_once]


def count_sections(savedir: Path) -> Counter[str]:
    """Return how many sections of volumes a directory holds, by dataset."""
    return Counter(section.dataset for _, section in find_sections(savedir))


def find_sections(savedir: Path) -> Iterator[tuple[Path, naming.VolumeSection]]:
    """Yield the sections of volumes that lie in a directory."""
    for path in savedir.iterdir():
        with contextlib.suppress(naming.GrammarError):
            if path.suffix == ".tiff" and isinstance(section := naming.parse_section(path.stem), naming.VolumeSection):
                yield path, section


def remove_other_sections(savedir: Path, volumes: Iterable[Volume], names: Mapping[Path, set[str]]) -> None:
    """Remove what a run with other settings left of these volumes: sections that this run will not write."""
    wanted = {volume.name: names[volume.path] for volume in volumes}
    for path, section in list(find_sections(savedir)):
        if section.dataset in wanted and path.name not in wanted[section.dataset]:
            path.unlink()
