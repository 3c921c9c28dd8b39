"""Names that command lines offer, apart from what they name: importing them loads nothing."""

from __future__ import annotations

__all__ = ["CODE_ENDINGS", "FROM_CODES", "LISTEN", "MEL_STATISTICS", "METRICS", "RECIPE", "TRACKERS"]

RECIPE = "astrape-vc"
"""What converts where nothing else is asked for."""

FROM_CODES = "astrape-vc-from-codes"
"""What makes sound of stored codes."""

CODE_ENDINGS = (".npy", ".npz")
"""Of files with stored codes."""

MEL_STATISTICS = "mel-statistics"
"""The speaker encoder that takes no weights."""

METRICS = ("intelligibility", "similarity", "pitch", "dnsmos", "pesq", "stoi", "spectrum", "codes", "speed")
"""Families of metrics that evaluation comes with, in the order that tables have."""

TRACKERS = ("swift-f0", "pyworld")
"""Pitch trackers that evaluation knows, the preferred one first."""

LISTEN = 20
"""Pairs to listen to on a page. One of 5 s takes about a megabyte."""
