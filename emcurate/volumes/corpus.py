"""The volumes of a directory: which entries are some, under which names, and what changes when one does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from emcurate import naming
from emcurate.errors import InputError
from emcurate.files import describe_kinds, fingerprint, fingerprint_files, fingerprint_tree, is_directory
from emcurate.running import claims
from emcurate.running.claims import list_raw
from emcurate.running.report import Report
from emcurate.volumes.formats import file_of, find_opener, is_slices_directory
from emcurate.volumes.formats.nrrd import data_file
from emcurate.volumes.formats.slices import list_slices
from emcurate.volumes.formats.tiff import is_single_image
from emcurate.volumes.volume import VOLUMES, dataset_name


def list_volumes(directory: Path, report: Report, exclude: Iterable[Path] = ()) -> list[Path]:
    """List the volumes directly in a directory, in natural order: volume files, and sub-directories of slices.

    Results of stages are no volumes, but for those of stages that make volumes; what is left alone is noted.

    Parameters
    ----------
    directory : Path
    report : Report
    exclude : iterable of Path
        Directories to leave out, such as an output directory that lies among the volumes.

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
    found = [path for path in entries if _may_be_volume(path)]
    slices = [path for path in list_slices(directory) if path in set(entries)]
    if len(slices) >= 2 and all(path in slices and is_single_image(path) for path in found):
        raise InputError(
            directory,
            "volume files, or a sub-directory of slices for each volume",
            f"{len(slices)} 2D images directly in it",
            f"name {directory.parent} instead, if they are the slices of one volume",
        )
    if ignored := [path for path in entries if path not in set(found)]:
        report.note(f"left alone, not volumes by their extension or content: {describe_kinds(ignored)}")
    return claims.refuse_odd_files(found, report)


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


def _may_be_volume(path: Path) -> bool:
    if find_opener(path) is None:
        return False
    try:
        return not is_slices_directory(path) or bool(list_slices(path))
    except PermissionError:
        return True  # for opening it to report
