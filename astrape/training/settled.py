"""The recipe and training section of a run: as written, as a command line changes them, as a checkpoint insists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrape.graph import compile
from astrape.graph.recipe import Recipe
from astrape.training.architecture import changed, standalone
from astrape.training.errors import TrainingError
from astrape.training.options import Options
from astrape.training.settings import Setting, apply, hold_against

__all__ = ["RECIPE", "settled_recipe"]

RECIPE = "astrape-vc"


def settled_recipe(
    options: Options,
    state: Mapping[str, Any] | None,
    borrowed: Mapping[str, Any] | None,
    path: str,
    processes: int,
) -> tuple[Recipe, dict[str, Any], list[str]]:
    """The settled recipe and training section, and lines on what differs from what is written."""
    if state is not None:
        recipe = Recipe.parse(state["recipe"], file=f"the recipe of {path}")
        if options.recipe is not None:
            _same_recipe(Recipe.load(options.recipe), recipe, options, path)
        section = dict(state["section"])
    else:
        told = None if borrowed is None else borrowed.get("recipe")
        if options.recipe is None and told is not None:
            recipe = Recipe.parse(told, file=f"the recipe of {options.encoder}")
        else:
            recipe = Recipe.load(options.recipe or RECIPE)
        section = dict(recipe.training)
    if options.teacher is not None:
        section["teacher"] = {
            **(dict(section.get("teacher", {})) if "use" not in options.teacher else {}),
            **options.teacher,
        }
    other, notes = changed(recipe, options.stage, options.changes)
    if state is not None and notes:
        raise TrainingError(f"{path}: cannot go on with other sizes: {'; '.join(notes)} in the checkpoint")
    section, said = apply(section, options.stage, [*options.settings, *_lengths(section, recipe, options)])
    if state is not None:
        _share_out(section, state, options, processes)
        said = [f"resuming: {line}" for line in hold_against(_shared(state["section"]), _shared(section), path)]
    return other, section, [*notes, *said]


def _share_out(section: dict[str, Any], state: Mapping[str, Any], options: Options, processes: int) -> None:
    """Keep the number of windows in a step, whatever the number of processes now, unless the command line sets it."""
    if any(setting.path == ("batch",) for setting in options.settings):
        return
    at_once = int(state["facts"]["windows at once"])
    if at_once % processes:
        raise TrainingError(
            f"the checkpoint takes {at_once} windows in a step, which {processes} processes cannot share"
        )
    section[options.stage] = dict(section[options.stage]) | {"batch": at_once // processes}


def _shared(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section without each process's part of the batch, whose sum is one of the facts."""
    return {
        key: {name: one for name, one in value.items() if name != "batch"} if isinstance(value, Mapping) else value
        for key, value in section.items()
    }


def _lengths(section: Mapping[str, Any], recipe: Recipe, options: Options) -> list[Setting]:
    """Epochs of the phases from those in all and those of the first, and a window from frames of content."""
    stage = dict(section.get(options.stage) or {})
    phases = list(stage.get("phases") or [])
    settings = []
    if phases:
        counts = [int(phase.get("epochs", 0)) for phase in phases]
        first = counts[0] if options.warmup_epochs is None else options.warmup_epochs
        if options.warmup_epochs is not None and len(phases) == 1:
            raise TrainingError(
                f"--warmup-epochs {first}: training.{options.stage} of '{recipe.name}' has one phase only"
            )
        whole = options.epochs
        if whole is not None and whole < first + sum(counts[1:-1]):
            first = whole - sum(counts[1:-1]) if options.warmup_epochs is None else first
            if first < 0 or whole < first + sum(counts[1:-1]):
                raise TrainingError(f"--epochs {whole}: is less than the phases before the last take ({first})")
        new = [first, *counts[1:]] if len(phases) > 1 else [whole or first]
        if whole is not None and len(phases) > 1:
            new[-1] = whole - sum(new[:-1])
        flags = "--warmup-epochs" if whole is None else "--epochs"
        settings += [Setting(flags, ("phases", i, "epochs"), n) for i, n in enumerate(new) if n != counts[i]]
    elif options.epochs is not None:
        settings.append(Setting("--epochs", ("epochs",), options.epochs))
    if options.content_frames is not None:
        graph = compile(recipe, training=True)
        entry = str(section["features"])
        rate = graph.outputs[entry].rate if entry in graph.outputs else graph.inputs[entry].rate
        if "content" not in graph.outputs:
            raise TrainingError(f"--max-frames {options.content_frames}: '{recipe.name}' has no output 'content'")
        frames = options.content_frames * rate / graph.outputs["content"].rate
        settings.append(Setting("--max-frames", ("window",), int(frames)))
    return settings


def _same_recipe(given: Recipe, own: Recipe, options: Options, path: str) -> None:
    written = standalone(given)
    ours = standalone(changed(given, options.stage, options.changes)[0])
    theirs = standalone(own)
    for part in ("inputs", "controls", "blocks", "outputs"):
        # Sizes that the command line changes are held against the checkpoint's own afterwards, one by one.
        if theirs.get(part) not in (ours.get(part), written.get(part)):
            raise TrainingError(
                f"{path}: is of a recipe '{own.name}' with other {part} than '{given.name}': leave --recipe out"
            )
