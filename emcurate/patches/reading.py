"""Read a patch by its path, be it a file of its own or a member of a shard, ``…/name.tar/patch.tiff``."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from emcurate import naming
from emcurate.errors import InputError
from emcurate.files import is_there
from emcurate.images.resampling import Resampled
from emcurate.images.sections import HEAD_BYTES, decode_section, find_own_shape, find_shape, read_section, read_size
from emcurate.patches.shards import find_member, split_member
from emcurate.patches.tables import TABLE_SUFFIX, read_metadata, read_resampled

# Listed patches that are looked at before a stage begins: enough to tell, few enough to take no time.
LOOKED_AT = 1000


def read_patch(path: str | Path) -> npt.NDArray[np.uint8]:
    """Read a patch: (height, width) uint8.

    Raises
    ------
    InputError
        If it is missing or no complete 2D uint8 TIFF, or its shard is missing or damaged.
    """
    member = find_member(os.fspath(path))
    return read_section(Path(path)) if member is None else decode_section(Path(path), member.read())


def read_patch_size(path: str | Path) -> tuple[int, int]:
    """Return the height and width of a patch in pixels; only its header is read. Raises as `read_patch`."""
    member = find_member(os.fspath(path))
    if member is None:
        return read_size(Path(path))
    start, size = member.read_start(HEAD_BYTES)
    return find_shape(bytes(start), size) or read_size(Path(path), member.read())


def find_patch_shape(path: str | Path) -> tuple[int, int] | None:
    """Return the height and width of a complete patch of ours, known from its head; None of any other file.

    Raises `InputError` if there is none, and OSError as the system does.
    """
    member = find_member(os.fspath(path))
    if member is None:
        return find_own_shape(path)
    start, size = member.read_start(HEAD_BYTES)
    return find_shape(bytes(start), size)


def patch_exists(path: str | Path) -> bool:
    """Return whether a patch is there: a file, or a complete member of a shard."""
    try:
        member = find_member(os.fspath(path))
    except InputError:
        return False
    return is_there(path) if member is None else member.exists()


def spell_reroot(old: str, new: str) -> str:
    """Return the flag that says which leading directory was replaced by which."""
    return f"--reroot {shlex.join((old, new))}"


def refuse_moved(paths: Sequence[str], fpaths: Path, how: Callable[[str, str], str] = spell_reroot) -> None:
    """Raise `InputError` if most of the listed patches are not where the list says; of many, some are looked at.

    Parameters
    ----------
    paths : sequence of str
    fpaths : Path
        The list, which the error names.
    how : callable
        Gives how to say which leading directory was replaced by which; by default, to a script.
    """
    step = max(1, -(-len(paths) // LOOKED_AT))
    looked_at = [paths[i] for i in range(0, len(paths), step)]
    missing = [path for path in looked_at if not patch_exists(path)]
    if len(missing) <= len(looked_at) / 2:
        return
    more = f", nor {len(missing) - 1:,} others" if len(missing) > 1 else ""
    found = f"no such file as {missing[0]}{more} of {len(looked_at):,} looked at"
    roots = guess_roots(missing[0], fpaths)
    flag = how(*roots) if roots else how("OLD", "NEW")
    raise InputError(fpaths, "patches where the list says", found, f"if they were moved, say so with {flag}")


def guess_roots(path: str, near: Path) -> tuple[str, str] | None:
    """Return which leading directory of a patch's path was replaced by which, if it is found near its list.

    Patches and lists lie below one directory mostly, and are moved together.
    """
    steps = Path(path).parts
    for new in near.absolute().parents:
        for at in range(1, len(steps)):
            if patch_exists(new.joinpath(*steps[at:])):
                return str(Path(*steps[:at])), str(new)
    return None


def stat_patch(path: str) -> os.stat_result:
    """Return what the system says of a patch's file, or of the shard that holds it: that changes when the patch does.

    Raises
    ------
    OSError
        If neither is there. Whether a shard has the patch is not looked at.
    """
    place = split_member(path)
    if place is not None:
        found = os.stat(place[0])  # noqa: PTH116  (a Path for each of millions would take longer than the call)
        if not stat.S_ISDIR(found.st_mode):
            return found
    return os.stat(path)  # noqa: PTH116


def read_resampling(path: str) -> Resampled | None:
    """Return how the sections of a patch's dataset were resampled, as its table says; None where there is no table.

    Raises
    ------
    InputError
        If the table is none.
    """
    place = split_member(path)
    directory = Path(place[0] if place is not None else path).parent
    table = directory / f"{naming.parse_patch(Path(path).stem).dataset}{TABLE_SUFFIX}"
    return read_resampled(table, read_metadata(table)) if table.is_file() else None


def fingerprint_patch(path: str | Path) -> str:
    """Return what changes when a patch does, as `emcurate.files.fingerprint`; raises as `stat_patch`."""
    found = stat_patch(os.fspath(path))
    return f"{found.st_size} bytes, {found.st_mtime_ns}"
