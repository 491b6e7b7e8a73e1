"""Volumes on servers, fetched: each chunk once, many at a time, to scratch directories that are worked on instead."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.partials import partial_path
from emcurate.running.jobs import byte_progress
from emcurate.running.report import Report
from emcurate.volumes.formats.chunked import Chunks
from emcurate.volumes.formats.copies import Box, Piece, create_copy, divide, fetch_pieces, mark_wanted
from emcurate.volumes.layouts import Inverted
from emcurate.volumes.volume import Volume

FETCHED = "bytes of voxels fetched"


def is_remote(volume: Volume) -> bool:
    """Return whether a volume's voxels come from a server."""
    return _remote_chunks(volume) is not None


@contextlib.contextmanager
def all_fetched(
    volumes: Sequence[Volume],
    scratch_directory: Path,
    report: Report,
    wanted: Mapping[Place, Sequence[Box]] | None = None,
) -> Iterator[list[Volume]]:
    """Give volumes on servers as copies in scratch directories, which are removed at the end of the block.

    Parameters
    ----------
    volumes : sequence of Volume
    scratch_directory : Path
    report : Report
        Receives those that cannot be fetched, which are left out.
    wanted : mapping of Path or Address to sequence of boxes, optional
        What is going to be read of each: other chunks are not fetched, and 0 in the copy. All by default.
    """
    copies: dict[Place, tuple[Volume, Path]] = {}
    try:
        pieces = _plan(volumes, scratch_directory, report, wanted or {}, copies)
        total = sum(piece.bytes for piece in pieces)
        with byte_progress(total, f"{report.stage}: fetch") as bar:
            failed = fetch_pieces(pieces, lambda piece: bar.update(piece.bytes))
            if volumes:
                report.count(FETCHED, int(bar.n))
        for place, (_, directory) in copies.items():
            if place not in failed and place not in (wanted or {}) and not _holds_anything(directory):
                expected, advice = "a chunk that is there, or not 0", "check the address, and what else it says"
                failed[place] = InputError(place, expected, "none", advice)
        for error in failed.values():
            report.fail(error)
        yield [copies[v.path][0] for v in volumes if v.path in copies and v.path not in failed]
    finally:
        for _, directory in copies.values():
            shutil.rmtree(directory, ignore_errors=True)


def _plan(
    volumes: Sequence[Volume],
    scratch_directory: Path,
    report: Report,
    wanted: Mapping[Place, Sequence[Box]],
    copies: dict[Place, tuple[Volume, Path]],
) -> list[Piece]:
    """Return what is to be fetched, and enter the copies, of those for which there is room."""
    pieces: list[Piece] = []
    promised = 0
    for volume in volumes:
        chunks = _remote_chunks(volume)
        assert chunks is not None
        marked = mark_wanted(chunks.shape, chunks.chunk, wanted.get(volume.path))
        boxes = divide(chunks.shape, chunks.chunk, chunks.dtype.itemsize, marked)
        needed = int(marked.sum()) * chunks.dtype.itemsize
        for side in chunks.chunk:
            needed *= side
        needed = min(needed, volume.size * chunks.dtype.itemsize)
        free = shutil.disk_usage(scratch_directory).free - promised
        if needed > free:
            expected = f"room for {needed:,} bytes in {scratch_directory}, to fetch it"
            advice = (
                "make room, write to another disk, choose a coarser --level, or draw parts of it with sample_rois.py"
            )
            report.fail(InputError(volume.path, expected, f"{max(0, free):,} bytes", advice))
            continue
        promised += needed
        directory = partial_path(scratch_directory)
        directory.mkdir()
        copy, handle = create_copy(chunks, directory)
        copies[volume.path] = _with_chunks(volume, copy), directory
        pieces += [Piece(volume.path, chunks, handle, box) for box in boxes]
    return pieces


def _remote_chunks(volume: Volume) -> Chunks | None:
    voxels: Any = volume.voxels
    while isinstance(voxels, Inverted):
        voxels = voxels.stored
    return voxels if isinstance(voxels, Chunks) and voxels.is_remote else None


def _with_chunks(volume: Volume, chunks: Chunks) -> Volume:
    return replace(volume, voxels=Inverted(chunks) if isinstance(volume.voxels, Inverted) else chunks)


def _holds_anything(directory: Path) -> bool:
    return any(path.is_file() for path in (directory / "c").rglob("*"))
