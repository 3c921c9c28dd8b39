"""The process that a graph runs live in: no pause that is not the graph's own, and its memory."""

from __future__ import annotations

import ctypes
import gc
import sys

__all__ = ["most_memory", "settle"]

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT, MAPPED = 1 << 30, 1 << 25
"""Bytes: free memory that is kept, and the least allocation that is mapped by itself (32 MB, the most allowed)."""


def most_memory() -> int | None:
    """Bytes of memory that this process has had at most; ``None`` where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def settle() -> None:
    """Keep what the process has: call it once everything is loaded, and before the first live step.

    Two things that belong to the program and not to a library, so a command calls it, ``bench`` so far:

    - glibc gives freed memory back to the kernel as soon as a few hundred kilobytes of it lie at the end, and a step
      that frees what the next one needs gets it back page by page, each with a fault: up to 950 a step were counted in
      astrape-vc, 2 of its 22 ms. From here on it is kept. Elsewhere than on glibc nothing is changed.
    - Python's garbage collector looks through all live objects again and again, of which torch alone makes hundreds of
      thousands. What is there now is taken out of its sight (``gc.freeze``); it is not going to be garbage.
    """
    gc.collect()
    gc.freeze()
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl and its like
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    mallopt(M_MMAP_THRESHOLD, MAPPED)
