"""What came of inputs that are gone: named, and removed when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from emcurate import naming
from emcurate.errors import InputError
from emcurate.running.comparison import Comparison, remove_result, some
from emcurate.running.spelled_paths import is_gone, path_as_text


def settle_gone(run: Comparison, unnoted: Mapping[str, set[str]], remove: bool) -> set[str]:
    """Remove or name what came of inputs that are gone; return the datasets that only parts of are left of."""
    roots = roots_looked_through(run)
    candidates = [key for key, line in run.entries.items() if key not in run.sources and line.root in roots]
    datasets = {source.dataset for source in run.sources.values()}
    renamed = _find_renamed(run, candidates)
    gone = [
        key for key in candidates if key in renamed or _is_divided_otherwise(run, key, datasets) or _has_gone(run, key)
    ]
    # An input that failed, or of which nothing came, leaves nothing when it goes.
    traceless = [k for k in gone if not run.entries[k].made_anything and not run.own_leftovers(k, unnoted)]
    run.remove(traceless)
    gone = [key for key in gone if key in run.entries]
    if not gone:
        return set()
    if remove:
        remove_gone(run, gone, unnoted)
        return set()
    left = {source.dataset for source in run.sources.values()}
    lines = [run.entries[key] for key in gone]
    cut = Counter(line.dataset for line in lines if line.is_part and line.dataset in left)
    for dataset, count in cut.items():
        run.report.fail(
            InputError(
                run.directory,
                f"results of {dataset} as it now is",
                f"results of {count:,} parts of it that are gone from {run.root}",
                "use another output directory, or --overwrite to make them again (--prune only removes these)",
            )
        )
    for old, new in sorted({(run.entries[key].dataset, renamed[key]) for key in gone if key in renamed}):
        what = f"results under the name {old} are of what is now called {new}"
        run.report.warn(f"{run.directory}: {what}; they are still there, and --prune removes them")
    lost = [line.input for line in lines if line.dataset not in cut and line.input not in renamed]
    if lost:
        run.report.warn(
            f"{run.directory}: what {some(lost)} came of is gone from {run.root}; the results are still there, "
            "and --prune removes them"
        )
    return set(cut)


def remove_gone(run: Comparison, gone: Collection[str], unnoted: Mapping[str, set[str]]) -> None:
    """Remove all that came of inputs that are gone, also what an interrupted run left, and count them."""
    run.report.count("inputs gone, their results removed", len(gone))
    for name in (name for key in gone for name in run.own_leftovers(key, unnoted)):
        remove_result(run.directory, name.rstrip("/"))
    run.remove(gone)


def _has_gone(run: Comparison, key: str) -> bool:
    """Return whether an input is no longer there, or no longer named by the list that is the root."""
    if run.entries[key].dataset in run.unusable:
        return False
    source = run.entries[key].source
    return is_gone(source) if run.named is None else source not in run.named


def _find_renamed(run: Comparison, candidates: Iterable[str]) -> dict[str, str]:
    """Return the dataset's name by the keys of results whose input is here under another one.

    Those are of inputs in directories called ``slices`` and the like, which were once named after them.
    """
    old = [key for key in candidates if naming.tells_no_name(run.entries[key].dataset)]
    names = {path_as_text(source.path): source.dataset for source in run.sources.values()} if old else {}
    return {key: names[run.entries[key].source] for key in old if run.entries[key].source in names}


def _is_divided_otherwise(run: Comparison, key: str, datasets: Collection[str]) -> bool:
    """Return whether a part that this run does not have is of an input that it has, all of which is replaced."""
    line = run.entries[key]
    return run.overwrite and line.is_part and line.source == line.owner and line.dataset in datasets


def roots_looked_through(run: Comparison) -> set[str]:
    """Return the input directories of which this run has seen all inputs: its own, and what that was called before.

    An input of another directory was not looked for, and may well be there. A directory that is not there was
    moved to this run's if most of its inputs are found here as they were.
    """
    inputs: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for key, line in run.entries.items():
        inputs[line.root] += 1
        found[line.root] += key in run.sources and line.fingerprint == run.sources[key].fingerprint
    moved = {root for root in inputs if found[root] > inputs[root] / 2 and is_gone(root)}
    return {run.root, *moved}
