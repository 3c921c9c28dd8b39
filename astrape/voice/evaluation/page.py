"""The page of a run: one file to listen, look and compare, without a network.

Sounds and pictures are inside the file, as base64. A page that is mailed or moved keeps its sounds that way, and plays
them when it is opened from a disk, where browsers hold back other files. It holds excerpts of 30 s, of as many pairs as
were asked for; the files themselves lie in the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from astrape.audio.atomic import atomic_path
from astrape.voice.evaluation.columns import cells, conditions_of, headings
from astrape.voice.evaluation.listening import Listening
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.numbers import interval, number
from astrape.voice.evaluation.published import COLUMNS, PUBLISHED
from astrape.voice.evaluation.result import Evaluation, PairResult
from astrape.voice.names import LISTEN

__all__ = ["write_page"]

POLICY = (
    "default-src 'none'; img-src blob: data:; media-src blob: data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)
MOST_COLUMNS = 8
"""Quantities beside each other in a table of pairs: as many as a page of 1200 pixels holds without scrolling."""

NONE = '<span class="soft">–</span>'


def write_page(evaluation: Evaluation, path: Path, listen: int = LISTEN, tracker: str | None = None) -> None:
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
    cards = "".join(listening.cards())
    title = _title(evaluation)
    sections = [
        _head(evaluation, title),
        _summary(evaluation),
        _beside(evaluation),
        f'<section id="listen"><h2>Listening</h2>{listening.introduction()}{cards}</section>',
        _pairs(evaluation, listening.anchors),
        _published(evaluation),
        _facts(evaluation),
    ]
    assets = json.dumps(listening.assets).replace("</", "<\\/")
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", errors="xmlcharrefreplace") as file:
        file.write(
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n<main>\n"
        )
        file.write("\n".join(sections))
        file.write(f'\n</main>\n<script type="application/json" id="assets">{assets}</script>\n')
        file.write(f"<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n")


def _asset(name: str) -> str:
    return (files("astrape.voice.evaluation") / "assets" / name).read_text(encoding="utf-8")


def _title(evaluation: Evaluation) -> str:
    recipe = evaluation.system.get("recipe")
    return f"Evaluation of {recipe}" if recipe else "Evaluation of converted files"


def _head(evaluation: Evaluation, title: str) -> str:
    results = evaluation.results
    sources = len({result.pair.source.key for result in results})
    targets = len({result.pair.target.name for result in results if result.pair.target})
    said = f"{_count(len(results), 'pair')} of {_count(sources, 'source')} and {_count(targets, 'target')}"
    warnings = []
    if evaluation.system.get("random_weights"):
        warnings.append("No weights were given: they are random, and what comes out is noise.")
    if evaluation.failed:
        warnings.append(f"{_count(len(evaluation.failed), 'pair')} could not be converted; each is named below.")
    doubtful = [f"{result.pair.name}: {line}" for result in results for line in result.warnings]
    warnings += doubtful[:5] + ([f"{len(doubtful) - 5} more warnings are in the JSON."] if len(doubtful) > 5 else [])
    links = {"summary": "Scores", "listen": "Listening", "pairs": "All pairs", "published": "Published figures"}
    items = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, name in (links | {"facts": "Settings"}).items())
    return (
        f'<header><h1>{escape(title)}</h1><p class="soft">{escape(said)}, {escape(evaluation.created_utc)}</p>'
        + "".join(f'<p class="warning">{escape(line)}</p>' for line in warnings)
        + f'<nav aria-label="Sections"><ul>{items}</ul></nav>'
        + '<noscript><p class="warning">Sounds and pictures need JavaScript, which is off; the tables do not.</p>'
        + "</noscript></header>"
    )


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _summary(evaluation: Evaluation) -> str:
    rows = []
    for quantity in evaluation.measured:
        found = evaluation.aggregate[quantity.name]
        spread = interval(found, quantity) or ("all files together" if found.pooled else NONE)
        rows.append(
            f'<tr><th scope="row">{escape(quantity.label)}'
            f'<small class="wide-only">{escape(quantity.about)}</small></th>'
            f'<td class="number">{number(found.value, quantity)}{_unit(quantity)}</td>'
            f'<td class="number">{spread}</td><td class="number">{found.files}</td>'
            f'<td class="wide-only">{quantity.better or NONE}</td></tr>'
        )
    missing = [
        f"<li>{escape(', '.join(quantity.label for quantity in lacking))}: {escape(reason)}</li>"
        for reason, lacking in evaluation.missing.items()
    ]
    listed = f'<h3>Not measured</h3><ul class="plain">{"".join(missing)}</ul>' if missing else ""
    return (
        '<section id="summary"><h2>Scores</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Scores"><table>'
        "<caption>Means over all pairs. Intervals are of 95 %, by drawing sources with replacement; a single source "
        "has none, nor has what is the same for all.</caption>"
        '<thead><tr><th scope="col">Measure</th><th scope="col" class="number">Value</th>'
        '<th scope="col" class="number">95 % interval</th><th scope="col" class="number">Files</th>'
        '<th scope="col" class="wide-only">Better</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{listed}</section>"
    )


def _beside(evaluation: Evaluation) -> str:
    """Baselines and conditions, a table a condition; nothing where nothing stands beside the run."""
    tables = []
    for condition in conditions_of(evaluation) if evaluation.beside else ():
        heads = "".join(
            f'<th scope="col" class="number">{escape(name)}</th>' for name in headings(evaluation, condition)
        )
        rows = "".join(
            f'<tr><th scope="row">{escape(label)}</th>'
            + "".join(f'<td class="number">{escape(value)}</td>' for value in values)
            + "</tr>"
            for label, values in cells(evaluation, condition)
        )
        tables.append(
            f'<div class="scroll" tabindex="0" role="region" aria-label="Beside it, {escape(condition)}"><table>'
            f"<caption>Sources: {escape(condition)}. What is measured against is the clean source.</caption>"
            f'<thead><tr><th scope="col">Measure</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        )
    if not tables:
        return ""
    return (
        '<section id="beside"><h2>Beside it</h2><p>The same sources and metrics in the same run: the source itself, '
        "the system to the source's own voice, and a shift of the register by WORLD, where they were asked for. "
        f"Figures of trials and goals were written down, and not measured here.</p>{''.join(tables)}</section>"
    )


def _pairs(evaluation: Evaluation, anchors: dict[str, str]) -> str:
    groups = _groups(evaluation)
    tables = "".join(
        f"<details{' open' if len(groups) == 1 or not index else ''}><summary>{escape(name)}</summary>"
        f"{_table(evaluation, measured, anchors, name)}</details>"
        for index, (name, measured) in enumerate(groups)
    )
    return (
        '<section id="pairs"><h2>All pairs</h2><p>A heading sorts by its column, and once more the other way round.</p>'
        f"{tables}{_trouble(evaluation)}</section>"
    )


def _groups(evaluation: Evaluation) -> list[tuple[str, list[Quantity]]]:
    """What was measured, family by family, in tables of as many columns as fit on a page; small families share one."""
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


def _table(evaluation: Evaluation, measured: Sequence[Quantity], anchors: dict[str, str], name: str) -> str:
    named = ('<th scope="col"><button type="button">' + head + "</button></th>" for head in ("Source", "Target"))
    heads = "".join(named) + "".join(
        f'<th scope="col" class="number" title="{escape(quantity.about)}">'
        f'<button type="button">{escape(quantity.label)}</button>'
        f"{_direction(quantity)}</th>"
        for quantity in measured
    )
    values = [(evaluation.aggregate[quantity.name], quantity) for quantity in measured]
    whole = "".join(f'<td class="number">{number(found.value, quantity)}</td>' for found, quantity in values)
    spread = "".join(f'<td class="number">{interval(*value) or NONE}</td>' for value in values)
    rows = "".join(_row(result, measured, anchors) for result in evaluation.results)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="All pairs: {escape(name)}"><table class="pairs">'
        f"<thead><tr>{heads}</tr></thead>"
        f'<tbody><tr class="whole"><th scope="row">All</th><td></td>{whole}</tr>'
        f'<tr class="interval"><th scope="row">95 % interval</th><td></td>{spread}</tr></tbody>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(result: PairResult, measured: Sequence[Quantity], anchors: dict[str, str]) -> str:
    name = escape(result.pair.source.key)
    target = escape(result.pair.target.name) if result.pair.target else NONE
    anchor = anchors.get(result.pair.name)
    linked = f'<a href="#{anchor}">{name}</a>' if anchor else name
    cells = []
    for quantity in measured:
        score = result.scores.get(quantity.name)
        value = "" if score is None else f"{score.value:.9g}"
        shown = NONE if score is None else number(score.value, quantity)
        cells.append(f'<td class="number" data-value="{value}">{shown}</td>')
    return f'<tr><th scope="row">{linked}</th><td>{target}</td>{"".join(cells)}</tr>'


def _trouble(evaluation: Evaluation) -> str:
    lines = [f"{result.pair.name}: not converted: {result.error}" for result in evaluation.failed]
    lines += [
        f"{result.pair.name}: {family}: {reason}"
        for result in evaluation.results
        for family, reason in result.failures.items()
    ]
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    opened = " open" if len(lines) <= 10 else ""
    return f'<details{opened}><summary>What failed ({len(lines)})</summary><ul class="plain">{items}</ul></details>'


def _published(evaluation: Evaluation) -> str:
    shown = {quantity.name: quantity for quantity in evaluation.measured}
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in COLUMNS.values())
    own = "".join(
        f"<td>{number(evaluation.aggregate[name].value, shown[name]) if name in shown else NONE}</td>"
        for name in COLUMNS
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(other.system)}</th>'
        + "".join(f"<td>{escape(other.figures[name]) if name in other.figures else NONE}</td>" for name in COLUMNS)
        + f"<td><small>{escape(other.source)}</small></td></tr>"
        for other in PUBLISHED
    )
    return (
        '<section id="published"><h2>Published figures</h2><p>As their authors give them: of other data, by other '
        "recognisers and other speaker encoders. They show the order of magnitude, and no ranking.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Published figures"><table>'
        f'<thead><tr><th scope="col">System</th>{heads}<th scope="col">Source</th></tr></thead><tbody>'
        f'<tr class="whole"><th scope="row">This run</th>{own}<td></td></tr>{rows}</tbody></table></div></section>'
    )


def _facts(evaluation: Evaluation) -> str:
    groups = {"System": evaluation.system, "Settings": evaluation.settings, "Packages": evaluation.packages}
    parts = []
    for name, facts in groups.items():
        items = "".join(
            f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(_plain(value))}</dd>" for key, value in facts.items()
        )
        parts.append(f'<details open><summary>{name}</summary><dl class="facts">{items}</dl></details>')
    return f'<section id="facts"><h2>Settings</h2>{"".join(parts)}</section>'


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


def _unit(quantity: Quantity) -> str:
    return f" {escape(quantity.unit)}" if quantity.unit else ""


def _direction(quantity: Quantity) -> str:
    words = f"{quantity.better} is better" if quantity.better else ""
    both = ", ".join(part for part in (quantity.unit, words) if part)
    return f"<small>{escape(both)}</small>" if both else ""
