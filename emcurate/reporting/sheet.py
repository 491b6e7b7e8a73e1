"""The datasheet that people read: what there is, how it was made, of what, with what, and how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from emcurate.licences import OF_ALL
from emcurate.markdown import escape, make_table
from emcurate.patches.joined import OUTCOMES
from emcurate.reporting.facts import Facts
from emcurate.running.spelled_paths import path_of_text

# Lines of tables that somebody reads; the rest is in the JSON file.
MOST_ROWS = 50

NOT_SAID = "not said; give it with --licence"


def make_sheet(facts: Facts, name: str, script: str, json_name: str) -> bytes:
    """Return a datasheet in Markdown."""
    lines = [
        f"# {escape(name)}",
        "",
        f"Written by emcurate {facts.versions['emcurate']}, {facts.tool}. `{json_name}` beside it has all of it for "
        "programs, as MLCommons Croissant.",
        *_section("What there is", _tell_patches(facts)),
        *_section("How it was made", _tell_commands(facts, script)),
        *_section("Of what", _tell_inputs(facts, json_name)),
        *_section("Licences", _tell_licences(facts)),
        *_section("With what", _tell_versions(facts)),
        *_section("What to know", _tell_limits(facts)),
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _section(title: str, lines: Iterator[str]) -> list[str]:
    return ["", f"## {title}", "", *lines]


def _tell_patches(facts: Facts) -> Iterator[str]:
    known = {outcome for each in facts.datasets.values() for outcome in each.outcomes}
    outcomes = [*(each for each in OUTCOMES if each in known), *sorted(known - {*OUTCOMES})]
    small = any(each.small for each in facts.datasets.values())
    header = ["dataset", "kind", "files", "nm a pixel", "patches", *outcomes, *(["left out small"] if small else [])]
    rows = [
        [
            *(name, ", ".join(each.kinds), each.sources, _spell_sizes(each.pixel_sizes_nm), each.patches),
            *(each.outcomes.get(outcome, 0) for outcome in outcomes),
            *([each.small] if small else []),
        ]
        for name, each in sorted(facts.datasets.items(), key=lambda item: (-item[1].patches, item[0]))
    ]
    numbers = [sum(column) for column in zip(*(row[4:] for row in rows), strict=True)]
    sources = sum(each.sources for each in facts.datasets.values())
    total = [f"all {len(rows):,}", "", sources, "", *numbers]
    yield from make_table(header, [*rows[:MOST_ROWS], *([total] if len(rows) > 1 else [])])
    if len(rows) > MOST_ROWS:
        yield f"\nThe {MOST_ROWS} largest of {len(rows):,} datasets."
    for why, count in facts.reasons.items():
        yield f"\nLeft out: {count:,} {escape(why)}."


def _spell_sizes(sizes: list[float]) -> str:
    if not sizes:
        return "unknown"
    return f"{sizes[0]:g}" if len(sizes) == 1 else f"{sizes[0]:g} to {sizes[-1]:g}"


def _tell_commands(facts: Facts, script: str) -> Iterator[str]:
    if facts.commands:
        yield "```bash"
        for command in facts.commands:
            yield f"cd {shlex.quote(path_of_text(command.directory))}"
            yield f"python {script} {shlex.join(command.typed())}"
        yield "```"
    else:
        yield f"By `{script}`, with what the table says."
    if facts.seeds:
        yield f"\nSeeds: {', '.join(f'{stage} {seed}' for stage, seed in facts.seeds.items())}."
    rows = [
        [stage, ", ".join(f"{name} {value}" for name, value in found.items())]
        for stage, found in facts.parameters.items()
        if found
    ]
    if rows:
        yield ""
        yield from make_table(["step", "made with"], rows)


def _tell_inputs(facts: Facts, json_name: str) -> Iterator[str]:
    size = sum(each.size for each in facts.inputs)
    yield f"{len(facts.inputs):,} files or directories, {size:,} bytes."
    if facts.inputs:
        yield ""
        rows = [[each.path, each.size, each.sha256 or "not read"] for each in facts.inputs[:MOST_ROWS]]
        yield from make_table(["input", "bytes", "SHA-256"], rows)
    if len(facts.inputs) > MOST_ROWS:
        yield f"\nAll others are in `{json_name}`."
    for each in facts.based_on:
        yield f"\nMade of results that {escape(each.path)} tells of (SHA-256 {each.sha256}), with their inputs."


def _tell_licences(facts: Facts) -> Iterator[str]:
    others = facts.licences.get(OF_ALL)
    named = [[name, licence] for name, licence in facts.licences.items() if name != OF_ALL]
    if named:
        yield from make_table(["dataset", "licence"], [*named, ["all others", others or NOT_SAID]])
    else:
        yield f"Of all datasets: {escape(others) if others else NOT_SAID}."


def _tell_versions(facts: Facts) -> Iterator[str]:
    yield f"Commit: {facts.commit or 'unknown'}."
    yield ""
    yield from make_table(["package", "version"], list(map(list, facts.versions.items())))


def _tell_limits(facts: Facts) -> Iterator[str]:
    yield "- Patches are 8-bit grey. `lo` and `hi` in `patches.parquet` are the values that became 0 and 255."
    yield "- Duplicates were looked for by a difference hash, which knows no shift of more than a fraction of a patch."
    yield "- Names of patches say where their pixels came from: `{dataset}-LOC-{plane}_{index}_{row}_{column}`."
    if facts.tool == "curate":
        yield "- `python curate.py --reproduce datasheet.json` checks that the same inputs give the same results."
