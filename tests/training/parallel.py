"""A tiny corpus of parallel sets, and a small recipe that converts: voices are tones, phones are where they lie."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from astrape.training.options import Options
from astrape.training.run import Outcome, train
from astrape.training.settings import Setting

RATE = 24000
FRAME = 600
"""Samples to a phone's frame: 40 a second."""

PHONES = 4

VOICES = {
    "low": (110.0, 0.2),
    "mid": (170.0, 0.6),
    "high": (260.0, 0.9),
    "held_one": (130.0, 0.4),
    "held_two": (230, 0.7),
}
"""Fundamental, and how much of it is its third harmonic: what tells the voices apart."""

RECIPE = """
recipe: tones
inputs: {mic: {rate: 16000, channels: 1}}
controls:
  speaker: {channels: 128}
blocks:
  mel: {use: mel, from: mic, n_fft: 512, hop: 160, bins: 20}
  even: {use: norm, kind: layer}
  body: {use: gru, channels: 24}
  content: {use: linear, channels: 12}
  late: {use: delay, from: mic, frames: 16}
  tracker: {use: pitch_tracker}
  f0: {use: gain, from: tracker, gain: 1.0}
  scaled: {use: gain, gain: 0.005}
  source: {use: linear, channels: 8}
  joined: {use: concat, from: [content, source]}
  joined_up: {use: linear, channels: 24}
  shaped: {use: adaptive_conv, condition: speaker, kernel: 3}
  head: {use: linear, channels: 160}
  wav: {use: overlap_add, hop: 160}
outputs: {wav: wav, content: content}
training:
  blocks:
    phones: {use: linear, from: content, channels: 5}
  outputs: {phones: phones, f0: f0}
  features: mic
  voice:
    train: [body, content, source, joined_up, shaped, head, phones]
    window: 8000
    evaluation_window: 8000
    batch: 4
    epochs: 2
    steps_per_epoch: 4
    optimiser: {use: adamw, lr: 4.0e-3, clip: 100.0, warmup: 2}
    settle: 0.05
    average: 0.9
    pairs: {same: 0.2, both: true}
    given: {f0: pair.pitch, speaker: pair.speaker}
    augment:
      - {use: room, chance: 0.3}
      - {use: noise, chance: 0.7, snr: [10, 40]}
      - {use: gain, db: [-6, 3]}
    losses:
      stft: {use: multi_resolution_stft, of: wav, to: pair.wav, sizes: [128, 256], floor: 1.0e-3}
      phones: {use: cross_entropy, of: phones, to: phones, weight: 3.0}
      agreement: {use: mse, of: content, to: twin, weight: 0.3}
"""


def vector(voice: str) -> NDArray[np.float32]:
    """A speaker's vector: the register and the share, in 128 numbers."""
    register, share = VOICES[voice]
    return np.resize(np.array([register / 200, share], np.float32), 128)


def rendering(voice: str, phones: NDArray[np.int16], pitch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each phone is a level of the second harmonic; phone 0 is silence."""
    share = VOICES[voice][1]
    phase = 2 * np.pi * np.cumsum(np.repeat(pitch, RATE // 80) / RATE)
    level = np.repeat(phones, FRAME) / PHONES
    wave = (level > 0) * 0.2 * (np.sin(phase) + level * np.sin(2 * phase) + share * np.sin(3 * phase))
    return wave.astype(np.float32)


def sentence(number: int, frames: int = 40) -> NDArray[np.int16]:
    """The phones of a set, each of 100 ms."""
    draw = np.random.default_rng(number)
    return np.repeat(draw.integers(0, PHONES + 1, frames // 4), 4).astype(np.int16)


def contour(voice: str, phones: NDArray[np.int16]) -> NDArray[np.float32]:
    """The fundamental of a rendering, 80 a second."""
    curve = 1 + 0.2 * np.sin(np.linspace(0, 3, 2 * len(phones)))
    return (VOICES[voice][0] * curve * np.repeat(phones > 0, 2)).astype(np.float32)


@cache
def recording(number: int, voice: str) -> NDArray[np.float32]:
    """A rendering of a set, made once and not to be changed."""
    made = rendering(voice, sentence(number), contour(voice, sentence(number)))
    made.flags.writeable = False
    return made


def shortened(path: Path) -> Path:
    """A recording without its last tenth of a second, beside the other."""
    samples, rate = soundfile.read(path, dtype="float32")
    soundfile.write(path.with_name(f"short_{path.name}"), samples[: -rate // 10], rate)
    return path.with_name(f"short_{path.name}")


def write_corpus(root: Path, sets: int = 6) -> Path:
    """A corpus in the layout of ``astrape corpus make parallel``; the manifest's path."""
    lines = []
    for number in range(sets):
        held = number >= sets - 2
        phones = sentence(number)
        folder = root / "sets" / "000" / f"{number:06d}"
        folder.mkdir(parents=True)
        np.save(folder / "phones.npy", phones)
        for voice in VOICES:
            if voice.startswith("held") != held:
                continue
            np.save(folder / f"{voice}.f0.npy", contour(voice, phones))
            np.save(folder / f"{voice}.spk.npy", vector(voice))
            soundfile.write(folder / f"{voice}.flac", recording(number, voice), RATE)
            split = "held" if held else "train"
            path = f"sets/000/{number:06d}/{voice}.flac"
            lines.append({"path": path, "speaker": voice, "set": f"{number:06d}", "split": split, "text": "la la"})
    (root / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root / "manifest.jsonl"


def options(root: Path, out: Path, *more: tuple[tuple[str | int, ...], Any], **given: Any) -> Options:
    """The options of a short run on a corpus that ``write_corpus`` made in ``root``."""
    recipe = root / "tones.yaml"
    if not recipe.exists():
        recipe.write_text(RECIPE)
    base: dict[str, Any] = {
        "cache": root / "cache",
        "data": root / "manifest.jsonl",
        "out_dir": out,
        "run_name": "voice",
        "recipe": str(recipe),
        "log_every": 1,
        "settings": tuple(Setting("--test", way, value) for way, value in more),
    }
    return Options(stage="voice", **{**base, **given})


def run(root: Path, out: Path, *more: tuple[tuple[str | int, ...], Any], **given: Any) -> Outcome:
    """Train, in silence."""
    return train(options(root, out, *more, **given), lambda line: None)
