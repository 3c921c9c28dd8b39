"""``astrape convert`` over folders: paths kept, nothing overwritten, and past what cannot be read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import soundfile

import astrape
from astrape.errors import AstrapeError
from astrape.jobs import Engine
from astrape.voice.conversion import Converter
from tests.voice.conversion_files import fails, run, sines, succeeds, voicebank, write


def test_a_folder_keeps_its_paths_and_goes_past_what_cannot_be_read(tmp_path: Path, through: Path, bank: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "in" / "converted"
    for name, rate in {"a.wav": 8000, "deep/er/b.flac": 16000, "deep/c.aiff": 44100, ".hidden/d.wav": 8000}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(source / name, sines(0.1, rate), rate)
    (source / "deep" / "broken.wav").write_bytes(b"RIFF and nothing more")
    (source / "notes.txt").write_text("no audio")
    words = ("convert", source, "--target", bank, "-o", out, "--recipe", through)
    # The second run finds the first one's output inside the source, and leaves it alone.
    for result in (run(*words), run(*words, "--json")):
        fails(result, "broken.wav", "not a readable audio file")
        assert result.exit_code == 1
        assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
            "a.wav",
            "deep/c.aiff",
            "deep/er/b.flac",
        ]
    told = json.loads(result.stdout)
    assert [Path(done["source"]).name for done in told["converted"]] == ["a.wav", "c.aiff", "b.flac"]
    assert [Path(failure["source"]).name for failure in told["failed"]] == ["broken.wav"]
    assert told["passed_over"] == 1
    for done in told["converted"]:
        assert done["frames_out"] == done["frames_in"] == soundfile.info(done["target"]).frames
    (source / "deep" / "broken.wav").unlink()
    assert "3 of 3 files" in succeeds(run(*words)).stdout


def test_progress_of_a_folder_runs_to_the_number_of_files(tmp_path: Path, through: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "ab":
        write(tmp_path / "in" / f"{name}.wav", sines(1, 8000), 8000)
    told: list[tuple[float, float | None]] = []
    converter = Converter(astrape.load(through))
    converter.folder(
        tmp_path / "in", tmp_path / "out", voicebank(1), chunk_ms=500, progress=lambda *step: told.append(step)
    )
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (2.0, 2.0)
    assert any(0 < done < 1 for done, _ in told)


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_bytes_of_a_folder_do_not_depend_on_who_converts(
    tmp_path: Path, through: Path, bank: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'astrape[ray]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "in").mkdir()
    for index, rate in enumerate((8000, 16000, 44100, 8000, 22050)):
        # Not FLOAT: there, libsndfile writes the time of day into the file.
        write(tmp_path / "in" / f"{index}.wav", sines(0.2 + 0.1 * index, rate), rate, "PCM_16")
    (tmp_path / "in" / "2b.wav").write_bytes(b"RIFF and nothing more")
    words = ("convert", tmp_path / "in", "--target", bank, "--recipe", through, "--json", "-o")
    told = {}
    for name, more in {"one": (), "many": ("--jobs", 2, "--engine", engine)}.items():
        result = run(*words, tmp_path / name, *more)
        fails(result, "2b.wav", "not a readable audio file")
        told[name] = json.loads(result.stdout)
    one, many = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in told)
    assert len(one) == 5
    assert one == many
    sources = [[Path(done["source"]).name for done in told[name]["converted"]] for name in told]
    assert sources[0] == sources[1] == sorted(one)


def test_folders_in_a_store_are_converted_as_folders(
    tmp_path: Path, through: Path, bank: Path, s3: str, read_cache: Path
) -> None:
    """From a bucket to a bucket, to a folder, and from one; by this process and by two others."""
    from astrape.audio.places import Place

    for name, rate in {"a.wav": 8000, "deep/er/b.flac": 16000, "deep/c.aiff": 44100, ".hidden/d.wav": 8000}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, sines(0.1, rate), rate, subtype="PCM_16")
    (tmp_path / "in" / "deep" / "broken.wav").write_bytes(b"RIFF and nothing more")
    bucket = Place(s3)
    for name in Place(tmp_path / "in").names():
        (bucket / "in" / name).write(tmp_path / "in" / name)
    ways = {
        tmp_path / "near": (tmp_path / "in",),
        tmp_path / "fetched": (bucket / "in",),
        bucket / "brought": (tmp_path / "in",),
        # The second of these finds the first one's output inside the source, and leaves it alone.
        bucket / "in/converted": (bucket / "in", "--jobs", 2),
        bucket / "in/converted/": (bucket / "in",),
    }
    found = []
    for out, (source, *more) in ways.items():
        result = run("convert", source, "--target", bank, "--recipe", through, "-o", out, *more)
        fails(result, "broken.wav", "not a readable audio file")
        assert "3 of 4 files converted" in result.stdout
        found.append({name: (Place(out) / name).read() for name in Place(out).names()})
    assert sorted(found[0]) == ["a.wav", "deep/c.aiff", "deep/er/b.flac"]
    assert all(one == found[0] for one in found)
    words = ("--target", bank, "--recipe", through, "-o")
    fails(run("convert", bucket / "in", *words, bucket / "in"), f"would overwrite the source {bucket}/in/a.wav")
    fails(run("convert", bucket / "none", *words, tmp_path / "none"), f"{bucket}/none: holds no audio file (of 0)")
    fails(run("convert", "s3://no-such-bucket/a", *words, tmp_path / "none"), "there is no such bucket")
    # One recording is a file of its own, by URL as well.
    succeeds(run("convert", bucket / "in/a.wav", *words, bucket / "one.wav"))
    assert (bucket / "one.wav").read() == found[0]["a.wav"]
    # So is the voice: a voicebank, or a recording that is embedded, from which `voicebank build` makes one there.
    (bucket / "voice.astrape").write(bank)
    succeeds(run("convert", bucket / "in/a.wav", bucket / "two.wav", "--target", bucket / "voice.astrape", *words[2:4]))
    assert (bucket / "two.wav").read() == found[0]["a.wav"]
    soundfile.write(tmp_path / "speech.wav", sines(6, 16000), 16000)
    (bucket / "speech.wav").write(tmp_path / "speech.wav")
    encoder = ("--encoder", "mel-statistics")
    for target in (tmp_path / "speech.wav", bucket / "speech.wav"):
        near = run("convert", tmp_path / "in/a.wav", tmp_path / "of.wav", "--target", target, *words[2:4], *encoder)
        assert (
            json.loads(run("voicebank", "build", target, "-o", bucket / "b.astrape", *encoder, "--json").stdout)[
                "embedding"
            ]
            == json.loads(run("voicebank", "info", bucket / "b.astrape", "--json").stdout)["embedding"]
        )
        succeeds(near)
    for target, said in (
        (bucket / "none.wav", f"{bucket}/none.wav: there is no such file"),
        (bucket / "none.astrape", f"{bucket}/none.astrape: there is no such file"),
        ("s3://no-such-bucket/v.wav", "s3://no-such-bucket/v.wav: there is no such bucket: hint: make it first"),
    ):
        fails(run("convert", bucket / "in", tmp_path / "never", "--target", target, *words[2:4]), said)


def test_what_a_killed_run_left_half_written_is_removed_by_the_next(tmp_path: Path, through: Path, bank: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write(tmp_path / "in" / "deep" / "a.wav", sines(0.1, 8000), 8000)
    (tmp_path / "out" / "deep").mkdir(parents=True)
    left, written_now = (tmp_path / "out" / "deep" / f".{name}.wav.elsewhere.1.ff.writing.wav" for name in "ab")
    for path in (left, written_now):
        path.write_bytes(b"RIFF")
    # Of another machine, nobody knows whether its process lives: after an hour it does not.
    os.utime(left, (time.time() - 4000,) * 2)
    words = ("--target", bank, "--recipe", through, "-o", tmp_path / "out")
    succeeds(run("convert", tmp_path / "in", *words))
    assert sorted(path.name for path in (tmp_path / "out" / "deep").iterdir()) == [written_now.name, "a.wav"]


def test_workers_are_for_folders_and_for_what_they_can_load(tmp_path: Path, through: Path, bank: Path) -> None:
    (tmp_path / "in").mkdir()
    source = write(tmp_path / "in" / "a.wav", sines(0.1, 8000), 8000)
    words = ("convert", source, "--target", bank, "--recipe", through, "-o", tmp_path / "out.wav")
    fails(run(*words, "--jobs", 2), "--jobs 2: is for a folder, and SRC is one recording")
    fails(run(*words, "--engine", "ray"), "--engine ray: is for a folder, and SRC is one recording")
    fails(run(*words, "--ray", "10.0.0.1:6379"), "10.0.0.1:6379 is for the engine ray; hint: --engine ray")
    converter = Converter(astrape.load(through))
    with pytest.raises(AstrapeError, match=r"hint: make it with Converter\.load"):
        converter.folder(source.parent, tmp_path / "out", voicebank(1), engine=Engine(workers=2))


@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_no_output_is_the_voice_under_any_name(tmp_path: Path, through: Path, link: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    for name in ("a.wav", "b.wav"):
        write(source / name, sines(0.1, 8000), 8000)
    voice = write(out / "b.wav" if link == "same" else tmp_path / "voice.wav", sines(6, 16000), 16000)
    if link == "symbolic":
        (out / "b.wav").symlink_to(voice)
    elif link == "hard":
        (out / "b.wav").hardlink_to(voice)
    before = voice.read_bytes()
    words: tuple[Any, ...] = ("convert", source, "--target", voice, "-o", out, "--recipe", through)
    fails(run(*words), "would overwrite", "in use as the voice")
    assert voice.read_bytes() == before
    # Nothing is converted before all is known to be safe.
    assert sorted(path.name for path in out.iterdir()) == ["b.wav"]


def test_no_output_is_a_source_under_another_name(tmp_path: Path, through: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    for name in ("a.wav", "b.wav"):
        write(source / name, sines(0.1, 8000), 8000)
    (out / "b.wav").hardlink_to(source / "a.wav")
    with pytest.raises(AstrapeError, match="would overwrite the source"):
        Converter(astrape.load(through)).folder(source, out, voicebank(1))
    assert not (out / "a.wav").exists()


def test_what_no_one_reads_is_named_in_text_and_json(tmp_path: Path, through: Path, bank: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write(source / "a.wav", sines(0.1, 8000), 8000)
    for name in ("b.wma", "c.webm"):
        (source / name).write_bytes(b"\x30\x26\xb2\x75 and nothing that could be decoded")
    (source / "notes.doc").write_text("no audio")
    words = ("convert", source, "--target", bank, "-o", out, "--recipe", through)
    result = run(*words)
    assert result.exit_code == 1
    for name in ("b.wma: ", "c.webm: "):
        assert name in result.stderr
    assert "1 of 3 files converted" in result.stdout
    assert "1 passed over, no audio by their endings: notes.doc" in result.stdout
    told = json.loads(run(*words, "--json").stdout)
    assert sorted(Path(one["source"]).name for one in told["failed"]) == ["b.wma", "c.webm"]
    assert [Path(one).name for one in told["passed_over_files"]] == ["notes.doc"]
    assert sorted(path.name for path in out.iterdir()) == ["a.wav"]
