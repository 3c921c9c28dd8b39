"""Training on synthetic voices: it learns, what comes out streams, and what is not finite is left out."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import astrape
import astrape.training.architecture
from astrape.blocks.base import Stream
from astrape.blocks.quantize import FSQ, Q2D2
from astrape.corpus.errors import CorpusError
from astrape.training import teachers
from astrape.training.adversary import random_windows
from astrape.training.checkpoint import load_checkpoint
from astrape.training.encoder import codes_of_content
from astrape.training.errors import CacheError, TrainingError
from astrape.training.objectives import L1, Total, register_loss
from astrape.training.pairing import Clock, delay_of, delayed, frame_weights, partners, said
from astrape.training.run import train
from tests.training import grounds


@given(
    st.sampled_from([Fraction(25), Fraction(50), Fraction(175), Fraction(200, 3)]),
    st.sampled_from([Fraction(25), Fraction(50), Fraction(100)]),
    st.fractions(0, Fraction(1, 5), max_denominator=2000),
    st.integers(0, 3),
)
def test_a_frame_s_partner_is_the_one_that_its_middle_falls_into(
    rate: Fraction, other: Fraction, latency: Fraction, ahead: int
) -> None:
    found = partners(40, Clock(rate, latency), Clock(other), ahead)
    for n, m in enumerate(found.tolist()):
        middle = (n + Fraction(1, 2)) / rate - latency
        assert Fraction(m - ahead) / other <= middle < Fraction(m - ahead + 1) / other


def test_pairing_of_the_voice_recipes() -> None:
    """5.5 ms are nearer to none than to one frame of 40 ms; the original's 20.5 ms nearer to one."""
    for name, late in (("astrape-vc-small", 0), ("astrape-vc-original", 1)):
        graph = astrape.compile(astrape.Recipe.load(name), training=True)
        own = Clock(Fraction(25), graph.latencies["content"])
        assert partners(5, own, Clock(Fraction(25))).tolist() == [n - late for n in range(5)]
    assert "20.5 ms old at 25 Hz: frame 0 is paired with the target's frame -1" in said(
        "content", own, Clock(Fraction(25))
    )
    assert delay_of(Fraction(630, 44100) + Fraction(55, 10000), Fraction(44100)) == (
        873,
        Fraction(1, 88200) * Fraction(9, 10),
    )


def test_weights_leave_out_what_is_not_there() -> None:
    at = partners(6, Clock(Fraction(25), Fraction(1, 25)), Clock(Fraction(25)))
    voiced = torch.tensor([[[1.0, 2.0, 1.0, 2.0, 1.0, 2.0]]])
    weights = frame_weights(at, torch.tensor([4]), torch.tensor([6]), voiced)
    assert weights.flatten().tolist() == [0, 1, 2, 1, 2, 0]
    wave = torch.arange(1.0, 6.0).reshape(1, 1, -1)
    assert delayed(wave, 2, 5).flatten().tolist() == [0, 0, 1, 2, 3]
    assert delayed(wave, 1, 8).flatten().tolist() == [0, 1, 2, 3, 4, 5, 0, 0]


@pytest.mark.parametrize(
    "quantizer",
    [
        lambda: Q2D2(Stream(25, 12), levels=[9, 9, 5, 7], channels=20),
        lambda: Q2D2(Stream(25, 12), levels=[4, 6, 5, 5], grid="rectangular", channels=20),
        lambda: FSQ(Stream(25, 12), levels=[8, 8, 5, 3], channels=20),
    ],
)
def test_content_that_a_quantizer_made_has_the_code_it_came_with(quantizer: Any) -> None:
    block = quantizer().double()
    made = block(3 * torch.randn(2, 12, 300, dtype=torch.float64))
    assert len(made["codes"].unique()) > 50
    assert torch.equal(codes_of_content(block, made["content"]), made["codes"])
    # What lies off the plane is brought there straight: noise at right angles to it changes nothing.
    basis = made["content"].transpose(1, 2).reshape(-1, 20)
    centred = basis - basis.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=True)
    off = torch.randn(2, 300, 16, dtype=torch.float64) @ directions[4:]
    assert torch.equal(codes_of_content(block, made["content"] + off.transpose(1, 2)), made["codes"])


def test_an_encoder_learns_and_beats_the_mean_vector(tmp_path: Path) -> None:
    lines: list[str] = []
    longer = [(("steps_per_epoch",), 60), (("batch",), 4), (("epochs",), 3), (("window",), 320)]
    options = grounds.options(tmp_path, "encoder", *longer, (("evaluation_window",), 400), save_every_epoch=True)
    outcome = train(options, lines.append)
    assert outcome.finished
    log = grounds.curve(tmp_path)
    steps = [entry["train"]["content_cosine"] for entry in log if "train" in entry]
    assert len(steps) == 180
    assert sum(steps[-20:]) < 0.7 * sum(steps[:20])
    metrics = outcome.metrics
    # Of voices that it never heard, against the best constant answer, which scores 0.05.
    assert metrics["content_cosine"] > metrics["mean_vector_cosine"] + 0.35
    assert metrics["content_cosine_centred"] > 0.35
    assert 1 < metrics["code_perplexity"] <= 3048625
    assert 0 < metrics["part_usage"] < 1
    assert outcome.best["value"] == max(entry["valid"]["content_cosine"] for entry in log if "valid" in entry)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        "encoder.best.pt", "encoder.epoch-000.pt", "encoder.epoch-001.pt", "encoder.epoch-002.pt", "encoder.last.pt"
    ]  # fmt: skip
    assert any("'content', 5.5 ms old at 25 Hz: frame 0 is paired with the target's frame 0" in line for line in lines)
    _streams(outcome.recipe, outcome.weights)


def _streams(recipe: Path, weights: Path) -> None:
    graph = astrape.load(recipe, weights=weights)
    assert not graph.training_only
    session = graph.stream()
    x = 0.1 * torch.randn(1, 1, 1764 * 6)
    voice = torch.randn(1, 128)
    session.push(x[..., :0], speaker=voice)
    parts = [session.push(piece) for piece in x.split(1000, dim=-1)]
    live = torch.cat([part["content"] for part in parts], dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(live, graph(x, speaker=voice)["content"], rtol=1e-3, atol=1e-4)


def test_the_front_end_is_that_of_the_cache_and_the_frozen_stay_as_they_are() -> None:
    from safetensors.torch import load_file

    front = load_file(grounds.ground() / "cache" / "wavlm_L4_200hz" / "front.safetensors")
    tensors = load_file(grounds.trained_encoder() / "encoder.best.safetensors")
    assert front
    for name, tensor in front.items():
        assert torch.equal(tensors[name], tensor)
    torch.manual_seed(42)
    fresh = astrape.compile(astrape.Recipe.load(grounds.RECIPE), training=True).state_dict()
    changed = {name for name, tensor in tensors.items() if not torch.equal(tensor, fresh[name])}
    assert any(name.startswith("transformer") for name in changed)
    assert not any(name.startswith(("prenet", "head", "source")) for name in changed)


def test_a_decoder_goes_through_both_phases(tmp_path: Path) -> None:
    folder = grounds.trained_encoder()
    lines: list[str] = []
    options = grounds.options(
        tmp_path,
        "decoder",
        (("steps_per_epoch",), 12),
        (("phases", 0, "epochs"), 3),
        encoder=folder / "encoder.best.pt",
    )
    outcome = train(options, lines.append)
    metrics = outcome.metrics
    assert metrics["mel_distance"] < metrics["mel_of_silence"]
    log = grounds.curve(tmp_path, "decoder")
    first = [entry["train"] for entry in log if "train" in entry and entry["epoch"] < 3]
    second = [entry["train"] for entry in log if "train" in entry and entry["epoch"] >= 3]
    assert set(first[0]) == {"stft", "mel", "loss", "gradient"}
    assert set(second[0]) == {"stft", "mel", "adversarial", "matching", "discriminators"} | {
        "discriminators_gradient", "loss", "gradient"
    }  # fmt: skip
    assert first[-1]["loss"] < first[0]["loss"]
    # 3 ms and 2.5 ms of the front end and 126 samples of the iSTFT: 368.55 samples.
    assert any("'wav' is 8.357 ms late: 'mic' is delayed by 369 samples" in line for line in lines)
    _streams(outcome.recipe, outcome.weights)
    _encoder_is_kept(folder, outcome.weights)
    _is_heard_and_seen(tmp_path)


def _encoder_is_kept(folder: Path, weights: Path) -> None:
    from safetensors.torch import load_file

    before, after = load_file(folder / "encoder.best.safetensors"), load_file(weights)
    for name in ("adapter.down.weight", "q2d2.latent_head.weight", "wavlm.conv_layers.0.conv.weight"):
        assert torch.equal(before[name], after[name])
    assert not torch.equal(before["head.weight"], after["head.weight"])


def _is_heard_and_seen(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / "decoder"), size_guidance={"audio": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    assert "made/0" in tags["audio"]
    assert "target/0" in tags["audio"]
    assert "spectrogram/0" in tags["images"]
    assert len(events.Audio("made/0")) == 4
    assert {"train/loss", "valid/mel_distance"} <= set(tags["scalars"])


@register_loss("test_faulty")
class Faulty(L1):
    """A loss that is not a number on some calls."""

    bad: tuple[int, ...] = ()
    calls = 0

    def measure(self, signal: Tensor, target: Tensor, weights: Tensor) -> Total:
        total = super().measure(signal, target, weights)
        if self.training and torch.is_grad_enabled():
            Faulty.calls += 1
            if Faulty.calls in Faulty.bad:
                return Total(total.total * math.nan, total.weight)
        return total


def test_a_step_that_is_not_finite_is_left_out_counted_and_told(tmp_path: Path) -> None:
    # The first call is the trial before the first step.
    Faulty.calls, Faulty.bad = 0, (3, 4, 6)
    lines: list[str] = []
    options = grounds.options(tmp_path, "encoder", (("losses", "content_l1", "use"), "test_faulty"))
    outcome = train(options, lines.append)
    assert outcome.position.skipped == 3
    assert outcome.position.skipped_in_a_row == 0
    assert sum("is left out: content_l1" in line for line in lines) == 3
    log = grounds.curve(tmp_path)
    assert [entry["step"] for entry in log if "train" in entry] == [1, 4, 6, 7, 8]
    state = load_checkpoint(outcome.checkpoint)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["graph"].values())


def test_too_many_of_them_stop_the_training(tmp_path: Path) -> None:
    Faulty.calls, Faulty.bad = 0, tuple(range(2, 100))
    options = grounds.options(
        tmp_path, "encoder", (("losses", "content_l1", "use"), "test_faulty"), (("steps_per_epoch",), 50)
    )
    with pytest.raises(TrainingError, match=r"20 steps in a row had no finite content_l1"):
        train(options, lambda line: None)


def test_what_hinders_is_told_before_the_first_step(tmp_path: Path) -> None:
    options = grounds.options(tmp_path / "run")
    with pytest.raises(CacheError, match=r"holds no cache of wavlm.*astrape cache --what wavlm"):
        train(replace(options, cache=tmp_path), print)
    with pytest.raises(CorpusError, match=r"no such folder or manifest"):
        train(replace(options, data=tmp_path / "nowhere"), print)
    with pytest.raises(CacheError, match=r"has 16 channels at 200 Hz, and 'features' of 'astrape-vc' 512 at 200 Hz"):
        train(replace(options, recipe="astrape-vc"), print)
    with pytest.raises(CacheError, match=r"--wavlm-rate 50: 'features' of 'astrape-vc-small' runs at 200 Hz"):
        train(replace(options, features_rate=50), print)
    with pytest.raises(TrainingError, match=r"--device gpu: there is"):
        train(replace(options, device="gpu"), print)
    decoder = grounds.options(tmp_path / "run", "decoder")
    with pytest.raises(TrainingError, match=r"name one with --encoder-ckpt"):
        train(decoder, print)
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(TrainingError, match=r"junk.pt: is damaged, or not a checkpoint"):
        train(replace(decoder, encoder=tmp_path / "junk.pt"), print)
    with pytest.raises(CacheError, match=r"another --recipe"):
        train(replace(decoder, encoder=grounds.trained_encoder() / "encoder.best.pt", recipe="astrape-vc"), print)
    values = astrape.training.architecture.standalone(astrape.Recipe.load(grounds.RECIPE))
    values["blocks"]["proj_in"]["channels"] = 12
    (tmp_path / "other.yaml").write_text(astrape.training.architecture.recipe_text(values))
    with pytest.raises(TrainingError, match=r"best.pt: does not fit 'astrape-vc-small': .*proj_in.weight.*\(16, 12\)"):
        train(
            replace(
                decoder, encoder=grounds.trained_encoder() / "encoder.best.pt", recipe=str(tmp_path / "other.yaml")
            ),
            print,
        )
    with pytest.raises(TrainingError, match=r"phase 'encoder': none of its losses reaches anything that `train` names"):
        grounds.run(tmp_path / "run", "encoder", (("train",), ["prenet"]), overwrite=True)
    assert not list((tmp_path / "run").glob("*.pt"))


def test_a_damaged_cache_and_an_unreadable_recording_are_told_before_the_first_step(tmp_path: Path) -> None:
    root = grounds.copied(tmp_path)
    options = grounds.options(tmp_path / "run", root=root)
    array = next((root / "cache" / "content" / "p226").glob("*1.npy"))
    whole = array.read_bytes()
    array.write_bytes(whole[:-100])
    with pytest.raises((CacheError, TrainingError), match=r"check-cache"):
        train(options, print)
    array.write_bytes(whole)
    audio = next((root / "vctk" / "wav48_silence_trimmed").glob("p22[5-9]/*_001_mic1.flac"))
    audio.write_bytes(b"no audio at all")
    decoder = grounds.options(
        tmp_path / "run", "decoder", root=root, encoder=grounds.trained_encoder() / "encoder.best.pt"
    )
    with pytest.raises(TrainingError, match=r"is not a readable audio file.*take recordings that cannot be read out"):
        train(decoder, print)


def test_a_teacher_of_another_width_is_refused(tmp_path: Path) -> None:
    values = astrape.training.architecture.standalone(astrape.Recipe.load(grounds.RECIPE))
    values["blocks"]["q2d2"]["channels"] = 20
    path = tmp_path / "narrow.yaml"
    path.write_text(astrape.training.architecture.recipe_text(values))
    with pytest.raises(TrainingError, match=r"'content' has 20 channels and the teacher's content 24"):
        grounds.run(tmp_path, recipe=str(path))


def test_the_log_is_read_by_machine() -> None:
    log = grounds.trained_encoder() / "encoder.log.jsonl"
    kinds = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["step"] for entry in kinds if "train" in entry] == list(range(1, 9))
    assert [entry["step"] for entry in kinds if "valid" in entry] == [4, 8]


@given(st.integers(1, 50), st.integers(0, 20), st.integers(1, 100), st.integers(0, 2**32))
def test_random_windows_lie_within_what_counts(length: int, first: int, more: int, seed: int) -> None:
    samples = first + more
    draw = torch.Generator().manual_seed(seed)
    ends = torch.randint(first, samples + 1, (30,), generator=draw)
    draws = torch.cat([torch.rand(28, generator=draw, dtype=torch.float64), torch.tensor([0.0, 1.0]).double()])
    places = random_windows(length, first, ends, samples, draws)
    assert places.shape == (30, min(length, more))
    assert int(places.min()) >= first
    assert int(places.max()) < samples
    fits = ends - first >= places.shape[1]
    assert bool((places[fits].max(dim=1).values < ends[fits]).all()) if bool(fits.any()) else True


class Singer:
    """A teacher that decodes: each content frame becomes a tone of 40 ms, and its layers are its content."""

    name, sample_rate, content_rate, content_channels, speaker_channels = "singer", 44100, Fraction(25), 24, 128
    code_count, decodes, layer_rate = None, True, Fraction(25)

    def decode(self, content: Tensor, speaker: Tensor) -> Tensor:
        tone = torch.sin(torch.arange(1764) * 0.03).repeat(content.shape[-1])
        return (0.1 * tone * content[:, :1].abs().repeat_interleave(1764, dim=-1))[..., :-800]

    def layers(self, audio: Tensor) -> list[Tensor]:
        return [audio.unfold(-1, 1764, 1764).square().mean(dim=-1).expand(-1, 24, -1) for _ in range(3)]


def test_teachers_voice_layers_and_pitch_are_targets_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optional objectives: magnitude and phase of the teacher's decoder, its layers, the source's fundamental."""
    monkeypatch.setitem(sys.modules, "singer", SimpleNamespace(Singer=Singer))
    monkeypatch.setitem(teachers.TEACHERS, "singer", "singer:Singer")
    values = astrape.training.architecture.standalone(astrape.Recipe.load(grounds.RECIPE))
    values["blocks"]["source"]["pitch"] = True
    values["blocks"]["joined"]["from"] = ["norm", "source.comb"]
    training = values["training"]
    training["outputs"]["pitch"] = "source.pitch"
    training["teacher"] = {"use": "singer"}
    training["encoder"]["losses"]["ssl"] = {"use": "cosine", "of": "forecast_1", "to": "teacher.layer_2", "weight": 0.1}
    distilling = {
        "magnitude": {"use": "log_magnitude", "of": "wav", "to": "teacher.wav"},
        "phase": {"use": "anti_wrapping_phase", "of": "wav", "to": "teacher.wav"},
        "delay": {"use": "group_delay", "of": "wav", "to": "teacher.wav"},
        "f0": {"use": "f0", "of": "pitch", "to": "mic.pitch", "voicing": 0.5},
    }
    training["decoder"]["phases"] = [{"name": "distilling", "epochs": 1, "losses": distilling}]
    path = tmp_path / "distilled.yaml"
    path.write_text(astrape.training.architecture.recipe_text(values))
    grounds.run(tmp_path, "encoder", recipe=str(path))
    names = set(next(entry["train"] for entry in grounds.curve(tmp_path) if "train" in entry))
    assert "ssl" in names
    settings = tuple(one for one in grounds.short("decoder") if one.path[0] not in ("phases", "discriminators"))
    outcome = grounds.run(tmp_path, "decoder", encoder=tmp_path / "encoder.best.pt", settings=settings)
    assert outcome.position.skipped == 0
    values = [entry["train"] for entry in grounds.curve(tmp_path, "decoder") if "train" in entry]
    assert {*distilling, "loss", "gradient"} == set(values[0])
    assert all(math.isfinite(value) and value > 0 for one in values for value in one.values())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recording_that_is_gone_later_ends_it_in_one_line(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = grounds.copied(tmp_path)
    given = grounds.options(
        tmp_path / "run", "decoder", (("steps_per_epoch",), 400), root=root, workers=workers,
        encoder=grounds.trained_encoder() / "encoder.best.pt", checkpoint_steps=2,
    )  # fmt: skip
    tell = []

    def say(line: str) -> None:
        tell.append(line)
        if line.startswith("phase reconstruction"):
            for path in (root / "vctk").rglob("*.flac"):
                path.unlink()

    with pytest.raises(CacheError, match=r"^[^\n]*there is no such file$"):
        train(given, say)


def test_training_may_enter_at_the_microphone_itself(tmp_path: Path) -> None:
    """Nothing is cached of such a recipe but what the teacher says: the graph hears the recordings."""
    values = astrape.training.architecture.standalone(astrape.Recipe.load(grounds.RECIPE))
    values["training"]["features"] = "mic"
    path = tmp_path / "mic.yaml"
    path.write_text(astrape.training.architecture.recipe_text(values))
    more = [(("window",), 35280), (("evaluation_window",), 35280)]
    outcome = grounds.run(tmp_path, "encoder", *more, recipe=str(path))
    assert outcome.position.step == 8
    assert math.isfinite(outcome.metrics["content_cosine"])
