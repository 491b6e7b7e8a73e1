"""The two datasheets of a directory of results: `datasheet.json` for programs, `datasheet.md` for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from emcurate.errors import InputError
from emcurate.files import digest_bytes, note_output, read_regular, refuse_different, write_once
from emcurate.patches.joined import JOINED_NAME
from emcurate.reporting.croissant import OWN_TERM, Files, make_croissant
from emcurate.reporting.facts import OF_ALL, Command, Facts, add_small, count_patches, find_parameters
from emcurate.reporting.inputs import Input, digest_inputs, find_state, list_inputs
from emcurate.reporting.provenance import find_commit, find_versions
from emcurate.reporting.results import digest_results, read_ledgers_of
from emcurate.reporting.sheet import make_sheet
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LedgerFile
from emcurate.running.report import Report
from emcurate.running.sources import Source

DATASHEET, SHEET = "datasheet.json", "datasheet.md"


class By(msgspec.Struct, frozen=True):
    """By what results came to be: what there was after the last run that made any, all such runs, and with what."""

    made: str
    commands: list[Command]
    versions: dict[str, str]
    commit: str | None


@dataclass(frozen=True)
class Run:
    """What a datasheet cannot find out: which run this is.

    Attributes
    ----------
    tool, script : str
        What ran, by its name and by its path.
    command : Command
    stages : mapping of str to Path
        The directories of the stages whose results there may be.
    also : tuple of Path
        Inputs that no ledger tells; None is none.
    licences : mapping of str to str
        By dataset; see `emcurate.reporting.facts.parse_licences`.
    contents : bool
        Whether inputs are read for their digests.
    """

    tool: str
    script: str
    command: Command
    stages: Mapping[str, Path]
    also: tuple[Path | None, ...] = ()
    licences: Mapping[str, str] = field(default_factory=dict)
    contents: bool = True


def write_datasheets(ledger: Ledger, run: Run, report: Report, workers: Workers, *, overwrite: bool = False) -> None:
    """Write both datasheets beside the table of all patches, unless they tell of what there is already.

    Raises
    ------
    InputError
        If files of these names are there that are somebody else's.
    """
    out, noted = ledger.directory, ledger.details_of(DATASHEET)
    ledgers = read_ledgers_of(run.stages)
    names = list_inputs(out, ledgers.values(), run.also)
    account = [output.digest for output in ledger.outputs_of(JOINED_NAME)]
    made = digest_of({stage: _digest_made(each) for stage, each in ledgers.items()}, account)
    # A run that has made nothing new is none that results came of.
    before = _decode(noted.get("by"), By)
    by = before if before and before.made == made else _go_on(before, run.command, made)
    # What was said once need not be said again.
    licences = {**(_decode(noted.get("licences"), dict[str, str]) or {}), **run.licences}
    state = digest_of(msgspec.to_builtins(by), licences, {name: find_state(name) for name in names})
    source = Source(out, state, DATASHEET, is_renewed=True)
    plan = ledger.plan({DATASHEET: source}, report, root=out, overwrite=overwrite)
    if plan.done:
        return
    datasets, reasons = count_patches(out / JOINED_NAME)
    if "crop_patches" in ledgers:
        add_small(datasets, ledgers["crop_patches"])
    for dataset in sorted(licences.keys() - {OF_ALL}):
        if dataset not in datasets:
            report.warn(f"--licence {dataset}=…: there is no dataset of that name")
    known = _decode(noted.get("inputs"), list[Input]) or []
    inputs = digest_inputs(names, known, report, workers, contents=run.contents)
    facts = Facts(
        tool=run.tool,
        versions=by.versions,
        commit=by.commit,
        commands=by.commands,
        parameters=find_parameters(ledgers),
        licences=licences,
        inputs=inputs,
        results=digest_results(out, ledgers),
        datasets=datasets,
        reasons=reasons,
    )
    write_both(
        ledger, facts, run.script, find_files(run.stages, out), {"by": by, "inputs": inputs, "licences": licences}
    )
    if not facts.licences:
        report.note(f"{out / SHEET} names no licence of the data; give it with --licence")


def write_both(ledger: Ledger, facts: Facts, script: str, sets: Sequence[Files], details: Mapping[str, Any]) -> None:
    """Write both datasheets, and note them with what the next run will want to know.

    Raises
    ------
    InputError
        If files of these names are there that are somebody else's.
    """
    out = ledger.directory
    name = out.name or "emcurate"
    contents = {
        DATASHEET: make_croissant(facts, name, out / JOINED_NAME, sets),
        SHEET: make_sheet(facts, name, script, DATASHEET),
    }
    replace = ledger.replaces(DATASHEET)
    if not replace:
        refuse_different(out, contents)
    for file, data in contents.items():
        write_once(out / file, data, overwrite=replace)
    outputs = [note_output(out / file, out, data) for file, data in contents.items()]
    ledger.finish(DATASHEET, outputs, msgspec.to_builtins(dict(details)))


def find_files(stages: Mapping[str, Path], out: Path) -> list[Files]:
    """Return the kinds of files that stages of curate.py have made, as far as there are any."""
    kinds = {
        "cleanup2d": [("sections-of-images", "*.tiff", "image/tiff")],
        "cross_section3d": [("sections-of-volumes", "*.tiff", "image/tiff")],
        "crop_patches": [("patch-files", "*.tiff", "image/tiff"), ("shards-of-patches", "*.tar", "application/x-tar")],
        "reconstruct3d": [
            ("subvolumes", "*.npy", "application/x-npy"),
            ("subvolumes-as-tiff", "*.tiff", "image/tiff"),
            ("subvolumes-as-ome-zarr", "*.zarr/**", "application/vnd+zarr"),
            ("subvolumes-to-look-at", "*.webp", "image/webp"),
        ],
    }
    return [
        Files(what, (f"{stages[stage].relative_to(out).as_posix()}/{pattern}",), encoding, what.replace("-", " "))
        for stage, some in kinds.items()
        for what, pattern, encoding in some
        if stage in stages and any(stages[stage].glob(pattern))
    ]


def read_facts(path: Path) -> Facts:
    """Return what a datasheet tells.

    Raises
    ------
    InputError
        If the file is none of this project's.
    """
    try:
        sheet = msgspec.json.decode(read_regular(path))
        return msgspec.convert(sheet[OWN_TERM], Facts)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        found = f"another or damaged file ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        raise InputError(path, "a datasheet that emcurate has written", found, "name datasheet.json in OUT") from None


def _digest_made(ledger: LedgerFile) -> str:
    """Return what changes when a stage has made, or lost, anything."""
    entries = ledger.entries
    lines = (
        f"{key}\0{entries[key].made_with}\0".encode("utf-8", "surrogateescape") + bytes(entries[key].outputs)
        for key in sorted(entries)
    )
    return digest_bytes(b"\n".join(lines))


def digest_of(*values: Any) -> str:
    """Return what changes when any of some JSON values does."""
    return digest_bytes(msgspec.json.encode(values))


def _go_on(before: By | None, now: Command, made: str) -> By:
    commands = before.commands if before else []
    return By(made, commands if commands[-1:] == [now] else [*commands, now], find_versions(), find_commit())


def _decode(values: Any, kind: type[Any]) -> Any:
    """Return what the ledger has kept as a value of a type; None where another version kept something else."""
    try:
        return None if values is None else msgspec.convert(values, kind)
    except msgspec.ValidationError:
        return None
