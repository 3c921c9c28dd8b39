"""``python -m astrape.train_encoder``, also under ``torchrun``: ``astrape train-encoder``."""

from __future__ import annotations

import sys

from astrape.cli import main

if __name__ == "__main__":
    main(["train-encoder", *sys.argv[1:]])
