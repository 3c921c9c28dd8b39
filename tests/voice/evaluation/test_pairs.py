"""Pairs of sources and targets: folders, VCTK, tables, and errors in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from astrape.voice.evaluation import EvaluationError, all_pairs, read_pairs, read_sources, read_targets
from astrape.voice.evaluation.pairs import own_voices, some, utterance
from astrape.voice.evaluation.systems import Converted
from astrape.voice.shipped import shipped_voices


def sound(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(800)), 8000)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_a_folder_in_vctks_layout_has_speakers_and_transcripts(tmp_path: Path) -> None:
    for name in ("p225_001", "p225_002"):
        sound(tmp_path / "wav48_silence_trimmed" / "p225" / f"{name}_mic1.flac")
    text(tmp_path / "txt" / "p225" / "p225_001.txt", "Please call Stella.\n")
    found = read_sources([tmp_path])
    assert [(one.key, one.text) for one in found] == [
        ("p225/p225_001", "Please call Stella."),
        ("p225/p225_002", None),
    ]
    single = utterance(tmp_path / "wav48_silence_trimmed" / "p225" / "p225_001_mic1.flac")
    assert (single.speaker, single.text) == ("p225", "Please call Stella.")


def test_files_folders_and_manifests_are_taken_together(tmp_path: Path) -> None:
    one = sound(tmp_path / "anna" / "one.wav")
    text(tmp_path / "anna" / "one.txt", "One.")
    sound(tmp_path / "more" / "ben" / "two.wav")
    sound(tmp_path / "far" / "three.wav")
    table = text(tmp_path / "list.tsv", "path\tspeaker\ttext\nfar/three.wav\tcara\tThree.\n")
    found = read_sources([one, tmp_path / "more", table])
    assert [(source.key, source.text) for source in found] == [
        ("anna/one", "One."),
        ("ben/two", None),
        ("cara/three", "Three."),
    ]
    with pytest.raises(EvaluationError, match="are both 'anna/one'"):
        read_sources([one, tmp_path])


def test_wrong_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="missing: there is no such file or folder"):
        read_sources([tmp_path / "missing"])
    with pytest.raises(EvaluationError, match="empty: holds no audio"):
        read_sources([tmp_path / "empty"])


def test_voicebanks_are_compared_with_the_recording_of_their_name(tmp_path: Path) -> None:
    for name in ("a.astrape", "a.npz", "b.astrape"):
        text(tmp_path / "voices" / name, "")
    sound(tmp_path / "voices" / "a.wav")
    sound(tmp_path / "voices" / "c.flac")
    sound(tmp_path / "heard" / "b.wav")
    found = {target.name: target for target in read_targets([tmp_path / "voices"])}
    assert {name: target.files[0].name for name, target in found.items()} == {
        "a": "a.astrape",
        "b": "b.astrape",
        "c": "c.flac",
    }
    assert found["a"].audio == tmp_path / "voices" / "a.wav"
    assert found["b"].audio is None
    assert found["c"].audio == found["c"].files[0]
    (b,) = read_targets([tmp_path / "voices" / "b.astrape"], tmp_path / "heard")
    assert b.audio == tmp_path / "heard" / "b.wav"
    (b,) = read_targets([tmp_path / "voices" / "b.astrape"], tmp_path / "voices" / "a.wav")
    assert b.audio == tmp_path / "voices" / "a.wav"


def test_voices_that_ship_are_targets_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = shipped_voices()
    found = read_targets([Path("emma"), Path("george")])
    assert [(one.name, one.files, one.audio) for one in found] == [
        (name, (shipped[name],), shipped[name].with_suffix(".flac")) for name in ("emma", "george")
    ]
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "pairs.csv").write_text("source,target\na.wav,emma\n")
    (pair,) = read_pairs(tmp_path / "pairs.csv")
    assert pair.target == found[0]
    # A file or folder of that name goes before.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emma").mkdir()
    (tmp_path / "emma" / "b.wav").write_bytes(b"x")
    assert [one.name for one in read_targets([Path("emma")])] == ["b"]
    with pytest.raises(EvaluationError, match=r"nobody: there is no such voicebank.*hint: those that do are emma"):
        read_targets([Path("nobody")])


def test_wrong_targets_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    text(tmp_path / "one" / "a.astrape", "")
    text(tmp_path / "two" / "a.astrape", "")
    voice = sound(tmp_path / "voice.wav")
    with pytest.raises(EvaluationError, match="there is no such voicebank"):
        read_targets([tmp_path / "missing.astrape"])
    with pytest.raises(EvaluationError, match="empty: holds no voicebank"):
        read_targets([tmp_path / "empty"])
    with pytest.raises(EvaluationError, match="there are two targets 'a'"):
        read_targets([tmp_path / "one", tmp_path / "two"])
    text(tmp_path / "one" / "b.astrape", "")
    with pytest.raises(EvaluationError, match="is one recording for 2 targets"):
        read_targets([tmp_path / "one"], voice)
    with pytest.raises(EvaluationError, match="there is no such recording of the target"):
        read_targets([tmp_path / "one"], tmp_path / "missing.wav")


def test_all_pairs_some_pairs_and_own_voices(tmp_path: Path) -> None:
    for name in ("anna/1", "anna/2", "ben/1"):
        sound(tmp_path / "speech" / f"{name}.wav")
    for name in "xy":
        text(tmp_path / "voices" / f"{name}.astrape", "")
    sources, targets = read_sources([tmp_path / "speech"]), read_targets([tmp_path / "voices"])
    pairs = all_pairs(sources, targets)
    assert [pair.name for pair in pairs][:3] == ["anna/1 to x", "anna/1 to y", "anna/2 to x"]
    assert some(pairs, None, 0) == some(pairs, 99, 0) == pairs
    drawn = some(pairs, 3, 7)
    assert len(drawn) == 3
    assert drawn == [pair for pair in pairs if pair in drawn] == some(pairs, 3, 7)
    own = own_voices(sources)
    assert all(pair.own_voice and pair.target and pair.target.audio == pair.source.path for pair in own)
    assert [len(pair.target.files) for pair in own if pair.target] == [2, 2, 1]


class TestTables:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("s.wav", "t.wav", "c.wav"):
            sound(tmp_path / name)
        text(tmp_path / "v.astrape", "")
        return tmp_path

    def test_a_row_has_all_there_is_to_say(self, folder: Path) -> None:
        row = {
            "source": "s.wav",
            "target": "v.astrape",
            "target_audio": "t.wav",
            "text": 'He said "no".',
            "converted": "c.wav",
            "speaker": "anna",
            "own_voice": "yes",
        }
        tabs = text(folder / "a.tsv", "\t".join(row) + "\n" + "\t".join(row.values()) + "\n")
        lines = text(folder / "a.jsonl", json.dumps(row) + "\n\n")
        for table in (tabs, lines):
            (pair,) = read_pairs(table)
            assert pair.source.key == "anna/s"
            assert pair.source.text == 'He said "no".'
            assert pair.target is not None
            assert (pair.target.files, pair.target.audio) == ((folder / "v.astrape",), folder / "t.wav")
            assert pair.converted == folder / "c.wav"
            assert pair.own_voice

    def test_what_another_system_converted_needs_no_target(self, folder: Path) -> None:
        (pair,) = read_pairs(text(folder / "a.csv", "source,converted,target\ns.wav,c.wav,\n"))
        assert pair.target is None
        assert Converted().render(pair).path == folder / "c.wav"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("path\nx.wav\n", "a.csv:1: has no column 'source'"),
            ("source,target\ns.wav\n", "a.csv:2: has 1 columns and not 2"),
            ("source,target\ns.wav,v.astrape,more\n", "a.csv:2: has 3 columns and not 2"),
            ("source,target\n,v.astrape\n", "a.csv:2: has no 'source'"),
            ("source,target\nnone.wav,v.astrape\n", "there is no such file"),
            ("source,target\ns.wav,\n", "has neither a 'target' to convert to nor a 'converted' file"),
            ("source,target\n", "lists no pair"),
            ("source,target\ns.wav,t.wav\ns.wav,t.wav\n", "twice"),
        ],
    )
    def test_what_is_wrong_is_said_with_the_line(self, folder: Path, content: str, said: str) -> None:
        with pytest.raises(EvaluationError, match=said):
            read_pairs(text(folder / "a.csv", content))

    def test_wrong_files_are_named(self, folder: Path) -> None:
        with pytest.raises(EvaluationError, match="pairs are listed in a table"):
            read_pairs(text(folder / "a.txt", "source\n"))
        with pytest.raises(EvaluationError, match=r"a\.jsonl:2: is not JSON"):
            read_pairs(text(folder / "a.jsonl", '{"source": "s.wav", "target": "t.wav"}\n{"source"\n'))
        with pytest.raises(EvaluationError, match="'source' must be text"):
            read_pairs(text(folder / "a.jsonl", '{"source": 3}\n'))
        (folder / "b.csv").write_bytes(b"source\n\xff\n")
        with pytest.raises(EvaluationError, match="is not UTF-8 at byte 7"):
            read_pairs(folder / "b.csv")


def test_converted_files_are_found_by_any_of_their_names(tmp_path: Path) -> None:
    sound(tmp_path / "speech" / "anna" / "1.wav")
    for name in "xyz":
        text(tmp_path / "voices" / f"{name}.astrape", "")
    pairs = all_pairs(read_sources([tmp_path / "speech"]), read_targets([tmp_path / "voices"]))
    sound(tmp_path / "out" / "x" / "anna" / "1.flac")
    sound(tmp_path / "out" / "y" / "1.WAV")
    found = Converted(tmp_path / "out", 0.06)
    assert [str(found.render(pair).path.relative_to(tmp_path / "out")) for pair in pairs[:2]] == [
        "x/anna/1.flac",
        "y/1.WAV",
    ]
    assert found.render(pairs[0]).late == 0.06
    with pytest.raises(EvaluationError, match=r"out: holds no converted file z/anna/1\.wav"):
        found.render(pairs[2])
    with pytest.raises(EvaluationError, match="there is no such converted file"):
        Converted(tmp_path / "missing")
