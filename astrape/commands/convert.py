"""``astrape convert``: recordings to a voice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import (
    PIPE,
    RecipeName,
    channel_option,
    command,
    json_option,
    parse_settings,
    pipe_options,
    piped_source,
    piped_target,
    print_json,
    progress,
    settings_option,
    warn,
)
from astrape.commands.engine_options import engine_options, refuse_workers
from astrape.commands.run import warnings_of
from astrape.errors import AstrapeError
from astrape.voice.names import CODE_ENDINGS, FROM_CODES, RECIPE

if TYPE_CHECKING:
    from astrape.jobs import Engine
    from astrape.runtime.files import Conversion
    from astrape.voice.conversion import Converter
    from astrape.voice.decoding import CodeDecoder, Decoded

__all__ = ["convert"]

INCOMPLETE = 1


@command(
    "convert",
    "astrape convert speech.wav --target reference.wav -o converted.wav\n"
    "astrape convert recordings/ --target emma -o converted/\n"
    "ffmpeg -i a.mp4 -f wav - | astrape convert - - --target emma | ffplay -\n"
    "astrape convert speech.npz --target voice.astrape --weights weights.safetensors -o decoded.wav",
    interrupted="OUT is as it was before; of a folder, files that were done are there",
    short="Convert recordings to a voice.",
)
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.argument("second", metavar="[OUT]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--target",
    "voice",
    required=True,
    metavar="VOICE",
    type=click.Path(path_type=Path),
    help="The voice: a voicebank (.astrape, or an older .npz), a recording of 5 s or more, or the name of a voice that "
    "ships (`astrape voicebank list`).",
)
@click.option(
    "-o",
    "--output",
    "--out",
    "out",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Where to: a file, or a folder where SRC is one; may follow SRC too.",
)
@click.option(
    "--recipe",
    type=RecipeName(),
    metavar="RECIPE",
    help=f"What converts. [default: {RECIPE}, and {FROM_CODES} where SRC is codes]",
)
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="Weights, a safetensors file.")
@click.option(
    "--chunk", "chunk_ms", default=10.0, show_default=True, metavar="MS", help="What the graph gets at a time."
)
@click.option("--live-latency", is_flag=True, help="Keep the latency that a live host hears, instead of aligning.")
@click.option(
    "--encoder",
    metavar="NAME",
    help="Speaker encoder for a recording: an installed one's name, or package.module:factory.  [default: that of "
    "--weights]",
)
@click.option("--port", metavar="NAME", help="The output to write, where the recipe has several; the first audio.")
@click.option(
    "--codes", type=click.Path(path_type=Path), metavar="FILE.npz", help="Store the codes too, to decode them later."
)
@engine_options("one core and 0.5 GB")
@channel_option
@pipe_options
@settings_option
@json_option
@click.pass_context
def convert(
    context: click.Context,
    source: Path,
    second: Path | None,
    voice: Path,
    out: Path | None,
    recipe: str | None,
    weights: Path | None,
    chunk_ms: float,
    live_latency: bool,
    encoder: str | None,
    port: str | None,
    codes: Path | None,
    engine: Engine,
    channel: str,
    form_in: str,
    form_out: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Convert the recording SRC, or every one below the folder SRC, to VOICE.

    Any format, rate, channels and length that soundfile reads; channels are mixed to the recipe's. OUT has SRC's rate
    and, aligned to the sample, its length. Of a folder, files keep their relative paths; what cannot be converted is
    reported at the end, and the exit code is 1 then. With --jobs, several are converted at a time.

    SRC may be codes that --codes stored, .npz or .npy: the recipe then is one that begins with codes, and of --weights,
    those of the whole, it takes its part.

    `-` for SRC or OUT is standard input or output: WAV, or raw samples where --from or --to say so. What comes is taken
    as it comes, and what goes is flushed with every chunk. What the command has to say then goes to standard error.

    Without --weights those that ship with the recipe are taken. Where none ship they are random (seed 0, so that runs
    repeat) and OUT is noise; it is told.
    """
    from astrape.audio.downmix import checked_channel
    from astrape.audio.endings import named
    from astrape.runtime.files import check_chunk
    from astrape.voice.advice import voice_warnings
    from astrape.voice.conversion import Converter, voice_of
    from astrape.voice.decoding import CodeDecoder
    from astrape.voice.speaking import SEED, is_deaf

    if out is None:
        out = second
    elif second is not None:
        raise click.UsageError(f"OUT is given twice, as '{second}' and with -o")
    if out is None:
        raise click.UsageError("Missing option '-o' / '--output' / '--out'.")
    if not source.is_dir():
        refuse_workers(engine, "is for a folder, and SRC is one recording: leave it out")
    check_chunk(chunk_ms)
    checked_channel(channel)
    controls = parse_settings(settings)
    if "speaker" in controls:
        raise AstrapeError("--set speaker: the speaker is what --target gives")
    if codes is not None and source.is_dir():
        raise AstrapeError("--codes: stores the codes of one file, and SRC is a folder: leave it out")
    if str(out) == PIPE and source.is_dir():
        raise AstrapeError("-o -: standard output takes one recording, and SRC is a folder: name a folder")
    decodes = source.suffix.lower() in CODE_ENDINGS and not source.is_dir()
    if decodes and (codes is not None or live_latency):
        option = "--codes" if codes is not None else "--live-latency"
        raise AstrapeError(f"{option}: SRC is stored codes already: leave it out")
    if decodes and str(out) == PIPE:
        raise AstrapeError("-o -: stored codes are decoded to a file: name one")
    _check_outputs({"the voice": voice, "the weights": weights, "SRC": source}, out, codes)
    converter: Converter | CodeDecoder
    if decodes:
        converter = CodeDecoder.load(recipe or FROM_CODES, weights, output=port)
    else:
        converter = Converter.load(recipe or RECIPE, weights, output=port, codes=codes is not None)
    name = converter.graph.name
    used = converter.weights
    with progress("embedding") as tell:
        bank = voice_of(voice, encoder or converter.encoder, tell, channel=channel)
    converter.check_voice(bank.metadata, voice)
    random = used is None and any(True for _ in converter.graph.parameters())
    deaf = is_deaf(converter.graph)
    if random:
        same = ", the same for every voice" if deaf else ""
        warn(f"no --weights given: the weights of '{name}' are random (seed {SEED}) and the output is noise{same}")
    elif deaf and used is not None:
        warn(f"{used}: makes nothing of the voice: whoever it is, the output is the same")
    for line in voice_warnings(bank.metadata):
        warn(f"{voice}: {line}")
    facts = {
        "recipe": name,
        "weights": None if used is None else os.fspath(used),
        "random_weights": random,
        "seed": SEED if random else None,
        "ignores_voice": deaf,
        "voice": os.fspath(voice),
        "embedding_model": bank.metadata.embedding_model,
        "speaker_encoder": None if converter.space is None else converter.space.names[0],
    }
    if isinstance(converter, CodeDecoder):
        with progress(name) as tell:
            decoded = converter.file(source, out, bank, chunk_ms=chunk_ms, controls=controls, progress=tell)
        _tell_decoded(decoded, as_json)
        if as_json:
            print_json(facts | decoded.to_dict())
        return
    if source.is_dir():
        with progress(name) as tell:
            batch = converter.folder(
                source,
                out,
                bank,
                chunk_ms=chunk_ms,
                live_latency=live_latency,
                channel=channel,
                controls=controls,
                keep=[voice] if weights is None else [voice, weights],
                engine=engine,
                progress=tell,
            )
        for done in batch.converted:
            _tell(done, as_json)
        for failure in batch.failed:
            click.echo(f"astrape: {' '.join(failure.error.split())}", err=True)
        if as_json:
            print_json(facts | batch.to_dict())
        else:
            click.echo(f"{len(batch.converted)} of {len(batch.converted) + len(batch.failed)} files converted")
            if batch.others:
                click.echo(f"{len(batch.others)} passed over, no audio by their endings: {named(batch.others)}")
        if batch.failed:
            context.exit(INCOMPLETE)
        return
    with progress(name) as tell:
        done = converter.file(
            piped_source(source, form_in),
            piped_target(out, form_out),
            bank,
            chunk_ms=chunk_ms,
            live_latency=live_latency,
            channel=channel,
            codes=codes,
            controls=controls,
            progress=tell,
        )
    piped = str(out) == PIPE
    _tell(done, as_json, piped)
    if as_json:
        print_json(facts | {"codes": None if codes is None else os.fspath(codes)} | done.to_dict(), err=piped)


def _check_outputs(inputs: dict[str, Path | None], out: Path, codes: Path | None) -> None:
    """Refuse outputs that would overwrite an input. Whoever writes OUT checks that it is not SRC itself."""
    from astrape.voice.folder import same_file

    for what, path in inputs.items():
        if path is None:
            continue
        if what != "SRC" and same_file(out, path):
            raise AstrapeError(f"{out}: is {what} itself: name another output")
        if codes is not None and same_file(codes, path):
            raise AstrapeError(f"{codes}: is {what} itself: name another file for the codes")
    if codes is not None and os.path.realpath(codes) == os.path.realpath(out):
        raise AstrapeError(f"{codes}: is OUT itself: name another file for the codes")


def _tell_decoded(done: Decoded, as_json: bool) -> None:
    from astrape.audio.levels import decibels

    if done.clipped:
        warn(f"{done.target}: {done.clipped} samples beyond full scale, peak {decibels(done.peak_out):+.1f} dB")
    if not as_json:
        click.echo(
            f"{done.target}: {done.frames_out} frames at {done.rate_out} Hz ({done.subtype}) of {done.codes} codes, "
            f"peak {decibels(done.peak_out):.1f} dB, {done.elapsed:.1f} s (graph {done.real_time_factor:.3f} of real "
            f"time)"
        )


def _tell(done: Conversion, as_json: bool, piped: bool = False) -> None:
    from astrape.audio.levels import decibels

    for line in warnings_of(done):
        warn(line)
    if not as_json:
        click.echo(
            f"{done.target}: {done.frames_out} frames at {done.rate_out} Hz ({done.subtype}), "
            f"peak {decibels(done.peak_out):.1f} dB, latency {done.latency_frames} frames, "
            f"{done.elapsed:.1f} s (graph {done.real_time_factor:.3f} of real time)",
            err=piped,
        )
