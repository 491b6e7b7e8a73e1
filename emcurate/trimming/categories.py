"""What a user means by a category: an id, a name, or a file that lists both."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from emcurate.errors import InputError
from emcurate.files import read_regular

MOST_SUGGESTIONS = 3
_ADVICE = "see --list-categories for ids and names"


def resolve_targets(texts: Iterable[str], categories: Mapping[int, str], source: Path) -> list[int]:
    """Return the ids that ids, names and files of ``name: id`` lines stand for, each once, in the order given.

    Parameters
    ----------
    texts : iterable of str
        Each an id, a name as the annotation file spells it, or the path of a file.
    categories : mapping of int to str
        The names of the known ids; if empty, ids are taken as they come.
    source : Path
        The file the categories were read from, for messages.

    Raises
    ------
    InputError
        If one is unknown, with the nearest known ones; or a file's name and id do not belong together.
    """
    ids_by_name = {name: number for number, name in categories.items()}
    targets: list[int] = []
    for text in texts:
        if text in ids_by_name:
            targets.append(ids_by_name[text])
        elif text.strip().isdecimal():
            targets.append(_known_id(int(text), categories, source))
        elif Path(text).is_file():
            targets += _read_list(Path(text), categories, source)
        else:
            found = f"{text!r}, which is no category{suggest(text, categories)} and no file"
            raise InputError(source, "a category id or name, or a file of 'name: id' lines", found, _ADVICE)
    return list(dict.fromkeys(targets))


def suggest(text: str, categories: Mapping[int, str]) -> str:
    """Return the categories whose names are most like a text, in words, or nothing."""
    names = {name.lower(): (number, name) for number, name in categories.items()}
    near = difflib.get_close_matches(text.lower(), names, n=MOST_SUGGESTIONS, cutoff=0.5)
    near += [name for name in names if text.lower() in name.split() and name not in near]
    shown = [f"{names[name][1]!r} ({names[name][0]})" for name in near[:MOST_SUGGESTIONS]]
    return f" (near: {', '.join(shown)})" if shown else ""


def _known_id(number: int, categories: Mapping[int, str], source: Path) -> int:
    if categories and number not in categories:
        nearest = sorted(sorted(categories, key=lambda known: (abs(known - number), known))[:MOST_SUGGESTIONS])
        shown = ", ".join(f"{known} {categories[known]!r}" for known in nearest)
        raise InputError(source, "ids of its categories", f"{number} (near: {shown})", _ADVICE)
    return number


def _read_list(path: Path, categories: Mapping[int, str], source: Path) -> list[int]:
    try:
        lines = read_regular(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(path, "a text file of 'name: id' lines", "bytes that are no UTF-8 text", _ADVICE) from None
    targets = []
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, colon, number = (part.strip() for part in line.rpartition(":"))
        if not colon or not name or not number.isdecimal():
            raise InputError(path, f"'name: id' in line {row}", repr(line), "correct the line")
        known = categories.get(_known_id(int(number), categories, path), name)
        if known != name:
            raise InputError(
                path,
                f"{number} to be {known!r} in line {row}, as in {source.name}",
                f"{name!r}{suggest(name, categories)}",
                "correct the line; the file may follow another of the three numberings (see --help)",
            )
        targets.append(int(number))
    if not targets:
        raise InputError(path, "at least one 'name: id' line", "none", "name categories")
    return targets
