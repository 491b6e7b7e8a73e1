"""Bring one file, out of a directory or a zip archive, to its place: copied, linked or written out."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import functools
import os
import shutil
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emcurate.errors import InputError
from emcurate.fetching.archives import (
    digest_entry,
    entry_kind,
    extract_entry,
    make_parents,
    open_zip,
    same_as_entry,
)
from emcurate.outputs import digest_file, fingerprint
from emcurate.running.jobs import Workers
from emcurate.running.report import Report
from emcurate.writing import atomic_path, taken_by_other

Link = Literal["copy", "hard", "symbolic"]

# No single image is larger; what claims to be is a way to fill a disk.
LARGEST_ENTRY_BYTES = 4 << 30


@dataclass(frozen=True)
class Placement:
    """A file to bring to `path`: the file `source`, or, where `entry` is set, that entry of the zip archive `source`.

    An entry is always written out; `link` says how a file gets there.
    """

    path: Path
    source: Path
    entry: str | None = None
    link: Link = "copy"
    overwrite: bool = False


def place_all(placements: Sequence[Placement], report: Report, workers: Workers = Workers()) -> set[Path]:
    """Bring many files to their places and count them; return those that are there now. Failures go to `report`."""
    there = set()
    report.count("images placed", 0)
    for job, written in workers.run(place, placements, report, unit="image"):
        report.count("images placed" if written else "images already there")
        there.add(job.path)
    return there


def find_states(jobs: Mapping[str, Placement]) -> dict[str, str]:
    """Return, by name, what changes when that which is to be placed does; no content is read.

    It comes from a file's size and time, and from the size and checksum that an archive tells of an entry. Of a file
    that cannot be looked at it is left out.
    """
    archives = {}
    for archive in {job.source for job in jobs.values() if job.entry is not None}:
        with open_zip(archive) as opened:
            archives[archive] = {info.filename: info for info in opened.infolist()}
    states = {}
    for name, job in jobs.items():
        if job.entry is not None:
            info = archives[job.source][job.entry]
            states[name] = f"{info.file_size} bytes, CRC-32 {info.CRC:08x}"
        else:
            with contextlib.suppress(OSError):  # whoever reads it says why
                states[name] = fingerprint(job.source)
    return states


def digest_source(job: Placement) -> str:
    """Return the digest of what is to be placed, as `emcurate.outputs.Output` keeps it; raises as `place`."""
    if job.entry is None:
        return digest_file(job.source)
    opened = _open_once(job.source, fingerprint(job.source))
    return digest_entry(job.source, opened, _find_entry(job, opened))


def place(job: Placement) -> bool:
    """Bring one file to its place, complete or not at all; return whether it was not there yet.

    Raises
    ------
    InputError
        If another file of that name is there and `overwrite` is not set, or the source cannot be read or linked.
    """
    make_parents(job.path, job.path.parent)
    if job.path.is_dir():
        raise InputError(job.path, "a file, or none", "a directory of that name", "move it away")
    if job.entry is not None:
        opened = _open_once(job.source, fingerprint(job.source))
        info = _find_entry(job, opened)
        if _is_there(job, same_as_entry(job.path, info)):
            return False
        extract_entry(job.source, opened, info, job.path)
        return True
    if _is_there(job, _same_file(job)):
        return False
    with atomic_path(job.path) as partial:
        if job.link == "symbolic":
            partial.symlink_to(job.source)
        elif job.link == "hard":
            _link_hard(job.source, partial)
        else:
            shutil.copyfile(job.source, partial)
    return True


def _find_entry(job: Placement, opened: zipfile.ZipFile) -> zipfile.ZipInfo:
    info = opened.getinfo(job.entry or "")
    if entry_kind(info) == stat.S_IFLNK:
        raise InputError(job.source, f"{job.entry} to be a file", "a link", "use an archive made without links")
    if info.file_size > LARGEST_ENTRY_BYTES:
        raise InputError(
            job.source, f"{job.entry} of an image's size", f"{info.file_size:,} bytes", "do not trust this archive"
        )
    return info


def _is_there(job: Placement, same: bool) -> bool:
    if same:
        return True
    if os.path.lexists(job.path) and not job.overwrite:
        raise taken_by_other(job.path, "the one to be placed there", "another file")
    return False


def _same_file(job: Placement) -> bool:
    if not job.path.is_file():
        return False
    return job.path.samefile(job.source) or filecmp.cmp(job.path, job.source, shallow=False)


def _link_hard(source: Path, partial: Path) -> None:
    try:
        # Resolved, since a hard link to a symbolic one would be a symbolic one.
        os.link(source.resolve(), partial)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        reason = error.strerror or str(error)
        raise InputError(
            source, "a file that can be linked to", f"none ({reason})", "use --link symbolic or --link copy"
        ) from None


@functools.lru_cache(maxsize=2)
def _open_once(archive: Path, state: str) -> zipfile.ZipFile:
    # Kept open in each process: reading the list of 118,000 entries takes longer than reading an image. A cluster's
    # processes outlive a run, and the archive of that name may be another by the next: hence its state.
    return open_zip(archive)
