"""The plugin in Ardour: a track with it is in step with one beside it, to the sample, by the host's compensation."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import astrape
from astrape.runtime.export import export
from tests.runtime.plugins import BUNDLES, WIRE, Array, best_lag, decibels

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not BUNDLES.is_dir(), reason="no plugin is built: `make plugin` does, on Debian and as root"),
]

PRESET = str(uuid.UUID(int=0xA57A9E))
FLOAT_WAV = "20b4ab09-6452-4cb3-bd66-b921cdbd2942"  # how Ardour calls its WAV files of 32 bit floats
TRIES, CRASHES = 4, (signal.SIGABRT, signal.SIGSEGV)
"""Debian's ardour7-lua ends with a heap that it broke itself in about half of its runs on a busy machine: so it does
with eg-amp of lv2-examples in the place of the plugin, and none of ours on its path (2 of 4 runs)."""
EXPORTS = f"""<?xml version="1.0" encoding="UTF-8"?>
<ExportPreset id="{PRESET}" name="astrape">
  <ExportFormat id="{FLOAT_WAV}"/>
  <ExportFilename><Folder relative="1" path="export"/><Field name="timespan" enabled="1"/></ExportFilename>
</ExportPreset>
"""


def interpreter() -> tuple[str, str] | None:
    """Ardour's interpreter of Lua, such as ``ardour7-lua``, and the name of its folder of settings."""
    for folder in os.get_exec_path():
        for path in sorted(Path(folder).glob("ardour*-lua")):
            if re.fullmatch(r"ardour\d+-lua", path.name):
                return str(path), path.name.removesuffix("-lua")
    return None


class Ardour:
    """One session of it, in a folder, with the same noise on a track with the plugin and on one without."""

    def __init__(self, folder: Path, packages: Path, rate: int, block: int) -> None:
        found = interpreter()
        if found is None:
            pytest.skip("no Ardour: apt-get install ardour")
        self.program, settings = found
        self.folder, self.rate, self.block = folder, rate, block
        presets = folder / "config" / settings / "export"
        presets.mkdir(parents=True)
        (presets / "astrape.preset").write_text(EXPORTS)
        self.surroundings = os.environ | {
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_DATA_HOME": str(folder / "data"),
            "LV2_PATH": str(BUNDLES / "lv2"),
            "ASTRAPE_PACKAGES": str(packages),
        }
        self.told: dict[str, list[int]] = {}

    def run(self, what: str) -> None:
        """Do a part of ``ardour.lua``; the frames that it tells are in ``told`` then, by name."""
        script = Path(__file__).with_name("ardour.lua")
        words = [self.program, script, what, self.folder, self.rate, self.block, PRESET]
        for _ in range(TRIES):
            done = subprocess.run(
                list(map(str, words)), env=self.surroundings, capture_output=True, text=True, check=False, timeout=1500
            )
            if -done.returncode not in CRASHES:
                break
            if what == "make":
                shutil.rmtree(self.folder / "session", ignore_errors=True)
                shutil.rmtree(self.folder / "out", ignore_errors=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Error: " not in done.stdout + done.stderr, done.stdout + done.stderr
        for line in done.stdout.splitlines():
            if line.startswith("told"):
                name, *frames = line.split()[1:]
                self.told[name] = [int(number) for number in frames]

    def exported(self, name: str) -> tuple[Array, Array]:
        """The exported tracks: the one with the plugin, and the other."""
        return tuple(read(self.folder / "out" / f"{name}.wav").T)  # type: ignore[return-value]

    def recorded(self) -> Array:
        (path,) = self.folder.glob("session/interchange/*/audiofiles/*.wav")
        return read(path)[:, 0]


def read(path: Path) -> Any:
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


@pytest.mark.parametrize(("rate", "block"), [(44100, 1024), (48000, 256)])
def test_a_track_with_the_plugin_is_in_step_with_one_beside_it(tmp_path: Path, rate: int, block: int) -> None:
    """Lag 0 by cross-correlation, and sample by sample: with the package that ships, with another that is chosen while
    the engine runs, with another latency of that one, and when the session is opened again.
    """
    step = rate // 100
    spectra = {"n_fft": 3 * step, "hop": step}
    blocks = {"spectra": {"use": "stft", **spectra}, "wav": {"use": "istft", **spectra}}
    wire = astrape.compile(WIRE | {"inputs": {"mic": {"rate": rate, "channels": 1}}, "blocks": blocks})
    (tmp_path / "packages").mkdir()
    export(wire, tmp_path / "packages" / "wire")
    host = Ardour(tmp_path, tmp_path / "packages", rate, block)
    host.run("make")
    host.run("again")

    # Blocks shorter than a step have a worker, which is then taken away; longer ones have none, which then comes.
    short, noise = block < step, host.recorded()
    late = astrape.load("astrape-mini").hosted(rate).host_samples + step * short
    other, last = wire.host_samples + step * short, wire.host_samples + step * (not short)
    frames = {"unmixed": late, "voice": late, "wire": other, "worker": last, "again": last}
    assert host.told == {name: [late, late, late] for name, late in frames.items()}
    for name in frames:
        wet, dry = host.exported(name)
        # Where a busy machine has recorded less than is exported, silence follows.
        assert len(noise) > 2 * rate
        assert np.array_equal(dry[: len(noise)], noise[: len(dry)])
        assert not dry[len(noise) :].any()
        assert np.isfinite(wet).all()
        assert np.abs(wet).max() > 0.05
        if name == "unmixed":
            assert np.array_equal(wet, dry)
        elif name != "voice":
            assert best_lag(wet, dry) == 0
            assert decibels(wet, dry) < -100
    # The voice itself is not what went in.
    voice, dry = host.exported("voice")
    assert decibels(voice, dry) > -10
