"""The 2D images of a directory: which entries are some, in which groups, and what lies beside them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from emcurate import naming
from emcurate.errors import describe_os_error
from emcurate.files import is_directory
from emcurate.images.reading import IMAGE_SUFFIXES, RECORDED_SUFFIXES
from emcurate.images.sidecars import SIDECAR_SUFFIX, is_sidecar
from emcurate.running.claims import list_raw, name_directory
from emcurate.running.doubles import settle_doubles
from emcurate.running.report import Report
from emcurate.running.unread import Unread
from emcurate.volumes.containers import VIDEO_SUFFIXES
from emcurate.volumes.formats import DIRECTORY_READERS, VOLUME_SUFFIXES

# Where what is no image belongs.
_VOLUME_LIKE = (*VOLUME_SUFFIXES, *DIRECTORY_READERS)
_ELSEWHERE = {
    "give its directory to raw/cross_section3d.py": _VOLUME_LIKE,
    "give its directory to preprocess/vid2stack.py": VIDEO_SUFFIXES,
}


def find_images(
    imdir: Path, prefer: str | None, report: Report
) -> tuple[dict[Path, naming.ImageSection], dict[Path, Path]]:
    """List the images of a directory and of the groups in it; what else there is, however deep, is noted.

    A group is a sub-directory that holds images, or else those in it that bear its name, such as its ``raw``.

    Parameters
    ----------
    imdir : Path
    prefer : str, optional
        The extension of which to take one of files that differ in nothing else; see `settle_doubles`.
    report : Report

    Returns
    -------
    images : dict of Path to naming.ImageSection
        With the section that each becomes.
    sidecars : dict of Path to Path
        The text files that microscopes wrote beside some of them.
    """
    unread = Unread("an image", _is_image, _ELSEWHERE, report, is_one=lambda path: path.suffix.lower() in _VOLUME_LIKE)
    entries = list_raw(imdir, report)
    images = [path for path in entries if _is_image(path)]
    sidecars = _find_sidecars(images, entries)
    found = {path: naming.ImageSection(naming.strip_extension(path.name)) for path in images}
    known = {*images, *sidecars.values()}
    for entry in entries:
        if is_directory(entry) and not unread.is_one(entry):
            try:
                images, texts = _list_group(entry, unread)
            except OSError as error:
                report.fail(describe_os_error(error, entry))
                continue
            names = ((path, name_directory(path.parent), naming.strip_extension(path.name)) for path in images)
            found |= {path: naming.ImageSection(group, name) for path, group, name in names}
            sidecars |= texts
        elif entry not in known:
            unread.note(entry)
    taken = settle_doubles(found, prefer, report, yielding=RECORDED_SUFFIXES)
    return {path: found[path] for path in taken}, {path: sidecars[path] for path in taken if path in sidecars}


def claim_names(path: Path, section: naming.ImageSection) -> list[tuple[str, Path]]:
    """Return the names an image would take: its dataset's, alone or for its group directory, and its own in there."""
    if section.image is None:
        return [(section.dataset, path)]
    return [(section.dataset, path.parent), (f"{section.dataset}/{section.image}", path)]


def _list_group(entry: Path, unread: Unread) -> tuple[list[Path], dict[Path, Path]]:
    """Return the images of a group and their text files; what else lies below its directory is noted."""
    entries = list_raw(entry, unread.report)
    images = [path for path in entries if _is_image(path)]
    if not images:
        inside = [path for path in entries if is_directory(path) and naming.tells_no_name(path.name)]
        entries = [path for group in inside for path in list_raw(group, unread.report)]
        images = [path for path in entries if _is_image(path)]
    sidecars = _find_sidecars(images, entries)
    reason, known = "deeper than one sub-directory", {*images, *sidecars.values()}
    unread.note_below(entry, reason, lambda path: f"name {path.parent.parent} itself, or move it up", known)
    return images, sidecars


def _find_sidecars(images: Iterable[Path], entries: Iterable[Path]) -> dict[Path, Path]:
    texts = {path.with_suffix(""): path for path in entries if path.suffix.lower() == SIDECAR_SUFFIX}
    beside = ((path, texts.get(path.parent / naming.strip_extension(path.name))) for path in images)
    return {path: text for path, text in beside if text is not None and is_sidecar(text)}


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(IMAGE_SUFFIXES) and not is_directory(path)
