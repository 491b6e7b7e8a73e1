"""The datasheet that programs read: MLCommons Croissant 1.0 (https://docs.mlcommons.org/croissant), as JSON-LD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from emcurate.licences import OF_ALL
from emcurate.outputs import hash_file
from emcurate.patches.exports.plan import EXPORTED
from emcurate.patches.parquet import open_parquet
from emcurate.reporting.facts import Facts

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

# What this project adds to the vocabulary: one term, whose value is JSON.
OWN_TERM, OWN_IRI = "emcurate", "urn:emcurate:provenance"

# The context that Croissant 1.0 gives, and the term above.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet"),
            *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
            "transform",
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    OWN_TERM: {"@id": OWN_IRI, "@type": "@json"},
}

PARQUET = "application/x-parquet"

# What each column of a table of patches means.
MEANINGS = {
    "patch": "name of the patch, which says where its pixels came from",
    "dataset": "the volume, image or group of images that it was cut from",
    "kind": "2d, volume or video",
    "plane": "plane of the section it was cut from: 0 xy, 1 xz, 2 yz",
    "index": "index of the section along the plane's axis",
    "y": "row of the top-left pixel in the section",
    "x": "column of the top-left pixel in the section",
    "height": "rows, in pixels",
    "width": "columns, in pixels",
    "pixel_size_y_nm": "size of a pixel along rows, in nanometres",
    "pixel_size_x_nm": "size of a pixel along columns, in nanometres",
    "step_nm": "distance of neighbouring sections, in nanometres",
    "source": "file or address that it came from",
    "source_fingerprint": "size and time of that file, or a digest",
    "lo": "value of the source that became 0",
    "hi": "value of the source that became 255",
    "shard": "tar that holds the patch",
    "offset": "where in the tar its bytes begin",
    "exemplar": "patch that stands for it and its near-duplicates",
    "distance": "bits by which their difference hashes differ",
    "score": "probability of being informative, as a classifier has it",
    "label": "what a person called it",
    "kept": "whether it was found informative",
    "outcome": "what the last step that has seen it made of it",
    "why": "the reason for that",
    "split": "split that it was exported in",
    "file": "file that holds the exported patch",
    "row": "place of the patch in that file",
    "weight": "weight by which to draw it for datasets to come up as they should",
}


@dataclass(frozen=True)
class Files:
    """Files of one kind that belong to the results: patterns relative to the datasheet, and their media type."""

    name: str
    includes: tuple[str, ...]
    encoding: str
    description: str


def make_croissant(facts: Facts, name: str, table: Path, sets: Sequence[Files]) -> bytes:
    """Return a datasheet as JSON.

    Parameters
    ----------
    facts : Facts
    name : str
        Of the dataset.
    table : Path
        The table of all patches, which lies where the datasheet will.
    sets : sequence of Files
        The other files there.
    """
    total = sum(each.patches for each in facts.datasets.values())
    exported = sum(each.outcomes.get(EXPORTED, 0) for each in facts.datasets.values())
    of_them = f"{exported:,} of " if exported else ""
    sheet: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": f"{of_them}{total:,} patches of {len(facts.datasets):,} electron-microscopy datasets, cut, "
        f"compared and chosen by emcurate's {facts.tool}; {table.name} says what became of each.",
        "conformsTo": CONFORMS_TO,
        "version": "1.0.0",
        "keywords": ["electron microscopy", "self-supervised pretraining"],
    }
    if facts.licences:
        sheet["license"] = [
            licence if dataset == OF_ALL else f"{dataset}: {licence}" for dataset, licence in facts.licences.items()
        ]
    sheet["distribution"] = [
        {
            "@type": "cr:FileObject",
            "@id": table.name,
            "name": table.name,
            "description": "a row for every patch",
            "contentUrl": table.name,
            "contentSize": f"{table.stat().st_size} B",
            "encodingFormat": PARQUET,
            "sha256": hash_file(table),
        },
        *map(_describe_files, sets),
    ]
    sheet["recordSet"] = [
        {
            "@type": "cr:RecordSet",
            "@id": "patches",
            "name": "patches",
            "description": "every patch, and what became of it",
            "key": {"@id": "patches/patch"},
            "field": list(_describe_fields(table)),
        }
    ]
    sheet[OWN_TERM] = msgspec.to_builtins(facts)
    return msgspec.json.format(msgspec.json.encode(sheet), indent=1) + b"\n"


def _describe_files(files: Files) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": files.name,
        "name": files.name,
        "description": files.description,
        "encodingFormat": files.encoding,
        "includes": list(files.includes),
    }


def _describe_fields(table: Path) -> Iterator[dict[str, Any]]:
    with open_parquet(table) as parquet:
        columns = list(parquet.schema_arrow)
    for column in columns:
        kind = _name_type(column.type)
        if kind is not None:
            yield {
                "@type": "cr:Field",
                "@id": f"patches/{column.name}",
                "name": column.name,
                "description": MEANINGS.get(column.name, column.name.replace("_", " ")),
                "dataType": kind,
                "source": {"fileObject": {"@id": table.name}, "extract": {"column": column.name}},
            }


def _name_type(kind: pa.DataType) -> str | None:
    """Return Croissant's name of a column's type; bytes have none that is a value."""
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:Text" if pa.types.is_string(kind) else None
