"""One page's connection: a hello, then sound and changes to it, or the sound card and what is told of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from astrape.errors import AstrapeError
from astrape.studio.card import CardSpeaker
from astrape.studio.speaker import Changing, Speaker
from astrape.voice.live import LiveVoice
from astrape.voice.voicebank import Voicebank

__all__ = ["Connection", "parsed"]

WAIT = (40.0, 100.0, 3000.0)
"""Milliseconds that a page waits for a block to come back: least, usual, most."""

SPARE = 0.02
"""Seconds of that which are left for the way. Blocks that would be computed later than that are silence, and counted:
what a slow machine computes then would come too late to be heard."""

HELD = 16 * 2**20
"""Bytes of messages that wait for a connection's worker, each counted with 64 more: what nobody sends who sends sound
as it comes. The connection ends there."""

TOLD_EVERY = 0.25
"""Seconds between two reports of load and dropouts."""


class Connection:
    """One page: a hello, then blocks of sound with their numbers, and changes between them.

    Sound goes as one unsigned number of 32 bits and float32 samples, little-endian, and comes back so: the same number,
    as many samples, in the order in which it was sent. Everything else is JSON.

    A hello ``{"card": {"input": NAME, "output": NAME}}`` has the machine's own sound card speak instead, with the
    system's devices where a name is null; then only changes come and facts go. There is one sound card.
    """

    def __init__(
        self,
        socket: WebSocket,
        make: Callable[[], LiveVoice],
        made: dict[str, Voicebank],
        card: asyncio.Lock,
    ) -> None:
        self._socket, self._make, self._made, self._card = socket, make, made, card
        self._queue: asyncio.Queue[tuple[bytes | dict[str, Any], int]] = asyncio.Queue()
        self._blocks = self._dropouts = self._held = 0
        self._told = 0.0
        self._behind = False
        self._most = 1
        """The number of blocks that wait to be computed, while a client waits for them."""

    async def run(self) -> None:
        with suppress(WebSocketDisconnect):
            hello = parsed(await self._socket.receive_text())
            if isinstance(hello.get("card"), dict):
                await self._speak_by_card(hello["card"])
                return
            speaker = await self._hello(hello)
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
        self._queue.put_nowait((parsed(text) if sound is None else sound, size))
        return True

    async def _speak_by_card(self, wanted: dict[str, Any]) -> None:
        if self._card.locked():
            await self._fail("the sound card speaks for another page already: stop it there")
            return
        async with self._card:
            names = [None if wanted.get(end) is None else str(wanted[end]) for end in ("input", "output")]
            try:
                speaker = await asyncio.to_thread(lambda: CardSpeaker(self._make(), *names))
                await asyncio.to_thread(speaker.open)
            except AstrapeError as error:
                await self._fail(str(error))
                return
            tell = asyncio.create_task(self._tell(speaker))
            try:
                while True:
                    message = await self._socket.receive()
                    if message["type"] == "websocket.disconnect":
                        break
                    await self._change(speaker, parsed(message.get("text") or ""))
            finally:
                tell.cancel()
                with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                    await tell
                await asyncio.to_thread(speaker.close)

    async def _tell(self, speaker: CardSpeaker) -> None:
        while True:
            try:
                facts = speaker.facts()
            except AstrapeError as error:
                await self._fail(str(error))
                return
            await self._socket.send_json(facts)
            await asyncio.sleep(TOLD_EVERY)

    async def _hello(self, hello: dict[str, Any]) -> Speaker | None:
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
            # What has fallen behind leaves out until half of the time is there again: what follows a gap is silence as
            # long as the graph is late, so that few longer ones are better than many.
            self._behind = self._blocks > (self._most // 2 if self._behind else self._most)
            if self._behind:
                # Nobody waits for it any longer: the delay stays what it is.
                self._dropouts += 1
                y = speaker.leave_out(x)
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

    async def _change(self, speaker: Changing, message: dict[str, Any]) -> None:
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


def parsed(text: str) -> dict[str, Any]:
    """The JSON object that a client sent; an empty one for anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
