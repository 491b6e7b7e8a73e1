"""What several distances would make of patches: how many duplicates, and which are only just some."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from emcurate.patches.covering import Covered
from emcurate.patches.names import take_names

DISTANCES = (4, 8, 12, 16)  # bits, of the 64 of a usual hash

PAIRS_SHOWN = 5  # of each distance

# Pairs of a dataset that are looked at: the choice among them is one by lot, so that they are not all neighbours.
PAIRS_DRAWN = 1000

# A duplicate, its exemplar, and the distance between them in bits.
Pair = tuple[str, str, int]


class Trial:
    """What one distance makes of patches, dataset by dataset."""

    def __init__(self, distance: int) -> None:
        self.distance, self.patches, self.exemplars = distance, 0, 0
        self._pairs: list[tuple[int, int, Pair]] = []

    @property
    def duplicates(self) -> int:
        """How many patches are left out."""
        return self.patches - self.exemplars

    @property
    def pairs(self) -> list[Pair]:
        """Duplicates that are farthest from their exemplars: at a smaller distance they would be none."""
        return [pair for *_, pair in self._pairs]

    def add(self, covered: Iterable[Covered]) -> None:
        """Take in datasets."""
        for each in covered:
            groups = each.groups
            self.patches += len(groups.places)
            self.exemplars += len(groups.exemplars)
            bits = groups.distance[groups.span]
            duplicates = np.flatnonzero(groups.exemplar[groups.span] != groups.places)
            far = duplicates[np.argsort(-bits[duplicates], kind="stable")]
            # Of those that are equally far as many as are asked for at least, and some more.
            far = far[bits[far] >= bits[far[:PAIRS_SHOWN]].min(initial=self.distance)][:PAIRS_DRAWN]
            names = take_names(groups.patches, groups.places[far]).to_pylist()
            exemplars = take_names(groups.patches, groups.exemplar[groups.span][far]).to_pylist()
            pairs = zip(names, exemplars, bits[far].tolist(), strict=True)
            self._pairs += [(-pair[2], zlib.crc32(pair[0].encode()), pair) for pair in pairs]
            self._pairs = sorted(self._pairs)[:PAIRS_SHOWN]


def spell_trials(trials: Sequence[Trial]) -> list[str]:
    """Return what distances give as the lines of a table."""
    lines = [f"{'-d':>4}  {'duplicates':>12}  {'exemplars':>12}  {'kept':>6}"]
    for trial in trials:
        share = trial.exemplars / max(1, trial.patches)
        lines.append(f"{trial.distance:>4}  {trial.duplicates:>12,}  {trial.exemplars:>12,}  {share:>6.1%}")
    return lines
