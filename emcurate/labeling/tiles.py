"""Patches as they are drawn: their pixels and grey limits, or why there are none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.errors import InputError
from emcurate.patches.reading import patch_exists, read_patch

# Reading waits for disks and networks more than for the processor.
READERS = 8

# Patches kept: the page shown, the next one and a few before, 50 kB each.
TILES_KEPT = 300

# A larger patch is sent reduced: no screen tile is that large.
LARGEST_SIDE = 1024

# The share of pixels, in percent, that contrast stretching lets go black and white.
STRETCH_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Tile:
    """A patch's pixels and the grey values to draw black and white when stretched; or what is wrong with it."""

    pixels: npt.NDArray[np.uint8]
    limits: tuple[int, int] = (0, 255)
    reduction: int = 1
    problem: str = ""


class TileReader:
    """Reads patches side by side and keeps those read lately."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(READERS, "patches")
        self._kept: OrderedDict[str, Future[Tile]] = OrderedDict()

    def read(self, paths: Sequence[str]) -> list[Tile]:
        """Return the tiles of patches; one that cannot be read has a `problem`."""
        return [future.result() for future in self._submit(paths)]

    def prefetch(self, paths: Sequence[str]) -> None:
        """Begin to read patches that will be wanted soon."""
        self._submit(paths)

    def _submit(self, paths: Sequence[str]) -> list[Future[Tile]]:
        futures = []
        for path in paths:
            future = self._kept.pop(path, None)
            # What was missing may have been put there since.
            if future is None or (future.done() and future.result().problem):
                future = self._pool.submit(load_tile, path)
            self._kept[path] = future
            futures.append(future)
        while len(self._kept) > max(TILES_KEPT, 2 * len(paths)):
            self._kept.popitem(last=False)
        return futures


def load_tile(path: str) -> Tile:
    """Read a patch for drawing."""
    nothing = np.zeros((0, 0), np.uint8)
    try:
        pixels = read_patch(path)
    except InputError as error:
        problem = error.found if not patch_exists(path) else f"{error.found}; expected {error.expected}"
        return Tile(nothing, problem=problem)
    except (OSError, ValueError) as error:
        return Tile(nothing, problem=str(error))
    if pixels.size == 0:
        return Tile(nothing, problem="an image without pixels")
    low, high = np.percentile(pixels, STRETCH_PERCENTILES)
    reduction = -(-max(pixels.shape) // LARGEST_SIDE)
    return Tile(np.ascontiguousarray(reduce_pixels(pixels, reduction)), (int(low), int(np.ceil(high))), reduction)


def describe_place(path: str) -> str:
    """Return in words what a patch's file name says of its place in the dataset.

    >>> describe_place("/patches/fly-LOC-0_042_224_0.tiff")
    'xy plane, slice 42, row 224, column 0'
    """
    name = path.replace("\\", "/").rpartition("/")[2]
    try:
        patch = naming.parse_patch(naming.strip_extension(name))
    except naming.GrammarError:
        return name
    corner = f"row {patch.y}, column {patch.x}"
    section = patch.section
    if isinstance(section, naming.VolumeSection):
        return f"{naming.PLANES[section.plane]} plane, slice {section.index}, {corner}"
    return f"image {section.image}, {corner}" if section.image else f"2D image, {corner}"


def reduce_pixels(pixels: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    """Return a picture, (height, width) uint8, made smaller by a whole factor: the means of its blocks."""
    if factor == 1:
        return pixels
    height, width = (max(side // factor, 1) for side in pixels.shape)
    blocks = pixels[: height * factor, : width * factor].astype(np.float32)
    means = np.add.reduceat(
        np.add.reduceat(blocks, range(0, len(blocks), factor), 0), range(0, blocks.shape[1], factor), 1
    )
    counts = np.outer(_block_sizes(blocks.shape[0], factor), _block_sizes(blocks.shape[1], factor))
    return np.rint(means / counts).astype(np.uint8)


def _block_sizes(length: int, factor: int) -> npt.NDArray[np.int64]:
    return np.diff(np.append(np.arange(0, length, factor), length))
