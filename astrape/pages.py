"""HTML pages from templates of the package: whatever is put into one is escaped."""

from __future__ import annotations

from importlib.resources import files

import jinja2

__all__ = ["templates"]


def templates(package: str) -> jinja2.Environment:
    """The templates in a package's folder ``assets``. A name that a template asks for and is not given is an error."""
    folder = files(package) / "assets"
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
