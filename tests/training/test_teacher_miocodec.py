"""MioCodec from its checkpoint equals an oracle written out over the same tensors."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

import tests.training.miocodec_oracle as oracles
import tests.training.miocodec_tensors as tensors
from astrape.blocks.base import Stream
from astrape.blocks.quantize import FSQ, FSQDecode
from astrape.training.errors import TeacherError
from astrape.training.teachers import Teacher, open_teacher
from astrape.training.teachers.miocodec import MioCodecTeacher
from astrape.training.teachers.miocodec.codec import PREFIXES, MioCodec
from astrape.training.teachers.miocodec.config import read_config
from astrape.training.teachers.miocodec.encoder import LevelQuantizer
from astrape.training.teachers.miocodec.transformer import windowed_attention

pytest.importorskip("transformers")

TOLERANCE = 1e-4


@dataclass
class Made:
    """A folder of weights, and what they are."""

    folder: Path
    oracle: oracles.Oracle
    state: dict[str, Tensor]
    wavlm: dict[str, Tensor]


def make(folder: Path, sizes: dict[str, Any], seed: int = 0, dtype: torch.dtype = torch.float64) -> Made:
    state = tensors.drawn(tensors.codec_tensors(sizes), seed)
    # Codes of every digit, and audio that stays below full scale.
    state["local_quantizer.proj_in.weight"] *= 2
    state["istft_head.out.weight"] *= 0.3
    wavlm = tensors.drawn(tensors.wavlm_tensors(sizes), seed + 1)
    (folder / "miocodec").mkdir(parents=True)
    (folder / "wavlm-base-plus").mkdir()
    (folder / "miocodec" / "config.yaml").write_text(yaml.safe_dump(tensors.config_file(sizes)))
    save_file(state, folder / "miocodec" / "model.safetensors")
    torch.save(wavlm, folder / "wavlm-base-plus" / "wavlm_base_plus.pth")
    return Made(folder, oracles.Oracle(sizes, state, wavlm, dtype), state, wavlm)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("teachers"), tensors.SMALL)


@pytest.fixture(scope="module")
def teacher(made: Made) -> MioCodecTeacher:
    found = open_teacher("miocodec", folder=made.folder)
    assert isinstance(found, MioCodecTeacher)
    return found


def sound(samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.standard_normal(samples + 8), np.ones(9) / 3, mode="valid")
    return (0.1 * noise * (1 + np.sin(np.arange(samples) / 2000))).astype(np.float32)


def tensor(audio: np.ndarray) -> Tensor:
    return torch.from_numpy(audio).reshape(1, 1, -1)


def compare(teacher: MioCodecTeacher, oracle: oracles.Oracle, samples: int) -> None:
    audio = sound(samples, samples)
    content, steps, speaker = oracle.encode(audio)
    found, codes = teacher.encode(tensor(audio))
    # A frame may fall on another side of a border only where it lies within rounding errors of it.
    sure = ((steps - steps.floor() - 0.5).abs() > 1e-3).all(1)
    assert sure.float().mean() > 0.9
    assert codes.shape == (1, 1, len(steps))
    assert codes[0, 0][sure].tolist() == [code for code, kept in zip(oracle.codes(steps), sure, strict=True) if kept]
    np.testing.assert_allclose(found[0].T[sure], content[sure], atol=TOLERANCE)
    np.testing.assert_allclose(teacher.speaker(tensor(audio))[0], speaker, atol=TOLERANCE)
    heard = teacher.decode(found, speaker[None].float(), samples)
    np.testing.assert_allclose(heard[0, 0], oracle.decode(found[0].T, speaker, samples), atol=TOLERANCE)


@pytest.mark.parametrize("samples", [1765, 12345, 30001, 99999])
def test_content_codes_speaker_and_audio_equal_the_oracle(teacher: MioCodecTeacher, made: Made, samples: int) -> None:
    """1 to 56 content frames: less than windows of attention, and more; odd lengths; frames that are cut off."""
    compare(teacher, made.oracle, samples)


@pytest.mark.slow
def test_the_published_sizes_equal_the_oracle(tmp_path: Path) -> None:
    whole = make(tmp_path, tensors.PUBLISHED, dtype=torch.float32)
    full = open_teacher("miocodec", folder=tmp_path)
    assert isinstance(full, MioCodecTeacher)
    assert (full.content_channels, full.speaker_channels, full.code_count) == (768, 128, 12800)
    for samples in (20001, 52921):
        compare(full, whole.oracle, samples)


def test_tensors_are_those_that_are_published(tmp_path: Path) -> None:
    """350 tensors of 132,016,399 numbers; weight norms count as magnitudes and directions."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tensors.config_file(tensors.PUBLISHED)))
    with torch.device("meta"):
        codec = MioCodec(read_config(tmp_path / "config.yaml"))
    expected = tensors.codec_tensors(tensors.PUBLISHED)
    assert len(expected) == 350
    assert sum(int(np.prod(shape)) for shape in expected.values()) == 132_016_399
    own = {}
    for name, parameter in codec.named_parameters():
        prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
        own[PREFIXES[prefix] + name.removeprefix(prefix)] = tuple(parameter.shape)
    for stage, width in ((0, 512), (1, 256)):
        weight = f"wave_upsampler.upsample_layers.{stage}.weight"
        start = weight.removesuffix("weight") + "parametrizations.weight.original"
        own |= {f"{start}0": (width, 1, 1), f"{start}1": own.pop(weight)}
    assert own == expected


def test_it_is_a_teacher_and_says_what_it_gives(teacher: MioCodecTeacher) -> None:
    assert isinstance(teacher, Teacher)
    assert (teacher.sample_rate, teacher.content_rate, teacher.code_count) == (44100, Fraction(25), 12800)
    assert (teacher.content_channels, teacher.speaker_channels, teacher.decodes) == (32, 16, True)


def test_a_batch_gives_what_its_items_give(teacher: MioCodecTeacher) -> None:
    both = torch.cat((tensor(sound(20000, 1)), tensor(sound(20000, 2))))
    content, codes = teacher.encode(both)
    speakers = teacher.speaker(both)
    audio = teacher.decode(content, speakers, 20000)
    for at in range(2):
        alone, code = teacher.encode(both[at : at + 1])
        torch.testing.assert_close(alone[0], content[at], rtol=0, atol=1e-5)
        assert torch.equal(code[0], codes[at])
        voice = teacher.speaker(both[at : at + 1])
        torch.testing.assert_close(voice[0], speakers[at], rtol=0, atol=1e-5)
        torch.testing.assert_close(teacher.decode(alone, voice, 20000)[0], audio[at], rtol=0, atol=1e-5)


def test_content_comes_back_from_codes(teacher: MioCodecTeacher) -> None:
    content, codes = teacher.encode(tensor(sound(30000)))
    torch.testing.assert_close(teacher.content_of(codes), content, rtol=0, atol=1e-6)
    assert torch.equal(teacher.codes(tensor(sound(30000))), codes)
    assert torch.equal(teacher.content(tensor(sound(30000))), content)


def test_layers_are_those_of_wavlm(teacher: MioCodecTeacher, made: Made) -> None:
    audio = sound(12345)
    layers = teacher.layers(tensor(audio))
    assert teacher.layer_rate == 50
    assert [tuple(layer.shape) for layer in layers] == [(1, 32, 14)] * 10
    for found, expected in zip(layers[1:], made.oracle.layers(audio), strict=True):
        np.testing.assert_allclose(found[0].T, expected, atol=TOLERANCE)


def test_conversion_is_content_of_one_and_speaker_of_the_other(teacher: MioCodecTeacher, made: Made) -> None:
    source, target = sound(16000, 3), sound(22222, 4)
    converted = teacher.convert(tensor(source), tensor(target))
    content = teacher.content(tensor(source))
    _, _, speaker = made.oracle.encode(target)
    np.testing.assert_allclose(converted[0, 0], made.oracle.decode(content[0].T, speaker, 16000), atol=TOLERANCE)
    itself = teacher.convert(tensor(source), tensor(source))
    assert (converted - itself).abs().max() > 1e-2
    assert converted.shape[2] == 16000 // 98 // 9 * 9 * 98


def test_lengths_are_reckoned_as_the_published_code_does(teacher: MioCodecTeacher) -> None:
    """355,446 samples are exactly 403 hops, which floating point takes for a little more."""
    assert Fraction(355446, 44100) * 50 == 403
    assert 355446 / 44100 * 16000 / 320 > 403
    # 404 frames need 129,360 samples at 16 kHz, 356,548.5 at 44.1 kHz.
    assert teacher.codec.margin(355446) == 552
    assert teacher.codec.margin(355447 + 881) == 111
    assert teacher.codec.samples(25) == 44321
    content = teacher.content(tensor(sound(12345)))
    assert teacher.decode(content, torch.zeros(1, 16)).shape[2] == teacher.codec.samples(7) // 882 * 882


@pytest.mark.parametrize(
    ("frames", "side"), [(1, 3), (5, 0), (63, 7), (64, 62), (200, 3), (191, 62), (400, 100), (130, 0)]
)
def test_windowed_attention_equals_a_mask(frames: int, side: int) -> None:
    query, key, value = torch.randn(3, 2, 3, frames, 8, generator=torch.Generator().manual_seed(frames)).double()
    at = torch.arange(frames)
    scores = query @ key.transpose(2, 3) / 8**0.5
    scores = scores.masked_fill((at[:, None] - at).abs() > side, -torch.inf)
    torch.testing.assert_close(windowed_attention(query, key, value, side), scores.softmax(-1) @ value)


class TestQuantizerAndTheBlock:
    """The block ``fsq`` has the same levels, codes and way back; its borders lie a little elsewhere."""

    def parts(self) -> tuple[LevelQuantizer, FSQ]:
        quantizer = LevelQuantizer(5, 24, (8, 8, 8, 5, 5)).double()
        block = FSQ(Stream(25, 5), levels=[8, 8, 8, 5, 5], channels=24, project_in=False).double()
        block.load_state_dict({f"project_out.{part}": quantizer.proj_out.state_dict()[part] for part in tensors.NORM})
        return quantizer, block

    def test_content_of_every_code_is_the_same(self) -> None:
        quantizer, _ = self.parts()
        block = FSQDecode(Stream(25, 1), levels=[8, 8, 8, 5, 5], channels=24).double()
        block.load_state_dict({f"project_out.{part}": quantizer.proj_out.state_dict()[part] for part in tensors.NORM})
        codes = torch.arange(12800).reshape(1, 1, -1)
        content = quantizer.decode(codes[:, 0]).transpose(1, 2)
        torch.testing.assert_close(content.float(), block.decode(codes), rtol=0, atol=1e-6)

    def test_codes_are_the_same_but_beside_borders(self) -> None:
        quantizer, block = self.parts()
        z = torch.randn(1, 20000, 5, generator=torch.Generator().manual_seed(1)).double() * 2
        _, codes = quantizer(z)
        same = codes == block.encode(z.transpose(1, 2))[:, 0]
        assert 0.98 < same.double().mean() < 1.0
        bounded = quantizer.bounded(z)
        beside = ((bounded - bounded.floor() - 0.5).abs() < 0.01).any(2)
        assert bool(beside[~same].all())

    def test_the_bounds_are_a_thousandth_to_each_side(self) -> None:
        quantizer, _ = self.parts()
        far = quantizer.bounded(torch.full((1, 1, 5), 50.0).double())[0, 0]
        assert far.tolist() == pytest.approx([2.9965, 2.9965, 2.9965, 1.998, 1.998])
        near = quantizer.bounded(torch.zeros(1, 1, 5).double())[0, 0]
        assert near.abs().max() < 2e-3


def test_names_tell_weights_apart(teacher: MioCodecTeacher, tmp_path: Path) -> None:
    other = make(tmp_path, tensors.SMALL, seed=7)
    assert teacher.name.startswith("miocodec ")
    assert open_teacher("miocodec", folder=other.folder).name != teacher.name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.content(torch.zeros(1, 44100)), "shape"),
        (lambda t: t.content(torch.zeros(1, 1, 1000)), "0.04 s"),
        (lambda t: t.content(torch.zeros(1, 1, 44100 * 121)), "takes 120 s of audio at once, not 121"),
        (lambda t: t.speaker(torch.full((1, 1, 44100), torch.inf)), "not finite"),
        (lambda t: t.decode(torch.zeros(1, 31, 5), torch.zeros(1, 16)), r"content must be \(batch, 32, frames\)"),
        (lambda t: t.decode(torch.zeros(1, 32, 5), torch.zeros(2, 16)), r"speakers must be \(1, 16\)"),
        (lambda t: t.decode(torch.zeros(1, 32, 5), torch.zeros(1, 16), 500), "20 ms at least, not 500"),
        (lambda t: t.content_of(torch.full((1, 1, 3), 12800)), "0 to 12799, not 12800"),
        (lambda t: t.content_of(torch.zeros(1, 1, 3)), "whole numbers"),
    ],
)
def test_wrong_use_is_refused_in_words(teacher: MioCodecTeacher, call: Any, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        call(teacher)


def test_silence_is_finite(teacher: MioCodecTeacher) -> None:
    silence = torch.zeros(1, 1, 20000)
    assert all(bool(torch.isfinite(x).all()) for x in (teacher.content(silence), teacher.speaker(silence)))
    assert functional.mse_loss(teacher.convert(silence, silence), teacher.convert(silence, silence)) == 0
