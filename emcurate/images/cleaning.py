"""How a 2D image becomes a section: which rows of it, at which pixel size."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from emcurate.errors import InputError
from emcurate.images.calibration import AUTO, Calibration, PixelSize, read_calibration
from emcurate.images.pixels import Rescale
from emcurate.images.resampling import Factors, Scale, find_factors, resampled_shape

GIVEN = "--image-pixel-size"


@dataclass(frozen=True)
class Cleaning:
    """How images become sections, as the flags say it.

    Parameters
    ----------
    rescale : Rescale
    crop_bar : str or int, optional
        The rows of the info bar to leave out at the bottom, or `AUTO`.
    given_size : (y, x), optional
        The pixel size of every image in nm, instead of what the files say.
    scale : Scale
    """

    rescale: Rescale = field(default_factory=Rescale)
    crop_bar: str | int | None = None
    given_size: PixelSize | None = None
    scale: Scale = field(default_factory=Scale)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the ledger keeps: what is not asked for is not noted, so that results of earlier versions stay."""
        bar = {} if self.crop_bar is None else {"crop_bar": self.crop_bar}
        return asdict(self.rescale) | bar | self.scale.settings


@dataclass(frozen=True)
class SectionPlan:
    """What becomes of one image.

    Attributes
    ----------
    calibration : Calibration
    rows : int
        Of the image that are kept, those of the info bar left out.
    bar : int
        Rows of the info bar.
    factors : (y, x), optional
        Pixels that make one of the section; None where each makes one.
    shape : (rows, columns)
        Of the section.
    """

    calibration: Calibration
    rows: int
    bar: int
    factors: Factors | None
    shape: tuple[int, int]


def plan_section(path: Path, shape: tuple[int, int], sidecar: Path | None, how: Cleaning) -> SectionPlan:
    """Return what becomes of an image of some shape.

    Raises
    ------
    InputError
        If nothing is left of it, or it cannot be brought to the pixel size that is asked for.
    """
    rows, columns = shape
    calibration = read_calibration(path, shape, sidecar)
    if how.given_size is not None:
        calibration = replace(calibration, size_nm=how.given_size, said=GIVEN)
    bar = (calibration.bar_rows or 0) if how.crop_bar == AUTO else int(how.crop_bar or 0)
    if bar >= rows:
        advice = f"give the rows of the info bar, or --crop-bar {AUTO}"
        raise InputError(path, f"more than the {bar:,} rows of --crop-bar", f"{rows:,}", advice)
    left = (rows - bar, columns)
    how_to_give = f"{calibration.said}: give it with {GIVEN} Y X (nm)"
    factors = find_factors(how.scale, calibration.size_nm, left, path, how_to_give)
    return SectionPlan(calibration, rows - bar, bar, factors, resampled_shape(left, factors))
