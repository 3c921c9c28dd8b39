"""``python -m astrape.evaluate --source src.wav --target voice.astrape --output out.wav``: ``astrape evaluate``."""

from __future__ import annotations

import sys

from astrape.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
