"""Settings of every test: one thread, known seeds, and the length of Hypothesis's searches.

The profile ``ci`` draws the same examples every time, so that a red build is red again when it is run again;
``HYPOTHESIS_PROFILE=slow`` (``make slow``) draws others each time, and ten times as many as a test asks for.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, is_hypothesis_test, settings

from tests.forks import ForkedWorkers

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
SLOW_FACTOR = 10

settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("slow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(PROFILE)

torch.set_num_threads(1)

# A million objects live as long as the tests do: modules, and the tests themselves. To look through them for cycles
# again and again was a quarter of the time that collecting takes.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


# A shell's background job ignores Ctrl-C, and what is started from it inherits that: tests that interrupt a process of
# their own would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: Iterable[Any]) -> None:
    # A number in a test's own @settings goes before the profile's, so the profile alone would search no longer.
    if PROFILE != "slow":
        return
    seen: set[int] = set()
    for item in items:
        test = getattr(item, "obj", None)
        test = getattr(test, "__func__", test)
        if is_hypothesis_test(test) and id(test) not in seen:
            seen.add(id(test))
            own = getattr(test, "_hypothesis_internal_use_settings", None) or settings.default
            test._hypothesis_internal_use_settings = settings(own, max_examples=own.max_examples * SLOW_FACTOR)


@pytest.fixture(scope="session", autouse=True)
def _workers() -> Iterator[None]:
    """Workers are forked with PyTorch loaded, which takes two seconds each; tests/jobs has them begin afresh."""
    from astrape.jobs import local

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "AFRESH", ForkedWorkers())
        yield


@pytest.fixture(autouse=True)
def _seeds() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from the global state


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """A device's callback, called here by hand, flushes them on its thread for good; what follows is to have them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def read_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for what is read from stores."""
    from astrape.audio.places import CACHE

    monkeypatch.setenv(CACHE, str(tmp_path / "read"))
    return tmp_path / "read"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket on a server of this process."""
    from tests.audio.object_store import s3_bucket

    with s3_bucket() as where:
        yield where
