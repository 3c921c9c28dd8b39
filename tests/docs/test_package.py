"""What is installed holds what the code reads at run time."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest

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


def test_every_folder_with_code_is_a_package() -> None:
    for path in (ROOT / "astrape").rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py and would not be installed"
