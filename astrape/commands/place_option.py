"""Options that are paths, or URLs of stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from astrape.audio.places import Place

__all__ = ["PlaceType", "weights_option"]


class PlaceType(click.ParamType[Any]):
    """A path, or a URL that fsspec knows as a :class:`~astrape.audio.places.Place`; the shell completes paths."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | Place:
        from astrape.audio.places import anywhere

        return anywhere(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


weights_option = click.option("--weights", type=PlaceType(), metavar="FILE", help="Weights, a safetensors file.")
