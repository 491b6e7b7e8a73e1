"""Turn every video of a directory into a volume of grey uint8 voxels: each frame is a slice.

Reads:   .mp4 .avi .mov .mkv .m4v in VIDDIR, whatever of them OpenCV can open.
Writes:  VIDDIR/{video}.tif, or in OUTDIR; .nrrd or .mrc with --format.
Example: python preprocess/vid2stack.py corpus/videos -o work/vid2stack --voxel-size 40 4 4
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate import cli, naming
from emcurate.corpora.videos import list_videos, open_video
from emcurate.errors import DataWarning, InputError
from emcurate.files import describe_content, make_output_directory
from emcurate.images.pixels import to_grey
from emcurate.outputs import Output, fingerprint, note_output
from emcurate.partials import partial_path
from emcurate.running.claims import refuse_bad_names, refuse_odd_files
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.volumes.containers import VIDEO_SUFFIXES
from emcurate.volumes.cut_settings import HowToCut, VoxelSize
from emcurate.volumes.formats import FORMATS, write_stack
from emcurate.volumes.volume import VOLUMES
from emcurate.volumes.voxel_sizes import ask_about_given
from emcurate.writing import move_once

STAGE = "vid2stack"


@dataclass(frozen=True)
class VideoJob:
    """One video to turn into a volume."""

    path: Path
    volume: Path
    format: str
    voxel_size: VoxelSize | None
    replace: bool

    @property
    def key(self) -> str:
        """The video's key in the ledger: the name of its volume."""
        return self.volume.name


def grey_of_frame(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the grey of a frame as OpenCV gives it: (height, width), or (height, width, 3) in blue, green, red."""
    return frame if frame.ndim == 2 else to_grey(frame[..., ::-1])


def read_frames(capture: Any, path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frames of an opened video as grey (height, width) uint8, one at a time."""
    shape = None
    while True:
        decoded, frame = capture.read()
        if not decoded:
            return
        grey = grey_of_frame(frame)
        shape = shape or grey.shape
        if grey.shape != shape:
            found = f"one of {grey.shape[1]} x {grey.shape[0]} pixels"
            raise InputError(path, f"frames of {shape[1]} x {shape[0]} pixels", found, "cut the video where it changes")
        yield grey


def convert_video(job: VideoJob) -> tuple[bool, Output]:
    """Write one video's volume; return whether it was not there yet, and what it is."""
    partial = partial_path(job.volume.parent)
    try:
        with open_video(job.path) as video:
            frames = read_frames(video.capture, job.path)
            label = f"emcurate {STAGE}: frames of a video as unsigned bytes"
            expected = video.frames * video.shape[0] * video.shape[1] or None
            count = write_stack(partial, frames, job.format, job.voxel_size, label, expected)
        if not count:
            found = f"none that OpenCV can decode in {job.path.stat().st_size:,} bytes"
            raise InputError(job.path, "a video with frames", found, "check that it plays, or export it again as .mp4")
        if video.missing:
            message = (
                f"{job.path}: {video.missing:,} bytes that it announces are missing at its end; slices may be damaged"
            )
            warnings.warn(message, DataWarning, stacklevel=2)
        if count < video.frames:
            found = f"{count} frames were decoded of {video.frames} announced; the volume has {count} slices"
            warnings.warn(f"{job.path}: {found}", DataWarning, stacklevel=2)
        written = move_once(partial, job.volume, overwrite=job.replace)
        return written, note_output(job.volume, job.volume.parent)
    finally:
        partial.unlink(missing_ok=True)


def run(
    viddir: Path,
    *,
    outdir: Path | None = None,
    format: str = "tif",
    voxel_size: Sequence[float] | None = None,
    voxel_sizes: tuple[tuple[str, VoxelSize], ...] = (),
    prefer: str | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Convert every video of `viddir`; see the module's docstring."""
    report = Report(STAGE)
    videos = list_videos(viddir, prefer, report)
    if not videos and not report.failures:
        expected = f"videos ({', '.join(VIDEO_SUFFIXES)})"
        raise InputError(viddir, expected, describe_content(viddir), "name the directory that holds them")
    size = None if voxel_size is None else (voxel_size[0], voxel_size[1], voxel_size[2])
    how = HowToCut(voxel_size=size, voxel_sizes=voxel_sizes)
    outdir = make_output_directory(outdir or viddir)
    names = {path: naming.strip_extension(path.name) for path in videos}
    volumes = {
        f"{names[path]}.{format}": path
        for path in refuse_odd_files(
            refuse_bad_names({path: [(name, path)] for path, name in names.items()}, report), report
        )
    }
    ask_about_given(how, names.values(), report)
    sizes = {key: how.of(names[path]).voxel_size for key, path in volumes.items()}
    sources = {
        key: Source(path, fingerprint(path), key, settings={"voxel_size": sizes[key]}, is_read_on=True)
        for key, path in volumes.items()
    }
    among_inputs = outdir.samefile(viddir)
    # Any file beside a video may bear the name of its volume.
    ledger = Ledger(
        outdir,
        STAGE,
        {"format": format},
        product=VOLUMES,
        owner_of=lambda name: name,
        among_inputs=among_inputs,
    )
    plan = ledger.plan(sources, report, root=viddir, overwrite=overwrite, prune=prune)
    report.count("volumes written", 0)
    report.count("already done", len(plan.done))
    todo = [VideoJob(volumes[key], outdir / key, format, sizes[key], ledger.replaces(key)) for key in plan.todo]
    for job, (written, output) in workers.run(convert_video, todo, report, unit="video"):
        ledger.finish(job.key, [output], {"kind": "video"})
        report.count("volumes written" if written else "already done")
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "vid2stack.py")
    parser.add_argument("viddir", type=cli.existing_directory, metavar="VIDDIR", help="directory of videos")
    parser.add_argument(
        "-o",
        "--outdir",
        type=cli.output_directory,
        metavar="OUTDIR",
        help="directory for the volumes (default: VIDDIR)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="tif", help="format of the volumes (default: %(default)s, for ImageJ)"
    )
    cli.add_voxel_size_flag(parser)
    cli.add_prefer_flag(parser)
    cli.add_ledger_flags(parser, "outdir", or_else="viddir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
