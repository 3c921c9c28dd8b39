"""Types of a graph as checkers and editors see them: one output is a tensor, several are a dict, nothing is Any."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

import astrape
from astrape.graph.recipe import Recipe, shipped_recipes
from astrape.graph.typed import SeveralOutputs

PROGRAM = """
from pathlib import Path
import torch
from torch import Tensor
import astrape

x = torch.zeros(1, 1, 100)
one = astrape.load("echo")
reveal_type(one(x, wet=0.5))
reveal_type(one.stream(chunk=100).push(x))
reveal_type(one.stream().flush())
reveal_type([piece for piece in one.stream().compensated([x])])
reveal_type(one.step(x, one.init_state(1))[0])
reveal_type(astrape.load(Path("mine.yaml")).deploy()(x))
reveal_type(astrape.compile({"recipe": "mine"}).stream().push(x))

several = astrape.load("astrape-vc")
reveal_type(several(x))
reveal_type(several.stream().push(x))
own: astrape.Graph[dict[str, Tensor]] = astrape.load("mine.yaml")
reveal_type(own.stream().push({"mic": x}))

reveal_type(one.report().to_dict)
reveal_type(one.stream().positions)
reveal_type(astrape.__version__)
one(x).shape
several(x)["wav"].shape
several(x).shape
astrape.no_such_name_at_all
"""

TORCH = {
    "__init__.pyi": """
from typing import Any
class Tensor:
    shape: tuple[int, ...]
    def __getattr__(self, name: str) -> Any: ...
def zeros(*size: int) -> Tensor: ...
def __getattr__(name: str) -> Any: ...
""",
    "nn/__init__.pyi": """
from collections.abc import Callable
from typing import Any
from torch import Tensor
class Module:
    __call__: Callable[..., Any]
    def __getattr__(self, name: str) -> Tensor | Module: ...
def __getattr__(name: str) -> Any: ...
""",
}
"""PyTorch as far as these types go: mypy reads all of PyTorch itself for most of a minute, and of this for a second."""

SEEN = [
    "Tensor", "Tensor", "Tensor", "list[Tensor]", "Tensor", "Tensor", "Tensor",
    "dict[str, Tensor]", "dict[str, Tensor]", "dict[str, Tensor]",
    "def () -> dict[str, Any]", "dict[str, int]", "str",
]  # fmt: skip


def test_mypy_knows_what_a_graph_returns(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    for name, stub in TORCH.items():
        path = tmp_path / "stubs" / "torch" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(stub)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", "--cache-dir", tmp_path,
         "--no-site-packages", "--ignore-missing-imports", program],
        capture_output=True, text=True, cwd=Path(astrape.__file__).parents[1],
        env=os.environ | {"MYPYPATH": str(tmp_path / "stubs")},
    )  # fmt: skip
    seen = [text.replace("torch.", "") for text in re.findall(r'Revealed type is "([^"]*)"', done.stdout)]
    assert seen == SEEN, done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 2, done.stdout
    for line, said in zip(errors, ('"shape"', "no_such_name"), strict=True):
        assert said in line


def test_shipped_recipes_with_several_outputs_are_those_that_load_knows() -> None:
    several = {name for name in shipped_recipes() if len(Recipe.load(name).outputs) > 1}
    assert set(get_args(SeveralOutputs)) == several, "graph/typed.py lists the recipes with several outputs"


def test_graphs_and_sessions_can_be_annotated_at_run_time() -> None:
    graph: astrape.Graph[Tensor] = astrape.load("echo")
    session: astrape.Session[Tensor] = graph.stream()
    assert isinstance(graph, astrape.Graph)
    assert isinstance(session, astrape.Session)
    assert astrape.Graph[dict[str, Tensor]] is not None
    assert isinstance(session.push(torch.zeros(1, 1, 10)), Tensor)
