"""The delay that the page tells, in a real browser: what comes back is the microphone's sound that much earlier."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

import astrape
from tests.studio.test_browser import address, context, pytestmark, speech

__all__ = ["address", "context", "pytestmark", "speech"]

Samples = np.ndarray

# The page's own accounting, from the first block on: what its node says that it heard and played, with the numbers of
# blocks, and the number of the first block that went to the server.
KEEP = """const connect = AudioNode.prototype.connect, send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  if (data instanceof ArrayBuffer) window.firstSent ??= new DataView(data).getUint32(0, true);
  return send.call(this, data);
};
AudioNode.prototype.connect = function (to, ...rest) {
  if (to instanceof AudioWorkletNode && this instanceof MediaStreamAudioSourceNode && !window.theSource) {
    [window.theSource, window.kept] = [this, []];
    const own = to.port.onmessage;
    to.port.onmessage = (event) => {
      const { number, samples, played } = event.data;
      if (samples) kept.push({ number, samples: samples.slice(), played: played.slice() });
      return own.call(to.port, event);
    };
  }
  return connect.call(this, to, ...rest);
};
window.asText = (parts) => parts.map((part) => {
  const bytes = new Uint8Array(part.buffer), found = [];
  for (let at = 0; at < bytes.length; at += 8192) found.push(String.fromCharCode(...bytes.subarray(at, at + 8192)));
  return btoa(found.join(""));
});"""

# A node of the test's own beside the page's: what goes into that one and what comes out, quantum by quantum as the
# audio thread renders them, by the thread's own frame numbers. (A ScriptProcessor leaves out quanta, and what is found
# with it is wrong by 128.)
TAP = """class Tap extends AudioWorkletProcessor {
  constructor({ processorOptions: { frames } }) {
    super();
    this.at = this.first = 0;
    this.kept = { heard: new Float32Array(frames), played: new Float32Array(frames), gaps: 0 };
  }
  process([heard, played]) {
    const { kept } = this;
    if (this.at >= kept.heard.length) return false;
    if (!this.at && !(heard.length && played.length)) return true;
    if (!this.at) this.first = currentFrame;
    if (currentFrame !== this.first + this.at) kept.gaps++;
    if (heard.length) kept.heard.set(heard[0], this.at);
    if (played.length) kept.played.set(played[0], this.at);
    this.at += 128;
    if (this.at >= kept.heard.length) this.port.postMessage(kept);
    return true;
  }
}
registerProcessor("tap", Tap);"""

TAPPED = """async (quanta) => {
  const code = new Blob([tapCode], { type: "text/javascript" });
  if (!context.tapped) await context.audioWorklet.addModule(URL.createObjectURL(code));
  context.tapped = true;
  const options = { numberOfInputs: 2, numberOfOutputs: 0, processorOptions: { frames: 128 * quanta } };
  const tap = new AudioWorkletNode(context, "tap", options);
  const came = new Promise((done) => { tap.port.onmessage = ({ data }) => done(data); });
  theSource.connect(tap, 0, 0);
  node.connect(tap, 0, 1);
  const { heard, played, gaps } = await came;
  theSource.disconnect(tap);
  node.disconnect(tap);
  return [...asText([heard, played]), gaps];
}"""


WHOLE = """() => {
  const parts = kept.slice(), all = (side) => {
    const joined = new Float32Array(parts.length * node.block);
    parts.forEach((part, index) => joined.set(part[side], index * node.block));
    return joined;
  };
  return [parts.map((part) => part.number), ...asText([all("samples"), all("played")])];
}"""

WAIT = 2.0
"""Seconds for the way, which the fixture's address asks for."""
TRIES = 30
"""Times that a busy machine may be too slow for a second of sound."""


@pytest.fixture
def page(context: Any, address: str) -> Iterator[Any]:
    complaints: list[str] = []
    # The page's policy lets nothing of others in, so that this test's own code is let in past it.
    made = context.browser.new_context(permissions=["microphone"], bypass_csp=True)
    made.add_init_script(KEEP)
    made.add_init_script(f"window.tapCode = {json.dumps(TAP)};")
    page = made.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(600_000)
    yield page
    made.close()
    assert not complaints


def started(page: Any, address: str) -> None:
    page.goto(address)
    # Pictures take a busy machine's time.
    page.evaluate("window.requestAnimationFrame = () => 0")
    page.click("#start")
    connected(page)


def connected(page: Any) -> None:
    for _ in range(6000):
        if page.evaluate("hello !== null && context !== null && context.state === 'running'"):
            return
        page.wait_for_timeout(100)
    raise AssertionError(page.inner_text("#status"))


def decoded(texts: list[str]) -> list[Samples]:
    return [np.frombuffer(base64.b64decode(text), "<f4") for text in texts]


def tapped(page: Any, seconds: float) -> tuple[Samples, Samples]:
    """Input and output of the page's node from now on, aligned."""
    heard, played, gaps = page.evaluate(TAPPED, int(seconds * page.evaluate("context.sampleRate")) // 128)
    # By its own numbers, the browser's audio thread leaves no quantum out.
    assert gaps == 0
    x, y = decoded([heard, played])
    return x, y


def whole(page: Any) -> tuple[Samples, Samples]:
    """Input and output that the page's node has recorded since it began."""
    numbers, *texts = page.evaluate(WHOLE)
    assert numbers == list(range(len(numbers)))
    x, y = decoded(texts)
    return x, y


def place_of(part: Samples, all_of_it: Samples) -> int:
    """Place of a part, which occurs once, equal to the bit."""
    start = int(np.flatnonzero(part)[0])
    key = part[start : start + 64]
    found = [at for at in np.flatnonzero(all_of_it == key[0]) if np.array_equal(all_of_it[at : at + 64], key)]
    assert len(found) == 1
    return int(found[0]) - start


def likeness(x: Samples, file: Path, rate: int) -> float:
    """Likeness of the best half second of ``x`` to a part of a file: 1 for the same."""
    samples, own = soundfile.read(file)
    y = scipy.signal.resample_poly(samples, rate, own)
    size, best = rate // 2, 0.0
    power = np.sqrt(scipy.signal.fftconvolve(y**2, np.ones(size), "valid").clip(1e-9))
    for at in range(0, len(x) - size, size):
        part = x[at : at + size].astype(np.float64)
        if np.abs(part).max() > 0.01:
            match = scipy.signal.fftconvolve(y, part[::-1], "valid") / power / np.linalg.norm(part)
            best = max(best, float(np.abs(match).max()))
    return best


def test_what_comes_back_is_the_conversion_of_the_file_at_the_told_delay(page: Any, address: str, speech: Path) -> None:
    for _ in range(TRIES):
        started(page, address)
        tap_x, tap_y = tapped(page, 4.0)
        x, y = whole(page)
        first, lost = page.evaluate("[firstSent * node.block, $('dropouts').textContent]")
        played = np.count_nonzero(y)
        print(f"{played} of {len(y)} frames were played; blocks lost: {lost}")
        # A block that the server had to leave out is not of this test: here all of it is to be converted.
        if (
            lost.startswith(("0 ", "-"))
            and np.count_nonzero(tap_y)
            and played > page.evaluate("context.sampleRate") // 2
        ):
            break
    else:
        raise AssertionError(f"the machine is too busy to convert half a second of sound in {TRIES} tries")
    rate = page.evaluate("context.sampleRate")
    graph = astrape.load("robot-voice").hosted(rate)
    assert page.evaluate("hello.latency") == graph.host_samples
    assert page.inner_text("#graph") == f"{1000 * graph.host_samples / rate:.1f} ms"
    assert page.inner_text("#way") == f"{1000 * WAIT:.0f} ms"
    # The node's accounting is the audio thread's: what the tap saw lies in it at one place, heard and played.
    at = place_of(tap_x, x)
    both = min(len(tap_x), len(x) - at)
    np.testing.assert_array_equal(tap_x[:both], x[at : at + both])
    np.testing.assert_array_equal(tap_y[:both], y[at : at + both])
    # What was played is what the graph makes of what was heard, from the first block on that was sent.
    heard = torch.from_numpy(x[first:].copy())[None, None]
    with torch.no_grad():
        made = graph.stream(constant_latency=True).push(heard, **page.evaluate("values()"))[0, 0].numpy()
        plain = graph(heard[..., : heard.shape[-1] // graph.quantum * graph.quantum], **page.evaluate("values()"))
    # That a stream of constant latency is the graph's own output, this much later, is here for all to see.
    held = graph.host_samples - int(graph.latency * rate)
    count = min(len(made) - held, plain.shape[-1])
    np.testing.assert_allclose(made[held : held + count], plain[0, 0, :count], rtol=0, atol=1e-5)
    expected = np.concatenate([np.zeros(first + round(WAIT * rate), np.float32), made])[: len(y)]
    # A block that is not back in time is silence.
    there = np.repeat(np.abs(y.reshape(-1, page.evaluate("node.block"))).max(axis=1) > 0, page.evaluate("node.block"))
    np.testing.assert_allclose(y[there], expected[there], rtol=0, atol=2e-5)
    assert np.abs(y).max() > 0.02
    # A frame sooner or later is another sound.
    assert np.abs(y[there][1:] - expected[there][:-1]).max() > 0.005
    # And what was heard is the file.
    assert likeness(x, speech, rate) > 0.9


def own_voice(page: Any, latency: int) -> int:
    """Frames that came out as they went in, the told number of frames before; all others are to be silence."""
    late = latency + round(WAIT * page.evaluate("context.sampleRate"))
    x, y = tapped(page, WAIT + 2.0)
    x, y = x[:-late], y[late:]
    # To the bit: a frame sooner or later is another number. What is not there in time is silence.
    assert not np.any((y != x) & (y != 0))
    return int(np.count_nonzero((y == x) & (y != 0)))


def until_heard(page: Any, latency: int) -> None:
    for _ in range(TRIES):
        if own_voice(page, latency):
            return
    raise AssertionError(f"nothing is heard in {TRIES} tries")


def test_one_is_heard_at_the_told_delay_whatever_happens(page: Any, address: str) -> None:
    started(page, address)
    page.keyboard.press("d")
    latency = page.evaluate("hello.latency")
    # What was under way in the other voice is through.
    page.wait_for_timeout(1000 * WAIT + 1000)
    until_heard(page, latency)
    # A connection that is lost comes back by itself, at the same delay: here it is lost while it is listened to.
    page.evaluate("setTimeout(() => socket.close(), 1000)")
    own_voice(page, latency)
    connected(page)
    until_heard(page, latency)
    # A second tab speaks beside the first, and its end is not the first one's.
    second = page.context.new_page()
    second.set_default_timeout(600_000)
    started(second, address)
    until_heard(page, latency)
    second.close()
    # A closed lid, or a browser that saves power: said, and woken by the first button.
    page.bring_to_front()
    page.evaluate("context.suspend()")
    page.locator("#status:has-text('The browser sleeps')").wait_for()
    page.click("#start")
    connected(page)
    until_heard(page, latency)
