"""Labelled patches: read into memory, and divided into those trained on and those held back for validation."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.classifier.batches import BatchJobs, read_batch
from emcurate.classifier.recipe import Recipe
from emcurate.errors import InputError
from emcurate.patches.label_files import LabelFiles, note_list
from emcurate.patches.label_log import LabelLog
from emcurate.patches.label_reading import read_labels
from emcurate.patches.labels import CODE_INFORMATIVE, CODE_NONE, CODE_UNINFORMATIVE, CODE_UNSURE, is_decided
from emcurate.patches.list_names import ListNames
from emcurate.patches.pathlists import PathList
from emcurate.patches.reading import fingerprint_patch
from emcurate.patches.splits import hold_back
from emcurate.running.jobs import Workers
from emcurate.running.report import Report

READ_AT_ONCE = 64

# With fewer validation patches of a class, one patch more or less changes the AUC visibly.
FEW_FOR_VALIDATION = 10

CodeArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledPatches:
    """Patches in memory: files, pixels (n, size, size) uint8, which are informative, which validate."""

    paths: list[str]
    pixels: npt.NDArray[np.uint8]
    truth: BoolArray
    held: BoolArray


def take_labels(labels: Path, paths: PathList, report: Report) -> CodeArray:
    """Return the label of each patch of a list, as codes; ``unsure``, which decides nothing, counts as none.

    Labels belong to patches, not to places: those made for another list are matched by the patches' names, and the
    report says so. Of labels without a log only the list they were first used with is known; no other is accepted.

    Raises
    ------
    InputError
        If the labels are damaged, or made for another list and nothing tells which patches they are of, or none of them
        is of a patch in this list.
    """
    files, names = LabelFiles(labels), ListNames(paths)
    reading = read_labels(files, names, LabelLog(files.log))
    for sentence in reading.describe():
        report.warn(f"{labels}: {sentence}")
    if not reading.is_same_list and reading.absent and not is_decided(reading.codes).any():
        raise InputError(
            labels,
            "labels of patches of this list",
            f"labels of {reading.absent:,} patches, none of them listed",
            "use the list they were made for, or label patches of this one",
        )
    if reading.corrections and reading.history.acts:
        given = len(reading.corrections)
        report.note(f"{labels}: {given:,} labels that are in the file and not in its log count as typed in by hand")
    if not reading.is_verified and reading.in_file is not None:
        report.note(
            f"{labels}: no log tells of which patches these labels are; taken to be in the order of the list, whose "
            f"digest is kept in {files.state.name}"
        )
        with contextlib.suppress(OSError):  # where nobody may write, they are checked by their number only
            note_list(files, names, reading.in_file)
    codes = reading.codes
    codes[codes == CODE_UNSURE] = CODE_NONE
    return codes


def check_enough(codes: CodeArray, labels: Path) -> None:
    """Raise `InputError` unless each class has two patches, one to learn from and one to judge by."""
    informative, uninformative = (int((codes == c).sum()) for c in (CODE_INFORMATIVE, CODE_UNINFORMATIVE))
    if min(informative, uninformative) < 2:
        found = f"{informative:,} and {uninformative:,} among {len(codes):,} patches that can be read"
        raise InputError(
            labels,
            "at least 2 patches labelled informative and 2 labelled uninformative",
            found if informative or uninformative else f"{len(codes):,} labels, all none or unsure",
            "label more with labeling.ipynb; some hundred of each are a good start",
        )


def digest_labels(paths: PathList, codes: CodeArray) -> str:
    """Return what changes when a label or a labelled patch does."""
    digest = hashlib.sha256()
    for position in np.flatnonzero(is_decided(codes)):
        path = paths[int(position)]
        try:
            state = fingerprint_patch(path)
        except OSError:
            state = "missing"
        # Its name, not its path: what was moved is the same.
        name = path.replace("\\", "/").rpartition("/")[2]
        digest.update(f"{name}\0{codes[position]}\0{state}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_labelled(
    paths: PathList, codes: CodeArray, recipe: Recipe, labels: Path, report: Report, workers: Workers
) -> LabelledPatches:
    """Read the labelled patches and choose those that validate; what cannot be read is reported and left out."""
    jobs = BatchJobs(paths, np.flatnonzero(is_decided(codes)), READ_AT_ONCE, recipe.image_size)
    batches = [batch for _, batch in workers.run(read_batch, jobs, report, unit="batch")]
    batches.sort(key=lambda batch: int(batch.positions[0]) if len(batch.positions) else -1)
    for error in (error for batch in batches for error in batch.errors):
        report.fail(error)
    positions = np.concatenate([batch.positions for batch in batches])
    check_enough(codes[positions], labels)
    truth = codes[positions] == CODE_INFORMATIVE
    read = [paths[int(i)] for i in positions]
    if recipe.split == "random":
        held = split_random(truth, recipe.validation, recipe.seed)
    else:
        held = hold_back_datasets(read, truth, recipe, labels)
    return LabelledPatches(read, np.concatenate([batch.pixels for batch in batches]), truth, held)


def hold_back_datasets(paths: list[str], truth: BoolArray, recipe: Recipe, labels: Path) -> BoolArray:
    """Return which patches validate when datasets stay whole."""
    datasets = []
    for path in paths:
        try:
            datasets.append(naming.parse_patch(Path(path).stem).dataset)
        except naming.GrammarError as error:
            raise InputError(path, "a patch whose name tells its dataset", str(error), "use --split random") from None
    try:
        return split_by_dataset(truth, datasets, recipe.validation, recipe.seed)
    except ValueError:
        raise InputError(
            labels,
            "labels of both classes in two or more datasets, for --split dataset",
            f"{len(set(datasets))} datasets of which no part has both classes and leaves both",
            "label patches of more datasets, or use --split random",
        ) from None


def split_random(truth: BoolArray, part: float, seed: int) -> BoolArray:
    """Return which patches to hold back: that part of each class, at least one, leaving at least one.

    Raises
    ------
    ValueError
        If a class has fewer than two patches.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(truth), bool)
    for value in (False, True):
        members = rng.permutation(np.flatnonzero(truth == value))
        if len(members) < 2:
            raise ValueError("each class needs at least two patches")
        held[members[: min(max(1, round(part * len(members))), len(members) - 1)]] = True
    return held


def split_by_dataset(truth: BoolArray, datasets: Sequence[str], part: float, seed: int) -> BoolArray:
    """Return which patches to hold back: whole datasets, so that no near-identical neighbours are on both sides.

    See `emcurate.patches.splits.hold_back`.

    Raises
    ------
    ValueError
        If no choice leaves both classes on both sides.
    """
    names, place = np.unique(np.array(datasets), return_inverse=True)
    sizes = np.stack([np.bincount(place[truth == value], minlength=len(names)) for value in (False, True)], axis=1)
    held = hold_back(sizes, part, seed)
    if held is None:
        raise ValueError("no choice of datasets leaves both classes on both sides")
    return np.isin(place, held)


def warn_of_few(patches: LabelledPatches, labels: Path, report: Report) -> None:
    """Warn when too few patches validate for their AUC to say much."""
    judged = patches.truth[patches.held]
    informative, uninformative = int(judged.sum()), int((~judged).sum())
    if min(informative, uninformative) < FEW_FOR_VALIDATION:
        report.warn(
            f"{labels}: only {informative} informative and {uninformative} uninformative patches validate; "
            "accuracy and AUC say little until more are labelled"
        )
