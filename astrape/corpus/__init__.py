"""Corpora: parallel speech, made from packages, with everything that is known of it.

A parallel set is one sentence in several voices on common durations: all renderings are of one length and in step, and
F0, phones and who speaks are known exactly. :func:`make_parallel` makes thousands of them::

    made = make_parallel(CorpusSettings(work=Path("corpus"), hours=8), engine=Engine(workers=2))
    made.corpus["hours"]                        # {"train": ..., "held": ...}

It needs the extra ``corpus``, the programs espeak-ng and flite, and, the first time, a network.
"""

from __future__ import annotations

from astrape.corpus.checking import CheckedCorpus, check_corpus, repair_corpus
from astrape.corpus.errors import CorpusError, PackageError, ToolError
from astrape.corpus.items import CorpusSettings
from astrape.corpus.making import MadeCorpus, make_parallel
from astrape.corpus.record import is_corpus
from astrape.jobs import Failed

__all__ = [
    "CheckedCorpus",
    "CorpusError",
    "CorpusSettings",
    "Failed",
    "MadeCorpus",
    "PackageError",
    "ToolError",
    "check_corpus",
    "is_corpus",
    "make_parallel",
    "repair_corpus",
]
