"""Keep one exemplar of each group of near-duplicate patches, dataset by dataset.

Reads:   PATCHDIR/{dataset}_patches.parquet, the tables crop_patches.py writes; of datasets without one, or for --order
         sharpest, PATCHDIR/{section}_{y}_{x}.npy, the hashes, each beside its patch.
Writes:  SAVEDIR/{dataset}_exemplars.npy, the paths of the exemplars;
         SAVEDIR/{dataset}_groups.csv, for every patch its exemplar and the distance between their hashes;
         SAVEDIR/groups.png, a picture of the largest groups of all datasets, if there are duplicates and their
         patches are written; with --pictures all also SAVEDIR/{dataset}_groups.png of each;
         SAVEDIR/deduplicated_fpaths.npz/, the path list of the exemplars of all datasets.
Example: python deduplicated/deduplicate.py work/crop_patches work/deduplicate

Patches are taken one after another. One whose hash differs in at most --min_distance bits from that of an exemplar
already kept is that exemplar's duplicate; otherwise it becomes an exemplar itself. Datasets are never compared with
each other. A later run does only datasets that are new or whose patches or parameters have changed.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emcurate import cli, naming
from emcurate.errors import InputError
from emcurate.files import (
    Output,
    describe_content,
    digest_bytes,
    make_output_directory,
    note_output,
    note_outputs,
    refuse_same_directory,
    write_pieces,
)
from emcurate.patches.datasets import PATCH_EXTENSION, Dataset, list_datasets, read_hashes
from emcurate.patches.duplicates import GROUPS_SUFFIX, Cover, Groups, Largest, find_groups, order_patches, read_largest
from emcurate.patches.pathlists import join_files, write_path_list_once
from emcurate.patches.tables import TABLE_SUFFIX, read_rows
from emcurate.pictures.group_sheets import DUPLICATES_SHOWN, GROUPS_SHOWN, GroupSheet, draw_group_sheet
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers, progress
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LedgerFile, ledger_path
from emcurate.running.report import Report
from emcurate.running.sources import Plan, Source

STAGE = "deduplicate"
MIN_DISTANCE = 12  # bits of the 64 of a hash of side 8, as published
ORDERS = ("random", "name", "sharpest")
SEED = 0
SHARPNESS = "blur_effect"  # what it is measured by; earlier versions took the variance of the Laplacian

PATH_LIST, PICTURE = "deduplicated_fpaths.npz", "groups.png"
SUFFIXES = (EXEMPLARS, TABLE, DATASET_PICTURE) = ("_exemplars.npy", GROUPS_SUFFIX, "_groups.png")

ALL = "/"  # the ledger's key for what is made of all datasets together: no dataset has such a name
LISTED_DATASETS = 20  # datasets named in the closing report

# Patches of datasets that are done before the ledger notes these: what a killed run loses takes a second or so, and a
# line a dataset would take longer than most of ten thousand.
NOTED_PATCHES, NOTED_DATASETS = 100_000, 500


def key_of(name: str) -> str | None:
    """Return the ledger's key of a result by its file name, None if it is none."""
    if name in (f"{PATH_LIST}/", PATH_LIST, PICTURE):
        return ALL
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), None)


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


def describe_unmeasured(patchdir: Path, name: str) -> InputError:
    """Return the error of a dataset of whose patches nobody has noted how much is blank."""
    wanted, found = "a table with the measures of all its patches, for --blank-guard", "none"
    advice = f"remove {name}{TABLE_SUFFIX}, if it is there, and run raw/crop_patches.py again: patches stay as they are"
    return InputError(patchdir / f"{name}{TABLE_SUFFIX}", wanted, found, advice)


def write_groups(savedir: Path, name: str, groups: Groups, patchdir: Path, replace: bool) -> list[Output]:
    """Write a dataset's exemplars and table; return both as they were written."""
    before, after = str(patchdir / "*").removesuffix("*"), f".{PATCH_EXTENSION}"
    files = {TABLE: groups.table(), EXEMPLARS: groups.exemplars_npy(before, after)}
    return [write_pieces(savedir / f"{name}{suffix}", pieces, overwrite=replace) for suffix, pieces in files.items()]


def write_path_list_of_all(names: Iterable[str], savedir: Path, replace: bool, report: Report) -> list[Output]:
    """Write the path list of the exemplars of all datasets, unless it is there already; return its files."""
    paths = join_files([savedir / f"{name}{EXEMPLARS}" for name in names])
    report.count("exemplars in all", paths.count)
    write_path_list_once(savedir / PATH_LIST, paths, overwrite=replace)
    return note_outputs(savedir, savedir / PATH_LIST)


def draw_sheets(
    sheets: Mapping[str, GroupSheet],
    written: Mapping[str, list[Output]],
    incomplete: Collection[str],
    ledger: Ledger,
    report: Report,
    workers: Workers,
) -> set[str]:
    """Draw pictures of groups and add them to what is `written`; return the keys of those that could not be drawn."""
    undrawn, todo = set(), []
    notes = Notes(next(iter(sheets.values())).patchdir, TABLE_SUFFIX) if sheets else None
    for key, sheet in sheets.items():
        if notes is None or (readable := find_shown(sheet, notes, ledger.directory)) is None:
            continue
        replaces = ledger.replaces(key)
        if key not in incomplete or replaces:
            todo.append(replace(readable, replaces=replaces))
        undrawn.add(key)
    if sheets and not undrawn:
        report.note("the patches are not written yet: no picture of groups is drawn")
    if ALL in undrawn:
        report.note(f"look at the largest groups: {sheets[ALL].path}")
    drawn = {sheet.path for sheet, _ in workers.run(draw_group_sheet, todo, report, unit="picture")}
    for key in sheets:
        if sheets[key].path in drawn:
            written[key].append(note_output(sheets[key].path, ledger.directory))
            undrawn.discard(key)
    return undrawn


def find_shown(sheet: GroupSheet, notes: Notes, scratch: Path) -> GroupSheet | None:
    """Return a picture with what reads its patches, also those that were only hashed; None if none can be read."""
    names = {name for group in sheet.groups for name, _ in group}
    tables = {name: sheet.patchdir / f"{naming.parse_patch(name).dataset}{TABLE_SUFFIX}" for name in names}
    files = (sheet.patchdir / f"{name}.{PATCH_EXTENSION}" for name in names)
    if not any(map(notes.origin, tables.values())) and not any(path.exists() for path in files):
        return None
    from emcurate.patches.reading import read_patch  # here, since these load what reads and draws images
    from emcurate.volumes.again import ReadOrCutAgain, locate

    spots = locate(names, lambda dataset: sheet.patchdir / f"{dataset}{TABLE_SUFFIX}", read_rows, notes)
    return replace(sheet, read=ReadOrCutAgain(read_patch, spots, scratch))


def list_sources(datasets: Mapping[str, Dataset], patchdir: Path, pictures: str) -> dict[str, Source]:
    """Return the datasets as the ledger sees them, and all of them together."""
    sources = {
        name: Source(dataset.example(patchdir), dataset.fingerprint(patchdir), name, patchdir, {"pictures": pictures})
        for name, dataset in datasets.items()
    }
    state = digest_bytes("".join(source.fingerprint for source in sources.values()).encode())
    return sources | {ALL: Source(patchdir, state, ALL)}


def run(
    patchdir: Path,
    savedir: Path,
    *,
    min_distance: int = MIN_DISTANCE,
    order: str = "random",
    seed: int = SEED,
    blank_guard: bool = False,
    pictures: str = "few",
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Deduplicate every dataset in `patchdir`; see the module's docstring."""
    report = Report(STAGE)
    patchdir = patchdir.absolute()  # which the paths of exemplars begin with
    refuse_same_directory(patchdir, savedir)
    with_pixels = order == "sharpest"
    datasets = list_datasets(patchdir, with_pixels, report)
    if not datasets and not report.failures:
        raise InputError(patchdir, "patches and hashes", describe_content(patchdir), "run raw/crop_patches.py first")
    make_output_directory(savedir)
    parameters = {"min_distance": min_distance, "order": order, "seed": seed if order == "random" else None}
    if with_pixels:
        parameters["sharpness"] = SHARPNESS
    if blank_guard:  # not noted otherwise, so that results of earlier versions stay
        parameters["blank_guard"] = True
    ledger = Ledger(savedir, STAGE, parameters, product="exemplars", owner_of=key_of, one_root=True)
    sources = list_sources(datasets, patchdir, pictures)
    plan = ledger.plan(sources, report, root=patchdir, overwrite=overwrite, prune=prune, renew=True)
    describe_plan(plan, report)

    cover, largest = Cover(min_distance, workers.cores), Largest(GROUPS_SHOWN)
    written: dict[str, list[Output]] = {}  # what the ledger has not noted yet
    sheets: dict[str, GroupSheet] = {}
    finished, incomplete, unnoted = {*plan.done} - {ALL}, set(), 0
    too_small: dict[str, int] = {}
    masked = 0
    todo = [datasets[name] for name in plan.todo if name != ALL]
    hashes = read_hashes(todo, patchdir, with_pixels, report, workers)
    for name, read in progress(hashes, total=len(todo), label=STAGE, unit="dataset"):
        if min_distance >= read.side**2:
            too_small[name] = read.side**2
            continue
        taken = order_patches(name, len(read.words), order, seed, read.sharpness)
        if blank_guard and read.saturated is None:
            report.fail(describe_unmeasured(patchdir, name))
            continue
        found = find_groups(read.names, read.words, taken, cover, read.shards, read.saturated if blank_guard else None)
        if not blank_guard and read.saturated is not None:
            masked += found.count_masked(read.saturated, min_distance)
        try:
            written[name] = write_groups(savedir, name, found, patchdir, ledger.replaces(name))
        except InputError as error:
            report.fail(error)
            continue
        finished.add(name)
        if not read.complete:
            incomplete.add(name)
        groups = found.largest(GROUPS_SHOWN, DUPLICATES_SHOWN)
        largest.add(name, groups)
        report.count("datasets done")
        report.count("patches", len(read.words))
        report.count("duplicates", len(read.words) - len(found.exemplars))
        unnoted += len(read.words)
        if pictures == "all":
            if groups:
                shown = [group for _, group in groups]
                sheets[name] = GroupSheet(savedir / f"{name}{DATASET_PICTURE}", patchdir, name, shown)
        elif unnoted >= NOTED_PATCHES or len(written) >= NOTED_DATASETS:
            ledger.finish_all({key: outputs for key, outputs in written.items() if key not in incomplete})
            unnoted, written = 0, {}
    if masked:
        report.note(
            f"{masked:,} duplicates have a wholly black or white part in common with their exemplar, and may be unlike "
            "it elsewhere; if that is a mask or padding, look at --blank-guard"
        )
    if too_small:
        error = describe_large_distance(min_distance, too_small)
        if not finished:
            raise error
        report.fail(error)
    if ALL in plan.todo:
        written[ALL] = write_path_list_of_all(sorted(finished), savedir, ledger.replaces(ALL), report)
        for name in {*plan.done} - {ALL}:
            largest.add(name, read_largest(savedir / f"{name}{TABLE}", GROUPS_SHOWN, DUPLICATES_SHOWN))
        if largest.groups:
            sheets[ALL] = GroupSheet(savedir / PICTURE, patchdir, "All datasets", largest.groups)
    # What could not be read or drawn whole is done again when it is mended.
    incomplete |= datasets.keys() - finished
    incomplete |= {ALL} if incomplete else set()
    incomplete |= draw_sheets(sheets, written, incomplete, ledger, report, workers)
    ledger.finish_all({key: outputs for key, outputs in written.items() if key not in incomplete})
    return report


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """End the program if the distance makes all patches duplicates, as far as is known of their hashes."""
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
        "--pictures",
        choices=("few", "all"),
        default="few",
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
