"""Pictures of groups of near-duplicates, and of pairs, so that a person can judge what was called one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from emcurate.writing import write_once

GROUPS_SHOWN = 12  # in one picture
DUPLICATES_SHOWN = 9  # of each group
PAIRS_A_ROW = 5

Reader = Callable[[Path], npt.NDArray[Any]]


@dataclass(frozen=True)
class GroupSheet:
    """A picture to be drawn: groups, each a list of patches and their distances in bits, the exemplar first.

    A patch is named by its path from `patchdir` on, without the extension; `read` reads it, a file by default. One that
    is there is only replaced by another with `replaces`. `says` is what the user is told to look at.
    """

    path: Path
    patchdir: Path
    title: str
    groups: list[list[tuple[str, int]]]
    says: str = ""
    read: Reader | None = None
    replaces: bool = False

    def patches(self) -> set[str]:
        """Return the names of the patches that are shown."""
        return {name for group in self.groups for name, _ in group}


class Seen(NamedTuple):
    """A patch in a pair: its path, and what is written below it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class PairSheet:
    """A picture to be drawn: pairs of patches under titles, each with what is said of it.

    Those of another set, `of_other`, need not lie in `patchdir`, and `read` reads them until it is known how the
    others are read. All else is as in `GroupSheet`.
    """

    path: Path
    patchdir: Path
    title: str
    rows: Mapping[str, list[tuple[str, Seen, Seen]]]
    says: str = ""
    read: Reader | None = None
    of_other: frozenset[Path] = frozenset()
    replaces: bool = False

    def patches(self) -> set[str]:
        """Return the names of the patches that are shown, but for those of another set."""
        shown = (seen.path for pairs in self.rows.values() for _, *pair in pairs for seen in pair)
        return {path.stem for path in shown if path not in self.of_other}


def draw_sheet(job: GroupSheet | PairSheet) -> None:
    """Draw a picture; raises as `emcurate.files.write_once`."""
    draw_group_sheet(job) if isinstance(job, GroupSheet) else draw_pair_sheet(job)


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


def draw_pair_sheet(job: PairSheet) -> None:
    """Draw pairs, one beside the other; raises as `emcurate.files.write_once`."""
    from emcurate.images.reading import read_image
    from emcurate.pictures.contact_sheets import DROPPED, KEPT, Group, Mark, Tile, encode_contact_sheet

    first, second = KEPT, DROPPED
    if job.of_other:
        first, second = Mark("patch", KEPT.colour), Mark("other set", DROPPED.colour)
    sheet = []
    for title, pairs in job.rows.items():
        tiles = []
        for said, one, other in pairs:
            tiles.append(Tile(one.path, f"{said}\n{one.caption}", first))
            tiles.append(Tile(other.path, f"\n{other.caption}", second))
        sheet.append(Group(title, tiles))
    data = encode_contact_sheet(job.title, sheet, columns=2 * PAIRS_A_ROW, read=job.read or read_image)
    write_once(job.path, data, overwrite=job.replaces)
