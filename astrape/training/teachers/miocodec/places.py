"""The places of the weights of MioCodec and WavLM, and the hints where they are missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from astrape.training.errors import TeacherError

__all__ = ["CODEC", "DEFAULT_FOLDER", "FOLDER_VARIABLE", "WAVLM", "CodecFiles", "find_codec", "find_wavlm"]

CODEC = "Aratako/MioCodec-25Hz-44.1kHz-v2"
WAVLM = "microsoft/wavlm-base-plus"
TORCHAUDIO = "https://download.pytorch.org/torchaudio/models/wavlm_base_plus.pth"

FOLDER_VARIABLE = "ASTRAPE_TEACHERS"
"""The environment's name for the folder with all teachers' weights."""

DEFAULT_FOLDER = "teachers"
CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
WAVLM_FILES = ("model.safetensors", "pytorch_model.bin", "wavlm_base_plus.pth", "wavlm_base_plus.safetensors")


@dataclass(frozen=True)
class CodecFiles:
    """A codec's configuration and weights."""

    config: Path
    weights: Path


def teacher_folder(folder: str | os.PathLike[str] | None) -> Path:
    """The folder that is named, or that of the environment, or ``teachers`` in the working directory."""
    if folder is not None and not isinstance(folder, (str, os.PathLike)):
        raise TeacherError(f"folder must be the path of a folder, not {folder!r}")
    return Path(folder if folder is not None else os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()


def find_codec(folder: str | os.PathLike[str] | None) -> CodecFiles:
    """``miocodec/config.yaml`` and ``miocodec/model.safetensors`` in the folder, those in it, or Hugging Face's cache.

    The configuration may have another name, as in the repository of the code, if it is the only YAML there.

    Raises:
        TeacherError: where there is neither, with what to download and where to.
    """
    root = teacher_folder(folder)
    own = root / "miocodec"
    for place in (own, root, *_cached(CODEC)):
        config, weights = place / CONFIG, place / WEIGHTS
        alone = sorted(place.glob("*.yaml"))
        if len(alone) == 1:
            config = alone[0]
        if config.is_file() and weights.is_file():
            return CodecFiles(config, weights)
    lacking = [str(own / name) for name in (CONFIG, WEIGHTS) if not (own / name).is_file()]
    raise TeacherError(
        f"teacher 'miocodec' lacks {' and '.join(lacking)}: download both files of "
        f"https://huggingface.co/{CODEC} (528 MB) there with: "
        f"hf download {CODEC} {CONFIG} {WEIGHTS} --local-dir {own}{_elsewhere(folder)}"
    )


def find_wavlm(folder: str | os.PathLike[str] | None, given: str | os.PathLike[str] | None) -> Path:
    """WavLM-base+: the file or folder that is given, ``wavlm-base-plus`` in the teachers' folder, or the caches.

    The caches are those of Hugging Face and of torchaudio.

    Raises:
        TeacherError: where there is none, with what to download and where to.
    """
    root = teacher_folder(folder)
    own = root / "wavlm-base-plus"
    hub = Path(os.environ.get("TORCH_HOME") or "~/.cache/torch").expanduser() / "hub" / "checkpoints"
    if given is not None:
        if not isinstance(given, (str, os.PathLike)):
            raise TeacherError(f"wavlm must be the path of a file or folder, not {given!r}")
        places = [Path(given).expanduser()]
        if places[0].is_file():
            return places[0]
    else:
        places = [own, root.parent / "wavlm-base-plus", *_cached(WAVLM), hub]
    for place in places:
        for name in WAVLM_FILES if place != hub else WAVLM_FILES[2:3]:
            if (place / name).is_file():
                return place / name
    if given is not None:
        raise TeacherError(f"{given}: is neither a file nor a folder with one of {', '.join(WAVLM_FILES)}")
    raise TeacherError(
        f"teacher 'miocodec' lacks the weights of WavLM-base+ in {own}: download them (378 MB) with: "
        f"hf download {WAVLM} config.json pytorch_model.bin --local-dir {own}; or put {TORCHAUDIO} "
        f"there{_elsewhere(folder)}"
    )


def _elsewhere(folder: str | os.PathLike[str] | None) -> str:
    if folder is not None:
        return ""
    return f"; or name the folder where they are in the parameter folder or in {FOLDER_VARIABLE}"


def _cached(repository: str) -> Iterator[Path]:
    """Snapshots of a repository in the cache of ``huggingface_hub``, without asking the network."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    yield from sorted((cache / f"models--{repository.replace('/', '--')}" / "snapshots").glob("*"))
