"""Parts of pages that are made from the code agree with it, and pages read well without being built."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(text: str) -> list[str]:
    """Words of a text, however it is wrapped; blocks of other tests are left out."""
    lines = [line for line in text.splitlines() if not line.startswith("| `test_")]
    return re.sub(r"-{3,}", "", " ".join(lines)).split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_the_code_says(page: Path, hooks: ModuleType) -> None:
    text = page.read_text(encoding="utf-8")
    assert words(hooks.made(text)) == words(text), f"{page.name} is out of date: run `python docs/hooks.py`"


def test_every_command_is_on_the_page_of_the_command(hooks: ModuleType) -> None:
    from astrape.cli import cli

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^<!-- help ([\w-]+) -->$", text, re.M)) == set(cli.commands)
    assert hooks.made(text.replace("Usage: astrape demo", "Usage: nothing")) != text.replace("Usage: astrape demo", "x")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_a_page_reads_well_where_nothing_is_built(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    assert "{{" not in plain
    assert not re.search(r"^(:::|!!!|\?\?\?) ", plain, re.M)


def test_parts_are_replaced_and_nothing_else(hooks: ModuleType) -> None:
    page = "before\n\n<!-- help echo-like -->\nold\n<!-- /help other -->\n\nafter\n"
    assert hooks.made(page) == page
    page = "before\n\n<!-- help graph -->\n<!-- /help graph -->\n\nafter\n"
    made = hooks.made(page)
    assert made.startswith("before\n\n<!-- help graph -->\n\n```text\n$ astrape graph --help\n")
    assert made.endswith("```\n\n<!-- /help graph -->\n\nafter\n")
    assert hooks.made(made) == made
