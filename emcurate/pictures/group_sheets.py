"""Pictures of groups of near-duplicates, so that a person can judge what was called one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from emcurate.files import write_once

GROUPS_SHOWN = 12  # in one picture
DUPLICATES_SHOWN = 9  # of each group


@dataclass(frozen=True)
class GroupSheet:
    """A picture to be drawn: groups, each a list of patches and their distances in bits, the exemplar first.

    A patch is named by its path from `patchdir` on, without the extension; `read` reads it, a file by default. One that
    is there is only replaced by another with `replaces`.
    """

    path: Path
    patchdir: Path
    title: str
    groups: list[list[tuple[str, int]]]
    read: Callable[[Path], npt.NDArray[Any]] | None = None
    replaces: bool = False


def draw_group_sheet(job: GroupSheet) -> None:
    """Draw groups of near-duplicates, each in a row; raises as `emcurate.files.write_once`."""
    # Here, since a run that draws nothing need not load what draws.
    from emcurate.images.reading import read_image
    from emcurate.pictures.contact_sheets import DROPPED, KEPT, Group, Tile, encode_contact_sheet

    sheet = []
    for (exemplar, _), *duplicates in job.groups:
        tiles = [Tile(job.patchdir / f"{exemplar}.tiff", "exemplar", KEPT)]
        tiles += [Tile(job.patchdir / f"{name}.tiff", f"{bits} bits away", DROPPED) for name, bits in duplicates]
        sheet.append(Group(Path(exemplar).name, tiles))
    title = f"{job.title}: largest groups of near-duplicates, those that differ most first"
    data = encode_contact_sheet(title, sheet, columns=DUPLICATES_SHOWN + 1, read=job.read or read_image)
    write_once(job.path, data, overwrite=job.replaces)
