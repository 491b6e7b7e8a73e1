"""The two datasheets of a directory of results: `datasheet.json` for programs, `datasheet.md` for people."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from emcurate.errors import InputError
from emcurate.files import read_regular
from emcurate.licences import OF_ALL
from emcurate.outputs import digest_bytes, note_output
from emcurate.patches.exports.choice import SPLITS
from emcurate.patches.exports.plan import spell
from emcurate.patches.joined import JOINED_NAME
from emcurate.reporting.croissant import OWN_TERM, Files, make_croissant
from emcurate.reporting.facts import Command, Facts, add_small, count_patches, find_parameters
from emcurate.reporting.inputs import Input, digest_inputs, find_state, list_inputs
from emcurate.reporting.provenance import find_commit, find_versions
from emcurate.reporting.results import digest_results, read_ledgers_of
from emcurate.reporting.sheet import make_sheet
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LedgerFile, read_ledgers
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.running.spelled_paths import path_as_text, path_of_text
from emcurate.writing import refuse_different, write_once

DATASHEET, SHEET = "datasheet.json", "datasheet.md"

# The stage whose results are handed over, and what notes their datasheets, beside the pieces of the export itself.
EXPORT, SHEETS_STAGE = "export", "export_datasheets"

# Media types.
TIFF, TAR, ZARR = "image/tiff", "application/x-tar", "application/vnd+zarr"


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
    command : Command, optional
        None where it is not told: for results that are the same in whatever directory, by however many processes.
    stages : mapping of str to Path
        The directories of the stages whose results there may be.
    also : tuple of Path
        Inputs that no ledger tells; None is none.
    licences : mapping of str to str
        By dataset; see `emcurate.licences.parse_licences`.
    contents : bool
        Whether inputs are read for their digests.
    name : str
        Of what there is; by default that of its directory.
    before : tuple of Path
        The directories of the results that these were made of: what they were made with is told too, which datasheets
        tell of them, and the inputs and licences that these name.
    """

    tool: str
    script: str
    command: Command | None
    stages: Mapping[str, Path]
    also: tuple[Path | None, ...] = ()
    licences: Mapping[str, str] = field(default_factory=dict)
    contents: bool = True
    name: str = ""
    before: tuple[Path, ...] = ()


def open_sheets_ledger(out: Path) -> Ledger:
    """Return what a directory knows of the datasheets in it that a single stage wrote about its results."""
    owner_of = {DATASHEET: DATASHEET, SHEET: DATASHEET}.get
    return Ledger(out, SHEETS_STAGE, {}, product="datasheets", owner_of=owner_of)


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
    behind = [place for place in run.before if place != out]  # a list may lie where what is made of it goes
    sheets = find_datasheets(behind, out)
    state = digest_of(msgspec.to_builtins(by), licences, {name: find_state(name) for name in [*names, *sheets]})
    # Of its own, so that a directory that was moved or copied is known to hold it.
    source = Source(out, state, DATASHEET, owner=Path(DATASHEET), is_renewed=True)
    plan = ledger.plan({DATASHEET: source}, report, root=out, overwrite=overwrite)
    if plan.done:
        return
    datasets, reasons = count_patches(out / JOINED_NAME)
    if "crop_patches" in ledgers:
        add_small(datasets, ledgers["crop_patches"])
    for dataset in sorted(licences.keys() - {OF_ALL, *datasets}):
        report.warn(f"--licence {dataset}=…: there is no dataset of that name, and it is not told")
        del licences[dataset]
    told = [facts for path in sheets if (facts := _read_facts(Path(path_of_text(path)), report)) is not None]
    known = _decode(noted.get("inputs"), list[Input]) or []
    inputs = digest_inputs(names, known, report, workers, contents=run.contents)
    all_inputs = [*inputs, *(each for facts in told for each in facts.inputs)]
    facts = Facts(
        tool=run.tool,
        versions=by.versions,
        commit=by.commit,
        commands=by.commands,
        parameters=find_parameters({**_ledgers_in(behind), **ledgers}),
        licences=licences if OF_ALL in licences else _take_over_licences(told, datasets) | licences,
        inputs=[Input(each.path, each.size, each.sha256) for each in all_inputs],
        results=digest_results(out, ledgers),
        datasets=datasets,
        reasons=reasons,
        based_on=[Input(each.path, each.size, each.sha256) for each in digest_inputs(sheets, [], report, workers)],
    )
    details = {"by": by, "inputs": inputs, "licences": licences}
    write_both(ledger, facts, run, find_files(run.stages, out), details)
    if not facts.licences:
        report.note(f"{out / SHEET} names no licence of the data; give it with --licence")


def write_both(ledger: Ledger, facts: Facts, run: Run, sets: Sequence[Files], details: Mapping[str, Any]) -> None:
    """Write both datasheets, and note them with what the next run will want to know.

    Raises
    ------
    InputError
        If files of these names are there that are somebody else's.
    """
    out = ledger.directory
    name = spell(run.name or out.name or "emcurate")
    contents = {
        DATASHEET: make_croissant(facts, name, out / JOINED_NAME, sets),
        SHEET: make_sheet(facts, name, run.script, DATASHEET),
    }
    replace = ledger.replaces(DATASHEET)
    if not replace:
        refuse_different(out, contents)
    for file, data in contents.items():
        write_once(out / file, data, overwrite=replace)
    outputs = [note_output(out / file, out, data) for file, data in contents.items()]
    ledger.finish(DATASHEET, outputs, msgspec.to_builtins(dict(details)))


def find_datasheets(directories: Iterable[Path], but: Path) -> list[str]:
    """Return the datasheets, but one directory's, that tell of results: where these are, or in OUT, which is above."""
    places = dict.fromkeys(place for directory in directories for place in (directory, directory.parent))
    return [path_as_text(path) for place in places if place != but and (path := place / DATASHEET).is_file()]


def _read_facts(path: Path, report: Report) -> Facts | None:
    try:
        return read_facts(path)
    except (InputError, OSError) as error:
        report.warn(f"{error}; what it tells is not taken over")
        return None


def _take_over_licences(told: Iterable[Facts], datasets: Collection[str]) -> dict[str, str]:
    """Return the licences that other datasheets tell of some datasets; as that of all where there is one for all."""
    found: dict[str, str] = {}
    for facts in told:
        known = {name: facts.licences.get(name, facts.licences.get(OF_ALL)) for name in facts.datasets}
        found |= {name: words for name, words in known.items() if words and name in datasets}
    alike = set(found.values())
    return {OF_ALL: alike.pop()} if len(found) == len(datasets) and len(alike) == 1 else found


def _ledgers_in(directories: Iterable[Path]) -> dict[str, LedgerFile]:
    ledgers = (ledger for directory in directories for ledger in read_ledgers(directory))
    return {ledger.header.stage: ledger for ledger in ledgers if ledger.header is not None}


def find_files(stages: Mapping[str, Path], out: Path) -> list[Files]:
    """Return the kinds of files that stages have made, as far as there are any."""
    kinds = {
        "cleanup2d": [("sections-of-images", "*.tiff", TIFF)],
        "cross_section3d": [("sections-of-volumes", "*.tiff", TIFF)],
        "crop_patches": [("patch-files", "*.tiff", TIFF), ("shards-of-patches", "*.tar", TAR)],
        "reconstruct3d": [
            ("subvolumes", "*.npy", "application/x-npy"),
            ("subvolumes-as-tiff", "*.tiff", TIFF),
            ("subvolumes-as-ome-zarr", "*.zarr/**", ZARR),
            ("subvolumes-to-look-at", "*.webp", "image/webp"),
        ],
        EXPORT: [
            (f"patches-of-{split}-{words}", f"{split}{pattern}", encoding)
            for split in SPLITS
            for words, pattern, encoding in (
                ("as-png", "/*/*.png", "image/png"),
                ("as-tiff", "/*/*.tiff", TIFF),
                ("in-tars", "-*.tar", TAR),
                ("as-zarr", ".zarr/**", ZARR),
                ("as-hdf5", "-*.h5", "application/x-hdf5"),
            )
        ],
    }
    return [
        Files(what, ((stages[stage].relative_to(out) / pattern).as_posix(),), encoding, what.replace("-", " "))
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


def _go_on(before: By | None, now: Command | None, made: str) -> By:
    commands = before.commands if before else []
    new = [now] if now is not None and commands[-1:] != [now] else []
    return By(made, [*commands, *new], find_versions(), find_commit())


def _decode(values: Any, kind: type[Any]) -> Any:
    """Return what the ledger has kept as a value of a type; None where another version kept something else."""
    try:
        return None if values is None else msgspec.convert(values, kind)
    except msgspec.ValidationError:
        return None
