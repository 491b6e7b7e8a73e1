"""Tables in the making: what jobs have found of a dataset so far, so that a run that was killed goes on from there.

Each job leaves the rows of its sections in a part, a small table in ``PATCHDIR/.emcurate/crop_patches.parts/``, that
says what each section was when it was cut. When all are there they become the dataset's table, and are removed.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from emcurate.errors import InputError
from emcurate.files import list_entries
from emcurate.outputs import Output, digest_bytes, is_intact
from emcurate.partials import remove_stale_partials
from emcurate.patches.cuts import Cut, read_cuts, write_cuts
from emcurate.patches.tables import COLUMNS, OWN_COLUMNS, read_metadata, read_row_groups
from emcurate.running.ledger_file import LEDGER_DIRECTORY

PARTS_DIRECTORY = f"{LEDGER_DIRECTORY}/crop_patches.parts"

# In a part's metadata: the state of each section whose rows it has; and the state of the job that wrote a shard, with
# the shard as it was written.
SECTIONS_KEY, SHARD_KEY = b"emcurate.sections", b"emcurate.shard"

NAME_LETTERS = 16  # of a digest, in a part's name


class TableParts:
    """The parts of the tables of some datasets.

    Parameters
    ----------
    patchdir : Path
    states : mapping of str to str
        By the names of sections: what changes when a section's rows do.
    unfinished : collection of str
        The datasets of which there may be parts, of this run or of others; any other parts are removed.
    """

    def __init__(self, patchdir: Path, states: Mapping[str, str], unfinished: Collection[str]) -> None:
        self._patchdir, self._states = patchdir, states
        self._directory = patchdir / PARTS_DIRECTORY
        self._present: dict[str, list[Path]] = defaultdict(list)
        if not self._directory.is_dir():
            return
        remove_stale_partials(self._directory)
        families = {_digest(dataset) for dataset in unfinished}
        for path in list_entries(self._directory):
            family = path.name.partition("-")[0]
            if family in families and _is_whole(path):
                self._present[family].append(path)
            else:
                path.unlink()
        self._remove_directory()

    def keep(self, dataset: str, cuts: Iterable[Cut], settings: Mapping[str, Any]) -> None:
        """Leave rows of sections that are not cut again, before their dataset's table counts for nothing."""
        cuts = sorted(cuts, key=lambda cut: cut.section.stem)
        if cuts:
            stems = [cut.section.stem for cut in cuts]
            metadata = make_metadata({stem: self._states[stem] for stem in stems})
            # Where they come from is filled in when the table is written.
            write_cuts(self.reserve(dataset, stems, rows_of=stems), cuts, None, settings, metadata)

    def reserve(self, dataset: str, stems: Sequence[str], shard: str = "", rows_of: Collection[str] = ()) -> Path:
        """Return where a job on some sections of a dataset leaves its part.

        That of a job which lost its shard, and only writes that again, is not where the rows are that it left.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        family = _digest(dataset)
        job = f"{stems[0]} {stems[-1]} {len(stems)} {shard} {_digest(' '.join(sorted(rows_of)))}"
        path = self._directory / f"{family}-{_digest(job)}.parquet"
        if path not in self._present[family]:
            self._present[family].append(path)
        return path

    def held(self, dataset: str) -> set[str]:
        """Return the sections of a dataset whose rows are there."""
        found: set[str] = set()
        for path in self._paths(dataset):
            found |= self._current(read_metadata(path))
        return found

    def shards(self, dataset: str) -> dict[str, Output]:
        """Return the shards that jobs have completed, and that are still as they were written, by the job's state."""
        written = (_shard_of(read_metadata(path)) for path in self._paths(dataset))
        return {shard[0]: shard[1] for shard in written if shard and is_intact(self._patchdir, shard[1])}

    def gather(self, dataset: str, shards: Collection[str] = ()) -> tuple[dict[str, Cut], dict[str, Cut]]:
        """Return, by section, the rows of a dataset, and the patches that lie in the shards of these states."""
        rows: dict[str, Cut] = {}
        stored: dict[str, Cut] = {}
        for path in self._paths(dataset):
            cuts, metadata = read_cuts(path)
            shard = _shard_of(metadata)
            if shard is not None and shard[0] in shards:
                stored.update(cuts)
            current = self._current(metadata)
            rows.update((stem, cut) for stem, cut in cuts.items() if stem in current)
        return rows, stored

    def _paths(self, dataset: str) -> list[Path]:
        """Return the parts of a dataset that are there; of those reserved, some may not have been written."""
        return [path for path in self._present[_digest(dataset)] if path.exists()]

    def _current(self, metadata: Mapping[bytes, bytes]) -> set[str]:
        """Return the sections that a part holds the rows of as they now are."""
        try:
            states = msgspec.json.decode(metadata.get(SECTIONS_KEY, b"{}"), type=dict[str, str])
        except msgspec.DecodeError:
            return set()
        return {stem for stem, state in states.items() if self._states.get(stem) == state}

    def close(self, dataset: str) -> None:
        """Remove the parts of a dataset."""
        for path in self._present.pop(_digest(dataset), []):
            path.unlink(missing_ok=True)
        self._remove_directory()

    def _remove_directory(self) -> None:
        if not any(self._present.values()):
            with contextlib.suppress(OSError):
                self._directory.rmdir()


def make_metadata(states: Mapping[str, str], shard: tuple[str, Output] | None = None) -> dict[bytes, bytes]:
    """Return what a part has in its metadata: the states of its sections; the job that wrote a shard, and the shard."""
    metadata = {SECTIONS_KEY: msgspec.json.encode(dict(states))}
    if shard is not None:
        metadata[SHARD_KEY] = msgspec.json.encode(shard)
    return metadata


def _shard_of(metadata: Mapping[bytes, bytes]) -> tuple[str, Output] | None:
    with contextlib.suppress(msgspec.DecodeError, KeyError):
        return msgspec.json.decode(metadata[SHARD_KEY], type=tuple[str, Output])
    return None


def _is_whole(part: Path) -> bool:
    """Return whether a part can be read to its end, after whatever happened to it since a run that was killed."""
    try:
        return all(
            group.schema.field(name).type == COLUMNS[name]
            for group in read_row_groups(part, OWN_COLUMNS)
            for name in OWN_COLUMNS
        )
    except InputError:
        return False


def _digest(text: str) -> str:
    return digest_bytes(text.encode("utf-8", "surrogateescape"))[:NAME_LETTERS]
