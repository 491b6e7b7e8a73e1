"""Hashes and measures of all patches of several sections at once, which costs each of them little of Python's time.

Sections of one width, one below the other, are one tall section to whatever takes places in it. Those that already lie
so in memory, as those of a slab do, are not copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from emcurate.patches.cuts import pack_bits
from emcurate.patches.hashing import BoolArray
from emcurate.patches.measures import measure_places
from emcurate.patches.orientations import ORIENTATIONS, hash_places_turned
from emcurate.patches.section_hashes import hash_places

# Pixels of sections that are held in memory to be examined together, but for a section that is larger itself.
GROUP_PIXELS = 1 << 24


class Located(Protocol):
    """A section, (height, width) uint8, and row, column, height and width of patches in it, (n, 4) int32."""

    @property
    def pixels(self) -> npt.NDArray[np.uint8]: ...
    @property
    def places(self) -> npt.NDArray[np.int32]: ...


class Hashing(Protocol):
    """How patches are hashed; see `emcurate.patches.cutting.Cutting`."""

    @property
    def crop_size(self) -> int: ...
    @property
    def hash_size(self) -> int: ...
    @property
    def hash(self) -> str: ...
    @property
    def orientations(self) -> bool: ...


AnySection = TypeVar("AnySection", bound=Located)


@dataclass(frozen=True)
class Examined:
    """What was found of a section's patches.

    Attributes
    ----------
    hashes : (n, hash_size, hash_size) bool
    packed : (n, bytes) uint8
        Their bits as the table gets them: those of all orientations where these are hashed.
    measures : (n, 5) float64, optional
        As `emcurate.patches.measures.measure_places` returns them.
    """

    hashes: BoolArray
    packed: npt.NDArray[np.uint8]
    measures: npt.NDArray[np.float64] | None


def in_groups(sections: Iterable[AnySection]) -> Iterator[list[AnySection]]:
    """Yield sections, in their order, in groups that can be examined together."""
    group: list[AnySection] = []
    pixels = 0
    for section in sections:
        pixels += section.pixels.size
        if group and (pixels > GROUP_PIXELS or section.pixels.shape[1] != group[0].pixels.shape[1]):
            yield group
            group, pixels = [], section.pixels.size
        group.append(section)
    if group:
        yield group


def examine(group: Sequence[Located], how: Hashing, *, measured: bool) -> Iterator[Examined]:
    """Yield the hashes, and the measures if wanted, of the patches of each of some sections of one width."""
    tall, rows = stack([section.pixels for section in group])
    places = np.concatenate([section.places for section in group])
    ends = np.cumsum([len(section.places) for section in group])
    starts = ends - [len(section.places) for section in group]
    places[:, 0] += np.repeat(np.array(rows, np.int32), ends - starts)
    hashes, packed = _hash(tall, places, how)
    measures = measure_places(tall, places) if measured else None
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield Examined(hashes[start:end], packed[start:end], None if measures is None else measures[start:end])


def _hash(
    pixels: npt.NDArray[np.uint8], places: npt.NDArray[np.int32], how: Hashing
) -> tuple[BoolArray, npt.NDArray[np.uint8]]:
    """Return the hashes of patches, (n, side, side), and what the table gets: these, or those of all orientations."""
    if not how.orientations:
        hashes = hash_places(pixels, places, how.crop_size, how.hash_size, how.hash)
        return hashes, pack_bits(hashes)
    turned = hash_places_turned(pixels, places, how.crop_size, how.hash_size, how.hash)
    packed = pack_bits(turned.reshape(-1, how.hash_size, how.hash_size))
    return turned[:, 0], packed.reshape(len(places), ORIENTATIONS * packed.shape[1])


def stack(sections: Sequence[npt.NDArray[np.uint8]]) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Return sections of one width one below the other, and the row in which each begins."""
    block = _find_block(sections)
    if block is not None:
        width, first = block.shape[2], block.ctypes.data
        return block.reshape(-1, width), [(section.ctypes.data - first) // width for section in sections]
    if len(sections) == 1:
        return sections[0], [0]
    heights = [len(section) for section in sections]
    return np.concatenate(sections), (np.cumsum(heights) - heights).tolist()


def _find_block(sections: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8] | None:
    """Return the (n, height, width) array of which all of these are whole sections, if there is one."""
    block = sections[0].base  # of memory that numpy does not own, it is no array
    if not isinstance(block, np.ndarray) or block.ndim != 3 or not _is_plain(block):
        return None
    are_in_it = all(each.base is block and each.shape == block.shape[1:] and _is_plain(each) for each in sections)
    return block if are_in_it else None


def _is_plain(array: npt.NDArray[Any]) -> bool:
    return array.flags.c_contiguous and array.dtype == np.uint8
