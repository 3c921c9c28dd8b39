"""``python -m astrape``: the command."""

from astrape.cli import main

if __name__ == "__main__":
    main()
