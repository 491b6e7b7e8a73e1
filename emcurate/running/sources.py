"""What a stage works on, as a ledger sees it, and what of that is to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emcurate.addresses import Place


@dataclass(frozen=True)
class Source:
    """An input, as a ledger sees it.

    Parameters
    ----------
    path : Path or Address
        Where it lies: a file or directory that is there as long as the input is, or an address.
    fingerprint : str
        What changes when it does.
    dataset : str
        The dataset whose name its results bear.
    also : str
        What else it was made of, such as the list's patches, of which the fingerprint tells after its last ``;``.
    owner : Path, optional
        Whose name that is, where several inputs share one: the group's directory. The input itself by default.
    settings : mapping
        What was said of this input alone, such as its voxel size; JSON values. Unlike the ledger's parameters, it may
        differ between the inputs of one output directory.
    is_part : bool
        Whether the dataset is one input and this a part of it: when parts are gone or changed, the input has changed.
    is_renewed : bool
        Whether its results are made anew without being asked when it has changed, such as a list that grows.
    wanted : str
        What of its results is wanted: where other ones were made, they are made anew without being asked.
    is_read_on : bool
        Whether it is read while the run works, so that what was made of it counts only if it is the same at the end.
    enough : tuple of str
        What else, noted as `wanted`, holds all that is wanted; one that ends in ``*`` stands for all that begin so.
    """

    path: Place
    fingerprint: str
    dataset: str
    owner: Place | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_part: bool = False
    is_renewed: bool = False
    wanted: str = ""
    is_read_on: bool = False
    enough: tuple[str, ...] = ()
    also: str = ""

    def is_held_by(self, noted: str) -> bool:
        """Return whether results noted with these words hold all that is wanted."""
        return noted == self.wanted or any(
            noted.startswith(words[:-1]) if words.endswith("*") else noted == words for words in self.enough
        )

    def spell_change(self, noted: str) -> str:
        """Return what has changed since another fingerprint was noted."""
        if self.also and noted.rpartition(";")[0] == self.fingerprint.rpartition(";")[0]:
            return f"{self.also} changed"
        return "its input has changed"


@dataclass(frozen=True)
class Plan:
    """What a run has to do: the keys of inputs to be worked on, each with the reason, and of those that are done."""

    todo: dict[str, str]
    done: list[str]
