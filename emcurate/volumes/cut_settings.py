"""How volumes are cut into sections, as the flags say it."""

from __future__ import annotations

from dataclasses import dataclass, field

from emcurate.images.pixels import Rescale
from emcurate.volumes.views import View

PLANES = (0, 1, 2)  # xy, xz, yz

# Published: beyond a fifth, sections across z show stretched structures.
ANISOTROPY = 0.2


@dataclass(frozen=True)
class HowToCut:
    """How volumes are cut into sections.

    Parameters
    ----------
    axes : tuple of int
        The planes to cut, of `PLANES`.
    spacing : int
        Cut every so many-th index, and the last.
    anisotropy : float
        Cut plane 0 only where voxels differ in z from x by more than this part of x.
    voxel_size : (z, y, x), optional
        In nm, of every volume, instead of what the files say.
    rescale : Rescale
    view : View
        What is read of volumes that hold several resolutions, channels or times.
    """

    axes: tuple[int, ...] = PLANES
    spacing: int = 1
    anisotropy: float = ANISOTROPY
    voxel_size: tuple[float, float, float] | None = None
    rescale: Rescale = field(default_factory=Rescale)
    view: View = field(default_factory=View)
