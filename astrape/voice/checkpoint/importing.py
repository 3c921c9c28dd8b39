"""Import of the original's checkpoints as a recipe and its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from astrape.audio.atomic import atomic_path
from astrape.blocks.wavlm import WavLMCNN
from astrape.errors import AstrapeError
from astrape.graph import compile
from astrape.graph.checksums import sealed_file
from astrape.graph.graph import Graph
from astrape.graph.recipe import Recipe
from astrape.voice.checkpoint.archive import CheckpointError, printable, read_checkpoint
from astrape.voice.checkpoint.config import Reading
from astrape.voice.checkpoint.decoder import DecoderPart, plan_decoder
from astrape.voice.checkpoint.encoder import MEL, EncoderPart, plan_encoder
from astrape.voice.checkpoint.part import NodeLine, Part
from astrape.voice.checkpoint.recipe import recipe_text
from astrape.voice.names import MIOCODEC, SPEAKER_ENCODER
from astrape.voice.speaking import SPEAKER
from astrape.voice.wavlm import load_wavlm, read_wavlm
from astrape.wording import reason_of

__all__ = ["FROM_CODES", "Imported", "import_checkpoints", "save_imported"]

RECIPE, WEIGHTS, FROM_CODES = "recipe.yaml", "weights.safetensors", "from-codes.yaml"
MIC_RATE, WAVLM_RATE = 44100, 16000
MEL_POINTS, MEL_HOP = 2048, 882

WAVLM_LAYERS = {400: 4, 200: 5, 100: 6, 50: 7}
"""Number of WavLM's convolutions that bring 16 kHz down to each rate."""


@dataclass(frozen=True)
class Imported:
    """A network of the original as a recipe.

    Attributes:
        text: the recipe, YAML.
        graph: it, compiled, with the weights in place.
        from_codes: a second recipe, from the codes of the first and a speaker to sound, with nodes of the same names;
            ``None`` for one part alone, and for more codes than are counted.
        assumed: for each file, settings that it does not give, with the values taken.
        skipped: for each file, tensors that only training needs.
        notes: what its user should know, one line each.
    """

    text: str = field(repr=False)
    graph: Graph = field(repr=False)
    from_codes: str | None = field(repr=False)
    assumed: dict[str, dict[str, Any]]
    skipped: dict[str, list[str]]
    notes: list[str]


def import_checkpoints(
    encoder: str | os.PathLike[str] | None = None,
    decoder: str | os.PathLike[str] | None = None,
    *,
    wavlm: str | os.PathLike[str] | None = None,
    from_features: bool = False,
) -> Imported:
    """Read the original's files, and build the graph that computes what they computed.

    With an encoder the graph has the outputs ``content`` and ``codes``, with a decoder ``wav``, which takes ``content``
    where there is no encoder. Sizes come from the tensors' shapes; settings that shapes cannot tell come from the file,
    and where it has none the original's own values are assumed.

    The original computes its features of whole files without padding. Here frames are counted from the first sample
    on, and what the microphone hears yields what the original computes of the same with 5 ms of silence before it.

    Args:
        encoder, decoder: files that the original's training wrote; at least one of them.
        wavlm: a state dict of WavLM, of Hugging Face or torchaudio, or what ``astrape wavlm calibrate`` wrote, whose
            statistics are ``frozen``. Without it the front end has random weights.
        from_features: take WavLM's features, 512 channels at 200 Hz, and not a microphone.

    Raises:
        CheckpointError: for files that cannot be read, tensors that are missing, unknown, of another shape or not
            finite, and parts that do not fit each other.
    """
    if encoder is None and decoder is None:
        raise CheckpointError("nothing to import: give an encoder, a decoder, or both")
    assumed: dict[str, dict[str, Any]] = {}
    parts: list[Part] = []
    encoding, decoding, front = None, None, None
    if encoder is not None:
        encoding, reading = plan_encoder(read_checkpoint(encoder, "encoder"))
        _note(assumed, reading)
        front = _front(encoding, from_features, wavlm)
        parts.append(encoding)
    elif wavlm is not None or from_features:
        raise CheckpointError("a front end belongs to an encoder, and there is only a decoder")
    if decoder is not None:
        decoding, reading = plan_decoder(read_checkpoint(decoder, "decoder"))
        _note(assumed, reading)
        parts.append(decoding)
    if encoding is not None and decoding is not None:
        _join(encoding, decoding)
    text = _text(encoding, decoding, front)
    graph = _compiled(text, parts)
    tensors = dict(graph.state_dict())
    for part in parts:
        tensors.update(part.fill(tensors))
    notes = [f"{part.checkpoint.file}: {note}" for part in parts for note in part.notes]
    graph.load_state_dict(tensors)
    if front is not None:
        notes += front.notes
        if wavlm is not None and isinstance(block := graph.nodes["wavlm"].block, WavLMCNN):
            load_wavlm(block, wavlm)
    graph.eval()
    skipped = {part.checkpoint.file: names for part in parts if (names := part.skipped())}
    decodes = _from_codes_text(encoding, decoding)
    if decodes is not None:
        _compiled(decodes, parts)
    return Imported(text, graph, decodes, assumed, skipped, notes)


def save_imported(imported: Imported, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``recipe.yaml`` and ``weights.safetensors`` into a folder, which is made; each appears whole or not at all.

    With them goes ``from-codes.yaml``, where there is such a recipe: one that is there of an earlier import is removed
    where there is none.

    Raises:
        CheckpointError: when they cannot be written.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{printable(os.fspath(folder))}: {reason_of(error)}") from None
    recipe, weights = place / RECIPE, place / WEIGHTS
    try:
        with atomic_path(recipe) as words, atomic_path(weights) as numbers:
            numbers.write_bytes(sealed_file(imported.graph.state_dict(), _about(imported)))
            words.write_text(imported.text, encoding="utf-8")
        if imported.from_codes is None:
            (place / FROM_CODES).unlink(missing_ok=True)
        else:
            with atomic_path(place / FROM_CODES) as words:
                words.write_text(imported.from_codes, encoding="utf-8")
    except AstrapeError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{printable(os.fspath(folder))}: {reason_of(error)}") from None
    return recipe, weights


def _about(imported: Imported) -> dict[str, str]:
    about = {"recipe": imported.graph.name}
    return about | {SPEAKER_ENCODER: MIOCODEC} if SPEAKER in imported.graph.controls else about


@dataclass
class _Front:
    """The front of an encoder: the graph's input, and the nodes from it to the encoder's."""

    inputs: dict[str, dict[str, int]]
    lines: list[NodeLine] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _front(encoder: EncoderPart, from_features: bool, wavlm: str | os.PathLike[str] | None) -> _Front:
    if from_features:
        return _Front({MEL if encoder.is_mel else "wavlm": {"rate": encoder.rate, "channels": encoder.channels}})
    front = _Front({"mic": {"rate": MIC_RATE, "channels": 1}})
    if encoder.is_mel:
        if wavlm is not None:
            raise encoder.checkpoint.error("has no wavlm_adapter, so there is no use for WavLM's weights")
        mel = {"bins": encoder.channels, "n_fft": MEL_POINTS, "hop": MEL_HOP, "scale": "htk"}
        front.lines.append(NodeLine(MEL, "mel", mel, "50 Hz"))
        return front
    layers = WAVLM_LAYERS.get(encoder.rate)
    if layers is None:
        raise encoder.checkpoint.error(
            f"takes features at {encoder.rate} Hz, and WavLM's convolutions give them at "
            f"{', '.join(map(str, WAVLM_LAYERS))} Hz: import it with --from-features"
        )
    front.lines.append(NodeLine("down", "resampler", {"rate": WAVLM_RATE}))
    params: dict[str, Any] = {"layers": layers} | ({} if encoder.channels == 512 else {"channels": encoder.channels})
    if wavlm is None:
        front.lines.append(NodeLine("wavlm", "wavlm_cnn", params | {"norm": "cumulative"}, "random weights"))
        front.notes.append(
            "the front end's weights are random, so the output means nothing: give WavLM's own with --wavlm, or import "
            "with --from-features"
        )
        return front
    names = read_wavlm(wavlm)
    # WavLM-large has a norm in every layer, the others one after the first; statistics come from `wavlm calibrate`.
    causal = "frozen" if "conv_layers.0.layer_norm.mean" in names else "cumulative"
    params["norm"] = "layer" if "conv_layers.1.layer_norm.weight" in names else causal
    if "conv_layers.0.conv.bias" in names:
        params["bias"] = True
    front.lines.append(NodeLine("wavlm", "wavlm_cnn", params, "frozen"))
    return front


def _join(encoder: EncoderPart, decoder: DecoderPart) -> None:
    """Let the decoder take the encoder's content."""
    if encoder.content_channels != decoder.channels:
        raise decoder.checkpoint.error(
            f"takes content of {decoder.channels} channels, and the encoder gives {encoder.content_channels}"
        )
    if decoder.rate != 25:
        raise decoder.checkpoint.error(f"takes content at {decoder.rate} Hz, and the encoder gives it at 25 Hz")
    first = decoder.lines[0]
    decoder.lines[0] = NodeLine(first.name, first.use, {"from": encoder.content} | first.params, first.comment)


def _text(encoder: EncoderPart | None, decoder: DecoderPart | None, front: _Front | None) -> str:
    groups: dict[str, list[NodeLine]] = {}
    outputs: dict[str, str] = {}
    inputs = front.inputs if front is not None else {}
    if front is not None and front.lines:
        groups["front end"] = front.lines
    if decoder is not None:
        outputs["wav"] = decoder.lines[-1].name
    if encoder is not None:
        groups["encoder"] = encoder.lines
        outputs["content"] = encoder.content
        if encoder.codes is not None:
            outputs["codes"] = encoder.codes
    if decoder is not None:
        groups["decoder"] = decoder.lines
        if encoder is None:
            inputs = {"content": {"rate": decoder.rate, "channels": decoder.channels}}
    parts = [part for part in (encoder, decoder) if part is not None]
    files = " and ".join(Path(part.checkpoint.file).name for part in parts)
    if encoder is None:
        what, description = "decoder", "A waveform from content and a speaker, by a checkpoint of the original"
    elif decoder is None:
        what, description = "encoder", "What is said, as content and codes, by a checkpoint of the original"
    else:
        what, description = "voice-conversion", "Voice conversion by checkpoints of the original"
    heading = [
        f"Imported from {files}, whose weights are in {WEIGHTS} beside this file. It computes in a stream what the "
        "original computed of whole files.",
        "Sizes are the tensors' own. Look-ahead is 0; `astrape report` on this file says where the latency is from.",
    ]
    return recipe_text(
        name=f"imported-{what}",
        description=description,
        heading=heading,
        inputs=inputs,
        speaker=None if decoder is None else decoder.speaker,
        groups=groups,
        outputs=outputs,
    )


def _from_codes_text(encoder: EncoderPart | None, decoder: DecoderPart | None) -> str | None:
    """The recipe that begins where the encoder's codes are."""
    if encoder is None or decoder is None or encoder.codes is None:
        return None
    names = [line.name for line in encoder.lines]
    quantizer, *behind = encoder.lines[names.index("q2d2") :]
    decode = NodeLine("q2d2", "q2d2_decode", quantizer.params, quantizer.comment)
    files = " and ".join(Path(part.checkpoint.file).name for part in (encoder, decoder))
    return recipe_text(
        name="imported-from-codes",
        description="A waveform from codes and a speaker, by checkpoints of the original",
        heading=[
            f"Imported from {files}: sound from the codes that {RECIPE} gives. Nodes have the names that they have "
            f"there, so the weights are a part of those in {WEIGHTS}.",
        ],
        inputs={"codes": {"rate": decoder.rate, "channels": 1}},
        speaker=decoder.speaker,
        groups={"content": [decode, *map(_from_decoded, behind)], "decoder": [*map(_from_decoded, decoder.lines)]},
        outputs={"wav": decoder.lines[-1].name},
    )


def _from_decoded(line: NodeLine) -> NodeLine:
    """A node behind the quantizer, whose content its decoder gives under the node's own name."""
    source = line.params.get("from")
    if source is None:
        return line
    named = {"q2d2.content": "q2d2"}
    new = [named.get(one, one) for one in source] if isinstance(source, list) else named.get(source, source)
    return NodeLine(line.name, line.use, line.params | {"from": new}, line.comment)


def _compiled(text: str, parts: list[Part]) -> Graph:
    """The graph, without drawing its weights from the caller's random numbers."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return compile(Recipe.parse(text, RECIPE))
    except (AstrapeError, MemoryError) as error:
        files = " and ".join(part.checkpoint.file for part in parts)
        raise CheckpointError(f"{files}: sizes and settings make no graph: {error}") from error


def _note(assumed: dict[str, dict[str, Any]], reading: Reading) -> None:
    if reading.assumed:
        assumed[reading.checkpoint.file] = dict(reading.assumed)
