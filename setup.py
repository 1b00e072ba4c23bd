"""Builds the package with the training configs in it, which are a folder next to it in the sources.

All else is in pyproject.toml. If that declared the folder as a package, type checkers would not find an editable
installation.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies the configs too, unless the sources are used where they are."""

    def run(self) -> None:
        """Builds the package."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib, "bsmamba2", "configs"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
