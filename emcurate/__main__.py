"""``emcurate STAGE …``, or ``python -m emcurate STAGE …``: runs any of the scripts, wherever they were installed."""

from __future__ import annotations

import ast
import difflib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from emcurate import __version__

# Where the scripts lie below their root, in the order of their work.
DIRECTORIES = ("preprocess", "raw", "deduplicated", "filtered", "3d", "data_prep")

# What is no script: the notebook in which patches are labelled.
NOTEBOOK = "labeling"

STATUS_USAGE = 2


def find_root() -> Path:
    """Return the directory with the scripts: beside the package in a checkout, inside it where it is installed."""
    package = Path(__file__).parent
    inside = package / "scripts"
    return inside if inside.is_dir() else package.parent


def list_scripts(root: Path) -> dict[str, Path]:
    """Return the scripts by name, curate.py first."""
    paths = [root / "curate.py", *(path for name in DIRECTORIES for path in sorted((root / name).glob("*.py")))]
    return {path.stem: path for path in paths}


def describe(script: Path) -> str:
    """Return the first line of a script's docstring, which says what it does."""
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def spell_help(root: Path) -> str:
    """Return what is said where no stage is named."""
    lines = {name: describe(script) for name, script in list_scripts(root).items()}
    lines[NOTEBOOK] = f"Put {NOTEBOOK}.ipynb, in which patches are labelled, into this directory."
    width = max(map(len, lines))
    stages = "\n".join(f"  {name:<{width}}  {text}" for name, text in lines.items())
    return (
        f"usage: emcurate STAGE [--help] ...\n\nemcurate {__version__}. The stages:\n\n{stages}\n\n"
        f"`emcurate STAGE --help` explains each. They are also scripts, in {root}.\n"
    )


def copy_notebook(root: Path) -> int:
    """Put the notebook into the present directory, unless one is there; return the exit status."""
    copy = Path(f"{NOTEBOOK}.ipynb")
    if copy.exists():
        sys.stdout.write(f"{copy} is there already: open it in JupyterLab, Notebook 7 or VS Code\n")
    else:
        shutil.copyfile(root / copy.name, copy)
        sys.stdout.write(f"wrote {copy}: open it in JupyterLab, Notebook 7 or VS Code, and edit the paths\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage that is named, in this process's place; return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    root = find_root()
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(spell_help(root))
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"emcurate {__version__}\n")
        return 0
    scripts = list_scripts(root)
    name = Path(words[0]).name.removesuffix(".py").replace("-", "_")
    if name == NOTEBOOK:
        return copy_notebook(root)
    if name not in scripts:
        alike = difflib.get_close_matches(name, [*scripts, NOTEBOOK], cutoff=0.5)
        hint = f"did you mean {' or '.join(alike)}?" if alike else "emcurate alone lists them"
        sys.stderr.write(f"emcurate: error: no stage is called {words[0]!r}; {hint}\n")
        return STATUS_USAGE
    command = [sys.executable, str(scripts[name]), *words[1:]]
    if os.name != "nt":  # where a process in the place of another is a new one, that nobody waits for
        sys.stdout.flush()
        os.execv(sys.executable, command)
    return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main())
