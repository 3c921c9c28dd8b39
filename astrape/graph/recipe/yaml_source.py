"""YAML as plain values with their lines, read so that no file can hurt.

Of YAML this takes mappings, sequences and scalars. Anchors, aliases, tags, directives' types and several documents
are refused: a recipe has no use for them, and every way known to make a small file expand or run something goes
through them. Values are composed from the parser's events without recursion and counted as they come, so time and
memory are bounded by the limits below and not by the file.

Plain scalars are read by the core schema of YAML 1.2, which has fewer surprises than 1.1: ``no``, ``on`` and ``1:30``
are text.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from astrape.graph.recipe.location import FileLocation, quote, recipe_error

__all__ = ["RECIPE_KEYS", "Located", "YamlSource", "is_recipe", "read_dict", "read_yaml"]

RECIPE_KEYS = ("recipe", "inputs", "blocks", "outputs")
"""The keys at the top of every recipe. A file with none of them is not a recipe, and no message shows what is in it."""

LARGEST_FILE = 1 << 20
DEEPEST = 100
MOST_VALUES = 100_000
MOST_DIGITS = 30
LONGEST_NUMBER = 64

KeyPath = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONTROL_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_WORDS = {word: value for value, words in {
    None: ("", "~", "null", "Null", "NULL"),
    True: ("true", "True", "TRUE"),
    False: ("false", "False", "FALSE"),
}.items() for word in words}  # fmt: skip
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, eq=False)
class YamlSource:
    """One YAML file or dict.

    Attributes:
        file: the name that messages give.
        base: the folder that paths in it are relative to.
        data: its plain values.
        lines: the line of each value, by the path to it. For an entry of a mapping: the line of its key.
        values: how many values it holds.
    """

    file: str
    base: Path
    data: Any
    lines: Mapping[KeyPath, int] = field(default_factory=dict, repr=False)
    values: int = 0

    def location(self, path: KeyPath = ()) -> FileLocation:
        """The place of a value, or of the nearest thing around it that is there."""
        if not self.lines:
            return FileLocation(self.file)
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return FileLocation(self.file, self.lines[path[:length]])
        return FileLocation(self.file, self.lines.get((), 1))


@dataclass(frozen=True, eq=False)
class Located:
    """A value in a source, and the path that led to it."""

    source: YamlSource
    value: Any
    path: KeyPath = ()

    def at(self, key: str | int) -> Located:
        """The value under a key or index that exists."""
        return Located(self.source, self.value[key], (*self.path, key))

    @property
    def location(self) -> FileLocation:
        return self.source.location(self.path)

    def location_of(self, *keys: str | int) -> FileLocation:
        """The place of what these keys lead to from here, whether or not it exists."""
        return self.source.location((*self.path, *keys))


def is_recipe(value: Any) -> bool:
    """Whether a file's values are meant as a recipe, so that a message may quote them: it may be a file of secrets."""
    return isinstance(value, dict) and any(key in value for key in RECIPE_KEYS)


def read_yaml(text: str | bytes, file: str, base: Path | None = None) -> YamlSource:
    """Read YAML text.

    Args:
        text: the text; bytes are UTF-8, with or without a byte order mark.
        file: the name that messages give.
        base: the folder that paths in it are relative to; the current one when left out.

    Raises:
        RecipeError: for anything that is not plain YAML within the limits, with the line.
    """
    source = _checked_text(text, file)
    composer = _Composer(file)
    try:
        for event in yaml.parse(source, Loader=_Loader):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise recipe_error(
            f"not valid YAML: {error.problem or error.context}",
            FileLocation(file, mark.line + 1 if mark else None),
            hint="check brackets, quotes and indentation there",
        ) from None
    except yaml.YAMLError as error:
        raise recipe_error(f"not valid YAML: {error}", FileLocation(file)) from None
    return YamlSource(file, base or Path(), composer.root, composer.lines, composer.values)


def read_dict(data: Any, file: str = "<dict>", base: Path | None = None) -> YamlSource:
    """Take plain Python values as if they had been read from a file without lines: copied, checked and counted.

    Tuples become lists. ``Fraction`` and NumPy's numbers are taken too.

    Raises:
        RecipeError: for keys that are not text, values of any other type, or a structure that is too deep (one that
            holds itself is) or too large.
    """
    location = FileLocation(file)
    root: list[Any] = []
    waiting: list[tuple[Any, Any, int]] = [(data, root.append, 0)]
    values = 0
    while waiting:
        value, put, depth = waiting.pop()
        values += 1
        _check_size(values, depth, location)
        if isinstance(value, Mapping):
            copy: dict[str, Any] = {}
            for key in value:
                if not isinstance(key, str):
                    raise recipe_error(f"key {quote(key)} is not text", location, hint="make it a str")
                copy[str(key)] = None
            put(copy)
            waiting += [(value[key], _setter(copy, str(key)), depth + 1) for key in value]
        elif isinstance(value, (list, tuple)):
            if len(value) > MOST_VALUES:
                _check_size(len(value), depth, location)
            items: list[Any] = [None] * len(value)
            put(items)
            waiting += [(item, _setter(items, index), depth + 1) for index, item in enumerate(value)]
        else:
            put(_plain(value, location))
    return YamlSource(file, base or Path(), root[0], {}, values)


def _plain(value: Any, location: FileLocation) -> Any:
    """A scalar as YAML would have given it; NumPy's numbers become Python's."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Rational):
        exact = Fraction(int(value.numerator), int(value.denominator))
        if max(abs(exact.numerator), exact.denominator) >= 10**MOST_DIGITS:
            raise recipe_error(f"a number has more than {MOST_DIGITS} digits", location, hint="give a smaller one")
        return int(value) if isinstance(value, numbers.Integral) else exact
    if isinstance(value, numbers.Real):
        return float(value)
    hint = "use dicts, lists, str, int, float, bool and None"
    raise recipe_error(f"a value is a {type(value).__name__}", location, hint=hint)


def _setter(container: Any, key: Any) -> Any:
    def put(value: Any) -> None:
        container[key] = value

    return put


def _check_size(values: int, depth: int, location: FileLocation) -> None:
    if values > MOST_VALUES:
        raise recipe_error(f"more than {MOST_VALUES} values", location, hint="use nested recipes, or repeat")
    if depth > DEEPEST:
        raise recipe_error(f"nested deeper than {DEEPEST} levels", location, hint="nest recipes in files of their own")


def _checked_text(text: str | bytes, file: str) -> str:
    if len(text) > LARGEST_FILE:
        raise recipe_error(f"larger than {LARGEST_FILE} bytes", FileLocation(file), hint="split it into nested recipes")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise recipe_error("not UTF-8 text", FileLocation(file, line), hint="save it as UTF-8") from None
    text = text.removeprefix("\ufeff")
    if found := _CONTROL_CHARACTER.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise recipe_error(
            f"character U+{ord(found.group()):04X} has no place in YAML", FileLocation(file, line), hint="remove it"
        )
    return text


class _Composer:
    """Builds plain values from parser events, one at a time."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Any = None
        self.lines: dict[KeyPath, int] = {}
        self.values = 0
        self.documents = 0
        self.open: list[tuple[Any, KeyPath]] = []
        self.key: list[str | None] = []  # beside `open`: the key that waits for its value

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            location = self.check(event)
            self.add(self.scalar(event, location), location)
        elif isinstance(event, yaml.CollectionStartEvent):
            location = self.check(event)
            container: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            self.open.append((container, self.add(container, location)))
            self.key.append(None)
            _check_size(self.values, len(self.open), location)
        elif isinstance(event, yaml.CollectionEndEvent):
            self.open.pop()
            self.key.pop()
        elif isinstance(event, yaml.AliasEvent):
            raise recipe_error("aliases (*name) are not taken", self.location(event), hint="write the value out")
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise recipe_error("a second document begins", self.location(event), hint="keep one a file")

    def location(self, event: Any) -> FileLocation:
        return FileLocation(self.file, event.start_mark.line + 1)

    def check(self, event: Any) -> FileLocation:
        location = self.location(event)
        if event.anchor is not None:
            raise recipe_error("anchors (&name) are not taken", location, hint="remove it, and write values out")
        if event.tag is not None:
            raise recipe_error(f"{self.shown('tag', event.tag)} is not taken", location, hint="write the plain value")
        self.values += 1
        _check_size(self.values, 0, location)
        return location

    def shown(self, what: str, value: Any) -> str:
        """A key or tag as a message names it: quoted once the file is known for a recipe, and by its kind before."""
        return f"{what} {quote(value)}" if is_recipe(self.root) else f"a {what}"

    def add(self, value: Any, location: FileLocation) -> KeyPath:
        """Put a value where it belongs; return the path to it."""
        line = location.line or 1
        if not self.open:
            self.root = value
            self.lines[()] = line
            return ()
        container, path = self.open[-1]
        if isinstance(container, list):
            path = (*path, len(container))
            self.lines[path] = line
            container.append(value)
            return path
        key = self.key[-1]
        if key is not None:
            container[key] = value
            self.key[-1] = None
            return (*path, key)
        if not isinstance(value, str):
            raise recipe_error(f"{self.shown('key', value)} is not text", location, hint="put quotes around it")
        if value in container:
            first = self.lines[(*path, value)]
            key = self.shown("key", value)
            raise recipe_error(f"{key} was there already, on line {first}", location, hint="remove one")
        container[value] = None
        self.lines[(*path, value)] = line
        self.key[-1] = value
        return path

    def scalar(self, event: Any, location: FileLocation) -> Any:
        text: str = event.value
        if event.style or (text and text[0] not in "~nNtTfF+-.0123456789"):
            return text
        if text in _WORDS:
            return _WORDS[text]
        if special := _SPECIAL.fullmatch(text):
            return math.nan if special[3] else math.copysign(math.inf, -1 if special[1] == "-" else 1)
        if not _DECIMAL.fullmatch(text) and not _INTEGER.fullmatch(text):
            return text
        integer = _INTEGER.fullmatch(text)
        if len(text) > (MOST_DIGITS if integer else LONGEST_NUMBER):
            raise recipe_error(
                f"a number of {len(text)} digits", location, hint="shorten it, or put it in quotes as text"
            )
        return int(text, 0 if text[:2] in ("0o", "0x") else 10) if integer else float(text)
