"""The layers of the package, read from its imports: those inside functions and under TYPE_CHECKING count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

import astrape

ROOT = Path(astrape.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "progress", "wording"),
    ("named", "pages", "settings"),
    ("jobs",),
    ("portable",),
    ("audio",),
    ("blocks.base", "blocks.parameters", "blocks.state", "blocks.split"),
    ("blocks.policy", "blocks.live", "blocks.registry"),
    ("blocks.ops",),
    ("blocks",),
    ("capture",),
    ("measure",),
    ("graph.recipe",),
    ("graph.compile",),
    ("graph.checksums", "graph.fitting", "graph.text", "graph.typed"),
    ("graph.firing",),
    ("graph.network",),
    ("graph.hosted", "graph.subgraph", "graph.weights"),
    ("graph.quantum", "graph.backends"),
    ("graph.session",),
    ("graph.report",),
    ("graph",),
    ("testing",),
    ("audio.resampling",),
    ("corpus",),
    ("runtime",),
    ("voice.checkpoint.archive",),
    ("voice",),
    ("voice.checkpoint", "voice.evaluation"),
    ("studio",),
    ("training.errors", "training.names", "training.pairing", "training.tables", "training.voicing"),
    ("training.augment", "training.objectives", "training.teachers"),
    ("training.caches",),
    ("training",),
    ("training.default", "training.held_out", "training.speaker", "training.tiny"),
    ("commands",),
    ("", "cli", "__main__", "build_voicebank", "cache", "check_cache", "evaluate"),
    ("train_decoder", "train_encoder", "train_voice"),
)
"""From the lowest to the highest. A module belongs to the longest name that it begins with, and imports its own layer
and lower ones. The empty name is ``astrape/__init__.py``, which hands out names of all layers."""

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""Imports from a higher layer that are known, with the reason why each is still there."""

CIRCLES: tuple[frozenset[str], ...] = ()
"""Modules that import each other and are known to."""


def modules() -> dict[str, Path]:
    """Every module of the package by its name without ``astrape.``; a package goes by the name of its folder."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in its text it does."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name.removeprefix("astrape.") for a in node.names if a.name.startswith("astrape."))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = ("astrape." + package).split(".") if package else ["astrape"]
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            if base == "astrape" or base.startswith("astrape."):
                inner = base.removeprefix("astrape").removeprefix(".")
                for alias in node.names:
                    longer = f"{inner}.{alias.name}".removeprefix(".")
                    yield longer if longer in MODULES else inner


def layer(name: str) -> int:
    """The number of a module's layer."""
    depth = {prefix: number for number, prefixes in enumerate(LAYERS) for prefix in prefixes}
    while name not in depth:
        shorter = name.rpartition(".")[0]
        assert shorter, f"'{name}' belongs to no layer: add it to LAYERS"
        name = shorter
    return depth[name]


def arrows() -> set[tuple[str, str]]:
    return {(name, target) for name in MODULES for target in imports(name) if target != name}


def test_every_layer_imports_from_itself_and_lower_ones_alone() -> None:
    upward = {(name, target) for name, target in arrows() if layer(target) > layer(name)}
    new = sorted(f"{name} imports {target}" for name, target in upward - EXCEPTIONS.keys())
    assert not new, "imports from a higher layer: move what is shared down:\n" + "\n".join(new)
    gone = sorted(f"{name} imports {target}" for name, target in EXCEPTIONS.keys() - upward)
    assert not gone, "exceptions that are no longer needed: take them off the list:\n" + "\n".join(gone)


def test_no_modules_import_each_other() -> None:
    graph = nx.DiGraph(sorted(arrows()))
    circles = {frozenset(found) for found in nx.strongly_connected_components(graph) if len(found) > 1}
    new = [" and ".join(sorted(found)) for found in circles - set(CIRCLES)]
    assert not new, "modules that import each other: " + "; ".join(new)
    assert not set(CIRCLES) - circles, "circles that are broken: take them off the list"


@pytest.mark.parametrize("prefix", [prefix for prefixes in LAYERS for prefix in prefixes])
def test_every_layer_is_there(prefix: str) -> None:
    assert any(name == prefix or name.startswith(f"{prefix}.") for name in MODULES), f"'{prefix}' names nothing"


def test_imports_are_found_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
from typing import TYPE_CHECKING
from .conv import Conv
if TYPE_CHECKING:
    from astrape.graph import Graph
def late():
    import astrape.voice.names
    from astrape.blocks import base
    from .. import errors
"""
    path = tmp_path / "new.py"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setitem(MODULES, "blocks.new", path)
    assert set(imports("blocks.new")) == {"blocks.conv", "graph", "voice.names", "blocks.base", "errors"}
