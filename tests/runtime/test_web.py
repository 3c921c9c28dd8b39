"""The runner for browsers, in Chromium by ONNX Runtime's WebAssembly, beside the runner in Python."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch

from astrape.audio.whole import read_mono
from astrape.blocks import Stream
from astrape.blocks.resample import Resampler
from astrape.runtime.export import export
from astrape.runtime.portable import PortableSession
from astrape.voice.shipped import shipped_voices
from astrape.voice.voicebank import read_voicebank
from tests.runtime.exports import SPEAKER, decibels, sizes, small

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "build" / "web" / "node_modules" / "onnxruntime-web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason="no onnxruntime-web: `make runner-web` fetches it, with npm"),
]

Frames = npt.NDArray[np.float32]

ASKED = """async ({ runtime, folder, options, calls }) => {
    const ort = await import(`${runtime}/dist/ort.wasm.min.mjs`);
    ort.env.wasm.wasmPaths = `${runtime}/dist/`;
    ort.env.wasm.numThreads = 1;
    const { fetched } = await import("/runners/web/astrape.js");
    const { answers } = await import("/tests/runtime/web/calls.js");
    return answers(ort, fetched(folder), { options, calls });
}"""


class Browser:
    """A page that has the repository and exports at its own origin."""

    def __init__(self, page: Any, made: Path) -> None:
        self.page, self.made = page, made

    def ask(self, folder: Path, *calls: Any, **options: Any) -> dict[str, Any]:
        """The results of calls of a session."""
        given = {
            "runtime": "/build/web/node_modules/onnxruntime-web",
            "folder": f"/made/{folder.relative_to(self.made)}/",
            "options": options,
            "calls": calls,
        }
        answer: dict[str, Any] = self.page.evaluate(ASKED, given)
        return answer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def browser(made: Path) -> Iterator[Browser]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        extensions_map: ClassVar = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

        def translate_path(self, path: str) -> str:
            if path.startswith("/made/"):
                return str(made / path.removeprefix("/made/"))
            return super().translate_path(path)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(ROOT)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page()
        page.set_default_timeout(300_000)
        page.goto(f"http://127.0.0.1:{server.server_port}/runners/web/astrape.js")
        yield Browser(page, made)
        chromium.close()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def folder(made: Path) -> Path:
    export(small(), made / "small")
    return made / "small"


def pushed(x: Frames, most: int, seed: int = 0) -> list[Any]:
    """Calls that push ``(channels, frames)`` in chunks at random."""
    calls, at = [], 0
    for count in sizes(x.shape[-1], most, seed):
        pieces = [np.ascontiguousarray(channel[at : at + count]) for channel in x]
        calls.append(["push", [base64.b64encode(piece.tobytes()).decode() for piece in pieces]])
        at += count
    return calls


def heard(answer: dict[str, Any]) -> dict[str, Frames]:
    """Frames of all pushes behind each other, ``(channels, frames)``, by output."""
    assert "error" not in answer, answer["error"]
    parts: dict[str, list[Frames]] = {}
    for found in answer["found"]:
        assert "error" not in (found or {}), found
        for name, channels in (found or {}).items():
            parts.setdefault(name, []).append(
                np.stack([np.frombuffer(base64.b64decode(text), "f4") for text in channels])
            )
    return {name: np.concatenate(arrays, axis=-1) for name, arrays in parts.items()}


def noise(frames: int) -> Frames:
    return (0.1 * np.random.default_rng(3).standard_normal((1, frames))).astype(np.float32)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("most", [7, 900])
def test_outputs_of_all_rates_are_those_of_the_runner_in_python(
    browser: Browser, folder: Path, constant: bool, most: int
) -> None:
    x = noise(2345)
    answer = browser.ask(folder, ["set", "speaker", SPEAKER], *pushed(x, most), ["flush"], constantLatency=constant)
    session = PortableSession(folder, constant_latency=constant)
    first, rest = session.push(x[None], speaker=SPEAKER), session.flush()
    got = heard(answer)
    assert set(got) == set(first)
    for name in first:
        want = np.concatenate((first[name], rest[name]), axis=-1)[0]
        assert got[name].shape == want.shape
        assert decibels(got[name], want) < -110
    assert answer["hostLatency"] == {name: port.host for name, port in session.export.outputs.items()}


def test_speech_is_converted_in_the_browser(browser: Browser, made: Path, mini_export: Path) -> None:
    shutil.copytree(mini_export, made / "astrape-mini")
    with resources.as_file(resources.files("astrape.recipes") / "audio" / "sense-and-sensibility.flac") as path:
        samples, rate = read_mono(path)
    x = Resampler(Stream(rate, 1), rate=44100)(torch.from_numpy(samples)[None, None])[0, :, : 3 * 44100].numpy()
    voice = [float(value) for value in read_voicebank(shipped_voices()["emma"]).embedding]
    answer = browser.ask(made / "astrape-mini", ["set", "speaker", voice], ["set", "register", 200], *pushed(x, 2000))
    want = PortableSession(made / "astrape-mini").push(x[None], speaker=voice, register=200.0)
    got = heard(answer)
    assert got["wav"].shape == want["wav"][0].shape
    assert np.abs(got["wav"]).max() > 0.05
    assert np.array_equal(got["f0"] > 0, want["f0"][0] > 0)
    assert decibels(got["content"], want["content"][0]) < -100
    assert decibels(got["f0"], want["f0"][0]) < -110
    # Phases of pulses part with time, as they do between all runtimes.
    assert decibels(got["wav"][:, :44100], want["wav"][0, :, :44100]) < -40


def test_what_is_not_finite_is_heard_as_silence_from_there_on(browser: Browser, folder: Path) -> None:
    x = noise(1600)
    still, bad = x.copy(), x.copy()
    still[:, 700:] = 0
    bad[:, 700] = np.nan
    voice = ["set", "speaker", SPEAKER]
    answers = [browser.ask(folder, voice, *pushed(samples, 300)) for samples in (still, bad)]
    assert [answer["faults"] for answer in answers] == [[], [{"port": "mic", "frame": 700}]]
    want, got = map(heard, answers)
    for name in want:
        assert np.array_equal(want[name], got[name])


def test_a_session_is_new_after_reset_and_after_flush(browser: Browser, folder: Path) -> None:
    x = noise(1000)
    calls = pushed(x, 200)
    answer = browser.ask(folder, ["set", "speaker", SPEAKER], *calls, ["flush"], *calls, ["reset"], *calls, ["flush"])
    found = answer["found"]
    once, again = found[1 : 2 + len(calls)], found[3 + 2 * len(calls) :]
    assert heard({"found": once})["wav"].tobytes() == heard({"found": again})["wav"].tobytes()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["set", "loud", 1], "unknown control 'loud': hint: there is level, speaker"),
        (["set", "level", 3], "control 'level' is 3: hint: give at most 2"),
        (["set", "level", -1], "control 'level' is -1: hint: give at least 0"),
        (["set", "speaker", [1, 2]], "control 'speaker' has 4 channels, not 2"),
        (["push", []], "'mic' takes 1 arrays of one length, not 0"),
        (["push", ["", ""]], "'mic' takes 1 arrays of one length, not 2"),
        (["push", [""]], "control 'speaker' (4 channels) has no value"),
    ],
)
def test_what_it_cannot_take_is_told_in_a_line(browser: Browser, folder: Path, call: list[Any], said: str) -> None:
    (found,) = browser.ask(folder, call)["found"]
    assert found["error"].startswith(f"AstrapeError: {said}")
    assert "hint: " in found["error"]


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


def cut(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def age(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"version": 1', '"version": 99', 1))


def lose(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def edited(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def machine(folder: Path) -> None:
    """Make a folder such as ``astrape export --format aoti`` writes."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["onnx"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def wordless(folder: Path) -> None:
    edited(folder, files={})


def stateless(folder: Path) -> None:
    edited(folder, state=[])


def portless(folder: Path) -> None:
    edited(folder, outputs=None)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "model.onnx: is not what was written, by its checksum"),
        (cut, "manifest.json: is damaged"),
        (age, "of version 99, and this reads astrape-export of version 1"),
        (lose, "model.onnx: HTTP 404"),
        (machine, "small: holds no step for 'onnx', which is what browsers run: hint: export with --format onnx"),
        (wordless, "manifest.json: is damaged (it lists no 'model.onnx')"),
        (stateless, "model.onnx: is not what manifest.json tells of"),
        (portless, "small: cannot be opened ("),
    ],
)
def test_a_damaged_export_is_refused_in_a_line(browser: Browser, folder: Path, damage: Any, said: str) -> None:
    broken = folder.with_name(f"small-{damage.__name__}")
    shutil.copytree(folder, broken, dirs_exist_ok=True)
    damage(broken)
    error = browser.ask(broken)["error"]
    assert error.startswith("AstrapeError: ")
    assert said in error
    assert "hint: " in error
