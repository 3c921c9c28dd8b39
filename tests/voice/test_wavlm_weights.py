"""WavLM checkpoints in both layouts, frozen statistics, and the cost of causality."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from uuid import uuid4

import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from astrape.audio.places import Place
from astrape.blocks import Stream, WavLMCNN
from astrape.cli import cli
from astrape.commands.wavlm import wavlm
from astrape.voice.wavlm import WavLMError, freeze, load_wavlm, measure_statistics, norm_cost, read_wavlm

AUDIO = Stream(16000, 1)


def front(seed: int = 0, **params: object) -> WavLMCNN:
    torch.manual_seed(seed)
    block = WavLMCNN(AUDIO, **{"channels": 12, **params})
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return block


def paper_name(name: str, large: bool) -> str:
    """``conv_layers.0.conv.weight`` as the paper's code has it."""
    parts = {"conv": "0", "layer_norm": "2.1" if large else "2"}
    _, index, part, which = name.split(".")
    return f"feature_extractor.conv_layers.{index}.{parts[part]}.{which}"


@pytest.mark.parametrize("norm", ["cumulative", "layer"])
@pytest.mark.parametrize("layout", ["hf", "wrapped", "paper"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_from_every_layout(tmp_path: Path, norm: str, layout: str, suffix: str) -> None:
    source, block = front(layers=7, norm=norm), front(1, norm=norm)
    names = {
        "hf": lambda name: f"feature_extractor.{name}",
        "wrapped": lambda name: f"wavlm.feature_extractor.{name}",
        "paper": lambda name: paper_name(name, norm == "layer"),
    }
    state = {names[layout](name): tensor for name, tensor in source.state_dict().items()}
    state["encoder.layers.0.attention.q_proj.weight"] = torch.zeros(3, 3)
    path = tmp_path / f"wavlm{suffix}"
    if suffix == ".pt":
        torch.save({"cfg": {"x": 1}, "model": state} if layout == "paper" else state, path)
    else:
        save_file(state, path)
    load_wavlm(block, path)
    own = block.state_dict()
    assert all(torch.equal(own[name], source.state_dict()[name]) for name in own)


def test_torchaudio_names() -> None:
    """torchaudio calls the parts as Hugging Face does."""
    assert set(front().state_dict()) == {
        "conv_layers.0.conv.weight",
        "conv_layers.0.layer_norm.weight",
        "conv_layers.0.layer_norm.bias",
        *(f"conv_layers.{index}.conv.weight" for index in range(1, 5)),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("feature_extractor.conv_layers.2.conv.weight"), r"'conv_layers\.2\.conv\.weight' is missing"),
        (lambda s: s.update({"feature_extractor.conv_layers.1.conv.bias": torch.zeros(12)}), "bias: true"),
        (lambda s: s.update({"feature_extractor.conv_layers.1.conv.weight": torch.zeros(12, 11, 3)}), r"\(12, 11, 3\)"),
        (
            lambda s: s.update({"feature_extractor.conv_layers.0.conv.weight": torch.full((12, 1, 10), torch.nan)}),
            "finite",
        ),
        (lambda s: s.update({"feature_extractor.conv_layers.1.layer_norm.weight": torch.ones(12)}), "norm: layer"),
        (lambda s: s.update({"feature_extractor.conv_layers.1.fc.weight": torch.ones(12)}), "not part"),
        (lambda s: s.update({"t.feature_extractor.conv_layers.0.conv.weight": torch.ones(1)}), "more than once"),
        (lambda s: s.clear(), "not a WavLM checkpoint"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: object, said: str) -> None:
    state = {f"feature_extractor.{name}": tensor.clone() for name, tensor in front().state_dict().items()}
    change(state)
    path = tmp_path / "wavlm.pt"
    torch.save(state, path)
    block = front(1)
    before = {name: tensor.clone() for name, tensor in block.state_dict().items()}
    with pytest.raises(WavLMError, match=said):
        load_wavlm(block, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in block.state_dict().items())


class Spy:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x04."])
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    for name in ("x.pt", "x.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WavLMError, match=name):
            read_wavlm(tmp_path / name)
    with pytest.raises(WavLMError, match=r"none\.pt"):
        read_wavlm(tmp_path / "none.pt")
    left = tmp_path / "was-here"
    torch.save({"x": Spy(left)}, tmp_path / "spy.pt")
    with pytest.raises(WavLMError, match=r"holds a io\.open, and only tensors"):
        read_wavlm(tmp_path / "spy.pt")
    torch.save({"x": Spy(left)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(WavLMError, match=r"holds a io\.open, and only tensors"):
        read_wavlm(tmp_path / "old.pt")
    assert not left.exists()


def test_no_file_asks_for_more_than_it_has(tmp_path: Path) -> None:
    name = "feature_extractor.conv_layers.0.conv.weight"
    torch.save({name: torch.zeros(1).expand(1 << 16, 1, 1 << 12)}, tmp_path / "wide.pt")
    with pytest.raises(WavLMError, match="claims 268435456 numbers"):
        read_wavlm(tmp_path / "wide.pt")
    torch.save({name: torch.zeros(1).expand(1 << 20, 1, 1 << 20)}, tmp_path / "wider.pt")
    with pytest.raises(WavLMError, match="1048576 x 1 x 1048576, more than"):
        read_wavlm(tmp_path / "wider.pt")
    torch.save({name: torch.zeros(3).to_sparse()}, tmp_path / "sparse.pt")
    with pytest.raises(WavLMError, match=r"sparse\.pt"):
        read_wavlm(tmp_path / "sparse.pt")
    torch.save({name: torch.zeros(1 << 20)}, tmp_path / "plain.pt")
    packed = zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pt") as source, packed as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(WavLMError, match="is compressed"):
        read_wavlm(tmp_path / "bomb.pt")
    # Both of PyTorch's own forms are read.
    state = {f"feature_extractor.{name}": tensor for name, tensor in front().state_dict().items()}
    for zipped in (True, False):
        torch.save(state, tmp_path / "whole.bin", _use_new_zipfile_serialization=zipped)
        assert read_wavlm(tmp_path / "whole.bin").keys() == front().state_dict().keys()


def recordings() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [0.2 * torch.randn(1, 1, count, generator=generator) for count in (16, 40_003, 16_000)]


def test_statistics_are_those_of_all_frames() -> None:
    block = front().double()
    heard = [x.double() for x in recordings()]
    weight = block.conv_layers[0].conv.weight
    # Frames of whole quanta: what is left over at a recording's end never reaches the norm.
    raw = torch.cat([functional.conv1d(x[..., : x.shape[-1] // 5 * 5], weight, stride=5) for x in heard], dim=-1)[0]
    found = measure_statistics(block, heard)
    assert found.frames == raw.shape[-1]
    torch.testing.assert_close(found.mean, raw.mean(dim=-1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.variance, raw.var(dim=-1, correction=0), rtol=1e-10, atol=1e-12)


def test_frozen_on_its_own_recording_is_the_utterance() -> None:
    block, x = front().double(), recordings()[2].double()
    utterance = front(norm="utterance").double()
    frozen = freeze(block, measure_statistics(block, [x]))
    torch.testing.assert_close(frozen(x), utterance(x), rtol=1e-9, atol=1e-9)


def test_cost_is_the_cosine_over_time() -> None:
    block = front()
    x = torch.cat([0.02 * torch.randn(1, 1, 16000), 0.3 * torch.randn(1, 1, 40000)], dim=-1)
    elsewhere = measure_statistics(block, recordings())
    cost = norm_cost(block, x, elsewhere, every=0.5)
    utterance = front(norm="utterance")(x)
    for found, causal in ((cost.cumulative, block), (cost.frozen, freeze(block, elsewhere))):
        assert found is not None
        alike = functional.cosine_similarity(causal(x), utterance, dim=1)[0]
        want = [float(part.mean()) for part in alike.split(100)]
        assert found == pytest.approx(want, abs=1e-5)
    assert cost.seconds == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert cost.cumulative[-1] > max(cost.cumulative[:2])
    assert norm_cost(block, x).frozen is None


def test_layer_norms_have_nothing_to_freeze() -> None:
    with pytest.raises(WavLMError, match="nothing to freeze"):
        measure_statistics(front(norm="layer"), recordings())
    with pytest.raises(WavLMError, match="nothing to measure"):
        measure_statistics(front(), [])


@pytest.mark.usefixtures("read_cache")
def test_commands(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'astrape[remote]'")
    weights, speech, frozen = tmp_path / "w.safetensors", tmp_path / "speech.wav", tmp_path / "frozen.safetensors"
    save_file({f"feature_extractor.{name}": tensor for name, tensor in front().state_dict().items()}, weights)
    soundfile.write(speech, 0.1 * torch.randn(44100, 2).numpy(), 22050)
    done = CliRunner().invoke(wavlm, ["calibrate", str(weights), str(speech), "-o", str(frozen), "--json"])
    assert done.exit_code == 0, done.output
    # 2 s at 3200 Hz, without the frame whose window begins before the recording.
    assert json.loads(done.output)["frames"] == 6399
    block = front(1, norm="frozen")
    load_wavlm(block, frozen)
    assert float(block.conv_layers[0].layer_norm.variance.std()) > 0
    done = CliRunner().invoke(wavlm, ["cost", str(weights), str(speech), "--frozen", str(speech), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)
    assert [row["until"] for row in rows] == [1.0, 2.0]
    assert all(row["frozen"] == pytest.approx(1, abs=1e-6) and row["cumulative"] < 1 for row in rows)
    # And in a store: the same bytes.
    there = Place(f"memory://{uuid4().hex}")
    for path in (weights, speech):
        (there / path.name).write(path)
    words = ["calibrate", str(there / weights.name), str(there / speech.name), "-o", str(there / "frozen.safetensors")]
    done = CliRunner().invoke(wavlm, words)
    assert done.exit_code == 0, done.output
    assert (there / "frozen.safetensors").read() == frozen.read_bytes()
    words = [
        "cost",
        str(there / weights.name),
        str(there / speech.name),
        "--frozen",
        str(there / speech.name),
        "--json",
    ]
    assert json.loads(CliRunner().invoke(wavlm, words).output) == rows
    lost = CliRunner().invoke(cli, ["wavlm", "cost", str(there / "lost.safetensors"), str(speech)])
    assert lost.exit_code == 1
    assert lost.stderr.count("\n") == 1
    assert "lost.safetensors: there is no such" in lost.stderr
    assert "cosine" in CliRunner().invoke(wavlm, ["cost", str(weights), str(speech)]).output
