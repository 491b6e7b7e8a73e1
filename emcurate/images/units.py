"""Length units as files spell them, in nanometres."""

from __future__ import annotations

ANGSTROM_NM = 0.1
MILLIMETRE_NM = 1e6
INCH_NM = 2.54e7
METRE_NM = 1e9
_MICROMETRE = 1e3

# Both micro signs (U+00B5 and the Greek mu, U+03BC) are in use, and ImageJ writes the first as an escape.
_NANOMETRES = {
    **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), METRE_NM),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e7),
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters", "millimetres"), 1e6),
    **dict.fromkeys(("µm", "μm", "um", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), _MICROMETRE),
    **dict.fromkeys(("micrometers", "micrometres", "µ", "μ"), _MICROMETRE),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers", "nanometres"), 1.0),
    **dict.fromkeys(("å", "\u212b", "\\u00c5", "a", "angstrom", "angstroms", "ångström", "ångstrom"), 0.1),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-3),
    **dict.fromkeys(("inch", "in", "inches"), INCH_NM),
}


def nanometres_per(unit: str | None) -> float | None:
    """Return the nanometres of a unit, or None if it is no length such as "pixel".

    >>> nanometres_per("µm"), nanometres_per("mm"), nanometres_per("pixel")
    (1000.0, 1000000.0, None)
    """
    if unit is None:
        return None
    # Å and its look-alike U+212B, the Angstrom sign, both become å.
    return _NANOMETRES.get(unit.strip().strip('"').lower())
