"""Search for MioCodec's weights, their layouts, and the error of every wrong file."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

import tests.training.miocodec_tensors as tensors
from astrape.training.errors import TeacherError
from astrape.training.teachers import open_teacher
from astrape.training.teachers.miocodec import weights as weights_module
from astrape.training.teachers.miocodec.config import read_config

pytest.importorskip("transformers")

AUDIO = torch.from_numpy(0.1 * np.random.default_rng(0).standard_normal(9000).astype(np.float32)).reshape(1, 1, -1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    (folder / "miocodec").mkdir()
    (folder / "wavlm-base-plus").mkdir()
    (folder / "miocodec" / "config.yaml").write_text(yaml.safe_dump(tensors.config_file(tensors.SMALL)))
    save_file(tensors.drawn(tensors.codec_tensors(tensors.SMALL), 0), folder / "miocodec" / "model.safetensors")
    heard = tensors.drawn(tensors.wavlm_tensors(tensors.SMALL), 1)
    torch.save(heard, folder / "wavlm-base-plus" / "wavlm_base_plus.pth")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, on a machine whose caches are empty."""
    for name in ("HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "no-cache"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("ASTRAPE_TEACHERS", raising=False)
    return Path(shutil.copytree(original, tmp_path / "teachers"))


def content(folder: Path | None, **params: Any) -> Tensor:
    return open_teacher("miocodec", **({} if folder is None else {"folder": folder}), **params).content(AUDIO)


@pytest.fixture(scope="module")
def expected(original: Path) -> Tensor:
    return content(original)


def respelled(heard: dict[str, Tensor], norm: tuple[str, str]) -> dict[str, Tensor]:
    """Torchaudio's names as those of Hugging Face."""
    found: dict[str, Tensor] = {"masked_spec_embed": torch.zeros(32)}
    for name, value in heard.items():
        name = name.replace("encoder.transformer.", "encoder.").replace(
            "encoder.feature_projection", "feature_projection"
        )
        name = name.replace("conv.weight_g", f"conv.{norm[0]}").replace("conv.weight_v", f"conv.{norm[1]}")
        if ".attention.attention.in_proj_" in name:
            at, _, part = name.partition("attention.in_proj_")
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                found[f"{at}{letter}_proj.{part}"] = third.contiguous()
        else:
            found[name.replace("attention.attention.", "attention.")] = value
    return found


CONFIG = {
    "model_type": "wavlm",
    "hidden_size": 32,
    "num_hidden_layers": 10,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_buckets": 32,
    "max_bucket_distance": 800,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
}
OLD, NEW = ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")


class TestLayouts:
    @pytest.mark.parametrize(("name", "norm"), [("pytorch_model.bin", OLD), ("model.safetensors", NEW)])
    def test_wavlm_of_hugging_face(self, folder: Path, expected: Tensor, name: str, norm: tuple[str, str]) -> None:
        place = folder / "wavlm-base-plus"
        state = respelled(torch.load(place / "wavlm_base_plus.pth"), norm)
        (place / "wavlm_base_plus.pth").unlink()
        (save_file if name.endswith("safetensors") else torch.save)(state, place / name)
        (place / "config.json").write_text(json.dumps(CONFIG))
        torch.testing.assert_close(content(folder), expected, rtol=0, atol=1e-6)

    def test_wavlm_inside_a_fine_tuned_model(self, folder: Path, expected: Tensor) -> None:
        place = folder / "wavlm-base-plus" / "wavlm_base_plus.pth"
        state = {f"wavlm.{name}": value for name, value in respelled(torch.load(place), OLD).items()}
        torch.save({"state_dict": state | {"lm_head.weight": torch.zeros(3, 32)}}, place)
        torch.testing.assert_close(content(folder), expected, rtol=0, atol=1e-6)

    def test_a_checkpoint_of_training_with_everything_in_it(self, folder: Path, expected: Tensor) -> None:
        """The state dict of the public model: WavLM, the decoder of features, the tables of resampler and window."""
        place = folder / "miocodec" / "model.safetensors"
        heard = torch.load(folder / "wavlm-base-plus" / "wavlm_base_plus.pth")
        shutil.rmtree(folder / "wavlm-base-plus")
        state = load_file(place) | {f"ssl_feature_extractor.model.{name}": value for name, value in heard.items()}
        state |= {
            "ssl_feature_extractor.resampler.kernel": torch.zeros(160, 1, 500),
            "istft_head.istft.window": torch.hann_window(392),
            "conv_upsample.weight": torch.zeros(32, 32, 2),
            "feature_decoder.norm.weight": torch.zeros(32),
        }
        save_file(state, place)
        assert torch.equal(content(folder), expected)

    def test_half_precision_is_widened(self, folder: Path, expected: Tensor) -> None:
        place = folder / "miocodec" / "model.safetensors"
        save_file({name: value.bfloat16() for name, value in load_file(place).items()}, place)
        found = open_teacher("miocodec", folder=folder)
        assert found.speaker(AUDIO).dtype == torch.float32
        assert found.content(AUDIO).shape == expected.shape


class TestPlaces:
    def test_by_the_environment_and_in_the_working_directory(
        self, folder: Path, expected: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ASTRAPE_TEACHERS", str(folder))
        assert torch.equal(content(None), expected)
        monkeypatch.delenv("ASTRAPE_TEACHERS")
        monkeypatch.chdir(folder.parent)
        assert torch.equal(content(None), expected)

    def test_the_codecs_own_folder_and_wavlm_elsewhere(self, folder: Path, expected: Tensor, tmp_path: Path) -> None:
        assert torch.equal(content(folder / "miocodec"), expected)
        elsewhere = shutil.move(folder / "wavlm-base-plus", tmp_path / "elsewhere")
        assert torch.equal(content(folder, wavlm=elsewhere), expected)
        assert torch.equal(content(folder, wavlm=Path(elsewhere) / "wavlm_base_plus.pth"), expected)

    def test_a_configuration_by_another_name(self, folder: Path, expected: Tensor) -> None:
        (folder / "miocodec" / "config.yaml").rename(folder / "miocodec" / "25hz_wave_44khz.yaml")
        assert torch.equal(content(folder), expected)

    def test_in_the_caches_of_hugging_face_and_torchaudio(
        self, folder: Path, expected: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        snapshot = tmp_path / "hf" / "hub" / "models--Aratako--MioCodec-25Hz-44.1kHz-v2" / "snapshots" / "67fa"
        snapshot.parent.mkdir(parents=True)
        (folder / "miocodec").rename(snapshot)
        hub = tmp_path / "torch" / "hub" / "checkpoints"
        hub.mkdir(parents=True)
        (folder / "wavlm-base-plus" / "wavlm_base_plus.pth").rename(hub / "wavlm_base_plus.pth")
        assert torch.equal(content(folder), expected)

    def test_what_is_missing_is_named_with_the_command_that_gets_it(self, folder: Path) -> None:
        own = folder / "miocodec"
        (own / "model.safetensors").unlink()
        with pytest.raises(TeacherError) as caught:
            content(folder)
        message = str(caught.value)
        assert message.startswith(f"teacher 'miocodec' lacks {own}/model.safetensors: download")
        assert (
            f"hf download Aratako/MioCodec-25Hz-44.1kHz-v2 config.yaml model.safetensors --local-dir {own}" in message
        )
        shutil.rmtree(own)
        with pytest.raises(TeacherError, match=r"config.yaml and .*model.safetensors"):
            content(folder)

    def test_a_missing_wavlm_is_named(self, folder: Path) -> None:
        shutil.rmtree(folder / "wavlm-base-plus")
        with pytest.raises(TeacherError) as caught:
            content(folder)
        for part in ("WavLM-base+", f"--local-dir {folder}/wavlm-base-plus", "wavlm_base_plus.pth", "378 MB"):
            assert part in str(caught.value)
        with pytest.raises(TeacherError, match="nowhere: is neither a file nor a folder with one of"):
            content(folder, wavlm="nowhere")

    def test_a_missing_package_is_named(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(
            TeacherError, match=r'takes the package transformers; hint: pip install "astrape\[teachers\]"'
        ):
            content(folder)


Change = Callable[[dict[str, Tensor]], Any]


class TestTensors:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("conv_downsample.bias"), "'conv_downsample.bias' is missing"),
            (lambda s: s.update(extra=torch.zeros(1)), "'extra' is unknown"),
            (
                lambda s: s.update({"istft_head.out.bias": torch.zeros(5)}),
                r"'istft_head.out.bias' is \(5,\) and not \(394,\)",
            ),
            (
                lambda s: s.pop("wave_upsampler.upsample_layers.0.parametrizations.weight.original0"),
                "'wave_upsampler.upsample_layers.0.weight' is missing",
            ),
            (
                lambda s: s.update(
                    {"wave_upsampler.upsample_layers.1.parametrizations.weight.original0": torch.zeros(2, 2, 1)}
                ),
                "not a magnitude for",
            ),
            (lambda s: s["istft_head.out.bias"].fill_(torch.nan), "'istft_head.out.bias' holds numbers that are not"),
            (lambda s: s.update({"istft_head.out.bias": torch.zeros(394).int()}), "holds torch.int32, not floating"),
            (lambda s: s.clear(), "and 19[0-9] more|and 1[0-9][0-9] more"),
        ],
    )
    def test_the_codecs_are_named(self, folder: Path, change: Change, message: str) -> None:
        place = folder / "miocodec" / "model.safetensors"
        state = load_file(place)
        change(state)
        save_file(state, place)
        with pytest.raises(TeacherError, match=message) as caught:
            content(folder)
        assert str(place) in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("encoder.transformer.layers.8.attention.attention.in_proj_bias"), "layers.8.*is missing"),
            (lambda s: s.pop("encoder.transformer.pos_conv_embed.conv.weight_g"), "weight' is missing"),
            (lambda s: s.update({"encoder.strange": torch.zeros(1)}), "'encoder.strange' is unknown"),
            (lambda s: s.pop("feature_extractor.conv_layers.6.conv.weight"), "has 6 convolutions, and WavLM 7"),
            (
                lambda s: s.update({"feature_extractor.conv_layers.1.layer_norm.weight": torch.ones(24)}),
                "as WavLM-large does",
            ),
            (lambda s: s.clear(), "not a WavLM in Hugging Face.s layout or torchaudio"),
            (
                lambda s: [s.pop(name) for name in list(s) if ".layers.8." in name or ".layers.9." in name],
                "has 8 layers, and layer 9 is to be heard",
            ),
        ],
    )
    def test_those_of_wavlm_are_named(self, folder: Path, change: Change, message: str) -> None:
        place = folder / "wavlm-base-plus" / "wavlm_base_plus.pth"
        state = torch.load(place)
        change(state)
        torch.save(state, place)
        with pytest.raises(TeacherError, match=message) as caught:
            content(folder)
        assert str(place) in str(caught.value)

    def test_a_wavlm_of_other_sizes_than_the_codec_heard_is_refused(self, folder: Path) -> None:
        sizes = tensors.SMALL | {"wavlm": tensors.SMALL["wavlm"] | {"dim": 48, "heads": 6}}
        state = tensors.drawn(tensors.wavlm_tensors(sizes), 1)
        torch.save(state, folder / "wavlm-base-plus" / "wavlm_base_plus.pth")
        with pytest.raises(TeacherError, match="48 channels, and the codec hears 32"):
            content(folder)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harmed"),))


class TestHostileFiles:
    def test_pickles_run_nothing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        (folder / "wavlm-base-plus" / "wavlm_base_plus.pth").write_bytes(pickle.dumps({"x": Harmful()}, protocol=2))
        with pytest.raises(TeacherError, match="is not a checkpoint of PyTorch"):
            content(folder)
        assert not (folder / "harmed").exists()

    def test_a_checkpoint_that_would_run_something_is_not_read(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)
        torch.save({"x": Harmful()}, folder / "wavlm-base-plus" / "wavlm_base_plus.pth")
        with pytest.raises(TeacherError, match="only tensors and plain values are read"):
            content(folder)
        assert not (folder / "harmed").exists()

    @pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
    def test_damaged_files_are_named(self, folder: Path, data: bytes) -> None:
        for name in ("miocodec/model.safetensors", "wavlm-base-plus/wavlm_base_plus.pth"):
            kept = (folder / name).read_bytes()
            (folder / name).write_bytes(data)
            with pytest.raises(TeacherError, match=name):
                content(folder)
            (folder / name).write_bytes(kept)

    def test_a_truncated_checkpoint_is_named(self, folder: Path) -> None:
        place = folder / "miocodec" / "model.safetensors"
        place.write_bytes(place.read_bytes()[:-100])
        with pytest.raises(TeacherError, match="cannot be read as safetensors"):
            content(folder)

    def test_what_is_packed_small_is_not_unpacked(self, folder: Path) -> None:
        place = folder / "wavlm-base-plus" / "wavlm_base_plus.pth"
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
            archive.writestr("archive/data/0", bytes(5_000_000))
        assert place.stat().st_size < 100_000
        with pytest.raises(
            TeacherError, match=r"wavlm_base_plus\.pth: is compressed, which PyTorch's own files are not"
        ):
            content(folder)

    def test_huge_files_are_not_read(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(weights_module, "LARGEST_FILE", 1000)
        with pytest.raises(TeacherError, match="more than 1000"):
            content(folder)


def spoiled(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    values = tensors.config_file(tensors.SMALL)
    change(values["model"]["init_args"])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class TestConfiguration:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m["config"].update(use_wave_decoder=False), "makes mel spectrograms for a vocoder"),
            (
                lambda m: m["config"].update(n_fft=10**9),
                r":\d+: model.init_args.config.n_fft is 10+: give a whole number",
            ),
            (lambda m: m["config"].update(n_fft=True), "n_fft is true: give a whole number from 4 to 8192"),
            (lambda m: m["config"].update(new_thing=1), "config.new_thing is an unknown key"),
            (
                lambda m: m["config"].update(local_ssl_layers=[6, 12]),
                r"local_ssl_layers.1 is 12: give a whole number from 1 to output_",
            ),
            (lambda m: m["config"].update(wave_upsampler_kernel_sizes=[9]), "give one for each of 2 factors"),
            (lambda m: m["config"].update(hop_length=4000), "no less than hop_length"),
            (lambda m: m["local_encoder"]["init_args"].update(window_size=124), "window_size is 124: give an odd"),
            (lambda m: m["local_encoder"]["init_args"].update(n_heads=5), "n_heads is 5: it must divide dim, 32"),
            (lambda m: m["local_encoder"]["init_args"].update(causal=True), "causal is true: give false"),
            (lambda m: m["local_encoder"]["init_args"].update(n_layers=10**6), "n_layers is 1000000: give"),
            (lambda m: m["local_encoder"]["init_args"].update(dim=64), "local_encoder.output_dim is 64, and local_q"),
            (lambda m: m["wave_decoder"]["init_args"].update(use_adaln_zero=False), "would not be told the speaker"),
            (lambda m: m["wave_decoder"]["init_args"].pop("adanorm_condition_dim"), "lacks the key 'adanorm_cond"),
            (lambda m: m["global_encoder"]["init_args"].update(use_attn_pool=False), "use_attn_pool is false"),
            (lambda m: m["local_quantizer"]["init_args"].update(levels=[]), "levels is an empty list: give at least 1"),
            (
                lambda m: m["ssl_feature_extractor"]["init_args"].update(model_name="hubert"),
                "'hubert': give wavlm_base_plus",
            ),
            (lambda m: m.pop("local_encoder"), "local_encoder lacks the key 'init_args'"),
            (lambda m: m.update(mystery=1), "mystery is an unknown key"),
        ],
    )
    def test_wrong_entries_are_named(
        self, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
    ) -> None:
        path = spoiled(tmp_path, change)
        with pytest.raises(TeacherError, match=message) as caught:
            read_config(path)
        assert str(caught.value).startswith(str(path))

    @pytest.mark.parametrize("text", ["", "[1, 2]", "{", "model: 3", "a: !!python/object/apply:os.system [ls]", "\x00"])
    def test_other_files_are_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(TeacherError, match=r"config\.yaml:"):
            read_config(tmp_path / "config.yaml")

    def test_other_arrangements_are_built(self, tmp_path: Path) -> None:
        """Without upsampling stages, as the codec of 24 kHz is; and the defaults of the public code."""

        def change(model: dict[str, Any]) -> None:
            model["config"].update(sample_rate=24000, n_fft=1920, hop_length=480)
            for key in ("wave_upsampler_factors", "wave_upsampler_kernel_sizes", "istft_padding"):
                model["config"].pop(key)
            model["ssl_feature_extractor"]["init_args"]["sample_rate"] = 24000
            model["local_encoder"]["init_args"].pop("window_size")
            model["local_encoder"]["init_args"].pop("rope_theta")

        config = read_config(spoiled(tmp_path, change))
        assert (config.main.sample_rate, config.main.upsampler, config.main.istft_padding) == (24000, (), "same")
        assert (config.local_encoder.side, config.local_encoder.theta) == (None, 500000.0)


@pytest.mark.parametrize(
    ("param", "value", "message"),
    [
        ("device", "nonsense", "device 'nonsense'"),
        ("longest", 0, "longest must be more than 0"),
        ("longest", "1", "longest must be more than 0"),
        ("wavlm", 3, "wavlm must be the path of a file or folder, not 3"),
        ("wav_lm", "x", "no parameter 'wav_lm': did you mean 'wavlm'"),
    ],
)
def test_wrong_parameters_are_named(folder: Path, param: str, value: Any, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        content(folder, **{param: value})
    with pytest.raises(TeacherError, match="folder must be the path of a folder, not 3"):
        open_teacher("miocodec", folder=3)
