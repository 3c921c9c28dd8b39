"""``astrape convert``: recordings to a voice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astrape.commands.console import (
    channel_option,
    command,
    json_option,
    parse_settings,
    print_json,
    progress,
    settings_option,
    warn,
)
from astrape.commands.convert_options import Files, How, conversion_options, file_options
from astrape.commands.engine_options import engine_options, refuse_workers
from astrape.commands.fitting import fitted
from astrape.commands.pipes import Pipes, pipe_options
from astrape.commands.run import warnings_of
from astrape.errors import AstrapeError

if TYPE_CHECKING:
    from astrape.audio.places import Place
    from astrape.jobs import Engine
    from astrape.runtime.files import Conversion, Streaming
    from astrape.voice.conversion import Converter
    from astrape.voice.decoding import CodeDecoder, Decoded
    from astrape.voice.folder import Batch
    from astrape.voice.metadata import Metadata

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
@file_options
@conversion_options
@engine_options("one core and 0.5 GB")
@channel_option
@pipe_options
@settings_option
@json_option
@click.pass_context
def convert(
    context: click.Context,
    files: Files,
    how: How,
    engine: Engine,
    channel: str,
    pipes: Pipes,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Convert the recording SRC, or every one below the folder SRC, to VOICE.

    Any format, rate, channels and length that soundfile reads; channels are mixed to the recipe's. OUT has SRC's rate
    and, aligned to the sample, its length. Of a folder, files keep their relative paths; what cannot be converted is
    reported at the end, and the exit code is 1 then. With --jobs, several are converted at a time.

    SRC may be codes that --codes stored, .npz or .npy: the recipe then is one that begins with codes, and of --weights,
    those of the whole, it takes its part. SRC, OUT, VOICE and --weights may be URLs of stores, s3://bucket/name for
    instance.

    `-` for SRC or OUT is standard input or output: WAV, or raw samples where --from or --to say so. What comes is taken
    as it comes, and what goes is flushed with every chunk. What the command has to say then goes to standard error.

    Without --weights those that ship with the recipe are taken. Where none ship they are random (seed 0, so that runs
    repeat) and OUT is noise; it is told.
    """
    from astrape.audio.downmix import checked_channel
    from astrape.audio.places import local_file
    from astrape.runtime.files import check_chunk
    from astrape.voice.conversion import voice_of
    from astrape.voice.decoding import CodeDecoder

    if not files.many:
        refuse_workers(engine, "is for a folder, and SRC is one recording: leave it out")
    check_chunk(how.chunk_ms)
    checked_channel(channel)
    controls = parse_settings(settings)
    if "speaker" in controls:
        raise AstrapeError("--set speaker: the speaker is what --target gives")
    how.check(files)
    converter = how.decoder() if files.holds_codes else how.converter()
    with progress("embedding") as tell:
        voice = voice_of(files.voice, how.encoder or converter.encoder, tell, channel=channel)
    facts = _facts(converter, voice.metadata, files.voice)
    if how.fit:
        assert not isinstance(converter, CodeDecoder)
        voice = fitted(voice, [files.voice], converter, channel)
    if isinstance(converter, CodeDecoder):
        with progress(converter.graph.name) as tell:
            decoded = converter.file(
                local_file(files.source), files.out, voice, chunk_ms=how.chunk_ms, controls=controls, progress=tell
            )
        _tell_decoded(decoded, as_json)
        if as_json:
            print_json(facts | decoded.to_dict())
        return
    stream: Streaming = {
        "chunk_ms": how.chunk_ms,
        "live_latency": how.live_latency,
        "channel": channel,
        "controls": controls,
    }
    if files.many:
        keep: list[Path | Place] = [files.voice] if how.weights is None else [files.voice, how.weights]
        with progress(converter.graph.name) as tell:
            batch = converter.folder(files.source, files.out, voice, keep=keep, engine=engine, progress=tell, **stream)
        _tell_batch(batch, facts, as_json)
        if batch.failed:
            context.exit(INCOMPLETE)
        return
    with progress(converter.graph.name) as tell:
        done = converter.file(
            pipes.source(files.source), pipes.target(files.out), voice, codes=how.codes, progress=tell, **stream
        )
    _tell(done, as_json, files.piped)
    if as_json:
        codes = None if how.codes is None else os.fspath(how.codes)
        print_json(facts | {"codes": codes} | done.to_dict(), err=files.piped)


def _facts(converter: Converter | CodeDecoder, voice: Metadata, path: Path | Place) -> dict[str, Any]:
    """The recipe, weights and voice of a conversion, for its result; warns of what is doubtful.

    Raises:
        AstrapeError: for a voice of another speaker encoder than the weights'.
    """
    from astrape.voice.advice import voice_warnings
    from astrape.voice.speaking import SEED

    name, used = converter.graph.name, converter.weights
    converter.check_voice(voice, path)
    random, deaf = converter.random, converter.deaf
    if random:
        same = ", the same for every voice" if deaf else ""
        warn(f"no --weights given: the weights of '{name}' are random (seed {SEED}) and the output is noise{same}")
    elif deaf and used is not None:
        warn(f"{used}: ignores the voice: the output is the same for every voice")
    for line in voice_warnings(voice):
        warn(f"{path}: {line}")
    return {
        "recipe": name,
        "weights": None if used is None else os.fspath(used),
        "random_weights": random,
        "seed": SEED if random else None,
        "ignores_voice": deaf,
        "voice": os.fspath(path),
        "embedding_model": voice.embedding_model,
        "speaker_encoder": None if converter.space is None else converter.space.names[0],
    }


def _tell_batch(batch: Batch, facts: Mapping[str, Any], as_json: bool) -> None:
    from astrape.audio.endings import named

    for done in batch.converted:
        _tell(done, as_json)
    for failure in batch.failed:
        click.echo(f"astrape: {' '.join(failure.error.split())}", err=True)
    if as_json:
        print_json({**facts, **batch.to_dict()})
        return
    click.echo(f"{len(batch.converted)} of {len(batch.converted) + len(batch.failed)} files converted")
    if batch.others:
        click.echo(f"{len(batch.others)} passed over, no audio by their endings: {named(batch.others)}")


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
