"""``python -m astrape.train_voice``, also under ``torchrun``: ``astrape train-voice``."""

from __future__ import annotations

import sys

from astrape.cli import main

if __name__ == "__main__":
    main(["train-voice", *sys.argv[1:]])
