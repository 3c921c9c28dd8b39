"""The demonstration's page: players before and after, spectrograms, the numbers of the run, what to try next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astrape.audio.atomic import atomic_path
from astrape.pages import templates

__all__ = ["write_page"]

NEXT = (
    ("Your own speech in that voice", "astrape convert speech.wav --target emma -o out.wav"),
    (
        "Anyone's voice, from five seconds of it or more, with their consent",
        "astrape convert speech.wav --target reference.wav -o out.wav",
    ),
    ("Where every millisecond comes from", "astrape report astrape-mini --measure"),
)


def write_page(facts: Mapping[str, Any], path: Path) -> None:
    """Write the page beside the files that it plays and shows.

    Args:
        facts: as :meth:`~astrape.voice.demo.Demo.facts` gives them.
        path: the HTML file.
    """
    page = templates("astrape.voice").get_template("demo.html").render(facts=facts, next=NEXT)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
