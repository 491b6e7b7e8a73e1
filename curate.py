"""Run every stage in order: raw images, volumes and videos in; filtered patches and 3D subvolumes out.

Reads:   2D images (--images), volumes (--volumes), videos (--videos): directories, at least one of them.
Writes:  OUT/{stage}/, each stage's results in a directory of its own.
Example: python curate.py --images corpus/images --volumes corpus/volumes --out work --until deduplicate
         (label patches in labeling.ipynb, then)
         python curate.py --images corpus/images --volumes corpus/volumes --out work --labels patch_quality_labels.npy

The classifier is trained on --labels, or read from --weights, or else the published one is downloaded. A second run
does only what is new. Your files are only read: MRC files are audited, not converted, since every stage reads
signed bytes rightly. Videos are cut frame by frame only, since their third axis is time.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emcurate import cli, naming
from emcurate.errors import InputError
from emcurate.files import list_files
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

# Flags handed on as they are to the stages that know them: how many values each takes, and which stages those are.
CUTTING = ("cleanup2d", "cross_section3d")
LEARNING = ("train_nn", "classify_nn")
EXACT = ("vid2stack", *CUTTING, "crop_patches", "deduplicate", "reconstruct3d")
FORWARDED: dict[str, tuple[int | str, tuple[str, ...]]] = {
    "--rescale": (1, CUTTING),
    "--percentiles": (2, CUTTING),
    "--voxel-size": (3, ("cross_section3d",)),
    "--anisotropy": (1, ("cross_section3d",)),
    "--spacing": (1, ("cross_section3d",)),
    "--crop-size": (1, ("crop_patches",)),
    "--hash-size": (1, ("crop_patches",)),
    "--min-distance": (1, ("deduplicate",)),
    "--order": (1, ("deduplicate",)),
    "--init": (1, ("train_nn",)),
    "--epochs": (1, ("train_nn",)),
    "--image-size": (1, ("train_nn",)),
    "--finetune-layer": (1, ("train_nn",)),
    "--batch-size": (1, ("train_nn",)),
    "--split": (1, ("train_nn",)),
    "--device": (1, LEARNING),
    "--threshold": (1, ("classify_nn",)),
    "-nz": (1, ("reconstruct3d",)),
    "--cross-plane": (0, ("reconstruct3d",)),
    "--overwrite": (0, (*EXACT, *LEARNING)),
    "--processes": (1, (*EXACT, "mrc2byte", *LEARNING)),
    "--scheduler": (1, EXACT),
}

# Videos are cut along this plane only: the others would mix space and time.
PLANE_OF_FRAMES = "0"


@dataclass(frozen=True)
class Step:
    """One run of one stage: its command line, and the directories whose entries are its inputs and outputs."""

    stage: str
    source: Path
    destination: Path | None
    argv: tuple[str, ...]


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
    steps = []

    def add(stage: str, source: Path, *arguments: str | Path, to: Path | None = None) -> None:
        flags = forwarded_flags(stage, vars(a))
        steps.append(Step(stage, source, to, (str(source), *map(str, arguments), *flags)))

    if a.videos:
        add("vid2stack", a.videos, "-o", out["vid2stack"], to=out["vid2stack"])
    if a.volumes and list_files(a.volumes, load_stage("mrc2byte").ALL_SUFFIXES):
        add("mrc2byte", a.volumes, "--dry-run")
    if a.images:
        add("cleanup2d", a.images, out["cleanup2d"], to=out["cleanup2d"])
    sections = out["cross_section3d"]
    if a.volumes:
        add("cross_section3d", a.volumes, sections, *(["--axes", *a.axes] if a.axes else []), to=sections)
    if a.videos:
        add("cross_section3d", out["vid2stack"], sections, "--axes", PLANE_OF_FRAMES, to=sections)
    if a.images:
        add("crop_patches", out["cleanup2d"], patches, to=patches)
    if a.volumes or a.videos:
        add("crop_patches", sections, patches, to=patches)
    add("deduplicate", patches, out["deduplicate"], to=out["deduplicate"])
    weights = [a.weights] if a.weights else []
    if a.labels:
        add("train_nn", deduplicated, a.labels, out["train_nn"], to=out["train_nn"])
        weights = [out["train_nn"] / "patch_quality_classifier_nn.pth"]
    chosen = [*(["--weights", *weights] if weights else []), *(["--labels", a.labels] if a.labels else [])]
    add("classify_nn", deduplicated, out["classify_nn"], *chosen, to=out["classify_nn"])
    for volumes in [a.volumes] * bool(a.volumes) + [out["vid2stack"]] * bool(a.videos):
        add("reconstruct3d", filtered, volumes, out["reconstruct3d"], to=out["reconstruct3d"])
    order = list(SCRIPTS)
    return [step for step in steps if order.index(step.stage) <= order.index(a.until)]


def forwarded_flags(stage: str, values: dict[str, list[str] | bool | None]) -> list[str]:
    """Return the command-line words of the flags given to this script that a stage knows."""
    words = []
    for flag, (_, stages) in FORWARDED.items():
        value = values[_destination(flag)]
        if stage in stages and value:
            words += [flag, *value] if isinstance(value, list) else [flag]
    return words


def load_stage(stage: str) -> Any:
    """Return a stage's module."""
    return importlib.import_module(SCRIPTS[stage].removesuffix(".py").replace("/", "."))


def run_step(step: Step) -> Report:
    """Run a stage as its script would run, except that the report comes back."""
    module = load_stage(step.stage)
    report: Report = module.run(**cli.parse_arguments(module.build_parser(), step.argv))
    return report


def refuse_shared_names(out: Path) -> None:
    """Raise `InputError` if a 2D and a 3D dataset have one name: their patches would be taken for one dataset's."""
    names: list[dict[str, str]] = []
    for stage in CUTTING:
        files = os.listdir(out / stage) if (out / stage).is_dir() else []
        names.append({name.partition(naming.MARK)[0]: name for name in files if naming.MARK in name})
    for shared in sorted(names[0].keys() & names[1].keys()):
        raise InputError(
            out / CUTTING[0] / names[0][shared],
            "a dataset name that no volume or video has",
            f"{out / CUTTING[1] / names[1][shared]}",
            "rename one of the inputs, and remove the sections made from it",
        )


def count_entries(directory: Path) -> int:
    """Return how many entries, hidden ones left out, a directory has."""
    if not directory.is_dir():
        return 0
    with os.scandir(directory) as entries:
        return sum(not entry.name.startswith(".") for entry in entries)


def run(a: argparse.Namespace) -> Report:
    """Run the steps one after another until one cannot go on; see the module's docstring."""
    total = Report(NAME)
    rows: dict[str, Row] = {}
    for step in plan_steps(a):
        print(f"\n$ python {SCRIPTS[step.stage]} {shlex.join(step.argv)}", flush=True)
        start = time.monotonic()
        row = rows.setdefault(step.stage, Row())
        row.inputs += count_entries(step.source)
        try:
            if step.stage == "crop_patches":
                refuse_shared_names(a.out)
            report = run_step(step)
        except InputError as error:
            report = Report(step.stage)
            report.fail(error)
            total.note(f"stopped at {step.stage}: what comes after it needs its results")
            break
        finally:
            total.failures.extend(report.failures)
            cli.print_outcome(report)
            row.outputs = f"{count_entries(step.destination):,}" if step.destination else "audit only"
            row.seconds += time.monotonic() - start
    total.count("stages run", len(rows))
    total.notes += ["", *format_table(rows), "", f"results: {a.out}"]
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
    inputs.add_argument(
        "--out", type=cli.output_directory, required=True, metavar="DIR", help="directory for all results"
    )
    inputs.add_argument("--until", choices=SCRIPTS, default="reconstruct3d", help="last stage to run (default: all)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--weights", type=cli.existing_file, metavar="FILE", help="trained classifier (default: the published one)"
    )
    source.add_argument(
        "--labels", type=cli.existing_file, metavar="FILE", help="labels of the exemplars, to train a classifier with"
    )
    handed_on = parser.add_argument_group("handed on to the stages", "each stage's --help tells what they mean")
    handed_on.add_argument("--axes", nargs="+", choices=["0", "1", "2"], metavar="AXIS", help="for cross_section3d")
    for flag, (values, stages) in FORWARDED.items():
        names = {"--processes": ["-p", flag], "-nz": [flag, "--nz"]}.get(flag, [flag])
        text = f"for {', '.join(stages)}"
        if values == 0:
            handed_on.add_argument(*names, action="store_true", help=text)
        else:
            handed_on.add_argument(*names, dest=_destination(flag), nargs=values, metavar="VALUE", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    parser = build_parser()
    a = parser.parse_args(argv)
    if not (a.images or a.volumes or a.videos):
        parser.error("expected at least one of --images, --volumes, --videos, found none")
    return cli.close(lambda: run(a), NAME)


def _destination(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


if __name__ == "__main__":
    sys.exit(main())
