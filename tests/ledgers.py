"""Ledgers as another hand may leave them, checks and all."""

import msgspec

from emcurate.running.ledger_lines import Line, read_lines, spell_line


def forge(path, old, new):
    """Replace a text in all lines of a ledger, and give them the checks of what they then are."""
    told = [msgspec.json.encode(line).replace(old.encode(), new.encode()) for line in read_lines(path)]
    path.write_bytes(b"\n".join(spell_line(msgspec.json.decode(text, type=Line)) for text in told) + b"\n")
