"""Checkpoints that are damaged, mistaken or malicious: one clear line each, and nothing in them runs."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from astrape.voice.checkpoint.archive import CheckpointError, read_checkpoint
from astrape.voice.checkpoint.importing import import_checkpoints, save_imported
from tests.voice.checkpoint.original_files import (
    SMALL_DECODER,
    SMALL_ENCODER,
    decoder_file,
    encoder_file,
    random_decoder,
    random_encoder,
)

ENCODER = random_encoder(0, **SMALL_ENCODER, expand=5, speakers=3)
DECODER = random_decoder(0, **SMALL_DECODER, nsf=True)

Change = Callable[[dict[str, Tensor]], Any]


def refused(path: Path, part: str = "encoder") -> str:
    """The one line that importing a file ends with."""
    with pytest.raises(CheckpointError) as caught:
        import_checkpoints(**{part: path}, **({"from_features": True} if part == "encoder" else {}))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < 1200
    return message.removeprefix(f"{path}: ")


def changed(folder: Path, change: Change, part: str = "encoder", **config: Any) -> Path:
    """A small network's file with other tensors or settings."""
    net = ENCODER if part == "encoder" else DECODER
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    change(state)
    write, key = (encoder_file, "config") if part == "encoder" else (decoder_file, "decoder_config")
    settings = {name: value for name, value in (net.s.config() | config).items() if value is not ...}
    return write(folder / f"{part}.pt", net, state_dict=state, **{key: settings})


def nothing(state: dict[str, Tensor]) -> None:
    """No change."""


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


class Gadget:
    """An object whose unpickling runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_named_and_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    file = saved(tmp_path / "x.pt", {"config": {}, "state_dict": {}, "metrics": Gadget(mark)})
    assert "mkdir" in refused(file)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"not a checkpoint" * 99, b"\x80\x04N."])
def test_other_bytes(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    assert "is not a checkpoint of PyTorch" in refused(file)


def test_other_archives_and_places(tmp_path: Path) -> None:
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "b")
    assert "no data.pkl" in refused(file)
    assert "not a regular file" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "absent.pt")
    torch.save({"state_dict": {}}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "before PyTorch 1.6" in refused(tmp_path / "old.pt")
    good = encoder_file(tmp_path / "good.pt", ENCODER)
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert "compressed" in refused(packed)


def test_a_file_cut_short_anywhere(tmp_path: Path) -> None:
    whole = encoder_file(tmp_path / "x.pt", ENCODER).read_bytes()
    file = tmp_path / "cut.pt"
    for part in (0.01, 0.3, 0.7, 0.99):
        file.write_bytes(whole[: int(part * len(whole))])
        assert "cut short" in refused(file)
    file.write_bytes(whole[:-1])
    assert refused(file)


def test_wrong_dicts(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    state = ENCODER.state_dict()
    assert "a list and not a dict" in refused(saved(file, [1, 2]))
    assert "no 'state_dict'" in refused(saved(file, {"weights": 1}))
    assert "give it as --decoder" in refused(saved(file, {"decoder_config": {}, "state_dict": {}}))
    assert "give it as --encoder" in refused(saved(file, {"config": {}, "state_dict": {}}), "decoder")
    assert "'config' is a str" in refused(saved(file, {"config": "x", "state_dict": state}))
    assert "'state_dict' is a list" in refused(saved(file, {"config": {}, "state_dict": [1]}))
    assert "input_conv.weight is missing" in refused(saved(file, {"config": {}, "state_dict": {}}))
    assert "has a int for a name" in refused(saved(file, {"config": {}, "state_dict": {1: torch.zeros(1)}}))
    assert "input_conv.weight is a str" in refused(
        saved(file, {"config": {}, "state_dict": {"input_conv.weight": "x"}})
    )


def test_cycles(tmp_path: Path) -> None:
    config: dict[str, Any] = dict(ENCODER.s.config())
    state: dict[str, Any] = dict(ENCODER.state_dict())
    levels: list[Any] = []
    levels.append(levels)
    config["me"] = config
    fine = saved(tmp_path / "x.pt", {"config": config, "state_dict": state})
    assert import_checkpoints(fine, from_features=True).graph
    config["q2d2_levels"] = levels
    assert "q2d2_levels must be whole numbers" in refused(saved(fine, {"config": config, "state_dict": state}))
    state["me"] = state
    assert "me is a dict" in refused(saved(fine, {"config": config, "state_dict": state}))


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(1).expand(10**6, 10**6), "more than"),
        (torch.zeros(1).expand(12, 10, 5), "claims 600 numbers"),
        (torch.zeros(12, 10, 5).to_sparse(), "not a dense tensor"),
        (torch.zeros(12, 10, 5, device="meta"), "not a dense tensor"),
        (torch.zeros(12, 10, 5, dtype=torch.int64), "not of real numbers: input_conv.weight"),
        (torch.zeros(12, 10, 5, dtype=torch.complex64), "not of real numbers: input_conv.weight"),
        (torch.full((12, 10, 5), float("nan")), "not finite or not of real numbers: input_conv.weight"),
        (torch.full((12, 10, 5), float("inf")), "not finite or not of real numbers: input_conv.weight"),
        (torch.full((12, 10, 5), 1e300, dtype=torch.float64), "not finite"),
        (torch.zeros(12, 10, 0), "'input_conv.weight' is (12, 10, 0) and not (12, 10, 5)"),
        (torch.zeros(13, 10, 5), "'input_conv.weight' is (13, 10, 5) and not (12, 10, 5)"),
        (torch.zeros(()), "'input_conv.weight' is () and not (12, 10, 5)"),
    ],
)
def test_tensors_that_are_none(tmp_path: Path, tensor: Tensor, reason: str) -> None:
    file = changed(tmp_path, lambda state: state.update({"input_conv.weight": tensor}))
    assert reason in refused(file)


def deletes(*names: str) -> Change:
    return lambda state: [state.pop(name) for name in names]


def gives(name: str, *shape: int) -> Change:
    return lambda state: state.update({name: torch.zeros(shape)})


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_each_missing_tensor_is_named(tmp_path: Path, part: str) -> None:
    net = ENCODER if part == "encoder" else DECODER
    optional = ("forecast_", "ssl_", "speaker_", "input_scale", "istft_head.istft.window", "wavlm_adapter.down.bias")
    for name in net.state_dict():
        if not name.startswith(optional):
            assert name in refused(changed(tmp_path, deletes(name), part), part)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_each_misshapen_tensor_is_named(tmp_path: Path, part: str) -> None:
    """Along each dimension in turn, whatever sizes the file's own tensors would have it be."""
    net = ENCODER if part == "encoder" else DECODER
    for name, tensor in net.state_dict().items():
        if name.startswith(("forecast_", "ssl_", "speaker_")):
            continue
        axis = len(name) % max(1, tensor.ndim)
        shape = [size + (index == axis) for index, size in enumerate(tensor.shape)] or [2]
        assert name in refused(changed(tmp_path, gives(name, *shape), part), part)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("size", [0, 1 << 14])
def test_networks_of_no_size_and_of_a_huge_one(tmp_path: Path, part: str, size: int) -> None:
    """A few large tensors make every matrix between them larger than anything that is built."""

    def resize(state: dict[str, Tensor]) -> None:
        for name, tensor in state.items():
            large = size == 0 or tensor.ndim == 1 or name.startswith(("proj_in", "pw_in"))
            if large and "window" not in name:
                state[name] = torch.zeros([size] + [0 if size == 0 else 1] * (tensor.ndim - 1))

    assert refused(changed(tmp_path, resize, part), part)


def test_unknown_tensors_and_whole_layers(tmp_path: Path) -> None:
    message = refused(changed(tmp_path, gives("blocks.1.extra.weight", 3)))
    assert message == "does not fit: 'blocks.1.extra.weight' is unknown"
    last = [name for name in ENCODER.state_dict() if name.startswith("trans_layers.1.")]
    message = refused(changed(tmp_path, deletes(*last)))
    assert message.startswith("does not fit: 'trans_layers.1.")
    assert f"and {len(last) - 8} more" in message
    assert "say 1 of trans_layers" in refused(changed(tmp_path, nothing, n_layers=1))
    assert "say 5 of blocks" not in refused(changed(tmp_path, nothing, stem_dilations=(1, 2, 3, 4, 5)))
    assert "more than 256 of blocks" in refused(changed(tmp_path, gives("blocks.99999999999.norm.weight", 3)))
    message = refused(changed(tmp_path, gives("\x1b[2J" + "x" * 9999, 3)))
    assert "\x1b" not in message


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"n_heads": 3}, "heads must divide"),
        ({"n_heads": 0}, "heads must be"),
        ({"n_heads": "many"}, "n_heads must be a whole number, not 'many'"),
        ({"n_heads": 10**60}, "n_heads must be a whole number, not a huge one"),
        ({"n_heads": True}, "n_heads must be a whole number"),
        ({"window": float("nan")}, "window must be a whole number"),
        ({"window": 10**6}, "window must be"),
        ({"q2d2_levels": (9, 9)}, "q2d2_levels are 2 numbers, and by its tensors there are 6"),
        ({"q2d2_levels": (8,) * 6}, "odd"),
        ({"q2d2_levels": (9, 9, 9, 9, 9, None)}, "q2d2_levels must be whole numbers"),
        ({"q2d2_grid": "square"}, "q2d2_grid must be one of hexagonal, rectangular, rhombic, not 'square'"),
        ({"q2d2_grid": "hexagon", "q2d2_levels": (9, 8, 9, 9, 9, 9)}, "two numbers of levels in a pair"),
        ({"q2d2_l2_norm": True}, "q2d2_l2_norm"),
        ({"mamba_layers": 2}, "mamba_layers"),
        ({"stem_dilations": (1, 0, 1)}, "dilation must be"),
    ],
)
def test_settings_of_an_encoder(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    assert reason in refused(changed(tmp_path, nothing, **config))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"hop_length": 98}, "make no 44100 Hz"),
        ({"upsample_factor": 18}, "make no 44100 Hz"),
        ({"sample_rate": 48001}, "make no 48001 Hz"),
        ({"istft_padding": "center"}, "istft_padding"),
        ({"prenet_window": 0}, "window must be"),
        ({"nsf_harmonics": 10**6}, "harmonics must be"),
        ({"convnet_dilations": (1,)}, "say 1 of convnet"),
    ],
)
def test_settings_of_a_decoder(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    assert reason in refused(changed(tmp_path, nothing, "decoder", **config), "decoder")


def test_a_window_that_is_no_hann(tmp_path: Path) -> None:
    file = changed(tmp_path, lambda state: state.update({"istft_head.istft.window": torch.ones(1512)}), "decoder")
    assert "is not a Hann window" in refused(file, "decoder")


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    encoder = encoder_file(tmp_path / "e.pt", ENCODER)
    decoder = decoder_file(tmp_path / "d.pt", random_decoder(1, **(SMALL_DECODER | {"content": 21})))
    with pytest.raises(CheckpointError, match="content of 21 channels, and the encoder gives 20"):
        import_checkpoints(encoder, decoder)
    with pytest.raises(CheckpointError, match="nothing to import"):
        import_checkpoints()
    with pytest.raises(CheckpointError, match="only a decoder"):
        import_checkpoints(decoder=decoder, from_features=True)


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    made = import_checkpoints(decoder=decoder_file(tmp_path / "d.pt", DECODER))
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="file"):
        save_imported(made, tmp_path / "file")
    folder = tmp_path / "out"
    save_imported(made, folder)
    before = (folder / "recipe.yaml").read_bytes()
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        save_imported(made, folder)
    assert (folder / "recipe.yaml").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["recipe.yaml", "weights.safetensors"]


WHOLE = io.BytesIO()
torch.save({"config": ENCODER.s.config(), "state_dict": ENCODER.state_dict()}, WHOLE)


@settings(max_examples=150, deadline=None)
@given(
    wounds=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=6)), max_size=4),
    at=st.sampled_from(["pickle", "directory", "anywhere"]),
)
def test_damaged_bytes_never_end_in_anything_but_a_clear_line(wounds: list[tuple[float, bytes]], at: str) -> None:
    content = bytearray(WHOLE.getvalue())
    begin, end = {"pickle": (0, 12000), "directory": (-9000, 0), "anywhere": (0, 0)}[at]
    low, high = begin % len(content), (end or len(content))
    for place, wound in wounds:
        start = low + int(place * (high - low))
        content[start : start + len(wound)] = wound
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.pt"
        file.write_bytes(bytes(content))
        message = "read"
        try:
            read_checkpoint(file, "encoder")
        except CheckpointError as error:
            message = str(error)
    assert message.isprintable()
