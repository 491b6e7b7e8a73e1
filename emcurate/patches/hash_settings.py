"""With which settings a directory's patches were cut and hashed, so that others can be hashed alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emcurate.errors import InputError
from emcurate.files import list_files
from emcurate.patches.hashing import HASHES
from emcurate.patches.tables import CROP_SIZE_KEY, HASH_KIND_KEY, HASH_SIZE_KEY, TABLE_SUFFIX, read_metadata
from emcurate.running.ledger_file import LedgerFile, ledger_path

# The published settings, which patches are taken to have of which nothing is known.
CROP_SIZE, HASH_SIZE = 224, 8


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
    table = next(iter(list_files(patchdir, [TABLE_SUFFIX])), None)
    if table is not None:
        said = {name.decode(): value.decode() for name, value in read_metadata(table).items() if name in _KEYS}
        found = {name: said[key.decode()] for name, key in zip(_NAMES, _KEYS, strict=True) if key.decode() in said}
    else:
        header = LedgerFile(ledger_path(patchdir, "crop_patches")).header
        noted = (header.parameters or {}) if header is not None else {}
        found = {name: str(noted[name]) for name in _NAMES if name in noted}
    crop_size, hash_size, kind = (found.get(name, str(usual)) for name, usual in zip(_NAMES, _USUAL, strict=True))
    if not (crop_size.isdigit() and hash_size.isdigit() and kind in HASHES):
        where = table or patchdir
        raise InputError(where, "how its patches were hashed", f"{found}", "run raw/crop_patches.py again")
    return HashSettings(int(crop_size), int(hash_size), kind)


_NAMES, _KEYS = ("crop_size", "hash_size", "hash"), (CROP_SIZE_KEY, HASH_SIZE_KEY, HASH_KIND_KEY)
_USUAL = (CROP_SIZE, HASH_SIZE, HASHES[0])
