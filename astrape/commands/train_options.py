"""Options that both trainers share, and from flags to settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.cache_options import corpus_options, folder_options
from astrape.commands.console import INTERRUPTED, RecipeName, narrator, print_json
from astrape.commands.place_option import LocalPath, PlaceType
from astrape.errors import AstrapeError
from astrape.wording import lacking

if TYPE_CHECKING:
    from astrape.training.options import Options
    from astrape.training.settings import Setting

__all__ = ["common_options", "common_settings", "run_options", "settings_of", "train_told"]


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Recipe, data, run, length and device."""
    path = LocalPath()
    decorators: list[Callable[..., Any]] = [
        click.option(
            "--recipe",
            type=RecipeName(),
            metavar="RECIPE",
            help="What is trained.  [default: astrape-vc, or the checkpoint's own]",
        ),
        corpus_options,
        folder_options,
        click.option(
            "--pack",
            metavar="PLACE",
            help="Caches that `astrape cache pack` packed, a folder or a URL, in place of --cache and --data.",
        ),
        click.option(
            "--wavlm-rate", type=int, metavar="HZ", help="Rate of the cached features, to be held against the recipe."
        ),
        click.option("--teacher", metavar="NAME", help="miocodec, offline or spectral.  [default: the recipe's]"),
        click.option("--teacher-dir", type=path, metavar="FOLDER", help="Where the teacher's weights are."),
        click.option(
            "--out-dir",
            type=PlaceType(),
            metavar="PLACE",
            help="Where results go, a folder or a URL.  [default: checkpoints/NAME]",
        ),
        click.option(
            "--run-name", metavar="NAME", help="What the results are called.  [default: after recipe and stage]"
        ),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N or mps."),
        click.option("--epochs", type=click.IntRange(1), help="In all phases.  [default: the recipe's, as all below]"),
        click.option("--steps-per-epoch", type=click.IntRange(1), help="Steps in an epoch."),
        click.option("--batch-size", type=click.IntRange(1), help="Windows in a step, for each process."),
        click.option("--weight-decay", type=click.FloatRange(0), help="AdamW's."),
        click.option(
            "--grad-clip", "--clip-grad", type=click.FloatRange(0), help="Largest norm of the gradient; 0: any."
        ),
        click.option("--seed", default=42, show_default=True, type=click.IntRange(0), help="Of weights and windows."),
        click.option(
            "--unseen",
            "--val-fraction",
            default=0.1,
            show_default=True,
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            help="Share of the speakers that training never hears.",
        ),
        click.option(
            "--num-workers", default=0, show_default=True, type=click.IntRange(0, 256), help="Processes that load data."
        ),
        click.option(
            "--threads",
            default=1,
            show_default=True,
            type=click.IntRange(1, 256),
            help="Cores of a CPU that a step takes.",
        ),
        click.option(
            "--resume",
            "--resume-from",
            is_flag=False,
            flag_value="",
            metavar="[FILE]",
            help="Go on from a checkpoint; without FILE, from the run's own last one.",
        ),
        click.option("--overwrite", is_flag=True, help="Begin anew over an older run of this name."),
        click.option(
            "--init-from", type=PlaceType(), metavar="FILE", help="Weights to begin with, as far as they fit."
        ),
        click.option("--save-every-epoch", is_flag=True, help="Keep a checkpoint of each epoch."),
        click.option(
            "--checkpoint-steps",
            default=500,
            show_default=True,
            type=click.IntRange(1),
            help="Steps from one checkpoint to the next within an epoch.",
        ),
        click.option(
            "--log-every", default=50, show_default=True, type=click.IntRange(1), help="Steps between log entries."
        ),
    ]
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def common_settings(flags: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], Any]]:
    """Flags that both trainers have in common: flag, place in the section, value."""
    return [
        ("--steps-per-epoch", ("steps_per_epoch",), flags["steps_per_epoch"]),
        ("--batch-size", ("batch",), flags["batch_size"]),
        ("--mel-frames", ("window",), flags["mel_frames"]),
        ("--eval-mel-frames", ("evaluation_window",), flags["eval_mel_frames"]),
        ("--lr", ("optimiser", "lr"), flags["lr"]),
        ("--weight-decay", ("optimiser", "weight_decay"), flags["weight_decay"]),
        ("--grad-clip", ("optimiser", "clip"), flags["grad_clip"]),
    ]


def settings_of(given: Iterable[tuple[str, tuple[str | int, ...], Any]]) -> list[Setting]:
    """The settings of the flags that were given: those whose value is not ``None``."""
    from astrape.training.settings import Setting

    return [Setting(flag, path, value) for flag, path, value in given if value is not None]


def _teacher_of(name: str | None, folder: Path | None) -> dict[str, Any] | None:
    """The teacher that the command line names; ``None``: the recipe's."""
    if name is None:
        return None if folder is None else {"folder": str(folder)}
    return {"use": name} | ({} if folder is None else {"folder": str(folder)})


def run_options(stage: str, common: dict[str, Any], **own: Any) -> Options:
    """The options of a run from the flags that both trainers have, as click gave them."""
    from astrape.training.options import Options

    recipe, corpus = common["recipe"], common["corpus"]
    name = common["run_name"] or f"{Path(recipe or 'astrape-vc').stem}-{stage}"
    return Options(
        stage=stage,
        cache=corpus.root.absolute(),
        out_dir=common["out_dir"] or Path("checkpoints") / name,
        run_name=name,
        recipe=recipe,
        pack=common["pack"],
        data=corpus.data,
        device=common["device"],
        seed=common["seed"],
        workers=common["num_workers"],
        threads=common["threads"],
        unseen=common["unseen"],
        split_seed=0,
        microphone=corpus.microphone,
        channel=corpus.channel,
        folders=common["folders"],
        features_rate=common["wavlm_rate"],
        teacher=_teacher_of(common["teacher"], common["teacher_dir"]),
        resume=common["resume"],
        overwrite=common["overwrite"],
        init_from=common["init_from"],
        save_every_epoch=common["save_every_epoch"],
        checkpoint_steps=common["checkpoint_steps"],
        log_every=common["log_every"],
        **own,
    )


def train_told(options: Options, as_json: bool) -> None:
    """Train, print progress and results, and exit with code 130 where it was interrupted.

    Raises:
        AstrapeError: for whatever hinders it, packages that are missing among it.
    """
    try:
        from accelerate import PartialState

        from astrape.training.run import train
    except ImportError as error:
        raise AstrapeError(lacking("training", str(error.name), "train")) from error
    outcome = train(options, narrator(as_json))
    # One of several processes prints the result.
    main = PartialState().is_main_process
    PartialState().destroy_process_group()
    if main and as_json:
        print_json(outcome.to_dict())
    elif main and outcome.best:
        click.echo(f"{outcome.weights}: {outcome.best['metric']} {outcome.best['value']:.4f}")
    if not outcome.finished:
        click.get_current_context().exit(INTERRUPTED)
