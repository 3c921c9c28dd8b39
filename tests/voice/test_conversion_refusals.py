"""``astrape convert`` given what cannot be: one line that says so, and nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import astrape
from astrape.errors import AstrapeError
from astrape.voice.conversion import Converter
from tests.voice.conversion_files import SILENT_VOICE, SMALL, THROUGH, fails, run, sines, voicebank, write


def refusals(folder: Path, speech: Path, bank: Path, through: Path) -> dict[str, tuple[Sequence[Any], Sequence[str]]]:
    """Words after ``convert``, and what is said."""
    (folder / "text.txt").write_text("neither this nor that, at all")
    (folder / "bad.astrape").write_bytes(b"RIFFxxxxWAVE")
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "plain.yaml").write_text(SILENT_VOICE)
    (folder / "narrow.yaml").write_text(
        THROUGH.replace("channels: 128", "channels: 64").replace(
            "condition: speaker", "condition: speaker, condition_channels: 64"
        )
    )
    (folder / "slow.yaml").write_text(THROUGH.replace("44100", "200"))
    short = write(folder / "short.wav", sines(2, 16000), 16000)
    out = folder / "out.wav"
    ends = ("-o", out, "--recipe", through)
    return {
        "no source": (("none.wav", "--target", bank, *ends), ["none.wav: there is no such file"]),
        "no audio": ((folder / "text.txt", "--target", bank, *ends), ["text.txt: is not a readable audio file"]),
        "no voice": ((speech, "--target", "none.astrape", *ends), ["none.astrape"]),
        "no recording": ((speech, "--target", "none.wav", *ends), ["none.wav: there is no such file"]),
        "neither": (
            (speech, "--target", folder / "text.txt", *ends),
            ["text.txt: is neither a voicebank nor a readable audio file"],
        ),
        "folder as voice": ((speech, "--target", folder, *ends), ["is a folder"]),
        "bad bank": ((speech, "--target", folder / "bad.astrape", *ends), ["bad.astrape", "not a voicebank"]),
        "short voice": ((speech, "--target", short, *ends), ["short.wav", "at least 5"]),
        "encoder": ((speech, "--target", short, "--encoder", "nobody", *ends), ["no speaker encoder 'nobody'"]),
        "itself": ((speech, "--target", bank, "-o", speech, "--recipe", through), ["is the input itself"]),
        "the voice": ((speech, "--target", bank, "-o", bank, "--recipe", through), ["is the voice itself"]),
        "ending": ((speech, "--target", bank, "-o", folder / "out.xyz", "--recipe", through), ["no audio format"]),
        "chunk": ((speech, "--target", bank, *ends, "--chunk", 0), ["a chunk must be over 0"]),
        "recipe": ((speech, "--target", bank, "-o", out, "--recipe", "astrape-vx"), ["astrape-vx"]),
        "no speaker": (
            (speech, "--target", bank, "-o", out, "--recipe", folder / "plain.yaml"),
            ["'no-voice' converts to no voice", "'speaker' of 128 channels", "no such control"],
        ),
        "narrow": ((speech, "--target", bank, "-o", out, "--recipe", folder / "narrow.yaml"), ["it has one of 64"]),
        "slow": ((speech, "--target", bank, "-o", out, "--recipe", folder / "slow.yaml"), ["200 Hz and is not audio"]),
        "weights": ((speech, "--target", bank, *ends, "--weights", folder / "text.txt"), ["text.txt: cannot be read"]),
        "port": ((speech, "--target", bank, *ends, "--port", "wave"), ["no output 'wave' (choose from: wav)"]),
        "no codes": ((speech, "--target", bank, *ends, "--codes", folder / "c.npy"), ["no output 'codes' to store"]),
        "codes' ending": (
            (speech, "--target", bank, "-o", out, "--recipe", SMALL, "--codes", folder / "c.txt"),
            ["c.txt: codes are stored as .npz or .npy"],
        ),
        "codes live": (
            (speech, "--target", bank, "-o", out, "--recipe", SMALL, "--codes", folder / "c.npy", "--live-latency"),
            ["'codes' is taken down without live latency"],
        ),
        "codes of a folder": (
            (folder, "--target", bank, *ends, "--codes", folder / "c.npy"),
            ["--codes: stores the codes of one file"],
        ),
        "speaker": ((speech, "--target", bank, *ends, "--set", "speaker=1"), ["--set speaker"]),
        "no such control": ((speech, "--target", bank, *ends, "--set", "pitch=1"), ["pitch"]),
        "empty folder": (
            (folder / "empty", "--target", bank, "-o", folder / "o", "--recipe", through),
            ["holds no audio file (of 0)"],
        ),
        "no voice of that name": (
            (speech, "--target", "nobody", *ends),
            ["nobody: there is no such file, and no voice of that name ships", "emma"],
        ),
        "another encoder": ((speech, "--target", bank, "-o", out), ["'learned elsewhere'", "voicebank build"]),
        "folder to file": ((folder, "--target", bank, "-o", short, "--recipe", through), ["is not a folder"]),
        "onto itself": ((folder, "--target", bank, "-o", folder, "--recipe", through), ["would overwrite the source"]),
    }


def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, speech: Path, bank: Path, through: Path) -> None:
    kept = speech.read_bytes(), bank.read_bytes()
    for case, (words, said) in refusals(tmp_path, speech, bank, through).items():
        before = sorted(tmp_path.rglob("*"))
        result = run("convert", *words)
        assert result.exit_code, f"{case}: {result.output}"
        fails(result, *said)
        assert sorted(tmp_path.rglob("*")) == before, case
    assert (speech.read_bytes(), bank.read_bytes()) == kept


def test_the_converter_refuses_what_it_was_not_made_for(tmp_path: Path, through: Path, speech: Path) -> None:
    converter = Converter(astrape.load(through))
    with pytest.raises(AstrapeError, match="keeps no codes"):
        converter.file(speech, tmp_path / "out.wav", voicebank(1), codes=tmp_path / "c.npy")
    with pytest.raises(AstrapeError, match="is not a folder"):
        converter.folder(speech, tmp_path / "out", voicebank(1))
