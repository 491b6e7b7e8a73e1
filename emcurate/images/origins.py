"""Where a section came from, as tables of patches tell it."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    kind: str
    source: str | None = None
    fingerprint: str | None = None
    voxel_size_nm: tuple[float | None, float | None, float | None] | None = None
    limits: tuple[float, float] | None = None
