"""Ratios of the benchmarks by version, in history.csv beside this file, so that a slide backwards is seen.

A benchmark calls `compare` with its ratios, how many times as fast as something else each work is: printed is the
change against the last one recorded for the same setup, and with --record they are added. Run alone, this prints all
that is recorded.

Reads:   benchmarks/history.csv
Writes:  the same, with --record of a benchmark
Example: python benchmarks/pipeline.py --record; python benchmarks/history.py
"""

from __future__ import annotations

import argparse
import csv
import datetime
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from measuring import ROOT, Table

from emcurate import __version__

FILE = Path(__file__).with_name("history.csv")
COLUMNS = ("version", "commit", "date", "benchmark", "setup", "work", "ratio", "cpu_ratio", "notes")

# A ratio that has fallen by more than this part is called a slide: less is within what ratios vary by.
SLIDE = 0.2


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recording."""
    parser.add_argument("--record", action="store_true", help="add the ratios to benchmarks/history.csv")
    parser.add_argument("--notes", default="", metavar="TEXT", help="recorded beside them")


def read_history() -> list[dict[str, str]]:
    if not FILE.exists():
        return []
    with open(FILE, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compare(
    benchmark: str,
    setup: str,
    ratios: Mapping[str, float],
    arguments: argparse.Namespace,
    cpu_ratios: Mapping[str, float] | None = None,
) -> None:
    """Print how ratios have changed since they were last recorded for the same setup, and record them if asked to.

    `cpu_ratios` are those of the seconds that cores worked. Where there are any, they tell of slides: a busy machine
    changes them less.
    """
    cpu_ratios = cpu_ratios or {}
    last = {row["work"]: row for row in read_history() if (row["benchmark"], row["setup"]) == (benchmark, setup)}
    print(f"\nagainst the last recorded for: {setup}")
    table = Table(work="<44", ratio=">8.2f", recorded=">9.2f", change=">7", cpu_change=">11", of="<24")
    slides = []
    for work, ratio in ratios.items():
        if work not in last:
            table.print([work, ratio, None, None, None, "not recorded yet"])
            continue
        before = last[work]
        changes = [ratio / float(before["ratio"]) - 1]
        if work in cpu_ratios and before["cpu_ratio"]:
            changes.append(cpu_ratios[work] / float(before["cpu_ratio"]) - 1)
        of = " ".join(before[name] for name in ("version", "commit", "date"))
        shown = [f"{change:+.0%}" for change in changes] + [None] * (2 - len(changes))
        table.print([work, ratio, float(before["ratio"]), *shown, of])
        if changes[-1] < -SLIDE:
            slides.append(work)
    if slides:
        print(f"SLOWER than recorded: {', '.join(slides)}")
    if arguments.record:
        record(benchmark, setup, ratios, cpu_ratios, arguments.notes)


def record(
    benchmark: str, setup: str, ratios: Mapping[str, float], cpu_ratios: Mapping[str, float], notes: str
) -> None:
    is_new = not FILE.exists()
    before = (__version__, read_commit(), datetime.date.today().isoformat(), benchmark, setup)
    with open(FILE, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        for work, ratio in ratios.items():
            cpu = f"{cpu_ratios[work]:.2f}" if work in cpu_ratios else ""
            writer.writerow((*before, work, f"{ratio:.2f}", cpu, notes))


def read_commit() -> str:
    """Return the commit that is checked out, with a plus if emcurate has changed since; nothing without git."""
    measured = ["emcurate", "raw", "deduplicated", "filtered", "3d", "preprocess", "data_prep", "curate.py"]
    try:
        commit = run_git("rev-parse", "--short", "HEAD")
        return commit + "+" * bool(run_git("status", "--porcelain", "--", *measured))
    except (OSError, subprocess.CalledProcessError):
        return ""


def run_git(*words: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    works: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for row in read_history():
        works[row["benchmark"], row["setup"], row["work"]].append(row)
    heading = None
    for (benchmark, setup, work), rows in works.items():
        if heading != (benchmark, setup):
            heading = benchmark, setup
            print(f"\n{benchmark}: {setup}")
        print(f"  {work:<44} " + "  ".join(f"{row['ratio']} ({row['commit'] or row['version']})" for row in rows))


if __name__ == "__main__":
    main()
