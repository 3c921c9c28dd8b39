"""Sentences to speak: the examples in WordNet's glosses, in an order of their own, some of them held out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from astrape.corpus.errors import CorpusError
from astrape.wording import reason_of

__all__ = ["HELD_EVERY", "Sentences", "read_sentences"]

FEWEST_WORDS, MOST_WORDS = 5, 14
PLAIN = re.compile(r"[A-Za-z ,.'?!;-]+")
EXAMPLE = re.compile(r'"([^"]+)"')
PARTS = ("adj", "adv", "noun", "verb")

ORDER_SEED = 1
"""Seed of the order of sentences. It has no option: the number of a set says which sentence it is, in every corpus."""

HELD_EVERY, HELD_AT = 25, 3
"""One of that many sentences is held out: those whose number leaves this remainder."""


class Sentences:
    """Numbered sentences, and which of them no training may hear.

    Args:
        texts: in order.

    Example: sentence 3 is held out, and so are 28, 53, ...; ``split(0)`` is ``"train"``.
    """

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self._held = {_plain(text) for number, text in enumerate(texts) if number % HELD_EVERY == HELD_AT}

    def __len__(self) -> int:
        return len(self.texts)

    def split(self, number: int) -> str | None:
        """``held``, ``train``, or ``None`` for what differs from a held sentence in signs and capitals alone."""
        if number % HELD_EVERY == HELD_AT:
            return "held"
        return None if _plain(self.texts[number]) in self._held else "train"


def read_sentences(folder: Path) -> Sentences:
    """The example sentences of 5 to 14 words in plain letters, each once, shuffled.

    Args:
        folder: WordNet's, with ``data.adj``, ``data.adv``, ``data.noun`` and ``data.verb``.

    Raises:
        CorpusError: for a folder without them, or without sentences.
    """
    found: set[str] = set()
    for part in PARTS:
        path = folder / f"data.{part}"
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise CorpusError(f"{path}: cannot be read: {reason_of(error)}; hint: unpack wordnet-base") from error
        for line in lines:
            # Lines that begin with a blank are the licence.
            _, bar, gloss = line.partition("|")
            if bar and not line.startswith(" "):
                found.update(text.strip() for text in EXAMPLE.findall(gloss) if _is_fit(text.strip()))
    if not found:
        raise CorpusError(f"{folder}: holds no example sentences; hint: unpack wordnet-base again")
    texts = sorted(found)
    np.random.default_rng(ORDER_SEED).shuffle(texts)
    return Sentences(texts)


def _is_fit(text: str) -> bool:
    return FEWEST_WORDS <= len(text.split()) <= MOST_WORDS and PLAIN.fullmatch(text) is not None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))
