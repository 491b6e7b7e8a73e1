"""Read patches in batches, as the classifier wants them: one uint8 array, every patch resized to one square size.

Nothing here needs torch, so the processes that decode start quickly and stay small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.patches.reading import read_patch
from emcurate.running.made import MadeWhenAsked


@dataclass(frozen=True)
class BatchJob:
    """Some patches of a path list: their positions in it and their paths."""

    positions: npt.NDArray[np.int64]
    paths: tuple[str, ...]
    image_size: int

    @property
    def name(self) -> str:
        return f"batch of {len(self.paths)} patches from {self.paths[0]} on"


@dataclass(frozen=True)
class Batch:
    """What was read of a `BatchJob`: pixels (n, size, size) uint8 of the readable patches, and why others are not."""

    positions: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    errors: tuple[str, ...] = ()


class BatchJobs(MadeWhenAsked[BatchJob]):
    """The batches of chosen positions of a path list, each made when asked for: millions of paths take no memory."""

    def __init__(
        self, paths: Sequence[str], positions: npt.NDArray[np.int64], batch_size: int, image_size: int
    ) -> None:
        self.paths = paths
        self.positions = positions
        self.batch_size = batch_size
        self.image_size = image_size

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch_size)

    def make(self, index: int) -> BatchJob:
        """Return a job."""
        start = index * self.batch_size
        positions = self.positions[start : start + self.batch_size]
        return BatchJob(positions, tuple(self.paths[int(i)] for i in positions), self.image_size)


def read_batch(job: BatchJob) -> Batch:
    """Read the patches of a batch; those that cannot be read are left out and named, the others go on."""
    pixels, good, errors = [], [], []
    for position, path in zip(job.positions, job.paths, strict=True):
        try:
            pixels.append(resize_patch(read_patch(path), job.image_size))
            good.append(position)
        except InputError as error:
            errors.append(str(error))
        except OSError as error:
            errors.append(f"{path}: {error.strerror or error}")
    stacked = np.stack(pixels) if pixels else np.zeros((0, job.image_size, job.image_size), np.uint8)
    return Batch(np.array(good, np.int64), stacked, tuple(errors))


def resize_patch(patch: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Return a patch as (size, size): bilinear without antialiasing, as the published weights were trained with."""
    if patch.shape == (size, size):
        return patch
    import cv2  # here, since most patches need no resizing, and whoever only asks for the flags none

    return cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
