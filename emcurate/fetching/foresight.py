"""What it would take to bring chosen images: how many, from where, and how large; nothing is written or fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from emcurate.fetching.archives import list_sizes
from emcurate.fetching.gathering import Wanted, Way
from emcurate.files import free_bytes
from emcurate.running.report import Report

# Of a JPEG as COCO has them: the 118,287 images of train2017 take 19.3 GB and have 0.28 million pixels on average.
BYTES_OF_A_PIXEL = 0.58
BYTES_OF_AN_IMAGE = 163_000

BYTES_OF_A_GB = 10**9
NAMES_SHOWN = 3


def foretell_way(name: str, way: Way, wanted: Mapping[str, Wanted], directory: Path, report: Report) -> None:
    """Tell a user what `gather` would do: counts, gigabytes, and what is nowhere.

    Parameters
    ----------
    name : str
        What the images are called.
    way : Way
    wanted : mapping of str to Wanted
        What the way is of.
    directory : Path
        The output directory.
    report : Report
    """
    there = {path for path in way.names if path.is_file()}
    to_place = [job for job in way.placements if job.path not in there]
    to_fetch = [item for item in way.downloads if item.path not in there]
    archives = {job.source: list_sizes(job.source) for job in to_place[:1] if job.entry is not None}
    placed = sum(
        archives[job.source][job.entry] if job.entry is not None else job.source.stat().st_size for job in to_place
    )
    fetched = sum(_estimate(wanted[way.names[item.path]]) for item in to_fetch)
    free = free_bytes(directory)
    sizes = [number / BYTES_OF_A_GB for number in (placed, fetched, free)]
    report.note(
        f"{name}: {len(to_place):,} images to place, {sizes[0]:.3f} GB; {len(to_fetch):,} to fetch, about "
        f"{sizes[1]:.3f} GB; {len(there):,} are there already; {sizes[2]:.1f} GB are free"
    )
    for noun, number in (
        ("images to place", len(to_place)),
        ("images to fetch", len(to_fetch)),
        ("images already there", len(there)),
        ("images that are nowhere", len(way.missing)),
    ):
        report.count(noun, number)
    if way.missing:
        report.warn(f"{name}: {len(way.missing):,} images are nowhere, such as {', '.join(way.missing[:NAMES_SHOWN])}")
    if placed + fetched > free:
        report.warn(f"{directory}: {(placed + fetched - free) / BYTES_OF_A_GB:.1f} GB are lacking there")


def _estimate(image: Wanted) -> float:
    """Return about how many bytes an image has that is still on its server."""
    if image.size is None:
        return BYTES_OF_AN_IMAGE
    return image.size[0] * image.size[1] * BYTES_OF_A_PIXEL
