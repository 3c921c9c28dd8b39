"""``astrape train-speaker``: the speaker encoder that ships, from a corpus of rendered voices."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import command, json_option, narrator, print_json
from astrape.commands.place_option import LocalPath, PlaceType
from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.audio.places import Place

__all__ = ["train_speaker"]


@command(
    "train-speaker",
    "astrape train-speaker --corpus corpus --work train-speaker -o astrape-speaker.safetensors",
    interrupted="the same command goes on from the last checkpoint",
    short="Train the speaker encoder that ships.",
    extra="default",
)
@click.option(
    "--corpus",
    type=PlaceType(),
    required=True,
    metavar="FOLDER",
    help="Folder of a corpus of parallel sets, as `astrape corpus make parallel` writes it, or its URL.",
)
@click.option(
    "--work",
    type=LocalPath(file_okay=False),
    default=Path("train-speaker"),
    show_default=True,
    help="Folder for packages, recordings, examples and the checkpoint. What is there is used again.",
)
@click.option("--steps", type=click.IntRange(1), default=5000, show_default=True, help="Of 24 crops each.")
@click.option(
    "-o",
    "--output",
    type=PlaceType(),
    required=True,
    metavar="FILE",
    help="Weights to write: float16 safetensors; also a URL.",
)
@json_option
def train_speaker(corpus: Path | Place, work: Path, steps: int, output: Path | Place, as_json: bool) -> None:
    """Teach the graph astrape-speaker to say of a voice what Resemblyzer says of it, and scale its measured part.

    It learns from the corpus's training sets, from recordings of Debian's packages whose licences allow it, from flite
    and pico where they are installed, and from two warped copies of each. Stop it at any time: the same line goes on
    from the last checkpoint. Takes the packages of the extra `teachers`, and about half an hour of one core.
    """
    from astrape.audio.places import Place
    from astrape.training.speaker.distil import DistilSettings, agreement, distilled, save_student
    from astrape.training.speaker.features import examples, read_examples
    from astrape.training.speaker.sources import recorded, rendered, spoken
    from astrape.training.speaker.tone import fit_tone

    say, used = narrator(as_json, timed=True), time.process_time()
    work = work.absolute()
    corpus = corpus.absolute()
    # A store that cannot be asked for the weights would not take them in the end either.
    Place(output).exists()
    if next(rendered(corpus), None) is None:
        raise AstrapeError(f"{corpus}: holds no renderings to train on: `astrape corpus make parallel` makes some")
    say("examples, and what the teacher says of them:")
    folder = work / "examples"
    for speech in (rendered(corpus), spoken(corpus, work, say), recorded(work, say)):
        examples(speech, folder, say)
    train, held = read_examples(folder), read_examples(folder, held=True)
    speakers = len({one.speaker for one in train})
    say(f"training on {len(train)} examples of {speakers} speakers, copies among them; {len(held)} are held:")
    graph = distilled(train, held, work / "checkpoint.pt", DistilSettings(steps=steps), say)
    measured = fit_tone(graph, (one.path for one in rendered(corpus) if not one.held))
    say(f"the tone of voices is scaled by {measured} renderings")
    save_student(graph, output)
    result = {
        "weights": str(output),
        "examples": len(train),
        "speakers": speakers,
        "held": len(held),
        "held_cosine": agreement(graph, held) if held else None,
        "steps": steps,
        "core_minutes": (time.process_time() - used) / 60,
    }
    if as_json:
        print_json(result)
    else:
        say(
            f"{output}: agreement on held recordings {result['held_cosine']}, {result['core_minutes']:.1f} core-minutes"
        )
