"""Jobs, the outcome of their items, and the interface of engines."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from astrape.errors import AstrapeError

__all__ = [
    "ENGINES",
    "IN_PROCESS",
    "Answer",
    "Done",
    "Engine",
    "Event",
    "Job",
    "JobError",
    "Lost",
    "Ready",
    "Workers",
    "answer_of",
    "portable",
]

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

LOCAL, RAY = "local", "ray"

ENGINES = (LOCAL, RAY)


class JobError(AstrapeError):
    """A job that cannot be run: workers that do not start, an engine that is not there."""


@dataclass(frozen=True)
class Engine:
    """An engine, which runs jobs.

    Attributes:
        name: ``local``: processes of this machine; ``ray``: actors of Ray, of the extra ``ray``.
        workers: how many, each on one core. One of ``local`` is this process itself, which loads nothing twice; what
            crashes it then ends the run.
        address: of Ray's cluster; ``RAY_ADDRESS`` when left out, and a cluster of its own on this machine without that.

    Raises:
        JobError: for an unknown engine, fewer workers than one, and an address for ``local``.
    """

    name: str = LOCAL
    workers: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise JobError(f"engine '{self.name}': choose from: {', '.join(ENGINES)}")
        if self.workers < 1:
            raise JobError(f"{self.workers} workers: hint: give 1 or more")
        if self.address is not None and self.name != RAY:
            raise JobError(f"the address {self.address} is for the engine ray; hint: --engine ray")

    @property
    def in_process(self) -> bool:
        """Whether this process does the work itself."""
        return self.name == LOCAL and self.workers == 1


IN_PROCESS = Engine()


@dataclass(frozen=True)
class Job(Generic[Item, Outcome]):
    """The work to do with every item.

    Attributes:
        begin: called once in each worker, with ``given``: loads models and returns what works on an item. A function of
            a module. What it returns may be called twice with an item, after a crash: it writes whole files or none.
        given: what ``begin`` takes; pickled.
        here: takes the place of ``begin`` in this process, where it has the models loaded already.
    """

    begin: Callable[..., Callable[[Item], Outcome]]
    given: tuple[Any, ...]
    here: Callable[[], Callable[[Item], Outcome]] | None = None


@dataclass(frozen=True)
class Done(Generic[Item, Outcome]):
    """The outcome of an item.

    Attributes:
        item: as it was given.
        outcome: what the function returned; ``None`` where the item was left out.
        fault: why it was left out: it ended its worker again and again.
    """

    item: Item
    outcome: Outcome | None
    fault: str | None = None


@dataclass(frozen=True)
class Ready:
    """A worker has loaded what it needs, or could not and says why."""

    worker: int
    error: BaseException | None = None


@dataclass(frozen=True)
class Answer:
    """An item is done, or its function raised."""

    worker: int
    ticket: int
    outcome: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Lost:
    """A worker ended on its own."""

    worker: int
    reason: str


Event = Ready | Answer | Lost


class Workers(Protocol):
    """The interface of an engine: numbered workers, each of which does its items in the order in which it got them."""

    def start(self, worker: int) -> None:
        """Begin to start a worker; :class:`Ready` comes when it has loaded."""

    def give(self, worker: int, ticket: int, item: Any) -> None:
        """Hand a worker an item, under a number."""

    def events(self) -> Sequence[Event]:
        """Wait for what happens next. A worker's answers come before the news that it is lost."""

    def close(self) -> None:
        """End all workers, whatever they are doing."""


def answer_of(work: Callable[[Any], Any], item: Any) -> tuple[Any, BaseException | None]:
    """The result of a function on an item, and the error that it raised, in a form that can be sent."""
    try:
        return work(item), None
    except Exception as error:
        return None, portable(error)


def portable(error: Exception) -> Exception:
    """An error that survives pickling: itself, or its text where its constructor takes other arguments."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kind = AstrapeError if isinstance(error, AstrapeError) else RuntimeError
        return kind(str(error) if kind is AstrapeError else f"{type(error).__name__}: {error}")
    return error
