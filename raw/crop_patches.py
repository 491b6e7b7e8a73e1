"""Cut sections into square patches and hash each of them.

Reads:   sections IMDIR/{section}.tiff, as cleanup2d.py and cross_section3d.py write them; or, with --from-volumes,
         volumes in IMDIR, which are cut into sections as cross_section3d.py would, without these being written.
Writes:  PATCHDIR/{section}_{y}_{x}.tiff, the patch whose top-left pixel is row y, column x of the section, and
         PATCHDIR/{section}_{y}_{x}.npy, its hash (--hash), a (hash_size, hash_size) boolean array;
         or, with --store tar, PATCHDIR/{dataset}-{number}.tar, shards that hold {section}_{y}_{x}.tiff;
         PATCHDIR/{dataset}_patches.parquet, a table with a row a patch: its place, size, hash, origin, and
         what can be told of it without labels: mean, deviation, entropy, blur and the share of saturated pixels.
Example: python raw/crop_patches.py work/cleanup2d work/crop_patches

The grid starts at the top-left corner and has max(1, round(side / crop_size)) patches a side: a remainder under half
a patch is dropped, and the last patch of a row or column may be smaller than the others. Patches with a side under
--min-size are left out and counted; a volume that is too thin for them in one direction is only cut across it.

The short way to the exemplars alone: --hashes-only, then deduplicate.py, then --only with the list that made.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.addresses import Place
from emcurate.errors import InputError
from emcurate.files import make_output_directory
from emcurate.images.resampling import Scale
from emcurate.patches.crop_plan import CropPlan, key_of
from emcurate.patches.cutting import FILES, NOTHING, TAR, Cutting, cut
from emcurate.patches.grid import least_side
from emcurate.patches.hashing import HASHES, WAVELET_HASH
from emcurate.patches.section_files import DirectoryOfSections
from emcurate.patches.selection import Selection
from emcurate.patches.shards import PATCHES_PER_SHARD
from emcurate.patches.tables import TABLE_SUFFIX
from emcurate.patches.wanted import Material, Wanted
from emcurate.running.jobs import Workers
from emcurate.running.ledger import Ledger
from emcurate.running.ledger_file import LedgerFile, ledger_path
from emcurate.running.report import Report
from emcurate.volumes.corpus import refuse_results_among
from emcurate.volumes.cut_settings import HowToCut
from emcurate.volumes.section_source import DirectoryOfVolumes

STAGE = "crop_patches"
CROP_SIZE = 224  # pixels a side, what ImageNet networks take and CEM500K published
HASH_SIZE = 8  # bits a side


def run(
    imdir: Place,
    patchdir: Path,
    *,
    from_volumes: bool = False,
    sections: HowToCut = HowToCut(),
    scale: Scale = Scale(),
    prefer: str | None = None,
    crop_size: int = CROP_SIZE,
    hash_size: int = HASH_SIZE,
    hash: str = HASHES[0],
    orientations: bool = False,
    min_size: int | None = None,
    hashes_only: bool = False,
    only: Path | None = None,
    store: str = FILES,
    shard_size: int = PATCHES_PER_SHARD,
    overwrite: bool = False,
    prune: bool = False,
    workers: Workers = Workers(),
) -> Report:
    """Cut every section of `imdir`; see the module's docstring."""
    report = Report(STAGE)
    min_size = least_side(crop_size) if min_size is None else min_size
    refuse_results_among(imdir, patchdir)
    selection = None if only is None else Selection(only)
    material: Material
    if from_volumes:
        material = DirectoryOfVolumes(imdir, sections, patchdir, report, workers, scale, prefer, min_size)
    else:
        if store == FILES and not hashes_only:
            workers.warm_up()
        material = DirectoryOfSections(Path(imdir), report, scale)
    if selection is not None and material.sections and not any(map(selection.has_any, material.sections)):
        found, advice = "only patches of others", "name the directory that the list's patches were cut from"
        raise InputError(only, f"patches of what {imdir} holds", found, advice)
    if selection is not None:
        refuse_other_cut(selection, crop_size, min_size, scale)
    make_output_directory(patchdir)
    how = Cutting(
        patchdir, crop_size, hash_size, hash, min_size, NOTHING if hashes_only else store, scale, orientations
    )
    ledger = Ledger(patchdir, STAGE, how.settings, product="patches", owner_of=key_of)
    wanted = Wanted(material, how, selection)
    wanted.refuse_too_large()
    wanted.check_selection(report)
    plan = CropPlan(wanted, ledger, shard_size)
    plan.settle(report, overwrite=overwrite, prune=prune)
    report.count("sections cut", 0)
    report.count("patches", 0)
    report.count("shards written" if how.store == TAR else "files written", 0)
    report.count("sections already done", len(plan.tables.kept))
    try:
        for ready in material.ready(plan.unfinished(), report, workers):
            jobs = [job for dataset in ready for job in plan.jobs(dataset, workers)]
            in_threads = plan.suits_threads(ready)
            for job, done in workers.run(cut, jobs, report, unit="job", in_threads=in_threads):
                plan.take(job, done, report)
            for dataset in ready:
                plan.close(dataset, report)
    finally:  # a run that is stopped says what there is, too
        report.count("patches", plan.count_patches())
    plan.note_what_holds_all(report)
    if selection is None and (small := plan.count_small()):
        report.count(f"left out, with a side under {min_size} pixels", small)
    if unmeasured := plan.count_unmeasured():
        report.note(
            f"{unmeasured:,} tables of an earlier version do not have the measures of all patches; nothing here needs "
            f"them, but to have them remove {patchdir}/*{TABLE_SUFFIX} and run this again: patches stay as they are"
        )
    return report


def refuse_other_cut(selection: Selection, crop_size: int, min_size: int, scale: Scale) -> None:
    """Raise `InputError` if a list's patches were cut with another side or scale: many names are on both grids."""
    advice = "cut with that, or name the list of other patches"
    for directory in selection.directories:
        header = LedgerFile(ledger_path(directory, STAGE)).header
        noted = None if header is None else header.parameters
        if not noted:
            continue
        side, least = noted.get("crop_size", crop_size), noted.get("min_size", min_size)
        if side != crop_size:
            found = f"those in {directory}, cut with --crop-size {side}"
            raise InputError(selection.path, f"patches of {crop_size} pixels a side", found, advice)
        if least < min_size:
            found = f"those in {directory}, cut with --min-size {least}"
            raise InputError(selection.path, f"patches of at least {min_size} pixels a side", found, advice)
        sizes = scale.pixel_size_nm, noted.get("pixel_size")
        if sizes[0] != sizes[1]:
            wanted, found = (f"--pixel-size {nm:g}" if nm else "no --pixel-size" for nm in sizes)
            raise InputError(
                selection.path, f"patches cut with {wanted}", f"those in {directory}, with {found}", advice
            )


def check_arguments(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """End the program if the arguments do not fit together."""
    size = arguments["hash_size"]
    if arguments["hash"] == WAVELET_HASH and size & (size - 1):
        parser.error(f"argument --hash_size: expected a power of 2 for --hash {WAVELET_HASH}, found {size}")
    least, side = arguments["min_size"], arguments["crop_size"]
    if least is not None and least > side:
        parser.error(f"argument --min-size: expected at most the --crop-size, {side}, found {least}")
    if not arguments["from_volumes"]:
        try:
            cli.results("sections", "cleanup2d.py or cross_section3d.py")(str(arguments["imdir"]))
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument IMDIR: {error}, or give --from-volumes for volumes")
    of_volumes = arguments["sections"] != HowToCut() or arguments["prefer"] is not None
    if not arguments["from_volumes"] and of_volumes:
        flags = "--axes, --spacing, --anisotropy, --level, --channel, --time, --voxel-size, --voxel-sizes, --rescale"
        parser.error(f"arguments {flags}, --prefer: expected --from-volumes too")
    if arguments["hashes_only"] and arguments["store"] != FILES:
        parser.error(f"argument --hashes-only: expected no --store {arguments['store']}, since no patch is written")
    if arguments["hashes_only"] and arguments["only"] is not None:
        parser.error("argument --hashes-only: expected no --only, which names the patches to be written")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "crop_patches.py")
    parser.add_argument(
        "imdir",
        type=cli.existing_volumes,
        metavar="IMDIR",
        help="directory of sections; of volumes, see --from-volumes",
    )
    parser.add_argument("patchdir", type=cli.output_directory, metavar="PATCHDIR", help="directory for the patches")
    parser.add_argument(
        "-cs",
        "--crop_size",
        "--crop-size",
        type=cli.positive_int,
        default=CROP_SIZE,
        metavar="PIXELS",
        help="side of a patch (default: %(default)s)",
    )
    parser.add_argument(
        "--min-size",
        type=cli.positive_int,
        metavar="PIXELS",
        help="leave patches out of which a side has fewer pixels than this (default: half of --crop-size)",
    )
    parser.add_argument(
        "-hs",
        "--hash_size",
        "--hash-size",
        type=cli.hash_side,
        default=HASH_SIZE,
        metavar="BITS",
        help="side of the hash (default: %(default)s)",
    )
    parser.add_argument(
        "--hash",
        choices=HASHES,
        default=HASHES[0],
        help="which of imagehash's hashes: difference, perceptual, average or wavelet (default: %(default)s)",
    )
    parser.add_argument(
        "--orientations",
        action="store_true",
        help="note the hashes of all eight orientations of a patch in the table, for deduplicate.py --orientations",
    )
    what = parser.add_argument_group(
        "what is written", "all patches, each a file of its own with its hash, if not told otherwise"
    )
    what.add_argument("--hashes-only", action="store_true", help="write the tables only, no patch")
    what.add_argument(
        "--only", type=cli.path_list, metavar="FPATHS", help="write only the patches that a path list names"
    )
    what.add_argument(
        "--store",
        choices=(FILES, TAR),
        default=FILES,
        help="write each patch as a file, or many into a tar, for more patches than a disk takes files",
    )
    what.add_argument(
        "--shard-size",
        type=cli.positive_int,
        default=PATCHES_PER_SHARD,
        metavar="N",
        help="patches in a tar at most; the patches of a section stay together (default: %(default)s)",
    )
    parser.add_argument(
        "--from-volumes",
        action="store_true",
        help="IMDIR holds volumes, or lists them: cut these, as cross_section3d.py followed by this script would, "
        "without sections",
    )
    cli.add_section_flags(parser, "with --from-volumes: sections")
    cli.add_scale_flags(parser)
    cli.add_prefer_flag(parser)
    cli.add_ledger_flags(parser, "patchdir")
    parser.set_defaults(check_arguments=check_arguments)
    cli.add_job_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
