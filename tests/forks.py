"""Processes that begin with PyTorch loaded, since to load it takes two seconds of CPU, and a test needs it said once.

They are forked from one that has imported PyTorch and done nothing else. Of astrape nothing is loaded in it: what a
program imports, it imports in its own process. What has to begin from nothing, as what is measured or interrupted while
it loads, is a ``subprocess`` of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

__all__ = ["Forked", "ForkedWorkers", "Forks", "run_module", "run_program", "run_script", "start_module"]

SERVING = """
import json, os, sys
import torch
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["cwd"])
        sys.argv = asked["words"]
        exec(asked["program"], {"__name__": "__main__"})
        sys.exit()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

SCRIPT = """
import os, runpy, sys
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Forked:
    """A process that was forked, while it runs. It ends with the ``with`` that holds it.

    Attributes:
        pid: of the process.
    """

    def __init__(self, forks: Forks, process: subprocess.Popen[str], folder: str, words: tuple[str, ...]) -> None:
        self._forks, self._process, self._folder, self._words = forks, process, Path(folder), words
        self._done: subprocess.CompletedProcess[str] | None = None
        self.pid = int(self._said())

    @property
    def running(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its exit code, as of a :class:`subprocess.Popen`, and what it wrote."""
        if self._done is None:
            code = int(self._said())
            out, err = ((self._folder / name).read_text("utf-8") for name in ("out", "err"))
            self._done = subprocess.CompletedProcess(list(self._words), code, out, err)
        return self._done

    def end(self) -> None:
        """End it where it was not waited for: its answer must not be taken for that of another."""
        if self._done is None:
            self._forks.close()

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class Forks:
    """A process with PyTorch loaded, and what is forked from it.

    Args:
        first: Python that it runs before it loads anything.
        words: its ``sys.argv[1:]`` meanwhile.
    """

    def __init__(self, first: str = "", *words: str) -> None:
        self._command = [sys.executable, "-c", first + SERVING, *words]
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.close)

    def run(
        self, program: str, *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python text with ``sys.argv = words``, in this folder and environment when no other is given."""
        with self.start(program, *words, cwd=cwd, environment=environment) as process:
            return process.wait()

    @contextmanager
    def start(
        self, program: str, *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Iterator[Forked]:
        """The same, to be looked at while it runs; one at a time."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        with tempfile.TemporaryDirectory(prefix="astrape-fork-") as folder:
            asked = {
                "program": program,
                "words": words,
                "cwd": str(cwd or Path.cwd()),
                "environment": dict(environment or os.environ),
                "out": str(Path(folder, "out")),
                "err": str(Path(folder, "err")),
            }
            try:
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
                forked = Forked(self, process, folder, words)
                yield forked
                forked.end()
            except BaseException:
                # A test's time is over, or Ctrl-C, or it failed: what comes must not be taken for another's answer.
                self.close()
                raise

    def close(self) -> None:
        """End it, and what it has forked; another begins when one is asked for."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None


class ForkedWorkers(ForkServerContext):
    """Start method of workers in place of ``spawn``: forks of a process that has loaded these packages.

    They have the environment that this process has then, as processes that begin afresh do.
    """

    LOADED = ("torch", "networkx", "scipy.signal", "soundfile", "soxr", "pydantic", "yaml", "safetensors.torch")

    def __init__(self) -> None:
        self.set_forkserver_preload(list(self.LOADED))

    def Process(self, *, target: Any, args: tuple[Any, ...], **rest: Any) -> ForkServerProcess:  # type: ignore[override]
        return ForkServerProcess(target=_as_here, args=(dict(os.environ), target, args), **rest)


def _as_here(environment: Mapping[str, str], target: Callable[..., object], args: tuple[object, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*args)


@cache
def _plain() -> Forks:
    return Forks()


def run_program(
    program: str, *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -c program words`` in a process of its own, with PyTorch loaded."""
    return _plain().run(program, "-c", *words, cwd=cwd, environment=environment)


def run_module(
    module: str, *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module words`` likewise."""
    with start_module(module, *words, cwd=cwd, environment=environment) as process:
        return process.wait()


def start_module(
    module: str, *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> AbstractContextManager[Forked]:
    """The same, to be looked at, and interrupted, while it runs."""
    program = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return _plain().start(program, module, *words, cwd=cwd, environment=environment)


def run_script(
    script: Path, *words: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python script words`` likewise."""
    return _plain().run(SCRIPT, str(script), *words, cwd=cwd, environment=environment)
