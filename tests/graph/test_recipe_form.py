"""Meaning of recipes: references, nesting, repeats, controls, exact rates; and errors with line and hint."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from textwrap import dedent, indent

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astrape import RateError, RecipeError
from astrape.blocks.base import Stream
from astrape.blocks.parameters import exact_number
from astrape.graph.recipe.location import FileLocation, recipe_error
from astrape.graph.recipe.recipe import Recipe, Reference
from astrape.graph.recipe.written import recipe_number

TINY = """\
recipe: tiny
inputs:
  mic: {rate: 44100, channels: 1}
blocks:
  down: {use: resampler, rate: 16000}
  up:
    use: resampler
    rate: 44100
outputs:
  wav: up
"""


def sources(recipe: Recipe) -> dict[str, list[tuple[str, str]]]:
    return {node.name: [(port, str(reference)) for port, reference in node.sources] for node in recipe.nodes}


def wrap(blocks: str, outputs: str = "{wav: last}", top: str = "") -> str:
    head = "recipe: r\ninputs: {mic: {rate: 44100, channels: 1}}\n"
    return f"{head}{dedent(top)}blocks:\n{indent(dedent(blocks), '  ')}outputs: {outputs}\n"


def test_a_node_reads_the_one_before_unless_it_says() -> None:
    recipe = Recipe.parse(TINY, "tiny.yaml")
    assert recipe.name == "tiny"
    assert recipe.inputs == {"mic": Stream(44100, 1)}
    assert sources(recipe) == {"down": [("in", "mic")], "up": [("in", "down")]}
    assert recipe.nodes[0].params == {"rate": 16000}
    assert recipe.nodes[0].use == "resampler"
    assert recipe.outputs == {"wav": Reference("up")}


def test_places_are_kept() -> None:
    recipe = Recipe.parse(TINY, "tiny.yaml")
    assert str(recipe.nodes[0].location) == "tiny.yaml:5"
    assert str(recipe.nodes[1].location_of("rate")) == "tiny.yaml:8"
    assert str(recipe.nodes[1].location_of("from")) == "tiny.yaml:6"
    assert str(recipe.location_of("outputs", "wav")) == "tiny.yaml:10"
    assert str(recipe.location_of("outputs", "no")) == "tiny.yaml:9"
    assert str(FileLocation("<dict>")) == "<dict>"


def test_the_form_of_an_error() -> None:
    error = recipe_error("rate -1 is not positive", FileLocation("voice.yaml", 12), "down", "give a rate above 0")
    assert str(error) == "voice.yaml:12: node 'down': rate -1 is not positive: give a rate above 0"
    assert type(recipe_error("x", FileLocation("f"), cls=RateError)) is RateError


def test_ports_follow_the_form_of_from() -> None:
    recipe = Recipe.parse(
        wrap("""\
      a: {use: split, channels: [1, 1]}
      b: {use: gain, from: mic}
      m: {use: add, from: [a.0, a.1, b]}
      last: {use: talk, from: {left: m, right: mic}}
    """)
    )
    assert sources(recipe)["m"] == [("0", "a.0"), ("1", "a.1"), ("2", "b")]
    assert sources(recipe)["last"] == [("left", "m"), ("right", "mic")]
    assert recipe.nodes[2].sources[0][1] == Reference("a", "0")


def test_references_may_point_forward() -> None:
    recipe = Recipe.parse(wrap("a: {use: add, from: [mic, last]}\nlast: {use: delay, ms: 10, from: a}\n"))
    assert sources(recipe) == {"a": [("0", "mic"), ("1", "last")], "last": [("in", "a")]}


def test_an_output_may_be_an_input() -> None:
    recipe = Recipe.parse(wrap(" last: {use: gain}\n", "{dry: mic, wet: last}"))
    assert recipe.outputs == {"dry": Reference("mic"), "wet": Reference("last")}


def test_repeat_is_a_chain_that_is_read_at_its_end() -> None:
    recipe = Recipe.parse(
        wrap("""\
      res: {use: split, from: mic, repeat: 3, kernel: 5}
      one: {use: gain, repeat: 1}
      last: {use: add, from: [res.0, one]}
    """)
    )
    assert sources(recipe) == {
        "res/0": [("in", "mic")],
        "res/1": [("in", "res/0")],
        "res/2": [("in", "res/1")],
        "one": [("in", "res/2")],
        "last": [("0", "res/2.0"), ("1", "one")],
    }
    params = [node.params for node in recipe.nodes[:3]]
    assert params == [{"kernel": 5}] * 3
    assert params[0] is not params[1]


INNER = """\
recipe: inner
inputs: {x: {rate: 16000, channels: 1}}
controls: {speaker: {channels: 4}, amount: {default: 0.5, min: 0, max: 1, unit: dB}}
blocks:
  a: {use: conv, condition: speaker}
  b: {use: gain, gain: amount}
  unused: {use: gain, from: x}
outputs: {y: b, z: unused}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "inner.yaml").write_text(INNER)
    (tmp_path / "parts" / "outer.yaml").write_text(
        wrap(
            "deep: {use: graph, recipe: inner.yaml}\nlast: {use: gain, from: deep.y}\n",
            top="controls: {speaker: {channels: 4}}\n",
        )
    )
    return tmp_path


def test_nested_recipes_are_unfolded(folder: Path) -> None:
    (folder / "top.yaml").write_text(
        wrap(
            """\
      down: {use: resampler, rate: 16000}
      enc: {use: graph, recipe: parts/inner.yaml, controls: {speaker: voice}}
      last: {use: gain, from: enc.y}
    """,
            top="controls: {voice: {channels: 4}, amount: {default: 0.2, max: 3}}\n",
        )
    )
    recipe = Recipe.load(folder / "top.yaml")
    assert sources(recipe) == {
        "down": [("in", "mic")],
        "enc/a": [("in", "down")],
        "enc/b": [("in", "enc/a")],
        "last": [("in", "enc/b")],
    }
    inner = recipe.nodes[1]
    assert inner.controls == {"speaker": "voice", "amount": "amount"}
    assert str(inner.location).endswith("inner.yaml:5")
    # The range of the nested control holds outside as well.
    amount = recipe.controls["amount"]
    assert (amount.minimum, amount.maximum, amount.default, amount.unit) == (0.0, 1.0, (0.2,), "dB")
    assert recipe.controls["voice"].unit == ""
    (expected,) = recipe.expectations
    assert (expected.node, expected.reference, expected.stream) == ("enc", Reference("down"), Stream(16000, 1))
    assert str(expected.location).endswith("top.yaml:6")
    assert str(expected.declared).endswith("inner.yaml:2")


def test_nesting_goes_deep_and_controls_with_it(folder: Path) -> None:
    (folder / "top.yaml").write_text(
        wrap(
            """\
      enc: {use: graph, recipe: parts/outer.yaml, repeat: 2}
      last: {use: gain}
    """,
            top="controls: {speaker: {channels: 4}}\n",
        )
    )
    recipe = Recipe.load(str(folder / "top.yaml"))
    assert [node.name for node in recipe.nodes] == [
        "enc/0/deep/a", "enc/0/deep/b", "enc/0/last", "enc/1/deep/a", "enc/1/deep/b", "enc/1/last", "last",
    ]  # fmt: skip
    assert sources(recipe)["enc/1/deep/a"] == [("in", "enc/0/last")]
    assert sources(recipe)["last"] == [("in", "enc/1/last")]
    controls = recipe.nodes[0].controls
    assert controls["speaker"] == "speaker"
    assert recipe.controls[controls["amount"]].default == (0.5,)
    assert set(recipe.controls) == {"speaker", controls["amount"], recipe.nodes[3].controls["amount"]}


def test_an_inline_recipe_with_several_inputs_and_passages() -> None:
    recipe = Recipe.parse(
        wrap(
            """\
      pass:
        use: graph
        from: {a: mic, b: last}
        recipe:
          inputs: {a: {rate: 44100, channels: 1}, b: {rate: 44100, channels: 1}}
          blocks: {sum: {use: add, from: [a, b]}}
          outputs: {s: sum, dry: a}
      last: {use: delay, frames: 3, from: pass.s}
    """,
            "{wav: last, dry: pass.dry}",
        )
    )
    assert sources(recipe)["pass/sum"] == [("0", "mic"), ("1", "last")]
    assert recipe.outputs["dry"] == Reference("mic")


def test_training_is_marked_and_kept_apart() -> None:
    recipe = Recipe.parse(
        wrap(" last: {use: gain}\n")
        + dedent("""\
        training:
          blocks:
            teacher: {use: wavlm, from: mic}
            head: {use: linear, channels: 3}
          outputs: {guess: head, live: last}
          losses: {guess: {kind: l1, weight: 2}}
        """)
    )
    assert [(node.name, node.training) for node in recipe.nodes] == [("last", False), ("teacher", True), ("head", True)]
    assert recipe.training_outputs == {"guess": Reference("head"), "live": Reference("last")}
    assert recipe.training == {"losses": {"guess": {"kind": "l1", "weight": 2}}}


def test_a_nested_node_that_only_training_uses_is_a_training_node(folder: Path) -> None:
    recipe = Recipe.parse(
        wrap(
            """\
      enc: {use: graph, recipe: parts/inner.yaml}
      last: {use: gain, from: enc.y}
    """,
            top="controls: {speaker: {channels: 4}}\n",
        )
        + "training: {outputs: {z: enc.z}}\n",
        base=folder,
    )
    assert {node.name: node.training for node in recipe.nodes}["enc/unused"]
    assert not {node.name: node.training for node in recipe.nodes}["enc/b"]


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        ("44100", Fraction(44100)),
        ("44100.0", Fraction(44100)),
        ("'200/3'", Fraction(200, 3)),
        ("66.67", Fraction(6667, 100)),
        ("'0.1'", Fraction(1, 10)),
        ("1e3", Fraction(1000)),
        ("' 9 '", Fraction(9)),
        ("11025.000001", Fraction(11025000001, 1000000)),
    ],
)
def test_rates_are_exact(written: str, exact: Fraction) -> None:
    assert Recipe.parse(TINY.replace("44100, channels", f"{written}, channels")).inputs["mic"].rate == exact


NUMBERS = r"[-+]?[0-9]{1,20}(\.[0-9]{1,20}|/0{0,3}[1-9][0-9]{0,16})?"


@given(st.one_of(st.from_regex(NUMBERS, fullmatch=True), st.text("0123456789+-./ e_\u0661", max_size=12)))
@example(" 200 / 3 ")
@example("1/0")
@example("\u0661")
def test_text_is_the_same_number_to_a_recipe_and_to_a_block(text: str) -> None:
    """And where it is one, it is the fraction that it says."""
    try:
        number = exact_number("it", text)
    except ValueError:
        assert not re.fullmatch(NUMBERS, text)
        with pytest.raises(ValueError, match="is not a number"):
            recipe_number(text)
    else:
        assert recipe_number(text) == number == Fraction(text.replace(" ", ""))


@pytest.mark.parametrize(
    "written",
    ["0", "-1", ".nan", ".inf", "-.inf", "1e10", "1e999", "1e-7", "'1/1000001'", "'1/0'", "'a'", "true", "~", "[1]",
     "'1e1000000000'",  "'999999999999/1'", "1_000", "'-3/2'", "'1/2/3'"],
)  # fmt: skip
def test_rates_that_make_no_sense(written: str) -> None:
    text = TINY.replace("44100, channels", f"{written}, channels")
    with pytest.raises(RateError, match=r"^tiny.yaml:3: input 'mic': rate "):
        Recipe.parse(text, "tiny.yaml")


def test_dicts_are_recipes_too() -> None:
    data = {
        "recipe": "r",
        "inputs": {"mic": {"rate": Fraction(200, 3), "channels": np.int64(2)}},
        "blocks": {"g": {"use": "gain", "gain": np.float64(0.5), "taps": (1, 2)}},
        "outputs": {"wav": "g"},
    }
    recipe = Recipe.from_dict(data)
    assert recipe.inputs["mic"] == Stream(Fraction(200, 3), 2)
    assert recipe.nodes[0].params == {"gain": 0.5, "taps": [1, 2]}
    assert str(recipe.location_of("outputs", "wav")) == "<dict>"
    data["blocks"]["g"]["use"] = "else"  # type: ignore[index]
    assert recipe.nodes[0].use == "gain"


def test_byte_order_mark_and_windows_line_ends() -> None:
    raw = b"\xef\xbb\xbf" + TINY.replace("\n", "\r\n").encode()
    assert str(Recipe.parse(raw, "w.yaml").nodes[1].location) == "w.yaml:6"


def test_a_shipped_recipe_is_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "voice.yaml").write_text(TINY)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    assert Recipe.load("voice").name == "tiny"
    with pytest.raises(RecipeError, match=r"there is no recipe 'vioce'.*did you mean 'voice'"):
        Recipe.load("vioce")
    nested = wrap(" last: {use: graph, recipe: voice}\n")
    assert [node.name for node in Recipe.parse(nested).nodes] == ["last/down", "last/up"]


def test_scalars_are_read_by_the_core_schema() -> None:
    values = {
        "no": "no", "on": "on", "1:30": "1:30", "1_000": "1_000", "'3'": "3", "0o17": 15, "0x1F": 31, "1e-5": 1e-5,
        "+3": 3, "-0.5": -0.5, ".5": 0.5, "Null": None, "TRUE": True, "nil": "nil", "2024-01-01": "2024-01-01",
        "-": "-", "''": "", "1.": 1.0, "+.inf": float("inf"), "012": 12,
    }  # fmt: skip
    listed = ", ".join(f"v{i}: {text}" for i, text in enumerate(values) if text != "-")
    params = Recipe.parse(wrap(f" last: {{use: gain, {listed}}}\n")).nodes[0].params
    expected = {f"v{i}": value for i, (text, value) in enumerate(values.items()) if text != "-"}
    assert params == expected
    assert {key: type(value) for key, value in params.items()} == {k: type(v) for k, v in expected.items()}
