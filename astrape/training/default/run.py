"""Training of the weights that ship, from nothing, in steps that can be stopped and resumed anywhere.

1. the corpus of parallel sets (``astrape corpus make parallel``),
2. caches: the recordings at the recipe's rate, a vector of each speaker, the pitch of what has no table of it,
3. encoder and decoder together (``astrape train-voice``),
4. the weights' running means as float16, beside what they were made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astrape.corpus.layouts import read_corpus
from astrape.corpus.splits import split_corpus
from astrape.corpus.utterances import speakers_of
from astrape.graph.recipe import Recipe
from astrape.jobs import Engine
from astrape.training.caches import CacheJob, make_cache
from astrape.training.default.hours import Hours
from astrape.training.default.weights import write_weights
from astrape.training.errors import TrainingError
from astrape.training.options import Options
from astrape.training.run import Outcome, train
from astrape.training.section import read_section
from astrape.training.settings import Setting
from astrape.wording import lacking

__all__ = ["DefaultPlan", "DefaultResult", "run"]

SPACES = {"resemblyzer": "astrape-speaker"}
"""Teachers of speakers, and the shipped encoder that gives vectors like theirs."""

RECIPE, NAME = "astrape-mini", "default"
MANIFEST = "manifest.jsonl"

FLITE_HOURS = 20.0
"""Hours of flite's speech, a quarter of it pseudo-speakers: three in four of all its sentences."""


@dataclass(frozen=True)
class DefaultPlan:
    """The settings of a run.

    Attributes:
        hours: of speech that Kokoro renders.
        recipe: whose section ``training.voice`` says how.
        epochs: in place of the recipe's, which its phases share as they share those; two or more where it has two.
        steps: of an epoch, in place of the recipe's: for a taste of it.
        seed: of weights and windows.
        jobs: processes that render and fill caches.
        probes: held-out recordings that each epoch is measured on.
        teacher: of the speakers' vectors.
        output: where the weights go; ``WORK/RECIPE.safetensors`` when left out.
        flite: hours of flite's speech, which takes little time and says how English sounds.
        recordings: whether those of real people are taken.
    """

    hours: float = 8.0
    recipe: str = RECIPE
    epochs: int | None = None
    steps: int | None = None
    seed: int = 42
    jobs: int = 1
    probes: int = 64
    teacher: str = "resemblyzer"
    output: Path | None = None
    flite: float = FLITE_HOURS
    recordings: bool = True


@dataclass(frozen=True)
class DefaultResult:
    """The result of a run.

    Attributes:
        outcome: of the training.
        weights: the file; ``None`` where the training was stopped.
        hours: as :meth:`~astrape.training.default.hours.Hours.total` has them.
    """

    outcome: Outcome
    weights: Path | None
    hours: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for machines."""
        return {
            "finished": self.weights is not None,
            "weights": None if self.weights is None else str(self.weights),
            **self.hours,
            "training": self.outcome.to_dict(),
        }

    def lines(self) -> list[str]:
        """The result as lines for people."""
        parts = ", ".join(f"{name} {hours:.2f} h" for name, hours in self.hours["parts"].items())
        runs = f"{self.hours['runs']} parts of runs"
        return [
            f"{self.hours['hours']:.2f} hours ({parts}) in {runs}, {self.hours['core_hours']:.2f} on a core",
            *(f"  on {machine}" for machine in self.hours["machines"]),
        ]


def run(work: Path, plan: DefaultPlan, say: Callable[[str], None]) -> DefaultResult:
    """Make the weights, or go on where an earlier run was stopped.

    Args:
        work: for packages, corpus, caches, checkpoints and notes of the time.
        plan: what is made; the same as before, or the training refuses to go on.
        say: takes lines for the user.

    Raises:
        AstrapeError: for whatever hinders it.
    """
    hours = Hours(work / "hours")
    corpus = work / "corpus"
    with hours.part("corpus"):
        _render(corpus, plan, say)
    manifest = corpus / MANIFEST
    with hours.part("caches"):
        _caches(manifest, work / "cache", plan, say)
    last = work / "checkpoints" / f"{NAME}.last.pt"
    options = Options(
        stage="voice",
        cache=work / "cache",
        data=manifest,
        out_dir=work / "checkpoints",
        run_name=NAME,
        recipe=plan.recipe,
        seed=plan.seed,
        epochs=plan.epochs,
        warmup_epochs=_first_epochs(plan),
        settings=() if plan.steps is None else (Setting("--steps", ("steps_per_epoch",), plan.steps),),
        probes=plan.probes,
        resume="" if last.exists() else None,
    )
    with hours.part("training"):
        outcome = train(options, say)
    if not outcome.finished:
        return DefaultResult(outcome, None, hours.total())
    output = plan.output or work / f"{Path(plan.recipe).stem}.safetensors"
    total = hours.total()
    about = {
        "recipe": Recipe.load(plan.recipe).name,
        "speaker_encoder": SPACES.get(plan.teacher, plan.teacher),
        "licence": "MIT",
        "epoch": str(outcome.best["epoch"]),
        "hours": f"{total['hours']:.2f}",
        "machine": "; ".join(total["machines"]),
    }
    write_weights(outcome.weights, output, about)
    return DefaultResult(outcome, output, total)


def _first_epochs(plan: DefaultPlan) -> int | None:
    """Epochs of the first of two phases, where there are fewer than the recipe has, or more: its share of them."""
    if plan.epochs is None:
        return None
    recipe = Recipe.load(plan.recipe)
    counts = [phase.epochs for phase in read_section(recipe).stage("voice", recipe).phases]
    if len(counts) != 2 or plan.epochs < 2 or not all(counts):
        return None
    return min(plan.epochs - 1, max(1, round(plan.epochs * counts[0] / sum(counts))))


def _render(corpus: Path, plan: DefaultPlan, say: Callable[[str], None]) -> None:
    """The corpus, or what is missing of it."""
    if plan.hours == 0:
        if not (corpus / MANIFEST).is_file():
            raise TrainingError(f"{corpus}: holds no {MANIFEST}: give --hours above 0, or put a corpus there")
        say(f"{corpus}: taken as it is")
        return
    try:
        # From packages that training alone does not need.
        from astrape.corpus import CorpusSettings, make_parallel

        settings = CorpusSettings(work=corpus, hours=plan.hours, flite=plan.flite, recordings=plan.recordings)
        made = make_parallel(settings, engine=Engine(workers=plan.jobs), tell=say)
    except ImportError as error:
        raise TrainingError(lacking("the corpus", str(error.name), "corpus")) from error
    say(f"corpus: {made.made} sets made, {made.there} were there")


def _caches(manifest: Path, root: Path, plan: DefaultPlan, say: Callable[[str], None]) -> None:
    utterances = read_corpus(manifest)
    split = split_corpus(utterances)
    say(
        f"{len(split.train)} recordings of {len(speakers_of(split.train))} speakers to train on, {len(split.unseen)} "
        f"of {len(speakers_of(split.unseen))} held out"
    )
    used = [*split.train, *split.unseen]
    for what in ("audio", "pitch", "speakers"):
        if what == "pitch" and all(one.pitch is not None for one in used):
            continue
        job = CacheJob(what, root, recipe=plan.recipe, teacher={"use": plan.teacher} if what == "speakers" else None)
        made = make_cache(job, used, engine=Engine(workers=plan.jobs), corpus=manifest)
        say(f"{what}: {made.made} made, {made.there} were there, {len(made.failed)} left out")
