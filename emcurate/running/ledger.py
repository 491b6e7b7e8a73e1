"""What a stage has finished in an output directory, so that a rerun does only what is new.

The ledger is a file of JSON lines, ``OUTDIR/.emcurate/{stage}.jsonl``: for each finished input its fingerprint,
the parameters it was made with and how many files came of it. A later line for the same input replaces an earlier one.
Deleting the file is harmless: the stage then makes everything again and finds the same bytes in place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emcurate.errors import InputError

LEDGER_DIRECTORY = ".emcurate"


@dataclass(frozen=True)
class Entry:
    """One finished input: what it looked like, how it was treated, how many files were written from it."""

    fingerprint: str
    parameters: Mapping[str, Any]
    outputs: int


@dataclass(frozen=True)
class Plan:
    """What a run has to do: inputs never finished, finished ones whose results are stale (and why), the others."""

    new: list[str]
    stale: dict[str, str]
    done: list[str]


class Ledger:
    """The finished inputs of one stage in one output directory.

    Parameters
    ----------
    directory : Path
        The stage's output directory; it must exist.
    stage : str
        The stage's name, which names the file.
    """

    def __init__(self, directory: Path, stage: str) -> None:
        self.path = directory / LEDGER_DIRECTORY / f"{stage}.jsonl"
        self.entries = self._load()

    def record(self, key: str, entry: Entry) -> None:
        """Note that an input is finished; on disk at once, so that an interrupted run keeps what it did."""
        parameters = _as_json(entry.parameters)
        entry = replace(entry, parameters=parameters)
        if self.entries.get(key) == entry:
            return
        self.entries[key] = entry
        line = {"input": key, **vars(entry), "parameters": parameters}
        self.path.parent.mkdir(exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            # A leading newline too: after a line cut off by a kill, this one still starts afresh.
            file.write("\n" + json.dumps(line, ensure_ascii=False) + "\n")

    def plan(self, fingerprints: Mapping[str, str], parameters: Mapping[str, Any], present: Mapping[str, int]) -> Plan:
        """Sort inputs into new, stale and done.

        Parameters
        ----------
        fingerprints : mapping of str to str
            Each input's key and present fingerprint (see `files.fingerprint`).
        parameters : mapping
            What this run would make the results with; JSON values only.
        present : mapping of str to int
            How many result files of each input lie in the output directory now.
        """
        plan = Plan([], {}, [])
        wanted = _as_json(parameters)
        for key, fingerprint in fingerprints.items():
            entry = self.entries.get(key)
            if entry is None or entry.outputs > present.get(key, 0):
                plan.new.append(key)
            elif entry.parameters != wanted:
                before, now = _changed(entry.parameters, wanted), _changed(wanted, entry.parameters)
                plan.stale[key] = f"parameters changed, from {_spell(before)} to {_spell(now)}"
            elif entry.fingerprint != fingerprint:
                plan.stale[key] = "its input has changed"
            else:
                plan.done.append(key)
        return plan

    def refuse_other_parameters(self, plan: Plan, parameters: Mapping[str, Any]) -> None:
        """Raise `InputError` if any stale input was finished with other parameters than these.

        Mixing, say, patches of two sizes in one directory is never what anybody wants.
        """
        wanted = _as_json(parameters)
        for key in plan.stale:
            before = self.entries[key].parameters
            if before != wanted:
                raise InputError(
                    self.path.parent.parent,
                    f"results made with {_spell(_changed(wanted, before))}",
                    f"results of {key} made with {_spell(_changed(before, wanted))}",
                    "use another output directory, or --overwrite to make them again",
                )

    def _load(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return entries
        for line in filter(None, lines):
            try:
                values = json.loads(line)
                entries[values["input"]] = Entry(values["fingerprint"], values["parameters"], values["outputs"])
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill: that input counts as unfinished
        return entries


def _as_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as they come back from a file: tuples as lists."""
    values: dict[str, Any] = json.loads(json.dumps(dict(parameters)))
    return values


def _changed(parameters: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if others.get(name) != value}


def _spell(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items()) or "other parameters"
