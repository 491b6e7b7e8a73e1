"""The part of the widget that runs in the browser, put together from the modules in ``browser/``."""

from __future__ import annotations

import re
from pathlib import Path

BROWSER = Path(__file__).parent / "browser"
STYLE = BROWSER / "widget.css"

# Each after what it imports; the last one's default export is the widget.
MODULES = (
    "dom",
    "keys",
    "sight",
    "tiles",
    "bar",
    "status",
    "buttons",
    "details",
    "surroundings",
    "window",
    "focus",
    "mouse",
    "widget",
)

# Jupyter takes one module, which has no address that others could be imported from.
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./[a-z]+\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


def join_modules() -> str:
    """Return the modules as one, without what they say of one another."""
    sources = (BROWSER.joinpath(f"{name}.js").read_text("utf-8") for name in MODULES)
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", source)) for source in sources)
