"""The audio room imports nothing of astrape but its errors; resampling, the graph too."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import astrape.audio

FILES = sorted(Path(astrape.audio.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_the_audio_room_imports(path: Path) -> None:
    allowed = ["astrape.errors", "astrape.wording", "astrape.audio"]
    if path.stem == "resampling":
        allowed += ["astrape.blocks", "astrape.graph"]
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            assert not name.startswith("astrape") or name.startswith(tuple(allowed)), f"{path.name} imports {name}"
            assert name.partition(".")[0] != "torch" or path.stem == "resampling", f"{path.name} imports torch"


def test_nobody_else_reads_or_writes_audio_files() -> None:
    root = Path(astrape.audio.__file__).parent.parent
    found = [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*.py"))
        if path.parent.name != "audio" and "import soundfile" in path.read_text()
    ]
    # A set of a corpus is checked in memory, with its checksum.
    assert found == ["corpus/sets.py"]
