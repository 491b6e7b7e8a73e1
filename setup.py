"""Puts the scripts, which lie beside the package in a checkout, into it where it is installed as a copy."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DIRECTORIES = ("preprocess", "raw", "deduplicated", "filtered", "3d", "data_prep")
SCRIPTS = [
    "curate.py",
    "labeling.ipynb",
    *(str(path) for name in DIRECTORIES for path in sorted(Path(name).glob("*.py"))),
]


class BuildWithScripts(build_py):
    """Copies the scripts to ``emcurate/scripts``, where `emcurate.__main__` finds them."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for script, copy in zip(SCRIPTS, self._copies(), strict=True):
                self.mkpath(str(Path(copy).parent))
                self.copy_file(script, copy)

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), *([] if self.editable_mode else self._copies())]

    def get_source_files(self):
        return [*super().get_source_files(), *SCRIPTS]

    def _copies(self):
        return [str(Path(self.build_lib, "emcurate", "scripts", script)) for script in SCRIPTS]


setup(cmdclass={"build_py": BuildWithScripts})
