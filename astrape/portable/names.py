"""Names of the tensors of an exported model."""

from __future__ import annotations

__all__ = ["CONTROL", "INPUT", "NEXT", "OUTPUT", "PREPARED", "STATE"]

INPUT, PREPARED, STATE, OUTPUT, NEXT, CONTROL = "input.", "prepared.", "state.", "output.", "next.", "control."
"""Prefixes of the names of an exported model's tensors; the leaf's name follows."""
