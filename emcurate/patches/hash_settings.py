"""With which settings a directory's patches were cut and hashed, so that others can be hashed alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emcurate import naming
from emcurate.errors import InputError
from emcurate.files import list_files
from emcurate.patches.hashing import HASHES, WAVELET_HASH, compute_hash, read_hash
from emcurate.patches.tables import CROP_SIZE_KEY, HASH_KIND_KEY, HASH_SIZE_KEY, TABLE_SUFFIX, read_metadata
from emcurate.running.ledger_file import LedgerFile, ledger_path

# The published settings.
CROP_SIZE, HASH_SIZE = 224, 8

# Patches that are looked at where nobody noted how they were cut.
LOOKED_AT = 1000

_CUT_AGAIN = "run raw/crop_patches.py again"


@dataclass(frozen=True)
class HashSettings:
    """The sides of a patch in pixels and of a hash in bits, and which of imagehash's hashes it is."""

    crop_size: int = CROP_SIZE
    hash_size: int = HASH_SIZE
    kind: str = HASHES[0]

    def __str__(self) -> str:
        return f"--crop-size {self.crop_size} --hash-size {self.hash_size} --hash {self.kind}"


def read_settings(patchdir: Path) -> HashSettings:
    """Return what the patches in a directory were cut and hashed with, as its tables or its ledger say.

    Raises
    ------
    InputError
        If they say nothing that can be.
    """
    if tables := list_files(patchdir, [TABLE_SUFFIX]):
        metadata = _read_first(tables)
        found = {
            name: metadata[key].decode(errors="replace")
            for name, key in zip(_NAMES, _KEYS, strict=True)
            if key in metadata
        }
    else:
        header = LedgerFile(ledger_path(patchdir, "crop_patches")).header
        noted = (header.parameters or {}) if header is not None else {}
        if not noted:
            return infer_settings(patchdir)
        found = {name: str(noted[name]) for name in _NAMES if name in noted}
    crop_size, hash_size, kind = (found.get(name, str(usual)) for name, usual in zip(_NAMES, _USUAL, strict=True))
    if not (crop_size.isdigit() and hash_size.isdigit() and kind in HASHES):
        raise InputError(tables[0] if tables else patchdir, "how its patches were hashed", f"{found}", _CUT_AGAIN)
    return HashSettings(int(crop_size), int(hash_size), kind)


def _read_first(tables: Sequence[Path]) -> dict[bytes, bytes]:
    """Return the metadata of the first table that is not damaged; raises `InputError` if all are."""
    first: InputError | None = None
    for table in tables:
        try:
            return read_metadata(table)
        except InputError as error:  # reading its hashes reports it
            first = first or error
    assert first is not None
    raise first


def infer_settings(patchdir: Path) -> HashSettings:
    """Return what patches were cut and hashed with of which nobody noted it: as they and their hashes look.

    The largest side of some of them is taken for that of a full patch.

    Raises
    ------
    InputError
        If there are none, or no hash of the first is the one beside it.
    """
    from emcurate.patches.reading import read_patch, read_patch_size  # here, since hardly any run needs it

    hashes = (path for path in list_files(patchdir, [".npy"]) if naming.MARK in path.name)
    pairs = [(path, path.with_suffix(".tiff")) for path in itertools.islice(hashes, LOOKED_AT)]
    if not pairs:
        raise InputError(patchdir, "patches with their hashes, or a table of them", "none", _CUT_AGAIN)
    side = max(max(read_patch_size(patch)) for _, patch in pairs)
    stored, patch = read_hash(pairs[0][0]), read_patch(pairs[0][1])
    for kind in HASHES:
        # That of wavelets has sides that are powers of 2.
        is_possible = kind != WAVELET_HASH or not len(stored) & (len(stored) - 1)
        if is_possible and np.array_equal(compute_hash(patch, side, len(stored), kind), stored):
            return HashSettings(side, len(stored), kind)
    raise InputError(pairs[0][0], f"a hash of its patch, one of {', '.join(HASHES)}", "another", _CUT_AGAIN)


_NAMES, _KEYS = ("crop_size", "hash_size", "hash"), (CROP_SIZE_KEY, HASH_SIZE_KEY, HASH_KIND_KEY)
_USUAL = (CROP_SIZE, HASH_SIZE, HASHES[0])
