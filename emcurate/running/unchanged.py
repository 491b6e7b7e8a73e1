"""Whether inputs that are read while a run works are still those that it began with."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from emcurate.addresses import Place
from emcurate.outputs import fingerprint

INSIDE = "::"  # between a file and what is meant in it

State = tuple[int, int, str]


class Unchanged:
    """The states of some inputs, taken before anything of them was read.

    Of a directory only the files directly in it count, and nothing of an address.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        self._states = {place: find_state(place) for place in set(places)}

    def find_changed(self, places: Iterable[Place]) -> set[Place]:
        """Return those of some inputs that are not as they were; what nothing was known of is."""
        known = {place for place in places if place in self._states}
        return {place for place in known if find_state(place) != self._states[place]}


def find_state(place: Place) -> State | None:
    """Return what changes when an input is replaced or written over; None of an address, or of what is gone."""
    if not isinstance(place, Path):
        return None
    for path in (place, Path(str(place).partition(INSIDE)[0])):
        try:
            status = os.stat(path)  # noqa: PTH116 - there may be a million
            return status.st_dev, status.st_ino, fingerprint(path)
        except OSError:
            continue
    return None
