"""Which key does what in the labelling widget, and what a person may choose instead."""

from __future__ import annotations

from collections.abc import Mapping

from emcurate.errors import InputError

# Of each action its key and what the help says of it. The arrows, Home, End, Page Up, Page Down and Escape are fixed.
ACTIONS: dict[str, tuple[str, str]] = {
    "informative": ("i", "informative; with Shift, all in sight that have no label"),
    "uninformative": ("u", "uninformative; with Shift, all in sight that have no label"),
    "unsure": ("o", "unsure: seen, not decided; with Shift, all in sight that have no label"),
    "none": ("n", "take the label away"),
    "toggle": ("Space", "informative ↔ uninformative"),
    "accept": ("m", "take the model's labels for all in sight that have none"),
    "undo": ("z", "undo"),
    "next_unlabelled": ("j", "jump to the next patch without a label"),
    "next_page": ("Enter", "next page; with Shift, the page before"),
    "surroundings": ("v", "view the patch in its surroundings"),
    "contrast": ("c", "stretch contrast"),
    "full_screen": ("f", "full screen"),
    "help": ("h", "show or hide the keys"),
}

NAMED_KEYS = ("Space", "Enter", "Backspace", "Delete", "Insert")


def choose_keys(given: Mapping[str, str]) -> dict[str, str]:
    """Return the key of each action, with those that a person has chosen.

    Parameters
    ----------
    given : mapping of str to str
        Keys by actions, as in ``{"informative": "1"}``: a letter, a digit, or one of `NAMED_KEYS`.

    Raises
    ------
    InputError
        If there is no such action or key, or two actions would have one key.
    """
    chosen = {action: key for action, (key, _) in ACTIONS.items()}
    for action, key in given.items():
        if action not in ACTIONS:
            raise InputError("keys", f"actions of {', '.join(ACTIONS)}", repr(action), "choose one of these")
        chosen[action] = _check_key(action, key)
    for action, key in chosen.items():
        rivals = [other for other in chosen if chosen[other] == key]
        if len(rivals) > 1:
            advice = f"choose another key for {rivals[0] if action in given else rivals[1]}"
            raise InputError("keys", "a key of its own for each action", f"{key} for {' and '.join(rivals)}", advice)
    return chosen


def _check_key(action: str, key: str) -> str:
    text = key if isinstance(key, str) else ""
    named = {name.casefold(): name for name in NAMED_KEYS} | {" ": "Space"}
    if text.casefold() in named:
        return named[text.casefold()]
    if len(text) == 1 and text.isascii() and text.isalnum():
        return text.lower()
    expected = f"a letter a to z, a digit, or one of {', '.join(NAMED_KEYS)}"
    raise InputError("keys", f"{expected} for {action}", repr(key), "choose another key")
