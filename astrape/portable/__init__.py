"""Exported graphs, run with NumPy and ONNX Runtime alone: nothing in this package imports PyTorch, or anything else."""

from __future__ import annotations

from astrape.portable.exported import Exported
from astrape.portable.session import Fault, PortableSession
from astrape.portable.step import OnnxStep

__all__ = ["Exported", "Fault", "OnnxStep", "PortableSession"]
