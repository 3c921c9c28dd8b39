"""Shares of sources: how many of each come in a round, each set once before any of its source comes again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from astrape.corpus.utterances import Utterance
from astrape.training.blur import blurred
from astrape.training.errors import CacheError, TrainingError
from astrape.training.shares import Shares

COUNTS = {"kokoro": 5, "flite": 11, "recordings": 3}


def sets_of(counts: dict[str, int]) -> list[list[Utterance]]:
    """Sets of one rendering each; their numbers go through all sources."""
    names = [name for name, count in counts.items() for _ in range(count)]
    return [[Utterance(Path(f"{n}.flac"), name, str(n), source=name)] for n, name in enumerate(names)]


@given(
    shares=st.dictionaries(st.sampled_from(["kokoro", "flite", "other"]), st.integers(0, 5), min_size=3, max_size=3),
    rounds=st.integers(1, 12),
    epoch=st.integers(0, 3),
)
def test_a_round_has_each_source_as_often_as_its_share(shares: dict[str, int], rounds: int, epoch: int) -> None:
    sets = sets_of(COUNTS)
    if not any(shares.values()):
        with pytest.raises(CacheError, match="no source has a share above 0"):
            Shares(sets, shares, 3)
        return
    drawn = Shares(sets, shares, 3)
    size = sum(shares.values())
    places = [drawn(epoch, place) for place in range(rounds * size)]
    named = {"kokoro": "kokoro", "flite": "flite", "recordings": "other"}
    for begin in range(0, len(places), size):
        found = Counter(named[str(sets[index][0].source)] for index in places[begin : begin + size])
        assert found == Counter({name: share for name, share in shares.items() if share})
    # Of each source, every set comes once before any comes again.
    for name in COUNTS:
        own = [index for index in places if sets[index][0].source == name]
        count = COUNTS[name]
        for begin in range(0, len(own) - count + 1, count):
            assert len(set(own[begin : begin + count])) == count


def test_places_do_not_depend_on_what_was_asked_before() -> None:
    """Whole batches by several processes, or from the middle on, are those of one process."""
    shares = {"kokoro": 3, "flite": 3, "other": 1}
    whole, other = (Shares(sets_of(COUNTS), shares, 3) for _ in range(2))
    expected = [[whole(epoch, place) for place in range(60)] for epoch in range(2)]
    order = np.random.default_rng(0).permutation(120)
    for number in order:
        epoch, place = divmod(int(number), 60)
        assert other(epoch, place) == expected[epoch][place]
    assert expected[0] != expected[1]
    assert [Shares(sets_of(COUNTS), shares, 4)(0, place) for place in range(60)] != expected[0]


def test_without_shares_all_sets_are_one_source() -> None:
    drawn = Shares(sets_of(COUNTS), {}, 3)
    places = [drawn(0, place) for place in range(38)]
    assert sorted(places[:19]) == sorted(places[19:]) == list(range(19))
    # The order that windows of sets had before there were shares: runs that were begun then go on.
    assert places[:19] == np.random.default_rng((3, 0, 0, 1)).permutation(19).tolist()


def test_a_source_that_the_corpus_has_not_takes_no_part() -> None:
    sets = sets_of({"kokoro": 4})
    drawn = Shares(sets, {"kokoro": 1, "flite": 6, "other": 2}, 0)
    assert sorted(drawn(0, place) for place in range(4)) == [0, 1, 2, 3]


def test_a_source_without_a_share_is_refused() -> None:
    with pytest.raises(CacheError, match=r"'recordings/16' is of the source 'recordings'.*other: 1"):
        Shares(sets_of(COUNTS), {"kokoro": 1, "flite": 1}, 0)


def test_a_blurred_speaker_keeps_its_tone_and_loses_its_embedding_at_times() -> None:
    """Against the moments that are asked for: noise of at most a quarter of the length, 8 in 100 forgotten."""
    vector = torch.from_numpy(np.random.default_rng(1).standard_normal(128).astype(np.float32))
    length = float(vector[:96].norm())
    moved = torch.stack([blurred(vector, np.random.default_rng((2, n)), 0.25) - vector for n in range(3000)])
    who, tone = moved[:, :96], moved[:, 96:]
    forgotten = (who + vector[:96]).abs().amax(dim=1) == 0
    assert 0.06 < float(forgotten.float().mean()) < 0.10
    lengths = who[~forgotten].norm(dim=1) / length
    # A length drawn evenly from 0 to a quarter, times that of 96 normal numbers over its mean.
    assert float(lengths.max()) < 0.25 * 1.4
    assert float(lengths.mean()) == pytest.approx(0.125, rel=0.05)
    assert float(tone.std()) == pytest.approx(0.015, rel=0.03)
    assert torch.equal(blurred(vector, np.random.default_rng(5), 0.25), blurred(vector, np.random.default_rng(5), 0.25))


def test_a_speaker_of_tone_alone_is_refused() -> None:
    with pytest.raises(TrainingError, match="a speaker has 32 numbers"):
        blurred(torch.zeros(32), np.random.default_rng(0), 0.25)
