"""Inputs of ``astrape evaluate``: pairs, a folder for the results, and the system that converts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from astrape.commands.console import parse_settings
from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.voice.evaluation.pairs import Pair
    from astrape.voice.evaluation.systems import Conversions, System

__all__ = ["CONVERTED", "check_targets", "converting", "pairs_of", "places_for"]

CONVERTED = "converted"
"""Folder of the converted files in that of the run."""


def pairs_of(
    source: Path | None,
    target: Path | None,
    sources: Sequence[Path],
    targets: Sequence[Path],
    table: Path | None,
    own_voice: bool,
    target_audio: Path | None,
    text: str | None,
    converted: Path | None,
) -> list[Pair]:
    from astrape.voice.evaluation import pairs
    from astrape.voice.evaluation.recording import Recording

    given = [name for name, is_there in (("--source", source), ("--sources", sources), ("--pairs", table)) if is_there]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise AstrapeError(f"what to evaluate is --source, --sources or --pairs, exactly one of them, not {found}")
    if table is not None:
        if target or targets or target_audio or own_voice or text:
            raise AstrapeError("--pairs: its columns say what goes with what: leave targets, audio and text out")
        return pairs.read_pairs(table)
    if source is not None:
        if sources or targets:
            raise AstrapeError("--source goes with --target; --sources and --targets are for sets")
        # Refused here rather than by the first metric: nothing is loaded yet.
        Recording(source)
        said = [pairs.utterance(source, text)]
        voices = [] if target is None else [target]
    else:
        if target or text:
            raise AstrapeError("--sources goes with --targets; --target and --text are for one --source")
        said, voices = pairs.read_sources(sources), list(targets)
    if own_voice and not voices and target_audio is None:
        return pairs.own_voices(said)
    if not voices and converted is not None:
        voice = None if target_audio is None else pairs.Target(target_audio.stem, (target_audio,), target_audio)
        return [pairs.Pair(one, voice, own_voice=own_voice) for one in said]
    if not voices:
        raise AstrapeError("there is no voice to convert to: name one with --target or --targets, or say --own-voice")
    targeted = pairs.read_targets(voices, target_audio)
    return [replace(pair, own_voice=own_voice) for pair in pairs.all_pairs(said, targeted)]


def places_for(out: Path | None, single: bool, converted: bool) -> tuple[Path, Path | None]:
    """The folder for results, and the one file to write instead."""
    if out is None:
        if single and converted:
            return Path(), None
        raise AstrapeError("there is no place for the results: name one with --output")
    if single and not converted:
        if out.is_dir():
            raise AstrapeError(f"{out}: is a folder, and --source is one file: name a file")
        return out.parent, out
    if out.exists() and not out.is_dir():
        raise AstrapeError(f"{out}: is not a folder, and a run is written to one: name another")
    from astrape.audio.atomic import make_folder

    make_folder(out)
    return out, None


def converting(
    recipe: str,
    weights: Path | None,
    port: str | None,
    encoder: str | None,
    chunk_ms: float,
    settings: tuple[str, ...],
    folder: Path,
    wanted: Path | None,
) -> Conversions:
    from astrape.graph.recipe import Recipe
    from astrape.voice.conversion import CODES, Converter
    from astrape.voice.evaluation.systems import Conversions

    controls = parse_settings(settings)
    if "speaker" in controls:
        raise AstrapeError("--set speaker: the speaker is what the targets give")
    converter = Converter.load(recipe, weights, output=port, codes=CODES in Recipe.load(recipe).outputs)
    return Conversions(
        converter,
        folder / CONVERTED,
        out=wanted,
        encoder=encoder,
        weights=None if converter.weights is None else Path(converter.weights),
        chunk_ms=chunk_ms,
        controls=controls,
    )


def check_targets(system: System, pairs: Sequence[Pair], own_voice: bool) -> None:
    """Refuse a target that is not a voice before anything is converted, once and not for each pair.

    Raises:
        AstrapeError: for the first of them.
    """
    from astrape.voice.evaluation.systems import Conversions

    if own_voice or not isinstance(system, Conversions):
        return
    for pair in pairs:
        if pair.target is not None:
            system.voice(pair.target)
