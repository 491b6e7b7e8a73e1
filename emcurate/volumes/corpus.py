"""The volumes of a directory: which entries are some, under which names, and what changes when one does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from emcurate import naming
from emcurate.errors import InputError, describe_os_error
from emcurate.files import fingerprint, fingerprint_files, fingerprint_tree, is_directory
from emcurate.images.reading import IMAGE_SUFFIXES
from emcurate.running import claims
from emcurate.running.claims import list_raw
from emcurate.running.doubles import settle_doubles
from emcurate.running.report import Report
from emcurate.running.unread import Unread
from emcurate.volumes.containers import VIDEO_SUFFIXES
from emcurate.volumes.formats import DIRECTORY_READERS, VOLUME_SUFFIXES, file_of, find_opener, is_slices_directory
from emcurate.volumes.formats.nrrd import data_file
from emcurate.volumes.formats.slices import list_slices
from emcurate.volumes.formats.tiff import is_single_image
from emcurate.volumes.volume import VOLUMES, dataset_name

# Where in other corpora files that are no volumes belong.
_ELSEWHERE = {
    "single images go to raw/cleanup2d.py, the slices of a volume into a directory of their own": IMAGE_SUFFIXES,
    "give its directory to preprocess/vid2stack.py first": VIDEO_SUFFIXES,
}


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
        If the directory seems to hold the slices of one volume, or is a volume itself.
    """
    if is_directory(directory) and find_opener(directory) is not None and not is_slices_directory(directory):
        expected, advice = "a directory of volumes", f"name {directory.parent} instead"
        raise InputError(directory, expected, "a directory that is one volume", advice)
    left_out = set(exclude)
    entries = [path for path in list_raw(directory, report, take=[VOLUMES]) if path not in left_out]
    files = {path for path in entries if not is_slices_directory(path) and find_opener(path) is not None}
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
    return claims.refuse_odd_files(settle_doubles(found, prefer, report), report)


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
    return path.suffix.lower() in DIRECTORY_READERS and is_directory(path)


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


def fingerprint_volume(path: Path) -> str:
    """Return what changes when any file of a volume is changed, added, removed or renamed.

    What cannot be read has a fingerprint too: opening it is what reports it, without stopping the others.
    """
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


def refuse_bad_names(paths: Iterable[Path], report: Report) -> list[Path]:
    """Return the volumes whose dataset name can be used and is theirs alone; report the others.

    A directory of slices whose names say that they are sections or patches is none, wherever it was copied to.
    """
    good = claims.refuse_bad_names({path: [(dataset_name(path), path)] for path in paths}, report)
    for path in [path for path in good if is_slices_directory(path)]:
        with contextlib.suppress(OSError):  # opening it reports that
            result = next((slice.name for slice in list_slices(path) if naming.MARK in slice.name), None)
            if result is not None:
                found = f"{result}, by its name a result"
                report.fail(InputError(path, "slices of a volume", found, "move results out of the raw data"))
                good.remove(path)
    return good
