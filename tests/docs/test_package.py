"""The installed package holds the files that the code reads at run time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import typing
from fnmatch import fnmatch
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

import astrape

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "path",
    [
        "py.typed",
        "recipes/voice-changer.yaml",
        "recipes/denoiser.yaml",
        "recipes/audio/sense-and-sensibility.flac",
        "recipes/audio/LICENSE-sense-and-sensibility.txt",
    ],
)
def test_a_file_that_belongs_to_the_package(path: str) -> None:
    assert files("astrape").joinpath(path).is_file()


def test_every_file_beside_the_code_is_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["astrape"]
    package = ROOT / "astrape"
    for path in package.rglob("*"):
        name = path.relative_to(package).as_posix()
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert any(fnmatch(name, pattern) for pattern in patterns), f"{name} would not be installed"


def test_the_command_and_the_version() -> None:
    (command,) = entry_points(group="console_scripts", name="astrape")
    assert callable(command.load())
    assert version("astrape") == PROJECT["project"]["version"]


def test_one_version_stands_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    said = {PROJECT["project"]["version"], astrape.__version__, citation["version"]}
    assert said == {astrape.__version__}
    assert f"## {astrape.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_package_says_who_made_it_and_what_for() -> None:
    project = PROJECT["project"]
    assert project["authors"] == [{"name": "The astrape developers"}]
    assert len(project["keywords"]) > 5
    assert "Typing :: Typed" in project["classifiers"]
    # Where the repository lies is not known, and nothing is made up.
    assert "urls" not in project or all(url.startswith("https://") for url in project["urls"].values())


def test_a_source_distribution_holds_what_it_takes_to_test_it(tmp_path: Path) -> None:
    kept = ("astrape", "benchmarks", "docs", "examples", "runners", "tests", ".ci")
    top = [path for path in ROOT.glob("*") if path.suffix in (".cff", ".in", ".md", ".toml", ".txt", ".yml")]
    top += [ROOT / "LICENSE", ROOT / "Makefile", ROOT / ".gitignore", ROOT / "setup.py"]
    made = (".pyc", ".so")  # native kernels are built where it is installed
    below = [path for name in kept for path in (ROOT / name).rglob("*") if path.is_file() and path.suffix not in made]
    here = {path.relative_to(ROOT) for path in [*top, *below]}
    tree = tmp_path / "tree"
    for path in here:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, tree / path)
    program = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.strip().splitlines()[-1]) as archive:
        packed = {Path(*Path(member.name).parts[1:]) for member in archive.getmembers() if member.isfile()}
    assert here - packed == set()
    strange = {path for path in packed - here if "egg-info" not in path.parts[0] and path.name != "PKG-INFO"}
    assert strange == {Path("setup.cfg")}


def test_nothing_that_is_installed_stands_in_for_a_module_of_python() -> None:
    """Extras bring a backport of ``typing``, which ``pip uninstall typing`` removes, and the Makefile does."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "pip uninstall --quiet --yes typing" in makefile
    assert Path(typing.__file__).parent == Path(os.__file__).parent


def test_every_folder_with_code_is_a_package() -> None:
    for path in (ROOT / "astrape").rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py and would not be installed"
