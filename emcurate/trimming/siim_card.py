"""What the console and the dataset card of a trimmed SIIM-ISIC set say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from emcurate.markdown import make_table
from emcurate.trimming.dataset_card import make_card, make_count_table, name_size
from emcurate.trimming.siim import CLASS_COLUMN, CLASSES
from emcurate.trimming.table import Table

# What the metadata of SIIM-ISIC 2020 alone have together.
_ISIC_ID = re.compile(r"ISIC_\d{7}")
_COLUMNS_OF_2020 = frozenset({"image_name", "patient_id", "diagnosis", "benign_malignant", "target"})

# Where the archive states each image's own licence.
LICENCE_COLUMN = "copyright_license"

_LICENCE_OF_2020 = (
    "Creative Commons Attribution-NonCommercial 4.0 International, for images and metadata: the ISIC 2020 Challenge",
    "Dataset, https://doi.org/10.34970/2020-ds01, © ISDIS, 2020. Its providers are Hospital Clínic de Barcelona,",
    "Medical University of Vienna, Memorial Sloan Kettering Cancer Center, Melanoma Institute Australia, The",
    "University of Queensland, and the University of Athens Medical School. Please cite Rotemberg et al., A",
    "patient-centric dataset of images and metadata for identifying melanomas using clinical context, Scientific",
    "Data 8, 34 (2021).",
)


def count_parts(
    table: Table, parts: Mapping[str, Sequence[int]], patients: Sequence[str] | None
) -> list[tuple[str, list[int], int | None]]:
    """Return of each part, such as a split, its name, its rows of each class, and its patients if they are known."""
    classes = table.column(CLASS_COLUMN)
    counted = []
    for name, rows in parts.items():
        present = Counter(classes[row] for row in rows)
        people = None if patients is None else len({patients[row] for row in rows})
        counted.append((name, [present[kind] for kind in CLASSES], people))
    return counted


def describe_parts(table: Table, counted: Sequence[tuple[str, list[int], int | None]]) -> list[str]:
    """Return a line for each part with its counts, and one with how many rows of each class there are."""
    available = Counter(table.column(CLASS_COLUMN))
    lines = [
        f"{table.path}: {len(table.fields):,} rows, "
        + ", ".join(f"{name or 'empty'} {number:,}" for name, number in available.most_common())
    ]
    for name, numbers, people in counted:
        kinds = ", ".join(f"{kind} {number:,}" for kind, number in zip(CLASSES, numbers, strict=True))
        of = "" if people is None else f", {people:,} patients"
        lines.append(f"{name}: {sum(numbers):,} rows, {kinds}{of}")
    return lines


def make_siim_card(
    stage: str,
    table: Table,
    fingerprint: str,
    settings: Mapping[str, Any],
    names: Sequence[str],
    rows: Sequence[int],
    counted: Sequence[tuple[str, list[int], int | None]],
) -> bytes:
    """Return the card.

    Parameters
    ----------
    stage : str
    table : Table
        The metadata.
    fingerprint : str
        Of the metadata file.
    settings : mapping
        What the rows were chosen with.
    names : sequence of str
        The images' ids.
    rows : sequence of int
        The rows chosen.
    counted : sequence
        What `count_parts` returned of them, and of each split.
    """
    is_2020 = set(table.header) >= _COLUMNS_OF_2020 and all(_ISIC_ID.fullmatch(names[row]) for row in rows)
    files = [{"split": "train", "path": "metadata_small.csv"}]
    if "split" in settings:
        files = [{"split": part, "path": f"metadata_{part}.csv"} for part in ("train", "test")]
    about: dict[str, object] = {
        "license": "cc-by-nc-4.0" if is_2020 else "unknown",
        "task_categories": ["image-classification"],
        "tags": ["medical", "dermatology", "trimmed"],
        "size_categories": [name_size(len(rows))],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    if LICENCE_COLUMN in table.header:
        stated = table.column(LICENCE_COLUMN)
        counts = Counter(stated[row] or "not stated" for row in rows)
        licence = ["As the metadata state it:", ""]
        licence += make_count_table("licence", counts)
        about["license"] = "other"
    elif is_2020:
        licence = list(_LICENCE_OF_2020)
    else:
        licence = ["Not known: ids and columns are not those of SIIM-ISIC 2020."]
    shown = {key: f"{value[0]}:{value[1]}" if isinstance(value, tuple) else value for key, value in settings.items()}
    sections = {
        "Source": make_table(["metadata", "XXH3, 128 bits"], [[table.path.name, fingerprint]]),
        "How it was drawn": [
            "Rows are sorted by class, and of each class a range of that order is taken, its text unchanged.",
            "",
            *make_table(["parameter", "value"], [[key, str(value)] for key, value in shown.items()]),
        ],
        "What is in it": make_table(
            ["part", *CLASSES, "patients"],
            [[name, *numbers, "not known" if people is None else people] for name, numbers, people in counted],
        ),
        "Licence": licence,
    }
    title = "SIIM-ISIC 2020, trimmed" if is_2020 else "Trimmed metadata in SIIM-ISIC's format"
    return make_card(stage, title, about, sections)
