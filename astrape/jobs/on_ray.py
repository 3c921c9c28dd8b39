"""Workers that are actors of Ray, on this machine or on a cluster. Ray comes with the extra ``ray``."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from astrape.jobs.job import Answer, Event, JobError, Lost, Ready, answer_of, portable
from astrape.wording import lacking, one_line, reason_of

__all__ = ["RayWorkers", "connect"]

ADDRESS = "RAY_ADDRESS"

REACHED = 5.0
"""Seconds that a cluster's address has to answer in."""

GRACE = 10.0
"""Seconds in which an actor of this machine that is told to stop takes its unfinished file away."""

STORE_BYTES = 100_000_000
"""Shared memory for a cluster of this machine alone: outcomes are small, since files hold the work."""

STARTS = 3
"""Times that a cluster of this machine is started before it is given up."""


class RayWorker:
    """The work in an actor. It raises nothing, since Ray would wrap it."""

    def where(self) -> tuple[str, int]:
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def load(self, begin: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...]) -> BaseException | None:
        try:
            self.work = begin(*given)
        except Exception as error:
            return portable(error)
        return None

    def do(self, item: Any) -> tuple[Any, BaseException | None]:
        return answer_of(self.work, item)


class RayWorkers:
    """Actors of one core each.

    Args:
        begin, given: what a worker loads; see :class:`~astrape.jobs.job.Job`.
        count: workers, for which a cluster of this machine alone has cores.
        address: of a cluster; ``RAY_ADDRESS`` when left out.

    Raises:
        JobError: where Ray is not installed, no cluster answers, or it has another version.
    """

    def __init__(
        self, begin: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...], count: int, address: str | None
    ) -> None:
        self._ray = _imported()
        self._owns = not self._ray.is_initialized()
        if self._owns:
            connect(self._ray, count, address or os.environ.get(ADDRESS) or None)
        # A node or a process that is lost takes its actor along; the loop above starts another and hands out again.
        self._kind = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RayWorker)
        self._begin, self._given = begin, given
        self._actors: dict[int, Any] = {}
        self._waiting: dict[Any, tuple[int, int | None]] = {}
        self._places: dict[int, Any] = {}

    def start(self, worker: int) -> None:
        actor = self._kind.remote()
        self._actors[worker] = actor
        self._places[worker] = actor.where.remote()
        self._waiting[actor.load.remote(self._begin, self._given)] = worker, None

    def give(self, worker: int, ticket: int, item: Any) -> None:
        self._waiting[self._actors[worker].do.remote(item)] = worker, ticket

    def events(self) -> Sequence[Event]:
        self._ray.wait(list(self._waiting), num_returns=1)
        # All that is there: an answer that came before its worker was lost counts.
        ready, _ = self._ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
        found: list[Event] = []
        lost: dict[int, str] = {}
        for reference in ready:
            worker, ticket = self._waiting.pop(reference)
            try:
                content = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                lost.setdefault(worker, _reason(error))
                continue
            found.append(Ready(worker, content) if ticket is None else Answer(worker, ticket, *content))
        for worker, reason in lost.items():
            self._waiting = {of: whose for of, whose in self._waiting.items() if whose[0] != worker}
            self._ray.kill(self._actors.pop(worker))
            found.append(Lost(worker, reason))
        return found

    def close(self) -> None:
        # Ray ends an actor in the middle, and a file that it was writing would be left under its temporary name.
        self._stop_here()
        if self._owns:
            self._ray.shutdown()
        else:
            for actor in self._actors.values():
                self._ray.kill(actor)
        self._actors.clear()
        self._waiting.clear()

    def _stop_here(self) -> None:
        """Tell the actors of this machine to stop, which take their half-written files away, and wait for that."""
        told: list[int] = []
        own = self._ray.get_runtime_context().get_node_id()
        for worker in self._actors:
            ready, _ = self._ray.wait([self._places[worker]], timeout=0)
            try:
                node, process = self._ray.get(ready[0]) if ready else ("", 0)
                if node == own:
                    os.kill(process, signal.SIGTERM)
                    told.append(process)
            except (self._ray.exceptions.RayError, OSError):
                continue
        end = time.monotonic() + GRACE
        while told and time.monotonic() < end:
            told = [process for process in told if _is_running(process)]
            time.sleep(0.05)


def _is_running(process: int) -> bool:
    """Whether a process runs: it has not ended, and is not a zombie."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        pass
    if os.path.isdir("/proc/self"):
        return False
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _imported() -> Any:
    # Nothing is told to anybody on the way, and nothing said that concerns no user.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise JobError(lacking("the engine ray", "ray", "ray")) from error
    return ray


def connect(ray: Any, count: int, address: str | None) -> None:
    """Connect to a cluster, or start one of that many cores on this machine, quietly.

    Raises:
        JobError: where none answers, or it has another version.
    """
    # Ray tells of lost workers on standard output, log_to_driver or not, where results go. We tell of them ourselves.
    ray._private.worker._worker_logs_enabled = False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address is None or address == "local":
        _start(ray, num_cpus=count, include_dashboard=False, object_store_memory=STORE_BYTES, **quiet)
        return
    _check_reached(address)
    try:
        ray.init(address=address, **quiet)
    except RuntimeError as error:
        if "version" not in str(error).lower():
            raise JobError(f"{address}: {one_line(error)}") from error
        raise JobError(
            f"{address}: the cluster has another version of Ray or Python than this machine ({one_line(error)}); hint: "
            f"install the same, here Ray {ray.__version__}"
        ) from error
    except (OSError, ValueError) as error:
        raise JobError(f"{address}: no cluster of Ray answers there ({one_line(error)}); {HINT}") from error


def _start(ray: Any, **settings: Any) -> None:
    """Start a cluster on this machine. Ray gives up after half a minute, which a busy machine may take."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(address="local", **settings)
        except Exception as error:
            # Whatever it is, it is an Exception and no more: that a node did not start in time, for instance.
            ray.shutdown()
            if left and "timed out" in str(error):
                continue
            raise JobError(f"Ray does not start on this machine ({one_line(error)}); hint: --engine local") from error
        return


HINT = f"hint: give the address of its head to --ray or in {ADDRESS}, such as 10.0.0.1:6379"


def _check_reached(address: str) -> None:
    """Ray asks an address for a minute before it gives up."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise JobError(f"{address}: is not an address of Ray; {HINT}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED).close()
    except OSError as error:
        raise JobError(f"{address}: cannot be reached ({reason_of(error)}); {HINT}") from error


def _reason(error: BaseException) -> str:
    text = str(error)
    if "ModuleNotFoundError" in text or "No module named" in text:
        missing = next((line.strip() for line in text.splitlines() if "No module named" in line), "a module is missing")
        return f"{missing}: install astrape with the same extras on every node"
    # The rest is Ray's own numbers, and advice on its logs.
    return one_line(error).partition(" class_name:")[0].rstrip(". ")
