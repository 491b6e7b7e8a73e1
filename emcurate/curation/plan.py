"""Which stages a run of curate.py goes through, on what, and where each one's results go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from emcurate.cli import Arguments
from emcurate.curation.flags import HandedOn
from emcurate.curation.steps import Step, Steps
from emcurate.errors import InputError
from emcurate.files import list_files
from emcurate.patches.cutting import TAR
from emcurate.patches.decided import DECIDED_BY_MEASURES, DECIDED_FILE
from emcurate.running.ledger_file import LedgerFile, ledger_path

# In the order in which they run. The keys are the names of --until, of the directories under OUT and in the table.
SCRIPTS = {
    "vid2stack": "preprocess/vid2stack.py",
    "mrc2byte": "preprocess/mrc2byte.py",
    "cleanup2d": "raw/cleanup2d.py",
    "cross_section3d": "raw/cross_section3d.py",
    "crop_patches": "raw/crop_patches.py",
    "deduplicate": "deduplicated/deduplicate.py",
    "train_nn": "filtered/train_nn.py",
    "classify_nn": "filtered/classify_nn.py",
    "filter_measures": "filtered/filter_measures.py",
    "reconstruct3d": "3d/reconstruct3d.py",
}

KINDS = (IMAGES, VOLUMES, VIDEOS) = ("images", "volumes", "videos")

# Flags that a stage does not get from here: what this script decides itself, and what would mean another thing there.
DECIDED_HERE = {"help", "outdir", "format", "dry_run", "reroot", "labels", "weights", "resume", "verify"} | {
    *("from_volumes", "hashes_only", "only", "version", "quiet", "log"),
}
NOT_HANDED_ON = {("vid2stack", "voxel_size"), ("vid2stack", "voxel_sizes"), ("train_nn", "threshold")}

# Flags of what is read of volumes and what those of a name are, which are nothing to videos; flags of crop_patches.py
# that only say how volumes are cut, and that only say how patches are stored.
NOT_OF_VIDEOS = {"level", "channel", "time", "voxel_sizes"}
OF_VOLUMES = {"axes", "spacing", "anisotropy", "voxel_size", "rescale", "percentiles", "prefer"} | NOT_OF_VIDEOS
OF_STORING = {"store", "shard_size"}

# MRC files are only judged, for which no other flag matters.
OF_AUDIT = {"processes"}

# What decides which exemplars are kept, and where it writes what it decided, and the list of those that it keeps.
FILTERS = (CLASSIFIER, MEASURES) = ("classifier", "measures")
DECISIONS = {
    CLASSIFIER: f"classify_nn/{DECIDED_FILE}",
    MEASURES: f"filter_measures/{DECIDED_BY_MEASURES}",
}
FILTERED = {
    CLASSIFIER: "classify_nn/nn_filtered_fpaths.npz",
    MEASURES: "filter_measures/measures_filtered_fpaths.npz",
}

# What is kept of the patches on the way to the exemplars.
KEPT = (EXEMPLARS, EVERYTHING) = ("exemplars", "all")

# Videos are cut along this plane only: the others would mix space and time.
PLANE_OF_FRAMES = ("--axes", "0")


def plan_steps(a: Arguments, handed_on: HandedOn, load_stage: Callable[[str], Any]) -> list[Step]:
    """Return the steps for the parsed arguments of curate.py, in order.

    Parameters
    ----------
    a : Arguments
    handed_on : HandedOn
        The flags that are handed on to the stages.
    load_stage : callable
        Gives a stage's module.

    Raises
    ------
    InputError
        If what earlier runs left in the directory does not allow them.
    """
    out = {stage: a.out / stage for stage in SCRIPTS}
    sections, patches = out["cross_section3d"], out["crop_patches"]
    exemplars = out["deduplicate"] / "deduplicated_fpaths.npz"
    given = [kind for kind in KINDS if getattr(a, kind)]
    keeps_all = keeps_everything(a)
    steps = Steps(handed_on, vars(a), given)
    add = steps.add

    def crop_each(*last: str | Path, less: AbstractSet[str] = frozenset()) -> None:
        if a.images:
            add("crop_patches", out["cleanup2d"], patches, to=patches, of=[IMAGES], last=last, less=less | OF_VOLUMES)
        if a.volumes:
            words = ["--from-volumes", *last]
            add("crop_patches", a.volumes, patches, to=patches, of=[VOLUMES], last=words, less=less)
        if a.videos:
            words, less = ["--from-volumes", *PLANE_OF_FRAMES, *last], less | NOT_OF_VIDEOS
            add("crop_patches", out["vid2stack"], patches, to=patches, of=[VIDEOS], last=words, less=less)

    if a.videos:
        add("vid2stack", a.videos, "-o", out["vid2stack"], to=out["vid2stack"], of=[VIDEOS])
    is_directory = isinstance(a.volumes, Path) and a.volumes.is_dir()
    if is_directory and list_files(a.volumes, load_stage("mrc2byte").ALL_SUFFIXES):
        unused = {action.dest for action in handed_on.of("mrc2byte")} - OF_AUDIT
        add("mrc2byte", a.volumes, of=[VOLUMES], last=["--dry-run"], less=unused)
    if a.images:
        add("cleanup2d", a.images, out["cleanup2d"], to=out["cleanup2d"], of=[IMAGES])
    if keeps_all:
        if a.volumes:
            add("cross_section3d", a.volumes, sections, to=sections, of=[VOLUMES])
        if a.videos:
            last, less = PLANE_OF_FRAMES, NOT_OF_VIDEOS
            add("cross_section3d", out["vid2stack"], sections, to=sections, of=[VIDEOS], last=last, less=less)
        if a.images:
            add("crop_patches", out["cleanup2d"], patches, to=patches, of=[IMAGES], less=OF_VOLUMES)
        if a.volumes or a.videos:
            of = [kind for kind in given if kind != IMAGES]
            add("crop_patches", sections, patches, to=patches, of=of, less=OF_VOLUMES)
    else:
        crop_each("--hashes-only", less=OF_STORING)
    add("deduplicate", patches, out["deduplicate"], to=out["deduplicate"])
    if a.stage_preview:
        return up_to(steps.steps, a.until)  # what comes after would be made of an earlier run's exemplars
    if not keeps_all:
        crop_each("--only", exemplars)
        if a.stage_store == TAR:  # so that the list of exemplars says in which shards they are
            add("deduplicate", patches, out["deduplicate"], to=out["deduplicate"])
    weights = [a.weights] if a.weights else []
    if a.labels:
        add("train_nn", exemplars, a.labels, out["train_nn"], to=out["train_nn"])
        weights = [out["train_nn"] / "patch_quality_classifier_nn.pth"]
    chosen = [*(["--weights", *weights] if weights else []), *(["--labels", a.labels] if a.labels else [])]
    if a.filter == MEASURES:
        add("filter_measures", exemplars, out["filter_measures"], to=out["filter_measures"])
    else:
        add("classify_nn", exemplars, out["classify_nn"], *chosen, to=out["classify_nn"])
    kept = a.out / FILTERED[a.filter]
    for kind, volumes in ((VOLUMES, a.volumes), (VIDEOS, a.videos and out["vid2stack"])):
        if volumes:
            unused = {*(NOT_OF_VIDEOS if kind == VIDEOS else ())}
            add("reconstruct3d", kept, volumes, out["reconstruct3d"], to=out["reconstruct3d"], of=[kind], less=unused)
    return up_to(steps.steps, a.until)


def up_to(steps: Sequence[Step], last: str) -> list[Step]:
    """Return the steps of stages up to one."""
    order = list(SCRIPTS)
    return [step for step in steps if order.index(step.stage) <= order.index(last)]


def keeps_everything(a: Arguments) -> bool:
    """Return whether all sections and patches are written: as asked for, as needed for what is, or as in earlier runs.

    Raises
    ------
    InputError
        If earlier runs have cut volumes without.
    """
    before_exemplars = list(SCRIPTS).index(a.until) < list(SCRIPTS).index("deduplicate")
    sections = ledger_path(a.out / "cross_section3d", "cross_section3d")
    if not (a.keep == EVERYTHING or before_exemplars or sections.exists()):
        return False
    patches = LedgerFile(ledger_path(a.out / "crop_patches", "crop_patches"))
    if any("spacing" in line.settings for line in patches.entries.values()):
        found = "results of runs that wrote only the exemplars of volumes"
        asked = "--keep all" if a.keep == EVERYTHING else f"--until {a.until}"
        raise InputError(a.out, f"a new directory, or one with all sections, for {asked}", found, "use another --out")
    return True


def find_decisions(a: Arguments) -> tuple[Path, Path]:
    """Return the table of what was decided, and the list of what was kept, by this run's filter or an earlier one."""
    others = (name for name in (a.filter, *FILTERS) if (a.out / DECISIONS[name]).exists())
    name = a.filter if filters_again(a) else next(others, a.filter)
    return a.out / DECISIONS[name], a.out / FILTERED[name]


def filters_again(a: Arguments) -> bool:
    """Return whether this run goes as far as a filter."""
    return list(SCRIPTS).index(a.until) >= list(SCRIPTS).index("classify_nn")


def directories_in(out: Path) -> dict[str, Path]:
    """Return the directory of each stage's results."""
    return {stage: out / stage for stage in SCRIPTS}
