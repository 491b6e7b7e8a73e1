"""Under which licences data are, as whoever runs a script says."""

from __future__ import annotations

from collections.abc import Sequence

# The licence of datasets of which nothing else is said.
OF_ALL = ""


def parse_licences(words: Sequence[str]) -> dict[str, str]:
    """Return licences by dataset, of words such as ``CC-BY-4.0`` for all others and ``fly=CC0-1.0`` for one.

    >>> parse_licences(["CC-BY-4.0", "fly=CC0-1.0"])
    {'': 'CC-BY-4.0', 'fly': 'CC0-1.0'}

    Raises
    ------
    ValueError
        If one says nothing, or two speak of the same datasets.
    """
    found: dict[str, str] = {}
    for word in words:
        # An address may have an equals sign, but not before its colon.
        name, equals, licence = word.partition("=")
        dataset, licence = (name, licence) if equals and "://" not in name else (OF_ALL, word)
        if not (licence.strip() and word.isprintable()):
            raise ValueError(f"a licence, or DATASET=LICENCE, found {word!r}")
        if dataset in found:
            raise ValueError(f"one licence for {dataset or 'all datasets'}, found {found[dataset]} and {licence}")
        found[dataset] = licence.strip()
    return found
