"""The rules of the SIIM-ISIC set: which rows are taken, how they are divided, and which file is an image's."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from emcurate.contents import csv_bytes
from emcurate.errors import InputError
from emcurate.running.report import Report
from emcurate.trimming.table import Table

CLASS_COLUMN = "benign_malignant"
PATIENT_COLUMN = "patient_id"
ID_COLUMNS = ("image_name", "isic_id", "file_name")  # Kaggle's, the archive's, the imagefolder loader's
CLASSES = ("benign", "malignant")

# Of one image's several files the first is taken: what the published set holds.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".dcm")

# A random split of so many rows of one patient puts nearly the same skin on both sides.
MANY_ROWS = 10
SEED = 42

REPORT_COLUMNS = ("class", "available", "taken", "patients", "rows_per_patient", "most_rows_of_a_patient")

# Cells that pandas reads as missing by default; it sorts such rows last and apart from the others.
MISSING = frozenset({"", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None"}) | frozenset(
    {"#NA", "#N/A", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}
)


def order_rows(classes: Sequence[str], order: str = "published") -> list[int]:
    """Return the rows' numbers sorted by class, rows without a class last.

    ``published`` sorts with numpy's quicksort of an object array, of which equals come out in an order of its own;
    that of pandas' ``sort_values`` as long as columns of text were object arrays.
    """
    known = [row for row, name in enumerate(classes) if name not in MISSING]
    values = np.array([classes[row] for row in known], dtype=object)
    positions = values.argsort(kind="quicksort" if order == "published" else "stable")
    return [known[i] for i in positions] + [row for row, name in enumerate(classes) if name in MISSING]


def take_rows(table: Table, cuts: Mapping[str, tuple[int, int]], order: str) -> dict[str, list[int]]:
    """Return the rows of each class between the two positions of its cut.

    Raises
    ------
    InputError
        If a class has fewer rows, or is spelled differently; with the counts there are.
    """
    classes = table.column(CLASS_COLUMN)
    counts = Counter(classes)
    present = ", ".join(f"{name or 'empty'} {number:,}" for name, number in counts.most_common()) or "no rows"
    misspelled = [name for name in counts if name not in CLASSES and name.strip().lower() in CLASSES]
    if misspelled:
        raise InputError(table.path, "classes spelled benign and malignant", present, "correct the spelling")
    ordered = order_rows(classes, order)
    taken = {}
    for name, (start, stop) in cuts.items():
        rows = [row for row in ordered if classes[row] == name]
        if len(rows) < stop:
            raise InputError(
                table.path,
                f"at least {stop:,} {name} rows for --{name} {start}:{stop}",
                f"{len(rows):,} ({present})",
                f"use the full metadata file, or give --{name} a smaller range",
            )
        taken[name] = rows[start:stop]
    return taken


def keep_one_per_patient(taken: Mapping[str, list[int]], patients: Sequence[str]) -> dict[str, list[int]]:
    """Return of each patient the first row only, a malignant one before a benign one, since those are rare."""
    seen: set[str] = set()
    kept: dict[str, list[int]] = {}
    for name in reversed(CLASSES):
        kept[name] = []
        for row in taken[name]:
            if patients[row] not in seen:
                seen.add(patients[row])
                kept[name].append(row)
    return {name: kept[name] for name in CLASSES}


def split_rows(
    taken: Mapping[str, list[int]], owners: Sequence[str], share: float, seed: int = SEED
) -> tuple[list[int], list[int]]:
    """Divide rows so that about `share` of them is for training and no owner has rows on both sides.

    Owners with a malignant row and owners without are divided separately, so that both sides get their part of each.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for rows in taken.values():
        for row in rows:
            rows_of[owners[row]].append(row)
    malignant = {owners[row] for row in taken[CLASSES[1]]}
    random = np.random.default_rng(seed)
    training: set[int] = set()
    for group in (sorted(malignant), sorted(rows_of.keys() - malignant)):
        goal = share * sum(len(rows_of[owner]) for owner in group)
        filled = 0
        for i in random.permutation(len(group)):
            rows = rows_of[group[i]]
            if abs(filled + len(rows) - goal) <= abs(filled - goal):
                filled += len(rows)
                training.update(rows)
    chosen = [row for rows in taken.values() for row in rows]
    return [row for row in chosen if row in training], [row for row in chosen if row not in training]


def find_image_owners(names: Sequence[str], chosen: Sequence[int]) -> list[str]:
    """Return each row's owner where images are kept together: the first chosen row of its image, else itself.

    Owners are rows and not names, so that a set in which no image occurs twice is divided as it ever was.
    """
    owners = [str(row) for row in range(len(names))]
    first: dict[str, int] = {}
    for row in chosen:
        if names[row] not in MISSING:
            owners[row] = str(first.setdefault(image_stem(names[row]), row))
    return owners


def make_report(classes: Sequence[str], taken: Mapping[str, list[int]], patients: Sequence[str] | None) -> bytes:
    """Return trim_report.csv: rows and patients of each class; the patients' columns are empty if nobody knows them."""
    rows: list[list[object]] = []
    available = Counter(classes)
    for name, chosen in taken.items():
        about: list[object] = ["", "", ""]
        if patients is not None:
            counts = Counter(patients[row] for row in chosen)
            about = [len(counts), f"{len(chosen) / max(1, len(counts)):.2f}", max(counts.values(), default=0)]
        rows.append([name, available[name], len(chosen), *about])
    return csv_bytes(REPORT_COLUMNS, rows)


def find_images(directory: Path, apart_from: Path) -> dict[str, list[Path]]:
    """Return the images below a directory by name without extension; `apart_from` holds those of an earlier run."""
    found: dict[str, list[Path]] = defaultdict(list)
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if Path(parent, name) != apart_from)
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                found[path.stem].append(path)
    return found


def image_stem(name: str) -> str:
    """Return the name without extension of the file that an image id or file name stands for."""
    file = PurePosixPath(name)
    return file.stem if file.suffix.lower() in IMAGE_SUFFIXES else file.name


def choose_image(name: str, found: Mapping[str, list[Path]]) -> Path | None:
    """Return the file of an image id or file name, by the preference of `IMAGE_SUFFIXES`; None if there is none.

    Raises
    ------
    InputError
        If two files of the same kind claim to be it.
    """
    stem = image_stem(name)
    for suffix in IMAGE_SUFFIXES:
        paths = [path for path in found.get(stem, []) if path.suffix.lower() == suffix]
        if len(paths) > 1:
            others = ", ".join(str(path) for path in paths)
            raise InputError(
                name, f"one {suffix} file of that name", others, "name the directory that holds the right one"
            )
        if paths:
            return paths[0]
    return None


def find_id_column(table: Table) -> str:
    """Return the name of the column that names the images."""
    for name in ID_COLUMNS:
        if name in table.header:
            return name
    raise InputError(
        table.path,
        f"a column {', '.join(ID_COLUMNS[:-1])} or {ID_COLUMNS[-1]}",
        f"the columns {', '.join(table.header)}",
        "name the metadata file itself",
    )


def find_patients(table: Table, needed: bool, report: Report) -> list[str] | None:
    """Return each row's patient; one without is a patient of its own. None if there is no such column and no need."""
    if not needed and PATIENT_COLUMN not in table.header:
        report.warn(f"{table.path}: no column {PATIENT_COLUMN}; whether patients repeat is not known")
        return None
    patients = table.column(PATIENT_COLUMN)
    unknown = sum(name in MISSING for name in patients)
    if unknown:
        report.warn(f"{table.path}: {unknown:,} rows without a {PATIENT_COLUMN}; each counts as a patient of its own")
    return [f"row {row}, no patient" if name in MISSING else name for row, name in enumerate(patients)]


def warn_of_formulas(table: Table, rows: Sequence[int], report: Report) -> None:
    """Warn of cells that a spreadsheet would run: the rows are copied as they stand, so they are not made harmless."""
    cells = table.find_formulas(rows)
    if cells:
        report.warn(
            f"{table.path}: {len(cells):,} cells that a spreadsheet would run as formulas, such as {cells[0]!r}; they "
            "are copied as they stand: open the csv files as text, or import their columns as text"
        )


def warn_of_repeats(
    path: Path, names: Sequence[str], patients: Sequence[str] | None, split: float | None, report: Report
) -> None:
    """Warn of images that occur twice and of patients with many rows."""
    repeated = len(names) - len(set(names))
    if repeated:
        report.warn(f"{path}: {repeated:,} of the rows chosen name an image that another one names too")
    counts = Counter(patients or [])
    many = sum(number > MANY_ROWS for number in counts.values())
    if many and split is None:
        name, most = counts.most_common(1)[0]
        report.warn(
            f"{path}: {many:,} patients have more than {MANY_ROWS} of the rows chosen ({name} has {most:,}); split by "
            "patient (--split 0.8 --by patient), or take one row of each (--one-per-patient)"
        )
