"""Exports run without PyTorch: ``from astrape.runtime.portable import PortableSession``.

NumPy and ONNX Runtime are all that it needs. ``pip install "astrape[portable]"`` has them, and on a machine that is to
have nothing else, ``pip install numpy onnxruntime`` and ``pip install --no-deps astrape``.
"""

from __future__ import annotations

from astrape.portable.exported import Exported
from astrape.portable.session import Fault, PortableSession
from astrape.portable.step import OnnxStep

__all__ = ["Exported", "Fault", "OnnxStep", "PortableSession"]
