"""Clusters that cannot be had are told in one line, with what to do."""

from __future__ import annotations

import sys

import pytest

from astrape.jobs import Engine, Job, JobError, run_job
from tests.jobs import work


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:1"])
def test_an_address_where_nothing_answers(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")
    for engine in (Engine("ray", 2, address), Engine("ray", 2)):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(JobError, match=f"^{address}: .*hint: give the address of its head to --ray") as error:
            list(run_job(Job(work.large, ()), [b""], engine))
        assert "\n" not in str(error.value)


def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(JobError, match=r"^the engine ray takes the package ray; hint: pip install 'astrape\[ray\]'$"):
        list(run_job(Job(work.large, ()), [b""], Engine("ray", 2)))


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.1.0\n    Python: 3.11.0\n"),
            r"another version of Ray or Python than this machine \(Version mismatch: .* Ray: 2\.1\.0 .*hint: install",
        ),
        (ConnectionError("ray client connection timeout"), r"no cluster of Ray answers there \(ray client .*hint"),
    ],
)
def test_what_ray_says_of_a_cluster_becomes_a_line(
    raised: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster of another version there is none here: Ray's own error stands for it."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")

    def refuse(**given: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(JobError, match=f"^auto: .*{said}") as error:
        list(run_job(Job(work.large, ()), [b""], Engine("ray", 2, "auto")))
    assert "\n" not in str(error.value)
