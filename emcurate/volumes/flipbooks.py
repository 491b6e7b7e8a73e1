"""Flipbooks: short stacks of sections, each centred on a patch, that people leaf through to judge what it shows.

Conrad & Narayan, Cell Systems 2023 (MitoNet), doi 10.1016/j.cels.2022.12.006, had structures labelled in such.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emcurate.errors import InputError
from emcurate.images.pixels import Rescale, to_uint8
from emcurate.images.resampling import Resampled
from emcurate.volumes.boxes import Box, suppress_overlapping
from emcurate.volumes.columns import IOU_THRESHOLD, Informative, check_column, find_column
from emcurate.volumes.volume import Volume

# How long a section is seen, in milliseconds.
FRAME_MS = 200

# Grey limits of what is only looked at: of 16 bits the values that occur are mostly few.
SEEN_PERCENTILES = (0.1, 99.9)


@dataclass(frozen=True)
class Flipbooks:
    """The stacks around the patches of one volume.

    Attributes
    ----------
    boxes : list of Box
        In the order of their places.
    planes : dict of Box to int
        The plane of the patch that each is centred on.
    patches : int
        How many patches there are.
    near_ends : int
        Those that are too near to an end of the volume for a whole stack.
    """

    boxes: list[Box]
    planes: dict[Box, int]
    patches: int
    near_ends: int


def find_flipbooks(
    informative: Informative,
    volume: Volume,
    nz: int,
    size_of: Callable[[str], tuple[int, int]],
    resampled: Resampled | None = None,
) -> Flipbooks:
    """Return the stacks around patches, of those that share more than a tenth only the first.

    Parameters
    ----------
    informative : Informative
    volume : Volume
    nz : int
        Sections of a stack, an odd number.
    size_of : callable
        Reads the height and width of a patch.
    resampled : Resampled, optional
        How the volume's sections were, before patches were cut from them.

    Raises
    ------
    InputError
        If a patch cannot be read, or cannot have been cut from the volume.
    """
    planes: dict[Box, int] = {}
    patches = near_ends = 0
    for (plane, y, x), sections in sorted(informative.sections.items()):
        example = informative.example[plane, y, x]
        height, width = size_of(example)
        column = find_column(plane, (y, y + height), (x, x + width), resampled)
        check_column(column, max(sections), volume, example)
        for index in sorted(sections):
            patches += 1
            first, last = index - nz // 2, index + nz // 2
            if first < 0 or last >= volume.shape[plane]:
                near_ends += 1
                continue
            spans = [(column.y, column.y + column.height), (column.x, column.x + column.width)]
            spans.insert(plane, (first, last + 1))
            (z0, z1), (y0, y1), (x0, x1) = spans
            planes.setdefault(Box((z0, y0, x0), (z1, y1, x1), 1), plane)
    return Flipbooks(suppress_overlapping(planes, IOU_THRESHOLD), planes, patches, near_ends)


def account_for_flipbooks(found: Sequence[Flipbooks], nz: int) -> str:
    """Return a line on why as many or as few stacks came out as did."""
    patches, near_ends = sum(each.patches for each in found), sum(each.near_ends for each in found)
    overlapping = sum(len(each.planes) - len(each.boxes) for each in found)
    return (
        f"{patches:,} patches; {near_ends:,} less than {nz // 2} sections from an end of their volume, {overlapping:,} "
        "overlapped others' stacks"
    )


def encode_webp(voxels: npt.NDArray[np.generic], path: str) -> bytes:
    """Return sections as an animated WebP, without loss, that repeats for ever.

    Parameters
    ----------
    voxels : (sections, rows, columns) array
        Of any type; what is not uint8 is scaled to what most of it takes up.
    path : str
        Names the file in errors.

    Raises
    ------
    InputError
        If the sections are larger than WebP allows.
    """
    from PIL import Image  # here, since only those who look at boxes need it

    most = 16383  # pixels a side, of the format
    if max(voxels.shape[1:]) > most:
        found = " x ".join(map(str, voxels.shape[1:]))
        raise InputError(path, f"sections of at most {most} pixels a side, for WebP", found, "do without --animate")
    grey = to_uint8(voxels.reshape(-1, voxels.shape[-1]), Rescale("percentile", SEEN_PERCENTILES), path)
    frames = [Image.fromarray(frame).convert("RGB") for frame in grey.reshape(voxels.shape)]
    data = io.BytesIO()
    frames[0].save(
        data, "WEBP", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0, lossless=True, method=4
    )
    return data.getvalue()
