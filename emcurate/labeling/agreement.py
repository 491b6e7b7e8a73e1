"""How far two people agree who labelled the same patches; what one of them was unsure of counts for neither."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from emcurate.patches.labels import DECIDED, NONE


@dataclass(frozen=True)
class Agreement:
    """Two annotators' agreement.

    Attributes
    ----------
    both : int
        Patches that both decided.
    same : int
        Those to which they gave the same label.
    kappa : float
        Cohen's kappa: 1 is full agreement, 0 what chance would give; NaN where it is undefined, that is where there is
        nothing to compare or both gave all patches one and the same label.
    """

    first: str
    second: str
    both: int
    same: int
    kappa: float


def compare_annotators(own: Mapping[str, Mapping[int, str]]) -> list[Agreement]:
    """Return the agreement of every pair of annotators, from each one's labels by patch."""
    return [_compare(a, b, own[a], own[b]) for a, b in combinations(sorted(own), 2)]


def find_disagreements(own: Mapping[str, Mapping[int, str]]) -> list[int]:
    """Return the patches that one called informative and another uninformative, in order."""
    given: dict[int, set[str]] = {}
    for labels in own.values():
        for index, label in labels.items():
            if label in DECIDED:
                given.setdefault(index, set()).add(label)
    return sorted(index for index, labels in given.items() if len(labels) > 1)


def _compare(first: str, second: str, ours: Mapping[int, str], theirs: Mapping[int, str]) -> Agreement:
    from sklearn.metrics import cohen_kappa_score

    shared = [key for key, label in ours.items() if label in DECIDED and theirs.get(key, NONE) in DECIDED]
    a, b = [ours[key] for key in shared], [theirs[key] for key in shared]
    kappa = math.nan
    if shared:
        with warnings.catch_warnings():
            # Undefined kappa is what NaN says.
            warnings.simplefilter("ignore")
            kappa = float(cohen_kappa_score(a, b, labels=list(DECIDED)))
    return Agreement(first, second, len(shared), sum(x == y for x, y in zip(a, b, strict=True)), kappa)
