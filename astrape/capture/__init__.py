"""Captured steps: a step is recorded, lowered to kernels over fixed memory, and replayed."""
