"""``train-encoder`` and ``train-decoder``: the user's lines, every flag in its place, and refusals by name."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

import astrape
from astrape.cli import cli
from astrape.commands import train_decoder as decoding
from astrape.commands import train_encoder as encoding
from astrape.training.architecture import changed
from astrape.training.options import Options
from astrape.training.settings import apply
from tests.training import grounds

ENCODER_LINE = """
  --device mps --epochs 60 --steps-per-epoch 2000 --batch-size 2
  --n-layers 8 --trans-dim 512 --n-heads 8 --ffn-dim 1024 --window 256
  --rope --swiglu --stem-block-type depthwise
  --q2d2-grid rhombic --q2d2-levels 9,9,9,9,9,9 --q2d2-dim 6
  --wavlm-frontend --wavlm-dir wavlm_L4_200hz --wavlm-rate 200
  --content-cos-weight 1.0 --content-l1-weight 0.5 --delta-weight 0.04
  --forecast-weight 0.05 --voiced-boost 1.5 --grl-weight 0.05
  --lr 1e-4 --mel-frames 800 --eval-mel-frames 1200 --num-workers 6
  --save-every-epoch --out-dir checkpoints/striding_8l_200hz --run-name striding_8l_200hz
"""
"""The command line of the user's description."""

DECODER_LINE = """
  --device mps --epochs 60 --warmup-epochs 10 --num-workers 6
  --wavlm-dir wavlm_L4_200hz
  --encoder-ckpt /Volumes/UNTITLED/btrv5_checkpoints/striding_8l_200hz/striding_8l_200hz.best.pt
"""


def given(command: Any, module: Any, line: str, monkeypatch: pytest.MonkeyPatch) -> Options:
    """The options that a command line comes to; nothing is trained."""
    seen: list[Options] = []

    class Enough(Exception):
        pass

    def catch(options: Options, say: Any) -> None:
        seen.append(options)
        raise Enough

    monkeypatch.setattr("astrape.training.run.train", catch)
    CliRunner().invoke(command, shlex.split(line))
    assert module is not None
    assert len(seen) == 1
    return seen[0]


def test_the_user_s_encoder_line_is_what_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    options = given(encoding.train_encoder, encoding, ENCODER_LINE, monkeypatch)
    recipe = astrape.Recipe.load("astrape-vc")
    same, said = changed(recipe, "encoder", options.changes)
    assert same is recipe
    assert said == []
    assert {change.flag for change in options.changes} == {
        "--n-layers", "--trans-dim", "--n-heads", "--ffn-dim", "--window", "--q2d2-grid", "--q2d2-levels"
    }  # fmt: skip
    section, said = apply(recipe.training, "encoder", options.settings)
    assert section == recipe.training
    assert said == []
    assert (options.device, options.workers, options.save_every_epoch) == ("mps", 6, True)
    assert (options.folders["wavlm"], options.features_rate, options.features_block) == (
        "wavlm_L4_200hz",
        200,
        "wavlm_cnn",
    )
    assert (options.out_dir, options.run_name) == (Path("checkpoints/striding_8l_200hz"), "striding_8l_200hz")


def test_the_user_s_decoder_line_is_what_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    options = given(decoding.train_decoder, decoding, DECODER_LINE, monkeypatch)
    assert options.settings == ()
    assert (options.epochs, options.warmup_epochs, options.workers) == (60, 10, 6)
    assert options.encoder is not None
    assert options.encoder.name == "striding_8l_200hz.best.pt"


SHORT = (
    "--batch-size 2 --steps-per-epoch 3 --mel-frames 160 --eval-mel-frames 160 --unseen 0.25 --log-every 1 "
    "--num-workers 1 --save-every-epoch"
)


def ask(*args: str) -> Result:
    root = grounds.ground()
    places = ["--data", str(root / "vctk"), "--cache", str(root / "cache")]
    return CliRunner().invoke(cli, [*args, *places])


def test_both_lines_on_the_small_twin_and_conversion_with_the_result(tmp_path: Path) -> None:
    """The user's lines with the small twin's sizes, from caches to a converted file."""
    sizes = (
        "--n-layers 1 --trans-dim 16 --n-heads 2 --ffn-dim 24 --window 16 --rope --swiglu --stem-block-type depthwise "
        "--q2d2-grid rhombic --q2d2-levels 9,9,9,9,9,9 --q2d2-dim 6 --wavlm-frontend --wavlm-dir wavlm_L4_200hz "
        "--wavlm-rate 200 --content-cos-weight 1.0 --content-l1-weight 0.5 --delta-weight 0.04 --forecast-weight 0.05 "
        "--voiced-boost 1.5 --grl-weight 0.05 --lr 1e-4 --q2d2-gumbel-start 1.0 --q2d2-gumbel-end 0.1"
    )
    folder = tmp_path / "striding"
    line = f"--recipe astrape-vc-small --device mps --epochs 1 {sizes} {SHORT} --out-dir {folder} --run-name striding"
    done = ask("train-encoder", *shlex.split(line), "--json")
    assert done.exit_code == 0, done.output
    assert "notice: device 'mps' is absent here: running on the CPU" in done.stderr
    assert "--n-layers: transformer.layers is 1 and not 2" in done.stderr
    told = json.loads(done.stdout)
    assert told["finished"]
    assert told["step"] == 3
    assert (folder / "striding.epoch-000.pt").is_file()
    decoder = (
        f"--device mps --epochs 2 --warmup-epochs 1 --wavlm-dir wavlm_L4_200hz --encoder-ckpt {folder}/striding.best.pt"
    )
    line = f"{decoder} {SHORT} --disc-window 4096 --out-dir {tmp_path}/decoder --run-name decoder"
    done = ask("train-decoder", *shlex.split(line))
    assert done.exit_code == 0, done.output
    assert "phase reconstruction: stft 1, mel 1" in done.output
    assert "phase adversarial: stft 1, mel 1, adversarial 1, matching 2" in done.output
    assert re.search(r"decoder.best.safetensors: mel_distance \d", done.output)
    _converts(tmp_path, tmp_path / "decoder" / "decoder")


def _converts(folder: Path, run: Path) -> None:
    """The decoder's weights hold the encoder, of the changed size, and convert."""
    voice = grounds.ground() / "vctk" / "wav48_silence_trimmed" / "p226"
    source, target = (voice / f"p226_00{number}_mic1.flac" for number in (1, 2))
    samples, rate = soundfile.read(target)
    soundfile.write(folder / "target.wav", np.tile(samples, 3), rate)
    line = f"{source} --target {folder}/target.wav --recipe {run}.recipe.yaml --weights {run}.best.safetensors"
    done = CliRunner().invoke(cli, ["convert", *shlex.split(line), "-o", str(folder / "out.wav")])
    assert done.exit_code == 0, done.output
    assert "random" not in done.output
    assert soundfile.info(folder / "out.wav").frames == soundfile.info(source).frames
    layers = [
        node.params["layers"]
        for node in astrape.Recipe.load(Path(f"{run}.recipe.yaml")).nodes
        if "layers" in node.params
    ]
    assert layers == [5, 1, 2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--no-rope", "--no-rope: the block 'transformer' has rotary positions"),
        ("--no-swiglu", "--no-swiglu: the block 'transformer' is gated"),
        ("--stem-block-type standard", "--stem-block-type standard: the stem is made of depthwise blocks"),
        ("--q2d2-levels 9,9,9", "--q2d2-levels 9,9,9: axes are paired"),
        ("--q2d2-levels 9,x", "'9,x' is not a list of whole numbers"),
        ("--q2d2-levels 8,8", "levels[0] must be odd on a rhombic grid"),
        ("--n-heads 3", "heads must divide"),
        ("--conv-dim 12 --ssl-weight 1", "--ssl-weight: training.encoder of this recipe has no losses.ssl_0.weight"),
        ("--wavlm-rate 50", "--wavlm-rate 50: 'features' of 'astrape-vc-small' runs at 200 Hz"),
        ("--wavlm-dir content", "is a cache of content, and --wavlm-dir names one of wavlm"),
        ("--wavlm-dir nowhere", "nowhere: holds no cache"),
        ("--lr 100", "training.encoder.optimiser.lr is 100"),
        ("--q2d2-gumbel-end 0.5", "--q2d2-gumbel-end 0.5: give --q2d2-gumbel-start too"),
        ("--teacher nobody --ssl-weight 0.1", "no losses.ssl_0.weight"),
        ("--unseen 1", "1"),
        ("--device quantum", "--device quantum"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(line: str, said: str, tmp_path: Path) -> None:
    flags = ["--recipe", "astrape-vc-small", "--out-dir", str(tmp_path / "run"), *shlex.split(line)]
    done = ask("train-encoder", *flags)
    assert done.exit_code != 0
    last = done.stderr.strip().splitlines()[-1]
    assert said in last
    assert "fault in astrape" not in last
    assert not list(tmp_path.rglob("*.pt"))


def test_help_has_examples() -> None:
    for name in ("train-encoder", "train-decoder"):
        done = CliRunner().invoke(cli, [name, "--help"])
        assert done.exit_code == 0
        assert f"astrape {name}" in done.output
