"""Names that command lines offer, apart from what they name: importing them loads nothing."""

from __future__ import annotations

__all__ = [
    "ASTRAPE_SPEAKER",
    "BASELINES",
    "CODE_ENDINGS",
    "CONDITIONS",
    "ENCODERS",
    "FROM_CODES",
    "LISTEN",
    "MEL_STATISTICS",
    "METRICS",
    "MIOCODEC",
    "RECIPE",
    "REFERENCES",
    "SPEAKER_ENCODER",
    "TRACKERS",
]

RECIPE = "astrape-mini"
"""The recipe that converts by default."""

FROM_CODES = "astrape-vc-from-codes"
"""The recipe that makes sound of stored codes."""

CODE_ENDINGS = (".npy", ".npz")
"""Endings of files with stored codes."""

MEL_STATISTICS = "mel-statistics"
"""The speaker encoder that takes no weights."""

ASTRAPE_SPEAKER = "astrape-speaker"
"""The speaker encoder that ships with its weights; also the recipe that it is."""

BASELINES = ("source", "own-voice", "world")
"""Baselines of an evaluation: the source as it is; the system to the source's own voice, which shows what is
lost by taking speech apart and putting it together; and a shift of the register by WORLD, and of nothing else."""

REFERENCES = ("trial", "goal")
"""Figures that were written down, to stand beside those that are measured."""

CONDITIONS = ("noise-room",)
"""Conditions in which sources can be evaluated, besides as they are."""

SPEAKER_ENCODER = "speaker_encoder"
"""Metadata of weights: the speaker encoder that their voices are of, as voicebanks name it (``embedding_model``)."""

MIOCODEC = "Aratako/MioCodec-25Hz-44.1kHz-v2"
"""The published codec, whose speakers the original's decoders were trained with."""

ENCODERS = {
    "astrape/mel-statistics-v1": MEL_STATISTICS,
    "astrape/offline-v1": "offline",
    "astrape/spectral-v1": "spectral",
    # One space: the encoder that ships is distilled onto the teacher's numbers, and decoders are trained with these.
    "astrape/resemblyzer-96": ASTRAPE_SPEAKER,
    "resemblyzer": ASTRAPE_SPEAKER,
    MIOCODEC: "miocodec",
}
"""Names of speaker encoders for ``--encoder``, by the name that their voices carry; others are called by that name.
Voices of one ``--encoder`` are of one space."""

METRICS = ("intelligibility", "similarity", "pitch", "dnsmos", "pesq", "stoi", "spectrum", "codes", "speed")
"""Families of metrics that evaluation comes with, in the order that tables have."""

TRACKERS = ("swift-f0", "pyworld")
"""Pitch trackers that evaluation knows, the preferred one first."""

LISTEN = 20
"""Pairs to listen to on a page. One of 5 s takes about a megabyte."""
