"""Files that mean harm, or are just noise: a ``RecipeError``, soon, and in bounded memory."""

from __future__ import annotations

import re
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yaml import CSafeLoader, SafeLoader

from astrape import RecipeError
from astrape.graph.recipe import Recipe, yaml_source

HEAD = "recipe: r\ninputs: {mic: {rate: 8, channels: 1}}\n"
HOSTILE: dict[str, str | bytes] = {
    "nothing": "",
    "blank lines": "\n" * 10**6,
    "a comment": "#" * 10**6,
    "a list at the top": "- a\n- b\n",
    "a text at the top": "a b c",
    "sequences in sequences": "[" * 10**5,
    "mappings in mappings": "{a: " * 10**5,
    "dashes": "- " * 10**5,
    "question marks": "? " * 10**5,
    "indentation": "\n".join(" " * i + "a:" for i in range(1000)),
    "a million nodes": HEAD + "blocks:\n" + " a: {}\n" * 10**6,
    "as many nodes as fit": HEAD + "blocks:\n" + "".join(f" n{i}: {{use: g}}\n" for i in range(45000)),
    "a million values": "[" + "a," * 500_000 + "]",
    "a number of a million digits": "a: " + "9" * 10**6,
    "a fraction of a million digits": "a: 0." + "9" * 10**6,
    "a hexadecimal number without end": "a: 0x" + "f" * 10**6,
    "an exponent": HEAD.replace("8", "1e999999999"),
    "an exponent in quotes": HEAD.replace("8", "'1e999999999'"),
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "an alias to nothing": "a: *b",
    "an anchor that holds itself": "a: &a [*a]",
    "a merge key": HEAD + "blocks: {<<: {use: gain}, b: {use: gain}}\noutputs: {o: b}",
    "a Python object": "!!python/object/apply:os.system ['true']",
    "a binary tag": "recipe: !!binary aGk=",
    "an unknown tag": "recipe: !x r",
    "the non-specific tag": "recipe: ! r",
    "a tag directive": "%TAG ! tag:yaml.org,2002:python/\n---\nrecipe: !name:os.system r",
    "two documents": f"{HEAD}---\n{HEAD}",
    "bytes of all kinds": bytes(range(256)) * 4000,
    "no UTF-8": b"recipe: \xff\xfe",
    "UTF-16": HEAD.encode("utf-16"),
    "overlong UTF-8": b"recipe: \xc0\xaf",
    "a NUL": "recipe: \0",
    "an escape code": "recipe: \x1b[31m",
    "a lone surrogate": "recipe: \ud800",
    "a lone surrogate, escaped": '"\\ud800": 1',
    "an open quote": 'recipe: "' + "\n" * 10**6,
    "colons": ": " * 500_000,
    "commas": "[" + "," * 10**6,
    "percent signs": "%" * 10**6,
    "bangs": "!" * 10**6,
    "a key of a million letters": "a" * 10**6 + ": 1",
    "a quoted key of a million letters": '? "' + "a" * 10**6 + '"\n: 1',
    "a key twice": "recipe: a\nrecipe: b",
    "a key that is a number": "1: a",
    "a key that is nothing": "~: a",
    "a key that is a list": "? [a]\n: b",
    "a name of a million letters": HEAD.replace("mic", "? '" + "m" * 10**6 + "'\n : "),
    "tabs": "\t" * 10**6,
    "a chain that is too long": HEAD + "blocks: {a: {use: gain, repeat: 10000}, b: {use: gain}}\noutputs: {o: b}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_bounded_time_and_memory(name: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(HOSTILE[name], "evil.yaml")
    taken, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith("evil.yaml")
    assert message.isprintable()
    assert len(message) < 2000
    # Tracing allocations slows Python down several times: untraced, the slowest of these takes 0.3 s.
    assert taken < 5
    assert peak < 200 << 20


def test_the_parser_written_in_python_gives_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEAD + "blocks:\n a: {use: gain, v: [1, 'x', 1e3, ~, \"\\n\"], w: {k: .5}}\noutputs: {o: a}\n"
    params = []
    for loader in (CSafeLoader, SafeLoader):
        monkeypatch.setattr(yaml_source, "_Loader", loader)
        params.append(Recipe.parse(text).nodes[0].params)
        for small in ("a: &x 1", "a: *x", "!!python/name:os", "- " * 1000, "a: 'x", "---\n---\n", "a: \ud800"):
            with pytest.raises(RecipeError):
                Recipe.parse(small)
    assert params[0] == params[1] == {"v": [1, "x", 1000.0, None, "\n"], "w": {"k": 0.5}}


def test_a_thousand_nodes_are_read_quickly() -> None:
    nodes = "".join(f"  n{i}: {{use: conv, channels: 8, kernel: 3, list: [1, 2, 3]}}\n" for i in range(1000))
    text = f"{HEAD}blocks:\n{nodes}outputs: {{wav: n999}}\n"
    started = time.process_time()
    recipe = Recipe.parse(text)
    assert time.process_time() - started < 1  # 0.15 s on one core of a small machine
    assert len(recipe.nodes) == 1000


GOOD = """\
recipe: good
description: |
  two lines
  of text
inputs:
  mic: {rate: 44100, channels: 1}
controls:
  voice: {channels: 2, default: [0, 1]}
  amount: {default: 0.5, min: 0, max: 1}
blocks:
  down: {use: resampler, rate: "16000/3"}
  res: {use: conv, kernel: 3, repeat: 3}
  part:
    use: graph
    controls: {depth: amount}
    recipe:
      inputs: {x: {rate: 16000, channels: 1}}
      controls: {depth: {default: 1}}
      blocks: {g: {use: gain, gain: depth}, h: {use: gain, from: x}}
      outputs: {y: g, z: h}
  mix: {use: add, from: [part.y, part.z]}
  last: {use: delay, ms: 10}
outputs: {wav: last, dry: mic}
training:
  blocks:
    teacher: {use: wavlm, from: {left: mic, right: last}}
  outputs: {target: teacher}
  losses: {l1: 1.5}
"""
WORDS = st.sampled_from(
    [
        "recipe",
        "inputs",
        "controls",
        "blocks",
        "outputs",
        "training",
        "use",
        "from",
        "repeat",
        "graph",
        "mic",
        "down",
        "res",
        "part",
        "mix",
        "last",
        "part.y",
        "part.z",
        "res.0",
        "mic.0",
        "x",
        "y",
        "z",
        "g",
        "teacher",
        "rate",
        "channels",
        "default",
        "minimum",
        ".",
        "..",
        "a.b.c",
        "gain",
        "add",
        "1",
        "0",
        "-1",
        ".nan",
        ".inf",
        "1e400",
        "~",
        "true",
        "no",
        "200/3",
        "1/0",
        "*a",
        "&a",
        "!!int",
        "[",
        "]",
        "{",
        "}",
        "<<",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | WORDS, inner, max_size=3),
    max_leaves=6,
)


def only_recipe_errors(read: object, *args: object) -> None:
    try:
        read(*args)  # type: ignore[operator]
    except RecipeError as error:
        assert str(error).startswith(("<string>", "<dict>"))  # noqa: PT017


@settings(max_examples=150, deadline=None)
@given(st.text() | st.binary())
def test_arbitrary_text_gives_recipe_errors_only(text: str | bytes) -> None:
    only_recipe_errors(Recipe.parse, text)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_lines_and_words_of_a_good_recipe_mixed_up(data: st.DataObject) -> None:
    lines = GOOD.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["drop", "twice", "swap", "word", "noise"]))
        if kind == "drop":
            lines[at] = ""
        elif kind == "twice":
            lines[at] *= 2
        elif kind == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            cut = data.draw(st.integers(0, len(lines[at])))
            end = data.draw(st.integers(cut, min(len(lines[at]), cut + 6)))
            new = data.draw(WORDS if kind == "word" else st.text(max_size=4))
            lines[at] = lines[at][:cut] + new + lines[at][end:]
    only_recipe_errors(Recipe.parse, "".join(lines))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_values_of_a_good_recipe_dropped_and_replaced(data: st.DataObject) -> None:
    recipe = yaml_source.read_yaml(GOOD, "good.yaml").data
    for _ in range(data.draw(st.integers(1, 3))):
        container = recipe
        while True:
            keys = list(container) if isinstance(container, dict) else list(range(len(container)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            deeper = container[key]
            if isinstance(deeper, (dict, list)) and data.draw(st.integers(0, 3)):
                container = deeper
                continue
            change = data.draw(st.sampled_from(["drop", "replace", "rename"]))
            if change == "replace" or isinstance(container, list):
                container[key] = data.draw(VALUES)
            elif change == "drop":
                del container[key]
            else:
                container[data.draw(WORDS)] = container.pop(key)
            break
    only_recipe_errors(Recipe.from_dict, recipe)


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_arbitrary_values_give_recipe_errors_only(value: object) -> None:
    only_recipe_errors(Recipe.from_dict, value)


SECRETS = [
    "TOKEN=WORD\nOTHER=1\n",
    "root:x:0:0:WORD:/root:/bin/bash\n",
    "-----BEGIN PRIVATE KEY-----\nWORD\n-----END PRIVATE KEY-----\n",
    "password: WORD\n",
    "WORD: password\n",
    '{"WORD": "WORD"}',
    "WORD: 1\nWORD: 2\n",
    "- WORD\n",
    "key: !WORD 1\n",
    "key: !!WORD 1\n",
    "? [WORD]\n: 1\n",
    "? {key: {WORD: 1, WORD: 2}}\n: 1\n",
    "key: &WORD 1\n",
    "key: *WORD\n",
    "%WORD\n---\n",
    "'WORD\n",
    '"\\qWORD"',
    "WORD: WORD: WORD\n",
    "\tWORD\n",
    "@WORD\n",
    "WORD\0",
]


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("word", ["hunter2", "987654321", "h" * 500])
def test_a_file_that_is_no_recipe_stays_out_of_the_message(tmp_path: Path, text: str, word: str) -> None:
    file, outer = tmp_path / "other", tmp_path / "outer.yaml"
    file.write_text(text.replace("WORD", word))
    outer.write_text(f"{HEAD}blocks: {{n: {{use: graph, recipe: ./other}}}}\noutputs: {{o: n}}\n")
    for asked in (file, outer):
        with pytest.raises(RecipeError) as caught:
            Recipe.load(asked)
        message = str(caught.value).replace(str(tmp_path), "")
        assert message.startswith("/other")
        assert word[:7] not in message


def test_a_recipe_with_a_fault_is_quoted() -> None:
    for text, said in {
        f"{HEAD}hunter2: 1\n": "3: a recipe has no key 'hunter2'",
        f"{HEAD}blocks: {{a: {{use: gain}}, a: {{use: gain}}}}\n": "3: key 'a' was there already, on line 3",
        f"{HEAD}blocks: hunter2\noutputs: {{o: a}}\n": "3: blocks is 'hunter2', not a mapping",
        f"{HEAD}description: !hunter2 a\n": "3: tag '!hunter2' is not taken",
    }.items():
        with pytest.raises(RecipeError, match=re.escape(said)):
            Recipe.parse(text)
