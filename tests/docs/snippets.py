"""Snippets of a Markdown page: found, and run as a reader would.

A page is a session. Its fences are run in order, in one namespace and one folder:

- ``python``: executed; with ``>>>`` in it, as a doctest. A first line ``# NAME.py`` also saves it under that name.
- ``yaml``: a recipe, compiled; a first line ``# NAME.yaml`` also saves it under that name.
- ``console``: lines that begin with ``$ astrape`` are run, and what follows is what they must print.
- ``text`` after a recipe that is announced by ``<!-- refused -->``: what the refusal must say.
- ``sh`` and everything else: shown, not run.

``<!-- fragment -->`` before a fence says that it is a part of something, and not to be run.
"""

from __future__ import annotations

import doctest
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import astrape

__all__ = ["Page", "Snippet", "snippets"]

_FENCE = re.compile(r"(?:<!-- *(?P<note>fragment|refused) *-->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_NAMED = re.compile(r"# ([\w-]+\.(?:ya?ml|py))\s*$")


@dataclass(frozen=True)
class Snippet:
    """One fence: its kind, its text, the line it begins at, and what is noted before it."""

    kind: str
    text: str
    line: int
    note: str | None


def snippets(page: Path) -> list[Snippet]:
    """All fences of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(found["kind"], found["text"], text.count("\n", 0, found.start("text")) + 1, found["note"])
        for found in _FENCE.finditer(text)
    ]


class Page:
    """Runs the snippets of one page, in the current folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.namespace: dict[str, Any] = {"__name__": "page"}
        self.refusal: str | None = None

    def run(self) -> int:
        """Run all; return how many there were to run."""
        done = 0
        for snippet in snippets(self.path):
            runner = getattr(self, f"_{snippet.kind}", None)
            if runner is None or snippet.note == "fragment":
                continue
            try:
                runner(snippet)
            except Exception as error:
                raise AssertionError(f"{self.path.name}:{snippet.line}: {type(error).__name__}: {error}") from error
            done += 1
        return done

    def _python(self, snippet: Snippet) -> None:
        _save(snippet)
        if ">>>" in snippet.text:
            parser = doctest.DocTestParser()
            test = parser.get_doctest(snippet.text, self.namespace, self.path.name, str(self.path), snippet.line)
            report: list[str] = []
            doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append, clear_globs=False)
            assert not report, "".join(report)
            self.namespace.update(test.globs)
        else:
            source = "\n" * (snippet.line - 1) + snippet.text
            exec(compile(source, str(self.path), "exec"), self.namespace)

    def _yaml(self, snippet: Snippet) -> None:
        name = _save(snippet) or "recipe.yaml"
        Path(name).write_text(snippet.text, encoding="utf-8")
        if snippet.note != "refused":
            astrape.load(name)
            return
        with pytest.raises(astrape.RecipeError) as caught:
            astrape.load(name)
        self.refusal = f"{type(caught.value).__name__}: {caught.value}"

    def _text(self, snippet: Snippet) -> None:
        if self.refusal is not None:
            told, refusal = " ".join(snippet.text.split()), " ".join(self.refusal.split())
            assert told == refusal, f"the refusal is\n{refusal}"
            self.refusal = None

    def _console(self, snippet: Snippet) -> None:
        from astrape.cli import cli

        for entered in re.split(r"^\$ ", snippet.text, flags=re.M)[1:]:
            line, _, expected = entered.partition("\n")
            program, *arguments = shlex.split(line)
            assert program == "astrape", line
            done = CliRunner().invoke(cli, arguments)
            assert _tidy(done.output) == _tidy(expected), f"{line} prints\n{done.output}"


def _save(snippet: Snippet) -> str | None:
    named = _NAMED.match(snippet.text.partition("\n")[0])
    if named is not None:
        Path(named[1]).write_text(snippet.text, encoding="utf-8")
    return named[1] if named else None


def _tidy(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
