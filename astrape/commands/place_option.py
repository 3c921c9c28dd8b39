"""Options that are paths, or URLs of stores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from astrape.errors import PlaceError

if TYPE_CHECKING:
    from astrape.audio.places import Place

__all__ = ["LocalPath", "PlaceType", "local_path", "weights_option"]


class PlaceType(click.ParamType[Any]):
    """A path, or a URL that fsspec knows as a :class:`~astrape.audio.places.Place`; the shell completes paths."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | Place:
        from astrape.audio.places import anywhere

        return anywhere(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class LocalPath(click.Path):
    """A path of this machine, where something else than astrape reads or writes; a URL is refused in a line.

    Taken for a path, ``s3://bucket/work`` would be a folder ``s3:`` below the working folder.
    """

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(local_path(value, "" if param is None else param.opts[0]), param, ctx)


def local_path(value: str | os.PathLike[str], option: str) -> str:
    """The path as it was given to an option.

    Raises:
        PlaceError: for a URL.
    """
    from astrape.audio.places import Place

    path = os.fspath(value)
    if Place(path).path is None:
        raise PlaceError(f"{option} {path}: must be on this machine; hint: give a path, not a URL")
    return path


weights_option = click.option("--weights", type=PlaceType(), metavar="FILE", help="Weights, a safetensors file.")
