"""Text as word error rates compare it."""

from __future__ import annotations

import unicodedata

from astrape.voice.evaluation.errors import MetricError

__all__ = ["check_english", "normalised"]

MOSTLY = 0.5
APOSTROPHES = "'’ʼ＇"


def normalised(text: str) -> str:
    """Lower case without punctuation and accents, words divided by single spaces.

    Apostrophes inside words stay, since "we're" and "were" are two words; hyphens and dashes divide. Numbers are left
    as they are written: what a recogniser writes as "20" differs from "twenty".

    >>> normalised("Well-known: “We’re  made still more RESPECTABLE”, café.")
    "well known we're made still more respectable cafe"
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    kept = []
    for index, char in enumerate(plain):
        inside = 0 < index < len(plain) - 1 and plain[index - 1].isalnum() and plain[index + 1].isalnum()
        if char.isalnum():
            kept.append(char)
        elif char in APOSTROPHES and inside:
            kept.append("'")
        elif not unicodedata.combining(char):
            kept.append(" ")
    return " ".join("".join(kept).split())


def check_english(text: str) -> None:
    """Refuse what is not written in Latin letters, which no recogniser of English can get right.

    Raises:
        MetricError: for text of which more than half of the letters are others.
    """
    letters = [char for char in text if char.isalpha()]
    foreign = [char for char in letters if "LATIN" not in unicodedata.name(char, "")]
    if len(foreign) > MOSTLY * len(letters):
        raise MetricError("the transcript is not English, and the recogniser knows nothing else")
