"""Files of one name and several formats, such as ``cell.jpg`` beside ``cell.tif``: one of each is taken, or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from emcurate import naming
from emcurate.errors import InputError
from emcurate.files import is_directory
from emcurate.running.report import Report

# Extensions of one format, for `settle_doubles`.
SAME_EXTENSIONS = {
    **dict.fromkeys(("tif", "tiff"), ("tif", "tiff")),
    **dict.fromkeys(("jpg", "jpeg", "jpe"), ("jpg", "jpeg", "jpe")),
}


def settle_doubles(
    paths: Iterable[Path], prefer: str | None, report: Report, *, yielding: tuple[str, ...] = ()
) -> list[Path]:
    """Return the inputs but for files of one name and several formats, such as ``cell.jpg`` beside ``cell.tif``.

    Of those one is taken where `prefer`, an extension, chooses it, and the others are noted as not read; else all of
    them are reported in one line a folder. `yielding` are extensions, with their dots, of what programs record and
    others export: where an export lies beside, and `prefer` does not choose, that is taken.
    """
    paths = list(paths)
    alike: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        if not is_directory(path):
            alike[path.parent, naming.strip_extension(path.name)].append(path)
    settled: set[Path] = set()
    undecided: dict[Path, list[list[Path]]] = defaultdict(list)
    for (folder, _), files in alike.items():
        if len(files) == 1:
            continue
        settled |= set(files)
        taken = _choose(files, prefer)
        exports = [path for path in files if not path.name.lower().endswith(yielding)]
        if taken is None and yielding and 0 < len(exports) < len(files):
            for path in set(files) - set(exports):
                kind = _extension(path)
                report.leave_out(path, f"{exports[0].name} was exported of it", f"--prefer {kind} takes this one")
            if len(exports) == 1:
                settled.remove(exports[0])
                continue
            files = exports
        if taken is None:
            undecided[folder].append(files)
            continue
        settled.remove(taken)
        for path in files:
            if path != taken:
                report.leave_out(
                    path, f"a second file of the name of {taken.name}", f"--prefer {prefer} takes that one"
                )
    for folder, groups in undecided.items():
        kinds = sorted({_extension(path) for files in groups for path in files})
        many = f"{len(groups):,} names" if len(groups) > 1 else "one name"
        found = f"{many} with several, such as {' and '.join(path.name for path in groups[0])}"
        advice = f"take one of each with --prefer {' or --prefer '.join(kinds)}, or move the others away"
        report.fail(InputError(folder, "one file of a name", found, advice))
    return [path for path in paths if path not in settled]


def _choose(files: Sequence[Path], prefer: str | None) -> Path | None:
    """Return the file whose extension is preferred; one that is spelt otherwise if no other is spelt so."""
    for spellings in ((prefer,), SAME_EXTENSIONS.get(prefer or "", ())):
        fitting = [path for path in files if _extension(path) in spellings]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _extension(path: Path) -> str:
    return path.name[len(naming.strip_extension(path.name)) :].lower().lstrip(".")
