"""Windows of parallel sets: which, from where, what is known of them, and the same in every run."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from astrape.corpus.errors import CorpusError
from astrape.corpus.layouts import read_corpus
from astrape.corpus.splits import split_corpus
from astrape.corpus.utterances import Utterance, sets_of
from astrape.training import teachers
from astrape.training.augment import build_augmentation
from astrape.training.caches import Cache, CacheJob, check_cache, make_cache
from astrape.training.errors import CacheError
from astrape.training.pairs import Pairs
from astrape.training.sets import SetWindows
from astrape.training.tables import NO_PHONE
from astrape.training.windows import Cropping, WindowLoader
from tests.training import parallel
from tests.training.corpora import order

NEEDS = ("audio", "pair.wav", "pair.pitch", "phones", "speaker", "pair.speaker")
PERIOD = Fraction(1, 100)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parallel.write_corpus(tmp_path_factory.mktemp("parallel"))


def windows(manifest: Path, pairs: Pairs | None = None, **given: Any) -> SetWindows:
    utterances = given.pop("utterances", None) or split_corpus(read_corpus(manifest)).train
    caches, speakers = given.pop("caches", []), given.pop("speakers", None)
    cropping = replace(Cropping(Fraction(1, 4), PERIOD, 24000, 3), **given)
    return SetWindows(utterances, caches, pairs or Pairs(), NEEDS, cropping, speakers=speakers)


def found(window: dict[str, torch.Tensor], name: str) -> tuple[str, str, int]:
    """The recording and first sample of a window's wave, found by searching all recordings."""
    wave = window[name][0].numpy()
    for voice in parallel.VOICES:
        for number in range(6):
            whole = parallel.recording(number, voice)
            begins = [
                b
                for b in range(0, len(whole) - len(wave) + 1, 600)
                if np.allclose(whole[b:][: len(wave)], wave, atol=1e-3)
            ]
            if begins and np.abs(wave).max() > 0.05:
                return voice, f"{number:06d}", begins[0]
    return "", "", -1


def test_source_target_and_tables_are_of_the_same_seconds(manifest: Path) -> None:
    """Every window is found in the recordings again; its phones, pitch and vectors are those of these seconds."""
    drawn = windows(manifest)
    pairs = set()
    for item in range(24):
        window = drawn[0, item]
        assert window["audio"].shape == window["pair.wav"].shape == (1, 6000)
        assert (window["phones"].shape, window["pair.pitch"].shape) == ((1, 10), (1, 20))
        voice, number, begin = found(window, "audio")
        other, again, start = found(window, "pair.wav")
        if not voice:
            assert float(window["audio"].abs().max()) < 0.05
            continue
        assert (number, begin) == (again, start)
        assert other != voice, "no source is its own target unless it is asked for"
        pairs.add((voice, other))
        folder = manifest.parent / "sets" / "000" / number
        phones = np.load(folder / "phones.npy")[begin // 600 :][:10]
        assert window["phones"][0].tolist() == phones.tolist()
        assert window["pair.pitch"][0].tolist() == np.load(folder / f"{other}.f0.npy")[begin // 300 :][:20].tolist()
        assert window["speaker"].tolist() == parallel.vector(voice).tolist()
        assert window["pair.speaker"].tolist() == parallel.vector(other).tolist()
    assert len(pairs) > 3


def test_what_is_drawn_depends_on_seed_epoch_and_place_alone(manifest: Path) -> None:
    augment = tuple(
        build_augmentation({"use": use})
        for use in ("room", "babble", "noise", "formants", "eq", "band", "saturation", "codec", "gain")
    )
    pairs = Pairs(0.3, False, {}, augment)
    one, other = windows(manifest, pairs), windows(manifest, pairs)
    other[5, 7]
    for place in ((0, 0), (0, 5), (3, 2)):
        first, second = one[place], other[place]
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(one[0, 0]["audio"], one[1, 0]["audio"])
    assert not torch.equal(one[0, 0]["audio"], windows(manifest, pairs, seed=4)[0, 0]["audio"])
    # Two processes with two rows each see what one with four sees.
    whole = next(WindowLoader(one, steps=1, batch=4).epoch(2))
    halves = [next(WindowLoader(one, steps=1, batch=2, rank=rank, world=2).epoch(2)) for rank in range(2)]
    for name, rows in whole.items():
        assert torch.equal(rows, torch.cat([half[name] for half in halves])), name
    # From the middle of an epoch on it is the rest of that epoch.
    steps = list(WindowLoader(one, steps=4, batch=2).epoch(1))
    rest = list(WindowLoader(other, steps=4, batch=2).epoch(1, first=2))
    assert all(torch.equal(a[name], b[name]) for a, b in zip(steps[2:], rest, strict=True) for name in a)


def test_each_set_comes_once_before_any_comes_again(manifest: Path) -> None:
    drawn = windows(manifest)
    assert len(drawn) == 4
    for passes in range(3):
        order = [drawn.drawn(0, 4 * passes + index) for index in range(4)]
        assert sorted(order) == [0, 1, 2, 3]


def test_a_share_of_the_targets_is_the_source_itself(manifest: Path) -> None:
    for share, least, most in ((0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)):
        drawn = windows(manifest, Pairs(share))
        same = sum(
            torch.equal(window["speaker"], window["pair.speaker"]) for window in (drawn[0, item] for item in range(200))
        )
        assert least <= same <= most


def test_the_target_follows_the_gain_and_nothing_else(manifest: Path) -> None:
    plain = windows(manifest)
    louder = windows(manifest, Pairs(0, False, {}, (build_augmentation({"use": "gain", "db": 6.0}),)))
    noisy = windows(manifest, Pairs(0, False, {}, (build_augmentation({"use": "noise", "snr": 10}),)))
    factor = 10 ** (6 / 20)
    for item in range(4):
        before, after, heard = plain[0, item], louder[0, item], noisy[0, item]
        torch.testing.assert_close(after["audio"], before["audio"] * factor)
        torch.testing.assert_close(after["pair.wav"], before["pair.wav"] * factor)
        assert torch.equal(heard["pair.wav"], before["pair.wav"])
        assert not torch.equal(heard["audio"], before["audio"]) or not bool(before["audio"].any())


def test_a_recording_without_a_set_is_its_own_target_without_phones(manifest: Path, tmp_path: Path) -> None:
    """Real speech: pitch from the tracker, vectors from a cache, and nobody knows what sounds when."""
    corpus = mixed(manifest, tmp_path)
    make_cache(CacheJob("pitch", tmp_path / "cache"), corpus)
    make_cache(CacheJob("speakers", tmp_path / "cache", teacher={"use": "spectral"}, per_utterance=True), corpus)
    caches = [Cache(tmp_path / "cache" / what) for what in ("pitch", "speakers")]
    assert not caches[1].by_speaker
    drawn = windows(manifest, caches=caches, utterances=corpus)
    assert sorted(len(renderings) for renderings in drawn.sets) == [1, 3, 3, 3, 3]
    alone = next(one for one in corpus if one.set is None)
    window = drawn.crop(alone)
    assert torch.equal(window["audio"], window["pair.wav"])
    assert torch.equal(window["speaker"], window["pair.speaker"])
    assert set(window["phones"].flatten().tolist()) == {NO_PHONE}
    # The tracker needs a moment at the begin of each tone; the tone itself is known.
    tone = np.load(manifest.parent / "sets/000/000000/low.f0.npy")[:20]
    tracked = window["pair.pitch"][0].numpy()
    both = (tone > 0) & (tracked > 0)
    assert both.sum() >= 5
    assert np.abs(tracked[both] / tone[both] - 1).max() < 0.03


def mixed(manifest: Path, folder: Path) -> list[Utterance]:
    """The corpus, and beside it one recording without set or tables."""
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines = [line | {"path": str(manifest.parent / line["path"])} for line in lines if line["split"] == "train"]
    alone = folder / "alone.flac"
    alone.write_bytes((manifest.parent / "sets/000/000000/low.flac").read_bytes())
    lines.append({"path": str(alone), "speaker": "somebody", "split": "train"})
    (folder / "mixed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_corpus(folder / "mixed.jsonl")


def test_tables_that_are_missing_are_told_with_the_command_that_makes_them(manifest: Path, tmp_path: Path) -> None:
    corpus = mixed(manifest, tmp_path)
    with pytest.raises(CacheError, match=r"1 of 13 utterances, 'somebody/alone' among them, .*cache --what pitch"):
        windows(manifest, utterances=corpus)
    make_cache(CacheJob("pitch", tmp_path / "cache"), corpus)
    with pytest.raises(CacheError, match=r"have no vector of their speaker.*cache --what speakers"):
        windows(manifest, utterances=corpus, caches=[Cache(tmp_path / "cache/pitch")])


def test_renderings_out_of_step_are_refused(manifest: Path) -> None:
    one, other, *_ = split_corpus(read_corpus(manifest)).train
    shorter = replace(other, set="000000", path=parallel.shortened(one.path))
    drawn = windows(manifest, utterances=[replace(one, set="000000"), shorter])
    with pytest.raises(CacheError, match=r"in step to the sample"):
        drawn[0, 0]


def test_cached_audio_is_the_recording_at_the_recipe_s_rate(manifest: Path, tmp_path: Path) -> None:
    corpus = read_corpus(manifest)
    for rate in (24000, 44100):
        made = make_cache(CacheJob("audio", tmp_path, rate=rate), corpus, corpus=manifest)
        assert (made.made, made.failed) == (16, ())
        cache = Cache(tmp_path / f"audio_{rate}hz")
        assert check_cache(cache, corpus).findings == ()
        cached = windows(manifest, caches=[cache], audio=rate)
        decoded = windows(manifest, audio=rate)
        for item in range(6):
            one, other = cached[0, item], decoded[0, item]
            for name in one:
                # Samples are rounded to 1 / 16384.
                torch.testing.assert_close(one[name], other[name], atol=0.6 / 16384, rtol=0)
    path = next((tmp_path / "audio_44100hz").rglob("*.npy"))
    path.write_bytes(path.read_bytes()[:-100])
    (finding,) = check_cache(Cache(tmp_path / "audio_44100hz"), corpus).findings
    assert (finding.kind, finding.path) == ("truncated", str(path))


def test_how_high_a_target_reaches_is_half_its_recording_s_rate(manifest: Path) -> None:
    """Whatever rate it is read at, less what a resampler takes off."""
    window = windows(manifest, audio=44100)[0, 0]
    assert float(window["pair.band"]) == pytest.approx(0.96 * 12000)


def test_validation_windows_are_held_out_and_plain(manifest: Path) -> None:
    split = split_corpus(read_corpus(manifest))
    assert {one.speaker for one in split.unseen} == {"held_one", "held_two"}
    assert not {one.key for one in split.train} & {one.key for one in split.unseen}
    held = windows(manifest, Pairs(0, False, {}, (build_augmentation({"use": "noise"}),)), utterances=split.unseen)
    window = held.crop(split.unseen[0])
    assert found(window, "audio")[0] in ("held_one", "")
    assert torch.equal(window["pair.speaker"], torch.from_numpy(parallel.vector("held_two")))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("split", "test", r"jsonl:1: split is 'test': write train, held or evaluate"),
        ("phones", "none.npy", r"jsonl:1: there is no table .*none.npy"),
        ("set", 7, r"jsonl:1: 'set' must be text"),
    ],
)
def test_a_manifest_s_faults_are_named_by_line(
    manifest: Path, tmp_path: Path, column: str, value: Any, said: str
) -> None:
    line = json.loads(manifest.read_text().splitlines()[0]) | {column: value}
    line["path"] = str(manifest.parent / line["path"])
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    with pytest.raises(CorpusError, match=said):
        read_corpus(tmp_path / "m.jsonl")


def test_what_is_kept_for_evaluation_is_in_neither_part(manifest: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines = [line | {"path": str(manifest.parent / line["path"])} for line in lines]
    kept = [line | {"use": "evaluate"} if line["speaker"] in ("held_one", "low") else line for line in lines]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    split = split_corpus(read_corpus(tmp_path / "m.jsonl"))
    assert {one.speaker for one in split.train} == {"mid", "high"}
    assert {one.speaker for one in split.unseen} == {"held_two"}
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines if line["split"] == "train"))
    with pytest.raises(CorpusError, match=r"12 recordings to train on and 0 with split 'held'"):
        split_corpus(read_corpus(tmp_path / "m.jsonl"))


def test_a_set_s_tables_lie_beside_its_audio(manifest: Path) -> None:
    one = read_corpus(manifest)[0]
    assert one.key == "held_one/000004"
    assert (one.set, one.split) == ("000004", "held")
    assert [path and path.name for path in (one.phones, one.pitch, one.vector)] == [
        "phones.npy",
        "held_one.f0.npy",
        "held_one.spk.npy",
    ]
    assert len(sets_of(read_corpus(manifest))) == 6


@pytest.mark.parametrize(
    ("name", "table", "said"),
    [
        ("phones", np.array([-2], np.int16), "holds the phone -2"),
        ("phones", np.array([0.5]), r"holds \(1,\) of float64 and not one row of whole numbers"),
        ("pitch", np.array([9000.0], np.float32), "not a pitch"),
        ("pitch", np.array([np.nan], np.float32), "not a pitch"),
        ("vector", np.array([np.inf], np.float32), "not all of them finite"),
        ("vector", np.zeros((2, 2), np.float32), r"holds \(2, 2\) of float32"),
    ],
)
def test_tables_that_hold_something_else_are_refused(
    manifest: Path, tmp_path: Path, name: str, table: np.ndarray[Any, Any], said: str
) -> None:
    path = tmp_path / "table.npy"
    np.save(path, table)
    (one, *_) = split_corpus(read_corpus(manifest)).train
    drawn = windows(manifest, utterances=[replace(one, **{name: path})])
    with pytest.raises(CacheError, match=said):
        drawn[0, 0]


def test_targets_are_coloured_and_sources_are_not(manifest: Path) -> None:
    plain, drawn = windows(manifest), windows(manifest, Pairs(colour=6.0))
    changed = 0
    for item in range(12):
        before, after = plain[0, item], drawn[0, item]
        assert torch.equal(before["audio"], after["audio"])
        assert torch.equal(before["speaker"], after["speaker"])
        assert torch.equal(before["pair.speaker"][:96], after["pair.speaker"][:96])
        tone = not torch.equal(before["pair.speaker"][96:], after["pair.speaker"][96:])
        if float(before["pair.wav"].abs().max()) > 0.05:
            assert tone == (not torch.allclose(before["pair.wav"], after["pair.wav"], atol=1e-6))
        assert torch.equal(after["pair.wav"], windows(manifest, Pairs(colour=6.0))[0, item]["pair.wav"])
        changed += tone
    assert 2 < changed < 12


def test_speakers_are_blurred_and_their_voices_are_not(manifest: Path) -> None:
    plain, drawn = windows(manifest), windows(manifest, Pairs(blur=0.25))
    for item in range(8):
        before, after = plain[0, item], drawn[0, item]
        assert torch.equal(before["pair.wav"], after["pair.wav"])
        assert torch.equal(before["speaker"], after["speaker"])
        assert not torch.equal(before["pair.speaker"], after["pair.speaker"])
        assert torch.equal(after["pair.speaker"], windows(manifest, Pairs(blur=0.25))[0, item]["pair.speaker"])


def test_speech_begins_after_silence_in_all_signals_alike(manifest: Path) -> None:
    drawn = windows(manifest, Pairs(onsets=1.0, both=True), seconds=Fraction(1))
    silences = set()
    for item in range(24):
        window = drawn[0, item]
        there = [
            (voice, number, lead)
            for voice in parallel.VOICES
            for number in range(6)
            for lead in range(0, 12001, 600)
            if np.allclose(_after(parallel.recording(number, voice), lead, 24000), window["audio"][0], atol=1e-3)
        ]
        ((voice, number, lead),) = there
        silences.add(lead)
        folder = manifest.parent / "sets" / "000" / f"{number:06d}"
        phones = np.load(folder / "phones.npy")
        assert window["phones"][0].tolist() == _after(phones, lead // 600, 40, NO_PHONE).tolist()
        (target,) = {one for one in parallel.VOICES if parallel.vector(one).tolist() == window["pair.speaker"].tolist()}
        wave = _after(parallel.recording(number, target), lead, 24000)
        np.testing.assert_allclose(window["pair.wav"][0], wave, rtol=0, atol=1e-3)
        pitch = np.load(folder / f"{target}.f0.npy")
        assert window["pair.pitch"][0].tolist() == _after(pitch, lead // 300, 80).tolist()
        assert float(window["valid"]) == min(1.0, lead / 24000 + len(parallel.recording(number, voice)) / 24000)
    assert len(silences) > 4, "how long it is silent is drawn too"
    assert max(silences) <= 12000, "no more than half of a window"


def _after(signal: NDArray[Any], lead: int, count: int, empty: float = 0) -> NDArray[Any]:
    """The first ``count`` of a signal that begins after ``lead``, and nothing after its end."""
    made = np.full(max(count, lead + len(signal)), empty, signal.dtype)
    made[lead : lead + len(signal)] = signal
    return made[:count]


def test_a_share_of_the_windows_begins_after_silence(manifest: Path) -> None:
    plain, drawn = windows(manifest), windows(manifest, Pairs(onsets=0.5, same=0.0))
    changed = [not torch.equal(plain[0, item]["pair.wav"], drawn[0, item]["pair.wav"]) for item in range(40)]
    assert 10 < sum(changed) < 30


def test_silence_before_speech_needs_no_cache_of_content(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(teachers.TEACHERS, "level", "tests.training.corpora:LevelTeacher")
    corpus = read_corpus(manifest)
    make_cache(order(tmp_path / "cache", "content", teacher={"use": "level"}), corpus)
    with pytest.raises(CacheError, match=r"`onsets: 0.5` puts silence before speech.*hint: leave `onsets` out"):
        windows(manifest, Pairs(onsets=0.5), caches=[Cache(tmp_path / "cache" / "content")])


def test_a_manifest_says_which_source_a_set_is_of(manifest: Path, tmp_path: Path) -> None:
    """Half of the draws are of the one set that is called rare."""
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines = [line | {"path": str(manifest.parent / line["path"])} for line in lines]
    rare = lines[0]["set"]
    marked = [line | {"source": "rare" if line["set"] == rare else "plenty"} for line in lines]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in marked))
    train = split_corpus(read_corpus(tmp_path / "m.jsonl")).train
    drawn = windows(manifest, Pairs(shares={"rare": 1, "other": 1}), utterances=train)
    found = [drawn.sets[drawn.drawn(0, place)][0].set == rare for place in range(20)]
    assert sum(found) == 10
