"""Run every stage in order: raw images, volumes and videos in; filtered patches and 3D subvolumes out.

Reads:   2D images (--images), volumes (--volumes), videos (--videos): directories, at least one of them; volumes also
         as a text file of their addresses and paths, a line each.
Writes:  OUT/{stage}/, each stage's results in a directory of its own;
         OUT/patches.parquet, a row for every patch: where it came from, what became of it and why;
         OUT/report.html, all that in pictures and numbers, for people.
Example: python curate.py --images corpus/images --volumes corpus/volumes --out work --until deduplicate
         (label patches in labeling.ipynb, then)
         python curate.py --images corpus/images --volumes corpus/volumes --out work \\
             --labels work/deduplicate/patch_quality_labels.npy

Patches are hashed first, those of volumes without sections being written, and only the exemplars become files;
--keep all writes all sections and patches. The classifier is trained on --labels, or read from --weights, or else the
published one is downloaded. A second run does only what is new. Your files are only read: MRC files are audited, not
converted, since every stage reads signed bytes rightly. Videos are cut frame by frame only, since their third axis is
time.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import importlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.addresses import Address, Place, hide_secrets
from emcurate.errors import InputError
from emcurate.files import list_files, make_output_directory
from emcurate.patches.cutting import TAR
from emcurate.patches.decided import DECIDED_FILE
from emcurate.patches.joined import Results
from emcurate.reporting.account import open_ledger, write_account
from emcurate.reporting.page import Run, StageRun
from emcurate.reporting.whole import write_report
from emcurate.running.ledger_file import LedgerFile, ledger_path, lock_path
from emcurate.running.locks import hold_lock
from emcurate.running.report import LeftOut, Report

NAME = "curate"

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

# Pictures that stages draw, for the report: their titles, and where they are in OUT.
SHEETS = {
    "The largest groups of near-duplicates": "deduplicate/groups.png",
    "How well the classifier tells patches apart (ROC)": "train_nn/patch_quality_nn_roc_curve.png",
    "What the classifier got wrong": "train_nn/patch_quality_nn_mistakes.png",
}

# What is kept of the patches on the way to the exemplars.
KEPT = (EXEMPLARS, EVERYTHING) = ("exemplars", "all")

# What the names of handed-on flags begin with among this script's own arguments.
HANDED_ON = "stage_"

# Videos are cut along this plane only: the others would mix space and time.
PLANE_OF_FRAMES = "0"


@dataclass(frozen=True)
class Step:
    """One run of one stage: its command line, the directories of its inputs and outputs, and what goes through it."""

    stage: str
    source: Place
    destination: Path | None
    argv: tuple[str, ...]
    kinds: frozenset[str]


@dataclass
class Row:
    """A line of the closing table; a stage that runs twice, on volumes and on videos, has one line."""

    inputs: int = 0
    outputs: str = ""
    seconds: float = 0.0


def plan_steps(a: argparse.Namespace) -> list[Step]:
    """Return the steps for the parsed arguments, in order."""
    out = {stage: a.out / stage for stage in SCRIPTS}
    patches, deduplicated = out["crop_patches"], out["deduplicate"] / "deduplicated_fpaths.npz"
    filtered = out["classify_nn"] / "nn_filtered_fpaths.npz"
    given = [kind for kind in KINDS if getattr(a, kind)]
    keeps_all = keeps_everything(a)
    steps: list[Step] = []

    def add(
        stage: str,
        *paths: str | Place,
        to: Path | None = None,
        of: Sequence[str] = given,
        last: str = "",
        less: Set[str] = frozenset(),
    ) -> None:
        unused = less if stage != "mrc2byte" else {action.dest for action in flags_of(stage)} - OF_AUDIT
        flags = forwarded_flags(stage, vars(a), unused)
        words = [path.full if isinstance(path, Address) else str(path) for path in paths]
        source = paths[0] if isinstance(paths[0], Address) else Path(paths[0])
        steps.append(Step(stage, source, to, (*words, *flags, *shlex.split(last)), frozenset(of)))

    def add_cropping(last: str = "", less: Set[str] = frozenset()) -> None:
        if a.images:
            add("crop_patches", out["cleanup2d"], patches, to=patches, of=[IMAGES], last=last, less=less | OF_VOLUMES)
        if a.volumes:
            add("crop_patches", a.volumes, patches, to=patches, of=[VOLUMES], last=f"--from-volumes {last}", less=less)
        if a.videos:
            words, less = f"--from-volumes {frames} {last}", less | NOT_OF_VIDEOS
            add("crop_patches", out["vid2stack"], patches, to=patches, of=[VIDEOS], last=words, less=less)

    if a.videos:
        add("vid2stack", a.videos, "-o", out["vid2stack"], to=out["vid2stack"], of=[VIDEOS])
    is_directory = isinstance(a.volumes, Path) and a.volumes.is_dir()
    if is_directory and list_files(a.volumes, load_stage("mrc2byte").ALL_SUFFIXES):
        add("mrc2byte", a.volumes, of=[VOLUMES], last="--dry-run")
    if a.images:
        add("cleanup2d", a.images, out["cleanup2d"], to=out["cleanup2d"], of=[IMAGES])
    sections, frames = out["cross_section3d"], f"--axes {PLANE_OF_FRAMES}"
    if keeps_all:
        if a.volumes:
            add("cross_section3d", a.volumes, sections, to=sections, of=[VOLUMES])
        if a.videos:
            less = NOT_OF_VIDEOS
            add("cross_section3d", out["vid2stack"], sections, to=sections, of=[VIDEOS], last=frames, less=less)
        if a.images:
            add("crop_patches", out["cleanup2d"], patches, to=patches, of=[IMAGES], less=OF_VOLUMES)
        if a.volumes or a.videos:
            of = [kind for kind in given if kind != IMAGES]
            add("crop_patches", sections, patches, to=patches, of=of, less=OF_VOLUMES)
    else:
        add_cropping("--hashes-only", less=OF_STORING)
    add("deduplicate", patches, out["deduplicate"], to=out["deduplicate"])
    if not keeps_all:
        add_cropping(f"--only {shlex.quote(str(deduplicated))}")
        if a.stage_store == TAR:  # so that the list of exemplars says in which shards they are
            add("deduplicate", patches, out["deduplicate"], to=out["deduplicate"])
    weights = [a.weights] if a.weights else []
    if a.labels:
        add("train_nn", deduplicated, a.labels, out["train_nn"], to=out["train_nn"])
        weights = [out["train_nn"] / "patch_quality_classifier_nn.pth"]
    chosen = [*(["--weights", *weights] if weights else []), *(["--labels", a.labels] if a.labels else [])]
    add("classify_nn", deduplicated, out["classify_nn"], *chosen, to=out["classify_nn"])
    for kind, volumes in ((VOLUMES, a.volumes), (VIDEOS, a.videos and out["vid2stack"])):
        if volumes:
            less = NOT_OF_VIDEOS if kind == VIDEOS else frozenset()
            add("reconstruct3d", filtered, volumes, out["reconstruct3d"], to=out["reconstruct3d"], of=[kind], less=less)
    order = list(SCRIPTS)
    return [step for step in steps if order.index(step.stage) <= order.index(a.until)]


def flags_of(stage: str) -> Iterator[argparse.Action]:
    """Yield the flags of a stage that are handed on to it."""
    for action in load_stage(stage).build_parser()._actions:
        handed_on = action.dest not in DECIDED_HERE and (stage, action.dest) not in NOT_HANDED_ON
        if action.option_strings and handed_on:
            yield action


def keeps_everything(a: argparse.Namespace) -> bool:
    """Return whether all sections and patches are written: as asked for, as needed for what is, or as in earlier runs.

    Raises
    ------
    InputError
        If earlier runs have cut volumes without.
    """
    before_exemplars = list(SCRIPTS).index(a.until) < list(SCRIPTS).index("deduplicate")
    sections = ledger_path(a.out / "cross_section3d", "cross_section3d")
    if not (a.keep == EVERYTHING or before_exemplars or a.stage_order == "sharpest" or sections.exists()):
        return False
    patches = LedgerFile(ledger_path(a.out / "crop_patches", "crop_patches"))
    if any("spacing" in line.settings for line in patches.entries.values()):
        found = "results of runs that wrote only the exemplars of volumes"
        asked = (
            "--keep all" if a.keep == EVERYTHING else f"--until {a.until}" if before_exemplars else "--order sharpest"
        )
        raise InputError(a.out, f"a new directory, or one with all sections, for {asked}", found, "use another --out")
    return True


def forwarded_flags(stage: str, values: dict[str, Any], less: Set[str]) -> list[str]:
    """Return the command-line words of the flags given to this script that a stage knows, some left out by name."""
    words = []
    for action in flags_of(stage):
        value = values[f"{HANDED_ON}{action.dest}"]
        if value and action.dest not in less:
            given = [] if value is True else [value] if isinstance(value, str) else value
            words += [action.option_strings[-1], *given]
    return words


def load_stage(stage: str) -> Any:
    """Return a stage's module."""
    return importlib.import_module(SCRIPTS[stage].removesuffix(".py").replace("/", "."))


def check_flags(steps: Sequence[Step], out: Path) -> None:
    """Parse every step's command line, so that a wrong flag ends the program, with usage, before anything runs."""
    parsed: dict[str, dict[str, Any]] = {}
    with cli.as_if_made(out):
        for step in steps:
            parsed[step.stage] = cli.check(load_stage(step.stage).build_parser(), step.argv)
    if "deduplicate" in parsed and "crop_patches" in parsed:
        distance, side = parsed["deduplicate"]["min_distance"], parsed["crop_patches"]["hash_size"]
        if distance >= side**2:
            wanted = f"fewer bits than the {side**2} of a hash (--hash_size {side})"
            build_parser().error(f"argument -d/--min_distance: expected {wanted}, found {distance}")


def count_entries(directory: Place) -> int:
    """Return how many entries, hidden ones left out, a directory has; a volume, or a list of them, counts as one."""
    if isinstance(directory, Address) or not directory.is_dir():
        return int(isinstance(directory, Address) or directory.exists())
    with os.scandir(directory) as entries:
        return sum(not entry.name.startswith(".") for entry in entries)


def run_step(step: Step) -> tuple[Report, bool]:
    """Run a stage as its script would run; return its report, and whether it came to its end."""
    module = load_stage(step.stage)
    return cli.attempt(lambda: cli.prepare(module.run, module.build_parser(), step.argv)(), step.stage)


def run(a: argparse.Namespace) -> Report:
    """Run the steps one after another; see the module's docstring.

    A step that cannot do its work stops what it was for, images, volumes or videos, and nothing else.
    """
    total = Report(NAME, directory=a.out)
    rows: dict[str, Row] = {}
    stopped: set[str] = set()
    told: set[LeftOut] = set()
    ran: list[StageRun] = []
    steps = plan_steps(a)
    check_flags(steps, a.out)
    # Each stage locks its own directory, but only while it runs: another run could come between two.
    hold_lock(lock_path(make_output_directory(a.out), NAME), a.out)
    try:
        for step in steps:
            if step.kinds <= stopped:
                continue
            command = f"python {SCRIPTS[step.stage]} {shlex.join(map(hide_secrets, step.argv))}"
            cli.say(f"\n$ {command}")
            start = time.monotonic()
            row = rows.setdefault(step.stage, Row())
            row.inputs += count_entries(step.source)
            report, ended = run_step(step)
            total.fail_all(report.failures)
            cli.print_outcome(report, told)
            row.outputs = f"{count_entries(step.destination):,}" if step.destination else "audit only"
            seconds = time.monotonic() - start
            row.seconds += seconds
            ran.append(StageRun(step.stage, command, seconds, report.spell_counts(), tuple(report.warnings)))
            if not ended and step.destination is not None:
                stopped |= step.kinds
                total.note(f"{', '.join(sorted(step.kinds))}: stopped at {step.stage}")
    except KeyboardInterrupt:
        cli.say("\n".join(format_table(rows)))
        cli.print_failures(total)
        raise
    total.count("stages run", len(rows))
    account_for_patches(a, total)
    draw_report(a, ran, total)
    total.notes += ["", *format_table(rows), "", f"results: {a.out}"]
    return total


def account_for_patches(a: argparse.Namespace, report: Report) -> None:
    """Write the table of all patches, as far as the stages have come; what is wrong with it stops nothing."""
    results = Results((a.out / "crop_patches",), a.out / "deduplicate", a.out / "classify_nn" / DECIDED_FILE)
    if results.files():
        among_inputs = any(getattr(a, kind) == a.out for kind in KINDS)
        try:
            ledger = open_ledger(a.out, NAME, among_inputs=among_inputs)
            write_account(ledger, results, report, overwrite=bool(a.stage_overwrite))
        except InputError as error:
            report.fail(error)


def draw_report(a: argparse.Namespace, ran: list[StageRun], report: Report) -> None:
    """Write the report of this run beside the table of all patches; what is wrong with it stops nothing."""
    exemplars = a.out / "deduplicate" / "deduplicated_fpaths.npz"
    kept = a.out / "classify_nn" / "nn_filtered_fpaths.npz"
    command = shlex.join(["python", "curate.py", *map(hide_secrets, a.words)])
    try:
        decided = a.out / "classify_nn" / DECIDED_FILE
        page = write_report(Run(a.out, command, ran, report.failures), exemplars, kept, decided, SHEETS)
    except InputError as error:
        report.fail(error)
    else:
        if page is not None:
            report.note(f"look at {page}")


def verify(out: Path) -> Report:
    """Compare the results of every stage that has run with the digests noted when they were written."""
    total = Report(NAME, directory=out)
    total.count("files verified", 0)
    places = {stage: out / stage for stage in SCRIPTS} | {NAME: out}
    for stage, place in places.items():
        if ledger_path(place, stage).exists() or (place.is_dir() and stage != NAME):
            report, _ = cli.attempt(lambda stage=stage, place=place: cli.verify_results(place, stage), stage)
            total.fail_all(report.failures)
            total.count("files verified", report.counts.get("files verified", 0))
    return total


def format_table(rows: dict[str, Row]) -> list[str]:
    """Return the closing table as lines of text."""
    lines = [f"{'stage':<16} {'inputs':>10} {'outputs':>10} {'seconds':>9}"]
    return lines + [f"{stage:<16} {r.inputs:>10,} {r.outputs:>10} {r.seconds:>9.1f}" for stage, r in rows.items()]


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "curate.py")
    inputs = parser.add_argument_group("inputs and results")
    inputs.add_argument("--images", type=cli.existing_directory, metavar="DIR", help="directory of 2D images")
    inputs.add_argument(
        "--volumes",
        type=cli.existing_volumes,
        metavar="DIR",
        help="directory of volumes, or a text or csv file of their addresses and paths, or one of these by itself",
    )
    inputs.add_argument("--videos", type=cli.existing_directory, metavar="DIR", help="directory of videos")
    inputs.add_argument(
        "--out", type=cli.output_directory, required=True, metavar="DIR", help="directory for all results"
    )
    inputs.add_argument("--until", choices=SCRIPTS, default="reconstruct3d", help="last stage to run (default: all)")
    inputs.add_argument(
        "--verify", action="store_true", help="only compare all results in OUT with their noted digests"
    )
    inputs.add_argument(
        "--keep",
        choices=KEPT,
        default=EXEMPLARS,
        help="write the exemplars only, or all sections and patches on the way to them (default: %(default)s; all with "
        "--until crop_patches or before, and with --order sharpest, which looks at all of them)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--weights", type=cli.existing_file, metavar="FILE", help="trained classifier (default: the published one)"
    )
    source.add_argument(
        "--labels", type=cli.label_file, metavar="FILE", help="labels of the exemplars, to train a classifier with"
    )
    handed_on = parser.add_argument_group("handed on to the stages", "each stage's --help tells what they mean")
    actions: dict[str, list[argparse.Action]] = {}
    users: dict[str, list[str]] = {}
    for stage in SCRIPTS:
        for action in flags_of(stage):
            actions.setdefault(action.dest, []).append(action)
            users.setdefault(action.dest, []).append(stage)
    for dest, known in actions.items():
        names = dict.fromkeys(name for action in known for name in action.option_strings)
        text, target = f"for {', '.join(users[dest])}", f"{HANDED_ON}{dest}"
        if known[0].nargs == 0:
            handed_on.add_argument(*names, dest=target, action="store_true", help=text)
        else:
            handed_on.add_argument(*names, dest=target, nargs=known[0].nargs, metavar="VALUE", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    parser = build_parser()
    a = parser.parse_args(argv, argparse.Namespace(words=list(sys.argv[1:] if argv is None else argv)))
    if a.verify:
        return cli.close(lambda: verify(a.out), NAME)
    if not (a.images or a.volumes or a.videos):
        parser.error("expected at least one of --images, --volumes, --videos, found none")
    return cli.close(lambda: run(a), NAME)


if __name__ == "__main__":
    sys.exit(main())
