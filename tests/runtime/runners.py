"""The C++ runner, built from the source as it is now."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "runner"
HEADERS = [BUILD / "headers", Path("/usr/include/onnxruntime")]

MISSING = "no CMake or no headers of ONNX Runtime: `make runner` installs both, on Debian and as root"


def can_build() -> bool:
    return shutil.which("cmake") is not None and any(path.is_dir() for path in HEADERS)


def build_runner(engines: str) -> Path:
    """The command with these engines; the test is skipped where it cannot be built."""
    if not can_build():
        pytest.skip(MISSING)
    folder = BUILD if engines == "onnx" else BUILD.with_name("runner-" + engines.replace(" ", "-"))
    if folder != BUILD and HEADERS[0].is_dir() and not (folder / "headers").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "headers").symlink_to(HEADERS[0])
    command = ["env", f"ENGINES={engines}", str(ROOT / "runners/cpp/build.sh"), str(folder), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "astrape-run"
