"""Figures: the colours of all pictures, and matplotlib's files written so that the same picture is the same file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from astrape.errors import AstrapeError
from astrape.wording import lacking

__all__ = ["AMBER", "BLUE", "FAINT", "GREEN", "GREY", "INK", "RED", "check_ending", "figure_file"]

INK, GREY, FAINT = "#1f2933", "#66727f", "#d5dbe1"
BLUE, AMBER, GREEN, RED = "#3d7ab8", "#e0a030", "#2f6b52", "#b0463c"


def check_ending(path: str | Path) -> str:
    """The format that a picture's name asks for, before anything is computed for it.

    Raises:
        AstrapeError: for an ending other than png, svg and pdf.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in ("png", "svg", "pdf"):
        raise AstrapeError(f"{path}: a picture ends in .png, .svg or .pdf, not in '{Path(path).suffix}'")
    return kind


@contextmanager
def figure_file(width: float, height: float, path: str | Path, constrained: bool = True) -> Iterator[Any]:
    """A figure that is saved when the block ends."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AstrapeError(lacking("a picture", "matplotlib", "plot")) from error
    kind = check_ending(path)
    # The same picture gives the same file: ids and dates would differ from run to run.
    with rc_context({"svg.hashsalt": "astrape", "font.family": "DejaVu Sans", "path.simplify": False}):
        figure = Figure(figsize=(width, height), layout="constrained" if constrained else None)
        yield figure
        # A bitmap of a very large graph would take gigabytes: its resolution gives way.
        dpi = max(20.0, min(150.0, 16_000 / max(width, height)))
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        figure.savefig(path, format=kind, dpi=dpi, metadata=metadata, facecolor="white")
