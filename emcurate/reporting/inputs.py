"""What a run has read: its inputs with their SHA-256, by which anybody can tell whether he has the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec

from emcurate.errors import InputError
from emcurate.files import is_directory, is_there, open_regular
from emcurate.outputs import DIGEST_CHUNK_BYTES, fingerprint, fingerprint_tree
from emcurate.patches.label_files import LabelFiles
from emcurate.running.jobs import Workers
from emcurate.running.ledger_file import LedgerFile
from emcurate.running.report import Report
from emcurate.running.spelled_paths import path_as_text, path_of_text
from emcurate.volumes.formats import file_of
from emcurate.volumes.formats.nrrd import data_file

HEADER_SUFFIX = ".nhdr"  # of files whose voxels are in another one


class Input(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file or a directory that was read.

    `path` is where it lay, or its address; `size` is in bytes. `sha256` is that of a file's content, or of the lines
    ``{sha256}  {path}`` that `sha256sum` prints of the files in a directory, in the order of their bytes; empty where
    it is not known, as of an address. `state` is what changes when sizes or times do: for who may have to read it
    again, not for readers of datasheets.
    """

    path: str
    size: int
    sha256: str
    state: str = ""


def list_inputs(out: Path, ledgers: Iterable[LedgerFile], also: Iterable[Path | None]) -> list[str]:
    """Return what stages have read, but for what other stages made in `out`, in order of names.

    Parameters
    ----------
    out : Path
    ledgers : iterable of LedgerFile
        What each stage has noted.
    also : iterable of Path
        What no ledger tells, such as weights; None is left out.
    """
    others = [path for path in also if path is not None]
    found = {path_as_text(path) for path in others}
    read = {line.source for ledger in ledgers for line in ledger.entries.values()}  # many lines are of one input
    # What lies in one of the others is read with it, as the pieces of a path list are.
    within = [out, *others]
    found |= {source for source in read if source and not any(_is_below(source, place) for place in within)}
    for text in sorted(found):
        path = Path(path_of_text(text))
        if path.suffix.lower() == HEADER_SUFFIX and path.is_file():
            try:
                data = data_file(path)
            except (InputError, OSError):
                continue
            found |= {path_as_text(data)} if data else set()
    return sorted(found)


def list_beside(labels: Path | None, weights: Path | None) -> tuple[Path, ...]:
    """Return labels and weights with what lies beside them and is read too: the labels' log, the weights' card."""
    found = [path for path in (labels, weights) if path is not None]
    found += [LabelFiles(labels).log] if labels is not None else []
    found += [weights.with_suffix(".json")] if weights is not None else []
    return tuple(path for path in found if path.is_file())


def _is_below(text: str, directory: Path) -> bool:
    return not is_address(text) and Path(path_of_text(text)).is_relative_to(directory)


def is_address(text: str) -> bool:
    """Return whether an input is no file of this machine."""
    return "://" in text


def digest_inputs(
    names: Sequence[str], known: Collection[Input], report: Report, workers: Workers, *, contents: bool = True
) -> list[Input]:
    """Return inputs with their digests; those that are as they were when they were digested before are not read.

    Parameters
    ----------
    names : sequence of str
        Of `list_inputs`.
    known : collection of Input
        What was found before.
    report : Report
        Is told what cannot be read.
    workers : Workers
    contents : bool
        Whether contents are read at all; without, only sizes and states are known.
    """
    before = {(each.path, each.state): each for each in known if each.sha256}
    states = {name: find_state(name) for name in names}
    todo = [
        name for name, state in states.items() if contents and state and (name, state) not in before
    ]  # an address, or what is gone, has no state
    found = dict(workers.run(digest_input, todo, report, unit="input")) if todo else {}
    inputs = []
    for name, state in states.items():
        if (name, state) in before:
            inputs.append(before[name, state])
        else:
            size, sha256 = found.get(name, (_size_of(name), ""))
            inputs.append(Input(name, size, sha256, state))
    return inputs


def find_state(name: str) -> str:
    """Return what changes when the size or time of an input does; nothing of an address, or of what is gone."""
    path = file_of(Path(path_of_text(name)))
    if is_address(name) or not is_there(path):
        return ""
    try:
        return fingerprint_tree(path) if is_directory(path) else fingerprint(path)
    except OSError:
        return ""


def digest_input(name: str) -> tuple[int, str]:
    """Return the size in bytes and the SHA-256 of an input; see `Input`."""
    path = file_of(Path(path_of_text(name)))
    if not is_directory(path):
        return _digest_file(path)
    lines, size = [], 0
    for file in _list_tree(path):
        length, digest = _digest_file(path / os.fsdecode(file))
        lines.append(digest.encode() + b"  " + file + b"\n")
        size += length
    return size, hashlib.sha256(b"".join(lines)).hexdigest()


def _list_tree(directory: Path) -> list[bytes]:
    """Return the files below a directory as `sha256sum` would be given them."""
    found = []
    for place, _, files in os.walk(directory):
        relative = Path(place).relative_to(directory)
        found += [os.fsencode(relative / file) for file in files]
    return sorted(found)


def _digest_file(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        while chunk := file.read(DIGEST_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _size_of(name: str) -> int:
    path = file_of(Path(path_of_text(name)))
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
