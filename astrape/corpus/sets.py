"""A set on disk: one speech in several voices, all of one length, with what is known of it.

===================  ====================================================================================
file                 holds
===================  ====================================================================================
``set.json``         text, phones, split, what each voice is made of, SHA-256 of the other files
``VOICE.flac``       mono, 16 bit, 600 samples at 24 kHz (400 at 16 kHz) to each of the ``frames`` of 25 ms
``VOICE.f0.npy``     float32 ``(2 * frames,)``: F0 in Hz at 80 Hz, 0 where unvoiced
``phones.npy``       int16 ``(frames,)``: the token that sounds, at 40 Hz; absent for recordings
===================  ====================================================================================

``set.json`` is written last, so a set is there, whole, when it is. Other files beside these (``VOICE.spk.npy`` of a
speaker encoder, say) are left alone.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from astrape.audio.places import Place
from astrape.audio.writer import flac_bytes
from astrape.corpus.errors import CorpusError
from astrape.corpus.plan import Rendering, SetPlan, Warp
from astrape.corpus.rendering import PHONE_RATE, PITCH_RATE, RenderedSet
from astrape.errors import PlaceError
from astrape.wording import reason_of

__all__ = ["INFO", "PHONES", "Damage", "inspect_set", "plan_of", "read_info", "seconds_of", "write_set"]

INFO = "set.json"
PHONES = "phones.npy"
FORM = 1


@dataclass(frozen=True)
class Damage:
    """A fault of a file of a set.

    Attributes:
        path: the file.
        kind: ``missing``, ``empty``, ``truncated``, ``shape``, ``non-finite``, ``changed`` or ``unreadable``.
        message: in words that follow the file's name.
    """

    path: Path | Place
    kind: str
    message: str


def write_set(folder: Path | Place, name: str, rendered: RenderedSet, licence: str, seed: int) -> dict[str, Any]:
    """Write a set, each file whole or not at all, ``set.json`` last.

    Args:
        folder: the set's own; its parents are made.
        name: of the set, as manifests have it.
        rendered: what to write.
        licence: of what it is made of.
        seed: that its plan was drawn with.

    Returns:
        What ``set.json`` says.

    Raises:
        WriteError: for a disk that is full and a folder that cannot be written.
        PlaceError: for a store that does not take it.
    """
    plan = rendered.plan
    files: dict[str, bytes] = {}
    if rendered.labels is not None:
        files[PHONES] = _npy(rendered.labels)
    for voice, one in rendered.voices.items():
        files[f"{voice}.f0.npy"] = _npy(one.f0)
        files[f"{voice}.flac"] = flac_bytes(one.audio, rendered.rate)
    for file, content in files.items():
        path = Place(folder / file)
        if not path.exists() or path.read() != content:
            path.write(content)
    info = {
        "form": FORM,
        "source": plan.source,
        "set": name,
        "seed": seed,
        "number": plan.number,
        "text": plan.text,
        "phones": rendered.phones,
        "prosody": plan.prosody,
        "speed": plan.speed,
        "split": plan.split,
        "licence": licence,
        "rate": rendered.rate,
        "frames": rendered.frames,
        "voices": {one.name: _voice(one, rendered.voices[one.name].gain) for one in plan.renderings},
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
    }
    Place(folder / INFO).write((json.dumps(info, indent=1) + "\n").encode())
    return info


def read_info(folder: Path | Place) -> dict[str, Any]:
    """The contents of ``set.json``, checked.

    Raises:
        CorpusError: for one that is missing, or says nothing that a set can be read by.
    """
    path = folder / INFO
    try:
        info = json.loads(Place(path).read())
        plan_of(info)
        if not (isinstance(info["frames"], int) and info["frames"] > 0 and info["voices"]):
            raise ValueError("frames and voices must be there")
    except PlaceError as error:
        raise CorpusError(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{path}: says nothing of a set: {type(error).__name__}: {error}") from error
    return dict(info)


def plan_of(info: dict[str, Any]) -> SetPlan:
    """The plan that a set was rendered from, as far as ``set.json`` has it: enough to render it again.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: for other content.
    """
    renderings = []
    for name, voice in info["voices"].items():
        warp = voice.get("warp")
        parts = {str(part): float(share) for part, share in voice["parts"].items()}
        made_of = None if warp is None else Warp(str(warp["of"]), float(warp["stretch"]), float(warp["pitch"]))
        renderings.append(Rendering(str(name), parts, float(voice["register"]), made_of))
    return SetPlan(
        source=str(info.get("source", "kokoro")),
        number=int(info.get("number", 0)),
        text=str(info["text"]),
        split=str(info["split"]),
        prosody=str(info["prosody"]),
        speed=float(info["speed"]),
        renderings=tuple(renderings),
        phones=info["phones"],
    )


def seconds_of(info: dict[str, Any]) -> float:
    """Seconds of all renderings of a set together."""
    return len(info["voices"]) * int(info["frames"]) / PHONE_RATE


def inspect_set(folder: Path | Place) -> Iterator[Damage]:
    """The faults of a set, after reading all of it."""
    path = folder / INFO
    if not Place(path).exists():
        yield Damage(path, "missing", "is missing")
        return
    if not Place(path).size():
        yield Damage(path, "empty", "is empty (0 bytes)")
        return
    try:
        info = read_info(folder)
    except CorpusError as error:
        yield Damage(path, "unreadable", str(error).removeprefix(f"{path}: "))
        return
    frames, hashes = int(info["frames"]), dict(info.get("files", {}))
    wanted = [folder / f"{voice}{ending}" for voice in info["voices"] for ending in (".flac", ".f0.npy")]
    if info["phones"] is not None:
        wanted.append(folder / PHONES)
    for file in wanted:
        fault = _fault(file, frames, int(info.get("rate", 24000)), hashes.get(file.name))
        if fault is not None:
            yield Damage(file, *fault)


def _fault(path: Path | Place, frames: int, rate: int, sha256: str | None) -> tuple[str, str] | None:
    """Kind and message of what is wrong with a file."""
    try:
        content = Place(path).read()
    except PlaceError as error:
        if error.missing:
            return "missing", "is missing"
        return "unreadable", str(error).removeprefix(f"{path}: ")
    if not content:
        return "empty", "is empty (0 bytes)"
    fault = (
        _flac_fault(content, frames, rate) if path.name.endswith(".flac") else _table_fault(path.name, content, frames)
    )
    if fault is None and sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        return "changed", f"has SHA-256 other than the {sha256[:16]}... it was written with"
    return fault


def _flac_fault(content: bytes, frames: int, rate: int) -> tuple[str, str] | None:
    due = frames * rate // PHONE_RATE
    try:
        # Not by the reader of audio files, which takes a file: these are the very bytes whose checksum is held against
        # the set's record, fetched once from wherever they are.
        with soundfile.SoundFile(io.BytesIO(content)) as audio:
            if (audio.samplerate, audio.channels) != (rate, 1):
                return "shape", f"has {audio.channels} channels of {audio.samplerate} Hz and not 1 of {rate} Hz"
            count = int(audio.frames)
            if count == due:
                return _cut_off(audio, due)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        return "unreadable", f"is not a readable audio file: {reason_of(error)}"
    return "shape", f"has {count} samples, and {frames} frames of 25 ms have {due}"


def _cut_off(audio: soundfile.SoundFile, due: int) -> tuple[str, str] | None:
    """The fault of a file whose header is right, in a word and a sentence; ``None`` where it is whole."""
    try:
        count = len(audio.read(dtype="float32"))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        return "truncated", f"ends before its {due} samples, or is damaged: {reason_of(error)}"
    return None if count == due else ("truncated", f"ends after {count} of {due} samples")


def _table_fault(name: str, content: bytes, frames: int) -> tuple[str, str] | None:
    dtype, due = (np.int16, frames) if name == PHONES else (np.float32, frames * PITCH_RATE // PHONE_RATE)
    try:
        table = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        return "truncated", f"holds no whole array ({len(content)} bytes): {error}"
    if table.dtype != dtype or table.shape != (due,):
        return "shape", f"holds {table.shape} of {table.dtype} and not ({due},) of {np.dtype(dtype)}"
    bad = int(table.size - np.isfinite(table).sum())
    if bad:
        return "non-finite", f"has {bad} values that are not finite"
    return ("shape", f"holds {float(table.min()):g}, and no value may be below 0") if table.min() < 0 else None


def _voice(one: Rendering, gain: float) -> dict[str, Any]:
    voice: dict[str, Any] = {"parts": one.parts, "register": one.register, "gain": gain}
    if one.warp is not None:
        voice["warp"] = {"of": one.warp.of, "stretch": one.warp.stretch, "pitch": one.warp.pitch}
    return voice


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()
