"""Stand-ins for the programs espeak-ng and flite: they say what is given to them, in a form of their own."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

ESPEAK = """#!/bin/sh
case "$1" in --version) echo "eSpeak NG text-to-speech: 1.51-test  Data at: here"; exit 0;; esac
for last in "$@"; do :; done
echo "$last" | tr A-Z a-z
"""

FLITE = """#!{python}
import math, struct, sys, wave
given = dict(zip(sys.argv[1:], sys.argv[2:]))
count = len(given["-t"])
print("pau:0.200", end=" ")
hertz = next(float(word.split("=")[1]) for word in sys.argv if word.startswith("int_f0_target_mean"))
for n in range(count):
    print(f"{{'aa' if n % 2 else 's'}}:{{0.2 + 0.1 * (n + 1):.3f}}", end=" ")
print(f"pau:{{0.4 + 0.1 * count:.3f}}")
total = int(16000 * (0.4 + 0.1 * count))
tone = [0.3 * math.sin(2 * math.pi * hertz * n / 16000) if 3200 <= n < total - 3200 else 0.0 for n in range(total)]
with wave.open(given["-o"], "wb") as file:
    file.setparams((1, 2, 16000, total, "NONE", ""))
    file.writeframes(struct.pack(f"<{{total}}h", *(int(32767 * value) for value in tone)))
"""


def write_programs(folder: Path) -> Path:
    """Programs that say what is given to them; put the folder before all others on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("espeak-ng", ESPEAK), ("flite", FLITE.format(python=sys.executable))):
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder
