"""Runs a module of the tests in several processes that learn together."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.forks import ForkedWorkers

ROOT = Path(__file__).parents[2]


def launch(module: str, processes: int, log: Path, *arguments: object) -> None:
    """Run ``python -m module`` with arguments, or that many of it together, forked with PyTorch loaded.

    Each has the variables that torchrun tells it its place by.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        whole = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in map(str, range(processes)):
        place = whole | {"RANK": rank, "LOCAL_RANK": rank}
        place |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        given = (module, [*map(str, arguments)], place if processes > 1 else {}, log.with_suffix(f".{rank}.log"))
        started.append(ForkedWorkers().Process(target=_run, args=given))
        started[-1].start()
    for process in started:
        process.join(1800)  # how busy the machine is does not matter
        process.kill()
        process.join()
    assert [process.exitcode for process in started] == [0] * processes, log.with_suffix(".0.log").read_text()[-3000:]


def _run(module: str, words: list[str], place: Mapping[str, str], log: Path) -> None:
    os.environ.update(place)
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def torchrun(module: str, processes: int, *arguments: object) -> None:
    """The same with torchrun, which starts each afresh."""
    line = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", module]
    done = subprocess.run(
        [sys.executable, *line, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=1800,  # how busy the machine is does not matter
    )
    assert done.returncode == 0, done.stderr[-3000:]
