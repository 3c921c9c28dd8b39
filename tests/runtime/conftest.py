"""Exports that take long to make, made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from astrape.cli import cli
from astrape.runtime.export import export
from tests.operators import read_once
from tests.runtime.exports import skip_without_compiler, small


@pytest.fixture(scope="package", autouse=True)
def _operators() -> Iterator[None]:
    with read_once():
        yield


@pytest.fixture(scope="session")
def onnx_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small graph for ONNX Runtime and two streams, with a licence and a card."""
    path = tmp_path_factory.mktemp("exports") / "onnx"
    export(small(), path, batch_size=2, about={"licence": "CC0", "card": "card.md"})
    return path


@pytest.fixture(scope="session")
def mini_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """astrape-mini for ONNX Runtime, made by the command, which says what it did."""
    path = tmp_path_factory.mktemp("exports") / "astrape-mini"
    done = CliRunner().invoke(cli, ["export", "astrape-mini", "-o", str(path), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["recipe"], said["licence"], said["step_seconds"]) == ("astrape-mini", "MIT", "1/100")
    assert max(said["onnx"]["difference_db"].values()) < -100
    return path


@pytest.fixture(scope="session")
def aoti_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small graph, compiled ahead of time for two streams."""
    skip_without_compiler()
    path = tmp_path_factory.mktemp("exports") / "aoti"
    export(small(), path, batch_size=2, formats=["aoti"])
    return path
