"""Sessions: a graph run on a stream, any number of frames at a time."""

from astrape.graph.session.faults import Fault
from astrape.graph.session.session import Session

__all__ = ["Fault", "Session"]
