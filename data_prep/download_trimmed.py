"""Fetch a ready trimmed set from the Hugging Face Hub and unpack it.

Reads:   data.zip of the dataset anonymous347928/pcbm-coco-stuff, or data/images.zip of anonymous347928/pcbm-siim-isic.
         The hub's own library fetches it into its cache (HF_HOME); HF_ENDPOINT and HF_TOKEN are respected.
Writes:  the archive's files below OUTPUT: trimmed for cocostuff, trimmed_siim for siim.
Example: python data_prep/download_trimmed.py cocostuff -o trimmed

Nothing of the archive is trusted: names that lead out of OUTPUT, links and archives that swell beyond all measure are
refused before anything is written.
"""

from __future__ import annotations

import emcurate.start  # noqa: F401 - before all that takes its time to load

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emcurate import cli
from emcurate.errors import InputError
from emcurate.fetching.archives import Limits, find_damage, list_sizes, unpack_zip
from emcurate.fetching.hub import HubFile, fetch_from_hub, look_up
from emcurate.files import free_bytes, make_output_directory
from emcurate.outputs import digest_file, note_outputs
from emcurate.running.claims import refuse_other_makers
from emcurate.running.ledger import Ledger
from emcurate.running.report import Report
from emcurate.running.sources import Source
from emcurate.trimming.part import DOWNLOADED, PRODUCTS

STAGE = "download_trimmed"

SETS = {
    "cocostuff": HubFile("anonymous347928/pcbm-coco-stuff", "data.zip"),
    "siim": HubFile("anonymous347928/pcbm-siim-isic", "data/images.zip"),
}
OUTPUTS = {"cocostuff": "trimmed", "siim": "trimmed_siim"}

# GB (10^9 bytes). The whole of COCO 2017 takes 25; a trimmed set takes a few.
MAX_SIZE_GB = 25.0


def run(
    name: str,
    *,
    output: Path | None = None,
    repository: str | None = None,
    file: str | None = None,
    revision: str = "main",
    max_size: float = MAX_SIZE_GB,
    dry_run: bool = False,
    overwrite: bool = False,
    prune: bool = False,
) -> Report:
    """Fetch and unpack one of the `SETS`; see the module's docstring."""
    report = Report(STAGE)
    source = HubFile(repository or SETS[name].repository, file or SETS[name].name, revision)
    output = output or cli.output_directory(OUTPUTS[name])
    if dry_run:
        foretell(source, output, report)
        return report
    make_output_directory(output)
    refuse_other_makers(output, STAGE, PRODUCTS)
    limits = Limits(int(max_size * 1e9))
    ledger = Ledger(output, STAGE, {}, product=DOWNLOADED, owner_of=lambda file: None)
    noted = ledger.outputs_of(name) if name in ledger.entries else []
    archive, digest = fetch_whole(source, limits, ledger.entries[name].fingerprint if noted else "")
    # The set owns its name, whatever revision it comes from.
    state = Source(archive, digest, name, owner=Path(name))
    plan = ledger.plan({name: state}, report, root=output / name, overwrite=overwrite, prune=prune)
    if plan.done:
        report.count("files written", 0)
        report.count("files already there", len(noted))
    if plan.todo:
        ours = {output / file.name for file in noted}
        unpacked = unpack_zip(archive, output, limits, overwrite=overwrite, ours=ours)
        ledger.finish(name, note_outputs(output, *unpacked.files))
        report.count("files written", unpacked.written)
        report.count("files already there", unpacked.present)
    if not report.failures:
        report.note(f"{source} is in {output}")
    return report


def fetch_whole(source: HubFile, limits: Limits, known: str) -> tuple[Path, str]:
    """Return an archive of the hub and its digest; a damaged one is fetched again, once.

    Not every cache tells damage by its names, so that the archive's own checksums are asked, unless it has the digest
    `known` from an earlier run.
    """
    archive = fetch_from_hub(source)
    digest = digest_file(archive)
    if digest == known or find_damage(archive, limits) is None:
        return archive, digest
    archive = fetch_from_hub(source, again=True)
    damage = find_damage(archive, limits)
    if damage is not None:
        advice = "it is so on the hub itself: check --file and --repository, or tell its owner"
        raise InputError(str(source), damage.expected, damage.found, advice)
    return archive, digest_file(archive)


def foretell(source: HubFile, output: Path, report: Report) -> None:
    """Say what would be fetched and unpacked, as far as that is known before."""
    state = look_up(source)
    free = f"{output}, where {free_bytes(output) / 1e9:.1f} GB are free"
    if state.path is None:
        report.note(f"{source}: {state.size / 1e9:.3f} GB to fetch, to be unpacked into {free}")
        report.count("archives to fetch")
        return
    files = list_sizes(state.path)
    report.note(f"{source}: in the cache; {sum(files.values()) / 1e9:.3f} GB to unpack into {free}")
    report.count("files in the archive", len(files))


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "download_trimmed.py")
    parser.add_argument("name", choices=list(SETS), help="which set")
    parser.add_argument(
        "-o",
        "--output",
        type=cli.output_directory,
        metavar="DIR",
        help="default: " + ", ".join(f"{directory} for {name}" for name, directory in OUTPUTS.items()),
    )
    parser.add_argument("--repository", metavar="OWNER/NAME", help="another dataset repository")
    parser.add_argument("--file", metavar="PATH", help="another zip archive in the repository")
    parser.add_argument(
        "--revision", default="main", metavar="NAME", help="branch, tag or commit (default: %(default)s)"
    )
    parser.add_argument(
        "--max-size",
        type=cli.positive_float,
        default=MAX_SIZE_GB,
        metavar="GB",
        help="refuse an archive that becomes larger (default: %(default)g GB)",
    )
    cli.add_dry_run_flag(parser)
    cli.add_ledger_flags(parser, "output")
    parser.set_defaults(check_arguments=choose_output)
    return parser


def choose_output(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> None:
    """Set the output directory where none is given: that of the set named."""
    if arguments["output"] is None:
        try:
            arguments["output"] = cli.output_directory(OUTPUTS[arguments["name"]])
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument -o/--output: {error}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
