"""Options that the commands of caches share: where the corpus and the caches are, and what makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from astrape.commands.console import channel_option

__all__ = ["CACHE_ROOT", "corpus_option", "corpus_path", "folder_options", "maker_options"]

CACHE_ROOT = "cache"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def corpus_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--data``, ``--mic``, ``--channel`` and ``--cache``."""
    return _all(
        click.option(
            "--data",
            "--data-dir",
            "data",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="A folder of audio, VCTK's folder, or a manifest (TSV, CSV, JSONL).  [default: data, or the current "
            "folder where it has VCTK's layout]",
        ),
        click.option(
            "--mic",
            "microphone",
            type=click.Choice(["mic1", "mic2", "both"]),
            default="mic1",
            show_default=True,
            help="Of recordings by two microphones, as VCTK has them.",
        ),
        channel_option,
        click.option(
            "--cache",
            "--cache-dir",
            "root",
            type=click.Path(path_type=Path),
            default=CACHE_ROOT,
            show_default=True,
            metavar="FOLDER",
            help="The folder that holds all caches.",
        ),
    )(function)


def folder_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--wavlm-dir``, ``--speakers-dir`` and so on, one for each kind of cache."""
    helps = {
        "wavlm": "Folder of the features' cache, in --cache or absolute.  [default: after the features, as in "
        "wavlm_L4_200hz]",
        "speakers": "Folder of the speakers' cache.  [default: speakers]",
        "content": "Folder of the teacher's content.  [default: content]",
        "audio": "Folder of decoded recordings.  [default: after their rate, as in audio_44100hz]",
        "pitch": "Folder of the recordings' pitch.  [default: pitch]",
    }
    return _all(*(click.option(f"--{what}-dir", metavar="FOLDER", help=text) for what, text in helps.items()))(function)


def maker_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--weights``, ``--wavlm``, ``--teacher``, ``--teacher-dir`` and ``--device``."""
    path = click.Path(path_type=Path)
    return _all(
        click.option("--weights", type=path, metavar="FILE", help="Weights with the front end's: safetensors."),
        click.option("--wavlm", type=path, metavar="CHECKPOINT", help="A WavLM checkpoint for the front end."),
        click.option("--teacher", metavar="NAME", help="miocodec, offline or spectral.  [default: the recipe's]"),
        click.option("--teacher-dir", type=path, metavar="FOLDER", help="Where the teacher's weights are."),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N or mps."),
    )(function)


def corpus_path(given: Path | None, recorded: str | None = None) -> Path:
    """The corpus: what is given, else where a cache says that it was made of, where that is there, else the default.

    Raises:
        CorpusError: where there is none.
    """
    if given is not None:
        return given
    if recorded is not None and Path(recorded).exists():
        return Path(recorded)
    from astrape.corpus.layouts import default_corpus

    return default_corpus()


def _all(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate
