"""The weights that ship, held to their model card on a few sentences that no training has heard."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

import astrape
from astrape.graph.graph import Graph
from astrape.voice.conversion import Converter
from astrape.voice.shipped import shipped_voices
from astrape.voice.speaker import speaker_encoder
from astrape.voice.speaking import voice_controls
from astrape.voice.voicebank import read_voicebank

SPEECH = Path(__file__).parents[1] / "audio" / "speech" / "librivox"
SENTENCES = ("0870", "0880", "0890")
VOICES = ("emma", "george")

MOST_WORDS_WRONG = 0.25
"""Share of the words of three sentences in both voices, heard otherwise than in the sources: 0.17 by the card. Two
words of 88 may turn with the recogniser's or the processor's last bits; a quarter means that something broke."""


@pytest.fixture(scope="module")
def converter() -> Converter:
    return Converter.load()


@pytest.fixture(scope="module")
def converted(converter: Converter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Path]]:
    folder = tmp_path_factory.mktemp("converted")
    made = {}
    for voice in VOICES:
        bank = read_voicebank(shipped_voices()[voice])
        for name in SENTENCES:
            made[name, voice] = folder / f"{name}-{voice}.wav"
            converter.file(SPEECH / f"{name}.flac", made[name, voice], bank)
    return made


def read(path: Path) -> npt.NDArray[np.float64]:
    samples, rate = soundfile.read(path)
    assert rate == 16000
    return np.asarray(samples)


def test_what_comes_out_is_speech_at_the_level_of_what_goes_in(converted: dict[tuple[str, str], Path]) -> None:
    for (name, _), path in converted.items():
        before, after = read(SPEECH / f"{name}.flac"), read(path)
        assert len(before) == len(after)
        assert np.abs(after).max() < 1
        levels = [10 * np.log10((x**2).mean()) for x in (before, after)]
        assert abs(levels[0] - levels[1]) < 6
        # Loud where the source is: the words stand where they stood.
        envelopes = [np.sqrt((x[: len(x) // 800 * 800].reshape(-1, 800) ** 2).mean(1)) for x in (before, after)]
        assert np.corrcoef(*envelopes)[0, 1] > 0.8


def test_each_voice_is_nearer_to_its_own_voicebank_than_to_the_other(converted: dict[tuple[str, str], Path]) -> None:
    embeds = speaker_encoder("astrape-speaker")
    banks = {voice: read_voicebank(shipped_voices()[voice]).speaker.flatten() for voice in VOICES}
    for voice, other in (VOICES, VOICES[::-1]):
        sound = np.concatenate([read(path) for (_, of), path in converted.items() if of == voice])
        # Linear interpolation will do for an encoder that listens below 8 kHz.
        place = np.arange(0, len(sound) - 1, 16000 / 44100)
        fine = np.interp(place, np.arange(len(sound)), sound).astype(np.float32)
        found = embeds.embed(torch.from_numpy(fine))
        near, far = (float(torch.cosine_similarity(found, banks[one], dim=0)) for one in (voice, other))
        assert near > far + 0.05


def test_the_intonation_is_the_source_s_in_the_register_of_the_voice(converter: Converter) -> None:
    graph: Graph = astrape.load("astrape-mini")
    bank = read_voicebank(shipped_voices()["emma"])
    sound, _ = soundfile.read(SPEECH / "0870.flac", dtype="float32")
    fine = np.interp(np.arange(0, len(sound) - 1, 16000 / 44100), np.arange(len(sound)), sound).astype(np.float32)
    mic = torch.from_numpy(fine[: len(fine) // 441 * 441])[None, None]
    with torch.no_grad():
        out = graph(mic, **{name: torch.as_tensor(v).reshape(1, -1) for name, v in voice_controls(graph, bank).items()})
        heard = astrape.compile(
            {
                "recipe": "heard",
                "inputs": {"voice": {"rate": 44100, "channels": 1}},
                "blocks": {"tracked": {"use": "pitch_tracker", "hop": 441}},
                "outputs": {"pitch": "tracked"},
            }
        )(out["wav"])
    asked, found = out["f0"][0, 0], heard[0, 0]
    # F0 is asked for 20 ms after the microphone and sounds 20 ms later; the tracker takes another 20 ms.
    late = 4
    asked, found = asked[100:-late], found[100 + late :]
    both = (asked > 0) & (found > 0)
    assert both.sum() > 0.6 * (asked > 0).sum()
    cents = 1200 * torch.log2(found[both] / asked[both])
    assert cents.abs().median() < 30
    register = bank.metadata.median_f0_hz
    assert register is not None
    assert float(asked[asked > 0].median()) == pytest.approx(register, rel=0.12)


def test_streaming_equals_the_whole_pass_with_these_weights() -> None:
    graph: Graph = astrape.load("astrape-mini").double().eval()
    bank = read_voicebank(shipped_voices()["michael"])
    controls = {name: torch.as_tensor(v).double().reshape(1, -1) for name, v in voice_controls(graph, bank).items()}
    sound, _ = soundfile.read(SPEECH / "0880.flac", frames=24000)
    mic = torch.from_numpy(np.resize(sound, 441 * 60))[None, None]
    with torch.no_grad():
        whole = graph(mic, **controls)["wav"]
    session = graph.stream(dtype=torch.float64)
    parts, sizes, start = [], [441, 64, 1000, 1, 882, 37], 0
    while start < mic.shape[-1]:
        size = sizes[len(parts) % len(sizes)]
        parts.append(session.push(mic[..., start : start + size], **controls)["wav"])
        start += size
    streamed = torch.cat(parts, dim=-1)
    assert streamed.shape[-1] >= 441 * 58
    assert (streamed - whole[..., : streamed.shape[-1]]).abs().max() < 1e-9


@pytest.mark.skipif(find_spec("moonshine_voice") is None, reason="moonshine-voice is not installed (extra evaluate)")
def test_most_words_are_understood(converted: dict[tuple[str, str], Path]) -> None:
    import jiwer

    from astrape.voice.evaluation.context import Tools
    from astrape.voice.evaluation.intelligibility import Intelligibility
    from astrape.voice.evaluation.recording import Recording
    from astrape.voice.evaluation.text import normalised

    hears = Intelligibility(Tools())
    said = {name: normalised(hears.recognised(Recording(SPEECH / f"{name}.flac"))) for name in SENTENCES}
    expected = [said[name] for name, _ in converted]
    found = [normalised(hears.recognised(Recording(path))) for path in converted.values()]
    assert jiwer.wer(expected, found) < MOST_WORDS_WRONG
