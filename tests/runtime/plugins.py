"""The plugin in hosts that are programs of their own: what it writes to its log is read, and a crash is told."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from astrape.audio.whole import read_mono
from astrape.blocks import Stream
from astrape.blocks.resample import Resampler
from astrape.portable.session import PortableSession
from astrape.voice.shipped import shipped_voices
from astrape.voice.voicebank import read_voicebank

Array = npt.NDArray[np.float32]

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "plugin"
BUNDLES, RESOURCES = BUILD / "bundles", BUILD / "resources"

WIRE: dict[str, Any] = {
    "recipe": "wire",
    "inputs": {"mic": {"rate": 44100, "channels": 1}},
    "controls": {"level": {"channels": 1, "default": 0.5, "min": 0.0, "max": 2.0}},
    "blocks": {
        "spectra": {"use": "stft", "n_fft": 1323, "hop": 441},
        "wav": {"use": "istft", "n_fft": 1323, "hop": 441},
    },
    "outputs": {"wav": "wav"},
}
"""Sound as it was, after all that makes a converter late: what comes out can be held against what went in."""


def host(what: str, *, plugin: str | Path = "astrape", folders: Path | None = None, **request: Any) -> dict[str, Any]:
    """Do one of the things that ``plugin_host.py`` does, and return what it answers, with ``told``, the plugin's log.

    Args:
        plugin: a bundle, or the name of one that was built.
        folders: where other packages and voices are looked for; nowhere when left out.
    """
    needed = "dawdreamer" if what == "automated" else "pedalboard"
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"no {needed}: pip install 'astrape[plugin]'")
    with tempfile.TemporaryDirectory() as work:
        arrays = {name: request.pop(name) for name in ("sound", "state") if name in request}
        np.savez(f"{work}/in.npz", **arrays)
        bundle = plugin if isinstance(plugin, Path) else BUNDLES / "vst3" / f"{plugin}.vst3"
        Path(f"{work}/in.json").write_text(json.dumps(request | {"what": what, "plugin": str(bundle)}))
        nowhere = Path(work) / "nowhere"
        surroundings = os.environ | {"ASTRAPE_PACKAGES": str(folders or nowhere), "XDG_DATA_HOME": str(nowhere)}
        command = [sys.executable, str(Path(__file__).with_name("plugin_host.py")), work]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
        assert done.returncode == 0, done.stdout + done.stderr
        # DPF goes on after it complained. Blocks of one frame it only doubts.
        complaints = [line for line in done.stderr.splitlines() if "assertion failure" in line]
        assert all("bufferSize >= 2" in line for line in complaints), complaints
        answer: dict[str, Any] = json.loads(Path(f"{work}/out.json").read_text())
        with np.load(f"{work}/out.npz") as made:
            answer.update({name: made[name] for name in made.files})
    return answer | {"told": done.stderr}


def speech(rate: int, seconds: float) -> Array:
    with resources.as_file(resources.files("astrape.recipes") / "audio" / "sense-and-sensibility.flac") as path:
        samples, own = read_mono(path)
    sound = torch.from_numpy(samples)[None, None, : int(own * seconds)]
    return Resampler(Stream(own, 1), rate=rate)(sound)[0, 0].numpy()


def package(rate: int) -> Path:
    return RESOURCES / "packages" / f"astrape-mini-{rate}"


def spoken(x: Array, rate: int, voice: str, **controls: float) -> Array:
    """A session's output for ``x``, aligned with it."""
    bank = read_voicebank(shipped_voices()[voice])
    held = {"speaker": bank.embedding, "register": bank.metadata.median_f0_hz, **controls}
    session = PortableSession(package(rate), constant_latency=True)
    late = session.export.outputs["wav"].host
    whole = np.concatenate((x, np.zeros(late, np.float32)))
    return session.push(whole[None, None], **held)["wav"][0, 0, late:]


def decibels(got: Array, want: Array) -> float:
    return float(
        10 * np.log10(np.square(got - want, dtype=np.float64).sum() / np.square(want, dtype=np.float64).sum() + 1e-30)
    )


def best_lag(y: Array, x: Array) -> int:
    """By how many frames the one is behind the other, or before it where the number is negative."""
    size = 1 << int(np.ceil(np.log2(len(y) + len(x))))
    lag = int(np.argmax(np.fft.irfft(np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size)), size)))
    return lag - size if lag > size // 2 else lag
