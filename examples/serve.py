"""A server that speaks in other voices for many at once: one process, one core, a row of one batch for each.

    python examples/serve.py                            # ws://127.0.0.1:8765, 12 rows of astrape-mini
    python examples/serve.py --try 4 --seconds 3        # and four that speak, in this process: how did it go?

It takes `pip install "astrape[studio]"` (Starlette, uvicorn, websockets). For more cores start it once for each,
pinned, with a port of its own, behind whatever balances connections. It is an example: no login, no encryption, no
limit but rows.

A client sends one text, `{"voice": "emma", "pitch": 2}` (a voice that ships, and controls by name), then binary
messages of float32 samples, mono, at the rate that the first answer tells. Each tick it gets as many samples back. More
texts change controls. Whoever comes when all rows are taken is told so, and the connection is closed (1013, try again
later).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import astrape
from astrape.audio.whole import read_mono
from astrape.errors import AstrapeError
from astrape.runtime.pool import PooledStream, StreamPool
from astrape.voice.shipped import shipped_voices
from astrape.voice.speaking import voice_controls
from astrape.voice.voicebank import read_voicebank

FULL, REFUSED = 1013, 1008
"""Codes of WebSocket: try again later, and against the rules."""


class Server:
    """A pool, a clock that ticks it, and connections that write to it and read from it."""

    def __init__(self, recipe: str, rows: int) -> None:
        self.pool = StreamPool(astrape.load(recipe).eval(), rows, ahead=2, output="wav")
        self.rate = round(self.pool.tick_frames / self.pool.tick_seconds)
        self.costs: list[float] = []
        self.left: list[PooledStream] = []
        self._ticked = asyncio.Condition()
        self.app = Starlette(routes=[WebSocketRoute("/", self.converse)], lifespan=self.life)

    @contextlib.asynccontextmanager
    async def life(self, _: Starlette) -> AsyncIterator[None]:
        ticking = asyncio.create_task(self.tick())
        yield
        ticking.cancel()

    async def tick(self) -> None:
        """A tick each time that one is due. Late ones are made up for as long as there is input for them."""
        due = time.monotonic()
        while True:
            begun = time.process_time()
            self.pool.tick()
            self.costs.append(time.process_time() - begun)
            async with self._ticked:
                self._ticked.notify_all()
            due += self.pool.tick_seconds
            now = time.monotonic()
            if due < now and not self.pool.fed:
                due = now + self.pool.tick_seconds
            await asyncio.sleep(max(0.0, due - now))

    def controls(self, text: str) -> dict[str, Any]:
        """The controls that a client's message sets."""
        asked = json.loads(text)
        if not isinstance(asked, dict):
            raise AstrapeError('send an object, such as {"voice": "emma"}')
        voice, voices = asked.pop("voice", None), shipped_voices()
        if voice is None:
            return asked
        if voice not in voices:
            raise AstrapeError(f"no voice '{voice}' ships: hint: {', '.join(voices)}")
        return {**voice_controls(self.pool.graph, read_voicebank(voices[voice])), **asked}

    async def converse(self, socket: WebSocket) -> None:
        await socket.accept()
        stream = None
        try:
            wanted = self.controls(await socket.receive_text())
            if not self.pool.free:
                await socket.close(FULL, f"all {self.pool.rows} rows are taken")
                return
            stream = self.pool.join(**wanted)
            late = self.pool.host_samples + self.pool.ahead * self.pool.tick_frames
            await socket.send_text(json.dumps({"rate": self.rate, "tick": self.pool.tick_frames, "late": late}))
            speaking = asyncio.create_task(self.speak(socket, stream))
            try:
                await self.listen(socket, stream)
            finally:
                speaking.cancel()
        except (AstrapeError, ValueError, TypeError) as error:
            await socket.close(REFUSED, str(error)[:120])
        except WebSocketDisconnect:
            pass
        finally:
            if stream is not None:
                self.left.append(stream)
                stream.leave()

    async def listen(self, socket: WebSocket, stream: PooledStream) -> None:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                stream.write(torch.from_numpy(np.frombuffer(message["bytes"], "<f4").copy())[None])
            else:
                stream.set(**self.controls(message["text"]))

    async def speak(self, socket: WebSocket, stream: PooledStream) -> None:
        while True:
            async with self._ticked:
                await self._ticked.wait()
            made = stream.read()
            if made.shape[1]:
                await socket.send_bytes(made[0].numpy().astype("<f4").tobytes())


async def client(address: str, voice: str, speech: np.ndarray, tick: int, rate: int) -> np.ndarray:
    """Say it at the pace of speech, and return what came back."""
    heard: list[np.ndarray] = []
    async with websockets.connect(address) as socket:
        await socket.send(json.dumps({"voice": voice}))
        told = json.loads(await socket.recv())
        begun = time.monotonic()

        async def say() -> None:
            for index, at in enumerate(range(0, len(speech), tick)):
                await asyncio.sleep(max(0.0, begun + index * tick / rate - time.monotonic()))
                await socket.send(speech[at : at + tick].astype("<f4").tobytes())

        saying = asyncio.create_task(say())
        with contextlib.suppress(TimeoutError):
            while sum(map(len, heard)) < len(speech):
                heard.append(np.frombuffer(await asyncio.wait_for(socket.recv(), 5), "<f4"))
        await saying
    made = np.concatenate(heard)
    print(f"{voice}: {len(speech)} samples said, {len(made)} heard, {told['late']} late")
    return made


async def attempt(server: Server, serving: uvicorn.Server, speakers: int, seconds: float) -> None:
    """So many speak for so long, in this process, and what it was like."""
    with as_file(files("astrape.recipes") / "audio" / "sense-and-sensibility.flac") as path:
        samples, rate = read_mono(path)
    speech = np.resize(samples[: int(rate)], int(seconds * server.rate))
    running = asyncio.create_task(serving.serve())
    while not serving.started:
        await asyncio.sleep(0.01)
    host, port = serving.servers[0].sockets[0].getsockname()
    names, address = list(shipped_voices()), f"ws://{host}:{port}"
    tick = server.pool.tick_frames
    voices = [names[index % len(names)] for index in range(speakers)]
    await asyncio.gather(*(client(address, voice, speech, tick, server.rate) for voice in voices))
    serving.should_exit = True
    await running
    starved, dropped = (sum(getattr(one, what) for one in server.left) for what in ("starved", "dropped"))
    load = statistics.median(server.costs) / server.pool.tick_seconds
    print(f"{speakers} streams of {server.pool.rows} rows: a tick takes {load:.0%} of its time on one core (median)")
    print(f"{starved} samples did not come in time and were silence, {dropped} were too many and left out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="astrape-mini", help="one that speaks in voices")
    parser.add_argument("--rows", type=int, default=12, help="streams at a time")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one, for --try")
    parser.add_argument("--try", type=int, default=0, dest="speakers", metavar="N", help="have so many speak, and end")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long they speak")
    given = parser.parse_args()
    torch.set_num_threads(1)
    server = Server(given.recipe, given.rows)
    # Sound does not get smaller by deflating it.
    config = uvicorn.Config(server.app, "127.0.0.1", given.port, log_level="warning", ws_per_message_deflate=False)
    serving = uvicorn.Server(config)
    if given.speakers:
        asyncio.run(attempt(server, serving, given.speakers, given.seconds))
    else:
        print(f"ws://127.0.0.1:{given.port}: {given.rows} rows of {given.recipe}, {server.rate} Hz; Ctrl-C ends it")
        serving.run()


if __name__ == "__main__":
    main()
