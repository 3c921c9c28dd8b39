"""Evaluation of voice conversion: files are converted, measured by many metrics, and laid side by side to be heard.

pairs = all_pairs(read_sources([Path("speech")]), read_targets([Path("voices")]))
system = Conversions(Converter.load("astrape-vc", "weights.safetensors"), Path("run"))
evaluation = evaluate(pairs, system)
evaluation.aggregate["similarity_target"].value
"""

from astrape.voice.evaluation.context import Context, Tools
from astrape.voice.evaluation.errors import EvaluationError, MetricError
from astrape.voice.evaluation.metric import Metric, Quantity, Score
from astrape.voice.evaluation.pairs import Pair, Target, all_pairs, read_pairs, read_sources, read_targets
from astrape.voice.evaluation.recording import Recording
from astrape.voice.evaluation.registry import register_metric
from astrape.voice.evaluation.result import Evaluation, PairResult
from astrape.voice.evaluation.run import evaluate
from astrape.voice.evaluation.systems import Conversions, Converted

__all__ = [
    "Context",
    "Conversions",
    "Converted",
    "Evaluation",
    "EvaluationError",
    "Metric",
    "MetricError",
    "Pair",
    "PairResult",
    "Quantity",
    "Recording",
    "Score",
    "Target",
    "Tools",
    "all_pairs",
    "evaluate",
    "read_pairs",
    "read_sources",
    "read_targets",
    "register_metric",
]
