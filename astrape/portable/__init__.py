"""Exported graphs, run with NumPy and ONNX Runtime alone: nothing in this package imports PyTorch, or anything else.

``astrape.runtime.portable`` hands out its classes. Nothing is imported here, since sessions take the names of tensors
from ``names`` where there is no ONNX Runtime.
"""
