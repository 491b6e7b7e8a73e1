"""Charts as SVG, for light and dark alike: colours are the page's, by name. Each says its numbers in words too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

# Units of a chart's own coordinates; the page scales it.
FLOW_WIDTH, FLOW_HEIGHT = 960, 300
NODE_WIDTH = 14
NODE_GAP = 18  # between nodes of a column
LABEL_GAP = 8
LABEL_HEIGHT = 14
BARS_WIDTH, BARS_HEIGHT = 460, 180
MARGIN_LEFT, MARGIN_BELOW, MARGIN_ABOVE = 10, 30, 22

# Units that the smallest share is drawn as, so that it is seen.
LEAST_HEIGHT = 1.5


@dataclass(frozen=True)
class Node:
    """A place that patches come through.

    `column` counts from the left; `tone` is the page's name of its colour.
    """

    name: str
    column: int
    count: int
    tone: str


def draw_flow(nodes: Sequence[Node], links: Mapping[tuple[str, str], int], title: str) -> str:
    """Return a flow from left to right: bands whose height is the number of patches that go from node to node.

    Parameters
    ----------
    nodes : sequence of Node
        From top to bottom in each column; those of no patches are left out.
    links : mapping of (str, str) to int
        Patches from one node to another, by names.
    title : str
        What the chart is read out as.
    """
    nodes = [node for node in nodes if node.count]
    columns = sorted({node.column for node in nodes})
    if not columns:
        return ""
    most = max(sum(node.count for node in nodes if node.column == column) for column in columns)
    longest = max(sum(node.column == column for node in nodes) for column in columns)
    scale = (FLOW_HEIGHT - NODE_GAP * (longest - 1) - MARGIN_ABOVE) / most
    # Room for the words on the right of the last column.
    step = (FLOW_WIDTH - 230) / max(1, len(columns) - 1)
    tops, lefts, bottom = {}, {}, 0.0
    for number, column in enumerate(columns):
        top = float(MARGIN_ABOVE)
        for node in (node for node in nodes if node.column == column):
            tops[node.name], lefts[node.name] = top, number * step
            top += max(node.count * scale, LABEL_HEIGHT) + NODE_GAP
            bottom = max(bottom, top - NODE_GAP)
    parts = []
    leaving, arriving = dict(tops), dict(tops)
    tones = {node.name: node.tone for node in nodes}
    for node in nodes:
        for other in nodes:
            count = links.get((node.name, other.name), 0)
            if not count:
                continue
            height = max(count * scale, LEAST_HEIGHT)
            start, stop = lefts[node.name] + NODE_WIDTH, lefts[other.name]
            above, below = leaving[node.name], arriving[other.name]
            middle = (start + stop) / 2
            leaving[node.name] += count * scale
            arriving[other.name] += count * scale
            beneath, under = above + height, below + height
            path = (
                f"M{start:.1f} {above:.1f}C{middle:.1f} {above:.1f} {middle:.1f} {below:.1f} {stop:.1f} {below:.1f}"
                f"V{under:.1f}C{middle:.1f} {under:.1f} {middle:.1f} {beneath:.1f} {start:.1f} {beneath:.1f}Z"
            )
            words = f"{node.name} to {other.name}: {count:,}"
            parts.append(f'<path class="band {tones[other.name]}" d="{path}"><title>{escape(words)}</title></path>')
    for node in nodes:
        left, top = lefts[node.name], tops[node.name]
        height = max(node.count * scale, LEAST_HEIGHT)
        parts.append(
            f'<rect class="{node.tone}" x="{left:.1f}" y="{top:.1f}" width="{NODE_WIDTH}" height="{height:.1f}"/>'
            f'<text x="{left + NODE_WIDTH + LABEL_GAP:.1f}" y="{top + min(height / 2, 12) + 4:.1f}">'
            f'{escape(node.name)} <tspan class="number">{node.count:,}</tspan></text>'
        )
    return _svg(FLOW_WIDTH, round(bottom) + MARGIN_ABOVE // 2, "flow", title, parts)


@dataclass(frozen=True)
class Bar:
    """A bar: how many, what stands below it if anything does, and the page's name of its colour."""

    count: int
    label: str
    tone: str = "first"
    words: str = ""


def draw_bars(bars: Sequence[Bar], title: str, line: tuple[float, str] | None = None) -> str:
    """Return bars beside one another.

    Parameters
    ----------
    bars : sequence of Bar
    title : str
        What the chart is read out as, and what stands above it.
    line : (share, str), optional
        A line from top to bottom, at this share of the width, and what stands beside it.
    """
    most = max((bar.count for bar in bars), default=0)
    if not most:
        return ""
    width = (BARS_WIDTH - 2 * MARGIN_LEFT) / len(bars)
    room = BARS_HEIGHT - MARGIN_ABOVE - MARGIN_BELOW
    floor = MARGIN_ABOVE + room
    parts = [f'<line class="axis" x1="{MARGIN_LEFT}" x2="{BARS_WIDTH - MARGIN_LEFT}" y1="{floor}" y2="{floor}"/>']
    for number, bar in enumerate(bars):
        left = MARGIN_LEFT + number * width
        if bar.count:
            height = max(bar.count / most * room, LEAST_HEIGHT)
            words = escape(f"{bar.words or bar.label}: {bar.count:,}")
            parts.append(
                f'<rect class="{bar.tone}" x="{left + width * 0.08:.1f}" y="{floor - height:.1f}" '
                f'width="{width * 0.84:.1f}" height="{height:.1f}"><title>{words}</title></rect>'
            )
        if bar.label:
            parts.append(
                f'<text class="label" x="{left + width / 2:.1f}" y="{floor + 16}" text-anchor="middle">'
                f"{escape(bar.label)}</text>"
            )
    if line is not None:
        at = MARGIN_LEFT + line[0] * (BARS_WIDTH - 2 * MARGIN_LEFT)
        parts.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{MARGIN_ABOVE - 6}" y2="{floor}"/>')
        parts.append(f'<text class="label" x="{at + 5:.1f}" y="{MARGIN_ABOVE + 2}">{escape(line[1])}</text>')
    parts.append(f'<text class="label" x="{MARGIN_LEFT}" y="12">up to {most:,} patches</text>')
    return _svg(BARS_WIDTH, BARS_HEIGHT, "bars", title, parts)


def _svg(width: int, height: int, kind: str, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
