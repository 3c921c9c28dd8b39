"""Training on parallel sets: it learns, resumes to the last bit, and is one training in one process or two."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import astrape
from astrape.blocks.base import Stream
from astrape.corpus.layouts import read_corpus
from astrape.training import run as running
from astrape.training.bands import below
from astrape.training.build import build
from astrape.training.caches import CacheJob, make_cache
from astrape.training.checkpoint import load_checkpoint
from astrape.training.errors import TrainingError
from astrape.training.learner import loss_key
from astrape.training.objectives import CrossEntropy
from astrape.training.pairing import Clock, pitch_at
from astrape.training.run import train
from astrape.training.section import read_section
from astrape.training.trainer import Trainer
from tests.training import grounds, parallel
from tests.training.launching import launch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    parallel.write_corpus(folder)
    return folder


def entries(folder: Path, kind: str) -> list[dict[str, float]]:
    return [entry[kind] for entry in grounds.curve(folder, "voice") if kind in entry]


def test_encoder_and_decoder_learn_together(root: Path, tmp_path: Path) -> None:
    """On held-out voices, after 100 steps: nearer than silence, and phones better than the commonest one."""
    outcome = parallel.run(root, tmp_path, (("steps_per_epoch",), 50), (("augment",), []), log_every=50)
    metrics = outcome.metrics
    assert metrics["phones_accuracy"] > metrics["phones_commonest"] + 0.03
    assert metrics["mel_distance"] < 0.9 * metrics["mel_of_silence"]
    assert outcome.best["metric"] == "mel_distance"
    graph = astrape.load(str(outcome.recipe), weights=str(outcome.weights))
    made = graph(torch.zeros(1, 1, 1600), speaker=torch.zeros(1, 128))
    assert made["wav"].shape == (1, 1, 1600)


def test_a_resumed_run_is_one_that_never_stopped_to_the_last_bit(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, validations and weights; stopped within an epoch and at its end, in both phases, with augmentation."""
    whole = parallel.run(root, tmp_path / "whole", recipe=judged(root))
    parts = parallel.options(root, tmp_path / "parts", recipe=judged(root))
    for number, steps in enumerate((3, 4, 6)):
        with monkeypatch.context() as patch:
            patch.setattr(running._Run, "_stopping", lambda self, at, steps=steps: at.step >= steps)
            assert not train(replace(parts, resume="" if number else None), lambda line: None).finished
    np.random.default_rng().random(3)
    torch.manual_seed(99)
    again = train(replace(parts, resume=""), lambda line: None)
    assert again.finished
    for kind in ("train", "valid"):
        assert entries(tmp_path / "parts", kind) == entries(tmp_path / "whole", kind)
    assert "discriminators" in entries(tmp_path / "whole", "train")[-1]
    # Whatever it scores beside the first phase's, what ships is of the last.
    assert (whole.best["phase"], whole.best["epoch"]) == ("adversarial", 1)
    first, second = load_checkpoint(whole.checkpoint), load_checkpoint(again.checkpoint)
    assert all(torch.equal(tensor, second["graph"][name]) for name, tensor in first["graph"].items())


def two_phases() -> list[dict[str, Any]]:
    stft = {"use": "multi_resolution_stft", "of": "wav", "to": "pair.wav", "sizes": [128, 256], "floor": 1e-3}
    phones = {"use": "cross_entropy", "of": "phones", "to": "phones", "weight": 0.3}
    twin = {"use": "mse", "of": "content", "to": "twin", "weight": 0.3}
    judges = {
        "of": "wav",
        "to": "pair.wav",
        "window": 2048,
        "networks": {"mrd": {"use": "multi_resolution", "sizes": [128, 256], "channels": 4}},
    }
    phases = [
        {"name": "reconstruction", "epochs": 1, "losses": {"stft": stft, "phones": phones, "agreement": twin}},
        {
            "name": "adversarial",
            "epochs": 1,
            "losses": {"stft": stft, "phones": phones, "adversarial": {"use": "lsgan", "of": "wav"}},
            "discriminators": judges,
        },
    ]
    # Written out, since recipes take no anchors.
    return [json.loads(json.dumps(phase)) for phase in phases]


def judged(root: Path) -> str:
    """The recipe with a second phase that has discriminators."""
    values = astrape.training.architecture.standalone(astrape.Recipe.parse(parallel.RECIPE))
    stage = values["training"]["voice"]
    del stage["losses"], stage["epochs"]
    stage["phases"] = two_phases()
    path = root / "judged.yaml"
    path.write_text(astrape.training.architecture.recipe_text(values))
    return str(path)


def test_a_later_phase_gives_the_best_also_where_it_measures_worse(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three epochs, the first of the first phase measures best, and of the second phase its first does."""
    values = iter([1.0, 3.0, 4.0])
    measured = running._Run._validate

    def validate(self: Any, *given: Any) -> None:
        measured(self, *given)
        self.metrics["mel_distance"] = next(values)

    monkeypatch.setattr(running._Run, "_validate", validate)
    outcome = train(parallel.options(root, tmp_path, recipe=judged(root), epochs=3), lambda line: None)
    assert (outcome.best["phase"], outcome.best["epoch"], outcome.best["value"]) == ("adversarial", 1, 3.0)


def test_a_judge_hears_no_more_than_the_target_s_recording_reaches() -> None:
    """Against the discrete Fourier transform of tones: below the edge they stay, above it they are gone."""
    rate, band = 44100, torch.tensor([7680.0, 11520.0])
    time = torch.arange(8820, dtype=torch.float64) / rate
    tones = {1000.0: (True, True), 7000.0: (True, True), 9000.0: (False, True), 15000.0: (False, False)}
    for hertz, kept in tones.items():
        tone = torch.sin(2 * math.pi * hertz * time).expand(2, 1, -1)
        heard = below(tone, band, rate)
        for row, stays in enumerate(kept):
            inside = slice(1000, -1000)
            wanted = tone[row, 0, inside] if stays else torch.zeros(6820, dtype=torch.float64)
            torch.testing.assert_close(heard[row, 0, inside], wanted, atol=5e-3, rtol=0)
    made = torch.randn(2, 1, 500, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda wave: below(wave, band, rate), [made])


def test_two_processes_are_one_with_all_their_windows(root: Path, tmp_path: Path) -> None:
    """Gradients of a step in float64; a whole training in float32."""
    judged(root)
    make_cache(CacheJob("audio", root / "decoded", rate=16000), read_corpus(root / "manifest.jsonl"))
    for processes, name, batch in ((1, "one", 4), (2, "two", 2)):
        launch("tests.training.two_processes_of_sets", processes, tmp_path / name, root, tmp_path / name, batch)
    one, two = (torch.load(tmp_path / name / "gradients.pt", weights_only=True) for name in ("one", "two"))
    assert list(one["gradients"]) == list(two["gradients"])
    assert len(one["gradients"]) > 20
    for name, gradient in one["gradients"].items():
        scale = max(float(gradient.abs().max()), 1e-9)
        assert float((gradient - two["gradients"][name]).abs().max()) <= 1e-6 * scale, name
    curves = [[entry["loss"] for entry in entries(tmp_path / name, "train")] for name in ("one", "two")]
    assert len(curves[0]) == 8
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    first, second = (load_checkpoint(tmp_path / name / "voice.best.pt") for name in ("one", "two"))
    assert first["facts"] == second["facts"]
    assert first["history"][-1]["metrics"] == pytest.approx(second["history"][-1]["metrics"], rel=2e-3, abs=2e-3)


def test_what_the_data_gives_replaces_the_graph_s_own(root: Path, tmp_path: Path) -> None:
    """The tracker does not run; given what the graph would have had, the output is the graph's."""
    setup = build(parallel.options(root, tmp_path), lambda line: None)
    learner = setup.model.learner(setup.stage.phases[0])
    assert "tracker" not in learner.part.nodes
    assert learner.told == ["f0"]
    own, _ = learner.clocks_told("f0")
    assert own.latency == setup.graph.latencies["f0"]
    # A constant pitch, which the graph's own gain node would give at every frame from the begin.
    audio = torch.randn(2, 1, 8000) * 0.1
    pitch = torch.full((2, 1, 40), 200.0)
    vector = torch.randn(2, 128)
    made = learner.signals({"audio": audio, "pair.pitch": pitch, "pair.speaker": vector})
    late = next(n for n in range(50) if (n + Fraction(1, 2)) / own.rate >= own.latency)
    expected = torch.zeros(2, 2, 50)
    expected[:, 0, late:], expected[:, 1, late:] = 200.0, 1.0
    part = learner.part({"mic": audio, "f0": expected}, speaker=vector)
    torch.testing.assert_close(made["wav"], part["wav"])


def test_a_decoder_alone_learns_behind_an_encoder_that_learned_labels(root: Path, tmp_path: Path) -> None:
    """Apart: the encoder by labels alone, the decoder on pairs behind it, which leaves the encoder as it is."""
    values = astrape.training.architecture.standalone(astrape.Recipe.parse(parallel.RECIPE))
    whole = values["training"].pop("voice")
    phones, stft = (whole["losses"].pop(name) for name in ("phones", "stft"))
    del whole["given"], whole["pairs"]
    values["training"]["encoder"] = whole | {"train": ["body", "content", "phones"], "losses": {"phones": phones}}
    given = {"given": {"f0": "pair.pitch", "speaker": "pair.speaker"}, "augment": []}
    values["training"]["decoder"] = json.loads(json.dumps(whole | given)) | {
        "train": ["source", "joined_up", "shaped", "head"],
        "losses": {"stft": stft},
    }
    path = tmp_path / "apart.yaml"
    path.write_text(astrape.training.architecture.recipe_text(values))
    encoder = train(
        replace(parallel.options(root, tmp_path / "e", recipe=str(path)), stage="encoder", run_name="encoder"),
        lambda line: None,
    )
    assert encoder.best["metric"] == "phones_accuracy"
    decoder = train(
        replace(
            parallel.options(root, tmp_path / "d", recipe=None),
            stage="decoder",
            run_name="voice",
            encoder=encoder.checkpoint,
        ),
        lambda line: None,
    )
    before, after = load_checkpoint(encoder.checkpoint)["graph"], load_checkpoint(decoder.checkpoint)["graph"]
    assert all(name.startswith("phones.") or name in after for name in before)
    for name, tensor in before.items():
        if name.startswith("phones."):
            continue  # a head that the decoder's training has no use for
        assert torch.equal(tensor, after[name]) != (name.split(".")[0] in ("source", "joined_up", "shaped", "head")), (
            name
        )


def test_a_loss_that_is_not_finite_is_left_out(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One window of NaN in one step: that step changes nothing, and the run goes on."""
    real = parallel.options(root, tmp_path)
    setup = build(real, lambda line: None)
    batches = type(setup.feed).batches

    def poisoned(self: Any, epoch: int, first: int) -> Iterator[Any]:
        for number, batch in enumerate(batches(self, epoch, first), first):
            if (epoch, number) == (0, 2):
                batch["pair.wav"] = batch["pair.wav"].clone()
                batch["pair.wav"][1, 0, 4000] = math.nan
            yield batch

    monkeypatch.setattr(type(setup.feed), "batches", poisoned)
    outcome = train(real, lambda line: None)
    assert (outcome.position.step, outcome.position.skipped) == (8, 1)
    assert all(bool(torch.isfinite(one).all()) for one in load_checkpoint(outcome.checkpoint)["graph"].values())


@pytest.mark.parametrize(
    ("way", "value", "said"),
    [
        ("losses.phones.to", "pair.phones", "losses.phones.to is 'pair.phones', an unknown signal"),
        ("given.f0", "pair.pich", r"given.f0 is 'pair.pich': give pair.speaker, pair.pitch, speaker or random"),
        (
            "given",
            {"conten": "pair.pitch"},
            "given.conten is 'conten', an unknown signal or control: did you mean 'content'",
        ),
        ("pairs", {"same": 2}, "pairs.same is 2: give a number from 0 to 1"),
        ("pairs", {"both": 1}, "pairs.both is 1: give true or false"),
        ("pairs", {"same": 0.1}, "losses compare with twin, and rows have none: write pairs: {both: true}"),
        ("pairs", {"sane": 0.2}, "pairs.sane is an unknown key.*did you mean 'same'"),
        (
            "augment",
            [{"use": "nois"}],
            "augment.0.use cannot be: unknown augmentation 'nois': did you mean 'noise'",
        ),
        ("augment", [{"use": "noise", "snr": [20, 10]}], "augment.0.use cannot be: .*snr must go upwards"),
        ("augment", [{"use": "noise", "snt": 3}], "has no parameter 'snt': did you mean 'snr'"),
        ("augment", {}, "augment is an empty mapping: give a list"),
    ],
)
def test_what_is_wrong_with_pairs_is_named_with_its_place(way: str, value: Any, said: str) -> None:
    values = astrape.training.architecture.standalone(astrape.Recipe.parse(parallel.RECIPE))
    place = values["training"]["voice"]
    *outer, last = way.split(".")
    for key in outer:
        place = place[key]
    place[last] = value
    recipe = astrape.Recipe.parse(astrape.training.architecture.recipe_text(values), file="mine.yaml")
    with pytest.raises(TrainingError, match=said) as caught:
        read_section(recipe)
    assert str(caught.value).startswith("mine.yaml:")


def test_rows_there_and_back_are_each_other_s_twins(root: Path, tmp_path: Path) -> None:
    """Each row's target is the other's source, of the same seconds; what a loss compares with is the other's signal."""
    setup = build(parallel.options(root, tmp_path, (("augment",), [])), lambda line: None)
    learner = setup.model.learner(setup.stage.phases[0])
    batch = next(setup.feed.batches(0, 0))
    for one, other in ((0, 1), (2, 3)):
        assert torch.equal(batch["audio"][one], batch["pair.wav"][other])
        assert torch.equal(batch["audio"][other], batch["pair.wav"][one])
    plan = next(plan for plan in learner.plans if plan.to == "twin")
    content = torch.randn(4, 12, 50)
    target, weights = learner.paired(plan, learner.losses[loss_key(plan)], content, batch)
    assert torch.equal(target, content[[1, 0, 3, 2]])
    # 50 ms, 5 frames, are for the state to settle.
    assert weights[0, 0].tolist() == [0.0] * 5 + [1.0] * 45
    _, there = learner.waveform("wav", batch["pair.wav"], batch, 8000)
    assert int(there[0, 0].nonzero()[0]) == 336 + 800
    with pytest.raises(TrainingError, match=r"a batch of 3 parts two of them: give each process an even number"):
        parallel.run(root, tmp_path, (("batch",), 3))


def test_what_is_exported_are_the_means_of_the_weights(root: Path, tmp_path: Path) -> None:
    """By hand: means of the weights after every step, of which each keeps a growing share."""
    setup = build(parallel.options(root, tmp_path), lambda line: None)
    trainer = Trainer(setup.model, setup.accelerator, setup.feed.batches, Silent(), 42)
    name, weight = next(iter(setup.model.parameters.items()))
    mean, own = weight.detach().clone(), []
    for at in trainer.epochs():
        step = len(own)
        share = min(0.9, (step + 1) / (step + 50))
        own.append(weight.detach().clone())
        mean = share * mean + (1 - share) * own[-1]
        if at.step == 5:
            break
    torch.testing.assert_close(trainer.average[name], mean)
    with trainer.averaged():
        torch.testing.assert_close(weight.detach(), mean)
    assert torch.equal(weight.detach(), own[-1])
    assert not torch.equal(mean, own[-1])


class Silent:
    """A listener who says nothing."""

    def stepped(self, position: Any, values: Any) -> None: ...

    def skipped(self, position: Any, what: str) -> None: ...

    def phase_begins(self, phase: Any, notes: Any) -> None: ...


def test_labels_go_with_losses_against_labels(root: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss 'phones': 'l1' compares frames, and 'phones' has labels"):
        parallel.run(root, tmp_path, (("losses", "phones", "use"), "l1"))
    with pytest.raises(TrainingError, match=r"loss 'stft': .* compares samples, and 'phones' has labels"):
        parallel.run(root, tmp_path, (("losses", "stft", "to"), "phones"))


def test_cross_entropy_is_pytorch_s_over_the_frames_that_are_known() -> None:
    logits = torch.randn(3, 7, 20, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(-1, 7, (3, 1, 20))
    weights = torch.ones(3, 1, 20, dtype=torch.float64)
    weights[1, :, 12:] = 0
    known = labels.masked_fill(weights <= 0, -1)
    for smoothing in (0.0, 0.2):
        total, weight = CrossEntropy(Stream(100, 7), smoothing=smoothing)(logits, labels, weights)
        expected = F.cross_entropy(logits, known[:, 0], ignore_index=-1, reduction="sum", label_smoothing=smoothing)
        torch.testing.assert_close(total, expected)
        assert float(weight) == int((known >= 0).sum())
        (own,) = torch.autograd.grad(total, logits)
        (other,) = torch.autograd.grad(expected, logits)
        torch.testing.assert_close(own, other)
    spoiled = logits.detach().masked_fill(known < 0, math.nan)
    torch.testing.assert_close(
        CrossEntropy(Stream(100, 7))(spoiled, labels, weights).total,
        F.cross_entropy(logits.detach(), known[:, 0], ignore_index=-1, reduction="sum"),
    )
    with pytest.raises(ValueError, match=r"the label 7 has no channel: the signal has 7: give the head 8 or more"):
        CrossEntropy(Stream(100, 7))(logits, torch.full((3, 1, 20), 7), weights)
    with pytest.raises(ValueError, match="2 or more, not 1"):
        CrossEntropy(Stream(100, 1))


@given(
    st.sampled_from([Fraction(100), Fraction(50), Fraction(200, 3), Fraction(175)]),
    st.fractions(0, Fraction(1, 10), max_denominator=4000),
    st.fractions(0, Fraction(1, 50), max_denominator=4000),
    st.integers(0, 2**32 - 1),
)
def test_a_pitch_is_read_where_its_time_lies(rate: Fraction, latency: Fraction, late: Fraction, seed: int) -> None:
    """Against interpolation by hand, frame by frame, in exact times."""
    draw = np.random.default_rng(seed)
    table = torch.tensor(draw.uniform(80, 300, 30) * (draw.random(30) < 0.7))
    own, target = Clock(rate, latency), Clock(Fraction(80), late)
    found = pitch_at(table, 60, own, target)
    for n in range(60):
        middle = ((n + Fraction(1, 2)) / rate - latency + late) * 80 - Fraction(1, 2)
        left, share = math.floor(middle), middle - math.floor(middle)
        one, other = (float(table[at]) if 0 <= at < 30 else 0.0 for at in (left, left + 1))
        if one > 0 and other > 0:
            expected = one ** float(1 - share) * other ** float(share)
        else:
            expected = one if share < Fraction(1, 2) else other
        assert float(found[n]) == pytest.approx(expected, rel=1e-12), n
