"""Every mistake in a recipe: told with file, line, node and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from astrape import RecipeError
from astrape.graph.recipe import Recipe

VOICE = """\
recipe: voice
inputs:
  mic: {rate: 44100, channels: 1}
controls:
  amount: {channels: 2, default: [0, 1], min: 0, max: 1}
blocks:
  down: {use: resampler, rate: 16000}
  enc: {use: conv, kernel: 3, repeat: 2}
  part:
    use: graph
    recipe:
      inputs: {x: {rate: 16000, channels: 1}}
      controls: {depth: {default: 1, max: 2}}
      blocks: {g: {use: gain}}
      outputs: {y: g, z: g}
  mix: {use: add, from: [part.y, part.z]}
outputs:
  wav: mix
training:
  blocks:
    teacher: {use: wavlm, from: mic}
  outputs:
    target: teacher
  losses: {}
"""

PART_END = "      blocks: {g: {use: gain}}\n      outputs: {y: g, z: g}"

MISTAKES = {
    "unknown top key": ("recipe: voice", "recipe: voice\nblock: {}", "2: .*no key 'block': did you mean 'blocks'"),
    "missing outputs": ("outputs:\n  wav: mix\n", "", "1: a recipe lacks the key 'outputs': add outputs"),
    "missing name": ("recipe: voice\n", "", "1: a recipe lacks the key 'recipe'"),
    "number for a name": ("recipe: voice", "recipe: 3", "1: the recipe's name is 3, not text: put quotes"),
    "blocks a list": (
        "  down: {use: resampler, rate: 16000}",
        "  - {use: gain}",
        "8: not valid YAML: .*: check brackets",
    ),
    "inputs a text": ("inputs:\n  mic: {rate: 44100, channels: 1}", "inputs: mic", "2: inputs is 'mic', not a mapping"),
    "no inputs": ("\n  mic: {rate: 44100, channels: 1}", " {}", "2: there are no inputs: add one"),
    "no outputs": ("outputs:\n  wav: mix", "outputs: {}", "17: there are no outputs: add one"),
    "input without channels": (", channels: 1}\ncontrols", "}\ncontrols", "3: input 'mic' lacks the key 'channels'"),
    "unknown input key": ("channels: 1}\ncontrols", "chanels: 1}\ncontrols", "3: .*did you mean 'channels'"),
    "channels of half": (
        "channels: 1}\ncontrols",
        "channels: 0.5}\ncontrols",
        "3: input 'mic': channels is 0.5: give a",
    ),
    "channels true": ("channels: 1}\ncontrols", "channels: true}\ncontrols", "3: input 'mic': channels is true"),
    "too many channels": ("channels: 1}\ncontrols", "channels: 70000}\ncontrols", "3: .*from 1 to 65536"),
    "control called x": ("  amount:", "  x:", "5: control 'x' has a name that Python calls use: choose another"),
    "default of wrong length": ("[0, 1]", "[0, 1, 1]", "5: control 'amount': default has 3 numbers for 2 channels"),
    "default out of range": ("[0, 1]", "[0, 1.5]", "5: control 'amount': default 1.5 lies outside"),
    "default no number": ("[0, 1]", "[0, loud]", "5: control 'amount': default is 'loud': give a finite number"),
    "default nan": ("[0, 1]", ".nan", "5: control 'amount': default is nan"),
    "range turned round": ("min: 0, max: 1", "min: 2, max: 1", "5: .*min 2.0 is above max 1.0"),
    "node without use": ("use: resampler, ", "", "7: node 'down': it lacks the key 'use'"),
    "node a text": ("{use: resampler, rate: 16000}", "resampler", "7: node 'down': it is 'resampler', not a mapping"),
    "use a list": ("use: resampler", "use: [a]", "7: node 'down': use is a list of 1, not text"),
    "use without end": ("use: resampler", "use: " + "r" * 70, "7: node 'down': use is 'rrr.*give a block's name"),
    "name with a dot": ("  down:", "  do.wn:", "7: node 'do.wn' is not a name: use 1 to 64 letters"),
    "name with a slash": ("  down:", "  do/wn:", "7: node 'do/wn' is not a name"),
    "name of nothing": ("  down:", "  '':", "7: node '' is not a name"),
    "name of an input": ("  down:", "  mic:", "7: node 'mic': the name is taken by an input on voice.yaml:3: choose"),
    "name twice": ("  enc:", "  down:", "8: key 'down' was there already, on line 7"),
    "name twice, in training": (
        "    teacher:",
        "    mix:",
        "21: node 'mix': the name is taken by a node on voice.yaml:16",
    ),
    "repeat zero": ("repeat: 2", "repeat: 0", "8: node 'enc': repeat is 0: give a whole number from 1"),
    "repeat huge": ("repeat: 2", "repeat: 99999999", "8: node 'enc': repeat is 99999999"),
    "repeat too large in all": ("repeat: 2", "repeat: 9999", "9: node 'part': that makes more than 10000 nodes"),
    "repeat of a join": ("use: add,", "use: add, repeat: 2,", "16: node 'mix': repeat makes a chain, and there are 2"),
    "repeat of a fork": (
        "use: graph",
        "use: graph\n    repeat: 2",
        "11: node 'part': repeat makes a chain, .*outputs y, z",
    ),
    "from nothing": ("from: [part.y, part.z]", "from: []", "16: node 'mix': from is empty"),
    "from a number": ("from: [part.y, part.z]", "from: 3", "16: node 'mix': from is 3, not text: put quotes"),
    "from no reference": (
        "from: [part.y",
        "from: [part..y",
        "16: node 'mix': from reads 'part..y', which is not a ref",
    ),
    "from unknown": (
        "from: [part.y",
        "from: [dwn",
        "16: node 'mix': there is no node or input 'dwn': did you mean 'down'",
    ),
    "from an input's port": (
        "from: [part.y",
        "from: [mic.y",
        "16: node 'mix': 'mic.y': an input has no ports: write mic",
    ),
    "several outputs": ("from: [part.y", "from: [part", "16: node 'mix': 'part' has 2 outputs: write part.y or part.z"),
    "unknown output": ("from: [part.y", "from: [part.w", "16: node 'mix': 'part' has no output 'w': write part.y or"),
    "port with a bad name": (
        "from: [part.y, part.z]",
        "from: {'a b': part.y}",
        "16: node 'mix': from: 'a b' is not the name of an input",
    ),
    "output unknown": ("wav: mix", "wav: mx", "18: output 'wav': there is no node or input 'mx': did you mean 'mix'"),
    "output a list": ("wav: mix", "wav: [mix]", "18: output 'wav' is a list of 1, not text"),
    "a node feeds nothing": ("wav: mix", "wav: down", "8: node 'enc': it feeds nothing: name it in outputs, or remove"),
    "only training is fed": ("wav: mix", "wav: down", "8: node 'enc': it feeds nothing"),
    "an input is not read": (
        "  mic: {rate",
        "  far: {rate: 8, channels: 1}\n  mic: {rate",
        "8: node 'down': what does it read. .* 2 inputs: add from: far",
    ),
    "training feeds an output": ("wav: mix", "wav: teacher", "18: output 'wav' depends on training: 'teacher' -> out"),
    "training feeds a node": (
        "{use: resampler, rate: 16000}",
        "{use: resampler, rate: 16000, from: teacher}",
        "7: node 'down': a deployed node depends on training: "
        "'teacher' -> 'down' -> 'enc' -> 'part' -> 'mix' -> output 'wav': move",
    ),
    "training node without from": (", from: mic}\n", "}\n", "21: node 'teacher': what does it read"),
    "training node feeds nothing": (
        "target: teacher",
        "target: mix",
        "21: node 'teacher': it feeds nothing: name it in t",
    ),
    "graph without recipe": ("    use: graph\n    recipe:", "    use: graph\n    params:", "11: .*no key 'params'"),
    "recipe without graph": ("kernel: 3", "recipe: a.yaml", "8: node 'enc': 'recipe' belongs to nested graphs: remove"),
    "controls without graph": ("kernel: 3", "controls: {}", "8: node 'enc': 'controls' belongs to nested graphs"),
    "missing nested file": (
        "kernel: 3",
        "kernel: 3}\n  n: {use: graph, recipe: n.yaml",
        "9: node 'n': there is no recipe",
    ),
    "nested unknown key": ("outputs: {y: g, z: g}", "output: {y: g}", "15: a recipe has no key 'output': did you mean"),
    "nested feeds nothing": (
        "blocks: {g: {use: gain}}",
        "blocks: {g: {use: gain}, h: {use: gain}}",
        "14: node 'h': it f",
    ),
    "nested control unknown": ("use: graph", "use: graph\n    controls: {dept: amount}", "11: .*did you mean 'depth'"),
    "outer control unknown": ("use: graph", "use: graph\n    controls: {depth: amout}", "11: .*did you mean 'amount'"),
    "control channels": (
        "use: graph",
        "use: graph\n    controls: {depth: amount}",
        "11: .*has 2 channels, and 'depth'",
    ),
    "unit not text": ("[0, 1]", "[0, 1], unit: 3", "5: control 'amount': unit is 3, not text: put quotes"),
    "unit of nothing": ("[0, 1]", "[0, 1], unit: ''", "5: control 'amount': unit is '': give 1 to 16 characters"),
    "unit too long": ("[0, 1]", f"[0, 1], unit: {'n' * 17}", "5: control 'amount': unit is .* 1 to 16 characters"),
    "unit of two lines": ("[0, 1]", '[0, 1], unit: "a\\nb"', "5: control 'amount': unit is .* of one line"),
    "unit with blanks": ("[0, 1]", "[0, 1], unit: ' Hz'", "5: control 'amount': unit is ' Hz': give"),
    "units apart": (
        f"{{default: 1, max: 2}}}}\n{PART_END}",
        f"{{channels: 2, max: 2, unit: dB}}, loud: {{channels: 2, max: 2, unit: Hz}}}}\n{PART_END}\n"
        "    controls: {depth: amount, loud: amount}",
        "16: node 'part': control 'amount' .voice.yaml:5. is in dB, and 'loud' of .* in Hz: give them the same unit",
    ),
    "control missing": (
        "default: 1, max: 2",
        "channels: 1",
        "9: node 'part': 'part' needs a control 'depth' .1 chan",
    ),
    "control ranges apart": (
        f"{{default: 1, max: 2}}}}\n{PART_END}",
        f"{{channels: 2, min: 2}}}}\n{PART_END}\n    controls: {{depth: amount}}",
        "16: node 'part': control 'amount' .voice.yaml:5. and 'depth' .* no default or range in common",
    ),
    "nested inputs by list": (
        "use: graph",
        "use: graph\n    from: [enc, mic]",
        "11: node 'part': from gives 2 without names, .*inputs: x",
    ),
    "nested input unknown": (
        "use: graph",
        "use: graph\n    from: {w: enc}",
        "11: node 'part': 'part' has no input 'w'",
    ),
    "training a list": ("  losses: {}", "  losses: {}\n  losses: {}", "25: key 'losses' was there already, on line 24"),
    "inputs twice": (
        "controls:\n  amount",
        "inputs: {}\ncontrols:\n  amount",
        "4: key 'inputs' was there already, on line 2",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_place_and_a_hint(name: str) -> None:
    before, after, expected = MISTAKES[name]
    assert VOICE.count(before) >= 1
    text = VOICE.replace(before, after, 1)
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text, "voice.yaml")
    assert re.match(rf"voice\.yaml:{expected}", str(caught.value)), caught.value


def test_what_a_training_node_reads_may_be_live_and_an_input_may_be_for_training_alone() -> None:
    text = VOICE.replace("from: mic}\n  outputs", "from: mix}\n  outputs")
    assert Recipe.parse(text).nodes[-1].training
    text = VOICE.replace("from: mic}\n  outputs", "from: clean}\n  outputs").replace(
        "controls:\n  amount", "  clean: {rate: 44100, channels: 1}\ncontrols:\n  amount"
    )
    text = text.replace("use: resampler", "use: resampler, from: mic")
    assert set(Recipe.parse(text).inputs) == {"mic", "clean"}


def test_an_input_that_nothing_reads() -> None:
    text = VOICE.replace("inputs:\n", "inputs:\n  far: {rate: 8, channels: 1}\n").replace(
        "resampler,", "resampler, from: mic,"
    )
    with pytest.raises(RecipeError, match=r"voice.yaml:3: nothing reads input 'far': read it with from, or remove it"):
        Recipe.parse(text, "voice.yaml")


def write(folder: Path, **blocks: str) -> None:
    for name, nodes in blocks.items():
        head = f"recipe: {name}\ninputs: {{mic: {{rate: 8, channels: 1}}}}\n"
        (folder / f"{name}.yaml").write_text(f"{head}blocks: {{{nodes}}}\noutputs: {{wav: last}}\n")


def test_a_recipe_that_nests_itself(tmp_path: Path) -> None:
    write(tmp_path, a="last: {use: graph, recipe: b.yaml}", b="last: {use: graph, recipe: ./a.yaml}")
    with pytest.raises(
        RecipeError, match=r"b.yaml:3: node 'last': the recipe nests itself: a.yaml -> b.yaml -> a.yaml"
    ):
        Recipe.load(tmp_path / "a.yaml")
    with pytest.raises(RecipeError, match=r"nests itself: b.yaml -> a.yaml -> b.yaml"):
        Recipe.parse((tmp_path / "a.yaml").read_text(), base=tmp_path)


def test_files_nested_too_deep(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{f"r{i}": f"last: {{use: graph, recipe: r{i + 1}.yaml}}" for i in range(20)},
        r20="last: {use: gain}",
    )
    with pytest.raises(RecipeError, match=r"r16.yaml:3: node 'last': nested deeper than 16 recipes"):
        Recipe.load(tmp_path / "r0.yaml")
    assert Recipe.load(tmp_path / "r4.yaml").nodes[0].name == "/".join(["last"] * 17)


def test_files_that_multiply(tmp_path: Path) -> None:
    chain = ", ".join([*(f"n{i}: {{use: graph, recipe: NEXT}}" for i in range(9)), "last: {use: graph, recipe: NEXT}"])
    write(tmp_path, **{f"r{i}": chain.replace("NEXT", f"r{i + 1}.yaml") for i in range(12)}, r12="last: {use: gain}")
    with pytest.raises(RecipeError, match=r"makes more than 10000 nodes"):
        Recipe.load(tmp_path / "r0.yaml")


@pytest.mark.parametrize("name", ["gone.yaml", "", "..", "/dev/zero", "a\0b", "x" * 5000, "\ud800.yaml", "~/a.yaml"])
def test_no_such_file(name: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.load(name)
    data = {
        "recipe": "r",
        "inputs": {"mic": {"rate": 8, "channels": 1}},
        "blocks": {"n": {"use": "graph", "recipe": name}},
        "outputs": {"wav": "n"},
    }
    with pytest.raises(RecipeError, match=r"<dict>: node 'n': "):
        Recipe.from_dict(data)


def test_errors_in_nested_files_name_both(tmp_path: Path) -> None:
    write(tmp_path, top="last: {use: graph, recipe: sub/../inner.yaml}")
    (tmp_path / "inner.yaml").write_text("recipe: inner\ninputs: {x: {rate: 8, channels: 1}}\nblocks: [\n")
    (tmp_path / "sub").mkdir()
    with pytest.raises(RecipeError, match=r"inner.yaml:4: not valid YAML"):
        Recipe.load(tmp_path / "top.yaml")


def test_a_graph_that_only_hands_its_input_on_cannot_feed_itself() -> None:
    text = """\
recipe: r
inputs: {mic: {rate: 8, channels: 1}}
blocks:
  a:
    use: graph
    from: b
    recipe: &none
"""
    passing = "{inputs: {x: {rate: 8, channels: 1}}, blocks: {}, outputs: {y: x}}"
    text = text.replace("&none\n", passing + "\n")
    text += f"  b: {{use: graph, from: a, recipe: {passing}}}\n  c: {{use: add, from: [mic, b]}}\noutputs: {{wav: c}}\n"
    with pytest.raises(RecipeError, match=r"f:9: 'b' stands for itself: .*: feed it from a node"):
        Recipe.parse(text, "f")
    good = text.replace("from: b\n", "from: mic\n")
    assert str(Recipe.parse(good).nodes[0].sources[1][1]) == "mic"


def test_dicts_that_are_no_recipes() -> None:
    circle: dict[str, object] = {}
    circle["recipe"] = circle
    shared: list[object] = []
    for _ in range(40):
        shared = [shared, shared]
    for data in (circle, {"recipe": shared}, {1: 2}, [], None, {"recipe": object()}, {"recipe": 10**40}, {"a": b"x"}):
        with pytest.raises(RecipeError, match=r"^<dict>: "):
            Recipe.from_dict(data)  # type: ignore[arg-type]
