"""Native kernels are built beside the package where there is a C compiler; without one it goes without them."""

from __future__ import annotations

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

NATIVE = Path("astrape") / "capture" / "native"


class WithKernels(build_py):
    """The package's files, and its kernels."""

    def run(self) -> None:
        super().run()
        building = runpy.run_path(str(Path(__file__).parent / NATIVE / "building.py"))
        folder = Path(__file__).parent / NATIVE if self.editable_mode else Path(self.build_lib) / NATIVE
        try:
            building["build_for_others"](folder)
        except OSError as reason:
            self.announce(f"astrape is installed without native kernels: {reason}", level=3)


class OfThisSystem(bdist_wheel):
    """A wheel for any Python, and for the system that its kernels are for; for any system if it has none."""

    def get_tag(self) -> tuple[str, str, str]:
        folder = Path(self.bdist_dir) / NATIVE
        # The tag is first asked for before anything is built, to name a folder; what counts is the second time.
        self.root_is_pure = not any(folder.glob("*.so")) if folder.is_dir() else True
        return ("py3", "none", super().get_tag()[2])


setup(cmdclass={"build_py": WithKernels, "bdist_wheel": OfThisSystem})
