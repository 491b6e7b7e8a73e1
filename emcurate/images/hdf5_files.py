"""Open an HDF5 file that may be damaged, or made to do harm: links to other files are never followed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emcurate.errors import DAMAGE, InputError, describe_damage
from emcurate.files import check_regular

# Decoded chunks that HDF5 keeps while a box is read.
CACHE_BYTES = 1 << 26


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open a file for reading; what is wrong with it is raised as `InputError`."""
    import h5py

    check_regular(path)
    try:
        with h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES, locking=False) as file:
            yield file
    except DAMAGE as error:
        raise describe_damage(error, path, "an HDF5 file of a volume", "copy it again") from None


def is_hard(group: Any, name: str) -> bool:
    """Return whether a name in a group is that of an object in the file itself."""
    import h5py

    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def step_to(path: Path, file: Any, name: str) -> Any:
    """Return an object in a file, to which no link of a name leads."""
    found = file
    for step in name.split("/"):
        if not hasattr(found, "keys") or step not in found.keys():  # noqa: SIM118 - `in` would follow links
            raise InputError(path, f"a dataset {name} in it", f"no {step}", "list what it holds with h5ls -r")
        if not is_hard(found, step):
            raise InputError(
                path, f"{name} in the file itself", f"{step}, a link", "copy what it leads to in its place"
            )
        found = found[step]
    return found
