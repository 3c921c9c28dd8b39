"""Settings from files, checked by pydantic in strict mode; errors name file, line and key.

A model lists the keys, their types and bounds; :func:`read_settings` turns the first fault into a message such as
``voice.yaml:31: training.encoder.window is 0: give a whole number from 1 to 10000000``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from astrape.errors import AstrapeError
from astrape.wording import quote, suggest

__all__ = [
    "Between",
    "Known",
    "Location",
    "Name",
    "Settings",
    "Spec",
    "Unfit",
    "Wanted",
    "message",
    "read_settings",
]

Location = tuple[str | int, ...]
"""The keys and indices that lead to a value."""


class Settings(BaseModel):
    """A mapping of a file: no key that it does not know, no value of another type than it says, no infinities."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=False)


class Spec(BaseModel):
    """Something registered, by name, with parameters of its own: ``{use: noise, snr: [5, 40]}``.

    Its parameters are checked by whoever builds it.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    use: Name

    @property
    def params(self) -> dict[str, Any]:
        """All other keys."""
        return dict(self.model_extra or {})


class Unfit(ValueError):
    """The error that a model's own validators raise.

    Args:
        fault: what is wrong, continuing the key: ``is even``.
        hint: what to do.
        at: the keys that lead from the model to the value.
    """

    def __init__(self, fault: str, hint: str = "", at: Location = ()) -> None:
        super().__init__(fault)
        self.fault, self.hint, self.at = fault, hint, at


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both included: ``Annotated[int, Between(1, 16)]``."""

    least: float
    most: float

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kind = "a whole number" if source is int else "a number"
        bounded = Annotated[source, Field(ge=self.least, le=self.most)]
        bounds = f"from {self.least:.12g} to {self.most:.12g}" if self.most < math.inf else f"of {self.least:g} or more"
        return _wanted(handler.generate_schema(bounded), f"{kind} {bounds}")


@dataclass(frozen=True)
class Known:
    """A name that must be among those that ``context`` of :func:`read_settings` has under ``what``.

    Attributes:
        what: what such a name is of, for the message.
        form: a regular expression of names that are known too.
    """

    what: str
    form: str = "(?!)"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self.check, handler(source))

    def check(self, name: str, info: core_schema.ValidationInfo[Any]) -> str:
        """The name, where it is known.

        Raises:
            Unfit: with the nearest of the known names.
        """
        names = info.context[self.what]
        if name not in names and not re.fullmatch(self.form, name):
            raise Unfit(f"is {quote(name)}, an unknown {self.what}", suggest(name, names, self.what))
        return name


@dataclass(frozen=True)
class Wanted:
    """The wording for any fault of a type: ``Annotated[float, Field(gt=0), Wanted("a positive number")]``."""

    text: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _wanted(handler(source), self.text)


def _wanted(schema: CoreSchema, text: str) -> CoreSchema:
    return core_schema.custom_error_schema(schema, "wanted", custom_error_message=text)


Name = Annotated[str, Field(min_length=1), Wanted("a name")]
"""Text that is not empty."""

Model = TypeVar("Model", bound=BaseModel)


def read_settings(
    model: type[Model],
    values: Any,
    error: type[AstrapeError],
    where: Callable[[Location], object] | str = "",
    at: Location = (),
    context: Mapping[str, Collection[str]] | None = None,
) -> Model:
    """A mapping as a model.

    Args:
        model: what the mapping must be.
        values: the mapping.
        error: raised for the first fault; its one argument is the message.
        where: the place that the message begins with: text, or a function of the keys that lead to the fault.
        at: the keys that lead to the mapping itself.
        context: names that :class:`Known` looks up.

    Raises:
        AstrapeError: of kind ``error``. An unknown key is told before a missing one, which it may be a misspelling of.
    """
    try:
        return model.model_validate(values, context=context)
    except ValidationError as failure:
        faults = failure.errors(include_url=False)
        first = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
        keys, fault, hint = _told(model, first)
    raise error(message(where, (*at, *keys), fault, hint))


def message(where: Callable[[Location], object] | str, keys: Location, fault: str, hint: str = "") -> str:
    """The one form of all messages about settings: ``place: keys fault: hint``."""
    place = where if isinstance(where, str) else where(keys)
    said = f"{'.'.join(map(str, keys))} {fault}".strip()
    return " ".join(": ".join(part for part in (str(place), said, hint) if part).split())


def _told(model: type[BaseModel], error: ErrorDetails) -> tuple[Location, str, str]:
    """Keys, fault and hint of one of pydantic's errors."""
    keys: Location = tuple(key for key in error["loc"] if key != "[key]")
    kind, context = error["type"], error.get("ctx", {})
    given = f"is {quote(error.get('input'))}"
    if kind == "value_error" and isinstance(context["error"], Unfit):
        own = context["error"]
        return (*keys, *own.at), own.fault, own.hint
    if kind == "missing":
        last = keys[-1]
        return keys[:-1], f"lacks the key '{last}'" if isinstance(last, str) else f"has no item {last}", "add it"
    if kind == "extra_forbidden":
        return keys, "is an unknown key", suggest(str(keys[-1]), _keys(model, keys[:-1]), "key")
    if kind == "literal_error":
        wanted = context["expected"].replace("'", "").replace("True", "true").replace("False", "false")
        return keys, given, f"give {wanted}"
    if kind == "wanted":
        return keys, given, f"give {error['msg']}"
    if kind == "too_short":
        return keys, given, f"give at least {context['min_length']}"
    if kind == "too_long":
        return keys, given, f"give at most {context['max_length']}"
    return keys, given, f"give {_TYPES.get(kind.removesuffix('_type'), error['msg'])}"


_TYPES = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "a string",
    "string_unicode": "a string without lone surrogates",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "model_attributes": "a mapping",
}


def _keys(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that a model, or one that is nested in it at a location, knows."""
    for step in location:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        # A step that is not a field is a name in a mapping or a place in a list, and the model stays.
        inner = _models(fields[str(step)].annotation) if step in fields else [model]
        model = next(iter(inner), BaseModel)
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(hint: Any) -> list[type[BaseModel]]:
    """The models in a type hint."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [model for argument in get_args(hint) for model in _models(argument)]
