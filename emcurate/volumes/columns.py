"""Columns of informative patches in a volume, and the boxes that come of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emcurate import naming
from emcurate.errors import InputError
from emcurate.images.resampling import Resampled
from emcurate.running.ledger_file import LedgerFile, read_ledgers
from emcurate.running.report import Report
from emcurate.volumes.boxes import Box, Column, find_candidates, score_stretches, suppress_overlapping
from emcurate.volumes.views import View
from emcurate.volumes.volume import Volume

IOU_THRESHOLD = 0.1  # boxes that share more than this are taken for one

# With a smaller part of all stretches, what came before has left too few patches, and the user should know.
FEW_CANDIDATES = 0.1


@dataclass
class Informative:
    """The informative patches of one dataset: by plane and place, the sections and one of the patches' paths."""

    sections: dict[tuple[int, int, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    example: dict[tuple[int, int, int], str] = field(default_factory=dict)

    @property
    def isotropic(self) -> bool:
        """Whether patches of other planes than 0 occur."""
        return any(plane != 0 for plane, _, _ in self.sections)

    @property
    def first(self) -> str:
        """The path of one of the patches."""
        return self.example[min(self.example)]

    def fingerprint(self, seen_of: Callable[[str], object]) -> str:
        """Return what changes when the set of patches does, or what `seen_of` finds of one of each place."""
        text = repr(
            [(place, sorted(self.sections[place]), seen_of(self.example[place])) for place in sorted(self.sections)]
        )
        return hashlib.sha256(text.encode()).hexdigest()


def group_patches(paths: Iterable[str], report: Report) -> dict[str, Informative]:
    """Return the informative patches of volumes by dataset; those of 2D images are counted and left out."""
    datasets: dict[str, Informative] = defaultdict(Informative)
    for path in paths:
        try:
            patch = naming.parse_patch(Path(path).stem)
        except naming.GrammarError as error:
            report.fail(f"{path}: {error}; only patches of raw/crop_patches.py belong in the path list")
            continue
        if isinstance(patch.section, naming.ImageSection):
            report.count("patches of 2D images left out")
            continue
        place = patch.section.plane, patch.y, patch.x
        datasets[patch.dataset].sections[place].add(patch.section.index)
        datasets[patch.dataset].example.setdefault(place, path)
    return datasets


@dataclass(frozen=True)
class Choice:
    """The boxes to save of one volume, the best first, and what became of the others.

    `stretches` are all pieces of columns with any informative patch, `candidates` those with enough of them; `thin`
    counts boxes that overlap no better one but have a side under half of what is wanted.
    """

    boxes: list[Box]
    stretches: int = 0
    candidates: int = 0
    thin: int = 0


def choose_boxes(
    informative: Informative,
    volume: Volume,
    nz: int,
    size_of: Callable[[str], tuple[int, int]],
    resampled: Resampled | None = None,
) -> Choice:
    """Return the boxes to save of one volume.

    Parameters
    ----------
    informative : Informative
    volume : Volume
    nz : int
        Sections of a stretch.
    size_of : callable
        Reads the height and width of a patch.
    resampled : Resampled, optional
        How the volume's sections were, before patches were cut from them.

    Raises
    ------
    InputError
        If a patch cannot be read, or cannot have been cut from the volume.
    """
    columns = {}
    for (plane, y, x), sections in informative.sections.items():
        height, width = size_of(informative.example[plane, y, x])
        column = find_column(plane, (y, y + height), (x, x + width), resampled)
        check_column(column, max(sections), volume, informative.example[plane, y, x])
        columns[column] = sections
    stretches = score_stretches(columns, volume.shape, nz)
    candidates = find_candidates(stretches, nz)
    kept = suppress_overlapping(candidates, IOU_THRESHOLD)
    thick = [box for box in kept if min(box.shape) >= nz // 2]
    return Choice(thick, len(stretches), len(candidates), len(kept) - len(thick))


def account_for(choices: Iterable[Choice], nz: int) -> str:
    """Return a line on why as many or as few boxes came out as did."""
    choices = list(choices)
    stretches, candidates, thin, boxes = (
        sum(numbers)
        for numbers in zip(*((c.stretches, c.candidates, c.thin, len(c.boxes)) for c in choices), strict=True)
    )
    line = (
        f"{stretches:,} pieces of columns have informative patches, {candidates:,} of them in more than {nz // 10} of "
        f"{nz} sections; {candidates - boxes - thin:,} overlapped better ones, {thin:,} were thinner than {nz // 2}"
    )
    if candidates < FEW_CANDIDATES * stretches:
        line += "; for more, cut sections with a smaller --spacing, deduplicate with a smaller -d, or use a smaller -nz"
    return line


class NotedViews:
    """What was read of volumes that patches were cut from, as far as the directories on the way tell."""

    def __init__(self) -> None:
        self._ledgers: dict[Path, list[LedgerFile]] = {}

    def complete(self, informative: Informative, view: View) -> View:
        """Return a view with the pixel size, by which a level was chosen when patches were cut, if none is given."""
        if view.level is not None or not informative.example:
            return view
        noted = self._find(informative.first) or {}
        return replace(view, pixel_size_nm=noted.get("pixel_size_nm")) if "level" not in noted else view

    def refuse_other(self, informative: Informative, volume: Volume, view: View) -> None:
        """Raise `InputError` if a volume's patches were cut from another level, channel or time than is read of it.

        Nothing in a patch's name tells which, and a box at its place in another level would be one of something else.
        """
        if not informative.example or (volume.levels == 1 and not view.settings()):
            return
        noted = self._find(informative.first)
        if noted is None:
            return
        cut, read = _spell_view(noted), _spell_view(view.settings())
        if cut != read:
            advice = "give the --level, --channel and --time that the patches were cut with"
            raise InputError(volume.path, f"what its patches were cut from ({cut})", read, advice)

    def _find(self, patch: str) -> dict[str, Any] | None:
        """Return what was said of the volume that a patch was cut from."""
        path = Path(patch)
        directory = path.parent.parent if path.parent.suffix == ".tar" else path.parent
        section = naming.parse_patch(path.stem).section
        for _ in range(2):  # where it was cut, and where its section was
            if directory not in self._ledgers:
                self._ledgers[directory] = list(read_ledgers(directory))
            lines = [
                ledger.entries[key]
                for ledger in self._ledgers[directory]
                for key in (section.stem, section.dataset)
                if key in ledger.entries
            ]
            for line in lines:
                if "axes" in line.settings:
                    return line.settings
            if not lines:
                return None
            directory = Path(lines[0].root)
        return None


def lacks_patches(filtered: Path) -> bool:
    """Return whether patches that might be in a list could not be read when it was made, as is noted beside it."""
    return any(
        line.count_of("unreadable") for ledger in read_ledgers(filtered.parent) for line in ledger.entries.values()
    )


def _spell_view(settings: Mapping[str, Any]) -> str:
    """Return what a view chooses as words; the full resolution is read where no level is named."""
    chosen = [f"{name} {settings[name]}" for name in ("channel", "time") if name in settings]
    size = settings.get("pixel_size_nm") if "level" not in settings else None
    level = f"level {settings.get('level', 0)}" if size is None else f"the level for pixels of {size:g} nm"
    return ", ".join([level, *chosen])


def find_column(
    plane: int, rows: tuple[int, int], columns: tuple[int, int], resampled: Resampled | None = None
) -> Column:
    """Return the column of voxels that patches at some rows and columns (start, stop) of a plane were cut from."""
    down, across = (None if resampled is None else resampled.factors(plane)) or (1.0, 1.0)
    (top, bottom), (left, right) = (
        (round(start * factor), round(stop * factor)) for (start, stop), factor in ((rows, down), (columns, across))
    )
    return Column(plane, top, left, bottom - top, right - left)


def check_column(column: Column, last_section: int, volume: Volume, patch: str) -> None:
    """Raise `InputError` unless the patches of a column lie inside the volume."""
    sides = [side for axis, side in enumerate(volume.shape) if axis != column.plane]
    inside = column.y + column.height <= sides[0] and column.x + column.width <= sides[1]
    if not inside or last_section >= volume.shape[column.plane]:
        raise InputError(
            volume.path,
            f"a volume that {Path(patch).name} can have been cut from",
            "one of " + " x ".join(map(str, volume.shape)) + " voxels (z, y, x)",
            "name the directory of the volumes the sections were cut from",
        )
