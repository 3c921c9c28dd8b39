"""Codes on disk: decoded, they are what conversion gave; and nothing that a file of them claims is believed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import astrape
from astrape.errors import AstrapeError
from astrape.voice.codes import CodedRecording, CodesError, CodeStream, read_codes, write_codes
from astrape.voice.conversion import Converter
from astrape.voice.decoding import CodeDecoder
from tests.voice.conversion_files import SMALL, fails, read, run, sines, succeeds, voicebank, write

SHIPPED = Path(astrape.__file__).parent / "recipes"


@pytest.fixture(scope="module")
def from_codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small twin from its codes on."""
    recipe = yaml.safe_load((SHIPPED / f"{SMALL}.yaml").read_text())
    names = list(recipe["blocks"])
    quantizer = recipe["blocks"]["q2d2"] | {"use": "q2d2_decode"}
    rest = {name: recipe["blocks"][name] for name in names[names.index("q2d2") + 1 :]}
    rest["input_scale"]["from"] = "q2d2"
    made = {
        "recipe": "small-from-codes",
        "inputs": {"codes": {"rate": 25, "channels": 1}},
        "controls": recipe["controls"],
        "blocks": {"q2d2": quantizer, **rest},
        "outputs": {"wav": recipe["outputs"]["wav"]},
    }
    path = tmp_path_factory.mktemp("codes") / "small-from-codes.yaml"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("rate", "frames", "ending"),
    [(44100, 77_777, "wav"), (16000, 30_001, "flac"), (48000, 1, "wav"), (11025, 0, "wav")],
)
def test_what_is_decoded_is_what_was_converted(
    tmp_path: Path, from_codes: Path, bank: Path, weights: Path, rate: int, frames: int, ending: str
) -> None:
    source = write(tmp_path / "in.wav", sines(frames / rate, rate)[:frames], rate, "PCM_24")
    direct, decoded, codes = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}", tmp_path / "c.npz"
    words = ("--target", bank, "--weights", weights, "--recipe")
    succeeds(run("convert", source, *words, SMALL, "-o", direct, "--codes", codes, "--chunk", 70))
    result = run("convert", codes, *words, from_codes, "-o", decoded, "--chunk", 500, "--json")
    told = json.loads(succeeds(result).stdout)
    assert (told["recipe"], told["coded_by"], told["frames_out"]) == ("small-from-codes", SMALL, frames)
    one, other = soundfile.info(direct), soundfile.info(decoded)
    assert (one.frames, one.samplerate, one.subtype) == (other.frames, other.samplerate, other.subtype)
    if frames > 1:
        assert np.abs(read(direct)).max() > 0.1
        assert np.abs(read(direct) - read(decoded)).max() < 1e-4


def test_in_float64_it_is_the_same_to_rounding(tmp_path: Path, from_codes: Path, weights: Path, speech: Path) -> None:
    whole = astrape.load(SMALL, weights=weights).double()
    part = astrape.load(from_codes, weights=weights, subset=True).double()
    x, speaker = torch.from_numpy(read(speech).T)[None].double(), voicebank(2).speaker.double()
    session = whole.stream()
    pieces = [session.push(piece, speaker=speaker) for piece in x.split(1000, dim=-1)]
    wav, codes = (torch.cat([piece[name] for piece in pieces], dim=-1) for name in ("wav", "codes"))
    write_codes(tmp_path / "codes.npz", CodeStream(codes[0].T.numpy(), Fraction(25)))
    stored = torch.from_numpy(read_codes(tmp_path / "codes.npz").codes)
    again = part.stream()
    parts = [again.push(piece.T[None].double(), speaker=speaker) for piece in stored.split(3)]
    torch.testing.assert_close(torch.cat(parts, dim=-1), wav, rtol=0, atol=1e-9)
    assert len(stored.unique()) > 2


def test_codes_alone_last_as_long_as_they_are(tmp_path: Path, from_codes: Path, weights: Path) -> None:
    graph = astrape.load(from_codes, weights=weights, subset=True)
    codes = torch.randint(0, 145**3, (1, 1, 30))
    np.save(tmp_path / "codes.npy", codes[0, 0].numpy().astype(np.int64))
    done = CodeDecoder.load(from_codes, weights).file(tmp_path / "codes.npy", tmp_path / "a.wav", voicebank(1))
    assert (done.frames_out, done.rate_out, done.codes) == (30 * 1764, 44100, 30)
    late = int(graph.latency * 44100)
    with torch.no_grad():
        # The last one is held for what the transform still needs of the time after it.
        wav = graph(torch.cat([codes, codes[..., -1:]], dim=-1).float(), speaker=voicebank(1).speaker)
    heard = read(tmp_path / "a.wav")[:, 0]
    assert np.abs(heard - wav[0, 0, late : late + len(heard)].clamp(-1, 1).numpy()).max() < 1e-3


def test_output_that_is_not_finite_is_told_with_its_place(tmp_path: Path, from_codes: Path, weights: Path) -> None:
    np.save(tmp_path / "codes.npy", np.zeros(30, np.int64))
    decoder = CodeDecoder.load(from_codes, weights)
    with torch.no_grad():
        for parameter in decoder.graph.parameters():
            parameter.fill_(torch.inf)
    told = r"codes.npy: 'small-from-codes' gave output that is not finite, 'wav' from 0\.000 s on: hint: "
    with pytest.raises(AstrapeError, match=told):
        decoder.file(tmp_path / "codes.npy", tmp_path / "a.wav", voicebank(1))
    assert not (tmp_path / "a.wav").exists()


def test_random_weights_of_full_size_are_the_same_for_every_voice_and_it_is_said(tmp_path: Path, bank: Path) -> None:
    np.save(tmp_path / "codes.npy", np.arange(3))
    words = ("convert", tmp_path / "codes.npy", "--target", bank, "-o", tmp_path / "a.wav")
    result = succeeds(run(*words))
    said = [line for line in result.stderr.splitlines() if "the output is noise, the same for every voice" in line]
    assert len(said) == 1
    assert "3 codes" in result.stdout


def test_the_small_twins_source_follows_the_voice_from_the_start() -> None:
    graph = astrape.load(SMALL)
    assert not Converter(graph).deaf
    with torch.no_grad():
        for name, parameter in graph.named_parameters():
            if "spk_proj" in name:
                parameter.zero_()
    assert Converter(graph).deaf


def archive(**members: Any) -> bytes:
    opened = io.BytesIO()
    fields = {
        "format_version": np.int64(1),
        "codes": np.zeros((2, 1), np.int32),
        "rate": np.str_("25"),
        "latency": np.str_("0"),
        "source_rate": np.int64(44100),
        "source_frames": np.int64(100),
        "source_subtype": np.str_("PCM_16"),
        "recipe": np.str_("x"),
    }
    np.savez(opened, **{name: value for name, value in (fields | members).items() if value is not None})
    return opened.getvalue()


def bomb() -> bytes:
    opened = io.BytesIO()
    with zipfile.ZipFile(opened, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("codes.npy", bytes(257 << 20))
    return opened.getvalue()


def claiming(shape: tuple[int, ...]) -> bytes:
    opened = io.BytesIO()
    np.lib.format.write_array_header_1_0(opened, {"descr": "<i4", "fortran_order": False, "shape": shape})
    return opened.getvalue()


def pickled() -> bytes:
    opened = io.BytesIO()
    np.save(opened, np.array([{}], dtype=object), allow_pickle=True)
    return opened.getvalue()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"no codes", "not an array of NumPy"),
    "nothing": (lambda: b"", "not an array of NumPy"),
    "a damaged archive": (lambda: archive()[:200], r"not a readable \.npz archive"),
    "another archive": (lambda: archive(codes=None), "no array 'codes'"),
    "a later format": (lambda: archive(format_version=np.int64(2)), "is of format 2"),
    "floats": (lambda: archive(codes=np.zeros((2, 1))), "float64 and not whole numbers"),
    "numbers below 0": (lambda: archive(codes=np.full((2, 1), -1)), "below 0"),
    "numbers beyond": (lambda: archive(codes=np.full((2, 1), 1 << 40)), "over 2\\^31"),
    "three dimensions": (lambda: archive(codes=np.zeros((2, 1, 1), np.int32)), r"\(frames, channels\)"),
    "no channel": (lambda: archive(codes=np.zeros((2, 0), np.int32)), r"\(frames, channels\)"),
    "no rate": (lambda: archive(rate=np.str_("fast")), "rate must be a whole number"),
    "rate 0": (lambda: archive(rate=np.str_("0")), "must be over 0"),
    "a huge rate": (lambda: archive(rate=np.str_("999999999999")), "'rate' is over"),
    "an exponent": (lambda: archive(rate=np.str_("1e999999999")), "rate must be"),
    "a negative latency": (lambda: archive(latency=np.str_("-1")), "must be 0 or more"),
    "a hundred years": (lambda: archive(source_frames=np.int64(1 << 47)), "cut short"),
    "not text": (lambda: archive(recipe=np.int64(5)), "'recipe' is not text"),
    "a bomb": (bomb, "has 269484032 bytes, more than"),
    "a claim": (lambda: claiming((1 << 40,)), "claims to be"),
    "a negative claim": (lambda: claiming((-1, -4)), "claims to be|no array"),
    "a pickle": (pickled, "object and not whole numbers"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_codes_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, said = HOSTILE[name]
    path = tmp_path / "codes.npz"
    path.write_bytes(content())
    with pytest.raises(CodesError, match=said) as caught:
        read_codes(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path_factory: Any, data: st.DataObject) -> None:
    content = bytearray(archive(codes=np.arange(40, dtype=np.int32)[:, None]))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content)
    try:
        stream = read_codes(path)
    except CodesError:
        return
    assert stream.codes.dtype == np.int32
    assert stream.codes.ndim == 2


@pytest.mark.parametrize("ending", ["npy", "npz", "NPZ"])
def test_what_is_written_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"codes.{ending}"
    for channels in (1, 3):
        codes = np.random.default_rng(0).integers(0, 1 << 24, (50, channels), np.int32)
        stream = CodeStream(
            codes, Fraction(44100, 1764), Fraction(11, 2000), CodedRecording(8000, 99, "PCM_U8"), "some"
        )
        write_codes(path, stream)
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        back = read_codes(path)
        assert np.array_equal(back.codes, codes)
        said = CodeStream(codes) if ending == "npy" else stream
        assert (back.rate, back.latency, back.recording) == (said.rate, said.latency, said.recording)
        assert back.recipe == said.recipe


def test_what_does_not_go_together_is_said(tmp_path: Path, from_codes: Path, bank: Path, speech: Path) -> None:
    out, codes = tmp_path / "out.wav", tmp_path / "codes.npz"
    ends = ("--target", bank, "-o", out, "--recipe", from_codes)
    for members, said in (
        (
            {"rate": np.str_("50"), "recipe": np.str_("fast")},
            ["has 50 codes a second", "takes 25", "belongs to 'fast'"],
        ),
        ({"codes": np.zeros((5, 2), np.int32)}, ["codes of 2 channels"]),
        ({"codes": np.full((5, 1), 145**3, np.int32)}, ["has the code 3048625", "has 3048625"]),
    ):
        codes.write_bytes(archive(**members))
        fails(run("convert", codes, *ends), *said)
    codes.write_bytes(archive())
    fails(run("convert", codes, *ends, "--live-latency"), "SRC is stored codes already")
    fails(run("convert", codes, *ends, "--codes", tmp_path / "more.npz"), "SRC is stored codes already")
    fails(run("convert", codes, "--target", bank, "-o", out, "--recipe", SMALL), "'astrape-vc-small' decodes no codes")
    fails(run("convert", speech, *ends), "25 Hz and is not audio")
    fails(
        run("convert", speech, "--target", bank, "-o", out, "--recipe", SMALL, "--codes", bank), "is the voice itself"
    )
    assert not out.exists()
