"""``astrape train-tiny``: the small twin learns real speech, beside what takes no learning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import command, json_option, narrator, print_json
from astrape.commands.place_option import LocalPath, PlaceType
from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.audio.places import Place

__all__ = ["train_tiny"]


@command(
    "train-tiny",
    "astrape train-tiny --work train-tiny\n"
    "astrape train-tiny --work train-tiny --data my-recordings\n"
    "astrape train-tiny --work short --data tests/audio/speech --short",
    interrupted="what is there is used again by the same command",
    short="Train a small voice converter on real speech.",
    extra="tiny",
)
@click.option(
    "--work",
    type=LocalPath(file_okay=False),
    default=Path("train-tiny"),
    show_default=True,
    help="Folder for packages, recordings, caches, checkpoints and TensorBoard.",
)
@click.option(
    "--data",
    type=PlaceType(),
    metavar="PATH",
    help="A corpus of your own, with a folder of recordings for each speaker; fetched from Debian when left out.",
)
@click.option("--short", is_flag=True, help="Minutes on a minute of speech, in place of most of an hour.")
@json_option
def train_tiny(work: Path, data: Path | Place | None, short: bool, as_json: bool) -> None:
    """Train the small twin of astrape-vc, both phases, and hold it against baselines on unseen speakers.

    Recorded speech of 17 speakers comes from Debian packages, which are fetched and unpacked below WORK without being
    installed. What is there of an earlier run is used again: packages, recordings, front end, caches. The exit status
    is 1 where a baseline is better.
    """
    from astrape.training.tiny.run import FULL, SHORT, run
    from astrape.training.tiny.voices import write_corpus

    say = narrator(as_json, timed=True)
    work = work.absolute()
    corpus = data
    if corpus is None:
        say("recorded speech from Debian packages:")
        corpus = work / "corpus"
        write_corpus(work, corpus, say)
    result = run(corpus, work, SHORT if short else FULL, say)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo("\n" + "\n".join(result.lines()))
        click.echo(f"\nCurves, sounds and spectrograms: tensorboard --logdir {work}")
    if not result.learned:
        raise AstrapeError("a baseline is better than what was trained: see the numbers above")
