"""Where a section came from, as tables of patches tell it."""

from __future__ import annotations

from dataclasses import dataclass, field

from emcurate import naming
from emcurate.images.resampling import Resampled

# Kinds of datasets, as their names in the table.
KINDS = (IMAGE, VOLUME, VIDEO) = ("2d", "volume", "video")


@dataclass(frozen=True)
class Origin:
    """Where a section's pixels came from, and how they became grey; None where that is not known.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    source, fingerprint : str
        The image, volume or video, and what changes when it does.
    voxel_size_nm : (z, y, x), optional
        Of a volume, or (1 slice, y, x) of an image.
    limits : (lo, hi), optional
        The values that became 0 and 255.
    pixel_size_nm : float, optional
        Of the sections of a volume, or of an image's section, where that has been resampled since.
    """

    kind: str
    source: str | None = None
    fingerprint: str | None = None
    voxel_size_nm: tuple[float | None, float | None, float | None] | None = None
    limits: tuple[float, float] | None = None
    # Not in the text that tells whether an origin has changed, which stands in directories of earlier versions.
    pixel_size_nm: float | None = field(default=None, repr=False)

    def sizes(self, section: naming.Section) -> tuple[float | None, float | None, float | None]:
        """Return the pixel size along rows and columns and the distance of neighbouring sections, in nm."""
        z, y, x = self.voxel_size_nm or (None, None, None)
        rows, columns, step = y, x, None
        if isinstance(section, naming.VolumeSection):
            step, rows, columns = ((z, y, x), (y, z, x), (x, z, y))[section.plane]
        if self.pixel_size_nm is not None:
            rows = columns = self.pixel_size_nm
        return rows, columns, step

    @property
    def resampled(self) -> Resampled | None:
        """How sections were resampled on the way from what they came of; None where they were not."""
        if self.pixel_size_nm is None:
            return None
        z, y, x = self.voxel_size_nm or (None, None, None)
        return Resampled(self.pixel_size_nm, None if z is None or y is None or x is None else (z, y, x))
