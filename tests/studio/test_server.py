"""The server of the page: who may reach it, and that what comes back is the session's sound at the stated delay."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("starlette", reason="needs the extra 'studio'")
pytest.importorskip("httpx", reason="starlette's test client needs httpx")

from click.testing import CliRunner
from starlette.testclient import TestClient

import astrape
from astrape.cli import cli
from astrape.studio import connection, server
from astrape.studio.presets import Presets
from astrape.studio.server import Studio
from astrape.studio.speaker import Speaker
from astrape.voice.live import LiveVoice

RATE, BLOCK = 48000, 480
HOST = "http://127.0.0.1:8000"
SOUND = "ws://127.0.0.1:8000/sound"


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio(lambda: LiveVoice("robot-voice", controls={"hertz": 70.0}), token="secret")


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(studio.app, base_url=HOST) as found:
        yield found


def packed(number: int, samples: np.ndarray) -> bytes:
    return struct.pack("<I", number) + samples.astype("<f4").tobytes()


def unpacked(message: bytes) -> tuple[int, np.ndarray]:
    return struct.unpack("<I", message[:4])[0], np.frombuffer(message, "<f4", offset=4)


def next_sound(socket) -> tuple[int, np.ndarray]:
    """The next block of sound; what is told in between is passed over."""
    while True:
        message = socket.receive()
        if message.get("bytes") is not None:
            return unpacked(message["bytes"])


def test_a_slider_has_the_unit_of_its_control(tmp_path: Path) -> None:
    studio = Studio(LiveVoice, token="secret", presets=Presets(tmp_path / "presets.json"))
    page = TestClient(studio.app, base_url="http://127.0.0.1:8000").get("/?token=secret")
    (slider,) = re.findall("<input type=.range.[^>]*>", page.text)
    for part in ('data-control="pitch"', 'data-unit="semitones"', 'min="-24.0"', 'max="24.0"'):
        assert part in slider


@pytest.mark.parametrize(
    ("headers", "line"),
    [
        ({}, "the token is missing"),
        ({"cookie": "astrape_studio_8000=wrong"}, "the token is missing or wrong"),
        ({"cookie": "astrape_studio_9000=secret"}, "the token is missing or wrong"),
        ({"host": "evil.example:8000", "cookie": "astrape_studio_8000=secret"}, "127.0.0.1 alone"),
        ({"host": "127.0.0.1.evil.example", "cookie": "astrape_studio_8000=secret"}, "127.0.0.1 alone"),
        ({"origin": "http://evil.example", "cookie": "astrape_studio_8000=secret"}, "another origin"),
        ({"origin": "http://127.0.0.1:9000", "cookie": "astrape_studio_8000=secret"}, "another origin"),
        ({"origin": "null", "cookie": "astrape_studio_8000=secret"}, "another origin"),
    ],
)
def test_strangers_are_refused_everywhere(client: TestClient, headers: dict[str, str], line: str) -> None:
    for path in ("/", "/studio.js", "/worklet.js", "/studio.css"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 403
        assert line in answer.text
    assert client.post("/voice", headers=headers, content=b"x").status_code == 403
    assert client.post("/preset?name=x", headers=headers, json={"set": {}}).status_code == 403
    assert client.delete("/preset?name=x", headers=headers).status_code == 403
    with client.websocket_connect(SOUND, headers=headers) as socket:
        assert line in socket.receive_json()["error"]


def test_the_page_names_what_there_is_and_fetches_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/?token=secret")
    assert page.status_code == 200
    assert 'data-control="drive"' in page.text
    assert 'id="voice"' not in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["set-cookie"].startswith("astrape_studio_8000=secret; HttpOnly")
    # The cookie does for what the page asks for next.
    assert client.get("/studio.js").status_code == 200


def test_what_comes_back_is_the_session_as_late_as_is_told(client: TestClient) -> None:
    generator = np.random.default_rng(0)
    x = 0.3 * generator.standard_normal(RATE).astype(np.float32)
    got, dry = [], []
    with client.websocket_connect(f"{SOUND}?token=secret") as socket:
        socket.send_json({"rate": RATE, "block": BLOCK})
        told = socket.receive_json()
        for number, at in enumerate(range(0, RATE, BLOCK)):
            socket.send_bytes(packed(number, x[at : at + BLOCK]))
            came, y = next_sound(socket)
            assert (came, len(y)) == (number, BLOCK)
            got.append(y)
    graph = astrape.load("robot-voice").hosted(RATE)
    assert told["latency"] == graph.host_samples
    # The parts of the picture add up to it.
    assert sum(seconds for _, seconds in told["parts"]) * RATE == pytest.approx(graph.host_samples, abs=1e-6)
    want = graph.stream(constant_latency=True).push(torch.from_numpy(x)[None, None], hertz=70.0)
    want = want["wav"] if isinstance(want, dict) else want
    assert np.abs(np.concatenate(got) - want[0, 0].numpy()).max() < 1e-5
    with client.websocket_connect(f"{SOUND}?token=secret") as socket:
        socket.send_json({"rate": RATE, "block": BLOCK})
        socket.receive_json()
        socket.send_json({"dry": True})
        for number, at in enumerate(range(0, RATE // 4, BLOCK)):
            socket.send_bytes(packed(number, x[at : at + BLOCK]))
            dry.append(next_sound(socket)[1])
    late = told["latency"]
    assert np.array_equal(np.concatenate(dry)[late:], x[: RATE // 4 - late])


AHEAD = """recipe: ahead
inputs: {mic: {rate: 48000, channels: 1}}
blocks: {safe: {use: limiter, ceiling_db: 0.0, lookahead_ms: 40.0}}
outputs: {wav: safe}
"""


@pytest.mark.parametrize("dry", [False, True])
def test_blocks_that_are_left_out_change_no_delay(tmp_path: Path, dry: bool) -> None:
    # A look-ahead which changes nothing: what comes out is what went in, or silence.
    (tmp_path / "ahead.yaml").write_text(AHEAD)
    speaker = Speaker(LiveVoice(tmp_path / "ahead.yaml"), RATE, BLOCK)
    speaker.dry = dry
    late = speaker.latency
    assert late == 1920
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 40 * BLOCK).astype(np.float32)
    left = {10, 13, 14, 30}
    y = np.concatenate(
        [
            (speaker.leave_out if k in left else speaker.push)(x[k * BLOCK : (k + 1) * BLOCK])
            for k in range(len(x) // BLOCK)
        ]
    )
    wanted = np.concatenate((np.zeros(late, np.float32), x))[: len(x)]
    silent = np.zeros(len(x), bool)
    for k in left:
        silent[k * BLOCK : (k + 1) * BLOCK + late] = not dry
    assert np.abs(y - np.where(silent, 0.0, wanted)).max() < 1e-6


def test_who_sends_faster_than_is_computed_hears_silence_in_time(client: TestClient) -> None:
    x = 0.3 * np.random.default_rng(0).standard_normal((300, BLOCK)).astype(np.float32)
    with client.websocket_connect(f"{SOUND}?token=secret") as socket:
        socket.send_json({"rate": RATE, "block": BLOCK, "wait": 40})
        late = socket.receive_json()["latency"]
        socket.send_json({"dry": True})
        for number, block in enumerate(x):
            socket.send_bytes(packed(number, block))
        y = np.concatenate([next_sound(socket)[1] for _ in x])
    # All at once: most of it is not computed, and one's own sound is where it belongs.
    assert np.array_equal(y[late:], x.ravel()[:-late])


def test_a_slider_changes_the_sound_and_a_wrong_one_is_told(client: TestClient) -> None:
    x = 0.3 * np.sin(np.arange(4 * BLOCK) * 0.05).astype(np.float32)
    found = []
    for changes in ([], [{"set": {"amount": 0.0}}]):
        with client.websocket_connect(f"{SOUND}?token=secret") as socket:
            socket.send_json({"rate": RATE, "block": BLOCK})
            socket.receive_json()
            for change in changes:
                socket.send_json(change)
            parts = []
            for number in range(4):
                socket.send_bytes(packed(number, x[number * BLOCK : (number + 1) * BLOCK]))
                parts.append(next_sound(socket)[1])
            found.append(np.concatenate(parts))
    assert np.abs(found[0] - found[1]).max() > 1e-3
    with client.websocket_connect(f"{SOUND}?token=secret") as socket:
        socket.send_json({"rate": RATE, "block": BLOCK})
        socket.receive_json()
        for change, line in (
            ({"set": {"nothing": 1}}, "no slider 'nothing'"),
            ({"set": {"drive": 1e9}}, "drive"),
            ({"set": {"drive": "loud"}}, "changes are"),
            ({"set": 7}, "changes are"),
            ({"voice": "emma"}, "voice"),
        ):
            socket.send_json(change)
            assert line in socket.receive_json()["warning"]
        # And it goes on.
        socket.send_bytes(packed(0, x[:BLOCK]))
        assert len(next_sound(socket)[1]) == BLOCK


def test_samples_that_are_no_numbers_are_left_out(client: TestClient) -> None:
    with client.websocket_connect(f"{SOUND}?token=secret") as socket:
        socket.send_json({"rate": RATE, "block": BLOCK})
        socket.receive_json()
        socket.send_bytes(packed(5, np.full(BLOCK, np.nan)))
        assert "not finite" in socket.receive_json()["warning"]
        number, y = next_sound(socket)
        assert number == 5
        assert np.isfinite(y).all()


@pytest.mark.parametrize(
    ("hello", "line"),
    [
        ({"rate": 1e300, "block": 480}, "rate"),
        ({"rate": 100, "block": 480}, "8000 to 192000"),
        ({"rate": 48000, "block": 0}, "blocks of 0"),
        ({"rate": 48000}, "first message"),
        ({"rate": [], "block": {}}, "first message"),
        ("nothing", "first message"),
    ],
)
def test_a_wrong_hello_is_one_line(client: TestClient, hello: object, line: str) -> None:
    with client.websocket_connect(f"{SOUND}?token=secret") as socket:
        socket.send_json(hello)
        assert line in socket.receive_json()["error"]


@pytest.mark.parametrize("message", [b"", b"abc", b"12345", bytes(4 + 4 * (RATE + 1))])
def test_bytes_that_are_no_block_end_the_connection(client: TestClient, message: bytes) -> None:
    with client.websocket_connect(f"{SOUND}?token=secret") as socket:
        socket.send_json({"rate": RATE, "block": BLOCK})
        socket.receive_json()
        socket.send_bytes(message)
        assert f"{len(message)} bytes of sound" in socket.receive_json()["error"]


def test_more_pages_than_there_is_room_for_are_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 1)
    with client.websocket_connect(f"{SOUND}?token=secret") as first:
        first.send_json({"rate": RATE, "block": BLOCK})
        first.receive_json()
        with client.websocket_connect(f"{SOUND}?token=secret") as second:
            assert "1 pages speak already" in second.receive_json()["error"]
    with client.websocket_connect(f"{SOUND}?token=secret") as third:
        third.send_json({"rate": RATE, "block": BLOCK})
        assert third.receive_json()["latency"] > 0


def test_a_voice_is_made_of_a_recording_and_spoken_in() -> None:
    studio = Studio(lambda: LiveVoice("astrape-mini"), token="secret")
    with TestClient(studio.app, base_url=HOST) as client:
        assert 'value="emma" selected' in client.get("/?token=secret").text
        generator, made = np.random.default_rng(1), io.BytesIO()
        envelope = 0.2 + 0.2 * np.sin(np.arange(6 * 16000) / 16000 * 2 * np.pi * 3)
        soundfile.write(made, envelope * generator.standard_normal(6 * 16000), 16000, format="WAV")
        short = io.BytesIO()
        soundfile.write(short, np.zeros(1600), 16000, format="WAV")
        for body, line in ((b"", "recording"), (b"no sound", "recording"), (short.getvalue(), "recording")):
            answer = client.post("/voice?name=bad", content=body)
            assert answer.status_code == 400
            assert line in answer.json()["error"]
            assert "/tmp" not in answer.json()["error"]
        answer = client.post("/voice?name=%3Cb%3Eher", content=made.getvalue())
        assert answer.status_code == 200, answer.text
        assert "<b>her" in answer.json()["voices"]
        # What somebody calls a voice is text on the page, and not HTML.
        assert "&lt;b&gt;her" in client.get("/").text
        x = 0.3 * generator.standard_normal(BLOCK).astype(np.float32)
        with client.websocket_connect(SOUND) as socket:
            socket.send_json({"rate": RATE, "block": BLOCK})
            socket.receive_json()
            socket.send_json({"voice": "<b>her"})
            socket.send_json({"voice": "nobody"})
            assert "no voice 'nobody'" in socket.receive_json()["warning"]
            socket.send_bytes(packed(0, x))
            assert len(next_sound(socket)[1]) == BLOCK


def test_no_more_voices_are_made_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MADE", 0)
    with TestClient(Studio(lambda: LiveVoice("astrape-mini"), token="secret").app, base_url=HOST) as client:
        answer = client.post("/voice?token=secret", content=b"x")
    assert answer.status_code == 409
    assert answer.json()["error"].startswith("0 voices have been made")


def test_what_waits_is_bounded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELD", 1 << 20)
    with client.websocket_connect(f"{SOUND}?token=secret") as socket:
        socket.send_json({"rate": RATE, "block": BLOCK})
        socket.receive_json()
        socket.send_text(" " * (1 << 20))
        assert "more than 1 MiB wait" in socket.receive_json()["error"]


def test_presets_are_there_the_next_time(tmp_path: Path) -> None:
    def page() -> TestClient:
        kept = Presets(tmp_path / "presets" / "robot.json")
        return TestClient(Studio(lambda: LiveVoice("robot-voice"), token="secret", presets=kept).app, base_url=HOST)

    one = {"voice": None, "set": {"drive": 3.0}}
    with page() as client:
        assert client.post("/preset?token=secret&name=%20a%20%3C/script%3E", json=one).json() == {
            "presets": {"a </script>": one}
        }
        for body in ({}, {"set": 1}, {"set": {"drive": "loud"}}, {"set": {"drive": True}}, {"voice": 1, "set": {}}):
            answer = client.post("/preset?token=secret&name=b", json=body)
            assert (answer.status_code, "a preset is" in answer.json()["error"]) == (400, True)
        assert client.post("/preset?token=secret&name=", json=one).status_code == 400
        assert client.post("/preset?token=secret&name=b", content=b"x" * 70_000).status_code == 413
    with page() as client:
        text = client.get("/?token=secret").text
        # It is text on the page, and ends no script.
        assert '<option value="a &lt;/script&gt;">' in text
        assert text.count("</script>") == 2
        assert client.delete("/preset?token=secret&name=a%20%3C/script%3E").json() == {"presets": {}}
    with page() as client:
        assert "&lt;/script&gt;" not in client.get("/?token=secret").text


def test_presets_of_a_broken_file_are_none(tmp_path: Path) -> None:
    for text in ("", "[]", '{"a": 1}', '{"a": {"set": {"x": "y"}}}', '{"a": {"set": {"x": 1e999}}}'):
        (tmp_path / "presets.json").write_text(text)
        assert Presets(tmp_path / "presets.json").read() == {}


def test_a_recording_that_is_too_large_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LONGEST", 1 << 20)
    answer = client.post("/voice?token=secret", content=bytes((1 << 20) + 1))
    assert (answer.status_code, answer.json()["error"]) == (413, "the recording has more than 1 MiB")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "pitch=1,2"], "control 'pitch' is 2 numbers: give 1"),
        (["--set", "pitch=99"], "control 'pitch' is 99, above"),
        (["--set", "speaker=1"], "the speaker is what --voice gives"),
        (["--voice", "nobody"], "nobody"),
        (["--recipe", "robot-voice", "--voice", "emma"], "speaks in no voice"),
    ],
)
def test_a_studio_that_cannot_begin_is_one_line(arguments: list[str], line: str) -> None:
    done = CliRunner().invoke(cli, ["studio", "--no-browser", *arguments])
    assert done.exit_code != 0
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
