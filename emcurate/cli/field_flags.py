"""The flags of a dataclass: one for each of its fields."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from emcurate.cli.argument_types import _integer, _number, existing_file


def add_field_flags(parser: argparse.ArgumentParser, name: str, kind: type, groups: Mapping[str, str]) -> None:
    """Add a flag for each field of a dataclass; `parse_arguments` gives them back as one value, called `name`.

    A field's type tells the type of its flag, a `Literal` its choices. Its metadata tell the rest: ``text`` for the
    help, ``group``, ``metavar``, the ``short`` spelling, the bounds ``least``, ``above`` and ``most`` of a number, and
    the ``words`` that may stand in place of a file.

    Parameters
    ----------
    groups : mapping of str to str
        The title and the description of each group in the help.
    """
    parser.set_defaults(**{name: kind})
    hints = typing.get_type_hints(kind)
    sections = {title: parser.add_argument_group(title, text) for title, text in groups.items()}
    for item in fields(kind):
        about = item.metadata
        shown = item.default is not None and hints[item.name] is not bool
        options: dict[str, Any] = {"help": about["text"] + (" (default: %(default)s)" if shown else "")}
        options |= {"default": item.default} | _flag_type(hints[item.name], about)
        flags = [about["short"], f"--{item.name.replace('_', '-')}"]
        sections[about["group"]].add_argument(*filter(None, flags), **options)


def _flag_type(hint: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `add_argument` has to know of a field's type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if hint is bool:
        return {"action": "store_true"}
    if typing.get_origin(hint) is typing.Literal:
        return {"choices": typing.get_args(hint)}
    words = about["words"]
    if words:
        return {
            "type": lambda text: text if text in words else str(existing_file(text)),
            "metavar": "|".join([*words, "FILE"]),
        }
    least, above, most = about["least"], about["above"], about["most"]
    if hint is int:
        return {"type": lambda text: _integer(text, least, most), "metavar": about["metavar"]}
    low, high = least if above is None else above, float("inf") if most is None else most
    return {"type": lambda text: _number(text, low, high, open_low=above is not None), "metavar": about["metavar"]}
