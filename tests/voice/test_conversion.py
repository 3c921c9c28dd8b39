"""``astrape convert``: aligned to the sample at any rate, whatever the voice comes from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import astrape
import astrape.voice
from astrape.errors import StreamError
from astrape.graph.subgraph import subgraph
from astrape.voice.building import build_voicebank
from astrape.voice.conversion import SEED, Converter, voice_of
from astrape.voice.speaker import MelStatistics
from astrape.voice.voicebank import write_voicebank
from tests.voice.conversion_files import SAMPLE, SMALL, fails, read, run, sines, succeeds, voicebank, write
from tests.voice.test_voicebank_building import voice as hum


@pytest.mark.parametrize(
    ("rate", "channels"), [(8000, 1), (12345, 1), (22050, 2), (44100, 1), (48000, 2), (192_000, 1)]
)
def test_output_is_aligned_to_the_sample(tmp_path: Path, through: Path, bank: Path, rate: int, channels: int) -> None:
    x = sines(0.5, rate, channels)[: rate // 2 - 1]
    source = write(tmp_path / "in.wav", x, rate)
    result = run("convert", source, "--target", bank, "-o", tmp_path / "out.wav", "--recipe", through, "--json")
    done = json.loads(succeeds(result).stdout)
    assert (done["rate_out"], done["frames_out"], done["latency_frames"]) == (rate, len(x), 0)
    y = read(tmp_path / "out.wav")
    assert y.shape == (len(x), 1)
    inside = slice(rate // 20, -rate // 20)
    assert np.abs(y - x[:, :1])[inside].max() < 2e-4
    # One sample off would be seen.
    assert np.abs(np.roll(y, 1) - x[:, :1])[inside].max() > 2e-3


@pytest.mark.parametrize("frames", [0, 1, 440, 5003])
@pytest.mark.parametrize("rate", [11025, 44100])
def test_output_has_the_inputs_length(tmp_path: Path, bank: Path, frames: int, rate: int) -> None:
    source = write(tmp_path / "in.wav", sines(1, rate)[:frames], rate)
    out = tmp_path / "out.wav"
    succeeds(run("convert", source, "--target", bank, "-o", out, "--recipe", SMALL, "--chunk", 200))
    assert (soundfile.info(out).frames, soundfile.info(out).samplerate) == (frames, rate)


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3"])
def test_formats_that_cannot_be_empty_say_so(tmp_path: Path, through: Path, bank: Path, ending: str) -> None:
    source = write(tmp_path / "in.wav", sines(0, 44100), 44100)
    out = tmp_path / f"out.{ending}"
    result = run("convert", source, "--target", bank, "-o", out, "--recipe", through)
    if result.exit_code:
        fails(result, "cannot be without samples")
        assert not out.exists()
    else:
        assert soundfile.info(out).frames == 0


def test_a_converted_file_is_the_whole_pass_of_the_graph(
    tmp_path: Path, speech: Path, bank: Path, weights: Path
) -> None:
    out, codes = tmp_path / "out.wav", tmp_path / "codes.npy"
    succeeds(
        run("convert", speech, "--target", bank, "-o", out, "--recipe", SMALL, "--weights", weights, "--codes", codes)
    )
    graph = astrape.load(SMALL, weights=weights)
    x = torch.from_numpy(read(speech).T).unsqueeze(0)
    late = -(-graph.latency.numerator * 44100 // graph.latency.denominator)
    padded = torch.nn.functional.pad(x, (0, 44100))
    with torch.no_grad():
        whole = graph(padded, speaker=voicebank(1).speaker)
    due = whole["wav"][0, 0, late : late + x.shape[-1]].numpy()
    assert np.abs(due).max() > 0.5
    assert np.abs(read(out)[:, 0] - due).max() < 1e-3
    stored = np.load(codes)
    assert stored.dtype == np.int32
    assert len(stored) >= x.shape[-1] / 44100 * 25
    assert np.array_equal(stored, whole["codes"][0, 0, : len(stored)].numpy())
    assert len(set(stored.tolist())) > 1


def test_the_chunk_changes_nothing(tmp_path: Path, speech: Path, weights: Path) -> None:
    converter = Converter.load(SMALL, weights)
    for name, chunk in {"a": 10.0, "b": 3.7, "c": 1000.0}.items():
        converter.file(speech, tmp_path / f"{name}.wav", voicebank(1), chunk_ms=chunk)
    a, b, c = (read(tmp_path / f"{name}.wav") for name in "abc")
    # Quanta are the same whatever the chunk, so only their number in one product differs.
    assert np.abs(a - b).max() < 1e-4
    assert np.abs(a - c).max() < 1e-3
    assert np.abs(a).max() > 0.5


def test_the_voice_is_heard(tmp_path: Path, speech: Path, weights: Path) -> None:
    converter = Converter.load(SMALL, weights, codes=True)
    for name, seed in {"a": 1, "b": 2, "again": 1}.items():
        codes = tmp_path / f"{name}.npy"
        converter.file(speech, tmp_path / f"{name}.wav", voicebank(seed), chunk_ms=500, codes=codes)
    a, b, again = (read(tmp_path / f"{name}.wav") for name in ("a", "b", "again"))
    assert np.array_equal(a, again)
    assert np.abs(a - b).max() > 0.1
    # What is said is the same whoever says it.
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


def test_live_latency_is_what_the_report_says(tmp_path: Path, through: Path, bank: Path) -> None:
    x = sines(0.3, 44100)
    source = write(tmp_path / "in.wav", x, 44100)
    words = ("convert", source, "--target", bank, "-o", tmp_path / "out.wav", "--recipe", through)
    result = succeeds(run(*words, "--live-latency", "--json"))
    late = json.loads(run("report", through, "--json").stdout)["host_samples"]
    y = read(tmp_path / "out.wav")
    assert late >= 1234
    assert json.loads(result.stdout)["latency_frames"] == late
    assert len(y) == len(x) + late
    assert np.abs(y[late:] - x).max() < 1e-5
    assert np.abs(y[:late]).max() == 0


def test_random_weights_are_said_and_repeat(tmp_path: Path, speech: Path, bank: Path) -> None:
    words = ("convert", speech, "--target", bank, "--recipe", SMALL, "--chunk", 500, "--json")
    results = [succeeds(run(*words, "-o", tmp_path / f"{name}.wav")) for name in "ab"]
    said = [line for line in results[0].stderr.splitlines() if "the output is noise" in line]
    assert len(said) == 1
    facts = json.loads(results[0].stdout)
    assert (facts["random_weights"], facts["seed"], facts["weights"]) == (True, SEED, None)
    assert (facts["recipe"], facts["voice"]) == (SMALL, str(bank))
    # Samples, since the header of a WAV file with floats says when it was written.
    assert np.array_equal(read(tmp_path / "a.wav"), read(tmp_path / "b.wav"))
    assert read(tmp_path / "a.wav").std() > 1e-3


def test_drawing_weights_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Converter.load(SMALL)
    assert torch.equal(torch.rand(3), expected)


def test_given_weights_are_not_called_random(tmp_path: Path, speech: Path, bank: Path, weights: Path) -> None:
    words = ("--target", bank, "-o", tmp_path / "a.wav", "--recipe", SMALL, "--weights", weights, "--chunk", 500)
    result = succeeds(run("convert", speech, *words, "--json"))
    assert "noise" not in result.stderr
    facts = json.loads(result.stdout)
    assert (facts["random_weights"], facts["seed"], facts["weights"]) == (False, None, str(weights))


def test_a_recording_is_a_voice_as_is_a_voicebank_of_either_form(folder: Path) -> None:
    built = build_voicebank(SAMPLE, MelStatistics())
    write_voicebank(built, folder / "sample.npz")
    (folder / "voicebank-by-content").write_bytes((folder / "sample.npz").read_bytes())
    for path in (SAMPLE, folder / "sample.npz", folder / "voicebank-by-content"):
        assert np.array_equal(voice_of(path).embedding, built.embedding)


def test_an_untrained_embedding_is_said_in_one_line(tmp_path: Path, through: Path, speech: Path) -> None:
    voice = write(tmp_path / "voice.wav", hum(6, 22050, 130, 8), 22050)
    words = ("convert", speech, "-o", tmp_path / "out.wav", "--recipe", through, "--target", voice, "--chunk", 500)
    untrained = succeeds(run(*words))
    assert len([line for line in untrained.stderr.splitlines() if "not trained" in line]) == 1
    other = succeeds(run(*words, "--encoder", "tests.voice.test_voicebank_building:Windows", "--json"))
    assert "not trained" not in other.stderr
    assert json.loads(other.stdout)["embedding_model"] == "windows"


def test_the_python_face(tmp_path: Path, speech: Path, bank: Path, weights: Path) -> None:
    words = {"recipe": SMALL, "chunk_ms": 500}
    with pytest.warns(UserWarning, match="random weights: the output is noise"):
        done = astrape.voice.convert(speech, bank, tmp_path / "noise.wav", **words)
    assert done.frames_out == done.frames_in == 2 * 44100
    astrape.voice.convert(speech, bank, tmp_path / "a.wav", weights=weights, **words)
    astrape.voice.convert(speech, voicebank(1), tmp_path / "b.wav", weights=weights, **words)
    # Samples, since the header of a WAV file with floats says when it was written.
    assert np.array_equal(read(tmp_path / "a.wav"), read(tmp_path / "b.wav"))


def test_only_what_the_output_needs_is_run() -> None:
    recipe = {
        "recipe": "two",
        "inputs": {"mic": {"rate": 44100, "channels": 1}},
        "controls": {"speaker": {"channels": 128}, "loud": {"channels": 1}},
        "blocks": {
            "voiced": {"use": "adaptive_conv", "from": "mic", "condition": "speaker", "kernel": 3},
            "other": {"use": "gain", "from": "voiced", "gain": "loud"},
            "late": {"use": "delay", "from": "mic", "frames": 88},
            "mean": {"use": "add", "from": ["late", "voiced"]},
        },
        "outputs": {"wav": "mean", "loud": "other"},
    }
    graph = astrape.compile(recipe)
    part = Converter(graph).graph
    assert (list(part.outputs), list(part.controls)) == (["wav"], ["speaker"])
    assert "other" not in part.nodes
    assert part.latency == graph.latency
    x = torch.randn(1, 1, 1000)
    speaker = voicebank(1).speaker
    assert torch.equal(part(x, speaker=speaker), graph(x, speaker=speaker, loud=2.0)["wav"])
    with pytest.raises(StreamError, match="no output 'voice': "):
        subgraph(graph, ["voice"])
    with pytest.raises(StreamError, match="at least one output"):
        subgraph(graph, [])


MEMORY = """
import json, resource, sys
import torch
torch.set_num_threads(1)
from astrape.voice import Converter, voice_of
from astrape.graph import load
recipe, voice, *files = sys.argv[1:]
converter = Converter(load(recipe))
peaks = []
for file in files:
    converter.file(file, file + ".wav", voice_of(voice), chunk_ms=500)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps(peaks))
"""


def test_memory_does_not_grow_with_the_length(tmp_path: Path, through: Path, bank: Path) -> None:
    files = []
    for seconds in (10, 240):
        path = tmp_path / f"{seconds}.wav"
        with soundfile.SoundFile(path, "w", 44100, 2, subtype="PCM_16") as audio:
            for _ in range(seconds // 10):
                audio.write(sines(10, 44100, 2))
        files.append(str(path))
    words = [sys.executable, "-c", MEMORY, str(through), str(bank), *files]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    short, long = json.loads(done.stdout)
    # In KiB; the samples alone, mixed, as floats, are 40 MiB.
    assert long - short < 12 * 1024
