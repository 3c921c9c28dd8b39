"""Parts of the documentation that are made from the code: help texts, blocks, tables.

``python docs/hooks.py`` writes them into the pages anew; a test fails where that was forgotten. In a page, such a part
begins with a comment that names its source, and ends with the same and a slash:

- ``<!-- blocks -->``: the table of all registered blocks,
- ``<!-- help COMMAND -->``: a command's help,
- ``<!-- output COMMAND -->``: what a command prints,
- ``<!-- sources -->``: what corpora are made of, with licences.

References, which are long and linked, are made for the site alone, from a line of their own in a page:

- ``{{ reference MODULE }}``: the reference of every public name of a module,
- ``{{ families }}``: that of every module with blocks.

Pictures of graphs are in ``pictures/``, and are drawn anew by the same command.
"""

from __future__ import annotations

import inspect
import io
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import astrape
from astrape.blocks import block_class, block_names
from astrape.corpus.packages import PACKAGES
from astrape.corpus.sources import SOURCES
from astrape.graph.report.drawing import save_graph_picture

DOCS = Path(__file__).resolve().parent
DRAWN = ("dry-wet", "multirate")

MADE = re.compile(
    r"^<!-- (?P<what>blocks|help|output|sources)(?: (?P<of>[\w -]+))? -->\n.*?^<!-- /(?P=what)(?: (?P=of))? -->$",
    re.M | re.S,
)


def own_blocks() -> list[str]:
    """Blocks of the package: in a process of tests there are others."""
    return [name for name in block_names() if block_class(name).__module__.startswith("astrape.")]


def on_page_markdown(markdown: str, **_: Any) -> str:
    markdown = made(markdown, linked=True)
    markdown = re.sub(r"^{{ families }}$", lambda _: families(), markdown, flags=re.M)
    return re.sub(r"^{{ reference ([\w.]+) }}$", lambda found: reference(found[1]), markdown, flags=re.M)


def made(markdown: str, linked: bool = False) -> str:
    """A page with all that is taken from the code as the code is now; ``linked``: with links into the reference."""

    def replaced(found: re.Match[str]) -> str:
        what, of = found["what"], found["of"]
        if what == "blocks":
            text = block_table(linked)
        elif what == "sources":
            text = source_table()
        else:
            text = output(*of.split(), *["--help"] * (what == "help"))
        name = f"{what} {of}" if of else what
        return f"<!-- {name} -->\n\n{text.strip()}\n\n<!-- /{name} -->"

    return MADE.sub(replaced, markdown)


def write() -> None:
    """Bring the pages and the pictures up to date."""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        whole = text + (lacking_commands(text) if page.name == "cli.md" else "")
        if (now := made(whole)) != text:
            page.write_text(now, encoding="utf-8")
            print(f"{page.relative_to(DOCS.parent)}: brought up to date")
    for name in DRAWN:
        save_graph_picture(astrape.load(name), DOCS / "pictures" / f"{name}.svg")


def lacking_commands(text: str) -> str:
    """Sections, to be filled, of commands that the page has none of."""
    from astrape.cli import cli

    names = [name for name in cli.commands if f"<!-- help {name} -->" not in text]
    return "".join(f"\n## {name}\n\n<!-- help {name} -->\n<!-- /help {name} -->\n" for name in names)


def block_table(linked: bool = False) -> str:
    rows = io.StringIO()
    rows.write("| `use` | does | parameters, with their defaults |\n|---|---|---|\n")
    for name in own_blocks():
        cls = block_class(name)
        place = f"{cls.__module__}.{cls.__name__}"
        known = linked and place.startswith("astrape.")
        shown = f"[`{name}`](reference/blocks.md#{place})" if known else f"`{name}`"
        rows.write(f"| {shown} | {_cell(_summary(cls))} | {_cell(', '.join(_parameters(cls))) or '-'} |\n")
    return rows.getvalue()


def source_table() -> str:
    rows = ["| source | licence | by | packages | for |", "|---|---|---|---|---|"]
    for source in SOURCES:
        packages = ", ".join(f"`{name}` {PACKAGES[name].version}" for name in source.packages) or "the system's program"
        use = "evaluation only" if source.use == "evaluate" else "training"
        rows.append(f"| {source.name} | {source.licence} | {_cell(source.by)} | {packages} | {use} |")
    return "\n".join(rows)


def output(*arguments: str) -> str:
    """A command line and what a command prints, as a fence."""
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
    modules = sorted({block_class(name).__module__ for name in own_blocks()})
    own = [module for module in modules if module.startswith("astrape.")]
    return "\n\n".join(f"## {module.rpartition('.')[2]}\n\n{reference(module, level=3)}" for module in own)


def _summary(cls: type) -> str:
    text = (inspect.getdoc(cls) or "").partition("\n\n")[0]
    plain = re.sub(r":\w+:`~?(?:[\w.]*\.)?([^`]*)`", r"`\1`", text.replace("``", "`"))
    return " ".join(plain.split())


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


if __name__ == "__main__":
    write()
