"""The demonstration's page: players before and after, spectrograms, the numbers of the run, what to try next."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from astrape.audio.atomic import atomic_path

__all__ = ["write_page"]

NEXT = (
    ("Your own speech in that voice", "astrape convert speech.wav --target emma -o out.wav"),
    ("Anyone's voice, from a few seconds of it", "astrape convert speech.wav --target reference.wav -o out.wav"),
    ("Where every millisecond comes from", "astrape report astrape-mini --measure"),
)


def write_page(facts: Mapping[str, Any], path: Path) -> None:
    """Write the page beside the files that it plays and shows.

    Args:
        facts: as :meth:`~astrape.voice.demo.Demo.facts` gives them.
        path: the HTML file.
    """
    place = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("astrape.voice") / "assets" / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(place.get_template("demo.html").render(facts=facts, next=NEXT), encoding="utf-8")
