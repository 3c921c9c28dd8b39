"""Workers of these tests begin afresh, as they do outside of tests."""

from __future__ import annotations

import multiprocessing

import pytest


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    from astrape.jobs import local

    monkeypatch.setattr(local, "AFRESH", multiprocessing.get_context("spawn"))
