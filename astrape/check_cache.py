"""``python -m astrape.check_cache --wavlm-only``: ``astrape check-cache``."""

from __future__ import annotations

import sys

from astrape.cli import main

if __name__ == "__main__":
    main(["check-cache", *sys.argv[1:]])
