"""Manifests: a table of recordings, for a corpus that no folder layout describes.

``.tsv`` and ``.csv`` have a first line with the names of the columns, ``.jsonl`` has an object a line. Columns or keys,
all but the first two where wanted:

- ``path``: relative to the manifest, or absolute,
- ``speaker``,
- ``text``: what is said,
- ``name``: unlike any other of the speaker's; the set, or the file's own name without its ending, where it is left out,
- ``set``: of a parallel corpus, what the recording is one of several renderings of, in step to the sample,
- ``split``: ``train``, ``held`` for what no training may hear, or ``evaluate`` for what it may not even be measured on;
  a column ``use`` that says ``evaluate`` means the same,
- ``phones``, ``pitch``, ``vector``: tables (``.npy``, see :mod:`astrape.training.tables`), by a path as above. In a set
  they are looked for beside the audio as well: ``phones.npy`` of all its renderings, and ``NAME.f0.npy`` and
  ``NAME.spk.npy`` beside ``NAME.flac``.
- ``source``: what it comes from, such as a synthesiser; a training can draw more of one than of another.

Others are left aside. Text is UTF-8::

    path	speaker	text
    one/0001.flac	anna	Good morning.
    two/0001.flac	ben	Good evening.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from astrape.audio.atomic import shown
from astrape.audio.downmix import MEAN
from astrape.audio.places import Place, below, joined
from astrape.corpus.errors import CorpusError
from astrape.corpus.utterances import EVALUATE, SPLITS, Utterance
from astrape.errors import AstrapeError, PlaceError

__all__ = ["ENDINGS", "IsThere", "is_file", "json_rows", "known_files", "manifest_text", "read_manifest", "table_rows"]

ENDINGS = (".tsv", ".csv", ".jsonl")
REQUIRED = ("path", "speaker")
TABLE = ".npy"


def read_manifest(path: Path | Place) -> list[Utterance]:
    """The utterances of a manifest, of this machine or of a store, in its order.

    Raises:
        CorpusError: for a manifest that cannot be read, by line, and for a path that leads to no file.
    """
    text = manifest_text(path, CorpusError)
    rows: Iterable[tuple[int, dict[str, Any]]]
    if path.suffix.lower() == ".jsonl":
        rows = json_rows(path, text, CorpusError, '{"path": ..., "speaker": ...}')
    else:
        rows = table_rows(path, text, CorpusError, REQUIRED)
    there = known_files(path)
    return [_utterance(path, line, row, there) for line, row in rows]


def manifest_text(path: Path | Place, refused: type[AstrapeError]) -> str:
    """The text of a list.

    Raises:
        AstrapeError: of the kind ``refused``, for a file that cannot be read.
    """
    try:
        return StringIO(Place(path).read().decode("utf-8-sig"), newline=None).read()
    except PlaceError as error:
        raise refused(str(error)) from error
    except UnicodeDecodeError as error:
        raise refused(f"{shown(path)}: is not UTF-8 at byte {error.start}: save it as UTF-8") from error


def json_rows(
    path: Path | Place, text: str, refused: type[AstrapeError], example: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, with their line numbers.

    Raises:
        AstrapeError: of the kind ``refused``, for a line that is not an object, with an example of one.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise refused(f"{shown(path)}:{number}: is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise refused(f"{shown(path)}:{number}: is not an object: write {example}")
        yield number, row


def table_rows(
    path: Path | Place, text: str, refused: type[AstrapeError], required: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV or TSV by the names in its first line, with their line numbers; empty lines are skipped.

    Raises:
        AstrapeError: of the kind ``refused``, for a required column that is missing, a row of another length than the
            first line, and a table that cannot be read.
    """
    tabs = path.suffix.lower() == ".tsv"
    # Quotes in a TSV are what somebody said, not a way to write a tab.
    table = StringIO(text, newline="")
    lines = csv.reader(table, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(table, strict=True)
    try:
        columns = [name.strip() for name in next(lines, [])]
        missing = [name for name in required if name not in columns]
        if missing:
            raise refused(
                f"{shown(path)}:1: has no column '{missing[0]}': the first line names the columns, "
                f"{' and '.join(required)} among them"
            )
        for row in lines:
            if not any(row):
                continue
            if len(row) != len(columns):
                raise refused(f"{shown(path)}:{lines.line_num}: has {len(row)} columns and not {len(columns)}")
            yield lines.line_num, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise refused(f"{shown(path)}:{lines.line_num}: {error}") from error


IsThere = Callable[[Path | Place], bool]
"""Whether there is a file."""


def known_files(manifest: Path | Place) -> IsThere:
    """A function that says whether a file exists; in a store, the folder of the manifest is listed once."""
    folder = Place(manifest.parent)
    if folder.path is not None:
        return is_file
    listed = set(folder.names())

    def known(path: Path | Place) -> bool:
        name = below(path, folder)
        return is_file(path) if name == os.fspath(path) else name in listed

    return known


def _utterance(manifest: Path | Place, line: int, row: dict[str, Any], there: IsThere) -> Utterance:
    for name in (*REQUIRED, "name", "text", "channel", "set", "split", "phones", "pitch", "vector", "source"):
        value = row.get(name)
        given = isinstance(value, str) and (value.strip() or name not in REQUIRED)
        if not given and (value is not None or name in REQUIRED):
            raise CorpusError(f"{shown(manifest)}:{line}: '{name}' must be text{' and not empty' * (name in REQUIRED)}")
    audio = joined(manifest.parent, row["path"].strip())
    if not there(audio):
        raise CorpusError(f"{shown(manifest)}:{line}: there is no file {_shown(audio)}")
    group = (row.get("set") or "").strip() or None
    split = (row.get("split") or "").strip() or None
    if split is not None and split not in SPLITS:
        known = f"{', '.join(SPLITS[:-1])} or {SPLITS[-1]}"
        raise CorpusError(f"{shown(manifest)}:{line}: split is '{split}': write {known}")
    if row.get("use") == EVALUATE:
        split = EVALUATE
    beside: dict[str, Path | Place] = {"phones": audio.with_name("phones.npy")} if group is not None else {}
    if group is not None:
        beside |= {"pitch": audio.with_suffix(".f0.npy"), "vector": audio.with_suffix(".spk.npy")}
    return Utterance(
        audio,
        row["speaker"].strip(),
        (row.get("name") or "").strip() or group or audio.stem,
        said=row.get("text") or None,
        channel=(row.get("channel") or "").strip() or MEAN,
        set=group,
        split=split,
        phones=_table_of("phones", manifest, line, row, beside, there),
        pitch=_table_of("pitch", manifest, line, row, beside, there),
        vector=_table_of("vector", manifest, line, row, beside, there),
        source=(row.get("source") or "").strip() or None,
    )


def _table_of(
    which: str, manifest: Path | Place, line: int, row: dict[str, Any], beside: dict[str, Path | Place], there: IsThere
) -> Path | Place | None:
    """A table that the manifest names, or the one beside the audio of a set, where it is there."""
    named = (row.get(which) or "").strip()
    # Some corpora write the phones themselves where others name the table.
    if named.endswith(TABLE):
        path = joined(manifest.parent, named)
        if not there(path):
            raise CorpusError(f"{shown(manifest)}:{line}: there is no table {_shown(path)}")
        return path
    path_beside = beside.get(which)
    return path_beside if path_beside is not None and there(path_beside) else None


def _shown(path: Path | Place) -> str:
    text = path.as_posix() if isinstance(path, Path) else str(path)
    return shown(text.replace(chr(0), "?"))


def is_file(path: Path | Place) -> bool:
    """Whether there is a file; none has a name that the system cannot have."""
    try:
        return Place(path).exists()
    except (OSError, ValueError):
        return False
