"""Every snippet of the README and of the documentation runs, and says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from astrape.voice.evaluation import registry
from tests.docs.snippets import Page, snippets

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # What a page registers is gone behind it: other tests count what there is.
    monkeypatch.setattr(registry, "_FACTORIES", dict(registry._FACTORIES))
    known = {"python", "yaml", "console", "text", "sh", "toml", "json", "cpp", "js"}
    assert {snippet.kind for snippet in snippets(page)} <= known
    Page(page).run()


def test_fragments_are_few() -> None:
    notes = [snippet.note for page in PAGES for snippet in snippets(page) if snippet.kind in ("python", "yaml")]
    assert len(notes) > 30
    assert notes.count("fragment") <= len(notes) // 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_snippet_that_fails_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = "recipe: a\ninputs: {mic: {rate: 8, channels: 1}}\nblocks: {g: {use: gain, gain: 1}}\noutputs: {y: g}\n"
    wrong = {
        "python": "```python\nx = 1\n```\n```python\nassert x == 2\n```\n",
        "doctest": "```python\n>>> 1 + 1\n3\n```\n",
        "yaml": f"```yaml\n{good.replace('use: gain', 'use: gian')}```\n",
        "refused": f"<!-- refused -->\n```yaml\n{good}```\n",
        "message": f"<!-- refused -->\n```yaml\n{good.replace('y: g', 'y: h')}```\n```text\nRecipeError: no\n```\n",
        "console": "```console\n$ astrape --version\n9.9\n```\n",
    }
    for name, text in wrong.items():
        page = tmp_path / f"{name}.md"
        page.write_text(text, encoding="utf-8")
        failures = (AssertionError, pytest.fail.Exception)
        with pytest.raises(failures):
            Page(page).run()
