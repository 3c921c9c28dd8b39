"""A bare ``pip install astrape``: packages of the extras are hidden from a process of its own.

The suite runs where all extras are. A module that imports one of their packages at the top, and is itself imported by
what everybody uses, is seen here and nowhere else.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import astrape
from astrape.graph.recipe import shipped_recipes
from tests.forks import Forks

SPEECH = Path(astrape.__file__).parent / "recipes" / "audio" / "sense-and-sensibility.flac"

HIDING = """
import sys

HIDDEN, LEFT_OUT = (frozenset(sys.argv.pop(1).split(",")) for _ in range(2))

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

    def find_distributions(self, context):
        listed = getattr(self.finder, "find_distributions", lambda context: ())(context)
        return (found for found in listed if found.metadata["Name"] not in LEFT_OUT)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""

COMMAND = "from astrape.cli import main; main()"

LOADING = """
import sys
import astrape

for name in sys.argv[1:]:
    graph = astrape.load(name).eval()
    session = graph.stream(chunk=round(graph.period * 4 * next(iter(graph.inputs.values())).rate))
    for port in graph.inputs.values():
        assert port.rate > 0
print(len(sys.argv) - 1)
"""


def base() -> set[str]:
    """Distributions that a plain install brings, with all that they bring themselves, by canonical name."""
    found: set[str] = set()
    waiting = [("astrape", "")]
    while waiting:
        name, extra = waiting.pop()
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for line in required:
            requirement = Requirement(line)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            brought = canonicalize_name(requirement.name)
            if brought not in found:
                found.add(brought)
                waiting += [(brought, "")] + [(brought, wanted) for wanted in requirement.extras]
    return found


@functools.cache
def owners_of_modules() -> dict[str, list[str]]:
    """Distributions by the modules they install: reading the lists of all that is installed takes a second."""
    return dict(metadata.packages_distributions())


@functools.cache
def hidden() -> tuple[str, str]:
    """Modules and distributions that are installed, and that a plain install would not bring."""
    kept = base() | {"astrape", "pip", "setuptools"}
    modules = owners_of_modules()
    without = {
        module
        for module, owners in modules.items()
        if module not in sys.stdlib_module_names and not {canonicalize_name(owner) for owner in owners} & kept
    }
    others = {owner for owners in modules.values() for owner in owners if canonicalize_name(owner) not in kept}
    return ",".join(sorted(without)), ",".join(sorted(others))


@pytest.fixture(scope="module")
def plain() -> Iterator[Forks]:
    """Processes that have what a plain install has, PyTorch loaded and nothing of astrape."""
    forks = Forks(HIDING, *hidden())
    yield forks
    forks.close()


def bare(plain: Forks, program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A program in a process that has what a plain install has."""
    return plain.run(program, "-c", *map(str, words), environment={**os.environ, "COLUMNS": "100"})


def test_extras_are_hidden_and_what_is_given_is_not() -> None:
    names = set(hidden()[0].split(","))
    assert "pytest" in names
    assert not names & {"torch", "numpy", "soundfile", "networkx", "yaml", "hypothesis", "safetensors", "click"}
    for optional in ("onnxruntime", "matplotlib", "accelerate", "sounddevice", "starlette", "scipy"):
        installed = optional in owners_of_modules()
        assert (optional in names) == installed


def test_shipped_recipes_load_and_open_sessions(plain: Forks) -> None:
    # Those of astrape-vc's own size are made of the same modules, and take seconds each.
    small = [name for name in shipped_recipes() if not name.startswith("astrape-vc")]
    assert "astrape-mini" in small
    done = bare(plain, LOADING, *small)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(small)


def works(plain: Forks, *words: str | Path) -> str:
    done = bare(plain, COMMAND, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_speaks_without_pictures(plain: Forks, tmp_path: Path) -> None:
    assert "astrape[plot]" in works(plain, "demo", "--output", tmp_path)
    assert list(tmp_path.glob("*.wav"))


def test_files_are_converted_and_voices_built(plain: Forks, tmp_path: Path) -> None:
    works(plain, "voicebank", "build", SPEECH, "-o", tmp_path / "me.astrape")
    works(plain, "convert", SPEECH, "--target", tmp_path / "me.astrape", "-o", tmp_path / "out.wav")
    works(plain, "run", "dry-wet", SPEECH, tmp_path / "run.wav")
    assert (tmp_path / "out.wav").stat().st_size > 100_000
    assert (tmp_path / "run.wav").stat().st_size > 100_000


@pytest.mark.parametrize(
    "words", [("report", "astrape-vc"), ("recipes",), ("check", "echo"), ("recipes", "--block", "stft")]
)
def test_researchers_have_reports_checks_and_lists(plain: Forks, words: tuple[str, ...]) -> None:
    assert works(plain, *words)


def test_machine_code_is_exported_without_the_packages_of_onnx(plain: Forks, tmp_path: Path) -> None:
    """The export goes as far as the compiler, which takes half a minute; ``runtime/test_aoti.py`` does the rest."""
    words = ("export", "echo", "--format", "aoti", "-o", str(tmp_path / "made"))
    environment = {**os.environ, "COLUMNS": "100", "CXX": str(tmp_path / "none")}
    done = plain.run(COMMAND, "-c", *words, environment=environment)
    assert done.returncode == 1
    assert "format 'aoti' needs a C++ compiler" in done.stderr
    done = bare(plain, "from astrape.runtime.aoti import AotiSession; AotiSession('nowhere')")
    assert "nowhere/manifest.json: No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("live", "--seconds", "1"), "live"),
        (("live", "--list-devices"), "live"),
        (("studio",), "studio"),
        (("export", "echo", "-o", "made"), "export"),
        (("train-tiny", "--work", "work"), "tiny"),
        (("train-default", "--work", "work"), "default"),
        (("train-speaker", "--corpus", ".", "--work", "work", "-o", "made.safetensors"), "default"),
        (("corpus", "make", "parallel", "--work", "work"), "corpus"),
    ],
)
def test_what_needs_an_extra_names_it_in_one_line(
    plain: Forks, words: tuple[str, ...], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bare(plain, COMMAND, *words)
    assert done.returncode not in (0, 70), done.stderr
    said = done.stderr.strip().splitlines()
    assert f"astrape[{extra}]" in done.stderr, done.stderr
    assert "fault in astrape" not in done.stderr
    assert len(said) <= 2, done.stderr
