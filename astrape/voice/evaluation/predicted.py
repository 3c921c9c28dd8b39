"""Quality without a reference, as a network predicts that listeners would rate it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import MetricError
from astrape.voice.evaluation.metric import Quantity
from astrape.voice.evaluation.packages import Package
from astrape.voice.evaluation.recording import Recording, Samples, silent

__all__ = ["PredictedQuality"]

RATE = 16000
WHOLE_SECONDS = 28.0
WINDOW_SECONDS = 9.01
MOST_WINDOWS = 20
LEAST_SECONDS = 0.5


class PredictedQuality:
    """DNSMOS P.835 (Reddy et al., arXiv:2110.01763): opinion scores of 1 to 5, trained on noise suppression.

    The network hears 9.01 s; what is shorter is repeated, as its authors do. Up to 28 s, windows are a second apart, as
    theirs; longer recordings take up to 20 windows that do not overlap, evenly spread.
    """

    name = "dnsmos"
    packages = (Package("speechmos", "speechmos.dnsmos", "speechmos librosa onnxruntime requests"),)
    quantities = (
        Quantity("dnsmos_ovrl", "DNSMOS overall", "MOS", "higher", "predicted overall quality", digits=2),
        Quantity("dnsmos_sig", "DNSMOS speech", "MOS", "higher", "predicted quality of the speech itself", digits=2),
        Quantity("dnsmos_bak", "DNSMOS background", "MOS", "higher", "predicted quietness of the background", digits=2),
        Quantity("dnsmos_p808", "DNSMOS P.808", "MOS", "higher", "predicted quality, one question", digits=2),
        Quantity("source_dnsmos_ovrl", "DNSMOS overall of the source", "MOS", None, "for comparison", digits=2),
        Quantity("dnsmos_loss", "DNSMOS overall: below source by", "MOS", "lower", "source's less result's", digits=2),
    )

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def score(self, context: Context) -> dict[str, float]:
        found = self.tools.remember("dnsmos", context.converted, self.predicted)
        before = self.tools.remember("dnsmos", context.source, self.predicted)
        names = {"ovrl": "ovrl_mos", "sig": "sig_mos", "bak": "bak_mos", "p808": "p808_mos"}
        scores = {f"dnsmos_{name}": found[key] for name, key in names.items()}
        lost = before["ovrl_mos"] - found["ovrl_mos"]
        return scores | {"source_dnsmos_ovrl": before["ovrl_mos"], "dnsmos_loss": lost}

    def pooled(self, parts: Sequence[object]) -> dict[str, float]:
        return {}

    def predicted(self, recording: Recording) -> dict[str, float]:
        """The four scores of a recording.

        Raises:
            MetricError: for less than half a second, and for silence.
        """
        from speechmos import dnsmos

        if recording.seconds < LEAST_SECONDS:
            raise MetricError(f"{recording.name}: {recording.seconds:.2f} s, and DNSMOS takes {LEAST_SECONDS:g}")
        found = [dnsmos.run(window, RATE) for window in _windows(recording)]
        if not found:
            raise MetricError(f"{recording.name}: is silent, and silence has no quality")
        return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def _windows(recording: Recording) -> list[Samples]:
    """All of it, or windows evenly spread. What is beyond full scale is cut off, as in a file of whole numbers."""
    whole = recording.seconds <= WHOLE_SECONDS
    seconds = WHOLE_SECONDS + 1 if whole else WINDOW_SECONDS
    count = max(1, int(recording.seconds / seconds))
    wanted = set(np.linspace(0, count - 1, min(count, MOST_WINDOWS)).round().astype(int).tolist())
    pieces = enumerate(recording.pieces(RATE, seconds))
    return [piece.clip(-1, 1) for index, piece in pieces if index in wanted and not silent(piece)]
