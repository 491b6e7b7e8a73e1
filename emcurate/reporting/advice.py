"""What the user of a run may do next, by how far it has come."""

from __future__ import annotations

import shlex
from pathlib import Path

from emcurate.patches.joined import CUT, EXEMPLAR, SELECTED, UNINFORMATIVE
from emcurate.reporting.summary import Summary

# The share of patches left with the classifier between a quarter and three quarters sure from which more labels help.
DOUBTFUL_SHARE = 0.1


def advise(summary: Summary, exemplars: Path, kept: Path, selected: Path, *, has_failed: bool) -> list[str]:
    """Return what to do next, the most pressing first.

    Parameters
    ----------
    summary : Summary
    exemplars, kept, selected : Path
        The path lists of the exemplars, of the informative patches and of those selected, where they are or will be.
    has_failed : bool
        Whether anything failed.
    """
    outcomes = summary.outcomes
    steps = []
    if has_failed:
        steps.append("Mend or take away the inputs named above, and run the same command again: only they are done.")
    if outcomes[CUT]:
        steps.append("Run deduplicate.py, or curate.py without --until: not all patches have been compared yet.")
    unknown = [name for name, dataset in summary.datasets.items() if not dataset.pixel_sizes_nm]
    if unknown:
        some = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else "")
        steps.append(f"The pixel size of {some} is unknown: give it, if it counts, with --voxel-size or the like.")
    judged = summary.informative + outcomes[UNINFORMATIVE]
    if outcomes[EXEMPLAR] and not judged:
        steps.append(
            f"Label some hundreds of exemplars in labeling.ipynb (FPATHS = {str(exemplars)!r}), then run the same "
            "command with --labels patch_quality_labels.npy; or, without labels, with --filter measures."
        )
    scores = summary.scores
    quarter = len(scores) // 4
    if scores.sum() and scores[quarter:-quarter].sum() > DOUBTFUL_SHARE * scores.sum():
        doubtful = int(scores[quarter:-quarter].sum())
        steps.append(f"The classifier is unsure of {doubtful:,} patches: label some of them, and train again.")
    if summary.informative or outcomes[SELECTED]:
        listed = selected if outcomes[SELECTED] else kept
        words = shlex.join(["python", "data_prep/export.py", str(listed), "set", "--format", "webdataset"])
        steps.append(f"Look at what was kept and left out below; then hand the set over: {words}")
    return steps
