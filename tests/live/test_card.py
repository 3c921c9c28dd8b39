"""The page's sound card: the engine of ``astrape live`` behind a connection, on a JACK server that plays to nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra 'studio'")
pytest.importorskip("websockets", reason="needs websockets")

from websockets.sync import client

from tests.live.conftest import Server, Talker
from tests.live.test_jack import lag_of, noise

pytestmark = pytest.mark.timeout(900)


@contextmanager
def ended(run: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive what failed beside it."""
    with run:
        try:
            yield run
        finally:
            if run.poll() is None:
                run.kill()


def facts(socket: Any) -> dict[str, Any]:
    told = json.loads(socket.recv(timeout=300))
    assert "error" not in told, told
    return told


def test_a_sound_server_that_is_killed_is_told_and_the_page_goes_on(server: Server) -> None:
    line = [sys.executable, "-m", "astrape", "studio", "--no-browser", "--recipe", "robot-voice"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with ended(
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    ) as run:
        assert run.stdout is not None
        page = run.stdout.readline().strip()
        address = page.replace("http://", "ws://").replace("/?", "/sound?")
        with client.connect(address, open_timeout=300) as socket:
            socket.send(json.dumps({"card": {}}))
            facts(socket)
            assert server.process is not None
            server.process.kill()
            told = json.loads(socket.recv(timeout=300))
            while "error" not in told:
                told = json.loads(socket.recv(timeout=300))
        assert "the sound server died" in told["error"]
        assert "start it again" in told["error"]
        server.stop()
        server.start()
        # PortAudio cannot let go of what died: that is said again, and nothing hangs or ends.
        with client.connect(address, open_timeout=300) as socket:
            socket.send(json.dumps({"card": {}}))
            assert "start it again" in json.loads(socket.recv(timeout=300))["error"]
        # The browser's own sound is there as ever.
        with client.connect(address, open_timeout=300) as socket:
            socket.send(json.dumps({"rate": 48000, "block": 960}))
            assert facts(socket)["rate"] == 48000
            socket.send(bytes(4) + np.zeros(960, "<f4").tobytes())
            assert len(socket.recv(timeout=300)) == 4 + 4 * 960
        run.send_signal(signal.SIGINT)
        assert run.wait(60) in (0, 130)


def test_the_sound_card_speaks_late_by_what_the_page_is_told(server: Server) -> None:
    line = [sys.executable, "-m", "astrape", "studio", "--no-browser", "--recipe", "robot-voice", "--set", "amount=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with ended(
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    ) as run:
        assert run.stdout is not None
        address = run.stdout.readline().strip().replace("http://", "ws://").replace("/?", "/sound?")
        x = noise(3.0)
        with client.connect(address, open_timeout=300) as socket:
            socket.send(json.dumps({"card": {"input": None, "output": None}}))
            told = facts(socket)
            assert told["card"] == f"{server.rate} Hz, blocks of {server.period}"
            # There is one card: a second page is told so, and the first goes on.
            with client.connect(address, open_timeout=300) as second:
                second.send(json.dumps({"card": {}}))
                assert "another page" in json.loads(second.recv(timeout=300))["error"]
            # One's own voice is the input as late as the other voice.
            socket.send(json.dumps({"dry": True}))
            with closing(Talker(server, x)) as talker:
                talker.connect()
                talker.reach()
                y = talker.talk()
            told = facts(socket)
            assert {name for name, _ in told["parts"]} == {"device in", "graph", "worker", "device out"}
            socket.send(json.dumps({"set": {"nothing": 1}}))
            while "warning" not in told:
                told = facts(socket)
            assert "no slider 'nothing'" in told["warning"]
            told = facts(socket)
        frames = {name: round(seconds * server.rate) for name, seconds in told["parts"]}
        measured = lag_of(y, x)
        # The talker is on JACK's other side: what the devices say, it sees in whole periods.
        assert (measured - frames["graph"] - frames["worker"]) % server.period == 0
        assert np.abs(y).max() > 0.1
        run.send_signal(signal.SIGINT)
        assert run.wait(60) in (0, 130)
