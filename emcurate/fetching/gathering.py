"""Bring chosen files from where they are, a directory or a zip archive, to where they are wanted."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from emcurate.errors import InputError, describe_os_error
from emcurate.fetching.archives import make_parents, open_zip
from emcurate.fetching.downloads import MOST_FAILURES, Download, fetch_all
from emcurate.fetching.placing import Link, Placement, place_all
from emcurate.fetching.safe_names import EscapeError, check_length, join_inside
from emcurate.images.whole import check_whole_image
from emcurate.partials import remove_stale_partials
from emcurate.running.jobs import Workers, progress
from emcurate.running.report import Report
from emcurate.writing import TakenError, taken_by_other, write_bytes

# What an archive within an archive ends in.
ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")

# Images decoded at once to see whether they are whole, which the decoders do without holding Python up.
DECODERS = 4

# Missing files named in the closing report; a longer list goes to a file as well.
MOST_NAMED = 19  # with the line that names the list of all, as many as are shown of failures


@dataclass(frozen=True)
class Wanted:
    """An image to bring: where it can be fetched, and its width and height in pixels, as far as they are known."""

    url: str | None = None
    size: tuple[int, int] | None = None

    def check(self, path: Path, subject: str, may_end_early: bool) -> None:
        """Raise `InputError` where a file is not all of this image."""
        check_whole_image(path, self.size, subject=subject, to_its_end=may_end_early)


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
            except OSError:  # a name longer than any file's here, for one: such a file is not there
                break
            if there:
                found[name] = candidate
                break
    return found, refused


def locate_all(root: Path, names: Iterable[str], directory: Path) -> dict[str, Placement]:
    """Return, by name, how those of some files get to a directory that another directory or a zip archive holds.

    What must not be taken from there is left out, as what is not there is; raises as `locate`.
    """
    located, _ = locate(root, names, directory.name)
    return {name: _place_from(root, there, directory / name) for name, there in located.items()}


def _place_from(root: Path, there: str, path: Path, link: Link = "copy", overwrite: bool = False) -> Placement:
    if root.is_dir():
        return Placement(path, root / there, None, link, overwrite)
    return Placement(path, root, there, link, overwrite)


@dataclass
class Way:
    """How chosen images get to a directory: those to place, to fetch, and those that are nowhere; `names` by path."""

    placements: list[Placement] = field(default_factory=list)
    downloads: list[Download] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    names: dict[Path, str] = field(default_factory=dict)


def find_way(
    wanted: Mapping[str, Wanted],
    directory: Path,
    source: Path | None,
    report: Report,
    *,
    download: bool = False,
    link: Link = "copy",
    overwrite: bool = False,
    damaged: Collection[str] = (),
    begun: Collection[str] = (),
) -> Way:
    """Return how chosen images can be brought to a directory, without touching it; see `gather`.

    Those that can not, whatever there is elsewhere, are reported as failures.
    """
    located: dict[str, str] = {}
    if source is not None:
        located, refused = locate(source, wanted, directory.name)
        report.fail_all(refused)
        if not located and not download:
            _refuse_misplaced(source, wanted, directory.name)
        if not source.is_dir() and link != "copy":
            report.warn(f"{source}: images in an archive are written out; --link {link} is for directories")
    way = Way()
    for name, image in wanted.items():
        try:
            check_length(directory / name)
            # Only the way there is checked: the image itself may well be a link, made by --link symbolic.
            path = join_inside(directory, name).parent / Path(name).name if "/" in name else directory / name
        except EscapeError as error:
            report.fail(InputError(directory, "images inside this directory", str(error), "remove the link"))
            continue
        except InputError as error:
            report.fail(error)
            continue
        way.names[path] = name
        replace = overwrite or name in damaged
        if name in located and source is not None:
            # One that is there is compared with the one to be placed in any case.
            ours = replace or name in begun
            way.placements.append(_place_from(source, located[name], path, link, ours))
        elif download and image.url:
            way.downloads.append(Download(image.url, path, image.check, replace))
        else:
            way.missing.append(name)
    return way


def _refuse_misplaced(source: Path, names: Iterable[str], folder: str) -> None:
    """Raise `InputError` where none of the images lies where it should in an archive, but they are in there."""
    if source.is_dir():
        return
    with open_zip(source) as opened:
        entries = opened.namelist()
    wanted = set(names)
    deeper = next((entry for entry in entries if any(part in wanted for part in _tails(entry))), None)
    packed = [entry for entry in entries if entry.lower().endswith(ARCHIVE_SUFFIXES)]
    if deeper is not None:
        found, advice = f"them deeper, as {deeper}", "unpack it, and name the directory that holds them"
    elif packed:
        found, advice = f"another archive in it, {packed[0]}", "unpack it, and name the archive that holds the images"
    else:
        return
    raise InputError(source, f"the images as NAME or {folder}/NAME", found, advice)


def _tails(name: str) -> Iterator[str]:
    """Yield a path without its first directory, without its first two, …"""
    while "/" in name:
        name = name.partition("/")[2]
        yield name


def gather(
    wanted: Mapping[str, Wanted],
    directory: Path,
    source: Path | None,
    report: Report,
    *,
    download: bool = False,
    link: Link = "copy",
    overwrite: bool = False,
    damaged: Collection[str] = (),
    begun: Collection[str] = (),
    intact: Collection[str] = (),
    most_failures: int = MOST_FAILURES,
    workers: Workers = Workers(),
) -> set[str]:
    """Bring chosen images to a directory, and return the names of those that are there.

    Parameters
    ----------
    wanted : mapping of str to Wanted
        By relative file name with forward slashes.
    directory : Path
        Where they go; it must exist. In `source` they may lie in a directory of the same name.
    source : Path, optional
        A directory or a zip archive that holds them.
    report : Report
        Counts what was placed and was there already; receives what is missing or went wrong as failures.
    download : bool
        Fetch what `source` does not hold.
    overwrite : bool
        Replace files that are there: those that differ from those in `source`, and those to be fetched.
    damaged, begun, intact : collection of str
        Names of files that an earlier run wrote, and that are not what it wrote: replaced in any case; that one which
        was broken off was about to write: replaced if they are not whole, as after a power cut; or that still are what
        was written: not fetched again even with `overwrite`. One to be fetched of which nothing is known stays if it is
        whole, and is somebody else's if it is not.
    most_failures : int
        After so many downloads that failed in one way, the others are not tried; 0 tries all.
    """
    way = find_way(
        wanted,
        directory,
        source,
        report,
        download=download,
        link=link,
        overwrite=overwrite,
        damaged=damaged,
        begun=begun,
    )
    for parent in {path.parent for path in way.names}:
        remove_stale_partials(parent)
    there = place_all(way.placements, report, workers)
    unsure = [item for item in way.downloads if way.names[item.path] not in intact]
    there |= {item.path for item in way.downloads if way.names[item.path] in intact}
    with ThreadPoolExecutor(DECODERS) as pool:
        whole = progress(pool.map(_is_there_whole, unsure), total=len(unsure), label="check", unit="file")
        states = list(zip(unsure, whole, strict=True))
    there |= {item.path for item, state in states if state is True}
    ours = {item.path for item, state in states if isinstance(state, TakenError) and way.names[item.path] in begun}
    report.fail_all(state for item, state in states if isinstance(state, InputError) and item.path not in ours)
    if known := sum(item.path in there for item in way.downloads):
        report.count("images already there", known)
    todo = [item for item, state in states if state is False]
    todo += [dataclasses.replace(item, replace=True) for item, _ in states if item.path in ours]
    for item in fetch_all(todo, report, most_failures=most_failures):
        report.count("images downloaded")
        there.add(item.path)
    advice = "complete it, or give --download" if not download else "no address is known for it: complete the images"
    listing = directory.with_name(f"missing_{directory.name}.txt")
    report_missing(report, way.missing, str(source or "the annotation file's addresses"), listing, advice)
    return {way.names[path] for path in there}


def _is_there_whole(item: Download) -> bool | InputError:
    """Return whether the file of a download is there; an error where something else is, or where it cannot be."""
    path = item.path
    try:
        make_parents(path, path.parent)
        if path.is_dir():
            return InputError(path, "a file, or none", "a directory of that name", "move it away")
        if item.replace or not os.path.lexists(path):
            return False
        if item.check is not None and path.exists():
            item.check(path, str(path), False)
        elif not path.exists():
            return taken_by_other(path, "the image", "a link that leads nowhere")
    except InputError as error:
        return taken_by_other(path, error.expected, error.found) if error.path == str(path) else error
    except OSError as error:
        return describe_os_error(error, path)
    return True


def report_missing(report: Report, names: Sequence[str], source: str, listing: Path, advice: str) -> None:
    """Note files that were not found as failures: each by name if they are few, else some, and all in `listing`."""
    for name in names[:MOST_NAMED]:
        report.fail(InputError(name, f"an image in {source}", "none of that name", advice))
    if len(names) > MOST_NAMED:
        write_bytes(listing, "".join(f"{name}\n" for name in names).encode())
        report.fail(f"{len(names) - MOST_NAMED:,} more images are missing; {listing} lists all {len(names):,}")
    else:
        listing.unlink(missing_ok=True)  # of an earlier run, when more were missing
