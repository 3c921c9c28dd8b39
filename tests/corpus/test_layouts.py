from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.corpus.errors import CorpusError
from astrape.corpus.layouts import default_corpus, read_corpus
from astrape.corpus.splits import split_by_speaker
from astrape.corpus.utterances import Utterance, speakers_of
from astrape.training.caches.recording import read_header
from tests.training.corpora import speech, vctk, write


def keys(root: Path, microphone: str = "mic1") -> list[str]:
    return [one.key for one in read_corpus(root, microphone)]


def test_vctk_is_read_by_speaker_with_its_transcripts(tmp_path: Path) -> None:
    vctk(tmp_path, speakers=2, utterances=2)
    found = read_corpus(tmp_path)
    assert [one.key for one in found] == ["p225/p225_001", "p225/p225_002", "p226/p226_001", "p226/p226_002"]
    assert found[0].path.name == "p225_001_mic1.flac"
    assert found[1].text == "Sentence 2."
    (tmp_path / "txt" / "p225" / "p225_001.txt").unlink()
    assert read_corpus(tmp_path)[0].text is None


@pytest.mark.parametrize("inside", ["", "wav48_silence_trimmed"])
def test_vctk_is_found_from_its_own_folder_and_from_around_it(tmp_path: Path, inside: str) -> None:
    vctk(tmp_path / "VCTK-Corpus-0.92", speakers=1, utterances=1)
    around = tmp_path if not inside else tmp_path / "VCTK-Corpus-0.92" / inside
    assert [(one.key, one.text) for one in read_corpus(around)] == [("p225/p225_001", "Sentence 1.")]


def test_one_of_two_microphones_is_taken_and_the_other_where_it_is_missing(tmp_path: Path) -> None:
    audio = tmp_path / "wav48_silence_trimmed"
    for name in ("p1/p1_001_mic1", "p1/p1_001_mic2", "p1/p1_002_mic2", "p1/p1_003_mic1"):
        write(audio / f"{name}.flac", speech(0, 0.2))
    for microphone, wanted in (("mic1", "mic1 mic2 mic1"), ("mic2", "mic2 mic2 mic1")):
        found = read_corpus(tmp_path, microphone)
        assert [one.name for one in found] == ["p1_001", "p1_002", "p1_003"]
        assert [one.path.stem.split("_")[-1] for one in found] == wanted.split()
    assert keys(tmp_path, "both") == [
        "p1/p1_001_mic1",
        "p1/p1_001_mic2",
        "p1/p1_002_mic2",
        "p1/p1_003_mic1",
    ]


def test_a_folder_of_folders_is_a_speaker_each_and_what_lies_beside_them_one_more(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    for name in ("anna/one.wav", "anna/book/chapter.two.flac", "ben/one.WAV", "loose.wav"):
        write(root / name, speech(0, 0.2))
    (root / "ben" / "one.txt").write_text("Good\n evening. ")
    write(root / "ben" / "._one.wav", speech(0, 0.2))
    (root / "notes.md").write_text("no audio")
    assert keys(root) == ["anna/book/chapter.two", "anna/one", "ben/one", "corpus/loose"]
    assert read_corpus(root)[2].text == "Good evening."


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    write(tmp_path / "corpus" / "anna" / "one.wav", speech(0, 0.2))
    os.symlink(tmp_path / "corpus", tmp_path / "corpus" / "anna" / "again")
    assert keys(tmp_path / "corpus") == ["anna/one"]
    os.symlink(tmp_path / "corpus", tmp_path / "linked")
    assert keys(tmp_path / "linked") == ["anna/one"]


def test_two_recordings_of_one_name_are_refused_by_path(tmp_path: Path) -> None:
    write(tmp_path / "anna" / "one.wav", speech(0, 0.2))
    write(tmp_path / "anna" / "one.flac", speech(0, 0.2))
    with pytest.raises(CorpusError, match=r"one\.flac and .*one\.wav are both 'anna/one'"):
        read_corpus(tmp_path)


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_manifests_say_who_speaks_and_what(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "audio" / "a.wav", speech(0, 0.2))
    write(tmp_path / "audio" / "b.wav", speech(0, 0.2))
    rows = [
        {"path": "audio/a.wav", "speaker": "anna", "text": 'She said "no", once.', "more": "x"},
        {"path": str(tmp_path / "audio" / "b.wav"), "speaker": "ben", "name": "first", "text": ""},
    ]
    manifest = tmp_path / f"list.{ending}"
    if ending == "jsonl":
        manifest.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        columns = ["path", "speaker", "name", "text", "more"]
        cells = [[row.get(column, "") for column in columns] for row in rows]
        if ending == "csv":
            cells = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in cells]
        sign = "\t" if ending == "tsv" else ","
        manifest.write_text("\ufeff" + "\n".join(sign.join(row) for row in [columns, *cells]) + "\n")
    found = read_corpus(manifest)
    assert [one.key for one in found] == ["anna/a", "ben/first"]
    assert found[0].text == 'She said "no", once.'
    assert found[1].text is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tsv", "", ":1: has no column 'path'"),
        ("a.tsv", "path\tname\n", ":1: has no column 'speaker'"),
        ("a.tsv", "path\tspeaker\nx.wav\n", ":2: has 1 columns and not 2"),
        ("a.tsv", "path\tspeaker\n\nmissing.wav\tanna\n", ":3: there is no file"),
        ("a.tsv", "path\tspeaker\nx.wav\t \n", ":2: 'speaker' must be text and not empty"),
        ("a.csv", 'path,speaker\n"x.wav,anna\n', ":2: unexpected end of data"),
        ("a.jsonl", '{"path": "x.wav"}', ":1: 'speaker' must be text"),
        ("a.jsonl", "\n[1]", ":2: is not an object"),
        ("a.jsonl", "{", ":1: is not JSON"),
        ("a.jsonl", '{"path": "x.wav", "speaker": "anna", "text": 3}', ":1: 'text' must be text"),
        ("a.jsonl", '{"path": "x\\u0000.wav", "speaker": "anna"}', ":1: there is no file"),
        ("a.jsonl", '{"path": "x.wav", "speaker": "../anna"}', "rename them"),
        ("a.jsonl", '{"path": "x.wav", "speaker": "anna", "name": "../../x"}', "rename them"),
        ("a.jsonl", '{"path": "x.wav", "speaker": "anna", "name": "/x"}', "rename them"),
        ("a.jsonl", '{"path": "x.wav", "speaker": "anna", "name": "x.codes"}', "rename them"),
        ("a.jsonl", '{"path": "x.wav", "speaker": "anna", "name": "a//b"}', "rename them"),
        ("a.jsonl", "", "holds no audio"),
        ("a.txt", "", "is a file, and no manifest"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_named_by_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    write(tmp_path / "x.wav", speech(0, 0.2))
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError) as caught:
        read_corpus(tmp_path / name)
    assert said in str(caught.value)


def test_manifests_of_other_bytes_and_no_corpus_at_all_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"path\tspeaker\n\xff\tx\n")
    with pytest.raises(CorpusError, match="not UTF-8 at byte 13"):
        read_corpus(tmp_path / "a.tsv")
    with pytest.raises(CorpusError, match="there is no such folder or manifest"):
        read_corpus(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="holds no audio"):
        read_corpus(tmp_path / "empty")
    with pytest.raises(CorpusError, match="microphone must be one of"):
        read_corpus(tmp_path, "mic3")


def test_names_of_any_bytes_are_read_and_can_be_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"anna\xff")
    sound = write(tmp_path / "one.wav", speech(0, 0.2))
    try:
        (tmp_path / "corpus" / name).mkdir(parents=True)
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    sound.rename(tmp_path / "corpus" / name / "one.wav")
    (one,) = read_corpus(tmp_path / "corpus")
    assert one.speaker == name
    assert read_header(one.path).frames == 3200
    with pytest.raises(CorpusError, match="there is 'anna\ufffd' alone"):
        split_by_speaker([one])


def test_the_default_corpus_is_data_or_vctk_right_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match="--data"):
        default_corpus()
    vctk(tmp_path, speakers=1, utterances=1)
    assert keys(default_corpus()) == ["p225/p225_001"]
    write(tmp_path / "data" / "anna" / "one.wav", speech(0, 0.2))
    assert keys(default_corpus()) == ["anna/one"]


def utterances(names: list[str], each: int = 2) -> list[Utterance]:
    return [Utterance(Path(f"{name}/{n}.wav"), name, str(n)) for name in names for n in range(each)]


@settings(max_examples=60)
@given(
    st.lists(st.text("abcdef123", min_size=1, max_size=5), min_size=2, max_size=40, unique=True),
    st.floats(0.001, 0.999),
    st.integers(0, 2**63),
    st.randoms(),
)
def test_a_split_parts_speakers_whole_and_the_same_way_in_any_order(
    names: list[str], share: float, seed: int, random: object
) -> None:
    corpus = utterances(names)
    split = split_by_speaker(corpus, share, seed)
    mixed = corpus.copy()
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert split_by_speaker(mixed, share, seed) == split
    heard, unseen = set(speakers_of(split.train)), set(speakers_of(split.unseen))
    assert heard
    assert unseen
    assert not heard & unseen
    assert sorted(split.train + split.unseen) == sorted(corpus)
    assert abs(len(unseen) - share * len(names)) <= 1


def test_a_split_hardly_changes_when_a_speaker_joins() -> None:
    names = [f"p{number}" for number in range(100)]
    before = set(speakers_of(split_by_speaker(utterances(names)).unseen))
    after = set(speakers_of(split_by_speaker(utterances([*names, "new"])).unseen))
    assert len(before) == 10
    assert len(before & after) >= 9


def test_other_seeds_set_others_aside() -> None:
    corpus = utterances([f"p{number}" for number in range(100)])
    chosen = {frozenset(speakers_of(split_by_speaker(corpus, seed=seed).unseen)) for seed in range(5)}
    assert len(chosen) == 5


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_split_takes_two_speakers_and_a_share_between(share: float) -> None:
    with pytest.raises(CorpusError, match="over 0 and below 1"):
        split_by_speaker(utterances(["a", "b"]), share)
    with pytest.raises(CorpusError, match="'a' alone"):
        split_by_speaker(utterances(["a"]))
