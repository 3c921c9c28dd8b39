"""The small twin of astrape-vc, trained in both phases on real speech, beside what takes no learning.

The same steps, commands and recipe sections as for the full model: caches, encoder, decoder. Only the front end is
learned here too, since there are no weights to fetch for sixteen channels.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from astrape.audio.places import Place, Where
from astrape.corpus.layouts import read_corpus
from astrape.corpus.splits import CorpusSplit, split_by_speaker
from astrape.corpus.utterances import speakers_of
from astrape.jobs import Engine
from astrape.training.build import build
from astrape.training.caches import CacheJob, make_cache
from astrape.training.checkpoint import load_checkpoint
from astrape.training.decoder import DecoderValidation
from astrape.training.errors import TrainingError
from astrape.training.options import Options
from astrape.training.run import Outcome, train
from astrape.training.settings import Setting
from astrape.training.tiny.baselines import FrontEndAlone, MeanSpectrum
from astrape.training.tiny.front import learn_front
from astrape.training.tiny.level import level_head, write_weights

__all__ = ["FULL", "SHORT", "TinyPlan", "TinyResult", "run"]

RECIPE = "astrape-vc-small"

LEVEL_BATCHES = 16
SPLIT_SEED = 0


@dataclass(frozen=True)
class TinyPlan:
    """The length of each part.

    Attributes:
        unseen: share of the speakers that nothing is learned from.
        seed: of weights and windows.
        front_steps: of the front end.
        encoder_epochs, encoder_steps: of the encoder; steps are those of an epoch.
        warmup_epochs, decoder_epochs, decoder_steps: of the decoder: epochs without discriminators, and in all.
        decoder_window: frames of the features in its windows.
        jobs: processes that make caches.
    """

    unseen: float
    seed: int
    front_steps: int
    encoder_epochs: int
    encoder_steps: int
    warmup_epochs: int
    decoder_epochs: int
    decoder_steps: int
    decoder_window: int
    jobs: int = 1


FULL = TinyPlan(0.2, 1, 1000, 12, 300, 10, 13, 150, 120, jobs=2)
"""Under an hour on two cores, with an hour and a half of speech."""

SHORT = TinyPlan(0.25, 1, 240, 3, 150, 3, 4, 40, 120)
"""Minutes on one core, with a minute of speech."""


@dataclass(frozen=True)
class TinyResult:
    """Scores on speakers that nothing was learned from.

    Attributes:
        content: cosine to the teacher's content at the end of each epoch; higher is better.
        mean_vector, front_alone: the same for the best constant, and for least squares from the front end's features of
            the same 40 ms.
        mel: distance of log mel spectra at the end of each epoch, nats; lower is better.
        silence, mean_spectrum: the same for silence, and for the training's mean spectrum in every frame.
        own_mean_spectrum: for the mean spectrum of each window itself, which nobody knows beforehand.
        code_usage: share of the grid points of each pair that occur.
        minutes: wall-clock, of all of it.
        encoder, decoder: the runs.
    """

    content: list[float]
    mean_vector: float
    front_alone: float
    mel: list[float]
    silence: float
    mean_spectrum: float
    own_mean_spectrum: float
    code_usage: float
    minutes: float
    encoder: Outcome
    decoder: Outcome

    @property
    def learned(self) -> bool:
        """Whether the best of both curves beats its baselines."""
        return max(self.content) > max(self.mean_vector, self.front_alone) and min(self.mel) < min(
            self.silence, self.mean_spectrum
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for machines."""
        runs = {"encoder": self.encoder.to_dict(), "decoder": self.decoder.to_dict()}
        return {"learned": self.learned} | {one.name: getattr(self, one.name) for one in fields(self)} | runs

    def lines(self) -> list[str]:
        """The curves and the baselines, for people."""
        return [
            "On speakers that nothing was learned from:",
            "",
            "  content: cosine to the teacher, higher is better",
            f"    mean vector                          {self.mean_vector:7.3f}",
            f"    front end, no temporal context       {self.front_alone:7.3f}",
            f"    encoder, epoch by epoch              {_curve(self.content)}",
            f"    pairs' grid points in use            {self.code_usage:7.2f}",
            "",
            "  decoder: distance of log mel spectra in nats, lower is better",
            f"    silence                              {self.silence:7.3f}",
            f"    mean spectrum of the training        {self.mean_spectrum:7.3f}",
            f"    each window's own mean spectrum      {self.own_mean_spectrum:7.3f}  (nobody can know it)",
            f"    decoder, epoch by epoch              {_curve(self.mel)}",
            "",
            f"  {'learned' if self.learned else 'NOT LEARNED: a baseline is better'}, in {self.minutes:.1f} minutes",
        ]


def run(corpus: Path | Place, work: Path, plan: TinyPlan, say: Callable[[str], None]) -> TinyResult:
    """Front end, caches, encoder and decoder on a corpus.

    Args:
        corpus: a folder with a folder of recordings for each speaker, here or in a store.
        work: for caches, checkpoints, TensorBoard. Checkpoints of a run before are replaced; front end and caches are
            used again where they were made of the same recordings and the same plan.
        plan: how long.
        say: takes lines for the user.

    Raises:
        AstrapeError: for whatever hinders it.
    """
    begun = time.monotonic()
    torch.manual_seed(plan.seed)
    utterances = read_corpus(corpus)
    split = split_by_speaker(utterances, plan.unseen, SPLIT_SEED)
    unseen = ", ".join(speakers_of(split.unseen))
    say(f"{len(utterances)} utterances of {len(speakers_of(utterances))} speakers, unseen of them: {unseen}")
    made = work / f"made-{_digest(corpus, split, plan)}"
    weights = made / "front.safetensors"
    if not weights.exists():
        say("front end: learning to hold the log mel spectrum")
        learn_front(RECIPE, split.train, weights, steps=plan.front_steps, seed=plan.seed, say=say)
    for what in ("wavlm", "content", "speakers"):
        job = CacheJob(what, made, recipe=RECIPE, weights=weights if what == "wavlm" else None)
        make_cache(job, utterances, engine=Engine(workers=plan.jobs), corpus=corpus, tell=say)
    encoder = _options("encoder", corpus, work, made, plan)
    alone = _front_alone(encoder, split)
    say(f"least squares from the front end's features of the same 40 ms: cosine {alone:.3f} on unseen speakers")
    say("encoder:")
    trained = train(encoder, say)
    decoder = _options("decoder", corpus, work, made, plan, trained.checkpoint)
    mean, begin = _before_decoder(decoder, plan, work / "begin.safetensors")
    say(f"the training's mean spectrum in every frame: {mean:.3f} nats on unseen speakers")
    say("decoder:")
    voiced = train(replace(decoder, init_from=begin), say)
    content, mel = _history(trained), _history(voiced)
    return TinyResult(
        content=[one["content_cosine"] for one in content],
        mean_vector=content[-1]["mean_vector_cosine"],
        front_alone=alone,
        mel=[one["mel_distance"] for one in mel],
        silence=mel[-1]["mel_of_silence"],
        mean_spectrum=mean,
        own_mean_spectrum=mel[-1]["mel_of_mean_spectrum"],
        code_usage=content[-1]["part_usage"],
        minutes=(time.monotonic() - begun) / 60,
        encoder=trained,
        decoder=voiced,
    )


def _options(
    stage: str, corpus: Path | Place, work: Path, made: Path, plan: TinyPlan, encoder: Where | None = None
) -> Options:
    of_encoder = stage == "encoder"
    values: dict[tuple[str, ...], object] = (
        {("steps_per_epoch",): plan.encoder_steps, ("epochs",): plan.encoder_epochs}
        if of_encoder
        else {
            ("steps_per_epoch",): plan.decoder_steps,
            ("window",): plan.decoder_window,
        }
    )
    return Options(
        stage=stage,
        cache=made,
        out_dir=work / stage,
        run_name=stage,
        recipe=RECIPE,
        data=corpus,
        seed=plan.seed,
        unseen=plan.unseen,
        split_seed=SPLIT_SEED,
        settings=tuple(Setting("the plan", path, value) for path, value in values.items()),
        encoder=encoder,
        overwrite=True,
        epochs=None if of_encoder else plan.decoder_epochs,
        warmup_epochs=None if of_encoder else plan.warmup_epochs,
    )


def _front_alone(options: Options, split: CorpusSplit) -> float:
    """The score of least squares from single content frames on the encoder's own validation windows.

    Raises:
        TrainingError: where the trainer learns from others than the front end did: then nobody is unseen.
    """
    feed = build(options, lambda line: None).feed
    caches = feed.windows.caches
    if not set(feed.windows.utterances) <= set(split.train):
        raise TrainingError("the trainer's split by speaker is another than that of the front end")
    return FrontEndAlone(caches["wavlm"], caches["content"], feed.windows.utterances).cosine(feed.validation())


def _before_decoder(options: Options, plan: TinyPlan, path: Path) -> tuple[float, Path]:
    """The score of the mean spectrum of an epoch of the training on the decoder's own validation windows.

    Also a file of weights that begin at the level of speech.
    """
    setup = build(options, lambda line: None)
    assert isinstance(setup.validation, DecoderValidation)
    mean = MeanSpectrum(setup.validation.mel, islice(setup.feed.batches(0, 0), plan.decoder_steps))
    learner = setup.learner(setup.stage.phases[0], setup.validation.outputs)
    level_head(setup.graph, learner, islice(setup.feed.batches(0, 0), LEVEL_BATCHES))
    return mean.distance(setup.feed.validation()), write_weights(setup.graph, path)


def _digest(corpus: Path | Place, split: CorpusSplit, plan: TinyPlan) -> str:
    """A name for what is made once: a front end learns from these recordings so long, and caches are of it."""
    heard = [str(corpus.absolute()), *(one.key for one in split.train), str(plan.front_steps), str(plan.seed)]
    return hashlib.sha256("\0".join(heard).encode()).hexdigest()[:8]


def _history(outcome: Outcome) -> list[dict[str, float]]:
    state = load_checkpoint(outcome.checkpoint.with_name(outcome.checkpoint.name.replace(".best.", ".last.")))
    return [one["metrics"] for one in state["history"]]


def _curve(values: list[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
