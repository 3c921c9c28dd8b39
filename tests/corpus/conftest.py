from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.corpus.tiny_packages import Packages


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """espeak-ng and flite are stand-ins, in the processes that tests start too."""
    from tests.corpus.tiny_programs import write_programs

    folder = write_programs(tmp_path_factory.mktemp("programs"))
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    yield
    os.environ["PATH"] = before


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("pyworld")
    pytest.importorskip("av")
    from tests.corpus.tiny_packages import Packages

    return Packages(tmp_path_factory.mktemp("registry") / "archives")


@pytest.fixture
def work(packages: Packages, tmp_path: Path) -> Path:
    """A corpus with its packages at hand and nothing rendered."""
    return packages.put(tmp_path / "corpus")


@pytest.fixture(scope="session")
def whole(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of all sources; not to be changed."""
    made = packages.put(tmp_path_factory.mktemp("whole") / "corpus")
    done = packages.make(made, flite=0.002, recordings=True, warps=0.5)
    assert not done.failed
    return made
