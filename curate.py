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
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.curation.account import BESIDE, draw_report, give_account, lacks_judge, workers_of
from emcurate.curation.ahead import look_ahead
from emcurate.curation.closing import count_datasets, format_datasets, format_stages
from emcurate.curation.flags import HandedOn
from emcurate.curation.plan import (
    CLASSIFIER,
    DECIDED_HERE,
    EXEMPLARS,
    FILTERS,
    KEPT,
    MEASURES,
    NOT_HANDED_ON,
    SCRIPTS,
    directories_in,
    plan_steps,
)
from emcurate.curation.steps import Step, check_steps, run_steps
from emcurate.errors import describe_os_error
from emcurate.files import make_output_directory
from emcurate.reporting.datasheet import read_facts
from emcurate.reporting.facts import note_command
from emcurate.reporting.page import StageRun
from emcurate.reporting.reproduction import check_inputs, compare_results, scratch_directory, warn_of_other_versions
from emcurate.running.ledger_file import ledger_path, lock_path
from emcurate.running.locks import hold_lock, release_locks
from emcurate.running.report import Report
from emcurate.running.spelled_paths import path_of_text

NAME = "curate"


def load_stage(stage: str) -> Any:
    """Return a stage's module."""
    return importlib.import_module(SCRIPTS[stage].removesuffix(".py").replace("/", "."))


@functools.cache
def handed_on() -> HandedOn:
    """Return the flags that are handed on to the stages."""
    return HandedOn(lambda stage: load_stage(stage).build_parser(), SCRIPTS, DECIDED_HERE, NOT_HANDED_ON)


def check(a: argparse.Namespace) -> list[tuple[Step, dict[str, Any]]]:
    """Return the steps with their arguments; wrong ones end the program, with usage, before anything runs."""
    checked = check_steps(plan_steps(a, handed_on(), load_stage), load_stage, a.out)
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
    directories = directories_in(a.out)
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
                with contextlib.chdir(path_of_text(command.directory)):
                    again = parse([*command.typed(), "--out", str(out)])
            except OSError as error:
                raise describe_os_error(error, path_of_text(command.directory)) from None
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
        "--until crop_patches or before)",
    )
    sheet = parser.add_argument_group("datasheet")
    cli.add_licence_flag(sheet)
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
    a.command = note_command(argv)
    a.licences = cli.check_licences(parser, a.licence)
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
    return cli.close(lambda: look_ahead(a, check(a), NAME) if a.dry_run else run(a), NAME)


if __name__ == "__main__":
    sys.exit(main())
