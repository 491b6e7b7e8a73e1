"""Who may be whose: results are never taken for raw inputs, and a name belongs to one input."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from emcurate import naming
from emcurate.addresses import Address, Place
from emcurate.errors import InputError
from emcurate.files import check_regular, describe_content, is_directory, list_entries
from emcurate.outputs import Output, digest_file, is_intact
from emcurate.running.ledger_file import read_headers, read_ledgers
from emcurate.running.ledger_lines import DONE, Line, read_outputs
from emcurate.running.report import Report

Input = TypeVar("Input", Path, Address, Place)


def list_raw(directory: Path, report: Report | None = None, *, take: Collection[str] = ()) -> list[Path]:
    """List what lies directly in a directory, in natural order, but for the results of stages; these are named.

    A result is what a ledger beside it says is one, and every directory that has a ledger of its own.

    Parameters
    ----------
    directory : Path
    report : Report, optional
        Is told how many entries were left alone, and which stage made them.
    take : collection of str
        Products of other stages that are inputs here, such as ``volumes``.
    """
    found = list_entries(directory)
    makers = {
        output.name.partition("/")[0]: ledger.header.stage
        for ledger in read_ledgers(directory)
        if ledger.header is not None and ledger.header.product not in take
        for line in ledger.entries.values()
        for output in read_outputs(line)
    }
    raw: list[Path] = []
    results: dict[str, list[str]] = defaultdict(list)
    for entry in found:
        maker = makers.get(entry.name) or (_find_maker(entry) if is_directory(entry) else None)
        if maker is None:
            raw.append(entry)
        else:
            results[maker].append(entry.name)
    if report is not None:
        for maker, names in results.items():
            more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            report.note(f"left alone in {directory}, results of {maker}: {names[0]}{more}")
    return raw


def refuse_other_makers(directory: Path, stage: str, products: Collection[str]) -> None:
    """Raise `InputError` where another stage has results in a directory that can hold those of one stage only.

    `products` are what those stages make whose results would be mixed up there.
    """
    for ledger in read_ledgers(directory):
        header = ledger.header
        if header is None or header.stage == stage or header.product not in products:
            continue
        outputs = (output for line in ledger.entries.values() for output in read_outputs(line))
        if any((directory / output.name).is_file() for output in outputs):
            found = f"results of {header.stage}"
            raise InputError(directory, f"a directory of its own for what {stage} makes", found, "name another one")


def is_result_directory(directory: Path) -> bool:
    """Return whether a directory is an output directory of any stage."""
    return _find_maker(directory) is not None


def _find_maker(directory: Path) -> str | None:
    """Return which stages a directory is an output directory of, None if it is none."""
    try:
        made = [header.stage or "another version" for header in read_headers(directory) if not header.among_inputs]
    except OSError:
        return None  # it cannot be looked into: reading it reports that
    return " and ".join(made) or None


MAKE_AGAIN = "run the command that made it again"


class Notes:
    """What stages noted of the files in a directory, so that an input made by a stage is known by what it is."""

    def __init__(self, directory: Path, ending: str = "") -> None:
        """Read the notes on a directory, or only those on files whose names have an ending."""
        self._made: dict[str, tuple[Output, Line]] = {
            output.name: (output, line)
            for ledger in read_ledgers(directory)
            for line in ledger.entries.values()
            if line.state == DONE and ending.encode() in bytes(line.outputs)
            for output in read_outputs(line)
            if output.name.endswith(ending)
        }

    def fingerprint(self, path: Path) -> str:
        """Return the digest of a file's content, which is only read if it is not noted as the file now is.

        A section that was made again with the same bytes, or copied, is the same input, whatever its time.
        """
        if path.name in self._made and is_intact(path.parent, self._made[path.name][0]):
            return self._made[path.name][0].digest
        return digest_file(path)

    def refuse_altered(self, path: Path) -> None:
        """Raise `InputError` if a file is not as the stage wrote it that made it; of others nothing is known."""
        made = self._made.get(path.name)
        if made is not None and not is_intact(path.parent, made[0]) and digest_file(path) != made[0].digest:
            found = f"other content, of {path.stat().st_size:,} bytes"
            raise InputError(path, f"the {made[0].size:,} bytes that were noted when it was made", found, MAKE_AGAIN)

    def origin(self, path: Path) -> Line | None:
        """Return what a file came of, with the details its stage noted; None if no stage made it."""
        made = self._made.get(path.name)
        return None if made is None else made[1]


def refuse_odd_files(paths: Iterable[Path], report: Report) -> list[Path]:
    """Return the inputs that are files or directories; report links that lead nowhere, pipes and the like."""
    good = []
    for path in paths:
        try:
            good.append(path if is_directory(path) else check_regular(path))
        except InputError as error:
            report.fail(error)
    return good


def describe_raw(directory: Path) -> str:
    """Say in a few words what a directory holds, for the "found …" of an error, and whose results are among it."""
    makers = sorted({ledger.header.stage for ledger in read_ledgers(directory) if ledger.header is not None})
    found = describe_content(directory)
    return f"{found}, results of {' and '.join(makers)}" if makers else found


def name_directory(directory: Path) -> str:
    """Return the name of the dataset that lies in a directory; see `emcurate.naming.name_of_directory`.

    It is this directory's or that of the one above, which is the corpus or in it: what lies higher may be called
    otherwise tomorrow, where the same corpus must have the same names.
    """
    path = directory.absolute()
    return naming.name_of_directory(path.relative_to(path.anchor).parts[-2:] or (path.name,))


def refuse_bad_names(claims: Mapping[Input, Sequence[tuple[str, Input]]], report: Report) -> list[Input]:
    """Return the inputs whose names can be used and are theirs alone; report the others, each with its rivals.

    Parameters
    ----------
    claims : mapping of Path, or Address, to (name, owner) pairs
        For each input the names it would take, and for whom: an input claims for itself, or, with others, for the
        group directory they lie in. A name may have one owner, whatever its case: not all disks tell cases apart.
    """
    owners: dict[str, set[Input]] = defaultdict(set)
    for claimed in claims.values():
        for name, owner in claimed:
            owners[naming.fold(name)].add(owner)
    good = []
    for path, claimed in claims.items():
        try:
            for name, _ in claimed:
                naming.check_length(naming.check_dataset_name(name))
        except naming.GrammarError as error:
            report.fail(InputError(path, error.expected, error.found, "rename it"))
            continue
        rivals = sorted({rival for name, owner in claimed for rival in owners[naming.fold(name)] - {owner}}, key=str)
        if rivals:
            found = f"{', '.join(map(str, rivals))} of the same name{_but_for_what(path, rivals)}"
            report.fail(InputError(path, "a name of its own", found, "rename one"))
        else:
            good.append(path)
    return good


def _but_for_what(path: Place, rivals: Iterable[Place]) -> str:
    stem = naming.strip_extension(path.name)
    others = [naming.strip_extension(rival.name) for rival in rivals]
    if stem in others:
        return ""
    composed = unicodedata.normalize("NFC", stem)
    if all(unicodedata.normalize("NFC", other) == composed for other in others):
        return " but for how Unicode composes their letters"
    return " but for upper and lower case"
