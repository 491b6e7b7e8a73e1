"""Leave blank, saturated and blurred patches out of a path list, without labels, weights or network.

What a good patch looks like depends on the instrument, so the limits are each dataset's own:
  saturated  more than --saturated-above of its pixels wholly black or white, and unusual in the dataset;
  blank      entropy more than --blank-bits below that of the best tenth of the dataset (each bit halves the contrast),
             or below 1 bit;
  blurred    blur (scikit-image's blur_effect, 0 to 1) more than --blurred-above, and unusual in the dataset.
Unusual is what is more than --deviations robust standard deviations above the dataset's median. Datasets of less than
20 listed patches are judged together.

Reads:   FPATHS, the path list deduplicate.py wrote; the tables beside the patches, that crop_patches.py wrote. Patches
         that no table has measures of are read and measured.
Writes:  SAVEDIR/measures_filtered_fpaths.npz/, the path list of the patches that are kept;
         SAVEDIR/measures_decisions.parquet, what was decided of each patch, by its name, and why;
         SAVEDIR/measures_counts.csv, counts and limits by dataset;
         SAVEDIR/measures_filtered.png, a contact sheet of patches on both sides of the limits.
Example: python filtered/filter_measures.py work/deduplicate/deduplicated_fpaths.npz work/filter_measures
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate import cli
from emcurate.contents import csv_bytes
from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.outputs import digest_bytes, note_outputs
from emcurate.patches.columns import as_numbers, in_one
from emcurate.patches.decided import DECIDED_BY_MEASURES, encode_reasons
from emcurate.patches.judging import GROUP, REASONS, UNKNOWN, WITHIN, Judged, Limits, Rules, explain, judge
from emcurate.patches.listing import Listing, list_patches
from emcurate.patches.measured import COLUMNS, read_measures
from emcurate.patches.pathlists import PathList, list_paths, write_path_list_once
from emcurate.patches.reading import refuse_moved
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.writing import write_once

STAGE = "filter_measures"
FILTERED_LIST, COUNTS_FILE, SHEET = "measures_filtered_fpaths.npz", "measures_counts.csv", "measures_filtered.png"
OUTPUTS = (DECIDED_BY_MEASURES, COUNTS_FILE, SHEET, FILTERED_LIST)

TILES_A_GROUP = 16  # two rows, on each side of each limit


def run(
    fpaths: Path,
    savedir: Path,
    *,
    rules: Rules = Rules(),
    reroot: tuple[str, str] | None = None,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Filter the patches of `fpaths`; see the module's docstring."""
    report = Report(STAGE)
    paths = PathList(fpaths, reroot)
    if not len(paths):
        raise InputError(fpaths, "a path list with patches", "an empty one", "run deduplicate.py first")
    refuse_moved(paths, fpaths)
    listing = list_patches(paths, COLUMNS)
    measures = read_measures(listing, report, workers)
    make_output_directory(savedir)
    ledger = Ledger(
        savedir,
        STAGE,
        asdict(rules),
        product="filtered",
        owner_of=lambda name: STAGE if name.rstrip("/") in OUTPUTS else None,
    )
    listed = "\n".join(map(listing.path, range(len(listing)))).encode("utf-8", "surrogateescape")
    source = Source(fpaths, digest_bytes(listed + measures.tobytes()), STAGE, owner=Path(STAGE))
    plan = ledger.plan({STAGE: source}, report, root=fpaths, overwrite=overwrite, prune=prune, renew=True)
    if plan.done:
        report.count("patches judged", 0)
        report.count("judged before", len(listing))
        report.note(f"nothing new: the results in {savedir} are up to date")
    if not plan.todo:
        return report

    encoded = in_one(listing.table["dataset"]).dictionary_encode()
    numbers, names = as_numbers(encoded.indices), encoded.dictionary.to_pylist()
    judged = judge(measures, numbers, names, rules)
    report.count("patches judged", len(listing))
    for place, reason in enumerate(REASONS):
        report.count(reason, int((judged.verdicts == place).sum()))
    report.count("kept", int(judged.kept.sum()))
    describe(judged, numbers, names, report)
    why = explain(judged, measures, numbers, names)
    replace = ledger.replaces(STAGE)
    files = {
        DECIDED_BY_MEASURES: encode_reasons(in_one(listing.table["patch"]), judged.kept, why),
        COUNTS_FILE: count_table(judged, numbers, names),
        SHEET: draw_sheet(judged, listing),
    }
    for name, content in files.items():
        write_once(savedir / name, content, overwrite=replace)
    kept = list_paths(listing.path(row) for row in np.flatnonzero(judged.kept).tolist())
    write_path_list_once(savedir / FILTERED_LIST, kept, overwrite=replace)
    ledger.finish(STAGE, note_outputs(savedir, *(savedir / name for name in OUTPUTS)))
    report.note(f"look at {savedir / SHEET}")
    return report


def describe(judged: Judged, numbers: npt.NDArray[np.int32], names: Sequence[str], report: Report) -> None:
    """Say what a person should know before believing the filter."""
    if judged.together:
        report.note(
            f"{len(judged.together):,} datasets are too small for limits of their own and were judged together; if "
            "they are of different instruments, look at what was left out"
        )
    dropped = np.bincount(numbers[judged.verdicts < WITHIN], minlength=len(names))
    listed = np.bincount(numbers, minlength=len(names))
    most = [name for name, out, all_of in zip(names, dropped, listed, strict=True) if 2 * out > all_of]
    if most:
        some = ", ".join(most[:3]) + (f" and {len(most) - 3:,} more" if len(most) > 3 else "")
        report.note(f"more than half of the patches were left out of {some}: look at them")


def count_table(judged: Judged, numbers: npt.NDArray[np.int32], names: Sequence[str]) -> bytes:
    """Return a csv of each dataset's counts and limits."""
    columns = [np.bincount(numbers[judged.verdicts == place], minlength=len(names)) for place in range(UNKNOWN + 1)]
    header = ["dataset", "patches", *REASONS, "kept", "unreadable", *(item.name for item in fields(Limits))]
    rows = []
    for at in sorted(range(len(names)), key=lambda place: names[place]):
        counts = [int(column[at]) for column in columns]
        limits = judged.limits.get(names[at])
        told = ["", "", ""] if limits is None else [f"{value:.4f}" for value in astuple(limits)]
        rows.append([names[at], sum(counts), *counts, *told])
    return csv_bytes(header, rows)


def draw_sheet(judged: Judged, listing: Listing) -> bytes:
    """Return a contact sheet, a PNG, of the patches nearest to each limit on both of its sides, and those farthest."""
    from emcurate.patches.reading import read_patch  # here, since these load what reads and draws images
    from emcurate.pictures.contact_sheets import INFORMATIVE, UNINFORMATIVE, Group, Tile, encode_contact_sheet

    groups = []
    for place, reason in enumerate(REASONS):
        excess = judged.excess[:, place]
        out, kept = np.flatnonzero(judged.verdicts == place), np.flatnonzero(judged.kept & np.isfinite(excess))
        out = out[np.argsort(excess[out], kind="stable")]
        near, far = out[:TILES_A_GROUP], out[TILES_A_GROUP:][::-1][:TILES_A_GROUP]
        beside = kept[np.argsort(-excess[kept], kind="stable")][: TILES_A_GROUP // 2]
        for title, rows, mark in (
            (f"Left out as {reason}: {len(out):,}; the nearest to the limit", near, UNINFORMATIVE),
            (f"Left out as {reason}: the farthest from the limit", far, UNINFORMATIVE),
            (f"Kept, the nearest to being left out as {reason}", beside, INFORMATIVE),
        ):
            if len(rows) or rows is not far:
                tiles = []
                for row in rows.tolist():
                    beyond, path = float(excess[row]), Path(listing.path(row))
                    side = f"{abs(beyond):.3f} {'beyond' if beyond > 0 else 'within'}"
                    tiles.append(Tile(path, f"{side}\n{path.stem}", mark))
                groups.append(Group(title, tiles))
    title = f"By measures alone: {int(judged.kept.sum()):,} of {len(listing):,} patches kept"
    return encode_contact_sheet(title, groups, read=read_patch)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "filter_measures.py")
    parser.add_argument("fpaths", type=cli.path_list, metavar="FPATHS", help="path list of the patches")
    parser.add_argument("savedir", type=cli.output_directory, metavar="SAVEDIR", help="directory for the results")
    about = "what is usual depends on the instrument, and is found for each dataset"
    cli.add_field_flags(parser, "rules", Rules, {GROUP: about})
    cli.add_reroot_flag(parser)
    cli.add_ledger_flags(parser, "savedir")
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
