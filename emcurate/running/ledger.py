"""Whose files are these: what a stage made in an output directory, of which inputs, with which parameters.

The ledger is a file of JSON lines, ``OUTDIR/.emcurate/{stage}.jsonl``. A header line says which stage it is, in which
version and with which parameters; the lines after it tell, input by input, where it lay, its fingerprint, and every
file that came of it with size, time and digest. A later line for an input replaces an earlier one. From this follows:

- results are known as results, wherever they lie (`emcurate.running.claims`);
- what is missing, truncated or altered is made again, and nothing else;
- other parameters and changed inputs are refused, or with ``--overwrite`` replaced whole, never mixed;
- what came of an input that is gone is named, and removed with ``--prune``;
- a dataset's name belongs to one input.

Deleting the file is harmless: the stage then makes everything again and finds the same bytes in place.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from emcurate import __version__
from emcurate.errors import InputError
from emcurate.files import Output, digest_file
from emcurate.running.report import Report

LEDGER_DIRECTORY = ".emcurate"

# Names that a message shows before it only counts the rest.
NAMES_SHOWN = 5

ADVICE = "use another output directory, or --overwrite to make them again"


@dataclass(frozen=True)
class Source:
    """An input, as a ledger sees it.

    Parameters
    ----------
    path : Path
        Where it lies.
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
        Whether the dataset is one input and this a part of it: when parts are gone, the input has changed.
    is_renewed : bool
        Whether its results are made anew without being asked when it has changed, such as a list that grows.
    """

    path: Path
    fingerprint: str
    dataset: str
    owner: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_part: bool = False
    is_renewed: bool = False


@dataclass(frozen=True)
class Plan:
    """What a run has to do: the keys of inputs to be worked on, each with the reason, and of those that are done."""

    todo: dict[str, str]
    done: list[str]


class Line(msgspec.Struct, omit_defaults=True):
    """A line of the file: a header where `stage` is set, else about one input."""

    stage: str = ""
    product: str = ""
    version: str = ""
    parameters: dict[str, Any] | None = None
    among_inputs: bool = False

    input: str = ""
    state: str = ""
    source: str = ""
    root: str = ""
    fingerprint: str = ""
    dataset: str = ""
    owner: str = ""
    settings: dict[str, Any] = {}
    is_part: bool = False
    details: dict[str, Any] = {}
    outputs: msgspec.Raw = msgspec.Raw(b"[]")  # decoded one input at a time: there may be millions


# States of an input: its results are being made, are made, or were made and have been altered since; or, in a
# directory whose ledger was lost, there are files of its name of which nobody knows how they were made. A dropped
# input has no results any more.
BEGUN, DONE, SPOILT, STRANGE, DROPPED = "begun", "done", "spoilt", "strange", "dropped"


def read_outputs(line: Line) -> list[Output]:
    """Return the files that came of an input."""
    return msgspec.json.decode(line.outputs, type=list[Output])


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
    owner_of : callable, optional
        The key of the input that a file of this name belongs to, or None if it is none of this stage's: tells what an
        interrupted run left, which is not noted.
    among_inputs : bool
        Whether the results lie among the stage's own inputs, so that the directory is no output directory.
    """

    def __init__(
        self,
        directory: Path,
        stage: str,
        parameters: Mapping[str, Any],
        *,
        product: str,
        owner_of: Callable[[str], str | None] = lambda name: None,
        among_inputs: bool = False,
    ) -> None:
        self.directory = directory
        self.path = directory / LEDGER_DIRECTORY / f"{stage}.jsonl"
        self.stage = stage
        self.owner_of = owner_of
        self._header = Line(
            stage=stage,
            product=product,
            version=__version__,
            parameters=_as_json(parameters),
            among_inputs=among_inputs,
        )
        self._before, self.entries = _load(self.path)
        self._sources: Mapping[str, Source] = {}
        self._root = ""
        self._report = Report(stage)
        self._overwrite = False
        self._earlier: dict[str, set[str]] = {}
        self._strangers: dict[str, set[str]] = {}

    def plan(
        self,
        sources: Mapping[str, Source],
        report: Report,
        *,
        root: Path,
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
        root : Path
            The input directory: results of other directories' inputs are left alone.
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
        self._sources, self._root, self._report, self._overwrite = sources, _text(root), report, overwrite
        changed = self._compare_parameters(overwrite or renew)
        if changed and overwrite:
            self._remove(key for key in list(self.entries) if key not in sources)
        refused = self._refuse_taken_names()
        refused |= self._settle_gone(prune or overwrite)
        unnoted = self._find_unnoted()
        todo: dict[str, str] = {}
        done: list[str] = []
        stale: dict[str, dict[str, str]] = defaultdict(dict)
        for key, source in sources.items():
            if source.dataset in refused:
                continue
            entry = self.entries.get(key)
            reason = self._why(key, source, entry, changed, bool(unnoted.get(key)))
            if reason is None:
                done.append(key)
            elif reason.is_change and not (overwrite or renew or source.is_renewed):
                stale[source.dataset][key] = reason.words
            else:
                todo[key] = reason.words
                if (entry is None or entry.state == STRANGE) and not overwrite:
                    self._strangers[key] = unnoted.get(key, set())
                else:
                    noted = {output.name for output in read_outputs(entry)} if entry is not None else set()
                    self._earlier[key] = noted | unnoted.get(key, set())
        for reasons in stale.values():
            self._refuse_changed(reasons)
        self._append(*self._opening(todo))
        return Plan(todo, done)

    def replaces(self, key: str) -> bool:
        """Return whether files of an input that are there may be replaced: they are this stage's own, or must go."""
        return self._overwrite or key in self._earlier

    def finish(self, key: str, outputs: Iterable[Output], details: Mapping[str, Any] | None = None) -> None:
        """Note that an input is done, and remove what an earlier run made of it and this one did not.

        `details` are what later stages may want to know of it, such as its voxel size; JSON values.
        """
        outputs = list(outputs)
        names = {output.name for output in outputs}
        entries = names | {name.partition("/")[0] for name in names}
        strangers = sorted(self._strangers.pop(key, set()) - entries)
        if strangers:
            self._report.fail(
                InputError(
                    self.directory / strangers[0],
                    f"only what this run makes of {self._sources[key].path}",
                    f"{len(strangers):,} other files of its name",
                    "use another output directory, or --overwrite to remove them",
                )
            )
            return
        for name in self._earlier.pop(key, set()) - entries:
            _remove(self.directory, name)
        line = self._describe(key, DONE)
        line.details = _as_json(details or {})
        line.outputs = msgspec.Raw(msgspec.json.encode(outputs))
        self._append(line)

    def outputs_of(self, key: str) -> list[Output]:
        """Return the files that came of a finished input."""
        return read_outputs(self.entries[key])

    def _compare_parameters(self, allowed: bool) -> str:
        """Return how the parameters differ from those of what is there, "" if they do not."""
        before, now = (self._before.parameters if self._before else None), self._header.parameters
        if before is None or now is None or before == now or not self._holds_anything():
            return ""
        old, new = _spell(_changed(before, now)), _spell(_changed(now, before))
        if not allowed:
            raise InputError(self.directory, f"results made with {new}", f"results made with {old}", ADVICE)
        return f"parameters changed, from {old} to {new}"

    def _holds_anything(self) -> bool:
        """Return whether there is any result: an input that only failed has left none."""
        if any(line.state in (DONE, SPOILT) or read_outputs(line) for line in self.entries.values()):
            return True
        return bool(self.entries) and any(self.owner_of(name) in self.entries for name in _names_in(self.directory))

    def _refuse_taken_names(self) -> set[str]:
        """Report the datasets whose name belongs to somebody else, and return them."""
        owners: dict[str, Line] = {}
        for held in [*self.entries.values(), *_entries_of_others(self.path, self._header.product)]:
            owners.setdefault(held.dataset.casefold(), held)
        refused: set[str] = set()
        for source in self._sources.values():
            line = owners.get(source.dataset.casefold())
            if line is None or source.dataset in refused:
                continue
            owner = source.owner or source.path
            if line.dataset == source.dataset and _same_place(line.owner, owner):
                continue
            if not Path(line.source).exists():
                continue  # it was moved, or is gone
            self._report.fail(
                InputError(
                    source.path,
                    f"a dataset name of its own in {self.directory}",
                    f"results of {line.source} under the name {line.dataset}",
                    "rename one, or use another output directory",
                )
            )
            refused.add(source.dataset)
        return refused

    def _settle_gone(self, remove: bool) -> set[str]:
        """Remove or name what came of inputs that are gone; return the datasets that only parts of are left of."""
        roots = self._roots_looked_through()
        gone = [key for key, line in self.entries.items() if key not in self._sources and line.root in roots]
        leftovers = self._find_unnoted_of({key for key in gone if not read_outputs(self.entries[key])})
        # An input that failed, or of which nothing came, leaves nothing when it goes.
        traceless = [key for key in gone if not read_outputs(self.entries[key]) and key not in leftovers]
        self._remove(traceless)
        gone = [key for key in gone if key in self.entries]
        if remove:
            if gone:
                self._report.count("inputs gone, their results removed", len(gone))
            for name in (name for names in leftovers.values() for name in names):
                _remove(self.directory, name)
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
        lost = [line.input for line in lines if line.dataset not in cut]
        if lost:
            self._report.warn(
                f"{self.directory}: what {_some(lost)} came of is gone from {self._root}; the results are still there, "
                "and --prune removes them"
            )
        return set(cut)

    def _roots_looked_through(self) -> set[str]:
        """Return the input directories of which this run has seen all inputs: its own, and what that was called before.

        An input of another directory was not looked for, and may well be there.
        """
        moved = {
            line.root
            for key, line in self.entries.items()
            if key in self._sources and line.fingerprint == self._sources[key].fingerprint
        }
        return {self._root, *(root for root in moved if not Path(root).exists())}

    def _find_unnoted(self) -> dict[str, set[str]]:
        """Return the files that belong to inputs of this run and are not noted, by input."""
        fresh = self._before is None
        return self._find_unnoted_of(
            {key for key in self._sources if fresh or self._overwrite or self._state(key) in (BEGUN, STRANGE)}
        )

    def _find_unnoted_of(self, keys: set[str]) -> dict[str, set[str]]:
        """Return the files that belong to some inputs and are not noted, by input."""
        if not keys:
            return {}
        lines = (self.entries[key] for key in keys if key in self.entries)
        noted = {output.name.partition("/")[0] for line in lines for output in read_outputs(line)}
        found: dict[str, set[str]] = defaultdict(set)
        for name in _names_in(self.directory):
            key = self.owner_of(name)
            if key is not None and key in keys and name not in noted:
                found[key].add(name)
        return dict(found)

    def _state(self, key: str) -> str:
        return self.entries[key].state if key in self.entries else ""

    def _why(self, key: str, source: Source, entry: Line | None, changed: str, leftovers: bool) -> _Reason | None:
        """Return why an input is to be worked on; None if it is done."""
        if entry is None or entry.state == STRANGE:
            return _Reason("new")
        if entry.state == BEGUN and not leftovers and not read_outputs(entry):
            return _Reason("new")
        if changed:
            return _Reason(changed, is_change=True)
        if entry.fingerprint != source.fingerprint:
            return _Reason("its input has changed", is_change=True)
        wanted = _as_json(source.settings)
        if entry.settings != wanted:
            old, new = _spell(_changed(entry.settings, wanted)), _spell(_changed(wanted, entry.settings))
            return _Reason(f"made with {old}, now {new}", is_change=True)
        if entry.state == BEGUN:
            return _Reason("interrupted")
        if entry.state == SPOILT:
            return _Reason("its results were altered")
        outputs = read_outputs(entry)
        damaged = [output.name for output in outputs if not _is_intact(self.directory, output)]
        if damaged:
            return _Reason(f"{_some(damaged)} missing or damaged")
        if entry.root != self._root or entry.source != _text(source.path):
            moved = self._describe(key, DONE)
            moved.details, moved.outputs = entry.details, entry.outputs
            self._append(moved)
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

    def _opening(self, todo: Iterable[str]) -> Iterator[Line]:
        if self._before != self._header:
            yield self._header
        for key in todo:
            line = self._describe(key, STRANGE if self._strangers.get(key) else BEGUN)
            entry = self.entries.get(key)
            if entry is not None:
                line.outputs = entry.outputs  # they are still there, and still this input's
            yield line

    def _describe(self, key: str, state: str) -> Line:
        source = self._sources[key]
        return Line(
            input=key,
            state=state,
            source=_text(source.path),
            root=self._root,
            fingerprint=source.fingerprint,
            dataset=source.dataset,
            owner=_text(source.owner or source.path),
            settings=_as_json(source.settings),
            is_part=source.is_part,
        )

    def _remove(self, keys: Iterable[str]) -> None:
        dropped = []
        for key in keys:
            for output in read_outputs(self.entries[key]):
                _remove(self.directory, output.name)
            dropped.append(Line(input=key, state=DROPPED))
        self._append(*dropped)

    def _append(self, *lines: Line) -> None:
        if not lines:
            return
        for line in lines:
            if line.stage:
                self._before = line
            elif line.state == DROPPED:
                self.entries.pop(line.input, None)
            else:
                self.entries[line.input] = line
        self.path.parent.mkdir(exist_ok=True)
        with open(self.path, "ab") as file:
            # A leading newline too: after a line cut off by a kill, this one still starts afresh.
            file.write(b"\n" + b"\n".join(map(msgspec.json.encode, lines)) + b"\n")


@dataclass(frozen=True)
class _Reason:
    """Why an input is to be worked on; `is_change` where that would replace results of something else."""

    words: str
    is_change: bool = False


def verify(directory: Path, stage: str, report: Report) -> None:
    """Compare every file that a stage made in a directory with the digest noted when it was written.

    What differs is a failure, and is noted, so that the next run makes it again.

    Raises
    ------
    InputError
        If the directory knows nothing of the stage.
    """
    path = directory / LEDGER_DIRECTORY / f"{stage}.jsonl"
    header, entries = _load(path)
    if header is None:
        raise InputError(directory, f"results of {stage}", f"no {LEDGER_DIRECTORY}/{path.name}", "check the directory")
    report.count("files verified", 0)
    spoilt = []
    for line in entries.values():
        for output in read_outputs(line):
            if holds(directory, output):
                report.count("files verified")
                continue
            there = (directory / output.name).exists()
            report.fail(
                InputError(
                    directory / output.name,
                    f"the {output.size:,} bytes that {stage} wrote",
                    "other content" if there else "no such file",
                    "run the same command without --verify to make it again",
                )
            )
            line.state = SPOILT
        if line.state == SPOILT:
            spoilt.append(line)
    if spoilt:
        with contextlib.suppress(OSError), open(path, "ab") as file:  # an archive may be read-only
            file.write(b"\n" + b"\n".join(map(msgspec.json.encode, spoilt)) + b"\n")


def read_ledgers(directory: Path) -> Iterator[tuple[Line, dict[str, Line]]]:
    """Yield the header and the inputs of each stage's ledger in a directory."""
    for path in _ledger_paths(directory):
        header, entries = _load(path)
        if header is not None:
            yield header, entries


def read_headers(directory: Path) -> list[Line]:
    """Return the first header of each stage's ledger in a directory; of one of another version, an empty one."""
    headers = []
    for path in _ledger_paths(directory):
        with open(path, "rb") as file:
            text = next(filter(None, map(bytes.strip, file)), b"")
        try:
            headers.append(msgspec.json.decode(text, type=Line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            headers.append(Line())
    return headers


def _ledger_paths(directory: Path) -> list[Path]:
    return sorted((directory / LEDGER_DIRECTORY).glob("*.jsonl"))


def _entries_of_others(path: Path, product: str) -> Iterator[Line]:
    """Yield the inputs of other stages that make the same in the directory of a ledger."""
    for other in sorted(path.parent.glob("*.jsonl")):
        if other != path:
            header, entries = _load(other)
            if header is not None and header.product == product:
                yield from entries.values()


def _load(path: Path) -> tuple[Line | None, dict[str, Line]]:
    """Return a ledger's last header and its inputs; lines that cannot be read are as good as not written."""
    header: Line | None = None
    entries: dict[str, Line] = {}
    decoder = msgspec.json.Decoder(Line)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, {}
    for text in filter(None, content.split(b"\n")):
        try:
            line = decoder.decode(text)
            read_outputs(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if line.stage:
            header = line
        elif line.state == DROPPED:
            entries.pop(line.input, None)
        elif line.state in (BEGUN, DONE, SPOILT, STRANGE):
            entries[line.input] = line
    return (header, entries) if header is not None else (None, {})


def _is_intact(directory: Path, output: Output) -> bool:
    """Return whether a file is as it was written; its content is read only if its time has changed, as by copying."""
    try:
        # A Path for each of many files would take longer than the call.
        stat = os.stat(f"{directory}/{output.name}")  # noqa: PTH116
    except OSError:
        return False
    return stat.st_size == output.size and (stat.st_mtime_ns == output.mtime_ns or holds(directory, output))


def holds(directory: Path, output: Output) -> bool:
    """Return whether a file's content is what was written."""
    try:
        return digest_file(directory / output.name) == output.digest
    except OSError:
        return False


def _names_in(directory: Path) -> Iterator[str]:
    with os.scandir(directory) as entries:
        yield from (entry.name for entry in entries if not entry.name.startswith("."))


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


def _same_place(noted: str, path: Path) -> bool:
    if noted == _text(path):
        return True
    try:
        return Path(noted).samefile(path)
    except OSError:
        return False


def _text(path: Path) -> str:
    """Return a path as it can stand in JSON; bytes that are no UTF-8 are spelt out."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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
