"""A host as a program: ``plugin_host.py FOLDER`` does what ``in.json`` says to ``in.npz``, and writes ``out``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

KEPT = {"state": "saved", "turns": "turns", "silence": "silence"}
"""Values that are returned beside the sound, if there is any."""


def pieces(total: int) -> list[int]:
    """Lengths of blocks that come to a total; of one or two frames the host cannot tell frames from channels.

    The largest is the first, since the host makes the plugin ready anew, and silent, for a larger one.
    """
    generator = np.random.default_rng(1)
    made = [min(total, 8192)]
    total -= made[0]
    while total:
        size = min(total, int(np.exp(generator.uniform(np.log(3), np.log(8193)))))
        made.append(total if total - size < 3 else size)
        total -= made[-1]
    return made


def with_pedalboard(request: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    from pedalboard import load_plugin

    plugin: Any = load_plugin(request["plugin"])
    if request["what"] == "list":
        return {"names": list(plugin.parameters)}, np.zeros(0)
    if "state" in arrays:
        plugin.raw_state = arrays["state"].tobytes()
    for name, value in request.get("parameters", {}).items():
        setattr(plugin, name, value)
    sound, rate = arrays["sound"], request["rate"]
    if "parameters" in request and request["what"] == "process":
        # This host hands parameters over with the first block, and asks for the latency before that.
        plugin.process(0 * sound[:, :480], rate, buffer_size=request.get("block", 480), reset=True)
        plugin.reset()
    if request["what"] == "raw":
        parts, at = [], 0
        for size in pieces(sound.shape[1]):
            parts.append(plugin.process(sound[:, at : at + size], rate, buffer_size=8192, reset=False))
            at += size
        made = np.concatenate(parts, axis=1)
    else:
        made = plugin.process(sound, rate, buffer_size=request["block"], reset=True)
    answer = {
        "latency": plugin.reported_latency_samples,
        "parameters": {
            name: float(value) for name in plugin.parameters if isinstance(value := getattr(plugin, name), float)
        },
    }
    if request.get("save"):
        arrays["saved"] = np.frombuffer(plugin.raw_state, np.uint8)
    return answer, made


def switched(request: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The sound over and over, in blocks of a tenth, and a parameter that changes after the first time."""
    from pedalboard import load_plugin

    plugin: Any = load_plugin(request["plugin"])
    sound, rate = arrays["sound"], request["rate"]
    size = sound.shape[1] // 10
    parts = []
    for again in range(request["rounds"]):
        for at in range(0, size * 10, size):
            parts.append(plugin.process(sound[:, at : at + size], rate, buffer_size=size, reset=False))
            time.sleep(0.02)
        if again == 0:
            setattr(plugin, request["parameter"], request["value"])
    plugin.process(sound[:, :size], rate, buffer_size=size, reset=True)
    return {"latency": plugin.reported_latency_samples, "size": size * 10}, np.concatenate(parts, axis=1)


def together(request: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Two plugins in turns, block by block; then silence through one of them, and then the sound at another rate."""
    from pedalboard import load_plugin

    sound, rates, block = arrays["sound"], request["rates"], request["block"]
    plugins: list[Any] = [load_plugin(request["plugin"]) for _ in request["voices"]]
    for plugin, voice in zip(plugins, request["voices"], strict=True):
        plugin.voice = voice
        plugin.process(0 * sound[:, :block], rates[0], buffer_size=block, reset=True)
        plugin.reset()
    parts: list[list[Any]] = [[] for _ in plugins]
    for at in range(0, sound.shape[1], block):
        for plugin, kept in zip(plugins, parts, strict=True):
            kept.append(plugin.process(sound[:, at : at + block], rates[0], buffer_size=block, reset=False))
    arrays["turns"] = np.stack([np.concatenate(kept, axis=1) for kept in parts])
    arrays["silence"] = plugins[0].process(0 * sound, rates[0], buffer_size=block, reset=False)
    latency = [plugins[0].reported_latency_samples]
    made = plugins[0].process(sound, rates[1], buffer_size=block, reset=False)
    return {"latency": [*latency, plugins[0].reported_latency_samples]}, made


def with_dawdreamer(request: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    import dawdreamer

    sound, rate = arrays["sound"], request["rate"]
    engine = dawdreamer.RenderEngine(rate, request["block"])
    plugin = engine.make_plugin_processor("plugin", request["plugin"])
    names = [item["name"] for item in plugin.get_parameters_description()]
    what, (before, after) = request.get("what_moves", "Pitch"), request.get("values", [0.5, 0.75])
    moving = np.where(np.arange(sound.shape[1]) < request["jump"], before, after).astype(np.float32)
    plugin.set_automation(names.index(what), moving)
    engine.load_graph([(engine.make_playback_processor("in", sound), []), (plugin, ["in"])])
    engine.render(sound.shape[1] / rate)
    return {"latency": plugin.get_latency_samples()}, engine.get_audio()


def main(folder: str) -> None:
    request = json.loads(Path(f"{folder}/in.json").read_text())
    with np.load(f"{folder}/in.npz") as given:
        arrays = {name: given[name] for name in given.files}
    run = {"automated": with_dawdreamer, "switched": switched, "together": together}.get(
        request["what"], with_pedalboard
    )
    answer, sound = run(request, arrays)
    made = {"sound": np.asarray(sound, np.float32)}
    made |= {name: arrays[own] for name, own in KEPT.items() if own in arrays}
    np.savez(f"{folder}/out.npz", **made)
    Path(f"{folder}/out.json").write_text(json.dumps(answer))


main(sys.argv[1])
