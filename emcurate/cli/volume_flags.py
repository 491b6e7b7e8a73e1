"""The flags by which volumes are read and cut, and what comes of those that belong together."""

from __future__ import annotations

import argparse
from typing import Any

from emcurate.cli.argument_types import (
    existing_volumes,
    natural_int,
    non_negative_float,
    percentile,
    plane,
    positive_float,
    positive_int,
    voxel_size_file,
)
from emcurate.images.pixels import Rescale
from emcurate.volumes.cut_settings import ANISOTROPY, PLANES, HowToCut
from emcurate.volumes.views import View


def add_rescale_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--rescale`` and ``--percentiles``; they come back as one `Rescale`."""
    group = parser.add_argument_group("grey values", "how pixels that are not uint8 become uint8")
    group.add_argument(
        "--rescale",
        choices=["dtype", "minmax", "percentile"],
        help="map the pixel type's range, the image's or volume's own extremes, or robust limits to 0..255 "
        "(default: dtype for integers, minmax for floats)",
    )
    group.add_argument(
        "--percentiles",
        nargs=2,
        type=percentile,
        metavar=("LOW", "HIGH"),
        help="the limits of --rescale percentile (default: {:g} {:g})".format(*Rescale.percentiles),
    )


def pop_rescale(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> Rescale:
    """Take the flags of `add_rescale_flags` out of parsed arguments and return them as one value."""
    limits, method = arguments.pop("percentiles"), arguments.pop("rescale")
    if limits is None:
        return Rescale(method)
    low, high = limits
    if low >= high:
        parser.error(f"argument --percentiles: expected LOW below HIGH, found {low:g} {high:g}")
    if method != "percentile":
        parser.error(f"argument --percentiles: expected --rescale percentile too, found {method or 'no --rescale'}")
    return Rescale(method, (low, high))


def add_voxel_size_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--voxel-size Z Y X``, in nm, which overrides what the files say."""
    parser.add_argument(
        "--voxel-size",
        nargs=3,
        type=positive_float,
        metavar=("Z", "Y", "X"),
        help="voxel size in nm of every volume, instead of what the files say",
    )
    parser.add_argument(
        "--voxel-sizes",
        type=voxel_size_file,
        default=(),
        metavar="FILE",
        help="voxel sizes of some by name, before --voxel-size: a csv of name,z,y,x in nm",
    )


def add_volumes_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``VOLDIR``, where volumes are."""
    parser.add_argument(
        "voldir",
        type=existing_volumes,
        metavar="VOLDIR",
        help="directory of volumes, or a text or csv file of their addresses and paths, or one of these by itself",
    )


def add_view_flags(parser: argparse.ArgumentParser) -> None:
    """Add what is read of volumes that hold several: ``--level``, ``--channel``, ``--time``, which come as a `View`."""
    group = parser.add_argument_group("volumes that hold several", "such as OME-Zarr, N5, precomputed and HDF5")
    for name, text in (
        ("level", "which resolution is read, 0 being the full one (default: 0)"),
        ("channel", "which channel is read, where there are several, counted from 0"),
        ("time", "which time is read, where there are several, counted from 0"),
    ):
        group.add_argument(f"--{name}", type=natural_int, metavar="N", help=text)


def pop_view(arguments: dict[str, Any]) -> View:
    """Take the flags of `add_view_flags` out of parsed arguments and return them as one value."""
    return View(arguments.pop("level"), arguments.pop("channel"), arguments.pop("time"))


def add_scale_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--pixel-size`` and ``--allow-upsampling``, which come back as one `Scale`, called `scale`."""
    group = parser.add_argument_group("scale", "patches of one scale from many instruments")
    group.add_argument(
        "--pixel-size",
        type=positive_float,
        metavar="NM",
        help="bring sections to pixels of so many nm a side, each the mean of the area that it covers (default: leave "
        "them as they are); rows and columns in names are then those of the new pixels",
    )
    group.add_argument(
        "--allow-upsampling",
        action="store_true",
        help="also where the source's pixels are larger: between these straight lines, without any more detail",
    )


def add_section_flags(parser: argparse.ArgumentParser, title: str) -> None:
    """Add how volumes are cut: ``--axes``, ``--spacing``, ``--anisotropy``, ``--voxel-size``, grey values.

    They come back as `emcurate.volumes.cut_settings.HowToCut`, called `sections`.
    """
    group = parser.add_argument_group(title)
    group.add_argument(
        "-a",
        "--axes",
        nargs="+",
        type=plane,
        default=PLANES,
        metavar="PLANE",
        help="planes to cut: 0 is xy, 1 xz, 2 yz (default: 0 1 2)",
    )
    group.add_argument(
        "-s",
        "--spacing",
        type=positive_int,
        default=HowToCut.spacing,
        metavar="N",
        help="cut every N-th index, and the last (default: %(default)s)",
    )
    group.add_argument(
        "--anisotropy",
        type=non_negative_float,
        default=ANISOTROPY,
        metavar="PART",
        help="cut plane 0 only where voxels differ in z from x by more than this part of x (default: %(default)s)",
    )
    add_view_flags(parser)
    add_voxel_size_flag(parser)
    add_rescale_flags(parser)


def pop_sections(arguments: dict[str, Any]) -> HowToCut:
    """Take the flags of `add_section_flags` out of parsed arguments and return them as one value."""
    axes, size = tuple(sorted(set(arguments.pop("axes")))), arguments.pop("voxel_size")
    voxel_size = None if size is None else (size[0], size[1], size[2])
    spacing, anisotropy = arguments.pop("spacing"), arguments.pop("anisotropy")
    rescale, view, by_name = arguments.pop("rescale"), pop_view(arguments), arguments.pop("voxel_sizes")
    return HowToCut(axes, spacing, anisotropy, voxel_size, rescale, view, by_name)
