"""Keep one exemplar of each group of near-duplicate patches, dataset by dataset.

Reads:   PATCHDIR/{dataset}_patches.parquet, the tables crop_patches.py writes; of datasets without one,
         PATCHDIR/{section}_{y}_{x}.npy, the hashes, each beside its patch, whose pixels --order sharpest reads.
Writes:  SAVEDIR/{dataset}_exemplars.npy, the paths of the exemplars;
         SAVEDIR/{dataset}_groups.csv, for every patch its exemplar and the distance between their hashes;
         SAVEDIR/groups.png, a picture of the largest groups of all datasets, if there are duplicates and their
         patches are written; with --pictures all also SAVEDIR/{dataset}_groups.png of each;
         SAVEDIR/deduplicated_fpaths.npz/, the path list of the exemplars of all datasets;
         with --against DIR also SAVEDIR/{dataset}_leaks.csv, the patches that are near-duplicates of what is in DIR,
         and SAVEDIR/leaks.png, a picture of some of them;
         with --preview only SAVEDIR/preview.png, pairs of patches that are only just near-duplicates.
Example: python deduplicated/deduplicate.py work/crop_patches work/deduplicate

Patches are taken one after another. One whose hash differs in at most --min_distance bits from that of an exemplar
already kept is that exemplar's duplicate; otherwise it becomes an exemplar itself. Datasets are not compared with each
other, unless with --scope all. A later run does only datasets that are new or whose patches or parameters have changed.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.comparison.outcome import ALL, FEW, PICTURES, Outcome, key_of
from emcurate.comparison.previews import look_ahead
from emcurate.errors import InputError
from emcurate.files import make_output_directory, refuse_same_directory
from emcurate.patches.covering import DATASET, SCOPES, Comparison
from emcurate.patches.duplicates import Cover
from emcurate.patches.hash_settings import HashSettings, read_settings
from emcurate.patches.other_sets import OtherSet, find_patches_in, fingerprint_other, read_other
from emcurate.patches.preview import DISTANCES
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LedgerFile, ledger_path
from emcurate.running.report import Report
from emcurate.running.sources import Plan, Source
from emcurate.running.spelled_paths import path_as_text

STAGE = "deduplicate"
MIN_DISTANCE = 12  # bits of the 64 of a hash of side 8, as published
ORDERS = ("random", "name", "sharpest")
SEED = 0
SHARPNESS = "blur_effect"  # what it is measured by; earlier versions took the variance of the Laplacian

LISTED_DATASETS = 20  # datasets named in the closing report


def describe_plan(plan: Plan, report: Report) -> None:
    """Say which datasets are done and why; long lists are cut short."""
    todo = sorted((name, why) for name, why in plan.todo.items() if name != ALL)
    for name, why in todo[:LISTED_DATASETS]:
        report.note(f"{name}: {why if why == 'new' else f'again: {why}'}")
    if len(todo) > LISTED_DATASETS:
        report.note(f"... and {len(todo) - LISTED_DATASETS:,} more datasets")
    report.count("datasets done", 0)
    report.count("datasets unchanged", sum(name != ALL for name in plan.done))


def describe_large_distance(min_distance: int, bits: Mapping[str, int]) -> InputError:
    """Return the error of a distance that makes all patches duplicates, in datasets whose hashes have so many bits."""
    first, *others = bits
    found = f"hashes of {bits[first]} bits in {first}" + (f" and {len(others):,} other datasets" if others else "")
    return InputError(f"--min_distance {min_distance}", "fewer bits than a hash has", found, "give a smaller one")


def list_sources(comparison: Comparison, pictures: str, against: Mapping[str, str]) -> dict[str, Source]:
    """Return the datasets as the ledger sees them, and all of them together."""
    patchdir, settings = comparison.patchdir, {"pictures": pictures, **against}
    sources = {
        name: Source(dataset.example(patchdir), comparison.states[name], name, patchdir, settings)
        for name, dataset in comparison.datasets.items()
    }
    return sources | {ALL: Source(patchdir, comparison.state, ALL, settings=against)}


def describe_other(against: Path, patchdir: Path) -> dict[str, str]:
    """Return what the ledger keeps of another set; raises `InputError` if it is no other."""
    if find_patches_in(against) == patchdir:
        raise InputError(against, "another set for --against", "the patches themselves", "name another set")
    return {"against": path_as_text(against), "against_state": fingerprint_other(against)}


def read_against(against: Path | None, comparison: Comparison) -> tuple[OtherSet, HashSettings] | None:
    """Return the set that patches are compared with, if there is one, and how patches are hashed."""
    if against is None:
        return None
    how = read_settings(comparison.patchdir)
    other = read_other(against, how, comparison.report, comparison.workers)
    comparison.report.count("patches of the other set", len(other))
    return other, how


def run(
    patchdir: Path,
    savedir: Path,
    *,
    min_distance: int = MIN_DISTANCE,
    order: str = "random",
    seed: int = SEED,
    blank_guard: bool = False,
    scope: str = DATASET,
    orientations: bool = False,
    against: Path | None = None,
    preview: bool = False,
    pictures: str = FEW,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Deduplicate every dataset in `patchdir`; see the module's docstring."""
    report = Report(STAGE)
    patchdir = patchdir.absolute()  # which the paths of exemplars begin with
    refuse_same_directory(patchdir, savedir)
    comparison = Comparison(patchdir, order, seed, scope, orientations, blank_guard, report, workers)
    if comparison.with_sharpness:
        comparison.parameters["sharpness"] = SHARPNESS
    if preview:
        look_ahead(comparison, savedir, sorted({*DISTANCES, min_distance}))
        return report
    of_other = {} if against is None else describe_other(against, patchdir)
    make_output_directory(savedir)
    parameters = {"min_distance": min_distance, **comparison.parameters}
    ledger = Ledger(savedir, STAGE, parameters, product="exemplars", owner_of=key_of, one_root=True)
    sources = list_sources(comparison, pictures, of_other)
    plan = ledger.plan(
        sources, report, root=patchdir, overwrite=overwrite, prune=prune, renew=True, unusable=comparison.unusable
    )
    describe_plan(plan, report)
    failed = len(report.failures)
    other = read_against(against, comparison) if plan.todo else None
    is_cut_short = len(report.failures) > failed
    outcome = Outcome(comparison, min_distance, ledger, plan, pictures, other, incomplete=is_cut_short)
    cover, too_small = Cover(min_distance, workers.cores), {}
    todo = [name for name in plan.todo if name != ALL]
    for some in comparison.read(todo) if plan.todo else ():
        too_small |= {name: read.side**2 for name, read in some if min_distance >= read.side**2}
        for each in comparison.cover([pair for pair in some if pair[0] not in too_small], cover):
            outcome.take(each)
    if too_small:
        error = describe_large_distance(min_distance, too_small)
        if not outcome.finished:
            raise error
        report.fail(error)
    outcome.close()
    return report


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """End the program if the distance makes all patches duplicates, as far as is known of their hashes."""
    if arguments["preview"] and arguments["against"] is not None:
        parser.error("argument --preview: expected no --against, since only these patches are looked at")
    if cli.is_coming(arguments["patchdir"]):
        return
    header = LedgerFile(ledger_path(arguments["patchdir"], "crop_patches")).header
    side = (header.parameters or {}).get("hash_size") if header is not None else None
    if side is not None and arguments["min_distance"] >= side**2:
        wanted = f"fewer bits than the {side**2} of a hash here (--hash-size {side})"
        parser.error(f"argument -d/--min_distance: expected {wanted}, found {arguments['min_distance']}")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "deduplicate.py")
    patches = cli.results("patches", "crop_patches.py")
    parser.add_argument("patchdir", type=patches, metavar="PATCHDIR", help="directory of patches")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    parser.add_argument(
        "-d",
        "--min_distance",
        "--min-distance",
        type=cli.natural_int,
        default=MIN_DISTANCE,
        metavar="BITS",
        help="patches at most so many bits apart are near-duplicates (default: %(default)s)",
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        default="random",
        help="take patches in seeded random order, by name, or the sharpest first (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=cli.natural_int,
        default=SEED,
        metavar="N",
        help="seed of the random order (default: %(default)s)",
    )
    parser.add_argument(
        "--blank-guard",
        action="store_true",
        help="of patches with a part that is wholly black or white, such as a mask, compare only those with about as "
        "large a one, and let them differ by as many fewer bits",
    )
    parser.add_argument(
        "--scope",
        choices=SCOPES,
        default=DATASET,
        help="look for duplicates in each dataset, or among those of all together (default: %(default)s)",
    )
    parser.add_argument(
        "--orientations",
        action="store_true",
        help="take a patch for another's duplicate also if it is that when turned by quarters or mirrored; pixels are "
        "read where crop_patches.py has not noted such hashes",
    )
    parser.add_argument(
        "--against",
        type=cli.existing_directory,
        metavar="DIR",
        help="also report patches that are near-duplicates of DIR's, such as a benchmark's: images at any depth, or "
        "patches of crop_patches.py",
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help=f"only say how many duplicates {', '.join(map(str, DISTANCES))} and -d give, and draw pairs at the border",
    )
    parser.add_argument(
        "--pictures",
        choices=PICTURES,
        default=FEW,
        help="one picture of the largest groups, or also one of each dataset (default: %(default)s)",
    )
    cli.add_ledger_flags(parser, "savedir")
    parser.set_defaults(check_arguments=check_arguments)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
