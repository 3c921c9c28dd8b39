"""The page of a run: one file to listen, look and compare, without a network.

Sounds and pictures are inside the file, as base64. A page that is mailed or moved keeps its sounds that way, and plays
them when it is opened from a disk, where browsers hold back other files. It holds excerpts of 30 s, of as many pairs as
were asked for; the files themselves lie in the run's folder.
"""

from __future__ import annotations

from importlib.resources import files

from astrape.audio.atomic import atomic_path
from astrape.audio.places import Where
from astrape.pages import templates
from astrape.voice.evaluation.columns import cells, conditions_of, headings
from astrape.voice.evaluation.listening import TICKS, Listening
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.numbers import interval, number
from astrape.voice.evaluation.pictures import EXCERPT_SECONDS, height
from astrape.voice.evaluation.published import COLUMNS, PUBLISHED
from astrape.voice.evaluation.result import Evaluation
from astrape.voice.names import LISTEN

__all__ = ["write_page"]

POLICY = (
    "default-src 'none'; img-src blob: data:; media-src blob: data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)
MOST_COLUMNS = 8
"""Quantities beside each other in a table of pairs: as many as a page of 1200 pixels holds without scrolling."""


def write_page(evaluation: Evaluation, path: Where, listen: int = LISTEN, tracker: str | None = None) -> None:
    """Write the page.

    Args:
        evaluation: the run.
        path: the HTML file.
        listen: how many pairs to listen to, spread evenly over the run.
        tracker: of the pitch that is drawn, as for :func:`evaluate`.

    Raises:
        AstrapeError: when it cannot be written.
    """
    listening = Listening(evaluation, listen, tracker)
    place = templates("astrape.voice.evaluation")
    place.filters |= {"number": number, "interval": interval, "plain": _plain}
    place.globals["ticks"] = [(100 * height(hertz), name) for hertz, name in TICKS.items()]
    recipe = evaluation.system.get("recipe")
    page = place.get_template("page.html").render(
        run=evaluation,
        policy=POLICY,
        css=_asset("page.css"),
        js=_asset("page.js"),
        title=f"Evaluation of {recipe}" if recipe else "Evaluation of converted files",
        said=_said(evaluation),
        warnings=_warnings(evaluation),
        beside=[
            (condition, headings(evaluation, condition), cells(evaluation, condition))
            for condition in (conditions_of(evaluation) if evaluation.beside else ())
        ],
        listening=listening,
        cards=list(listening.cards()),
        excerpt=EXCERPT_SECONDS,
        groups=_groups(evaluation),
        trouble=_trouble(evaluation),
        columns=COLUMNS,
        published=PUBLISHED,
        own={quantity.name: quantity for quantity in evaluation.measured},
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")


def _asset(name: str) -> str:
    return (files("astrape.voice.evaluation") / "assets" / name).read_text(encoding="utf-8")


def _said(evaluation: Evaluation) -> str:
    results = evaluation.results
    sources = len({result.pair.source.key for result in results})
    targets = len({result.pair.target.name for result in results if result.pair.target})
    return f"{_count(len(results), 'pair')} of {_count(sources, 'source')} and {_count(targets, 'target')}"


def _warnings(evaluation: Evaluation) -> list[str]:
    warnings = []
    if evaluation.system.get("random_weights"):
        warnings.append("No weights were given: they are random, and what comes out is noise.")
    if evaluation.failed:
        warnings.append(f"{_count(len(evaluation.failed), 'pair')} could not be converted; each is named below.")
    doubtful = [f"{result.pair.name}: {line}" for result in evaluation.results for line in result.warnings]
    return warnings + doubtful[:5] + ([f"{len(doubtful) - 5} more warnings are in the JSON."] if doubtful[5:] else [])


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _groups(evaluation: Evaluation) -> list[tuple[str, list[Quantity]]]:
    """Measured quantities by family, in tables of as many columns as fit on a page; small families share one."""
    families: dict[str, list[Quantity]] = {}
    for family, quantity in evaluation.quantities:
        if quantity.name in evaluation.aggregate:
            families.setdefault(family, []).append(quantity)
    groups: list[tuple[str, list[Quantity]]] = []
    for family, measured in families.items():
        if groups and len(groups[-1][1]) + len(measured) <= MOST_COLUMNS:
            name, held = groups.pop()
            groups.append((f"{name}, {family}", held + measured))
            continue
        parts = [measured[at : at + MOST_COLUMNS] for at in range(0, len(measured), MOST_COLUMNS)]
        groups += [(family if not index else f"{family}, continued", part) for index, part in enumerate(parts)]
    return groups


def _trouble(evaluation: Evaluation) -> list[str]:
    lines = [f"{result.pair.name}: not converted: {result.error}" for result in evaluation.failed]
    return lines + [
        f"{result.pair.name}: {family}: {reason}"
        for result in evaluation.results
        for family, reason in result.failures.items()
    ]


def _plain(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)
