"""Run every stage in order: raw images, volumes and videos in; filtered patches and 3D subvolumes out.

Reads:   2D images (--images), volumes (--volumes), videos (--videos): directories, at least one of them.
Writes:  OUT/{stage}/, each stage's results in a directory of its own;
         OUT/patches.parquet, a row for every patch: where it came from, what became of it and why;
         OUT/datasheet.json, for programs (MLCommons Croissant), and OUT/datasheet.md, for people: how all was made.
Example: python curate.py --images corpus/images --volumes corpus/volumes --out work --until deduplicate
         (label patches in labeling.ipynb, then)
         python curate.py --images corpus/images --volumes corpus/volumes --out work --labels patch_quality_labels.npy

Patches are hashed first, those of volumes without sections being written, and only the exemplars become files;
--keep all writes all sections and patches. The classifier is trained on --labels, or read from --weights, or else the
published one is downloaded. A second run does only what is new. Your files are only read: MRC files are audited, not
converted, since every stage reads signed bytes rightly. Videos are cut frame by frame only, since their third axis is
time.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import contextlib
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
from emcurate.errors import InputError, describe_os_error
from emcurate.files import list_files
from emcurate.patches.cutting import TAR
from emcurate.patches.decided import DECIDED_FILE
from emcurate.patches.joined import Results
from emcurate.reporting.account import open_ledger, write_account
from emcurate.reporting.datasheet import Run, read_facts, write_datasheets
from emcurate.reporting.facts import Command, parse_licences
from emcurate.reporting.inputs import list_beside
from emcurate.reporting.reproduction import check_inputs, compare_results, scratch_directory, warn_of_other_versions
from emcurate.running.jobs import Workers
from emcurate.running.ledger_file import LedgerFile, ledger_path
from emcurate.running.locks import release_locks
from emcurate.running.report import Report

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
    *("from_volumes", "hashes_only", "only")
}
NOT_HANDED_ON = {("vid2stack", "voxel_size"), ("train_nn", "threshold")}

# Flags of crop_patches.py that only say how volumes are cut, and that only say how patches are stored.
OF_VOLUMES = {"axes", "spacing", "anisotropy", "voxel_size", "rescale", "percentiles"}
OF_STORING = {"store", "shard_size"}

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
    source: Path
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
        *paths: str | Path,
        to: Path | None = None,
        of: Sequence[str] = given,
        last: str = "",
        less: Set[str] = frozenset(),
    ) -> None:
        flags = [] if stage == "mrc2byte" else forwarded_flags(stage, vars(a), less)
        argv = (*map(str, paths), *flags, *shlex.split(last))
        steps.append(Step(stage, Path(paths[0]), to, argv, frozenset(of)))

    def add_cropping(last: str = "", less: Set[str] = frozenset()) -> None:
        if a.images:
            add("crop_patches", out["cleanup2d"], patches, to=patches, of=[IMAGES], last=last, less=less | OF_VOLUMES)
        if a.volumes:
            add("crop_patches", a.volumes, patches, to=patches, of=[VOLUMES], last=f"--from-volumes {last}", less=less)
        if a.videos:
            words = f"--from-volumes {frames} {last}"
            add("crop_patches", out["vid2stack"], patches, to=patches, of=[VIDEOS], last=words, less=less)

    if a.videos:
        add("vid2stack", a.videos, "-o", out["vid2stack"], to=out["vid2stack"], of=[VIDEOS])
    if a.volumes and list_files(a.volumes, load_stage("mrc2byte").ALL_SUFFIXES):
        add("mrc2byte", a.volumes, of=[VOLUMES], last="--dry-run")
    if a.images:
        add("cleanup2d", a.images, out["cleanup2d"], to=out["cleanup2d"], of=[IMAGES])
    sections, frames = out["cross_section3d"], f"--axes {PLANE_OF_FRAMES}"
    if keeps_all:
        if a.volumes:
            add("cross_section3d", a.volumes, sections, to=sections, of=[VOLUMES])
        if a.videos:
            add("cross_section3d", out["vid2stack"], sections, to=sections, of=[VIDEOS], last=frames)
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
            add("reconstruct3d", filtered, volumes, out["reconstruct3d"], to=out["reconstruct3d"], of=[kind])
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
    for step in steps:
        # What an earlier step is to make is not there yet: this directory stands for it.
        words = [str(Path()) if word.startswith(str(out)) and not Path(word).exists() else word for word in step.argv]
        module = load_stage(step.stage)
        cli.prepare(module.run, module.build_parser(), words)


def count_entries(directory: Path) -> int:
    """Return how many entries, hidden ones left out, a directory has."""
    if not directory.is_dir():
        return 0
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
    total = Report(NAME)
    rows: dict[str, Row] = {}
    stopped: set[str] = set()
    steps = plan_steps(a)
    check_flags(steps, a.out)
    try:
        for step in steps:
            if step.kinds <= stopped:
                continue
            print(f"\n$ python {SCRIPTS[step.stage]} {shlex.join(step.argv)}", flush=True)
            start = time.monotonic()
            row = rows.setdefault(step.stage, Row())
            row.inputs += count_entries(step.source)
            report, ended = run_step(step)
            total.fail_all(report.failures)
            cli.print_outcome(report)
            row.outputs = f"{count_entries(step.destination):,}" if step.destination else "audit only"
            row.seconds += time.monotonic() - start
            if not ended and step.destination is not None:
                stopped |= step.kinds
                total.note(f"{', '.join(sorted(step.kinds))}: stopped at {step.stage}")
    except KeyboardInterrupt:
        print("\n".join(format_table(rows)), flush=True)
        cli.print_failures(total.failures)
        raise
    total.count("stages run", len(rows))
    give_account(a, total)
    total.notes += ["", *format_table(rows), "", f"results: {a.out}"]
    return total


def give_account(a: argparse.Namespace, report: Report) -> None:
    """Write the table of all patches and the datasheets, as far as the stages have come; it stops nothing."""
    results = Results((a.out / "crop_patches",), a.out / "deduplicate", a.out / "classify_nn" / DECIDED_FILE)
    if results.files():
        among_inputs = any(getattr(a, kind) == a.out for kind in KINDS)
        try:
            ledger = open_ledger(a.out, NAME, among_inputs=among_inputs)
            write_account(ledger, results, report, overwrite=bool(a.stage_overwrite))
            this = Run(
                NAME, "curate.py", a.command, directories_in(a.out), list_beside(a.labels, a.weights), a.licences,
                contents=not a.no_input_digests,
            )  # fmt: skip
            write_datasheets(ledger, this, report, workers_of(a), overwrite=bool(a.stage_overwrite))
        except InputError as error:
            report.fail(error)


def directories_in(out: Path) -> dict[str, Path]:
    """Return the directory of each stage's results."""
    return {stage: out / stage for stage in SCRIPTS}


def workers_of(a: argparse.Namespace) -> Workers:
    """Return who does what this script does itself."""
    return Workers(int(a.stage_processes)) if getattr(a, "stage_processes", None) else Workers()


def reproduce(a: argparse.Namespace) -> Report:
    """Run again what a datasheet tells of, on the same inputs, and compare all results with it."""
    total = Report(NAME)
    facts = read_facts(a.reproduce)
    if not check_inputs(facts, total, workers_of(a)):
        return total
    warn_of_other_versions(facts, total)
    with scratch_directory(a.out, a.reproduce.parent) as out:
        for command in facts.commands:
            try:
                with contextlib.chdir(command.directory):
                    again = parse([*command.words, "--out", str(out)])
            except OSError as error:
                raise describe_os_error(error, command.directory) from None
            cli.print_outcome(run(again))
            release_locks()  # before what they are of is removed
        advice = f"compare {out} with the results" if a.out else "give --out DIR, to keep what was made and compare it"
        compare_results(facts, out, directories_in(out), total, advice)
    return total


def verify(out: Path) -> Report:
    """Compare the results of every stage that has run with the digests noted when they were written."""
    total = Report(NAME)
    total.count("files verified", 0)
    places = {**directories_in(out), NAME: out}
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
    for flag, what in (("--images", "2D images"), ("--volumes", "volumes"), ("--videos", "videos")):
        inputs.add_argument(flag, type=cli.existing_directory, metavar="DIR", help=f"directory of {what}")
    inputs.add_argument("--out", type=cli.output_directory, metavar="DIR", help="directory for all results (required)")
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
    sheet = parser.add_argument_group("datasheet")
    sheet.add_argument(
        "--licence",
        "--license",
        nargs="+",
        action="extend",
        default=[],
        metavar="[DATASET=]LICENCE",
        help="under which licence the data are, such as CC-BY-4.0, all of them or one dataset's",
    )
    sheet.add_argument("--no-input-digests", action="store_true", help="do not read inputs once more for their SHA-256")
    sheet.add_argument(
        "--reproduce",
        type=cli.existing_file,
        metavar="FILE",
        help="only check that what a datasheet.json tells of gives the same bytes again, in a scratch directory; with "
        "--out in that one, which is kept",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--weights", type=cli.existing_file, metavar="FILE", help="trained classifier (default: the published one)"
    )
    source.add_argument(
        "--labels", type=cli.existing_file, metavar="FILE", help="labels of the exemplars, to train a classifier with"
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


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed arguments, with the command itself; end the program where they are wrong."""
    parser = build_parser()
    a = parser.parse_args(argv)
    a.command = Command(tuple(sys.argv[1:] if argv is None else argv), str(Path.cwd()))
    try:
        a.licences = parse_licences(a.licence)
    except ValueError as error:
        parser.error(f"argument --licence: expected {error}")
    if a.reproduce:
        return a
    if a.out is None:
        parser.error("the following arguments are required: --out")
    if not (a.verify or a.images or a.volumes or a.videos):
        parser.error("expected at least one of --images, --volumes, --videos, found none")
    return a


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    a = parse(argv)
    if a.reproduce:
        return cli.close(lambda: reproduce(a), NAME)
    if a.verify:
        return cli.close(lambda: verify(a.out), NAME)
    return cli.close(lambda: run(a), NAME)


if __name__ == "__main__":
    sys.exit(main())
