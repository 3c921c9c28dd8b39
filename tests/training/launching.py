"""Runs a module of the tests in several processes, as torchrun does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launch(module: str, processes: int, *arguments: object) -> None:
    """Run ``python -m module`` with arguments, or that many of it together; fails as it does."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*start, "-m", module, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=1800,  # how busy the machine is does not matter
    )
    assert done.returncode == 0, done.stderr[-3000:]
