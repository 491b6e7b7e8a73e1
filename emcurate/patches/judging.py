"""Which patches are of little use by what can be told without labels: blank, saturated or blurred ones.

What a good patch looks like depends on the instrument, so each limit is a dataset's own: how far a patch may be from
what is usual there. A threshold says what is never left out, however unusual it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate.patches.measures import BLUR, ENTROPY, MEASURES, SATURATED
from emcurate.running.flag_fields import flag

# Why a patch is left out, in the order in which it is looked at: a mask is blank, and what is blank is blurred as well.
REASONS = (TOO_SATURATED, BLANK, BLURRED) = ("saturated", "blank", "blurred")
WITHIN, UNKNOWN = len(REASONS), len(REASONS) + 1

# Bits of entropy below which a patch is blank whatever the others are like: hardly more than one grey value.
LEAST_BITS = 1.0

# What stands for the good patches of a dataset, even where most are blank: this share of them says no more.
BEST_SHARE = 0.9

# The median absolute deviation of normally distributed values, times this, is their standard deviation.
NORMAL_MAD = 1.4826

# Patches from which on a dataset has limits of its own; smaller ones are judged together.
FEWEST = 20

GROUP = "limits of each dataset"  # of their flags

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """What decides. Real patches of several instruments have a blur of up to 0.45, blurred by 3 pixels 0.6 to 0.9."""

    blank_bits: float = field(
        default=2.0,  # a quarter of the contrast
        metadata=flag(
            "bits of entropy that a patch may have less than the best tenth", metavar="BITS", least=0, group=GROUP
        ),
    )
    saturated_above: float = field(
        default=0.5,
        metadata=flag(
            "share of black and white pixels up to which a patch is kept, 1 for any", metavar="SHARE", least=0, most=1,
            group=GROUP,
        ),
    )  # fmt: skip
    blurred_above: float = field(
        default=0.6,
        metadata=flag("blur up to which a patch is kept, 1 for any", metavar="BLUR", least=0, most=1, group=GROUP),
    )
    deviations: float = field(
        default=3.0,
        metadata=flag(
            "robust standard deviations above the median up to which a patch is kept, however saturated or blurred",
            metavar="N", least=0, group=GROUP,
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """The limits of one dataset: the largest share of saturated pixels, the least entropy in bits and the most blur."""

    most_saturated: float
    least_entropy: float
    most_blur: float


@dataclass(frozen=True)
class Judged:
    """What came of n patches.

    Attributes
    ----------
    verdicts : (n,) uint8
        Places in `REASONS`; `WITHIN` for those that are kept, `UNKNOWN` for those of which nothing is known.
    excess : (n, 3) float64
        How far each is beyond each limit, in the order of `REASONS`; negative within, NaN where not known.
    limits : dict of str to Limits
        By dataset.
    together : set of str
        The datasets that were judged together with others.
    """

    verdicts: npt.NDArray[np.uint8]
    excess: FloatArray
    limits: dict[str, Limits]
    together: set[str]

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which are kept."""
        return np.equal(self.verdicts, WITHIN)


def judge(measures: FloatArray, numbers: npt.NDArray[np.integer[Any]], names: list[str], rules: Rules) -> Judged:
    """Judge patches by their measures, each within its dataset.

    Parameters
    ----------
    measures : (n, 5) float64
        As `emcurate.patches.measures.measure_places` returns them; rows of NaN are not known.
    numbers : (n,) int
        The place of each patch's dataset in `names`.
    names : list of str
    rules : Rules
    """
    is_known = ~np.isnan(measures[:, 0])
    counts = np.bincount(numbers[is_known], minlength=len(names))
    small = counts < FEWEST
    # Those too small for limits of their own become one more group, the last.
    groups = np.where(small[numbers], len(names), numbers)
    verdicts = np.full(len(measures), UNKNOWN, np.uint8)
    excess = np.full((len(measures), len(REASONS)), np.nan)
    found: dict[int, Limits] = {}
    order = np.argsort(groups, kind="stable")
    order = order[is_known[order]]
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(rows):
            group = int(groups[rows[0]])
            found[group], excess[rows] = _measure_excess(measures[rows], rules, is_mixed=group == len(names))
            beyond = excess[rows] > 0
            verdicts[rows] = np.where(beyond.any(axis=1), beyond.argmax(axis=1), WITHIN)
    at = [len(names) if small[i] else i for i in range(len(names))]
    limits = {name: found[group] for name, group in zip(names, at, strict=True) if group in found}
    return Judged(verdicts, excess, limits, {name for i, name in enumerate(names) if small[i]})


def _measure_excess(measures: FloatArray, rules: Rules, *, is_mixed: bool) -> tuple[Limits, FloatArray]:
    """Return the limits of some patches, and how far each is beyond them, (n, 3).

    Where patches of many instruments are mixed, their contrasts differ: then blank ones must be unusual as well.
    """
    entropy, saturated, blur = (measures[:, MEASURES.index(name)] for name in (ENTROPY, SATURATED, BLUR))
    least = float(np.quantile(entropy, BEST_SHARE)) - rules.blank_bits
    if is_mixed:
        least = min(least, -_highest_usual(-entropy, rules.deviations))
    least = max(LEAST_BITS, least)
    most_saturated = max(rules.saturated_above, _highest_usual(saturated, rules.deviations))
    # What is blank is nothing but noise, and sharp: it says nothing of how sharp the others are.
    told = blur[(entropy >= least) & (saturated <= most_saturated) & ~np.isnan(blur)]
    most_blur = max(rules.blurred_above, _highest_usual(told, rules.deviations) if len(told) else 0.0)
    excess = np.stack([saturated - most_saturated, least - entropy, blur - most_blur], axis=1)
    return Limits(most_saturated, least, most_blur), np.nan_to_num(excess, nan=-np.inf)


def _highest_usual(values: FloatArray, deviations: float) -> float:
    middle = float(np.median(values))
    return middle + deviations * NORMAL_MAD * float(np.median(np.abs(values - middle)))


def explain(judged: Judged, measures: FloatArray, numbers: npt.NDArray[np.integer[Any]], names: list[str]) -> list[str]:
    """Return for each patch why it was kept or left out; of those not known an empty text."""
    said = ["within the limits of its dataset"] * len(measures)
    used = [MEASURES.index(name) for name in (SATURATED, ENTROPY, BLUR)]
    words, signs, units = ("share", "entropy", "blur"), ("above", "below", "above"), ("", " bits", "")
    limit_names = [item.name for item in fields(Limits)]
    for row in np.flatnonzero(judged.verdicts == UNKNOWN).tolist():
        said[row] = ""
    for row in np.flatnonzero(judged.verdicts < WITHIN).tolist():
        which = int(judged.verdicts[row])
        limit = getattr(judged.limits[names[numbers[row]]], limit_names[which])
        value = f"{words[which]} {measures[row, used[which]]:.3f}"
        said[row] = f"{REASONS[which]}: {value}, {signs[which]} {limit:.3f}{units[which]}"
    return said
