"""``python -m astrape.build_voicebank ref1.wav [ref2.wav ...] -o voice.astrape``: ``astrape voicebank build``."""

from __future__ import annotations

import sys

from astrape.cli import main

if __name__ == "__main__":
    main(["voicebank", "build", *sys.argv[1:]])
