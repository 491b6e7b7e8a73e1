"""What a field of a dataclass tells of the flag that sets it, so that a setting stands in one place."""

from __future__ import annotations

from typing import Any


def flag(
    text: str,
    *,
    group: str = "recipe",
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    metavar: str | None = None,
    short: str | None = None,
    words: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return what a field tells of its flag, as its metadata; see `cli.add_field_flags`."""
    return {
        "text": text,
        "group": group,
        "least": least,
        "above": above,
        "most": most,
        "metavar": metavar,
        "short": short,
        "words": words,
    }
