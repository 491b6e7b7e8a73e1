"""By which names a list's patches are known: names on disk, which stay the same wherever their directory is mounted."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

# A path of Windows, in which a backslash divides; elsewhere it is a letter like any other.
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")

# What stands before the name in a path, for the regular expressions of Arrow.
DIRECTORY = r"(?:(?:[A-Za-z]:[/\\]|\\\\)(?:.*[/\\])?|(?:.*/)?)"

HashArray = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.int64]


def patch_name(path: str) -> str:
    r"""Return a patch's name on disk: the last component of its path, or of the name of its shard's member.

    >>> patch_name("/mnt/a/x.tar/fly-LOC-2d_0_0.tiff"), patch_name(r"C:\patches\fly-LOC-2d_0_0.tiff")
    ('fly-LOC-2d_0_0.tiff', 'fly-LOC-2d_0_0.tiff')
    """
    return _normal(_slashed(path).rpartition("/")[2])


def tell_apart(paths: Iterable[str]) -> dict[str, str]:
    """Return names of paths that are told apart by them: the last component, or as many more as it takes.

    >>> tell_apart(["/p/a/1.png", "/p/b/1.png"])
    {'/p/a/1.png': 'a/1.png', '/p/b/1.png': 'b/1.png'}
    """
    parts = {path: _normal(_slashed(path)).split("/") for path in dict.fromkeys(paths)}
    longest = max(map(len, parts.values()), default=0)
    for count in range(1, longest + 1):
        names = {path: "/".join(components[-count:]) for path, components in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {path: path for path in parts}


def hash_names(names: Sequence[str]) -> HashArray:
    """Return the XXH3 of each name, (n,) uint64."""
    return np.fromiter(map(_hash, names), np.uint64, len(names))


class ListNames(Sequence[str]):
    """The names of a list's patches, in its order, and where in it a patch of some name is.

    A name is the last component of a path. Where several patches of a list have the same, as ``1.png`` in two
    directories, as many components as tell them apart belong to it: ``a/1.png``. A path that is listed twice is one
    patch in two places.

    Parameters
    ----------
    paths : sequence of n str
        The list.

    Attributes
    ----------
    hashes : (n,) uint64 array
        XXH3 of each name.
    digest : str
        What changes when a name or the order does, and does not when all is moved to another directory.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self.hashes: HashArray = np.fromiter((_hash(patch_name(path)) for path in paths), np.uint64, len(paths))
        self._longer: dict[int, str] = {}  # the names of those that share their last component
        self._sharing: dict[str, list[int]] = {}  # and where they are, by that component
        self._found: dict[tuple[str, str], list[int]] = {}
        self._lengthen(*_sort(self.hashes))
        self._order, self._sorted = _sort(self.hashes)
        self.digest = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(self.hashes, "<u8").data)

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self._longer.get(index) or patch_name(self._paths[index])

    def find(self, name: str, path: str = "") -> list[int]:
        """Return the places of a patch; none if it is not listed, or not to be told from others.

        Parameters
        ----------
        name : str
            What it was called in the list from which it is known; another list may need more or fewer components.
        path : str
            Where it lay then, if that is known, to choose among several of one name.
        """
        # The patches of a log are looked for again and again, and few beside those of the list.
        called = name, path
        if called not in self._found:
            self._found[called] = self._find(name, path)
        return self._found[called]

    def _find(self, name: str, path: str) -> list[int]:
        exact = self._find_exactly(name)
        if exact:
            return exact
        last = name.rpartition("/")[2]
        sharing = self._sharing.get(last, [])
        if "/" in name:
            candidates = sharing or self._find_exactly(last)
            return self._one_patch([i for i in candidates if _ends_with(self._paths[i], name)])
        if path and sharing:
            alike = [_common_components(self._paths[i], path) for i in sharing]
            return self._one_patch([i for i, count in zip(sharing, alike, strict=True) if count == max(alike)])
        return []

    def places_of(self, hashes: HashArray) -> IntArray:
        """Return where names of these hashes are, (m,) int64, the first place of each; -1 where nowhere."""
        if not len(self):
            return np.full(len(hashes), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self) - 1)
        return np.where(self._sorted[at] == hashes, self._order[at], -1)

    def _find_exactly(self, name: str) -> list[int]:
        value = np.uint64(_hash(name))
        start = int(np.searchsorted(self._sorted, value))
        stop = int(np.searchsorted(self._sorted, value, "right"))
        return [int(i) for i in self._order[start:stop] if self[int(i)] == name]

    def _one_patch(self, places: list[int]) -> list[int]:
        return places if len({self[i] for i in places}) == 1 else []

    def _lengthen(self, order: IntArray, ordered: HashArray) -> None:
        """Give longer names to different patches that have one name."""
        same = ordered[1:] == ordered[:-1]
        if not same.any():
            return
        shared = np.zeros(len(ordered), bool)
        shared[1:] |= same
        shared[:-1] |= same
        groups: dict[str, list[int]] = {}
        for index in order[shared].tolist():
            groups.setdefault(patch_name(self._paths[index]), []).append(index)
        for name, places in groups.items():
            told = tell_apart(self._paths[i] for i in places)
            if len(told) > 1:
                self._sharing[name] = places
                self._longer.update({i: told[self._paths[i]] for i in places})
        for index, name in self._longer.items():
            self.hashes[index] = _hash(name)


def _sort(hashes: HashArray) -> tuple[IntArray, HashArray]:
    order = np.argsort(hashes, kind="stable")
    return order, hashes[order]


def _slashed(path: str) -> str:
    return path.replace("\\", "/") if "\\" in path and _WINDOWS.match(path) else path


def _normal(name: str) -> str:
    # One and the same letter may be written in two ways, of which macOS prefers the one and all others the other.
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape"))


def _ends_with(path: str, name: str) -> bool:
    return f"/{_normal(_slashed(path))}".endswith(f"/{name}")


def _common_components(path: str, other: str) -> int:
    """Return how many components, from the last on, two paths have in common."""
    pairs = zip(reversed(_slashed(path).split("/")), reversed(_slashed(other).split("/")), strict=False)
    count = 0
    for mine, theirs in pairs:
        if mine != theirs:
            break
        count += 1
    return count
