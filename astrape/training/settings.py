"""Settings of a run: one rule for what a recipe, a command line and a checkpoint say.

1. A run begins with its recipe's training section, or with the checkpoint's where it is resumed.
2. Flags are written into that section by their keys (:func:`apply`), and `--teacher` as its teacher.
3. A resumed run refuses every difference from its checkpoint (:func:`hold_against`), but for how long it goes on and
   how it is measured, which it says.

So a flag takes three steps to the optimiser: the command's table of keys, the section, and
:class:`~astrape.training.stage.Optimiser`, which is read from it as from any recipe. The order is held by
:func:`astrape.training.settled.settled_recipe`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astrape.training.errors import TrainingError

__all__ = ["Setting", "apply", "differences", "hold_against"]

FREE = ("epochs", "evaluation_window")
"""Settings that may differ from those of the checkpoint that is resumed, with a notice: how long it goes on, and how it
is measured."""


@dataclass(frozen=True)
class Setting:
    """A value of the training section, as the command line gives it.

    Attributes:
        flag: the option, for messages.
        path: the keys that lead to it in the stage's section; ``*`` stands for every loss, of which those that have the
            last key are set; a number is an index in the list of phases.
        value: its new value.
    """

    flag: str
    path: tuple[str | int, ...]
    value: Any


def apply(section: Mapping[str, Any], stage: str, settings: Iterable[Setting]) -> tuple[dict[str, Any], list[str]]:
    """The training section with other values.

    Losses are looked for in every phase.

    Returns:
        The section, and what is different, in words.

    Raises:
        TrainingError: for a setting that the section has no place for, naming the flag.
    """
    values = copy.deepcopy(dict(section))
    if stage not in values:
        return values, []
    said = []
    for setting in settings:
        places = list(_places(values[stage], setting))
        if not places:
            path = ".".join(map(str, setting.path))
            raise TrainingError(f"{setting.flag}: training.{stage} of this recipe has no {path}{_there(values[stage])}")
        for place in places:
            key = setting.path[-1]
            before = place.get(key) if isinstance(place, dict) else place[key]
            if before != setting.value:
                place[key] = setting.value
                path = ".".join(map(str, setting.path))
                said.append(
                    f"{setting.flag}: {path} is {setting.value}" + ("" if before is None else f" and not {before}")
                )
    return values, list(dict.fromkeys(said))


def _places(stage: dict[str, Any], setting: Setting) -> Iterable[Any]:
    first, *rest = setting.path
    if first == "discriminators":
        for phase in stage.get("phases") or [stage]:
            if "discriminators" in phase:
                yield phase[first].setdefault(rest[0], {}) if len(rest) > 1 else phase[first]
        return
    if first != "losses":
        place: Any = stage
        for key in setting.path[:-1]:
            if isinstance(place, dict):
                place = place.setdefault(key, {}) if key == "optimiser" else place.get(key)
            else:
                place = place[int(key)] if isinstance(place, list) and int(key) < len(place) else None
            if place is None:
                return
        yield place
        return
    for phase in stage.get("phases") or [stage]:
        losses = phase.get("losses", {})
        if rest[0] == "*":
            yield from (loss for loss in losses.values() if rest[-1] in loss)
        elif rest[0] in losses:
            yield losses[rest[0]]


def _there(stage: Mapping[str, Any]) -> str:
    names = [name for phase in stage.get("phases") or [stage] for name in phase.get("losses", {})]
    return f" (losses: {', '.join(dict.fromkeys(names))})" if names else ""


def differences(before: Any, now: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any, Any]]:
    """Differences between two trees of plain values: the path, and both values."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*before, *now])
        return [one for key in keys for one in differences(before.get(key), now.get(key), (*path, str(key)))]
    if isinstance(before, Sequence) and isinstance(now, Sequence) and not isinstance(before, str):
        if len(before) == len(now):
            return [one for i in range(len(now)) for one in differences(before[i], now[i], (*path, str(i)))]
    elif before == now:
        return []
    return [] if before == now else [(path, before, now)]


def hold_against(before: Mapping[str, Any], now: Mapping[str, Any], path: str) -> list[str]:
    """Hold a run's settings against those of the checkpoint that it goes on from.

    Returns:
        What is different and may be, in words.

    Raises:
        TrainingError: for anything else, naming both values.
    """
    notes: list[str] = []
    refused: list[str] = []
    for keys, was, value in differences(before, now):
        line = f"{'.'.join(keys)} is {value} here and {was} in the checkpoint"
        (notes if keys[-1] in FREE else refused).append(line)
    if refused:
        raise TrainingError(
            f"{path}: cannot go on with other settings: {'; '.join(refused)}: leave the option out, or begin a new run "
            f"with another --run-name"
        )
    return notes
