"""``astrape studio``: the page in the browser."""

from __future__ import annotations

import socket
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from astrape.commands.console import RecipeName, command, parse_settings, warn
from astrape.commands.place_option import weights_option
from astrape.errors import AstrapeError
from astrape.voice.names import RECIPE

if TYPE_CHECKING:
    from astrape.audio.places import Place

__all__ = ["studio"]

HOST = "127.0.0.1"

LARGEST_MESSAGE = 1 << 20
"""Bytes of one message of a page: a second of sound at 192 kHz has 768 kB."""


@command(
    "studio",
    "astrape studio\nastrape studio --voice george --port 8000 --no-browser",
    interrupted="the page is closed",
    short="Speak in another voice through a page in the browser.",
    extra="studio",
)
@click.option("--recipe", type=RecipeName(), default=RECIPE, show_default=True, metavar="RECIPE", help="What to run.")
@weights_option
@click.option("--voice", metavar="VOICE", help="A voicebank, a recording, or a voice that ships.  [default: emma]")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Value of a control to begin with. Repeatable."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1.  [default: one that is free]"
)
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page.")
def studio(
    recipe: str, weights: Path | Place | None, voice: str | None, settings: tuple[str, ...], port: int, browser: bool
) -> None:
    """Speak in another voice through a page in the browser, with the browser's own microphone.

    The page is served to this machine alone, under an address with a token that nobody else knows. Nothing is fetched
    from elsewhere, and no sound is kept: a voice that is made of a recording lives until the command ends.

    Speak in voices whose owners agree, and tell who listens that the voice is synthetic. Wear headphones.
    """
    import uvicorn

    from astrape.studio.server import Studio
    from astrape.voice.live import LiveVoice

    controls = parse_settings(settings)
    page = Studio(lambda: LiveVoice(recipe, weights=weights, voice=voice, controls=controls))
    if page.random:
        warn("the weights are random, and what comes out is noise: hint: --weights")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()  # before the address is told: whoever is quick waits, and is not refused
    except OSError as error:
        raise AstrapeError(f"port {port}: {error.strerror}: hint: leave --port out") from error
    address = f"http://{HOST}:{listening.getsockname()[1]}/?token={page.token}"
    click.echo(f"{address}\nCtrl-C ends.")
    if browser:
        webbrowser.open(address)
    config = uvicorn.Config(
        page.app, log_level="error", access_log=False, ws="websockets-sansio", ws_max_size=LARGEST_MESSAGE
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listening])
