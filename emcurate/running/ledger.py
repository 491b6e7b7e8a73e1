"""Whose files are these: what a stage made in an output directory, of which inputs, with which parameters.

`emcurate.running.ledger_file` says what is noted. From it follows:

- results are known as results, wherever they lie (`emcurate.running.claims`);
- what is missing, truncated or altered is made again, and nothing else;
- other parameters and changed inputs are refused, or with ``--overwrite`` replaced whole, never mixed;
- what came of an input that is gone is named, and removed with ``--prune``;
- a dataset's name belongs to one input;
- a file that nobody noted, and that lay there before, is its owner's and not touched.

What is done is noted every few seconds, once the disk has it: what a kill or a power cut takes is made again.

Deleting the ledger is harmless: the stage then makes everything again and finds the same bytes in place.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from emcurate import __version__, naming
from emcurate.addresses import Address, Place, parse_address
from emcurate.errors import InputError
from emcurate.files import Output, find_damaged
from emcurate.partials import remove_stale_partials
from emcurate.running.disk import remember_room
from emcurate.running.ledger_file import LedgerFile, ledger_path, ledger_paths, lock_path
from emcurate.running.ledger_lines import BEGUN, DONE, DROPPED, SPOILT, STRANGE, Line, digest_parameters, read_outputs
from emcurate.running.locks import before_release, hold_lock, holds_alone, settle
from emcurate.running.report import Report

# Names that a message shows before it only counts the rest.
NAMES_SHOWN = 5

# Seconds between two notes of what is done. A file system takes a tenth of a second to put out what it holds back.
NOTED_SECONDS = 5.0

# Before the bytes of a path that is no UTF-8.
_BYTES = "bytes:"

ADVICE = "use another output directory, or --overwrite to make them again"


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
    enough: tuple[str, ...] = ()

    def is_held_by(self, noted: str) -> bool:
        """Return whether results noted with these words hold all that is wanted."""
        return noted == self.wanted or any(
            noted.startswith(words[:-1]) if words.endswith("*") else noted == words for words in self.enough
        )


@dataclass(frozen=True)
class Plan:
    """What a run has to do: the keys of inputs to be worked on, each with the reason, and of those that are done."""

    todo: dict[str, str]
    done: list[str]


class Ledger:
    """What one stage made in one output directory.

    Parameters
    ----------
    directory : Path
        The output directory; it must exist when `plan` is called.
    stage : str
        The stage's name, which names the file.
    parameters : mapping
        What the results are made with; JSON values. One directory holds results of one set of parameters.
    product : str
        What the stage makes: volumes, sections, patches, ... Two stages that make the same in one directory must not
        give it one name.
    owner_of : callable
        The key of the input that a file of this name is a result of, or None if it is none of this stage's. The name
        of a directory ends in a slash.
    among_inputs : bool
        Whether the results lie among the stage's own inputs, so that the directory is no output directory.
    one_root : bool
        Whether one directory holds the results of one input directory only.

    Raises
    ------
    InputError
        If another run of the stage is under way there. No other can start as long as this process goes on, or until
        `emcurate.running.locks.release_locks`.
    """

    def __init__(
        self,
        directory: Path,
        stage: str,
        parameters: Mapping[str, Any],
        *,
        product: str,
        owner_of: Callable[[str], str | None],
        among_inputs: bool = False,
        one_root: bool = False,
    ) -> None:
        self.directory = directory
        self.stage = stage
        self.owner_of = owner_of
        self._one_root = one_root
        self._parameters = _as_json(parameters)
        self._made_with = digest_parameters(self._parameters)
        self._header = Line(
            stage=stage, product=product, version=__version__, parameters=self._parameters, among_inputs=among_inputs
        )
        path = ledger_path(directory, stage)
        lock = lock_path(directory, stage)
        hold_lock(lock, directory)
        for swept in (directory, *_walk(path.parent)):
            remove_stale_partials(swept, alone=holds_alone(lock))
        remember_room(directory)
        self._noted = time.monotonic()
        settle(lock)
        self._file = LedgerFile(path)
        before_release(lock, self.note)  # not sooner: a file that cannot be read has nothing to note
        self._file.compact()
        self._sources: Mapping[str, Source] = {}
        self._root = ""
        self._report = Report(stage)
        self._overwrite = False
        self._named: Collection[str] | None = None
        self._ours: dict[str, set[str]] = {}
        self._strangers: dict[str, set[str]] = {}
        self._settings: tuple[Mapping[str, Any], dict[str, Any]] = ({}, {})

    @property
    def entries(self) -> dict[str, Line]:
        """What is noted of each input."""
        return self._file.entries

    def plan(
        self,
        sources: Mapping[str, Source],
        report: Report,
        *,
        root: Place,
        named: Collection[str] | None = None,
        overwrite: bool = False,
        prune: bool = False,
        renew: bool = False,
    ) -> Plan:
        """Compare what there is with what there should be, and return what is to be done.

        Parameters
        ----------
        sources : mapping of str to Source
            The inputs by key, in the order in which they are to be worked on.
        report : Report
            Receives what is refused and what is gone.
        root : Path or Address
            The input directory, or the list of inputs: results of other directories' inputs are left alone.
        named : collection of str, optional
            All inputs that a list names, which are there as long as it does. Of a directory it can be seen.
        overwrite : bool
            Replace results of changed inputs and other parameters, so that the directory becomes that of a fresh run.
        prune : bool
            Remove what came of inputs that are gone.
        renew : bool
            Replace everything without being asked: for results that cost little and are this stage's own.

        Raises
        ------
        InputError
            If there are results of other parameters and neither `overwrite` nor `renew` is set.
        """
        self._sources, self._report, self._overwrite = sources, report, overwrite
        report.directory = self.directory
        self._root = path_as_text(root if isinstance(root, Address) else os.path.realpath(root))
        self._named = named
        unnoted = self._find_unnoted()
        self._refuse_other_roots()
        self._refuse_other_parameters(unnoted, overwrite or renew)
        refused = self._settle_gone(unnoted, prune or overwrite)
        refused |= self._refuse_taken_names()
        todo: dict[str, str] = {}
        done: list[str] = []
        stale: dict[str, dict[str, str]] = defaultdict(dict)
        for key, source in sources.items():
            if source.dataset in refused:
                continue
            reason = self._why(key, source, bool(unnoted.get(key)))
            if reason is None:
                done.append(key)
            elif reason.is_change and not (overwrite or renew or source.is_renewed):
                stale[source.dataset][key] = reason.words
            else:
                todo[key] = reason.words
        for dataset, reasons in stale.items():
            self._refuse_changed(reasons)
            # New parts beside old ones would be a dataset that never was.
            if any(sources[key].is_part for key in reasons):
                todo = {key: why for key, why in todo.items() if sources[key].dataset != dataset}
        for key in todo:
            self._tell_apart(key, unnoted.get(key, set()))
        if overwrite:
            self._remove_others_parameters(todo)
        self._file.append([*self._opening(todo), *self._moved(done)])
        self._file.compact()
        return Plan(todo, done)

    def replaces(self, key: str) -> bool:
        """Return whether files of an input that are there may be replaced: they are this stage's own, or must go."""
        return self._overwrite or not self._strangers.get(key)

    def expect(self, key: str, outputs: Iterable[Output]) -> None:
        """Note what an input that is being worked on has, and what will come, without a digest, if it is not there yet.

        Then a run that is killed leaves nothing of which nobody knows whose it is.
        """
        before = self.entries[key]
        line = self._describe(key, STRANGE if before.strangers else BEGUN)
        line.strangers = before.strangers
        line.outputs = msgspec.Raw(msgspec.json.encode(list(outputs)))
        self._file.append([line])

    def announce(self, key: str, outputs: Iterable[Output]) -> None:
        """Note what is about to be written of an input, beside what is noted of it already.

        After a kill it is then known that files of this content are this stage's own; `finish` replaces the note. Where
        others' files are in the way nothing is noted: none of them is replaced.
        """
        if not self._strangers.get(key):
            self.expect(key, [*self.outputs_of(key), *outputs])

    def finish(self, key: str, outputs: Iterable[Output], details: Mapping[str, Any] | None = None) -> None:
        """Note that an input is done, and remove what an earlier run made of it and this one did not.

        `details` are what later stages may want to know of it, such as its voxel size; JSON values.
        """
        self.finish_all({key: outputs}, details)

    def finish_all(
        self,
        made: Mapping[str, Iterable[Output]],
        details: Mapping[str, Any] | None = None,
        *,
        beside_strangers: bool = False,
    ) -> None:
        """Note that several inputs are done, as `finish` would.

        With `beside_strangers` they are even where others' files of their names lie, which stay others' files.
        """
        for key, outputs in made.items():
            line = self._finished(key, list(outputs), details or {}, beside_strangers)
            if line is not None:
                self._file.take(line)
        if time.monotonic() - self._noted > NOTED_SECONDS:
            self.note()

    def note(self) -> None:
        """Have the disk keep what is done, and then a note of it; done by itself every few seconds and at the end.

        Raises
        ------
        OSError
            If the disk could not take it; what is not noted is made again by the next run.
        """
        self._file.write_taken()
        self._noted = time.monotonic()

    def _finished(
        self, key: str, outputs: list[Output], details: Mapping[str, Any], beside_strangers: bool
    ) -> Line | None:
        """Remove what else there is of an input, and return its line; None if others' files of its name are there."""
        entries = {output.name.partition("/")[0] for output in outputs}
        strangers = sorted(name for name in self._strangers.get(key, ()) if name.rstrip("/") not in entries)
        if strangers and not beside_strangers:
            found = f"{len(strangers):,} other files of its name, of which nobody knows how they were made"
            advice = "use another output directory, or --overwrite to remove them"
            wanted = f"only what this run makes of {self._sources[key].path}"
            self._report.fail(InputError(self.directory / strangers[0], wanted, found, advice))
            return None
        names = {output.name for output in outputs}
        for name in self._ours.pop(key, set()):
            if name not in names and name.rstrip("/") not in entries:
                _remove(self.directory, name.rstrip("/"))
        line = self._describe(key, DONE)
        line.details, line.strangers = _as_json(details), strangers
        line.outputs = msgspec.Raw(msgspec.json.encode(outputs))
        return line

    def state_of(self, key: str) -> str:
        """Return what changes when an input or its parameters do, as they are noted."""
        line = self.entries.get(key)
        if line is None:
            return ""
        return digest_parameters({"of": [line.made_with, line.fingerprint, line.settings]})

    def outputs_of(self, key: str) -> list[Output]:
        """Return the files that are noted of an input."""
        return read_outputs(self.entries[key]) if key in self.entries else []

    def details_of(self, key: str) -> dict[str, Any]:
        """Return what `finish` was told of an input."""
        return self.entries[key].details if key in self.entries else {}

    def count_of(self, key: str, noun: str) -> int:
        """Return a count among what `finish` was told of an input, 0 where there is none."""
        return self.entries[key].count_of(noun) if key in self.entries else 0

    def is_as_noted(self, key: str, source: Source) -> bool:
        """Return whether an input is the one that is noted, done or begun, with the parameters of this run."""
        line = self.entries.get(key)
        return (
            line is not None
            and line.made_with == self._made_with
            and line.fingerprint == source.fingerprint
            and line.settings == self._settings_of(source)
        )

    def _find_unnoted(self) -> dict[str, set[str]]:
        """Return the files that are results of inputs by their names but are not noted, by input.

        The directory is only looked through where some input may have such files.
        """
        unsure = {key for key in self._sources if self._overwrite or self._state(key) not in (DONE, SPOILT)}
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

    def _refuse_other_roots(self) -> None:
        """Raise `InputError` if there are results of another input directory where there may be one only."""
        if not self._one_root:
            return
        other = {line.root for line in self.entries.values()} - self._roots_looked_through()
        if not other:
            return
        if not self._overwrite:
            found, advice = (
                f"those of {_some(sorted(other))}",
                "use another output directory, or --overwrite to replace them",
            )
            raise InputError(self.directory, f"results of {self._root}", found, advice)
        made = sum(line.made_anything for line in self.entries.values() if line.root in other)
        if made:
            self._report.warn(
                f"{self.directory}: results of {made:,} inputs in {_some(sorted(other))} are removed, since it holds "
                "those of one input directory only"
            )
        self._remove([key for key, line in self.entries.items() if line.root in other])

    def _refuse_other_parameters(self, unnoted: Mapping[str, set[str]], allowed: bool) -> None:
        """Raise `InputError` if there is any result of other parameters; an input that only failed has left none."""
        for key, line in self.entries.items():
            if line.made_with != self._made_with and (line.made_anything or self._own_leftovers(key, unnoted)):
                if not allowed:
                    old, new = self._spell_change(line)
                    raise InputError(self.directory, f"results made with {new}", f"results made with {old}", ADVICE)
                return

    def _own_leftovers(self, key: str, unnoted: Mapping[str, set[str]]) -> set[str]:
        """Return what an interrupted run left of an input: what is not noted and did not lie there before."""
        line = self.entries.get(key)
        if line is None:
            return set()
        return unnoted.get(key, set()) - set(line.strangers)

    def _spell_change(self, line: Line) -> tuple[str, str]:
        before = self._file.parameters.get(line.made_with, {})
        return _spell(_changed(before, self._parameters)), _spell(_changed(self._parameters, before))

    def _settle_gone(self, unnoted: Mapping[str, set[str]], remove: bool) -> set[str]:
        """Remove or name what came of inputs that are gone; return the datasets that only parts of are left of."""
        roots = self._roots_looked_through()
        candidates = [key for key, line in self.entries.items() if key not in self._sources and line.root in roots]
        datasets = {source.dataset for source in self._sources.values()}
        renamed = self._find_renamed(candidates)
        gone = [
            key
            for key in candidates
            if key in renamed or self._is_divided_otherwise(key, datasets) or self._has_gone(key)
        ]
        # An input that failed, or of which nothing came, leaves nothing when it goes.
        traceless = [k for k in gone if not self.entries[k].made_anything and not self._own_leftovers(k, unnoted)]
        leftovers = {key: self._own_leftovers(key, unnoted) for key in gone}
        self._remove(traceless)
        gone = [key for key in gone if key in self.entries]
        if not gone:
            return set()
        if remove:
            self._report.count("inputs gone, their results removed", len(gone))
            for name in (name for key in gone for name in leftovers[key]):
                _remove(self.directory, name.rstrip("/"))
            self._remove(gone)
            return set()
        left = {source.dataset for source in self._sources.values()}
        lines = [self.entries[key] for key in gone]
        cut = Counter(line.dataset for line in lines if line.is_part and line.dataset in left)
        for dataset, count in cut.items():
            self._report.fail(
                InputError(
                    self.directory,
                    f"results of {dataset} as it now is",
                    f"results of {count:,} parts of it that are gone from {self._root}",
                    "use another output directory, or --overwrite to make them again (--prune only removes these)",
                )
            )
        for old, new in sorted({(self.entries[key].dataset, renamed[key]) for key in gone if key in renamed}):
            what = f"results under the name {old} are of what is now called {new}"
            self._report.warn(f"{self.directory}: {what}; they are still there, and --prune removes them")
        lost = [line.input for line in lines if line.dataset not in cut and line.input not in renamed]
        if lost:
            self._report.warn(
                f"{self.directory}: what {_some(lost)} came of is gone from {self._root}; the results are still there, "
                "and --prune removes them"
            )
        return set(cut)

    def _has_gone(self, key: str) -> bool:
        """Return whether an input is no longer there, or no longer named by the list that is the root."""
        source = self.entries[key].source
        return _is_gone(source) if self._named is None else source not in self._named

    def _find_renamed(self, candidates: Iterable[str]) -> dict[str, str]:
        """Return the dataset's name by the keys of results whose input is here under another one.

        Those are of inputs in directories called ``slices`` and the like, which were once named after them.
        """
        old = [key for key in candidates if naming.tells_no_name(self.entries[key].dataset)]
        names = {path_as_text(source.path): source.dataset for source in self._sources.values()} if old else {}
        return {key: names[self.entries[key].source] for key in old if self.entries[key].source in names}

    def _is_divided_otherwise(self, key: str, datasets: Collection[str]) -> bool:
        """Return whether a part that this run does not have is of an input that it has, all of which is replaced."""
        line = self.entries[key]
        return self._overwrite and line.is_part and line.source == line.owner and line.dataset in datasets

    def _roots_looked_through(self) -> set[str]:
        """Return the input directories of which this run has seen all inputs: its own, and what that was called before.

        An input of another directory was not looked for, and may well be there. A directory that is not there was
        moved to this run's if most of its inputs are found here as they were.
        """
        inputs: Counter[str] = Counter()
        found: Counter[str] = Counter()
        for key, line in self.entries.items():
            inputs[line.root] += 1
            found[line.root] += key in self._sources and line.fingerprint == self._sources[key].fingerprint
        moved = {root for root in inputs if found[root] > inputs[root] / 2 and _is_gone(root)}
        return {self._root, *moved}

    def _refuse_taken_names(self) -> set[str]:
        """Report the datasets whose name belongs to somebody else, and return them."""
        holders: dict[str, list[Line]] = defaultdict(list)
        for line in [*self.entries.values(), *_entries_of_others(self._file.path, self._header.product)]:
            if line.made_anything:
                holders[naming.fold(line.dataset)].append(line)
        refused: set[str] = set()
        settled: set[str] = set()
        for source in self._sources.values():
            if source.dataset in refused or source.dataset in settled:
                continue
            owner = source.owner or source.path
            others = [
                line
                for line in holders[naming.fold(source.dataset)]
                if line.dataset != source.dataset or not _same_place(line.owner, owner)
            ]
            rival = next((line for line in others if not self._is_same(line)), None)
            if rival is None:
                settled.add(source.dataset)
                continue
            gone = " (which is gone: --prune on its stage removes them)" if _is_gone(rival.source) else ""
            self._report.fail(
                InputError(
                    source.path,
                    f"a dataset name of its own in {self.directory}",
                    f"results of {rival.source}{gone} under the name {rival.dataset}",
                    "rename one, or use another output directory",
                )
            )
            refused.add(source.dataset)
        return refused

    def _is_same(self, line: Line) -> bool:
        """Return whether an input of this run is the one that a line tells of, moved or copied: it is as that was."""
        source = self._sources.get(line.input)
        same = source is not None and self.entries.get(line.input) is line and source.dataset == line.dataset
        return same and source is not None and source.fingerprint == line.fingerprint

    def _state(self, key: str) -> str:
        return self.entries[key].state if key in self.entries else ""

    def _why(self, key: str, source: Source, leftovers: bool) -> _Reason | None:
        """Return why an input is to be worked on; None if it is done."""
        entry = self.entries.get(key)
        if entry is None or entry.state == STRANGE:
            return _Reason("new")
        if entry.state == BEGUN and not leftovers and not entry.made_anything:
            return _Reason("new")
        if entry.made_with != self._made_with:
            old, new = self._spell_change(entry)
            return _Reason(f"parameters changed, from {old} to {new}", is_change=True)
        wanted = self._settings_of(source)
        if entry.settings != wanted:
            old, new = _spell(_changed(entry.settings, wanted)), _spell(_changed(wanted, entry.settings))
            return _Reason(f"made with {old}, now {new}", is_change=True)
        if entry.fingerprint != source.fingerprint:
            return _Reason("its input has changed", is_change=True)
        if entry.state == BEGUN:
            return _Reason("interrupted")
        if entry.state == SPOILT:
            return _Reason("its results were altered")
        if not source.is_held_by(entry.wanted):
            return _Reason("other parts of it are wanted")
        damaged = [output.name for output in find_damaged(self.directory, read_outputs(entry))]
        if damaged:
            return _Reason(f"{_some(damaged)} missing or damaged")
        return None

    def _refuse_changed(self, reasons: Mapping[str, str]) -> None:
        """Report the inputs of one dataset whose results are those of something else, each with how that differs."""
        first = self._sources[next(iter(reasons))]
        path = first.path if len(reasons) == 1 else first.owner or first.path
        more = f" ({len(reasons):,} inputs)" if len(reasons) > 1 else ""
        self._report.fail(
            InputError(
                path,
                f"the input that its results in {self.directory} were made of",
                f"another: {'; '.join(sorted(set(reasons.values())))}{more}",
                ADVICE,
            )
        )

    def _tell_apart(self, key: str, unnoted: set[str]) -> None:
        """Settle which files of an input's name are this stage's own, and which lay there before."""
        entry = self.entries.get(key)
        if self._overwrite:
            strangers: set[str] = set()
        elif entry is None:
            strangers = unnoted
        else:
            strangers = unnoted & set(entry.strangers)
        noted = {output.name for output in read_outputs(entry)} if entry is not None else set()
        self._strangers[key], self._ours[key] = strangers, noted | (unnoted - strangers)

    def _remove_others_parameters(self, todo: Mapping[str, str]) -> None:
        """Remove all results of other parameters that this run does not replace, and say whose they were."""
        others = [key for key, line in self.entries.items() if line.made_with != self._made_with and key not in todo]
        made = [self.entries[key] for key in others if self.entries[key].made_anything]
        if made:
            roots = _some(sorted({line.root for line in made}))
            self._report.warn(
                f"{self.directory}: results of {len(made):,} other inputs, from {roots}, were made with other "
                "parameters and are removed; run the stage on them again"
            )
        self._remove(others)

    def _opening(self, todo: Iterable[str]) -> Iterator[Line]:
        if self._file.header != self._header:
            yield self._header
        for key in todo:
            strangers = self._strangers[key]
            line = self._describe(key, STRANGE if strangers else BEGUN)
            line.strangers = sorted(strangers)
            entry = self.entries.get(key)
            if entry is not None:
                line.outputs = entry.outputs  # they are still there, and still this input's
            yield line

    def _moved(self, done: Iterable[str]) -> Iterator[Line]:
        """Yield a line for each input that is done and now lies elsewhere."""
        for key in done:
            entry = self.entries[key]
            if entry.root != self._root or entry.source != path_as_text(self._sources[key].path):
                line = self._describe(key, DONE)
                line.details, line.outputs, line.wanted = entry.details, entry.outputs, entry.wanted
                line.strangers = entry.strangers
                yield line

    def _settings_of(self, source: Source) -> dict[str, Any]:
        """Return what was said of an input as it comes back from a file; all parts of one share it."""
        if source.settings is not self._settings[0]:
            self._settings = source.settings, _as_json(source.settings)
        return self._settings[1]

    def _describe(self, key: str, state: str) -> Line:
        source = self._sources[key]
        return Line(
            input=key,
            state=state,
            made_with=self._made_with,
            source=path_as_text(source.path),
            root=self._root,
            fingerprint=source.fingerprint,
            dataset=source.dataset,
            owner=path_as_text(source.owner or source.path),
            settings=self._settings_of(source),
            is_part=source.is_part,
            wanted=source.wanted,
        )

    def _remove(self, keys: Iterable[str]) -> None:
        """Remove all that is noted of some inputs, and what is known of them."""
        dropped = []
        for key in keys:
            for output in read_outputs(self.entries[key]):
                _remove(self.directory, output.name)
            dropped.append(Line(input=key, state=DROPPED))
        self._file.append(dropped)


@dataclass(frozen=True)
class _Reason:
    """Why an input is to be worked on; `is_change` where that would replace results of something else."""

    words: str
    is_change: bool = False


def _entries_of_others(path: Path, product: str) -> Iterator[Line]:
    """Yield the inputs of other stages that make the same in the directory of a ledger."""
    for other in ledger_paths(path.parent.parent):
        if other != path:
            ledger = LedgerFile(other)
            if ledger.header is not None and ledger.header.product == product:
                yield from ledger.entries.values()


def _walk(directory: Path) -> Iterator[Path]:
    """Yield a directory and all below it, hidden ones left out: where stages keep what is only for themselves."""
    for place, directories, _ in os.walk(directory):
        directories[:] = [name for name in directories if not name.startswith(".")]
        yield Path(place)


def _names_in(directory: Path) -> Iterator[str]:
    """Yield the names of what lies in a directory, hidden things left out; those of directories end in a slash."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                yield f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name


def _remove(directory: Path, name: str) -> None:
    path = directory / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    for parent in path.relative_to(directory).parents:
        if parent != Path():
            with contextlib.suppress(OSError):
                (directory / parent).rmdir()  # a directory of results that is empty now


def _is_gone(text: str) -> bool:
    """Return whether nothing of that name is there: not what cannot be looked at, nor a link to a disk that is away."""
    try:
        os.lstat(path_of_text(text))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _same_place(text: str, path: Place) -> bool:
    if text == path_as_text(path):
        return True
    if isinstance(path, Address):
        return False
    try:
        return Path(path_of_text(text)).samefile(path)
    except OSError:
        return False


def path_as_text(path: str | Place) -> str:
    """Return a path as it can stand in JSON; one with bytes that are no UTF-8 as the numbers of all its bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"{_BYTES}{os.fsencode(path).hex()}"
    return str(path)


def place_of_text(text: str) -> Place:
    """Return the path or address of a text, the inverse of `path_as_text`."""
    with contextlib.suppress(naming.GrammarError):
        return parse_address(text) or Path(path_of_text(text))
    return Path(path_of_text(text))


def path_of_text(text: str) -> str:
    """Return the path of a text, the inverse of `path_as_text`."""
    with contextlib.suppress(ValueError):
        if text.startswith(_BYTES):
            return os.fsdecode(bytes.fromhex(text.removeprefix(_BYTES)))
    return text


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they come back from a file: tuples as lists."""
    found: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return found


def _changed(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in others or others[name] != value}


def _spell(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "other parameters"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
