"""How volumes are cut into sections, as the flags say it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from emcurate import naming
from emcurate.images.pixels import Rescale
from emcurate.volumes.views import View

VoxelSize = tuple[float, float, float]

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
    voxel_sizes : tuple of (name, (z, y, x))
        In nm, of the datasets of these names, or of files of these names: instead of both.
    """

    axes: tuple[int, ...] = PLANES
    spacing: int = 1
    anisotropy: float = ANISOTROPY
    voxel_size: VoxelSize | None = None
    rescale: Rescale = field(default_factory=Rescale)
    view: View = field(default_factory=View)
    voxel_sizes: tuple[tuple[str, VoxelSize], ...] = ()

    def name_given(self, dataset: str) -> str | None:
        """Return the name under which a dataset's voxel size is among those given by name, if it is."""
        names = [name for name, _ in self.voxel_sizes]
        stems = {naming.strip_extension(name): name for name in names}
        return dataset if dataset in names else stems.get(dataset)

    def of(self, dataset: str) -> HowToCut:
        """Return how one volume is cut, whose voxel size is no longer among others."""
        size = dict(self.voxel_sizes).get(self.name_given(dataset) or "", self.voxel_size)
        return replace(self, voxel_size=size, voxel_sizes=())

    @property
    def settings(self) -> dict[str, Any]:
        """What decides over the sections of one volume, as the ledger keeps it, but for its view."""
        values = asdict(self)
        del values["voxel_sizes"], values["view"]
        return {**values, **values.pop("rescale")}
