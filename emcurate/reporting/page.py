"""The report of a whole run: one HTML file that holds all it shows, and opens without network."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from emcurate import __version__
from emcurate.errors import InputError
from emcurate.files import open_regular
from emcurate.patches.joined import (
    CUT,
    DUPLICATE,
    EXEMPLAR,
    INFORMATIVE,
    PASSED_OVER,
    SELECTED,
    UNINFORMATIVE,
    UNREADABLE,
)
from emcurate.patches.leaks import name_bands
from emcurate.reporting.charts import Bar, Node, draw_bars, draw_flow
from emcurate.reporting.summary import GREY_BARS, SCORE_BARS, SOURCES_KEPT, Dataset, Summary
from emcurate.reporting.thumbnails import Thumbnails, encode_sheet
from emcurate.writing import atomic_path

REPORT_NAME = "report.html"
GENERATOR = b'<meta name="generator" content="emcurate'
TEMPLATE = "report.html.jinja"
HEAD_BYTES = 1000  # in which a page says whose it is

# Datasets with pictures, the largest ones, and with a line in the table; the table of all patches has every one.
CARDS = 40
LINES = 400

# Pictures in a card, of patches kept and of patches left out.
SHOWN_KEPT, SHOWN_LEFT = 6, 3

# Warnings and failures shown; the rest is counted.
MESSAGES = 40

KIND_NAMES = {"2d": "2D images", "volume": "volumes", "video": "videos", "": "other"}

# What the page calls the colours of what became of patches.
TONES = {
    SELECTED: "kept",
    INFORMATIVE: "kept",
    EXEMPLAR: "kept",
    PASSED_OVER: "pale",
    UNINFORMATIVE: "left",
    DUPLICATE: "pale",
    UNREADABLE: "bad",
    CUT: "pale",
}

OUTCOME_NAMES = {
    SELECTED: "selected",
    INFORMATIVE: "informative",
    EXEMPLAR: "exemplars, not judged",
    PASSED_OVER: "passed over",
    UNINFORMATIVE: "uninformative",
    DUPLICATE: "duplicates",
    UNREADABLE: "unreadable",
    CUT: "not compared yet",
}


# What became of patches that are nobody's duplicates.
LEFT_OF_DUPLICATES = (EXEMPLAR, INFORMATIVE, UNINFORMATIVE, UNREADABLE, SELECTED, PASSED_OVER)


@dataclass(frozen=True)
class StageRun:
    """What one stage did in this run: its command line, seconds, counts in words, and what it warned of."""

    stage: str
    command: str
    seconds: float
    counts: str
    warnings: tuple[str, ...] = ()


@dataclass
class ReportedRun:
    """What the report tells of the run itself.

    Attributes
    ----------
    out : Path
        Where its results are.
    command : str
        The command line.
    stages : list of StageRun
    failures : list of str
    sheets : dict of str to Path
        Pictures that stages have drawn, by their titles.
    lists : list of Path
        Path lists that say where patches are.
    next_steps : list of str
        What the user may do now.
    state : str
        What changes when there is something new to tell; the page keeps it.
    """

    out: Path
    command: str
    stages: list[StageRun] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    sheets: dict[str, Path] = field(default_factory=dict)
    lists: list[Path] = field(default_factory=list)
    next_steps: list[str] = field(default_factory=list)
    state: str = ""


def write_page(run: ReportedRun, summary: Summary, threshold: float | None = None) -> Path:
    """Write `report.html` into the run's directory, in the place of one that was written before.

    Raises
    ------
    InputError
        If a file of that name is there that is no report of this project.
    """
    path = run.out / REPORT_NAME
    if os.path.lexists(path) and not is_report(path):
        expected = "no file of this name, or a report that was written here before"
        raise InputError(path, expected, "another file, which was left", "rename it to get the report")
    text = render(run, summary, threshold)
    with atomic_path(path) as partial:
        # Of paths in it bytes may be no text.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def is_report(path: Path, state: str = "") -> bool:
    """Return whether a file is a report that this project has written, of a certain state if one is given."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
    except (OSError, InputError):
        return False
    return GENERATOR in head and f'content="{state}"'.encode() in head if state else GENERATOR in head


def render(run: ReportedRun, summary: Summary, threshold: float | None = None) -> str:
    """Return the page as HTML. What is read from data files is text in it, never markup."""
    largest = sorted(summary.datasets.values(), key=lambda dataset: (-dataset.patches, dataset.name))
    samples = {dataset.name: _choose_samples(dataset) for dataset in largest[:CARDS]}
    by_score = {
        "Surest to be informative": summary.highest,
        "Surest to be uninformative": summary.lowest,
        "Least certain": summary.doubtful,
    }
    wanted = [name for kept, left in samples.values() for name in [*kept, *left]]
    wanted += [name for ranked in by_score.values() for name, _ in ranked]
    wanted += [name for name, _ in summary.groups]
    thumbnails = Thumbnails(run.lists, wanted)
    outcomes = summary.outcomes
    page: str = _template().render(
        version=__version__,
        python=platform.python_version(),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        run=run,
        name=run.out.resolve().name,
        numbers=_key_numbers(summary),
        outcomes=[(OUTCOME_NAMES[key], outcomes[key], TONES[key]) for key in OUTCOME_NAMES if outcomes[key]],
        flow=_draw_outcomes(summary),
        failures=run.failures[:MESSAGES],
        failures_left=max(0, len(run.failures) - MESSAGES),
        warnings=_first_messages(run.stages),
        datasets=[_line(dataset) for dataset in largest[:LINES]],
        datasets_left=max(0, len(largest) - LINES),
        cards=[
            {
                **_line(dataset),
                "kept": _pictures(thumbnails, samples[dataset.name][0]),
                "left": _pictures(thumbnails, samples[dataset.name][1]),
            }
            for dataset in largest[:CARDS]
        ],
        sources_most=SOURCES_KEPT,
        cards_left=max(0, len(largest) - CARDS),
        groups=[(name, size, thumbnails.picture(name)) for name, size in summary.groups],
        leak_bands=name_bands(),
        leaks=summary.list_leaks()[:LINES],
        distances=draw_bars(_bars_of_distances(summary), "Duplicates by their distance from their exemplar"),
        scores=draw_bars(
            _bars(summary.scores.tolist(), 1 / SCORE_BARS, "score"),
            "Patches by score",
            None if threshold is None else (threshold, f"threshold {threshold:g}"),
        ),
        greys=draw_bars(_bars(summary.greys.tolist(), 256 / GREY_BARS, "grey"), "Patches by mean grey value"),
        by_score=[
            (title, [(name, f"{score:.3f}", thumbnails.picture(name)) for name, score in ranked])
            for title, ranked in by_score.items()
            if ranked
        ],
        reasons=[(OUTCOME_NAMES.get(outcome, outcome), why, n) for (outcome, why), n in summary.reasons.most_common()],
        sheets=[(title, picture) for title, path in run.sheets.items() if (picture := encode_sheet(path))],
        seconds=sum(stage.seconds for stage in run.stages),
    )
    return page


def _key_numbers(summary: Summary) -> list[tuple[str, int]]:
    outcomes = summary.outcomes
    exemplars = sum(outcomes[key] for key in LEFT_OF_DUPLICATES)
    numbers = [("datasets", len(summary.datasets)), ("sections", summary.sections), ("patches", summary.patches)]
    numbers += [("exemplars", exemplars)] if exemplars else []
    numbers += [("informative", summary.informative)] if summary.informative else []
    return numbers + ([("selected", outcomes[SELECTED])] if outcomes[SELECTED] else [])


def _draw_outcomes(summary: Summary) -> str:
    """Return the flow from kinds of input over exemplars and duplicates to what was judged."""
    outcomes = summary.outcomes
    exemplars = sum(outcomes[key] for key in LEFT_OF_DUPLICATES)
    kinds = {kind: [d for d in summary.datasets.values() if d.kind == kind] for kind in KIND_NAMES}
    nodes, links = [], {}
    for kind, datasets in kinds.items():
        name = KIND_NAMES[kind]
        nodes.append(Node(name, 0, sum(dataset.patches for dataset in datasets), "first"))
        of_kind = sum((dataset.outcomes for dataset in datasets), type(outcomes)())
        links[name, "exemplars"] = sum(of_kind[key] for key in LEFT_OF_DUPLICATES)
        links[name, "duplicates"] = of_kind[DUPLICATE]
        links[name, OUTCOME_NAMES[CUT]] = of_kind[CUT]
    nodes += [
        Node("exemplars", 1, exemplars, "kept"),
        Node("duplicates", 1, outcomes[DUPLICATE], "pale"),
        Node(OUTCOME_NAMES[CUT], 1, outcomes[CUT], "pale"),
    ]
    seen = outcomes[SELECTED] + outcomes[PASSED_OVER]
    among, column = "exemplars", 2
    if summary.informative or outcomes[UNINFORMATIVE] or outcomes[UNREADABLE]:
        judged = {
            INFORMATIVE: summary.informative,
            UNINFORMATIVE: outcomes[UNINFORMATIVE],
            UNREADABLE: outcomes[UNREADABLE],
        }
        for key, count in judged.items():
            nodes.append(Node(OUTCOME_NAMES[key], 2, count, TONES[key]))
            links["exemplars", OUTCOME_NAMES[key]] = count
        rest = outcomes[EXEMPLAR] + seen - summary.selected_informative
        nodes.append(Node("not judged", 2, rest, "pale"))
        links["exemplars", "not judged"] = rest
        among, column = "informative" if summary.selected_informative else "not judged", 3
    for key in (SELECTED, PASSED_OVER):
        nodes.append(Node(OUTCOME_NAMES[key], column, outcomes[key], TONES[key]))
        links[among, OUTCOME_NAMES[key]] = outcomes[key]
    return draw_flow(nodes, links, "What became of the patches")


def _bars_of_distances(summary: Summary) -> list[Bar]:
    counts = summary.distances.tolist()
    every = max(1, len(counts) // 12)
    return [
        Bar(count, str(bits) if bits % every == 0 else "", "first", f"{bits} bits") for bits, count in enumerate(counts)
    ]


def _bars(counts: Sequence[int], step: float, what: str) -> list[Bar]:
    every = len(counts) // 4
    return [
        Bar(
            count,
            f"{number * step:g}" if number % every == 0 else "",
            "first",
            f"{what} {number * step:.4g} to {(number + 1) * step:.4g}",
        )
        for number, count in enumerate(counts)
    ]


def _choose_samples(dataset: Dataset) -> tuple[list[str], list[str]]:
    """Return some patches of a dataset that were kept, and some that were left out."""
    kept = next((key for key in (SELECTED, INFORMATIVE) if dataset.outcomes[key]), EXEMPLAR)
    chosen = [
        dataset.names[key].take(count) if key in dataset.names else []
        for key, count in ((kept, SHOWN_KEPT), (UNINFORMATIVE, SHOWN_LEFT))
    ]
    return chosen[0], chosen[1]


def _pictures(thumbnails: Thumbnails, names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, picture) for name in names if (picture := thumbnails.picture(name))]


def _line(dataset: Dataset) -> dict[str, Any]:
    """Return what the page says of a dataset."""
    shares = [
        (OUTCOME_NAMES[key], dataset.outcomes[key], TONES[key], 100 * dataset.outcomes[key] / max(1, dataset.patches))
        for key in OUTCOME_NAMES
        if dataset.outcomes[key]
    ]
    return {
        "name": dataset.name,
        "kind": {"2d": "2D", "": "unknown"}.get(dataset.kind, dataset.kind),
        "sources": sorted(dataset.sources),
        "sections": dataset.sections,
        "patches": dataset.patches,
        "shares": shares,
        "pixels": spell_sizes(dataset),
        "limits": None if dataset.limits is None else "{:g} to {:g}".format(*dataset.limits),
        "counts": {OUTCOME_NAMES[key]: dataset.outcomes[key] for key in OUTCOME_NAMES},
    }


def spell_sizes(dataset: Dataset) -> str:
    """Return a dataset's pixel sizes in words."""
    if not dataset.pixel_sizes_nm:
        return "unknown"
    sizes = sorted({round(side, 3) for pair in dataset.pixel_sizes_nm for side in pair})
    return f"{sizes[0]:g} nm" if len(sizes) == 1 else f"{sizes[0]:g} to {sizes[-1]:g} nm"


def _first_messages(stages: Sequence[StageRun]) -> Mapping[str, tuple[list[str], int]]:
    """Return the warnings of each stage that has any, each once, and how many more there are."""
    said: dict[str, dict[str, None]] = {}
    for stage in stages:
        said.setdefault(stage.stage, {}).update(dict.fromkeys(stage.warnings))
    return {name: ([*all_][:MESSAGES], max(0, len(all_) - MESSAGES)) for name, all_ in said.items() if all_}


@functools.cache
def _template() -> Any:
    import jinja2

    source = resources.files("emcurate.reporting").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["number"] = "{:,}".format
    return environment.from_string(source)
