"""``bench``: its lines on the machine and on callbacks, and its picture."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import astrape
from astrape.errors import AstrapeError
from astrape.graph.session import Session
from astrape.runtime.bench import Bench, ChunkBench
from astrape.runtime.bench_picture import save_bench_picture
from astrape.runtime.callbacks import callback_loads
from astrape.runtime.machine import Best, Machine, best_seen, processor
from astrape.runtime.process import most_memory
from astrape.runtime.side_by_side import BackendBench
from tests.cli.audio import astrape as run
from tests.cli.audio import fails

MACHINE = Machine(memory_gb_s=10.0, working_set_bytes=1, working_set_gb_s=20.0, matmul_gflop_s=100.0)


def test_the_best_that_was_seen_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "machines.json"
    assert best_seen(MACHINE, path) == Best(10.0, 100.0, 1.0)
    slow = dataclasses.replace(MACHINE, memory_gb_s=5.0, matmul_gflop_s=110.0)
    assert best_seen(slow, path) == Best(10.0, 110.0, 0.5)
    assert best_seen(slow, path).busy
    assert json.loads(path.read_text()) == {processor(): {"memory_gb_s": 10.0, "matmul_gflop_s": 110.0}}
    near = best_seen(MACHINE, path)
    assert near.share == pytest.approx(100 / 110)
    assert not near.busy


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 1}', '{"x": {"memory_gb_s": "fast", "matmul_gflop_s": 1}}'])
def test_a_damaged_file_is_written_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "machines.json"
    path.write_text(text)
    assert best_seen(MACHINE, path) == Best(10.0, 100.0, 1.0)
    assert list(json.loads(path.read_text())) == [processor()]


def test_other_processors_keep_theirs_and_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "machines.json"
    path.write_text('{"another": {"memory_gb_s": 99.0, "matmul_gflop_s": 999.0}}')
    assert best_seen(MACHINE, path).share == 1.0
    assert set(json.loads(path.read_text())) == {"another", processor()}
    (tmp_path / "file").write_text("")
    assert best_seen(MACHINE, tmp_path / "file" / "machines.json") == Best(10.0, 100.0, 1.0)


def test_the_process_tells_the_most_memory_that_it_had() -> None:
    held = bytearray(300_000_000)
    held[::4096] = bytes(len(held[::4096]))
    most = most_memory()
    assert most is None or 300_000_000 < most < 1 << 40


def test_callbacks_get_as_many_frames_as_they_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each length through a session of its own, all as often, with constant latency."""
    heard: dict[int, list[int]] = {}
    push = Session.push

    def listening(self: Any, x: Any, **controls: Any) -> Any:
        y = push(self, x, **controls)
        heard.setdefault(x["mic"].shape[-1], []).append(y["wav"].shape[-1])
        return y

    monkeypatch.setattr(Session, "push", listening)
    graph = astrape.load("multirate")
    found = callback_loads(graph, [64, 441], seconds=0.1, backend="recorded")
    assert [one.frames for one in found] == sorted(heard) == [64, 441]
    assert len({len(given) for given in heard.values()}) == 1
    rate = graph.outputs["wav"].rate / Fraction(44100)
    for frames, given in heard.items():
        assert abs(sum(given) - len(given) * frames * rate) < 1
    for one in found:
        assert one.chosen.startswith("recorded: ")
        assert one.callbacks >= 60
        assert 0 < one.median <= one.p99 <= one.p999 <= one.worst
        assert one.had > 0


@pytest.mark.parametrize("frames", [[], [0], [64, 9000]])
def test_callbacks_out_of_range_are_told(frames: list[int]) -> None:
    with pytest.raises(AstrapeError, match="callbacks have 1 to 8192 frames, not "):
        callback_loads(astrape.load("multirate"), frames)


def test_callbacks_that_another_input_cannot_have_are_told() -> None:
    graph = astrape.compile(
        {
            "recipe": "two",
            "inputs": {"mic": {"rate": 8000, "channels": 1}, "key": {"rate": 4000, "channels": 1}},
            "blocks": {
                "down": {"use": "resampler", "rate": 4000, "from": "mic"},
                "sum": {"use": "add", "from": ["down", "key"]},
            },
            "outputs": {"wav": "sum"},
        }
    )
    with pytest.raises(AstrapeError, match="callbacks of 441 frames are 441/2 at input 'key'"):
        callback_loads(graph, [64, 441])


def test_the_picture_names_backends_and_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    times = dict.fromkeys((field.name for field in dataclasses.fields(ChunkBench)), 0.0)
    backends = [
        BackendBench("eager", "eager: asked for", 4.0, 4.2, 5.0, 6.0, 7.0, load=0.42, worst_load=0.7),
        BackendBench("compiled", "compiled", 1.5, 1.5, 2.0, 2.5, 12.0, load=0.15, worst_load=1.2),
        BackendBench("onnx", "no onnx here"),
    ]
    chunk = ChunkBench(
        **times | {"chunk_ms": 10.0, "floor_ms": 0.5, "backends": backends, "blocks": [], "untaped": None}
    )
    bench = Bench("robot", 1, 1, 1, None, 1, MACHINE, Best(30.0, 100.0, 1 / 3), [chunk])
    save_bench_picture(bench, tmp_path / "bench.svg")
    drawn = (tmp_path / "bench.svg").read_text()
    for text in ("eager", "compiled", "onnx", "does not run", "0.400", "0.150", "0.050", "at 33% of its best"):
        assert text in drawn


def test_a_picture_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    fails(run("bench", "multirate", "--picture", tmp_path / "bench.gif"), "a picture ends in .png, .svg or .pdf")
    done = run("bench", "multirate", "--rows", 2, "--picture", tmp_path / "bench.svg")
    fails(done, "hint: leave out --profile, --rows, --callbacks")
    assert not list(tmp_path.iterdir())


def test_rows_and_callbacks_are_told_in_json_and_as_tables() -> None:
    words = ("bench", "multirate", "--chunk", "20", "--seconds", "0.05", "--backend", "recorded")
    rows = json.loads(run(*words, "--rows", "2", "--json").stdout)["20 ms"]
    assert [(one["rows"], one["backend"]) for one in rows] == [(2, "recorded")]
    table = run(*words, "--callbacks").stdout
    for frames in (64, 128, 256, 441, 1764):
        assert f"{frames} frames" in table
    assert "of a callback's length, by computing; recorded: " in table
