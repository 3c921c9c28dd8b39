"""Clusters that cannot be had are told in one line, with what to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from astrape.jobs import Engine, Job, JobError, run_job
from astrape.jobs.on_ray import STARTS
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
    with pytest.raises(JobError, match=r'^the engine ray takes the package ray; hint: pip install "astrape\[ray\]"$'):
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
    """Ray's own error stands for a cluster of another version, since none is here."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")

    def refuse(**given: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(JobError, match=f"^auto: .*{said}") as error:
        list(run_job(Job(work.large, ()), [b""], Engine("ray", 2, "auto")))
    assert "\n" not in str(error.value)


def test_a_cluster_of_this_machine_that_does_not_start_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own error stands for a machine that is too busy."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    tried = []

    def refuse(**given: object) -> None:
        tried.append(given)
        raise Exception("The current node timed out during startup.\nThis could happen because")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(
        JobError, match=r"^Ray does not start on this machine \(The current .*\); hint: --engine local$"
    ):
        list(run_job(Job(work.large, ()), [b""], Engine("ray", 2)))
    assert len(tried) == STARTS


@pytest.mark.slow
@pytest.mark.timeout(1800)  # how busy the machine is does not matter
def test_a_node_that_is_lost_under_load_costs_no_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    options: dict[str, Any] = {"object_store_memory": 80_000_000, "include_dashboard": False}

    def added(cpus: int) -> Any:
        """Ray gives a node half a minute to start, which a busy machine may take."""
        for _ in range(STARTS - 1):
            try:
                return cluster.add_node(num_cpus=cpus, **options)
            except Exception as error:
                if "timed out" not in str(error):
                    raise
        return cluster.add_node(num_cpus=cpus, **options)

    cluster = Cluster()
    try:
        added(0)
        nodes = [added(1) for _ in range(2)]
        cluster.wait_for_nodes()
        done = []
        for one in run_job(Job(work.together, (tmp_path,)), range(60), Engine("ray", 2, cluster.address)):
            done.append(one)
            if len(done) == 10:
                # One of these nodes has a worker with two items, whichever it is.
                assert len(list(tmp_path.glob("loaded.*"))) == 2
                cluster.remove_node(nodes[0], allow_graceful=False)
                added(1)
        assert sorted(one.item for one in done) == list(range(60))
        assert all(one.outcome == one.item**2 for one in done)
        assert not any(one.fault for one in done)
    finally:
        ray.shutdown()
        cluster.shutdown()
