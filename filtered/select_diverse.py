"""Select patches that differ: evenly over all structures that a network tells apart, however common each is.

Features are clustered (k-means), the centres of the clusters once more, and so on; then patches are drawn from the
top, each cluster getting the same share as those beside it (Vo et al. 2024, arXiv:2405.15613). Near-duplicates, whose
features point in almost the same direction, may be left out first. All patches are ranked: the first N of the ranks
are the selection of --budget N, and a larger budget adds to a smaller one. The result is the same for any number of
processes.

Reads:   FPATHS, a path list such as nn_filtered_fpaths.npz; FEATURES, what embed.py wrote of it; the patches shown.
Writes:  SAVEDIR/diverse_fpaths.npz/, the path list of the selected patches;
         SAVEDIR/diverse_decisions.parquet, by name of each patch whether it was selected and why, its rank, its
         clusters, and of a near-duplicate the patch that it is like;
         SAVEDIR/diverse_counts.csv, counts and shares by dataset; diverse_clusters.png: clusters, what was selected
         of them and what was not; with --near-duplicates diverse_near_duplicates.png, pairs at the border.
Example: python filtered/select_diverse.py work/classify_nn/nn_filtered_fpaths.npz work/embed work/select_diverse \\
         --budget 10000
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from emcurate import cli
from emcurate.classifier.earlier import digest_names, is_continued, keep_names, refuse_edited
from emcurate.classifier.score_store import digest_paths
from emcurate.diversity.choice import Selection, count_table, describe_shares, draw_clusters, draw_pairs
from emcurate.diversity.selecting import How, match, select
from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.outputs import digest_bytes, foresee, note_outputs
from emcurate.patches.columns import as_numbers, in_one
from emcurate.patches.features import FEATURES_FILE, FeatureTable
from emcurate.patches.listing import SomeOf, list_patches
from emcurate.patches.pathlists import (
    PathList,
    foresee_chunks,
    list_paths,
    refuse_other_list,
    write_path_list_once,
)
from emcurate.patches.reading import refuse_moved
from emcurate.patches.selected import SELECTED_FILE, encode_selected
from emcurate.running.claims import Notes
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LEDGER_DIRECTORY
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.writing import refuse_different, write_once

STAGE = "select_diverse"
DIVERSE_LIST = "diverse_fpaths.npz"
COUNTS_FILE = "diverse_counts.csv"
CLUSTERS_SHEET = "diverse_clusters.png"
PAIRS_SHEET = "diverse_near_duplicates.png"
OUTPUTS = (SELECTED_FILE, COUNTS_FILE, CLUSTERS_SHEET, PAIRS_SHEET, DIVERSE_LIST)


def run(
    fpaths: Path,
    features: Path,
    savedir: Path,
    *,
    how: How = How(),
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Select of the patches of `fpaths`; see the module's docstring."""
    report = Report(STAGE)
    listing = list_patches(PathList(fpaths, reroot))
    paths = SomeOf(listing.paths, listing.positions)
    refuse_moved(paths, fpaths)
    table = FeatureTable(features)
    rows = match(in_one(listing.table["patch"]), table)
    make_output_directory(savedir)
    names = digest_names(paths, len(paths))
    ledger = Ledger(
        savedir, STAGE, {**asdict(how), "features": table.about}, product="selection",
        owner_of=lambda name: STAGE if name.rstrip("/") in OUTPUTS else None,
    )  # fmt: skip
    workdir = savedir / LEDGER_DIRECTORY / STAGE
    continued = is_continued(ledger.entries.get(STAGE), workdir, fpaths, names, prune)
    state = digest_bytes(digest_paths(paths) + Notes(features.parent).fingerprint(features).encode())
    source = Source(fpaths, state, STAGE, owner=Path(STAGE), is_renewed=continued)
    plan = ledger.plan({STAGE: source}, report, root=fpaths, overwrite=overwrite, prune=prune)
    lacking = int((rows < 0).sum())
    if lacking:
        expected, found = f"features of all {len(rows):,} patches", f"none of {lacking:,} of them, which are left out"
        report.fail(InputError(features, expected, found, "run filtered/embed.py on this list again"))
    if not plan.todo:
        if plan.done:
            clear_workdir(workdir)
            report.count("patches selected", ledger.count_of(STAGE, "selected"))
            report.note(f"nothing new: the results in {savedir} are up to date")
        return report
    replace = ledger.replaces(STAGE)
    if not overwrite and replace:
        advice = "take patches from a list of your own; "
        refuse_edited(savedir / SELECTED_FILE, savedir / DIVERSE_LIST, ledger.outputs_of(STAGE), advice)

    scratch = workdir / digest_bytes(f"{state} {ledger.state_of(STAGE)}".encode())[:16]
    clear_workdir(workdir, but=scratch)
    chosen = select(table, rows, how, scratch, workers, report)
    ranked = int((chosen.ranks >= 0).sum())
    budget = ranked if how.budget is None else min(how.budget, ranked)
    if how.budget is not None and how.budget > ranked:
        report.warn(f"--budget {how.budget:,}: there are {ranked:,} patches to select from, and all are taken")
    of_dataset = in_one(listing.table["dataset"]).dictionary_encode()
    made = Selection(
        paths, as_numbers(of_dataset.indices), of_dataset.dictionary.to_pylist(), chosen.levels[0], chosen.ranks,
        budget, chosen.like, chosen.cosines,
    )  # fmt: skip
    listed = list_paths(paths[int(at)] for at in np.flatnonzero(made.selected))
    report.count("patches selected", listed.count)
    report.count("beyond the budget", ranked - listed.count)
    report.count("near-duplicates", int((chosen.like >= 0).sum()))
    known = in_one(listing.table["patch"])
    outputs = {
        SELECTED_FILE: encode_selected(known, chosen.ranks, budget, chosen.levels, chosen.like, chosen.cosines),
        COUNTS_FILE: count_table(made),
        CLUSTERS_SHEET: draw_clusters(made),
    }
    if how.near_duplicates is not None:
        outputs[PAIRS_SHEET] = draw_pairs(made)
    if not replace:
        refuse_different(savedir, outputs)
        refuse_other_list(savedir / DIVERSE_LIST, listed)
    ledger.announce(STAGE, [*map(foresee, outputs, outputs.values()), *foresee_chunks(DIVERSE_LIST, listed)])
    keep_names(workdir, names)
    for name, content in outputs.items():
        write_once(savedir / name, content, overwrite=replace)
    write_path_list_once(savedir / DIVERSE_LIST, listed, overwrite=replace)
    report.note(describe_shares(made))
    report.note(f"look at {savedir}/diverse_*.png")
    written = note_outputs(savedir, *(savedir / name for name in (*outputs, DIVERSE_LIST)))
    ledger.finish(STAGE, written, {"selected": listed.count})
    clear_workdir(workdir)
    return report


def clear_workdir(workdir: Path, but: Path | None = None) -> None:
    """Remove what runs that were broken off have kept, of other selections than one that is to go on."""
    for kept in workdir.iterdir() if workdir.is_dir() else ():
        if kept.is_dir() and kept != but:
            shutil.rmtree(kept)


def feature_table(text: str) -> Path:
    """Argument type: a table of features, or the directory that embed.py wrote it to, as the file's absolute path."""
    path = Path(text)
    return cli.existing_file(str(path / FEATURES_FILE)) if path.is_dir() else cli.existing_file(text)


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """Put what decides a selection into one value; end the program where it decides nothing, or cannot be."""
    names = ("budget", "near_duplicates", "clusters", "resamplings", "seed")
    given = {name: arguments.pop(name) for name in names}
    if given["budget"] is None and given["near_duplicates"] is None:
        parser.error("expected --budget N, --near-duplicates COSINE or both, found neither")
    if given["clusters"] is not None:
        given["clusters"] = tuple(given["clusters"])
        if list(given["clusters"]) != sorted(set(given["clusters"]), reverse=True):
            parser.error("argument --clusters: expected fewer on each level than on the one before")
    arguments["how"] = How(**given)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "select_diverse.py")
    parser.add_argument("fpaths", type=cli.path_list, metavar="FPATHS", help="path list of the patches")
    parser.add_argument(
        "features", type=feature_table, metavar="FEATURES", help="features.parquet of embed.py, or its directory"
    )
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    group = parser.add_argument_group("selection")
    group.add_argument("--budget", type=cli.positive_int, metavar="N", help="patches to select")
    group.add_argument(
        "--near-duplicates",
        type=cli.fraction,
        metavar="COSINE",
        help="leave out patches with at least this cosine to one that comes before in the list and stays, in the same "
        "cluster (default: none; how many there would be is said)",
    )
    group.add_argument(
        "--clusters",
        type=cli.positive_int,
        nargs="+",
        metavar="N",
        help="clusters of each level, from the lowest (default: by the number of patches; 2,000 make 179 and 22)",
    )
    group.add_argument(
        "--resamplings",
        type=cli.natural_int,
        default=How.resamplings,
        metavar="N",
        help="times that each level is clustered again, of each cluster only so many patches, for clusters as small "
        "where patches are many as where they are few (default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        type=cli.natural_int,
        default=How.seed,
        metavar="N",
        help="of all that is drawn (default: %(default)s)",
    )
    cli.add_reroot_flag(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    parser.set_defaults(check_arguments=check_arguments)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
