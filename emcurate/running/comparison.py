"""What there is in an output directory, beside what a run is to make there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from emcurate.durability import sync_outputs
from emcurate.files import is_directory
from emcurate.outputs import find_damaged
from emcurate.running.ledger_file import LedgerFile
from emcurate.running.ledger_lines import BEGUN, DONE, DROPPED, SPOILT, STRANGE, Line, digest_parameters, read_outputs
from emcurate.running.report import Report
from emcurate.running.sources import Source

# Names that a message shows before it only counts the rest.
NAMES_SHOWN = 5


@dataclass
class Comparison:
    """What a run finds noted, and what it is asked for; see `emcurate.running.ledger.Ledger`, which it is part of.

    Attributes
    ----------
    directory : Path
        The output directory.
    file : LedgerFile
        What is noted of it.
    header : Line
        What this run makes: its parameters, and the product.
    owner_of : callable
        Whose a file is, by its name.
    sources : mapping of str to Source
        The inputs by key.
    report : Report
    root : str
        The input directory, or the list of inputs, as text.
    named : collection of str or None
        All inputs that a list names; None where a directory can be looked through.
    overwrite : bool
        Whether results of changed inputs and other parameters are replaced.
    unusable : collection of str
        Datasets that are there, but cannot be used.
    """

    directory: Path
    file: LedgerFile
    header: Line
    owner_of: Callable[[str], str | None]
    sources: Mapping[str, Source]
    report: Report
    root: str = ""
    named: Collection[str] | None = None
    overwrite: bool = False
    unusable: Collection[str] = ()
    _settings: tuple[Mapping[str, Any], dict[str, Any]] = field(default_factory=lambda: ({}, {}))

    def __post_init__(self) -> None:
        self.parameters = self.header.parameters or {}
        self.made_with = digest_parameters(self.parameters)

    @property
    def entries(self) -> dict[str, Line]:
        """What is noted of each input."""
        return self.file.entries

    def find_unnoted(self) -> dict[str, set[str]]:
        """Return the files that are results of inputs by their names but are not noted, by input.

        The directory is only looked through where some input may have such files.
        """
        unsure = {key for key in self.sources if self.overwrite or self.state_of(key) not in (DONE, SPOILT)}
        unsure |= {key for key, line in self.entries.items() if line.state in (BEGUN, STRANGE) or line.strangers}
        if not unsure:
            return {}
        noted = {
            output.name.partition("/")[0]
            for line in self.entries.values()
            if line.input in unsure
            for output in read_outputs(line)
        }
        found: dict[str, set[str]] = defaultdict(set)
        for name in _names_in(self.directory):
            key = self.owner_of(name)
            if key is not None and key in unsure and name.rstrip("/") not in noted:
                found[key].add(name)
        return dict(found)

    def own_leftovers(self, key: str, unnoted: Mapping[str, set[str]]) -> set[str]:
        """Return what an interrupted run left of an input: what is not noted and did not lie there before."""
        line = self.entries.get(key)
        if line is None:
            return set()
        return unnoted.get(key, set()) - set(line.strangers)

    def state_of(self, key: str) -> str:
        """Return the state of an input, empty where nothing is noted of it."""
        return self.entries[key].state if key in self.entries else ""

    def settings_of(self, source: Source) -> dict[str, Any]:
        """Return what was said of an input as it comes back from a file; all parts of one share it."""
        if source.settings is not self._settings[0]:
            self._settings = source.settings, as_json(source.settings)
        return self._settings[1]

    def remove(self, keys: Iterable[str]) -> None:
        """Remove all that is noted of some inputs, and what is known of them, once the disk has lost it."""
        keys = list(keys)
        made = {key: read_outputs(self.entries[key]) for key in keys if self.entries[key].made_anything}
        self.file.append(msgspec.structs.replace(self.entries[key], state=SPOILT) for key in made)
        names = [output.name for outputs in made.values() for output in outputs]
        for name in names:
            remove_result(self.directory, name)
        if names:
            places = {os.path.dirname(name) for name in names}  # noqa: PTH120 - of names, that may be millions
            sync_outputs(self.directory, (place for place in places if is_directory(self.directory / place)))
        self.file.append(Line(input=key, state=DROPPED) for key in keys)

    def why(self, key: str, source: Source, leftovers: bool) -> Reason | None:
        """Return why an input is to be worked on; None if it is done."""
        entry = self.entries.get(key)
        if entry is None or entry.state == STRANGE:
            return Reason("new")
        if entry.state == BEGUN and not leftovers and not entry.made_anything:
            return Reason("new")
        if entry.made_with != self.made_with:
            old, new = self.spell_change(entry)
            return Reason(f"parameters changed, from {old} to {new}", is_change=True)
        wanted = self.settings_of(source)
        if entry.settings != wanted:
            old, new = spell(changed(entry.settings, wanted)), spell(changed(wanted, entry.settings))
            return Reason(f"made with {old}, now {new}", is_change=True)
        if entry.fingerprint != source.fingerprint:
            return Reason(source.spell_change(entry.fingerprint), is_change=True)
        if entry.state == BEGUN:
            return Reason("interrupted")
        if entry.state == SPOILT:
            return Reason("its results were altered")
        if not source.is_held_by(entry.wanted):
            return Reason("other parts of it are wanted")
        damaged = [output.name for output in find_damaged(self.directory, read_outputs(entry))]
        if damaged:
            return Reason(f"{some(damaged)} missing or damaged")
        return None

    def spell_change(self, line: Line) -> tuple[str, str]:
        """Return how the parameters of an input differ from this run's: the old ones, and the new."""
        before = self.file.parameters.get(line.made_with, {})
        return spell(changed(before, self.parameters)), spell(changed(self.parameters, before))


@dataclass(frozen=True)
class Reason:
    """Why an input is to be worked on; `is_change` where that would replace results of something else."""

    words: str
    is_change: bool = False


def _names_in(directory: Path) -> Iterator[str]:
    """Yield the names of what lies in a directory, hidden things left out; those of directories end in a slash."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                yield f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name


def remove_result(directory: Path, name: str) -> None:
    """Remove a file or directory of results, and the directories that are empty then."""
    path = directory / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    for parent in path.relative_to(directory).parents:
        if parent != Path():
            with contextlib.suppress(OSError):
                (directory / parent).rmdir()  # a directory of results that is empty now


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they come back from a file: tuples as lists."""
    found: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return found


def changed(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that others do not have."""
    return {name: value for name, value in values.items() if name not in others or others[name] != value}


def spell(values: Mapping[str, Any]) -> str:
    """Return parameters in words."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "other parameters"


def some(names: list[str]) -> str:
    """Return the first few of some names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
