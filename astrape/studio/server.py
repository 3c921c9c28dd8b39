"""The server of the page: who may reach it, what it serves, and one speaker for each connection."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from astrape.errors import AstrapeError
from astrape.pages import templates
from astrape.studio.presets import Presets
from astrape.studio.speaker import Speaker
from astrape.voice.advice import voice_warnings
from astrape.voice.live import LiveVoice
from astrape.voice.voicebank import Voicebank

__all__ = ["COOKIE", "Studio"]

COOKIE = "astrape_studio"
"""Beginning of the cookie's name; the port ends it, since browsers send a host's cookies to all of its ports."""

HOSTS = ("127.0.0.1", "localhost", "[::1]")
LONGEST = 64 * 2**20
"""Bytes of a recording that is sent to make a voice of: six minutes of stereo at 48 kHz in float32."""

CONNECTIONS = 4
"""Pages that speak at the same time; each takes its share of the processor."""

WAIT = (40.0, 100.0, 3000.0)
"""Milliseconds that a page waits for a block to come back: least, usual, most."""

SPARE = 0.02
"""Seconds of that which are left for the way. Blocks that would be computed later than that are silence, and counted:
what a slow machine computes then would come too late to be heard."""

HELD = 16 * 2**20
"""Bytes of messages that wait for a connection's worker, each counted with 64 more: what nobody sends who sends sound
as it comes. The connection ends there."""

MADE = 16
"""Voices that are made of recordings and kept until the command ends."""

TOLD_EVERY = 0.25
"""Seconds between two reports of load and dropouts."""

FILES = {"studio.js": "text/javascript", "worklet.js": "text/javascript", "studio.css": "text/css"}

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws:; img-src data:; media-src blob:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Studio:
    """The application, for loopback alone.

    Everything takes the token, in the address or in the cookie that the page sets, and comes from the page itself: a
    page of another origin, or a name that somebody points at this machine, is refused.

    Args:
        make: a :class:`LiveVoice` of the recipe, one for each connection.
        token: drawn at random when left out.
        presets: those of the recipe, in the user's folder, when left out.

    Attributes:
        app: for uvicorn.
        token: to be put into the address.
    """

    def __init__(self, make: Callable[[], LiveVoice], token: str | None = None, presets: Presets | None = None) -> None:
        self.token = secrets.token_urlsafe(24) if token is None else token
        self._make = make
        self._first = make()
        self._presets = Presets.of(self._first.graph.name) if presets is None else presets
        self._made: dict[str, Voicebank] = {}
        self._open = 0
        self.app = Starlette(
            routes=[
                Route("/", self._guarded(self._page)),
                Route("/voice", self._guarded(self._build), methods=["POST"]),
                Route("/preset", self._guarded(self._preset), methods=["POST", "DELETE"]),
                *(Route(f"/{name}", self._guarded(self._file)) for name in FILES),
                WebSocketRoute("/sound", self._sound),
            ]
        )

    @property
    def random(self) -> bool:
        """Whether the weights were drawn, so that what comes out is noise."""
        return self._first.random

    def _refusal(self, connection: HTTPConnection) -> str | None:
        """Why somebody may not: another host's name, another origin, or no token."""
        host = connection.headers.get("host", "")
        if host.rsplit(":", 1)[0] not in HOSTS:
            return "this page is served to 127.0.0.1 alone"
        origin = connection.headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "a page of another origin may not speak here"
        given = connection.query_params.get("token") or connection.cookies.get(_cookie(host), "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return "the token is missing or wrong: hint: open the address that `astrape studio` printed"
        return None

    def _guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guard(request: Request) -> Response:
            refusal = self._refusal(request)
            response = PlainTextResponse(refusal, 403) if refusal is not None else await answer(request)
            response.headers.update(HEADERS)
            return response

        return guard

    async def _page(self, request: Request) -> Response:
        live = self._first
        sliders = [
            {
                "name": name,
                "least": -1.0 if control.minimum is None else control.minimum,
                "most": 1.0 if control.maximum is None else control.maximum,
                "value": live.value(name),
            }
            for name, control in live.sliders.items()
        ]
        page = templates("astrape.studio").get_template("studio.html")
        text = page.render(
            recipe=live.graph.name,
            voices=self._voices(),
            voice=live.voice,
            sliders=sliders,
            presets=self._presets.read(),
        )
        response = Response(text, media_type="text/html")
        response.set_cookie(_cookie(request.headers.get("host", "")), self.token, httponly=True, samesite="strict")
        return response

    def _voices(self) -> list[str]:
        return list(dict.fromkeys([*self._first.voices, *self._made]))

    async def _file(self, request: Request) -> Response:
        name = request.url.path[1:]
        content = (files("astrape.studio") / "assets" / name).read_text(encoding="utf-8")
        return Response(content, media_type=FILES[name])

    async def _build(self, request: Request) -> Response:
        """A voice made of a recording in the body, which is kept in memory alone."""
        name = " ".join(request.query_params.get("name", "").split())[:40] or f"mine {len(self._made) + 1}"
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LONGEST:
                return JSONResponse({"error": f"the recording has more than {LONGEST >> 20} MiB"}, 413)
        if name in self._first.voices and name not in self._made:
            name = f"{name}, yours"
        if not self._first.voices:
            return JSONResponse({"error": f"'{self._first.graph.name}' speaks in no voice"}, 400)
        if name not in self._made and len(self._made) >= MADE:
            line = f"{MADE} voices have been made: hint: give this one the name of one of them, or start anew"
            return JSONResponse({"error": line}, 409)
        with tempfile.TemporaryDirectory(prefix="astrape-studio-") as folder:
            path = Path(folder) / "recording"
            path.write_bytes(body)
            try:
                bank = await asyncio.to_thread(self._first.build, path)
                self._first.add(name, bank)
            except AstrapeError as error:
                return JSONResponse({"error": str(error).replace(str(path), "the recording")}, 400)
        self._made[name] = bank
        return JSONResponse({"name": name, "warnings": voice_warnings(bank.metadata), "voices": self._voices()})

    async def _preset(self, request: Request) -> Response:
        """Keep a preset, or forget it."""
        name = request.query_params.get("name", "")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > 1 << 16:
                return JSONResponse({"error": "a preset has no more than 64 KiB"}, 413)
        try:
            if request.method == "DELETE":
                self._presets.remove(name)
            else:
                self._presets.save(name, _parsed(body.decode("utf-8", "replace")))
        except AstrapeError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"presets": self._presets.read()})

    async def _sound(self, socket: WebSocket) -> None:
        refusal = self._refusal(socket)
        if refusal is None and self._open >= CONNECTIONS:
            refusal = f"{CONNECTIONS} pages speak already: close one of them"
        await socket.accept()
        if refusal is not None:
            await socket.send_json({"error": refusal})
            await socket.close(1008)
            return
        self._open += 1
        try:
            await _Connection(socket, self._make, self._made).run()
        finally:
            self._open -= 1


class _Connection:
    """One page: a hello, then blocks of sound with their numbers, and changes between them.

    Sound goes as one unsigned number of 32 bits and float32 samples, little-endian, and comes back so: the same number,
    as many samples, in the order in which it was sent. Everything else is JSON.
    """

    def __init__(self, socket: WebSocket, make: Callable[[], LiveVoice], made: dict[str, Voicebank]) -> None:
        self._socket, self._make, self._made = socket, make, made
        self._queue: asyncio.Queue[tuple[bytes | dict[str, Any], int]] = asyncio.Queue()
        self._blocks = self._dropouts = self._held = 0
        self._told = 0.0
        self._most = 1
        """Blocks that wait for being computed, while somebody waits for them."""

    async def run(self) -> None:
        with suppress(WebSocketDisconnect):
            speaker = await self._hello()
            if speaker is None:
                return
            work = asyncio.create_task(self._work(speaker))
            try:
                while not work.done():
                    message = await self._socket.receive()
                    if message["type"] == "websocket.disconnect":
                        break
                    if not await self._keep(message.get("bytes"), message.get("text") or ""):
                        break
            finally:
                work.cancel()
                with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                    await work

    async def _keep(self, sound: bytes | None, text: str) -> bool:
        """Put a message behind the others, unless too much waits already."""
        size = 64 + len(text if sound is None else sound)
        self._held += size
        if self._held > HELD:
            await self._fail(f"more than {HELD >> 20} MiB wait: hint: send sound as it comes, and read what comes back")
            return False
        self._blocks += sound is not None
        self._queue.put_nowait((_parsed(text) if sound is None else sound, size))
        return True

    async def _hello(self) -> Speaker | None:
        hello = _parsed(await self._socket.receive_text())
        try:
            rate, block = int(hello["rate"]), int(hello["block"])
            wait = min(WAIT[2], max(WAIT[0], float(hello.get("wait", WAIT[1])))) / 1000
            speaker = await asyncio.to_thread(lambda: Speaker(self._make(), rate, block))
            self._most = max(1, int((wait - SPARE) * rate / block))
        except (KeyError, TypeError, ValueError, OverflowError):
            await self._fail('the first message must be {"rate": HZ, "block": FRAMES}')
            return None
        except AstrapeError as error:
            await self._fail(str(error))
            return None
        await self._socket.send_json(
            {
                "latency": speaker.latency,
                "algorithmic": float(speaker.algorithmic),
                "rate": rate,
                "parts": speaker.parts,
            }
        )
        return speaker

    async def _fail(self, line: str) -> None:
        await self._socket.send_json({"error": line})
        await self._socket.close(1008)

    async def _work(self, speaker: Speaker) -> None:
        while True:
            message, size = await self._queue.get()
            self._held -= size
            if isinstance(message, dict):
                await self._change(speaker, message)
                continue
            self._blocks -= 1
            if len(message) < 4 or len(message) % 4 or len(message) > 4 + 4 * speaker.rate:
                await self._fail(
                    f"{len(message)} bytes of sound: they must be a number and samples of 4 bytes, a second at most"
                )
                return
            number, x = message[:4], np.frombuffer(message, "<f4", offset=4)
            if self._blocks > self._most:
                # Silence in place of what nobody waits for any longer: the delay stays what it is.
                self._dropouts += 1
                y = np.zeros(len(x), np.float32)
            else:
                try:
                    y = await asyncio.to_thread(speaker.push, x)
                except AstrapeError as error:
                    await self._socket.send_json({"warning": str(error)})
                    y = await asyncio.to_thread(speaker.push, np.zeros(len(x), np.float32))
            await self._socket.send_bytes(number + y.astype("<f4").tobytes())
            now = asyncio.get_running_loop().time()
            if now - self._told > TOLD_EVERY:
                self._told = now
                facts = {"load": speaker.load, "worst": speaker.worst, "dropouts": self._dropouts}
                await self._socket.send_json(facts)

    async def _change(self, speaker: Speaker, message: dict[str, Any]) -> None:
        try:
            if "voice" in message:
                voice = str(message["voice"])
                await asyncio.to_thread(speaker.speak_as, voice, self._made.get(voice))
            if "dry" in message:
                speaker.dry = bool(message["dry"])
            for name, value in dict(message.get("set", {})).items():
                speaker.set(str(name), float(value))
        except AstrapeError as error:
            await self._socket.send_json({"warning": str(error)})
        except (TypeError, ValueError):
            await self._socket.send_json(
                {"warning": 'changes are {"voice": NAME}, {"dry": BOOL} or {"set": {NAME: NUMBER}}'}
            )


def _cookie(host: str) -> str:
    return f"{COOKIE}_{host.rpartition(':')[2]}"


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
