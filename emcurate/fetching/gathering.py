"""Bring chosen files from where they are, a directory or a zip archive, to where they are wanted."""

from __future__ import annotations

import errno
import filecmp
import functools
import os
import shutil
import stat
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emcurate.errors import InputError
from emcurate.fetching.archives import entry_kind, extract_entry, make_parents, open_zip, same_as_entry
from emcurate.fetching.downloads import Download, fetch_all
from emcurate.fetching.safe_names import EscapeError, join_inside
from emcurate.files import atomic_path, taken_by_other, write_bytes
from emcurate.partials import remove_stale_partials
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

Link = Literal["copy", "hard", "symbolic"]

# No single image is larger; what claims to be is a way to fill a disk.
LARGEST_ENTRY_BYTES = 4 << 30

# Missing files named in the closing report; a longer list goes to a file as well.
MOST_NAMED = 20


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


def locate(root: Path, names: Iterable[str], folder: str) -> tuple[dict[str, str], list[InputError]]:
    """Return which of some files a directory or a zip archive holds, each with its name there, and which it must not.

    Parameters
    ----------
    root : Path
        A directory, or a zip archive.
    names : iterable of str
        Relative file names with forward slashes.
    folder : str
        A directory that may stand between `root` and the files, such as ``train2017``.

    Raises
    ------
    InputError
        If `root` is a file but no zip archive.
    """
    found: dict[str, str] = {}
    refused: list[InputError] = []
    entries: set[str] | None = None
    if not root.is_dir():
        with open_zip(root) as opened:
            entries = set(opened.namelist())
    for name in names:
        for candidate in (name, f"{folder}/{name}"):
            try:
                there = candidate in entries if entries is not None else join_inside(root, candidate).is_file()
            except EscapeError as error:
                refused.append(InputError(root, "images inside this directory", str(error), "copy them into it"))
                break
            if there:
                found[name] = candidate
                break
    return found, refused


def place(job: Placement) -> bool:
    """Bring one file to its place, complete or not at all; return whether it was not there yet.

    Raises
    ------
    InputError
        If another file of that name is there and `overwrite` is not set, or the source cannot be read or linked.
    """
    make_parents(job.path, job.path.parent)
    if job.entry is not None:
        opened = _open_once(job.source)
        info = opened.getinfo(job.entry)
        if entry_kind(info) == stat.S_IFLNK:
            raise InputError(job.source, f"{job.entry} to be a file", "a link", "use an archive made without links")
        if info.file_size > LARGEST_ENTRY_BYTES:
            raise InputError(
                job.source, f"{job.entry} of an image's size", f"{info.file_size:,} bytes", "do not trust this archive"
            )
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


def gather(
    wanted: Mapping[str, str | None],
    directory: Path,
    source: Path | None,
    report: Report,
    *,
    download: bool = False,
    link: Link = "copy",
    overwrite: bool = False,
    damaged: Collection[str] = (),
    workers: Workers = Workers(),
) -> set[str]:
    """Bring chosen images to a directory, and return the names of those that are there.

    Parameters
    ----------
    wanted : mapping of str to str or None
        Relative file names with forward slashes, each with the address it can be fetched from.
    directory : Path
        Where they go; it must exist. In `source` they may lie in a directory of the same name.
    source : Path, optional
        A directory or a zip archive that holds them.
    report : Report
        Counts what was placed and was there already; receives what is missing or went wrong as failures.
    download : bool
        Fetch what `source` does not hold.
    overwrite : bool
        Replace files that are there and differ from those in `source`.
    damaged : collection of str
        Names of files that are known to be an earlier run's and not what it wrote: replaced in any case.
    """
    located: dict[str, str] = {}
    if source is not None:
        located, refused = locate(source, wanted, directory.name)
        for error in refused:
            report.fail(error)
        if not source.is_dir() and link != "copy":
            report.warn(f"{source}: images in an archive are written out; --link {link} is for directories")
    placements, downloads, missing = [], [], []
    names: dict[Path, str] = {}
    for name, url in wanted.items():
        try:
            # Only the way there is checked: the image itself may well be a link, made by --link symbolic.
            path = join_inside(directory, name).parent / Path(name).name if "/" in name else directory / name
        except EscapeError as error:
            report.fail(InputError(directory, "images inside this directory", str(error), "remove the link"))
            continue
        names[path] = name
        if name in located and source is not None:
            inside, replace = located[name], overwrite or name in damaged
            if source.is_dir():
                placements.append(Placement(path, source / inside, None, link, replace))
            else:
                placements.append(Placement(path, source, inside, link, replace))
        elif download and url:
            downloads.append(Download(url, path))
        else:
            missing.append(name)
    for parent in {path.parent for path in names if path.parent.is_dir()}:
        remove_stale_partials(parent)
    there = place_all(placements, report, workers)
    todo = []
    for item in downloads:
        if names[item.path] in damaged:
            item.path.unlink(missing_ok=True)
        if item.path.exists():
            report.count("images already there")
            there.add(item.path)
        else:
            make_parents(item.path, directory)
            todo.append(item)
    for item in fetch_all(todo, report):
        report.count("images downloaded")
        there.add(item.path)
    advice = "complete it, or give --download" if not download else "no address is known for it: complete the images"
    listing = directory.with_name(f"missing_{directory.name}.txt")
    report_missing(report, missing, str(source or "the annotation file's addresses"), listing, advice)
    return {names[path] for path in there}


def place_all(placements: Sequence[Placement], report: Report, workers: Workers = Workers()) -> set[Path]:
    """Bring many files to their places and count them; return those that are there now. Failures go to `report`."""
    there = set()
    report.count("images placed", 0)
    for job, written in workers.run(place, placements, report, unit="image"):
        report.count("images placed" if written else "images already there")
        there.add(job.path)
    return there


def report_missing(report: Report, names: Sequence[str], source: str, listing: Path, advice: str) -> None:
    """Note files that were not found as failures: each by name if they are few, else some, and all in `listing`."""
    for name in names[:MOST_NAMED]:
        report.fail(InputError(name, f"an image in {source}", "none of that name", advice))
    if len(names) > MOST_NAMED:
        write_bytes(listing, "".join(f"{name}\n" for name in names).encode())
        report.fail(f"{len(names) - MOST_NAMED:,} more images are missing; {listing} lists all {len(names):,}")
    else:
        listing.unlink(missing_ok=True)  # of an earlier run, when more were missing


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
def _open_once(archive: Path) -> zipfile.ZipFile:
    # Kept open in each process: reading the list of 118,000 entries takes longer than reading an image.
    return open_zip(archive)
