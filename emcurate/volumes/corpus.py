"""The volumes of a directory, or of a list: which there are, under which names, and what changes when one does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from emcurate import naming
from emcurate.addresses import Address, Place
from emcurate.errors import InputError, describe_os_error
from emcurate.files import is_directory, is_there, refuse_same_directory
from emcurate.images.reading import IMAGE_SUFFIXES, RECORDED_SUFFIXES
from emcurate.outputs import fingerprint, fingerprint_files, fingerprint_tree
from emcurate.running import claims
from emcurate.running.claims import list_raw
from emcurate.running.doubles import settle_doubles
from emcurate.running.report import Report
from emcurate.running.unread import Unread
from emcurate.volumes.containers import VIDEO_SUFFIXES
from emcurate.volumes.formats import VOLUME_SUFFIXES, file_of, find_opener, is_slices_directory, servers
from emcurate.volumes.formats.nrrd import data_file
from emcurate.volumes.formats.slices import list_slices
from emcurate.volumes.formats.tiff import is_single_image
from emcurate.volumes.sources import VolumeSource, make_source, read_sources
from emcurate.volumes.views import View
from emcurate.volumes.volume import VOLUMES, dataset_name

# Where in other corpora files that are no volumes belong.
_ELSEWHERE = {
    "single images go to raw/cleanup2d.py, the slices of a volume into a directory of their own": IMAGE_SUFFIXES,
    "give its directory to preprocess/vid2stack.py first": VIDEO_SUFFIXES,
}

# Servers asked at a time for what tells whether a volume has changed.
SERVERS_AT_ONCE = 16


@dataclass(frozen=True)
class Corpus:
    """The volumes that a stage is to work on.

    Parameters
    ----------
    root : Path or Address
        What was named: a directory, a list, or one volume.
    sources : list of VolumeSource
        Those whose names can be used, each by a name of its own.
    named : frozenset of str, optional
        All that a list names, as a ledger spells it, whether it can be used or not; None for a directory, in which it
        can be seen what is there.
    """

    root: Place
    sources: list[VolumeSource]
    named: frozenset[str] | None = None


def find_volumes(
    root: Place,
    report: Report,
    *,
    exclude: Iterable[Path] = (),
    view: View = View(),
    prefer: str | None = None,
) -> Corpus:
    """Return the volumes of a directory, of a list, or the one that is named; those that cannot be used are reported.

    Parameters
    ----------
    root : Path or Address
        A directory of volumes, a list of them (see `read_sources`), or one volume: an address, a file, a directory in
        a format of its own, or ``file::path``.
    report : Report
    exclude : iterable of Path
        Directories to leave out, such as an output directory that lies among the volumes.
    view : View
        What is read of volumes that hold several resolutions, channels or times.
    prefer : str, optional
        See `list_volumes`.

    Raises
    ------
    InputError
        If a directory seems to hold the slices of one volume, or a list cannot be read.
    """
    if isinstance(root, Address) or _is_volume(root):
        sources = [make_source(root, view)]
        return Corpus(root, _refuse_bad_sources(sources, report), frozenset([str(root)]))
    if is_directory(root):
        paths = list_volumes(root, report, exclude, prefer=prefer)
        return Corpus(root, _refuse_bad_sources([make_source(path, view) for path in paths], report))
    listed = read_sources(root, view, report)
    usable = _refuse_bad_sources(_refuse_results(listed, report), report)
    return Corpus(root, usable, frozenset(str(source.path) for source in listed))


def _is_volume(path: Path) -> bool:
    """Return whether a path is one volume: a file of volumes, or a directory in a format of its own."""
    return find_opener(path) is not None and not is_slices_directory(path)


def _refuse_bad_sources(sources: Iterable[VolumeSource], report: Report) -> list[VolumeSource]:
    """Return the volumes whose name can be used and is theirs alone; report the others."""
    by_path = {source.path: source for source in sources}
    good = refuse_bad_names(by_path, report, {path: source.name for path, source in by_path.items()})
    return [by_path[path] for path in good]


def _refuse_results(sources: Iterable[VolumeSource], report: Report) -> list[VolumeSource]:
    """Return those of a list's volumes that are there, or on a server, and that no stage made of others."""
    raw: dict[Path, set[Path]] = {}
    good = []
    for source in sources:
        if isinstance(source.path, Path):
            file = file_of(source.path)
            if not is_there(file):
                report.fail(InputError(source.path, "a volume", "nothing of that name", "correct the list"))
                continue
            if find_opener(source.path) is None:
                known = "a format that is read, or a directory of slices"
                report.fail(
                    InputError(source.path, known, "another kind of file", "convert it, or take it off the list")
                )
                continue
            if file.parent not in raw:
                raw[file.parent] = set(list_raw(file.parent, take=[VOLUMES]))
            if file.name not in {entry.name for entry in raw[file.parent]} and not file.name.startswith("."):
                report.fail(InputError(source.path, "a volume", "a result of a stage", "take it off the list"))
                continue
        good.append(source)
    return good


def refuse_results_among(root: Place, savedir: Path) -> None:
    """Raise `InputError` if results would be written into the directory of volumes itself."""
    if isinstance(root, Path) and is_directory(root):
        refuse_same_directory(root, savedir)


def fingerprint_sources(sources: Iterable[VolumeSource], report: Report) -> dict[str, str]:
    """Return by dataset what changes when a volume does; one that its server does not give is reported and left out."""
    sources = list(sources)
    found = {source.name: fingerprint_volume(source.path) for source in sources if isinstance(source.path, Path)}
    remote = [source for source in sources if isinstance(source.path, Address)]
    if remote:
        with ThreadPoolExecutor(SERVERS_AT_ONCE) as pool:
            for source, answer in zip(remote, pool.map(_fingerprint_there, remote), strict=True):
                if isinstance(answer, InputError):
                    report.fail(answer)
                else:
                    found[source.name] = answer
    return {source.name: found[source.name] for source in sources if source.name in found}


def _fingerprint_there(source: VolumeSource) -> str | InputError:
    try:
        return fingerprint_volume(source.path, source.view)
    except InputError as error:
        return error


def list_volumes(
    directory: Path, report: Report, exclude: Iterable[Path] = (), *, prefer: str | None = None
) -> list[Path]:
    """List the volumes of a directory, in natural order: volume files in it, and its sub-directories of slices.

    Slices may also lie in ``name/slices/`` and the like. Results of stages are no volumes, but for those of stages that
    make volumes. Whatever else there is, however deep, is noted in the report.

    Parameters
    ----------
    directory : Path
    report : Report
    exclude : iterable of Path
        Directories to leave out, such as an output directory that lies among the volumes.
    prefer : str, optional
        The extension of which to take one of files that differ in nothing else; see `settle_doubles`.

    Raises
    ------
    InputError
        If the directory seems to hold the slices of one volume.
    """
    left_out = set(exclude)
    entries = [path for path in list_raw(directory, report, take=[VOLUMES]) if path not in left_out]
    files = {path for path in entries if _is_volume(path)}
    slices = [path for path in list_slices(directory) if path in set(entries)]
    if len(slices) >= 2 and all(path in slices and is_single_image(path) for path in files):
        raise InputError(
            directory,
            "volume files, or a sub-directory of slices for each volume",
            f"{len(slices)} 2D images directly in it",
            f"name {directory.parent} instead, if they are the slices of one volume",
        )
    unread = Unread("a volume", _is_of_volumes, _ELSEWHERE, report, is_one=_is_one)
    found = []
    for entry in entries:
        if entry in files:
            found.append(entry)
        elif is_directory(entry):
            found += _list_slices_directories(entry, directory, unread)
    parts = {data for path in found if path.suffix.lower() == ".nhdr" and (data := _data_of(path))}
    for entry in entries:
        if not (is_directory(entry) or entry in files or entry in parts):
            unread.note(entry)
    return claims.refuse_odd_files(settle_doubles(found, prefer, report, yielding=RECORDED_SUFFIXES), report)


def _list_slices_directories(entry: Path, directory: Path, unread: Unread) -> list[Path]:
    """Return a sub-directory of a corpus if it holds slices, or those in it that do and bear its name.

    What else there is below it is noted.
    """
    try:
        if list_slices(entry):
            found = [entry]
        else:
            inside = [path for path in list_raw(entry) if naming.tells_no_name(path.name) and is_slices_directory(path)]
            found = [path for path in inside if list_slices(path)]
    except PermissionError:
        return [entry]  # for opening it to report
    except OSError as error:
        unread.report.fail(describe_os_error(error, entry))
        return []
    taken = {slice for volume in found for slice in list_slices(volume)}
    unread.note_below(entry, "in a sub-directory, where only slices are read", _advise_on_deeper, taken)
    return found


def _is_of_volumes(path: Path) -> bool:
    return path.name.lower().endswith((*VOLUME_SUFFIXES, *IMAGE_SUFFIXES)) or _is_one(path)


def _is_one(path: Path) -> bool:
    """Return whether a directory is a volume in a format of its own."""
    return is_directory(path) and _is_volume(path)


def _advise_on_deeper(path: Path) -> str:
    """Say which directory of volumes would hold a volume, or a slice of one, that lies too deep in another."""
    as_file, as_slice = f"name {path.parent} itself", f"name {path.parent.parent} itself"
    is_volume, is_slice = path.name.lower().endswith(VOLUME_SUFFIXES), path.name.lower().endswith(IMAGE_SUFFIXES)
    if is_volume and is_slice:
        return f"{as_file}, or {path.parent.parent} if it is one slice of many"
    return as_file if is_volume or _is_one(path) else as_slice


def _data_of(header: Path) -> Path | None:
    """Return the file with the voxels that an ``.nhdr`` tells of, None where opening it reports that there is none."""
    try:
        return data_file(header)
    except (InputError, OSError):
        return None


def fingerprint_volume(path: Place, view: View = View()) -> str:
    """Return what changes when any file of a volume is changed, added, removed or renamed.

    What cannot be read has a fingerprint too: opening it is what reports it, without stopping the others. Of a volume
    on a server, of which files are not listed, it changes as far as the server tells; see `servers.fingerprint`.

    Raises
    ------
    InputError
        If a server does not give it.
    """
    if isinstance(path, Address):
        return servers.fingerprint(path, view)
    path = file_of(path)
    try:
        if is_slices_directory(path):
            return fingerprint_files(list_slices(path))
        found = fingerprint_tree(path) if is_directory(path) else fingerprint(path)
        if path.suffix.lower() == ".nhdr":
            data = data_file(path)
            found += f"; {fingerprint(data)}" if data else ""
    except (InputError, OSError):
        return "unreadable"
    return found


def refuse_bad_names(paths: Iterable[Place], report: Report, names: Mapping[Place, str] | None = None) -> list[Place]:
    """Return the volumes whose dataset name can be used and is theirs alone; report the others.

    A directory of slices whose names say that they are sections or patches is none, wherever it was copied to. `names`
    are those of datasets, where they are not those of the files.
    """
    named = {path: dataset_name(path) if names is None else names[path] for path in paths}
    good = claims.refuse_bad_names({path: [(name, path)] for path, name in named.items()}, report)
    for path in [path for path in good if isinstance(path, Path) and is_slices_directory(path)]:
        with contextlib.suppress(OSError):  # opening it reports that
            result = next((slice.name for slice in list_slices(path) if naming.MARK in slice.name), None)
            if result is not None:
                found = f"{result}, by its name a result"
                report.fail(InputError(path, "slices of a volume", found, "move results out of the raw data"))
                good.remove(path)
    return good
