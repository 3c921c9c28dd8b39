"""Wrong use of commands, sessions and the contract check: what is said names what the user wrote, and a hint."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

import astrape
from astrape.blocks import Stream, StreamBlock
from astrape.cli import main
from astrape.errors import ContractError, StreamError
from astrape.testing import check_block


@pytest.mark.parametrize(("command", "option"), [("report", "--plot"), ("graph", "-o")])
def test_a_picture_of_an_unknown_kind_is_refused_by_its_ending_and_not_by_a_temporary_name(
    command, option, tmp_path, capsys
):
    with pytest.raises(SystemExit) as left:
        main([command, "echo", option, str(tmp_path / "x.xyz")])
    said = capsys.readouterr().err
    assert left.value.code == 1
    assert "not in '.xyz'" in said
    assert ".x.xyz." not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        "train-speaker --corpus corpus -o x.safetensors --work",
        "train-default --work",
        "train-tiny --work",
        "cache --what content --teacher-dir",
        "train-encoder --teacher-dir",
        "export echo -o",
        "report echo --plot",
        "graph echo -o",
    ],
)
def test_a_url_where_a_path_of_this_machine_is_needed_is_refused_and_makes_no_folder_called_after_it(
    words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main([*words.split(), "s3://bucket/x.png"])
    said = capsys.readouterr().err
    option = words.split()[-1]
    assert left.value.code == 1
    assert said.count("\n") == 1
    assert f"{option} s3://bucket/x.png: must be on this machine; hint: give a path, not a URL" in said
    assert list(tmp_path.iterdir()) == []


def test_a_recording_of_live_is_of_this_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["live", "--record", ",s3://bucket/out.wav"])
    assert left.value.code == 1
    assert "--record s3://bucket/out.wav: must be on this machine; hint: give" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1.5, True, "two", None, 0, -1])
def test_a_batch_size_that_is_no_count_is_refused(size):
    with pytest.raises(StreamError, match="batch_size must be a whole number of at least 1"):
        astrape.load("echo").stream(batch_size=size)


class Tremolo(StreamBlock):
    """y[n] = x[n] * (1 + sin(2 pi n / 100) / 2), by a clock in the state."""

    receptive_field = None

    def init_state(self, batch_size, device=None, dtype=None):
        return torch.zeros(batch_size, dtype=torch.int64, device=device)

    def step(self, x, state, controls):
        phase = (state[:, None] + torch.arange(x.shape[-1], device=x.device)) % 100
        depth = 1 + torch.sin(2 * torch.pi * phase.to(x.dtype) / 100) / 2
        return x * depth[:, None], (state + x.shape[-1]) % 100


class ShortTremolo(Tremolo):
    receptive_field = Fraction(1, 1000)


def test_a_clock_in_the_state_is_a_memory_without_bound_and_the_check_says_so():
    check_block(Tremolo(Stream(1000, 2)))
    with pytest.raises(ContractError, match=r"long run.*declare None"):
        check_block(ShortTremolo(Stream(1000, 2)))
