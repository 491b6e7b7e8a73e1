"""What would come of each input: a run of curate.py looked at before it is begun."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from emcurate import naming
from emcurate.cli import Arguments
from emcurate.corpora.foresight import Foreseen, Grid, foresee_images, foresee_videos, foresee_volumes
from emcurate.curation.closing import format_foreseen
from emcurate.curation.plan import IMAGES, KINDS, VIDEOS, VOLUMES
from emcurate.curation.steps import Step
from emcurate.errors import InputError
from emcurate.files import free_bytes
from emcurate.images.cleaning import Cleaning
from emcurate.patches.cutting import FILES
from emcurate.patches.grid import least_side
from emcurate.running.disk import spell_bytes
from emcurate.running.report import Report
from emcurate.volumes.section_source import DirectoryOfVolumes


def look_ahead(a: Arguments, checked: Sequence[tuple[Step, dict[str, Any]]], name: str) -> Report:
    """Say what would come of each input, and what would be left out; nothing is written.

    Parameters
    ----------
    a : Arguments
        The arguments of curate.py.
    checked : sequence of (Step, dict)
        The steps of the run, with the arguments of each.
    name : str
        Who says it.
    """
    report = Report(name)
    keeps_all = any(step.stage == "cross_section3d" for step, _ in checked)
    foreseen = list(foresee(a, checked, report, keeps_all=keeps_all))
    if foreseen:
        report.notes += ["", *format_foreseen(foreseen), ""]
        all_patches = spell_bytes(sum(some.patch_bytes for some in foreseen))
        patches = f"patches {all_patches}" if keeps_all else f"patches at most {all_patches}, if none had a duplicate"
        sections = spell_bytes(sum(some.section_bytes for some in foreseen))
        free = spell_bytes(free_bytes(a.out))
        report.note(f"to be written: sections {sections}, {patches}; free in {a.out}: {free}")
    stages = dict.fromkeys(step.stage for step, _ in checked)
    report.note(f"stages: {', '.join(stages)}; nothing was written")
    for noun in ("sections", "patches", "small"):
        name = "patches left out as too small" if noun == "small" else noun
        report.count(name, sum(getattr(some, noun) for some in foreseen))
    return report


def foresee(
    a: Arguments, checked: Sequence[tuple[Step, dict[str, Any]]], report: Report, *, keeps_all: bool
) -> Iterator[Foreseen]:
    """Yield what would come of each input; a kind of inputs that cannot be used stops no other."""
    of_kind = {(step.stage, kind): parsed for step, parsed in checked for kind in step.kinds}
    owners: dict[str, tuple[str, str]] = {}
    for kind in KINDS:
        of_this = Report(report.stage)
        cleaning, cropping = of_kind.get(("cleanup2d", kind)), of_kind.get(("crop_patches", kind))
        cutting = of_kind.get(("cross_section3d", kind)) or cropping
        grid = Grid(1, 1, 0)
        if cropping is not None:
            side, least = cropping["crop_size"], cropping["min_size"]
            hashes = cropping["hash_size"] if cropping["store"] == FILES else 0
            grid = Grid(side, least_side(side) if least is None else least, hashes)
        try:
            if kind == IMAGES and cleaning is not None:
                given = cleaning["image_pixel_size"]
                size = None if given is None else (given[0], given[1])
                how = Cleaning(cleaning["rescale"], cleaning["crop_bar"], size, cleaning["scale"])
                found = foresee_images(a.images, cleaning["prefer"], how, grid, of_this, cleaning["workers"])
                yield from _of_own_names(found, kind, owners, of_this)
            elif kind == VOLUMES and cutting is not None:
                how, scale, prefer, workers = (cutting[name] for name in ("sections", "scale", "prefer", "workers"))
                least = grid.min_size
                material = DirectoryOfVolumes(a.volumes, how, a.out, of_this, workers, scale, prefer, least)
                found = foresee_volumes(material, grid, writes_sections=keeps_all)
                yield from _of_own_names(found, kind, owners, of_this)
            elif kind == VIDEOS and cutting is not None:
                prefer, how, scale = of_kind["vid2stack", kind]["prefer"], cutting["sections"], cutting["scale"]
                found = foresee_videos(a.videos, prefer, how, scale, grid, of_this, writes_sections=keeps_all)
                yield from _of_own_names(found, kind, owners, of_this)
        except InputError as error:
            of_this.fail(error)
        report.take(of_this)


def _of_own_names(
    found: Iterable[Foreseen], kind: str, owners: dict[str, tuple[str, str]], report: Report
) -> Iterator[Foreseen]:
    """Yield what would come of inputs of a kind, but for those whose dataset's name is that of another kind's input."""
    for one in found:
        owner, path = owners.setdefault(naming.fold(one.dataset), (kind, one.path))
        if owner == kind:
            yield one
        else:
            wanted = "a dataset name of its own"
            report.fail(InputError(one.path, wanted, f"that of {path} too, {one.dataset}", "rename one of the two"))
