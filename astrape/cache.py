"""``python -m astrape.cache --what wavlm --limit 0``: ``astrape cache``."""

from __future__ import annotations

import sys

from astrape.cli import main

if __name__ == "__main__":
    main(["cache", *sys.argv[1:]])
