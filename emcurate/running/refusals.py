"""What a run refuses rather than mix it with what is there: other parameters, other inputs, names that are taken."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from emcurate import naming
from emcurate.errors import InputError
from emcurate.running.comparison import Comparison, some
from emcurate.running.gone import remove_gone, roots_looked_through
from emcurate.running.ledger_file import LedgerFile, ledger_paths
from emcurate.running.ledger_lines import Line
from emcurate.running.spelled_paths import has_left, is_gone, is_same_place, path_as_text, path_of_text, resolve_place

# Reasons of waiting inputs that a message shows.
WHYS_SHOWN = 3

ADVICE = "use another output directory, or --overwrite to make them again"


def refuse_other_roots(run: Comparison) -> None:
    """Raise `InputError` if there are results of another input directory where there may be one only."""
    other = {line.root for line in run.entries.values()} - roots_looked_through(run)
    if not other:
        return
    if not run.overwrite:
        found, advice = (
            f"those of {some(sorted(other))}",
            "use another output directory, or --overwrite to replace them",
        )
        if any(Path(path_of_text(each)).name == Path(path_of_text(run.root)).name for each in other):
            # Their lists name patches where these lay.
            advice += ", which makes them anew where they are now, if all of it was moved or copied"
        raise InputError(run.directory, f"results of {run.root}", found, advice)
    made = sum(line.made_anything for line in run.entries.values() if line.root in other)
    if made:
        run.report.warn(
            f"{run.directory}: results of {made:,} inputs in {some(sorted(other))} are removed, since it holds "
            "those of one input directory only"
        )
    run.remove([key for key, line in run.entries.items() if line.root in other])


def refuse_other_parameters(run: Comparison, unnoted: Mapping[str, set[str]], allowed: bool) -> None:
    """Raise `InputError` if there is any result of other parameters; an input that only failed has left none."""
    for key, line in run.entries.items():
        if line.made_with != run.made_with and (line.made_anything or run.own_leftovers(key, unnoted)):
            if not allowed:
                old, new = run.spell_change(line)
                raise InputError(run.directory, f"results made with {new}", f"results made with {old}", ADVICE)
            return


def refuse_taken_names(run: Comparison, unnoted: Mapping[str, set[str]]) -> set[str]:
    """Report the datasets whose name belongs to somebody else, and return them.

    With `overwrite` an input of another directory gives its name up when it has left that, and its results are removed.
    """
    holders: dict[str, list[Line]] = defaultdict(list)
    for line in [*run.entries.values(), *_entries_of_others(run.file.path, run.header.product)]:
        if line.made_anything:
            holders[naming.fold(line.dataset)].append(line)
    refused: set[str] = set()
    settled: set[str] = set()
    given_up: set[str] = set()
    for source in run.sources.values():
        if source.dataset in refused or source.dataset in settled:
            continue
        owner = source.owner or source.path
        others = [
            line
            for line in holders[naming.fold(source.dataset)]
            if line.dataset != source.dataset or not is_same_place(line.owner, owner)
        ]
        rivals = [line for line in others if not _is_same(run, line)]
        rival = next((line for line in rivals if not _gives_up(run, line)), None)
        if rival is None:
            settled.add(source.dataset)
            given_up |= {line.input for line in rivals}
            continue
        gone = " (which is gone: --prune on its stage removes them)" if is_gone(rival.source) else ""
        run.report.fail(
            InputError(
                source.path,
                f"a dataset name of its own in {run.directory}",
                f"results of {rival.source}{gone} under the name {rival.dataset}",
                "rename one, or use another output directory",
            )
        )
        refused.add(source.dataset)
    if given_up:
        remove_gone(run, sorted(given_up), unnoted)
    return refused


def _gives_up(run: Comparison, line: Line) -> bool:
    """Return whether a line tells of an input that is gone, whose results are this stage's own and may be removed."""
    return run.overwrite and run.entries.get(line.input) is line and has_left(line.source)


def _is_same(run: Comparison, line: Line) -> bool:
    """Return whether an input of this run is the one that a line tells of, moved or copied: it is as that was.

    What has an owner that is no place on the disk is the directory's own, wherever that lies and whatever has changed.
    """
    source = run.sources.get(line.input)
    if source is None or run.entries.get(line.input) is not line or source.dataset != line.dataset:
        return False
    is_own = isinstance(source.owner, Path) and not source.owner.is_absolute()
    return is_own or source.fingerprint == line.fingerprint


def refuse_changed(run: Comparison, reasons: Mapping[str, str], waiting: Mapping[str, str]) -> None:
    """Report the inputs of one dataset whose results are those of something else, each with how that differs.

    `waiting` are its other inputs that are not worked on therefore, with why they were to be.
    """
    first = run.sources[next(iter(reasons))]
    path = first.path if len(reasons) == 1 else first.owner or first.path
    more = f" ({len(reasons):,} inputs)" if len(reasons) > 1 else ""
    if waiting:
        whys = "; ".join(f"{number:,} {why}" for why, number in Counter(waiting.values()).most_common(WHYS_SHOWN))
        more += f", for which other parts of {first.dataset} wait: {whys}"
    run.report.fail(
        InputError(
            path,
            f"the input that its results in {run.directory} were made of",
            f"another: {'; '.join(sorted(set(reasons.values())))}{more}",
            ADVICE,
        )
    )


def remove_others_parameters(run: Comparison, todo: Mapping[str, str]) -> None:
    """Remove all results of other parameters that this run does not replace, and say whose they were.

    Those of an input that this run works on under another key, such as a name that tells the format, are replaced too.
    """
    others = [key for key, line in run.entries.items() if line.made_with != run.made_with and key not in todo]
    made = [run.entries[key] for key in others if run.entries[key].made_anything]
    if made:
        redone = {resolve_place(path_as_text(run.sources[key].path)) for key in todo}
        made = [line for line in made if resolve_place(line.source) not in redone]
    if made:
        roots = some(sorted({line.root for line in made}))
        run.report.warn(
            f"{run.directory}: results of {len(made):,} other inputs, from {roots}, were made with other "
            "parameters and are removed; run the stage on them again"
        )
    run.remove(others)


def _entries_of_others(path: Path, product: str) -> Iterator[Line]:
    """Yield the inputs of other stages that make the same in the directory of a ledger."""
    for other in ledger_paths(path.parent.parent):
        if other != path:
            ledger = LedgerFile(other)
            if ledger.header is not None and ledger.header.product == product:
                yield from ledger.entries.values()
