"""The server of the page: who may reach it, what it serves, and one speaker for each connection."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from astrape.errors import AstrapeError
from astrape.pages import templates
from astrape.studio.card import device_names
from astrape.studio.connection import Connection, parsed
from astrape.studio.presets import Presets
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

MADE = 16
"""Voices that are made of recordings and kept until the command ends."""

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
        self._card = asyncio.Lock()
        self.app = Starlette(
            routes=[
                Route("/", self._guarded(self._page)),
                Route("/voice", self._guarded(self._build), methods=["POST"]),
                Route("/preset", self._guarded(self._preset), methods=["POST", "DELETE"]),
                *(Route(f"/{name}", self._guarded(self._file)) for name in FILES),
                Route("/devices", self._guarded(self._devices)),
                WebSocketRoute("/sound", self._sound),
            ]
        )

    @property
    def random(self) -> bool:
        """Whether the weights were drawn, so that what comes out is noise."""
        return self._first.random

    def _refusal(self, connection: HTTPConnection) -> str | None:
        """The reason to refuse a request: another host's name, another origin, or no token."""
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
                "unit": control.unit,
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

    async def _devices(self, request: Request) -> Response:
        """The machine's own inputs and outputs."""
        try:
            return JSONResponse(await asyncio.to_thread(device_names, self._card.locked))
        except AstrapeError as error:
            return JSONResponse({"error": str(error)}, 400)

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
                self._presets.save(name, parsed(body.decode("utf-8", "replace")))
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
            await Connection(socket, self._make, self._made, self._card).run()
        finally:
            self._open -= 1


def _cookie(host: str) -> str:
    return f"{COOKIE}_{host.rpartition(':')[2]}"
