"""The original's checkpoints: read without running anything in them, and brought over as recipe and weights.

- :mod:`~astrape.voice.checkpoint.archive`: the tensors and settings of a file of PyTorch.
- :mod:`~astrape.voice.checkpoint.config`: what settings and shapes say about the network.
- :mod:`~astrape.voice.checkpoint.encoder`, :mod:`~astrape.voice.checkpoint.decoder`: which tensor goes where.
- :mod:`~astrape.voice.checkpoint.importing`: all of it together.
"""
