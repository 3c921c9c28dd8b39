"""``python -m astrape``, and what the script ``astrape`` starts: the command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and leave with its exit code. Ctrl-C gives a line at any time, while it is still loading too."""
    try:
        import signal

        from astrape.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("astrape: interrupted\n")
        sys.exit(130)
    try:
        run()
    finally:
        # All is said and done: what is left is Python's own tidying up, which an interrupt could only disturb.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
