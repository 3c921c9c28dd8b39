"""Figures that other systems were published with, to place a run's beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["COLUMNS", "GOALS_IN", "PUBLISHED", "REFERENCES", "Published"]

COLUMNS: Mapping[str, str] = {
    "wer": "WER %",
    "similarity_target": "Similarity to target",
    "f0_correlation": "Pitch correlation",
    "dnsmos_ovrl": "DNSMOS overall",
    "latency_host": "Latency ms",
    "real_time_factor": "Real-time factor",
}
"""The quantities that are compared, by our own names."""


@dataclass(frozen=True)
class Published:
    """A system's own figures, as its authors give them: measured on their data, with their recogniser and encoder."""

    system: str
    figures: Mapping[str, str]
    source: str


PUBLISHED = (
    Published(
        "Seed-VC",
        {"wer": "11.99 (source 8.02)", "similarity_target": "0.868", "dnsmos_ovrl": "3.11"},
        "Liu, Zero-shot Voice Conversion with Diffusion Transformers, arXiv:2411.09943",
    ),
    Published(
        "Zero-VC, strictly causal",
        {
            "wer": "3.96",
            "similarity_target": "0.521",
            "f0_correlation": "0.688",
            "dnsmos_ovrl": "3.04",
            "latency_host": "20",
        },
        "Zero-VC: Zero-Lookahead Streaming Voice Conversion via Speaker Anonymization",
    ),
    Published(
        "StreamVC",
        {"f0_correlation": "0.842 with pitch as an input, 0.461 without"},
        "Yang et al., StreamVC: Real-Time Low-Latency Voice Conversion, arXiv:2401.03078",
    ),
    Published(
        "LLVC",
        {"latency_host": "under 20", "real_time_factor": "0.361 (2.77 x real time, desktop CPU)"},
        "Sadov et al., Low-latency Real-time Voice Conversion on CPU, arXiv:2311.00873",
    ),
    Published(
        "Beatrice 2",
        {"latency_host": "about 50", "real_time_factor": "under 0.25 (one laptop core)"},
        "Project Beatrice, prj-beatrice.com",
    ),
)

_FIGURES = "shared/spec/default-voice.md and issue 9: real English speakers to real unseen targets, 27 conversions"

REFERENCES: Mapping[str, Published] = {
    "trial": Published(
        "trial, 44 core-minutes",
        {
            "wer_source": "41 to 43",
            "dvector_target": "0.51",
            "dvector_margin": "0.00",
            "similarity_target": "0.65",
            "f0_correlation": "0.98",
            "dnsmos_ovrl": "2.84",
            "dnsmos_loss": "0.38",
        },
        _FIGURES,
    ),
    "goal": Published(
        "to reach (stretch)",
        {
            "wer_source": "12 (6)",
            "dvector_target": "0.60 (0.70)",
            "dvector_margin": "0.10 (0.20)",
            "similarity_target": "0.72 (0.80)",
            "f0_correlation": "0.93 (0.96)",
            "dnsmos_loss": "0.35 (0.20)",
        },
        _FIGURES,
    ),
}
"""Columns to stand beside a run of real English speakers: figures that were written down, and not measured in it."""

GOALS_IN: Mapping[str, Mapping[str, str]] = {"noise-room": {"wer_source": "25 (15)"}}
"""Goals in other conditions than the clean one."""
