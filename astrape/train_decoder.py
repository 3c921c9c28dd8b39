"""``python -m astrape.train_decoder``, also under ``torchrun``: ``astrape train-decoder``."""

from __future__ import annotations

import sys

from astrape.cli import main

if __name__ == "__main__":
    main(["train-decoder", *sys.argv[1:]])
