"""The page of a run: one file, with its sounds and pictures in it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from astrape.voice.evaluation.page import write_page
from astrape.voice.evaluation.pictures import curve, height, spectrogram
from astrape.voice.evaluation.pitch import PitchTrack
from astrape.voice.evaluation.recording import Recording
from tests.voice.conversion_files import succeeds
from tests.voice.evaluation.runs import through


class Page(HTMLParser):
    """References of a page, and whether its elements close."""

    VOID = ("meta", "img", "polyline", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.assets = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.found[-1:] and self.found[-1][1].get("id") == "assets" and not self.assets:
            self.assets = data

    def attributes(self, name: str) -> Iterator[str]:
        return (value for _, attributes in self.found if (value := attributes.get(name)))


def test_the_page_is_one_file_with_its_sounds_and_pictures(folder: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    name = "anna/1<b>&'\"ü.wav"
    source = folder / "speech" / "anna" / "1.wav"
    source = source.rename(source.with_name(Path(name).name.replace("/", "")))
    source.with_suffix(".txt").write_text("had </script><script>alert(1)</script> he")
    words = ("--sources", folder / "speech", "--targets", folder / "voices", "-o", folder / "run")
    succeeds(through(folder, *words))
    text = (folder / "run" / "index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text
    page = Page(text)
    assert not page.open
    assert sum(tag == "script" for tag, _ in page.found) == 2
    # Nothing is fetched from elsewhere: links lead inside, sounds and pictures are stored.
    links = [value for name in ("src", "href", "action", "data") for value in page.attributes(name)]
    assert all(link.startswith("#") for link in links)
    anchors = set(page.attributes("id"))
    assert {link[1:] for link in links} <= anchors
    assert "default-src 'none'" in next(page.attributes("content"), "") + " ".join(page.attributes("content"))
    stored = json.loads(page.assets)
    wanted = set(page.attributes("data-asset"))
    assert wanted == set(stored)
    # Four sources and four results, each with its picture.
    assert len(stored) == 16
    for key, address in stored.items():
        head, body = address.split(",", 1)
        content = base64.b64decode(body, validate=True)
        if key.startswith("sound"):
            assert head == "data:audio/flac;base64"
            samples, rate = soundfile.read(io.BytesIO(content))
            assert (len(samples), rate) == (16000, 16000)
        else:
            assert content.startswith(b"\x89PNG")
    assert all(tag != "img" or attributes.get("alt") for tag, attributes in page.found)
    assert all(tag != "audio" or attributes.get("aria-label") for tag, attributes in page.found)


def test_a_page_with_nothing_to_hear(folder: Path) -> None:
    from astrape.voice.evaluation import Converted, all_pairs, evaluate, read_sources, read_targets

    pairs = all_pairs(read_sources([folder / "speech"]), read_targets([folder / "voices"]))
    found = evaluate(pairs, Converted(folder / "voices"), metrics=["spectrum"])
    assert len(found.failed) == 4
    write_page(found, folder / "page.html")
    text = (folder / "page.html").read_text()
    assert "There is nothing to listen to" in text
    assert "4 pairs could not be converted" in text


def test_the_curve_stands_where_the_pitch_is() -> None:
    hertz = np.array([0, 100, 101, 0, 100, 300, 300])
    stretches = curve(PitchTrack(hertz.astype(float)), 7 / 62.5)
    assert [len(stretch) for stretch in stretches] == [2, 1, 2]
    assert stretches[0][0] == pytest.approx((1 / 7, height(100)))
    assert (height(60), height(20000), height(20)) == (0, 1, 0)
    assert height(np.sqrt(60 * 20000)) == pytest.approx(0.5)


@pytest.mark.parametrize("hertz", [200.0, 3000.0, 12000.0])
def test_a_tone_is_drawn_at_its_height_up_to_the_top_of_hearing(tmp_path: Path, hertz: float) -> None:
    rate = 44100
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate), rate)
    content = base64.b64decode(spectrogram(Recording(tmp_path / "tone.wav")).split(",", 1)[1])
    light = np.asarray(Image.open(io.BytesIO(content)).convert("L"), float)[::-1].mean(axis=1)
    assert light.argmax() / (len(light) - 1) == pytest.approx(height(hertz), abs=0.01)
