"""Flags that one command hands on to the stages that it runs, each under every spelling that its stage has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

# What the names of handed-on flags begin with among the command's own arguments.
PREFIX = "stage_"


class HandedOn:
    """The flags that are handed on.

    Parameters
    ----------
    parser_of : callable
        Gives the parser of a stage's command line.
    stages : collection of str
        In their order.
    kept_back : collection of str
        The names of arguments that no stage is handed: they are decided by who runs it, or mean another thing there.
    not_to : collection of (stage, name)
        Arguments that one stage is not handed, but others are.
    """

    def __init__(
        self,
        parser_of: Callable[[str], Any],
        stages: Collection[str],
        kept_back: Collection[str],
        not_to: Collection[tuple[str, str]],
    ) -> None:
        self._parser_of, self._stages = parser_of, stages
        self._kept_back, self._not_to = kept_back, not_to

    def of(self, stage: str) -> Iterator[Any]:
        """Yield the flags of a stage that are handed on to it, as its parser has them."""
        for action in self._parser_of(stage)._actions:
            is_kept_back = action.dest in self._kept_back or (stage, action.dest) in self._not_to
            if action.option_strings and not is_kept_back:
                yield action

    def add_to(self, group: Any) -> None:
        """Add the flags of all stages to a parser, or a group of one; one that several stages have is added once."""
        actions: dict[str, list[Any]] = {}
        users: dict[str, list[str]] = {}
        for stage in self._stages:
            for action in self.of(stage):
                actions.setdefault(action.dest, []).append(action)
                users.setdefault(action.dest, []).append(stage)
        for dest, known in actions.items():
            names = dict.fromkeys(name for action in known for name in action.option_strings)
            text, target = f"for {', '.join(users[dest])}", f"{PREFIX}{dest}"
            if known[0].nargs == 0:
                group.add_argument(*names, dest=target, action="store_true", help=text)
            else:
                group.add_argument(*names, dest=target, nargs=known[0].nargs, metavar="VALUE", help=text)

    def words(self, stage: str, values: Mapping[str, Any], less: Collection[str] = ()) -> list[str]:
        """Return the command-line words of the flags given that a stage knows, some left out by name."""
        words = []
        for action in self.of(stage):
            value = values[f"{PREFIX}{action.dest}"]
            if value and action.dest not in less:
                given = [] if value is True else [value] if isinstance(value, str) else value
                words += [action.option_strings[-1], *given]
        return words
