"""Arrays of many axes as volumes: which of their axes are z, y and x, which level, channel and time is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emcurate.errors import InputError
from emcurate.volumes.formats.chunked import Chunks
from emcurate.volumes.formats.stores import Files
from emcurate.volumes.layouts import Shape, SizeNm, check_side_lengths, describe_shape
from emcurate.volumes.views import View, choose_level

SPACE = ("z", "y", "x")

# The names of axes that are chosen from, by the field of `View` that does.
CHOSEN = {"c": "channel", "channel": "channel", "t": "time", "time": "time"}

# Levels and the like that a message lists.
MOST_LISTED = 20


@dataclass(frozen=True)
class Axis:
    """An axis as the metadata describe it: its name in small letters, and the nanometres of its unit or None."""

    name: str
    unit_nm: float | None


@dataclass(frozen=True)
class ArrayHeader:
    """What an array's own metadata say; `names` are those of its axes, empty where it does not name them.

    `origin` is the index of its first voxel along each axis, empty for zeros; `scale` says which of several arrays in
    one directory it is, for formats that number them, and `directory` where the files of its chunks then lie.
    """

    driver: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    has_fill: bool
    names: tuple[str, ...]
    state: str
    origin: tuple[int, ...] = ()
    scale: int | None = None
    directory: str | None = None


@dataclass(frozen=True)
class ChosenAxes:
    """Which axes of an array are z, y and x, and what index is read of all axes, 0 for those three."""

    space: tuple[int, int, int]
    index: tuple[int, ...]

    def shape_of(self, shape: Sequence[int]) -> Shape:
        """Return the sides (z, y, x) of an array of this shape."""
        z, y, x = (shape[axis] for axis in self.space)
        return z, y, x


def choose_axes(place: Any, shape: Sequence[int], names: Sequence[str], view: View, advice: str) -> ChosenAxes:
    """Return which axes are z, y and x, and the index of each other one, which must be chosen unless there is one.

    Raises
    ------
    InputError
        If an axis has no name, there are no z, y and x, or something is to be chosen that was not or is not there.
    """
    if len(names) != len(shape) or len(set(names)) != len(names):
        found = f"axes {', '.join(names)} of an array of {describe_shape(tuple(shape))}"
        raise InputError(place, "a name for each axis", found, advice)
    if missing := [name for name in SPACE if name not in names]:
        found = f"axes {', '.join(names)}, without {' and '.join(missing)}"
        raise InputError(place, "a volume with axes z, y and x", found, "save it as a 2D image for cleanup2d.py")
    index = [0] * len(shape)
    for axis, (name, side) in enumerate(zip(names, shape, strict=True)):
        if name in SPACE:
            continue
        field = CHOSEN.get(name)
        chosen = None if field is None else getattr(view, field)
        index[axis] = pick(place, name, side, field, chosen)
    for field in ("channel", "time"):
        chosen, known = getattr(view, field), any(CHOSEN.get(name) == field for name in names)
        if not known:
            pick(place, field, 1, field, chosen)
    z, y, x = (list(names).index(name) for name in SPACE)
    return ChosenAxes((z, y, x), tuple(index))


def pick(place: Any, name: str, count: int, field: str | None, chosen: int | None) -> int:
    """Return which of several channels, times or the like is read.

    Parameters
    ----------
    name : str
        Of the axis, for messages.
    field : {'channel', 'time'} or None
        Which flag chooses; None if none does.
    chosen : int or None

    Raises
    ------
    InputError
        If there are several and none was chosen, or there is none of that number.
    """
    if chosen is None:
        if count == 1:
            return 0
        advice = f"choose one with --{field} 0 to {count - 1}" if field else "save each as a volume"
        raise InputError(place, "one channel and one time", f"{count} along axis {name}", advice)
    if not 0 <= chosen < count:
        found = f"{count}, numbered from 0" if count > 1 else "one only"
        raise InputError(place, f"a {field} {chosen}", found, f"choose another --{field}, or leave it out")
    return chosen


def pick_level(place: Any, view: View, sizes: Sequence[SizeNm | None], names: Sequence[str] = ()) -> int:
    """Return which of several resolutions is read; raise `InputError` if there is none of that number.

    Parameters
    ----------
    sizes : sequence of (z, y, x) or None
        The voxel size of each level in nm.
    names : sequence of str
        What the levels are called.
    """
    if view.level is None:
        found = None if view.pixel_size_nm is None else choose_level(sizes, view.pixel_size_nm)
        return found or 0
    if view.level >= len(sizes):
        listed = [
            f"{number}{f' ({name})' if name else ''}{f': {z:g} × {y:g} × {x:g} nm' if size else ''}"
            for number, (name, size) in enumerate(zip([*names, *[""] * len(sizes)], sizes, strict=False))
            for z, y, x in [size or (0, 0, 0)]
        ]
        more = f" and {len(sizes) - MOST_LISTED} more" if len(sizes) > MOST_LISTED else ""
        found_levels = f"{len(sizes)} ({', '.join(listed[:MOST_LISTED])}{more})"
        raise InputError(place, f"a level {view.level}", found_levels, "choose another --level, or leave it out")
    return view.level


def refuse_choices(place: Any, view: View) -> None:
    """Raise `InputError` if something is chosen of a volume that has one level, channel and time."""
    if view.level:
        raise InputError(place, f"a level {view.level}", "one resolution only", "leave --level out for it")
    for field in ("channel", "time"):
        pick(place, field, 1, field, getattr(view, field))


def refuse_several(place: Any, what: str, names: Sequence[str], describe: Callable[[str], str] = str) -> InputError:
    """Return the error of a store in which there are several volumes and none was named."""
    listed = ", ".join(map(describe, names[:MOST_LISTED]))
    more = f" and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else ""
    advice = f"name one, such as {str(place).rstrip('/')}::/{names[0]}"
    return InputError(place, what, f"{len(names)}: {listed}{more}", advice)


def take_volume(files: Files, key: str, header: ArrayHeader, axes: Sequence[Axis], view: View, advice: str) -> Chunks:
    """Return an array's voxels, its axes of space in the order z, y, x, of all others one index."""
    place = files.store.place
    chosen = choose_axes(place, header.shape, [axis.name for axis in axes], view, advice)
    check_side_lengths(place, chosen.shape_of(header.shape))
    chunks = Chunks(
        files.store,
        key,
        header.driver,
        header.shape,
        chosen.space,
        header.dtype,
        header.has_fill,
        # What a server says of its files too, so that no chunk is kept beyond them.
        state=f"{header.state} {files.digest()}" if files.store.is_remote else header.state,
        index=chosen.index,
        origin=header.origin,
        scale=header.scale,
        directory=header.directory,
    )
    return chunks.check_readable()
