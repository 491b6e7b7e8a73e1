"""Run the whole pipeline on a synthetic corpus and compare the outcome with the known truth.

Reads:   nothing.
Writes:  OUTDIR/corpus/, the corpus; OUTDIR/work/, the results of every stage; OUTDIR/contact_sheet.png, patches kept,
         dropped as duplicates and found uninformative; OUTDIR/classification/, the two trimmed classification sets.
Example: python demo/run.py demo/output

The classifier learns from the truth about part of the patches, and is judged by the others. It starts from random
weights and is small, so that the demo needs neither the network nor a GPU; what it shows is the way, not the accuracy.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emcurate import cli, naming
from emcurate.contents import read_npy
from emcurate.files import make_output_directory
from emcurate.patches.label_files import save_labels_of
from emcurate.patches.labels import INFORMATIVE, NONE, UNINFORMATIVE
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import read_patch, read_patch_size
from emcurate.patches.tables import TABLE_SUFFIX, read_rows
from emcurate.pictures.contact_sheets import DROPPED, KEPT, Group, Tile, draw_contact_sheet
from emcurate.pictures.contact_sheets import UNINFORMATIVE as UNINFORMATIVE_MARK
from emcurate.running.claims import Notes
from emcurate.running.report import Report
from emcurate.volumes.again import ReadOrCutAgain, locate

STAGE = "demo"
ROOT = Path(__file__).resolve().parent.parent
SEED = 3

CROP_SIZE = 64  # pixels; small, so that a small corpus has patches enough
SPACING = 4  # voxels between sections of a volume
NZ = 32  # sections of a subvolume
LABELLED = 0.4  # part of the patches whose truth the classifier is told
CLEARLY = 0.25  # a patch is labelled if less than this part of it, or of its complement, is informative
EPOCHS = 4
BATCH_SIZE = 32
IMAGE_SIZE = 48  # pixels a side of what the network sees
SHEET_TILES = 16


@dataclass(frozen=True)
class Truth:
    """What is true of a dataset: where it is informative (z, y, x), and which slice each slice repeats."""

    informative: npt.NDArray[np.bool_]
    source: npt.NDArray[np.int64]


def run_script(script: str, *arguments: str | Path) -> None:
    """Run a script as a user would, after saying so; stop the demo if it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ python {script} {shlex.join(words)}", flush=True)
    result = subprocess.run([sys.executable, str(ROOT / script), *words], check=False)
    if result.returncode:
        raise SystemExit(f"demo: {script} ended with status {result.returncode}")


@cache
def load_truth(directory: Path, dataset: str) -> Truth:
    """Read the truth about a dataset."""
    with np.load(directory / f"{dataset}.npz", allow_pickle=False) as archive:
        return Truth(archive["informative"], archive["source"])


def informative_part(patch: naming.Patch, size: tuple[int, int], truth: Truth) -> float:
    """Return which part of a patch, 0 to 1, shows tissue."""
    section = patch.section
    if isinstance(section, naming.VolumeSection):
        plane = np.take(truth.informative, section.index, axis=section.plane)
    else:
        plane = truth.informative[0]
    return float(plane[patch.y : patch.y + size[0], patch.x : patch.x + size[1]].mean())


def measure_informative_parts(paths: Sequence[str], truthdir: Path) -> npt.NDArray[np.float64]:
    """Return the informative part of each patch of a list."""
    parts = []
    for path in paths:
        patch = naming.parse_patch(Path(path).stem)
        parts.append(informative_part(patch, read_patch_size(path), load_truth(truthdir, patch.dataset)))
    return np.array(parts)


def make_labels(parts: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.str_]:
    """Return labels for a random part of the patches whose truth is clear; the others have none."""
    told = (rng.random(len(parts)) < LABELLED) & ((parts < CLEARLY) | (parts > 1 - CLEARLY))
    labels = np.where(parts > 0.5, INFORMATIVE, UNINFORMATIVE)
    return np.where(told, labels, NONE)


def read_groups(deduplicated: Path) -> dict[str, str]:
    """Return the exemplar of every patch, from all datasets' tables."""
    exemplars = {}
    for table in sorted(deduplicated.glob("*_groups.csv")):
        with open(table, encoding="utf-8", newline="") as file:
            exemplars |= {row["patch"]: row["exemplar"] for row in csv.DictReader(file)}
    return exemplars


def iter_repeated(exemplars: dict[str, str], truthdir: Path) -> Iterator[list[str]]:
    """Yield the exemplars of patches that show the same tissue at the same place, a list for each place."""
    places: dict[Any, list[str]] = defaultdict(list)
    for stem, exemplar in exemplars.items():
        patch = naming.parse_patch(stem)
        truth = load_truth(truthdir, patch.dataset)
        if informative_part(patch, (CROP_SIZE, CROP_SIZE), truth) < 1 - CLEARLY:
            continue
        section = patch.section
        if isinstance(section, naming.VolumeSection):
            if section.plane == 0:
                places[patch.dataset, truth.source[section.index], patch.y, patch.x].append(exemplar)
        elif section.image is not None:
            places[patch.dataset, 0, patch.y, patch.x].append(exemplar)
    yield from (chosen for chosen in places.values() if len(chosen) > 1)


def compare_duplicates(exemplars: dict[str, str], truthdir: Path) -> str:
    """Return a line on how many of the repeated patches were recognised as repeated."""
    surplus = recognised = 0
    for chosen in iter_repeated(exemplars, truthdir):
        surplus += len(chosen) - 1
        recognised += len(chosen) - len(set(chosen))
    return f"near-duplicates: {recognised} of {surplus} patches that repeat another were recognised"


def compare_classes(
    parts: npt.NDArray[np.float64], scores: npt.NDArray[Any], labels: npt.NDArray[np.str_]
) -> list[str]:
    """Return lines on how well the patches without a label were classified, those of clear truth and all."""
    from sklearn.metrics import roc_auc_score

    unseen = labels == NONE
    clear = unseen & ((parts < CLEARLY) | (parts > 1 - CLEARLY))
    lines = []
    for chosen, which in ((clear, "clearly one or the other"), (unseen, "in all, half-empty ones among them")):
        truth = parts[chosen] > 0.5
        correct, area = np.mean((scores[chosen] > 0.5) == truth), roc_auc_score(truth, scores[chosen])
        lines.append(f"classifier: {correct:.1%} of {chosen.sum()} unseen patches {which} are right, AUC {area:.3f}")
    return lines


def draw_outcome(
    destination: Path, paths: Sequence[str], predictions: npt.NDArray[Any], exemplars: dict[str, str]
) -> None:
    """Draw some patches that were kept, dropped as duplicates and found uninformative."""
    rng = np.random.default_rng(SEED)
    patchdir = Path(paths[0]).parent

    def sample(stems: Sequence[str]) -> list[str]:
        return [stems[i] for i in sorted(rng.permutation(len(stems))[:SHEET_TILES])]

    def tiles(stems: Sequence[str], mark: Any) -> list[Tile]:
        return [Tile(patchdir / f"{stem}.tiff", stem, mark) for stem in sample(stems)]

    stems = [Path(path).stem for path in paths]
    duplicates = sorted(stem for stem, exemplar in exemplars.items() if stem != exemplar)
    groups = [
        Group("kept: informative", tiles([s for s, p in zip(stems, predictions, strict=True) if p], KEPT)),
        Group("dropped: near-duplicates of a patch that was kept or judged", tiles(duplicates, DROPPED)),
        Group(
            "dropped: uninformative",
            tiles([s for s, p in zip(stems, predictions, strict=True) if not p], UNINFORMATIVE_MARK),
        ),
    ]
    # Duplicates were only hashed: they are read where they were found.
    shown = [tile.patch.stem for group in groups for tile in group.tiles]
    spots = locate(
        shown, lambda dataset: patchdir / f"{dataset}{TABLE_SUFFIX}", read_rows, Notes(patchdir, TABLE_SUFFIX)
    )
    read = ReadOrCutAgain(read_patch, spots, destination.parent)
    draw_contact_sheet(destination, "what the pipeline made of the synthetic corpus", groups, read=read)


def run(outdir: Path) -> Report:
    """Run the demo in `outdir`; see the module's docstring."""
    report = Report(STAGE)
    make_output_directory(outdir)
    corpus, work = outdir / "corpus", outdir / "work"
    truthdir, labels_file = corpus / "truth", outdir / "patch_quality_labels.npy"
    inputs = ["--images", corpus / "images", "--volumes", corpus / "volumes", "--videos", corpus / "videos"]
    cutting = ["--crop-size", str(CROP_SIZE), "--spacing", str(SPACING)]
    learning = ["--init", "random", "--image-size", str(IMAGE_SIZE), "--batch-size", str(BATCH_SIZE)]
    learning += ["--epochs", str(EPOCHS), "-nz", str(NZ)]

    run_script("demo/make_corpus.py", corpus)
    run_script("preprocess/mrc2byte.py", corpus / "volumes", "-o", outdir / "unsigned_mrc")
    run_script("curate.py", *inputs, "--out", work, *cutting, "--until", "deduplicate")

    paths = list(PathList(work / "deduplicate" / "deduplicated_fpaths.npz"))
    parts = measure_informative_parts(paths, truthdir)
    labels = make_labels(parts, np.random.default_rng(SEED))
    save_labels_of(labels_file, labels, paths)
    print(f"\nlabelled {np.count_nonzero(labels != NONE)} of {len(labels)} exemplars from the known truth")

    run_script("curate.py", *inputs, "--out", work, *cutting, *learning, "--labels", labels_file)

    sets = outdir / "classification"
    run_script("demo/make_classification_sets.py", sets)
    run_trims(sets)

    exemplars = read_groups(work / "deduplicate")
    scores = read_npy(work / "classify_nn" / "nn_scores.npy")
    predictions = read_npy(work / "classify_nn" / "nn_predictions.npy")
    draw_outcome(outdir / "contact_sheet.png", paths, predictions, exemplars)
    report.note("\ncompared with the truth")
    report.note(compare_duplicates(exemplars, truthdir))
    report.notes += compare_classes(parts, scores, labels)
    report.note(f"look at {outdir / 'contact_sheet.png'} and at the pictures in {work}/*/")
    report.count("patches", len(exemplars))
    report.count("exemplars", len(paths))
    report.count("informative", int(np.count_nonzero(predictions)))
    report.count("subvolumes", len(list((work / "reconstruct3d").glob("*.npy"))))
    return report


def run_trims(sets: Path) -> None:
    """Trim the two small classification sets."""
    coco, siim = sets / "coco", sets / "siim"
    run_script(
        "data_prep/trim_coco.py",
        *("--train-annotations", coco / "annotations" / "instances_train2017.json"),
        *("--val-annotations", coco / "annotations" / "instances_val2017.json"),
        *("--train-images", coco / "train2017.zip", "--val-images", coco / "val2017"),
        *("--train-samples", "12", "--val-samples", "8", "-o", sets / "trimmed_coco"),
    )
    run_script("data_prep/trim_siim.py", "--metadata", siim / "train.csv", "-o", sets / "trimmed_siim")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = cli.make_parser(__doc__, "run.py")
    parser.add_argument("outdir", type=cli.output_directory, metavar="OUTDIR", help="directory for everything")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    return cli.run_stage(run, build_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
