"""Draws of sentences, splits, voices, mixtures and warps: from a seed and a number alone."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrape.corpus.errors import CorpusError, ToolError
from astrape.corpus.flite import labels_of
from astrape.corpus.phonemes import Vocabulary, flite_token, phonemise, plain_labels
from astrape.corpus.plan import SetPlan, draw_flite, draw_set
from astrape.corpus.rendering import leveled, moved_to, trimmed
from astrape.corpus.sentences import Sentences, read_sentences
from astrape.corpus.voices import HELD, Voices

VOICES = ("af_alloy", "am_adam", "bf_lily", "bm_lewis", "jf_alpha", "zf_xiaoni", *HELD)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Voices:
    folder = tmp_path_factory.mktemp("voices")
    for number, name in enumerate(VOICES):
        (np.arange(510 * 256, dtype="<f4") + number).tofile(folder / f"{name}.bin")
    return Voices(folder)


REGISTERS = {name: 80.0 + 20 * number for number, name in enumerate(VOICES)}
TEXTS = Sentences([f"this is sentence number {'x' * (n % 9)} of them {n}" for n in range(2000)])


def draw(seed: int, number: int, voices: Voices, warps: float = 0.3) -> SetPlan:
    plan = draw_set(seed, number, TEXTS, voices, REGISTERS, warps)
    assert plan is not None
    return plan


@given(seed=st.integers(0, 2**31), number=st.integers(0, 1999))
@settings(max_examples=200, deadline=None)
def test_no_training_set_has_a_held_voice_and_no_held_set_another(voices: Voices, seed: int, number: int) -> None:
    plan = draw(seed, number, voices)
    held = number % 25 == 3
    assert plan.split == ("held" if held else "train")
    speaking = {part for one in plan.renderings for part in one.parts} | {plan.prosody}
    assert all((voice in HELD) == held for voice in speaking)
    assert plan.prosody[0] in "ab"


@given(seed=st.integers(0, 2**31), number=st.integers(0, 1999))
@settings(max_examples=200, deadline=None)
def test_mixtures_are_convex_and_names_say_what_they_are(voices: Voices, seed: int, number: int) -> None:
    plan = draw(seed, number, voices, warps=1.0)
    plain = [one for one in plan.renderings if one.warp is None]
    assert 1 <= len(plain) <= 3
    assert len({one.name for one in plan.renderings}) == len(plan.renderings)
    for one in plain:
        assert math.isclose(sum(one.parts.values()), 1)
        assert len(one.parts) == 1 or min(one.parts.values()) >= 0.02
        told = re.findall(r"-([a-z]+_[a-z]+)_(\d+)", one.name)
        assert {voice: int(share) / 1000 for voice, share in told} == one.parts if told else one.parts == {one.name: 1}
        low, high = (limit([REGISTERS[part] for part in one.parts]) for limit in (min, max))
        assert low * 2 ** (-6 / 12) < one.register < high * 2 ** (6 / 12)
    (warp,) = [one for one in plan.renderings if one.warp is not None]
    assert warp.warp is not None
    assert warp.warp.of in {one.name for one in plain}
    assert 0.8 <= warp.warp.stretch <= 1.25
    assert 64 < warp.register < 401
    assert (warp.warp.stretch > 1.02) <= (warp.warp.pitch > 0.99 or warp.register > 399)


def test_a_plan_depends_on_seed_and_number_alone(voices: Voices) -> None:
    plans = [draw(7, number, voices) for number in range(300)]
    assert plans == [draw(7, number, voices) for number in range(300)]
    assert sum(one == draw(8, one.number, voices) for one in plans) == 0
    # The share of warps adds renderings and moves no other.
    for one in plans:
        bare = draw(7, one.number, voices, warps=0.0)
        assert bare.renderings == tuple(r for r in one.renderings if r.warp is None)
    shares = [
        sum(len(one.renderings) - sum(r.warp is not None for r in one.renderings) == k for one in plans)
        for k in (1, 2, 3)
    ]
    assert shares[0] > 150, "most sentences are in one voice: sentences are what is short"
    assert min(shares) > 5, "sets of one, two and three voices"
    assert 60 < sum(any(r.warp for r in one.renderings) for one in plans) < 120
    assert 0.3 < np.mean([len(r.parts) > 1 for one in plans for r in one.renderings]) < 0.6


def test_sentences_are_examples_of_five_to_fourteen_plain_words_each_once(tmp_path: Path) -> None:
    lines = [
        '  1 This is the licence; "a licence is not an example here"',
        '00000001 00 a 01 x 0 000 | fit; "these five words are fit"; "too few words"',
        '00000002 00 a 01 x 0 000 | fit; "these five words are fit"; "it\'s not fine at all: no"',
        '00000002 00 a 01 x 0 000 | fit; "is it fine, or isn\'t it?"',
        '00000003 00 a 01 x 0 000 | "'
        + " ".join(["word"] * 15)
        + '"; "'
        + " ".join(["word"] * 14)
        + '"; "in 1984 it was not fit"',
        '00000004 00 a 01 x 0 000   "there is no bar before this"',
    ]
    for part in ("adj", "adv", "noun", "verb"):
        (tmp_path / f"data.{part}").write_text("\n".join(lines if part == "adj" else lines[:1]) + "\n")
    found = read_sentences(tmp_path).texts
    assert sorted(found) == ["is it fine, or isn't it?", "these five words are fit", " ".join(["word"] * 14)]
    assert read_sentences(tmp_path).texts == found
    (tmp_path / "data.verb").unlink()
    with pytest.raises(CorpusError, match=r"data\.verb: cannot be read"):
        read_sentences(tmp_path)


def test_what_is_nearly_a_held_sentence_is_in_no_set(voices: Voices) -> None:
    texts = [f"this is the sentence {n}" for n in range(60)]
    texts[3], texts[40], texts[41] = (
        "The birds came early, again.",
        "the birds, came early again!",
        "the birds came early",
    )
    found = Sentences(texts)
    assert [found.split(number) for number in (3, 28, 40, 41)] == ["held", "held", None, "train"]
    assert draw_set(7, 40, found, voices, REGISTERS, 0.0) is None
    assert draw_flite(7, 59 - 40, found, 0.0) is None
    assert draw_flite(7, 59 - 3, found, 0.0) is None
    plan = draw_flite(7, 59 - 41, found, 1.0)
    assert plan is not None
    assert (plan.text, plan.split, len(plan.renderings)) == ("the birds came early", "train", 2)


SIGNS = {sign: number for number, sign in enumerate("ˈˌː ,.abcde", 1)}
LABELS = st.lists(st.integers(0, len(SIGNS)), max_size=30)


@given(LABELS)
def test_plain_labels_give_stress_to_the_sound_it_stands_before(labels: list[int]) -> None:
    signs = {number: sign for sign, number in SIGNS.items()}
    expected: list[int] = []
    for place in range(len(labels)):
        rest = [one for one in labels[place:] if signs.get(one) not in ("ˈ", "ˌ", "ː")]
        sound = signs.get(rest[0]) if rest else None
        expected.append(SIGNS[sound] if sound is not None and sound in "abcde" else 0)
    found = plain_labels(np.array(labels, np.int16), Vocabulary(SIGNS))
    assert found.tolist() == expected


def test_flites_labels_are_what_sounds_in_the_middle_of_each_frame() -> None:
    ends = np.array([0.05, 0.112, 0.113])
    assert labels_of([0, 7, 9], ends, 6).tolist() == [0, 0, 7, 7, 9, 0]
    vocabulary = Vocabulary({"ɑ": 69, "ʧ": 133})
    assert [flite_token(phone, vocabulary) for phone in ("pau", "aa", "ch")] == [0, 69, 133]
    with pytest.raises(CorpusError, match="'qq' has no sign"):
        flite_token("qq", vocabulary)


def test_all_renderings_are_cut_at_the_same_frames() -> None:
    first, second = np.zeros(60 * 100, np.float32), np.zeros(60 * 100, np.float32)
    first[60 * 30 : 60 * 50] = 0.5
    second[60 * 20 + 7] = 0.011
    second[60 * 70] = 0.009
    assert trimmed([first, second], 60) == (15, 56)
    assert trimmed([first], 60) == (25, 56)
    with pytest.raises(CorpusError, match=r"silent: its peak is 0\.008"):
        trimmed([second * np.float32(0.75)], 60)
    second[3] = np.nan
    with pytest.raises(CorpusError, match="not finite"):
        trimmed([first, second], 60)


@given(st.floats(1e-3, 1.5), st.floats(0.0, 3.0))
def test_speech_is_at_one_level_and_never_clips(scale: float, spike: float) -> None:
    audio = (scale * np.sin(np.arange(6000) / 9)).astype(np.float32)
    audio[::2000] += np.float32(spike)
    audio[3000:] = 0
    one = leveled(audio, np.zeros(20, np.float32), 600)
    assert np.abs(one.audio).max() <= 0.98 + 1e-6
    level = np.sqrt((one.audio[:3000].astype(np.float64) ** 2).mean())
    assert math.isclose(level, 10 ** (-23 / 20), rel_tol=0.01) or np.abs(one.audio).max() > 0.979
    np.testing.assert_allclose(one.audio, audio * one.gain, rtol=1e-5)


def test_a_contour_keeps_its_shape_and_takes_the_register() -> None:
    f0 = np.array([[-5.0, 100.0, 200.0, 10.0, 400.0]], np.float32)
    moved = moved_to(f0, 100.0)
    np.testing.assert_allclose(moved, [[-5, 50, 100, 10, 200]], rtol=1e-5)
    assert math.isclose(np.exp(np.log(moved[moved > 40]).mean()), 100, rel_tol=1e-5)
    assert (moved_to(np.full((1, 3), 7, np.float32), 100.0) == 7).all()


def test_espeak_is_needed_for_phones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="hint: apt-get install espeak-ng"):
        phonemise("these are words")


def real_espeak() -> str | None:
    """Path of the program itself: its stand-in in these tests comes first on PATH."""
    for folder in os.environ["PATH"].split(os.pathsep):
        path = shutil.which("espeak-ng", path=folder)
        if path and b"#!/bin/sh" not in Path(path).read_bytes()[:16]:
            return path
    return None


def test_phones_are_kokoros(monkeypatch: pytest.MonkeyPatch) -> None:
    espeak = real_espeak()
    if espeak is None:
        pytest.skip("espeak-ng is not installed")
    said = subprocess.run([espeak, "--version"], capture_output=True, text=True, check=True).stdout
    if " 1.51" not in said:
        pytest.skip(f"other versions have other phones: {said.strip()}")
    monkeypatch.setenv("PATH", f"{Path(espeak).parent}{os.pathsep}{os.environ['PATH']}")
    # As misaki 0.9.4 (EspeakFallback, American) writes them.
    assert phonemise("a practical knowledge of Japanese") == "ə pɹˈæktɪkᵊl nˈɑlɪʤ ʌv ʤˌæpənˈiz."
    assert phonemise("they left early") == "ðA lˈɛft ˈɜɹli."
