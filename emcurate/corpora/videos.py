"""The videos of a directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcurate.errors import InputError
from emcurate.files import is_directory, list_files
from emcurate.running.claims import list_raw
from emcurate.running.doubles import settle_doubles
from emcurate.running.report import Report
from emcurate.running.unread import Unread
from emcurate.volumes.containers import VIDEO_SUFFIXES, find_missing
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


# FFmpeg writes what it thinks of a file to the terminal; what matters is said here. Read at the first opening.
QUIET_FFMPEG = {"OPENCV_FFMPEG_LOGLEVEL": "-8"}


@dataclass(frozen=True)
class Video:
    """A video that is open.

    Attributes
    ----------
    capture : cv2.VideoCapture
    frames : int
        How many it announces; 0 where it does not.
    shape : (height, width)
        As it announces them.
    missing : int
        The bytes that its container announces beyond the end of the file.
    """

    capture: Any
    frames: int
    shape: tuple[int, int]
    missing: int


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Give an open video.

    Raises
    ------
    InputError
        If it does not begin as a video does, or OpenCV cannot take its name.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(path, "a path in UTF-8, which OpenCV needs", "bytes that are none", "rename it") from None
    missing = find_missing(path)
    os.environ.update(QUIET_FFMPEG)
    import cv2  # here, after it was told to be quiet, and since most runs have no videos

    # By FFmpeg alone: among the others is one that takes "a%02d.avi" for a list of images.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        frames, height, width = (
            max(0, int(capture.get(what))) if capture.isOpened() else 0
            for what in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        )
        yield Video(capture, frames, (height, width), missing)
    finally:
        capture.release()
