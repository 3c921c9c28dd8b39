from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.audio import IDENTITY


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "identity.yaml"
    path.write_text(IDENTITY)
    return path
