"""The videos of a directory."""

from __future__ import annotations

from pathlib import Path

from emcurate.files import is_directory, list_files
from emcurate.running.claims import list_raw
from emcurate.running.doubles import settle_doubles
from emcurate.running.report import Report
from emcurate.running.unread import Unread
from emcurate.volumes.containers import VIDEO_SUFFIXES
from emcurate.volumes.formats import VOLUME_SUFFIXES

_ELSEWHERE = {"give its directory to raw/cross_section3d.py": VOLUME_SUFFIXES}


def list_videos(viddir: Path, prefer: str | None, report: Report) -> list[Path]:
    """List the videos of a directory, in natural order; what else lies in it, however deep, is noted.

    `prefer` is the extension of which to take one of files that differ in nothing else; see `settle_doubles`.
    """
    videos = list_files(viddir, VIDEO_SUFFIXES)
    unread = Unread("a video", lambda path: path.suffix.lower() in VIDEO_SUFFIXES, _ELSEWHERE, report, ".mp4")
    known = set(videos)
    for entry in list_raw(viddir):
        if is_directory(entry):
            reason = "in a sub-directory, where no videos are read"
            unread.note_below(entry, reason, lambda path: f"name {path.parent} itself, or move it up")
        elif entry not in known:
            unread.note(entry)
    return settle_doubles(videos, prefer, report)
