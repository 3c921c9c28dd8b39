"""The command ``astrape import-checkpoint``, from its arguments to a recipe that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import astrape
from astrape.cli import main
from tests.voice.checkpoint.original_files import (
    SMALL_DECODER,
    SMALL_ENCODER,
    decoder_file,
    encoder_file,
    random_decoder,
    random_encoder,
)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["import-checkpoint", *map(str, args)])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    encoder = random_encoder(0, **SMALL_ENCODER, speakers=3)
    return (
        encoder_file(tmp_path / "encoder.pt", encoder),
        decoder_file(tmp_path / "decoder.pt", random_decoder(0, **SMALL_DECODER)),
    )


def test_both_from_a_microphone(tmp_path: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--encoder", files[0], "--decoder", files[1], "-o", tmp_path / "new" / "out")
    assert code == 0
    assert "weights are random" in err
    assert len(err.splitlines()) == 1
    assert "forecast_head_1, forecast_head_2, speaker_classifier, ssl_heads" in out
    assert "outputs: wav 1 @ 44100, content 20 @ 25, codes 1 @ 25" in out
    assert "assumed" not in out
    folder = tmp_path / "new" / "out"
    graph = astrape.load(folder / "recipe.yaml", weights=folder / "weights.safetensors")
    y = graph(torch.randn(1, 1, 44100), speaker=torch.randn(1, 6))
    assert bool(y["wav"].isfinite().all())
    # 3 ms of resampling, 2.5 of WavLM's windows, 15 of the adapter, 630 samples of overlap, 40 of framing.
    assert 1000 * float(graph.host_latency) == pytest.approx(3 + 2.5 + 15 + 630 / 44.1 + 40, abs=0.03)
    assert str(graph.report()).count("block_") == 3


def test_as_json_and_from_features(
    tmp_path: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "--encoder", files[0], "--from-features", "-o", tmp_path / "out", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["inputs"] == {"wavlm": {"rate": "200", "channels": 16}}
    assert list(told["outputs"]) == ["content", "codes"]
    assert told["assumed"] == {}
    assert len(told["skipped"][str(files[0])]) == 2 * (2 + 3 + 2)
    assert Path(told["weights"]).is_file()


def test_what_the_file_does_not_say_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = SMALL_DECODER | {"heads": 8, "window": 64}
    net = random_decoder(1, **sizes)
    file = decoder_file(tmp_path / "d.pt", net, decoder_config={"n-fft": 1512, "hop_length": None})
    code, out, _ = run(capsys, "--decoder", file, "-o", tmp_path / "out")
    assert code == 0
    assert "assumed, since the file does not say: prenet_heads 8, prenet_window 64, convnet_dilations [1, 2]" in out
    graph = astrape.load(tmp_path / "out" / "recipe.yaml", weights=tmp_path / "out" / "weights.safetensors")
    content, speaker = torch.randn(1, 20, 9), torch.randn(1, 6)
    with torch.no_grad():
        want, got = net(content, speaker), graph(content, speaker=speaker)
    torch.testing.assert_close(got[..., 630:], want[..., :-630], rtol=0, atol=1e-4)


def test_settings_under_other_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = random_encoder(2, **(SMALL_ENCODER | {"levels": (7, 7, 5, 5), "latent": 6, "grid": "rectangular"}))
    config = {"n-heads": "2", "transformer_window": 8.0, "rope": True, "stem_dilations": [1, 2, 3]}
    file = encoder_file(tmp_path / "e.pt", net, config=config | {"q2d2-levels": "7,7,5,5", "grid": "rect"})
    code, out, _ = run(capsys, "--encoder", file, "-o", tmp_path / "out", "--from-features")
    assert code == 0
    assert "skip_dilations [16, 32]" in out
    graph = astrape.load(tmp_path / "out" / "recipe.yaml", weights=tmp_path / "out" / "weights.safetensors")
    x = torch.randn(1, 16, 160)
    with torch.no_grad():
        want, codes = net.double()(x.double())
        got = graph.double()(x.double())
    assert torch.equal(got["codes"].long(), codes)
    torch.testing.assert_close(got["content"], want, rtol=0, atol=1e-9)


def test_names_of_parallel_and_compiled_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = random_decoder(3, **SMALL_DECODER)
    state = {f"module._orig_mod.{name}": tensor for name, tensor in net.state_dict().items()}
    file = decoder_file(tmp_path / "d.pt", net, state_dict=state)
    assert run(capsys, "--decoder", file, "-o", tmp_path / "out")[0] == 0


def test_mistaken_commands(tmp_path: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for args, reason in (
        (["-o", tmp_path], "give --encoder FILE, --decoder FILE, or both"),
        (["--decoder", files[1], "--from-features", "-o", tmp_path], "go with --encoder"),
        (["--encoder", files[0], "--from-features", "--wavlm", files[0], "-o", tmp_path], "takes none"),
        (["--encoder", files[1], "-o", tmp_path], "give it as --decoder"),
        (["--encoder", tmp_path / "none.pt", "-o", tmp_path], "No such file"),
        (["--encoder", files[0], "--wavlm", files[1], "-o", tmp_path], "not a WavLM"),
        (["--decoder", files[1], "-o", files[0]], "File exists"),
        (["--decoder", files[1]], "Missing option"),
    ):
        code, out, err = run(capsys, *args)
        assert code != 0
        assert out == ""
        assert reason in err
        assert len(err.splitlines()) == 1
        assert not (tmp_path / "recipe.yaml").exists()
