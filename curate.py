"""Run every stage in order: raw images, volumes and videos in; filtered patches and 3D subvolumes out.

Reads:   2D images (--images), volumes (--volumes), videos (--videos): directories, at least one of them; volumes also
         as a text file of their addresses and paths, a line each.
Writes:  OUT/{stage}/, each stage's results in a directory of its own;
         OUT/patches.parquet, a row for every patch: where it came from, what became of it and why;
         OUT/report.html, all that in pictures and numbers, for people;
         OUT/datasheet.json, for programs (MLCommons Croissant), and OUT/datasheet.md, for people: how all was made.
Example: python curate.py --images corpus/images --volumes corpus/volumes --out work --until deduplicate
         (label patches in labeling.ipynb, then)
         python curate.py --images corpus/images --volumes corpus/volumes --out work \\
             --labels work/deduplicate/patch_quality_labels.npy

Patches are hashed first, those of volumes without sections being written, and only the exemplars become files; --keep
all writes all sections and patches. The classifier is trained on --labels, or read from --weights, or else the
published one is downloaded; --filter measures does without, and needs neither labels nor network. A second run does
only what is new. Your files are only read: MRC files are audited, not converted, since every stage reads signed bytes
rightly. Videos are cut frame by frame only, since their third axis is time. --dry-run lists each input with what
would come of it, as far as headers tell, and writes nothing.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import contextlib
import functools
import importlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.addresses import hide_secrets
from emcurate.corpora.foresight import Foreseen, Grid, foresee_images, foresee_videos, foresee_volumes
from emcurate.curation.closing import count_datasets, format_datasets, format_foreseen, format_stages
from emcurate.curation.flags import HandedOn
from emcurate.curation.steps import Step, Steps, check_steps, run_steps
from emcurate.errors import InputError, describe_os_error
from emcurate.files import free_bytes, list_files, make_output_directory
from emcurate.images.cleaning import Cleaning
from emcurate.patches.cutting import FILES, TAR
from emcurate.patches.decided import DECIDED_BY_MEASURES, DECIDED_FILE
from emcurate.patches.grid import least_side
from emcurate.patches.joined import Results
from emcurate.patches.selected import SELECTED_FILE
from emcurate.reporting.account import open_ledger, write_account
from emcurate.reporting.datasheet import Run, read_facts, write_datasheets
from emcurate.reporting.facts import Command, parse_licences
from emcurate.reporting.inputs import list_beside
from emcurate.reporting.page import ReportedRun, StageRun
from emcurate.reporting.reproduction import check_inputs, compare_results, scratch_directory, warn_of_other_versions
from emcurate.reporting.whole import write_report
from emcurate.running.disk import spell_bytes
from emcurate.running.jobs import Workers
from emcurate.running.ledger_file import LedgerFile, ledger_path, lock_path
from emcurate.running.locks import hold_lock, release_locks
from emcurate.running.report import Report
from emcurate.volumes.section_source import DirectoryOfVolumes

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
    "filter_measures": "filtered/filter_measures.py",
    "reconstruct3d": "3d/reconstruct3d.py",
}

# What may be run beside, of which the account tells: into directories of these names.
SELECTION = "select_diverse"
BESIDE = ("embed", SELECTION)

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
    "Patches that are near-duplicates of another set's": "deduplicate/leaks.png",
    "Pairs of patches that are only just near-duplicates": "deduplicate/preview.png",
    "How well the classifier tells patches apart (ROC)": "train_nn/patch_quality_nn_roc_curve.png",
    "What the classifier got wrong": "train_nn/patch_quality_nn_mistakes.png",
    "What the measures left out and kept": "filter_measures/measures_filtered.png",
    "What was selected of clusters": f"{SELECTION}/diverse_clusters.png",
}

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


def load_stage(stage: str) -> Any:
    """Return a stage's module."""
    return importlib.import_module(SCRIPTS[stage].removesuffix(".py").replace("/", "."))


@functools.cache
def handed_on() -> HandedOn:
    """Return the flags that are handed on to the stages."""
    return HandedOn(lambda stage: load_stage(stage).build_parser(), SCRIPTS, DECIDED_HERE, NOT_HANDED_ON)


def plan_steps(a: argparse.Namespace) -> list[Step]:
    """Return the steps for the parsed arguments, in order."""
    out = {stage: a.out / stage for stage in SCRIPTS}
    sections, patches = out["cross_section3d"], out["crop_patches"]
    exemplars = out["deduplicate"] / "deduplicated_fpaths.npz"
    given = [kind for kind in KINDS if getattr(a, kind)]
    keeps_all = keeps_everything(a)
    steps = Steps(handed_on(), vars(a), given)
    add = steps.add

    def crop_each(*last: str | Path, less: set[str] = frozenset()) -> None:
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
        unused = {action.dest for action in handed_on().of("mrc2byte")} - OF_AUDIT
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
            less = NOT_OF_VIDEOS if kind == VIDEOS else frozenset()
            add("reconstruct3d", kept, volumes, out["reconstruct3d"], to=out["reconstruct3d"], of=[kind], less=less)
    return up_to(steps.steps, a.until)


def up_to(steps: Sequence[Step], last: str) -> list[Step]:
    """Return the steps of stages up to one."""
    order = list(SCRIPTS)
    return [step for step in steps if order.index(step.stage) <= order.index(last)]


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


def check(a: argparse.Namespace) -> list[tuple[Step, dict[str, Any]]]:
    """Return the steps with their arguments; wrong ones end the program, with usage, before anything runs."""
    checked = check_steps(plan_steps(a), load_stage, a.out)
    arguments = {step.stage: parsed for step, parsed in checked}
    if "deduplicate" in arguments and "crop_patches" in arguments:
        distance, side = arguments["deduplicate"]["min_distance"], arguments["crop_patches"]["hash_size"]
        if distance >= side**2:
            wanted = f"fewer bits than the {side**2} of a hash (--hash-size {side})"
            build_parser().error(f"argument -d/--min_distance: expected {wanted}, found {distance}")
    return checked


def run(a: argparse.Namespace) -> Report:
    """Run the steps one after another; see the module's docstring."""
    total = Report(NAME, directory=a.out)
    ran: list[StageRun] = []
    directories = {stage: a.out / stage for stage in SCRIPTS}
    steps = [step for step, _ in check(a)]
    # Each stage locks its own directory, but only while it runs: another run could come between two.
    hold_lock(lock_path(make_output_directory(a.out), NAME), a.out)
    try:
        for stage in run_steps(steps, load_stage, SCRIPTS, total):
            ran.append(stage)
    except KeyboardInterrupt:
        cli.say("\n".join(["", *format_stages(ran, directories)]))
        cli.print_failures(total)
        raise
    total.count("stages run", len({stage.stage for stage in ran}))
    if lacks_judge(a, ran):
        total.note(
            "two ways on without the network: --filter measures, which needs nothing more; or label patches in "
            "labeling.ipynb and give --labels, with --init FILE or --init random: start weights are downloaded too"
        )
    tables = [format_stages(ran, directories)]
    if give_account(a, total):
        draw_report(a, ran, total)
        cropped, boxes = ((directories[stage], stage) for stage in ("crop_patches", "reconstruct3d"))
        tables.insert(0, format_datasets(count_datasets(a.out, cropped, boxes)))
    total.notes += [line for table in tables if table for line in ("", *table)]
    total.notes += ["", f"results: {a.out}"]
    return total


def lacks_judge(a: argparse.Namespace, ran: Sequence[StageRun]) -> bool:
    """Return whether the classifier has judged nothing, for want of any: the published one was not to be had."""
    was_run = any(stage.stage == "classify_nn" for stage in ran)
    return was_run and not (a.labels or a.weights) and not (a.out / DECISIONS[CLASSIFIER]).exists()


def find_decisions(a: argparse.Namespace) -> tuple[Path, Path]:
    """Return the table of what was decided, and the list of what was kept, by this run's filter or an earlier one."""
    others = (name for name in (a.filter, *FILTERS) if (a.out / DECISIONS[name]).exists())
    name = a.filter if filters_again(a) else next(others, a.filter)
    return a.out / DECISIONS[name], a.out / FILTERED[name]


def filters_again(a: argparse.Namespace) -> bool:
    """Return whether this run goes as far as a filter."""
    return list(SCRIPTS).index(a.until) >= list(SCRIPTS).index("classify_nn")


def look_ahead(a: argparse.Namespace) -> Report:
    """Say what would come of each input, and what would be left out; nothing is written."""
    report = Report(NAME)
    checked = check(a)
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
    a: argparse.Namespace, checked: Sequence[tuple[Step, dict[str, Any]]], report: Report, *, keeps_all: bool
) -> Iterator[Foreseen]:
    """Yield what would come of each input; a kind of inputs that cannot be used stops no other."""
    of_kind = {(step.stage, kind): parsed for step, parsed in checked for kind in step.kinds}
    for kind in KINDS:
        of_this = Report(NAME)
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
                yield from foresee_images(a.images, cleaning["prefer"], how, grid, of_this, cleaning["workers"])
            elif kind == VOLUMES and cutting is not None:
                how, scale, prefer, workers = (cutting[name] for name in ("sections", "scale", "prefer", "workers"))
                least = grid.min_size
                material = DirectoryOfVolumes(a.volumes, how, a.out, of_this, workers, scale, prefer, least)
                yield from foresee_volumes(material, grid, writes_sections=keeps_all)
            elif kind == VIDEOS and cutting is not None:
                prefer, how, scale = of_kind["vid2stack", kind]["prefer"], cutting["sections"], cutting["scale"]
                yield from foresee_videos(a.videos, prefer, how, scale, grid, of_this, writes_sections=keeps_all)
        except InputError as error:
            of_this.fail(error)
        report.take(of_this)


def give_account(a: argparse.Namespace, report: Report) -> bool:
    """Write the table of all patches and the datasheets, as far as the stages have come; return whether there is one.

    What is wrong with them stops nothing.
    """
    accounted = False
    selected = a.out / SELECTION / SELECTED_FILE
    results = Results((a.out / "crop_patches",), a.out / "deduplicate", find_decisions(a)[0], selected)
    if results.files():
        among_inputs = any(getattr(a, kind) == a.out for kind in KINDS)
        try:
            ledger = open_ledger(a.out, NAME, among_inputs=among_inputs)
            write_account(ledger, results, report, overwrite=bool(a.stage_overwrite))
            accounted = True
            this = Run(
                NAME, "curate.py", a.command, directories_in(a.out), list_read(a), a.licences,
                contents=not a.no_input_digests,
            )  # fmt: skip
            write_datasheets(ledger, this, report, workers_of(a), overwrite=bool(a.stage_overwrite))
        except InputError as error:
            report.fail(error)
    return accounted


def list_read(a: argparse.Namespace) -> tuple[Path, ...]:
    """Return what stages have read beside images, volumes and videos."""
    against = [Path(a.stage_against).absolute()] if a.stage_against else []
    return (*list_beside(a.labels, a.weights), *against)


def draw_report(a: argparse.Namespace, ran: list[StageRun], report: Report) -> None:
    """Write the report of this run beside the table of all patches; what is wrong with it stops nothing."""
    exemplars = a.out / "deduplicate" / "deduplicated_fpaths.npz"
    decided, kept = find_decisions(a)
    selected = a.out / SELECTION / "diverse_fpaths.npz"
    command = shlex.join(["python", "curate.py", *a.command.words])
    this = ReportedRun(a.out, command, ran, report.failures)
    try:
        page = write_report(this, exemplars, kept, selected, decided, SHEETS)
    except InputError as error:
        report.fail(error)
    else:
        if page is not None:
            report.note(f"look at {page}")


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
    total = Report(NAME, directory=out)
    total.count("files verified", 0)
    places = {**directories_in(out), **{stage: out / stage for stage in BESIDE}, NAME: out}
    for stage, place in places.items():
        if ledger_path(place, stage).exists() or (place.is_dir() and stage != NAME):
            report, _ = cli.attempt(lambda stage=stage, place=place: cli.verify_results(place, stage), stage)
            total.fail_all(report.failures)
            total.count("files verified", report.counts.get("files verified", 0))
    return total


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
    inputs.add_argument("--out", type=cli.output_directory, metavar="DIR", help="directory for all results (required)")
    inputs.add_argument("--until", choices=SCRIPTS, default="reconstruct3d", help="last stage to run (default: all)")
    inputs.add_argument(
        "--verify", action="store_true", help="only compare all results in OUT with their noted digests"
    )
    inputs.add_argument(
        "--dry-run", action="store_true", help="only say what would come of each input, and what would be left out"
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
    parser.add_argument(
        "--filter",
        choices=FILTERS,
        default=CLASSIFIER,
        help="what judges the exemplars: a classifier, or, without labels, weights or network, what can be measured: "
        "blank, saturated and blurred ones are left out (default: %(default)s)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--weights", type=cli.existing_file, metavar="FILE", help="trained classifier (default: the published one)"
    )
    source.add_argument(
        "--labels", type=cli.label_file, metavar="FILE", help="labels of the exemplars, to train a classifier with"
    )
    handed_on().add_to(parser.add_argument_group("handed on to the stages", "each stage's --help tells what they mean"))
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed arguments, with the command itself; end the program where they are wrong."""
    parser = build_parser()
    a = parser.parse_args(argv)
    a.command = Command(tuple(map(hide_secrets, sys.argv[1:] if argv is None else argv)), str(Path.cwd()))
    try:
        a.licences = parse_licences(a.licence)
    except ValueError as error:
        parser.error(f"argument --licence: expected {error}")
    if a.reproduce:
        return a
    if a.out is None:
        parser.error("the following arguments are required: --out")
    if a.filter == MEASURES and (a.labels or a.weights):
        parser.error(f"argument --filter: expected no --{'labels' if a.labels else 'weights'} with {MEASURES}")
    if a.filter == MEASURES and a.until in ("train_nn", "classify_nn"):
        parser.error(f"argument --until: expected filter_measures or another stage with --filter, found {a.until}")
    if a.filter != MEASURES and a.until == "filter_measures":
        parser.error("argument --until: expected --filter measures with filter_measures")
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
    return cli.close(lambda: look_ahead(a) if a.dry_run else run(a), NAME)


if __name__ == "__main__":
    sys.exit(main())
