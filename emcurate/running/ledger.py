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

import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from emcurate import __version__
from emcurate.addresses import Address, Place
from emcurate.errors import InputError
from emcurate.outputs import Output
from emcurate.partials import remove_stale_partials
from emcurate.running.comparison import Comparison, as_json, remove_result
from emcurate.running.disk import remember_room
from emcurate.running.gone import settle_gone
from emcurate.running.ledger_file import LedgerFile, ledger_path, lock_path
from emcurate.running.ledger_lines import BEGUN, DONE, SPOILT, STRANGE, Line, digest_parameters, read_outputs
from emcurate.running.locks import before_release, hold_lock, holds_alone, settle
from emcurate.running.refusals import (
    refuse_changed,
    refuse_other_parameters,
    refuse_other_roots,
    refuse_taken_names,
    remove_others_parameters,
)
from emcurate.running.report import Report
from emcurate.running.sources import Plan, Source
from emcurate.running.spelled_paths import path_as_text
from emcurate.running.unchanged import Unchanged

# Seconds between two notes of what is done. A file system takes a tenth of a second to put out what it holds back.
NOTED_SECONDS = 5.0

MAKE_ANEW = "let it be until a run has ended, and run the same command again with --overwrite"


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
        self._header = Line(
            stage=stage,
            product=product,
            version=__version__,
            parameters=as_json(parameters),
            among_inputs=among_inputs,
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
        self._run = Comparison(directory, self._file, self._header, owner_of, {}, Report(stage))
        self._unchanged = Unchanged(())
        self._ours: dict[str, set[str]] = {}
        self._strangers: dict[str, set[str]] = {}

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
        unusable: Collection[str] = (),
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
        unusable : collection of str
            Datasets of which something is there that cannot be used: these are not gone.

        Raises
        ------
        InputError
            If there are results of other parameters and neither `overwrite` nor `renew` is set.
        """
        report.directory = self.directory
        place = path_as_text(root if isinstance(root, Address) else os.path.realpath(root))
        run = self._run = Comparison(
            self.directory, self._file, self._header, self.owner_of, sources, report, place, named, overwrite, unusable
        )
        unnoted = run.find_unnoted()
        if self._one_root:
            refuse_other_roots(run)
        refuse_other_parameters(run, unnoted, allowed=overwrite or renew)
        refused = settle_gone(run, unnoted, remove=prune or overwrite)
        refused |= refuse_taken_names(run, unnoted)
        todo: dict[str, str] = {}
        done: list[str] = []
        stale: dict[str, dict[str, str]] = defaultdict(dict)
        for key, source in sources.items():
            if source.dataset in refused:
                continue
            reason = run.why(key, source, bool(unnoted.get(key)))
            if reason is None:
                done.append(key)
            elif reason.is_change and not (overwrite or renew or source.is_renewed):
                stale[source.dataset][key] = reason.words
            else:
                todo[key] = reason.words
        for dataset, reasons in stale.items():
            # New parts beside old ones would be a dataset that never was.
            is_of_parts = any(sources[key].is_part for key in reasons)
            waiting = {key: why for key, why in todo.items() if is_of_parts and sources[key].dataset == dataset}
            todo = {key: why for key, why in todo.items() if key not in waiting}
            refuse_changed(run, reasons, waiting)
        self._unchanged = Unchanged(sources[key].path for key in todo if sources[key].is_read_on)
        for key in todo:
            self._tell_apart(key, unnoted.get(key, set()))
        if overwrite:
            remove_others_parameters(run, todo)
        self._file.append([*self._opening(todo), *self._moved(done)])
        self._file.compact()
        return Plan(todo, done)

    def replaces(self, key: str) -> bool:
        """Return whether files of an input that are there may be replaced: they are this stage's own, or must go."""
        return self._run.overwrite or not self._strangers.get(key)

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

    def removed_by(self, key: str, outputs: Iterable[Output]) -> list[str]:
        """Return the files that `finish` with these outputs would remove: those an earlier run made, noted or not."""
        kept = {output.name for output in outputs}
        return [name for name in self._ours.get(key, ()) if name not in kept and (self.directory / name).exists()]

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
        self._file.write_taken(self._refuse_changed)
        self._noted = time.monotonic()

    def _refuse_changed(self, lines: list[Line]) -> list[Line]:
        """Return lines as they may be noted: what came of an input that has changed meanwhile may be of both."""
        sources = {line.input: self._run.sources[line.input] for line in lines if line.input in self._run.sources}
        changed = self._unchanged.find_changed(source.path for source in sources.values())
        for path in sorted(changed, key=str):
            wanted, found = "the input that this run began with", "that it was changed while it was read"
            self._run.report.fail(InputError(path, wanted, found, MAKE_ANEW))
        of_changed = {key for key, source in sources.items() if source.path in changed}
        return [replace(line, state=SPOILT) if line.input in of_changed else line for line in lines]

    def _finished(
        self, key: str, outputs: list[Output], details: Mapping[str, Any], beside_strangers: bool
    ) -> Line | None:
        """Remove what else there is of an input, and return its line; None if others' files of its name are there."""
        entries = {output.name.partition("/")[0] for output in outputs}
        strangers = sorted(name for name in self._strangers.get(key, ()) if name.rstrip("/") not in entries)
        if strangers and not beside_strangers:
            found = f"{len(strangers):,} other files of its name, of which nobody knows how they were made"
            advice = "use another output directory, or --overwrite to remove them"
            wanted = f"only what this run makes of {self._run.sources[key].path}"
            self._run.report.fail(InputError(self.directory / strangers[0], wanted, found, advice))
            return None
        names = {output.name for output in outputs}
        for name in self._ours.pop(key, set()):
            if name not in names and name.rstrip("/") not in entries:
                remove_result(self.directory, name.rstrip("/"))
        line = self._describe(key, DONE)
        line.details, line.strangers = as_json(details), strangers
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
            and line.made_with == self._run.made_with
            and line.fingerprint == source.fingerprint
            and line.settings == self._run.settings_of(source)
        )

    def _tell_apart(self, key: str, unnoted: set[str]) -> None:
        """Settle which files of an input's name are this stage's own, and which lay there before."""
        entry = self.entries.get(key)
        if self._run.overwrite:
            strangers: set[str] = set()
        elif entry is None:
            strangers = unnoted
        else:
            strangers = unnoted & set(entry.strangers)
        noted = {output.name for output in read_outputs(entry)} if entry is not None else set()
        self._strangers[key], self._ours[key] = strangers, noted | (unnoted - strangers)

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
            if entry.root != self._run.root or entry.source != path_as_text(self._run.sources[key].path):
                line = self._describe(key, DONE)
                line.details, line.outputs, line.wanted = entry.details, entry.outputs, entry.wanted
                line.strangers = entry.strangers
                yield line

    def _describe(self, key: str, state: str) -> Line:
        source = self._run.sources[key]
        return Line(
            input=key,
            state=state,
            made_with=self._run.made_with,
            source=path_as_text(source.path),
            root=self._run.root,
            fingerprint=source.fingerprint,
            dataset=source.dataset,
            owner=path_as_text(source.owner or source.path),
            settings=self._run.settings_of(source),
            is_part=source.is_part,
            wanted=source.wanted,
        )


def _walk(directory: Path) -> Iterator[Path]:
    """Yield a directory and all below it, hidden ones left out: where stages keep what is only for themselves."""
    for place, directories, _ in os.walk(directory):
        directories[:] = [name for name in directories if not name.startswith(".")]
        yield Path(place)
