"""Phase as whole numbers, which neither drifts nor depends on how a stream is cut."""

__all__ = ["TURN"]

TURN = 1 << 48
"""Fixed-point units of a turn of phase. Sums of them are exact, and wrap at a whole number of turns (2^64 / 2^48)."""
