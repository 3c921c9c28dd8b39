"""Settings: what fits is taken as it is, and of what does not, the first fault is named with its keys."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from astrape.errors import AstrapeError
from astrape.settings import Between, Known, Location, Name, Settings, Spec, Unfit, read_settings

Share = Annotated[float, Between(0, 1)]


class Inner(Settings):
    rate: Share = 0.5
    pair: Annotated[tuple[Share, Share], Field(strict=False)] = (0.0, 1.0)
    kind: Literal["soft", "hard"] = "soft"


class Outer(Settings):
    name: Name
    count: Annotated[int, Between(1, 10)] = 2
    inner: Inner | None = None
    named: dict[str, Inner] = Field(default_factory=dict)
    several: Annotated[tuple[Inner, ...], Field(strict=False, min_length=1)] | None = None
    spec: Spec | None = None
    node: Annotated[Name, Known("node", r"layer_\d")] | None = None

    @model_validator(mode="after")
    def _odd(self) -> Outer:
        if self.count == 8:
            raise Unfit("is 8", "give another", ("count",))
        return self


def read(values: Any) -> Outer:
    def where(keys: Location) -> str:
        return f"x.yaml:{len(keys)}"

    return read_settings(Outer, values, AstrapeError, where, ("top",), {"node": ["encoder", "decoder"]})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (3, "x.yaml:1: top is 3: give a mapping"),
        ({}, "x.yaml:1: top lacks the key 'name': add it"),
        ({"name": ""}, "x.yaml:2: top.name is '': give a name"),
        ({"nam": "a"}, "x.yaml:2: top.nam is an unknown key: did you mean 'name'?"),
        ({"count": 11}, "x.yaml:2: top.count is 11: give a whole number from 1 to 10"),
        ({"count": True}, "top.count is true: give a whole number from 1 to 10"),
        ({"count": 2.0}, "top.count is 2.0: give a whole number"),
        ({"count": 10**5000}, "top.count is an integer of over 19 digits: give a whole number"),
        ({"count": 8}, "x.yaml:2: top.count is 8: give another"),
        ({"inner": {"rate": "half"}}, "x.yaml:3: top.inner.rate is 'half': give a number from 0 to 1"),
        ({"inner": {"rate": math.nan}}, "top.inner.rate is nan: give a number from 0 to 1"),
        ({"inner": {"pair": [0]}}, "top.inner.pair has no item 1: add it"),
        ({"inner": {"pair": [0, 2]}}, "x.yaml:4: top.inner.pair.1 is 2: give a number from 0 to 1"),
        ({"inner": {"kind": "sfot"}}, "top.inner.kind is 'sfot': give soft or hard"),
        ({"named": {"one": {"rat": 1}}}, "x.yaml:4: top.named.one.rat is an unknown key: did you mean 'rate'?"),
        ({"several": []}, "top.several is an empty list: give at least 1"),
        ({"several": [{"kin": 1}]}, "x.yaml:4: top.several.0.kin is an unknown key: did you mean 'kind'?"),
        ({"spec": {"used": "noise"}}, "top.spec lacks the key 'use'"),
        ({"node": "encodr"}, "x.yaml:2: top.node is 'encodr', an unknown node: did you mean 'encoder'?"),
    ],
)
def test_the_first_fault_is_named_with_place_value_and_hint(values: Any, said: str) -> None:
    if isinstance(values, dict) and values and "nam" not in values:
        values = {"name": "a", **values}
    with pytest.raises(AstrapeError) as caught:
        read(values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 7), st.floats(0, 1), st.sampled_from(["soft", "hard"]), st.sampled_from(["encoder", "layer_3"]))
def test_what_fits_comes_through_unchanged(count: int, rate: float, kind: Any, node: str) -> None:
    inner = {"rate": rate, "pair": [rate, 1], "kind": kind}
    spec = {"use": "noise", "snr": [5, 40]}
    values = {"name": "a", "count": count, "inner": inner, "several": [inner], "spec": spec, "node": node}
    found = read(values)
    assert found.inner == Inner(rate=rate, pair=(rate, 1.0), kind=kind)
    assert (found.count, found.node, found.several) == (count, node, (found.inner,))
    assert found.spec is not None
    assert (found.spec.use, found.spec.params) == ("noise", {"snr": [5, 40]})
