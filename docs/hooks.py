"""What the documentation says of the code is taken from the code, when it is built.

In a page, these stand for something on a line of their own:

- `{{ blocks }}`: the table of all registered blocks,
- `{{ help COMMAND }}`: what a command says of itself,
- `{{ output COMMAND }}`: what it prints,
- `{{ reference MODULE }}`: the reference of every public name of a module,
- `{{ families }}`: that of every module with blocks.

Pictures of graphs are drawn into `pictures/`.
"""

from __future__ import annotations

import inspect
import io
import re
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import astrape
from astrape.blocks import block_class, block_names
from astrape.graph.picture import save_graph_picture

DRAWN = ("voice-changer", "dry-wet", "multirate", "echo")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        for name in DRAWN:
            picture = Path(folder) / f"{name}.svg"
            save_graph_picture(astrape.load(name), picture)
            files.append(File.generated(config, f"pictures/{name}.svg", content=picture.read_bytes()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = re.sub(r"^{{ blocks }}$", lambda _: block_table(), markdown, flags=re.M)
    markdown = re.sub(r"^{{ help ([\w-]+) }}$", lambda found: output(found[1], "--help"), markdown, flags=re.M)
    markdown = re.sub(r"^{{ output ([\w-]+) }}$", lambda found: output(found[1]), markdown, flags=re.M)
    markdown = re.sub(r"^{{ families }}$", lambda _: families(), markdown, flags=re.M)
    return re.sub(r"^{{ reference ([\w.]+) }}$", lambda found: reference(found[1]), markdown, flags=re.M)


def block_table() -> str:
    rows = io.StringIO()
    rows.write("| `use` | does | parameters, with their defaults |\n|---|---|---|\n")
    for name in block_names():
        cls = block_class(name)
        place = f"{cls.__module__}.{cls.__name__}"
        shown = f"[`{name}`](reference/blocks.md#{place})" if place.startswith("astrape.") else f"`{name}`"
        rows.write(f"| {shown} | {_cell(_summary(cls))} | {_cell(', '.join(_parameters(cls))) or '-'} |\n")
    return rows.getvalue()


def output(*arguments: str) -> str:
    """A command line and what it prints, as a fence."""
    from astrape.cli import cli

    done = CliRunner().invoke(cli, arguments, prog_name="astrape", terminal_width=100)
    assert done.exit_code == 0, done.output
    return f"```text\n$ astrape {' '.join(arguments)}\n{done.output.rstrip()}\n```"


def reference(module: str, level: int = 2) -> str:
    """A mkdocstrings entry for every public name that is defined in a module."""
    public = import_module(module)
    names = [name for name in public.__all__ if getattr(getattr(public, name), "__module__", None) == module]
    return "\n\n".join(f"::: {module}.{name}\n    options:\n      heading_level: {level}" for name in names)


def families() -> str:
    """All modules that register blocks, a section each."""
    modules = sorted({block_class(name).__module__ for name in block_names()})
    own = [module for module in modules if module.startswith("astrape.")]
    return "\n\n".join(f"## {module.rpartition('.')[2]}\n\n{reference(module, level=3)}" for module in own)


def _summary(cls: type) -> str:
    text = (inspect.getdoc(cls) or "").partition("\n\n")[0]
    return " ".join(text.replace("``", "`").split())


def _parameters(cls: type) -> list[str]:
    listed = list(inspect.signature(cls.__init__).parameters.values())[2:]
    return [
        f"`{item.name}`" + ("" if item.default is item.empty else f" = {_default(item.default)}")
        for item in listed
        if item.kind in (item.KEYWORD_ONLY, item.POSITIONAL_OR_KEYWORD)
    ]


def _default(value: Any) -> str:
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value).lower()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
