"""What the tensors of an exported model are called."""

from __future__ import annotations

__all__ = ["CONTROL", "INPUT", "NEXT", "OUTPUT", "PREPARED", "STATE"]

INPUT, PREPARED, STATE, OUTPUT, NEXT, CONTROL = "input.", "prepared.", "state.", "output.", "next.", "control."
"""What tensors of an exported model are called: these, and then the leaf's name."""
