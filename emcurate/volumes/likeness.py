"""Whether a volume is the one that patches were cut from, by what these show.

Nothing else tells: names and shapes may be the same, and copies have other times. A volume may have been converted
since, to or from 8 bits, so that grey values need not be equal, but dark and light are where they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.errors import InputError
from emcurate.images.pixels import Limits
from emcurate.images.resampling import Resampled
from emcurate.volumes.again import Spot, read_window, window_of
from emcurate.volumes.columns import Informative
from emcurate.volumes.volume import Volume

# Patches that are compared, from all over the volume.
SAMPLES = 5

# Correlation of grey values from which on two pictures are of one thing. Converted ones have 0.95 and more, others
# hardly more than 0.2.
ALIKE = 0.8

# Of a volume's grey values as many percent at either end are not looked at: conversions clip them.
CLIPPED = 1.0


def choose_samples(
    informative: Informative,
    volume: Volume,
    size_of: Callable[[str], tuple[int, int]],
    resampled: Resampled | None = None,
) -> dict[str, Spot]:
    """Return some of a volume's patches by path, and where in it each was cut; arguments as of `choose_boxes`."""
    places = sorted(informative.example)
    chosen = {places[len(places) * number // SAMPLES] for number in range(SAMPLES)} if places else set()
    spots = {}
    for place in sorted(chosen):
        path = informative.example[place]
        patch = naming.parse_patch(Path(path).stem)
        height, width = size_of(path)
        rows, columns = (patch.y, patch.y + height), (patch.x, patch.x + width)
        spots[path] = Spot(volume.path, patch.section, rows, columns, "", resampled=resampled)
    return spots


def boxes_of(samples: Sequence[Spot], volume: Volume) -> list[tuple[slice, slice, slice]]:
    """Return what is read of a volume to compare it."""
    return [window_of(volume, spot, spot.rows, spot.columns) for spot in samples]


def refuse_unlike(
    volume: Volume, samples: dict[str, Spot], read_patch: Callable[[str], npt.NDArray[np.uint8]], fpaths: Path
) -> None:
    """Raise `InputError` if a volume shows something else than most patches that are said to be cut from it.

    Parameters
    ----------
    volume : Volume
        Of which any part can be read.
    samples : dict of str to Spot
    read_patch : callable
        Reads a patch; one that cannot be read says nothing, nor does one without two different pixels.
    fpaths : Path
        The list that names them.
    """
    found = {}
    for path, spot in samples.items():
        with contextlib.suppress(InputError, OSError):
            likeness = _correlate(read_patch(path), _read(volume, spot))
            if likeness is not None:
                found[path] = likeness
    if found and np.median(list(found.values())) < ALIKE:
        worst = min(found, key=lambda path: found[path])
        differing = sum(likeness < ALIKE for likeness in found.values())
        raise InputError(
            volume.path,
            f"the volume that the patches in {fpaths} were cut from",
            f"one that shows something else where {differing} of {len(found)} patches were, such as {Path(worst).name}",
            "name the directory of the volumes that they were cut from, or cut the patches again",
        )


def _read(volume: Volume, spot: Spot) -> npt.NDArray[np.uint8]:
    if volume.dtype == np.uint8:
        return read_window(volume, spot, spot.rows, spot.columns, None)
    voxels = volume.read(*window_of(volume, spot, spot.rows, spot.columns))
    low, high = (float(value) for value in np.nanpercentile(voxels, [CLIPPED, 100 - CLIPPED]))
    if not low < high:  # also where there are no numbers
        return np.zeros((spot.rows[1] - spot.rows[0], spot.columns[1] - spot.columns[0]), np.uint8)
    return read_window(volume, spot, spot.rows, spot.columns, Limits(low, high))


def _correlate(patch: npt.NDArray[Any], window: npt.NDArray[Any]) -> float | None:
    """Return how alike a patch and what lies in its place are, from -1 to 1; None if the patch shows nothing."""
    if np.array_equal(patch, window):
        return 1.0
    one, other = (np.clip(pixels, *np.percentile(pixels, [CLIPPED, 100 - CLIPPED])) for pixels in (patch, window))
    if not one.std():
        return None
    if one.shape != other.shape or not other.std():
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
