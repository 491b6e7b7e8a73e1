"""What stages have made, by digests that do not depend on where it lies, so that two runs can be compared."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from emcurate.contents import read_npy
from emcurate.files import read_regular
from emcurate.outputs import Output, digest_bytes
from emcurate.patches.columns import as_numbers, as_scalar
from emcurate.patches.names import bytes_of
from emcurate.patches.parquet import open_parquet
from emcurate.running.ledger_file import LedgerFile, ledger_path
from emcurate.running.ledger_lines import read_outputs

# In place of the directory of the results, in whatever holds paths.
HERE = b"<OUT>"

# Where a patch's source lay, and when it was written, is not part of what was made of it.
LEFT_OUT_COLUMNS = ("source", "source_fingerprint")

TEXTS = (".csv", ".json", ".jsonl", ".md", ".txt", ".html")

# Which training weights came of: a digest of paths and times of patches too.
TRAINING = re.compile(rb'"training": "[0-9a-f]{64}",?')

# Of path lists and lists of exemplars; what only dask reads is left out, since it holds the length of the longest path.
PATHS, INFO = ("_exemplars.npy", ".npz/"), "/info"


class Made(msgspec.Struct, frozen=True):
    """What came of one dataset in one stage: files, and a digest of all their names and contents.

    `size` is the bytes of those that hold no paths, whose length is that of the directory's name too.
    """

    files: int
    size: int
    digest: str


def read_ledgers_of(stages: Mapping[str, Path]) -> dict[str, LedgerFile]:
    """Return what each stage has noted in the directory of its results."""
    return {stage: LedgerFile(ledger_path(directory, stage)) for stage, directory in stages.items()}


def digest_results(out: Path, ledgers: Mapping[str, LedgerFile]) -> dict[str, dict[str, Made]]:
    """Return what each stage has made of each dataset.

    Parameters
    ----------
    out : Path
        The directory of all results.
    ledgers : mapping of str to LedgerFile
        What each stage has noted.
    """
    made: dict[str, dict[str, Made]] = {}
    for stage, ledger in ledgers.items():
        outputs: dict[str, list[Output]] = defaultdict(list)
        for line in ledger.entries.values():
            outputs[line.dataset].extend(output for output in read_outputs(line) if not output.name.endswith(INFO))
        found = {dataset: _sum_up(ledger.directory, some, out) for dataset, some in sorted(outputs.items()) if some}
        if found:
            made[stage] = found
    return made


def _sum_up(directory: Path, outputs: list[Output], out: Path) -> Made:
    lines = sorted(f"{output.name}\0{digest_output(directory, output, out)}\n" for output in outputs)
    digest = digest_bytes("".join(lines).encode("utf-8", "surrogateescape"))
    size = sum(output.size for output in outputs if not _holds_paths(output.name))
    return Made(len(outputs), size, digest)


def digest_output(directory: Path, output: Output, out: Path) -> str:
    """Return what changes when a result does, wherever it lies: its digest as noted, unless it holds paths."""
    if not _holds_paths(output.name):
        return output.digest
    path, name = directory / output.name, output.name.lower()
    if name.endswith(".npy"):
        digest = xxhash.xxh3_128()
        strings = read_npy(path)
        for text in strings.tolist():
            digest.update(_without_place(os.fsencode(text), out) + b"\n")
        return digest.hexdigest()
    if name.endswith(".parquet"):
        return digest_table(path)
    data = read_regular(path)
    if name.endswith(".csv"):
        # Whether a path stands in quotes depends on what directories are called.
        rows = csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""))
        data = "\n".join(map("\0".join, rows)).encode("utf-8", "surrogateescape")
    return digest_bytes(TRAINING.sub(b"", _without_place(data, out)))


def _holds_paths(name: str) -> bool:
    """Return whether a result holds, or may hold, paths of other results."""
    lowered = name.lower()
    return lowered.endswith((*TEXTS, ".parquet")) or (lowered.endswith(".npy") and any(part in name for part in PATHS))


def _without_place(data: bytes, out: Path) -> bytes:
    return data.replace(os.fsencode(out), HERE)


def digest_table(path: Path) -> str:
    """Return what changes when a value of a Parquet file does, however its rows are grouped and packed."""
    digests: dict[str, list[xxhash.xxh3_128]] = {}
    with open_parquet(path) as parquet:
        schema = parquet.schema_arrow
        for batch in parquet.iter_batches(use_threads=False):
            for name, column in zip(schema.names, batch.columns, strict=True):
                if name in LEFT_OUT_COLUMNS:
                    continue
                parts = list(_bytes_of_column(column))
                known = digests.setdefault(name, [xxhash.xxh3_128() for _ in parts])
                for digest, part in zip(known, parts, strict=True):
                    digest.update(part)
    said = {key: value for key, value in (schema.metadata or {}).items() if not key.startswith(b"ARROW:")}
    lines = [f"{name} {schema.field(name).type}" for name in digests]
    lines += [digest.hexdigest() for parts in digests.values() for digest in parts]
    return digest_bytes("\n".join([*lines, repr(sorted(said.items()))]).encode())


def _bytes_of_column(column: pa.Array) -> Iterator[bytes | memoryview]:
    """Yield which values of a column are there, and these, in pieces that go on from one batch to the next."""
    # Without nulls, as nearly always, half of the steps are none: with thousands of small tables each of them counts.
    all_there = column.null_count == 0
    yield b"\1" * len(column) if all_there else as_numbers(column.is_valid()).tobytes()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        kind = pa.large_string() if pa.types.is_string(column.type) else pa.large_binary()
        texts = column.cast(kind)
        texts = texts if all_there else pc.coalesce(texts, as_scalar("").cast(kind))
        yield as_numbers(pc.binary_length(texts)).tobytes()
        yield bytes_of(texts)
    else:
        yield as_numbers(column if all_there else pc.coalesce(column, as_scalar(0, column.type))).tobytes()
