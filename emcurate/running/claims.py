"""Names that inputs claim: each must be one the -LOC- grammar allows, and claimed by nobody else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from emcurate import naming
from emcurate.errors import InputError
from emcurate.running.report import Report


def refuse_bad_names(claims: Mapping[Path, Sequence[tuple[str, Path]]], report: Report) -> list[Path]:
    """Return the inputs whose names can be used and are theirs alone; report the others, each with its rivals.

    Parameters
    ----------
    claims : mapping of Path to (name, owner) pairs
        For each input the names it would take, and for whom: an input claims for itself, or, with others, for the
        group directory they lie in. A name may have one owner.
    """
    owners: dict[str, set[Path]] = defaultdict(set)
    for claimed in claims.values():
        for name, owner in claimed:
            owners[name].add(owner)
    good = []
    for path, claimed in claims.items():
        rivals = sorted({rival for name, owner in claimed for rival in owners[name] - {owner}})
        try:
            for name, _ in claimed:
                naming.check_dataset_name(name)
        except naming.GrammarError:
            report.fail(InputError(path, f"a name without {naming.MARK!r}", "one that holds it", "rename it"))
            continue
        if rivals:
            others = ", ".join(map(str, rivals))
            report.fail(InputError(path, "a name of its own", f"{others} of the same name", "rename one"))
        else:
            good.append(path)
    return good
