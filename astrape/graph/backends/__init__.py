"""Backends, which run a session's quanta: the blocks themselves, recorded kernels, ONNX Runtime or a compiled step."""
