"""Audio ports of a graph: the one that hears and the one that speaks."""

from __future__ import annotations

from typing import Any

from astrape.errors import AstrapeError
from astrape.graph.graph import Graph
from astrape.graph.hosted import is_audio_stream
from astrape.graph.network import Network
from astrape.graph.session.faults import Fault

__all__ = ["audio_ports", "not_finite"]


def audio_ports(graph: Graph, output: str | None = None) -> tuple[str, str]:
    """Names of the one audio input and the one audio output of a graph.

    Args:
        output: which output to take where there are several.

    Raises:
        AstrapeError: when the graph has no such pair.
    """
    if len(graph.inputs) != 1:
        listed = ", ".join(f"{name} at {stream.rate} Hz" for name, stream in graph.inputs.items())
        raise AstrapeError(f"'{graph.name}' has {len(graph.inputs)} inputs ({listed}), and a file feeds exactly one")
    (name, stream), *_ = graph.inputs.items()
    if not is_audio_stream(stream):
        raise AstrapeError(f"input '{name}' of '{graph.name}' runs at {stream.rate} Hz and is not audio")
    if output is not None and output not in graph.outputs:
        raise AstrapeError(f"'{graph.name}' has no output '{output}' (choose from: {', '.join(graph.outputs)})")
    audio = [port for port, stream in graph.outputs.items() if is_audio_stream(stream)]
    if output is not None and output not in audio:
        hint = f" (choose from: {', '.join(audio)})" if audio else ""
        rate = graph.outputs[output].rate
        raise AstrapeError(f"output '{output}' of '{graph.name}' runs at {rate} Hz and is not audio{hint}")
    heard = [port for port in audio if output in (None, port)]
    if len(heard) != 1:
        listed = ", ".join(f"{port} at {stream.rate} Hz" for port, stream in graph.outputs.items())
        hint = ": name one of them as output" if heard else ""
        raise AstrapeError(f"'{graph.name}' has {len(heard)} audio outputs (of {listed}), and a file holds one{hint}")
    return name, heard[0]


def not_finite(graph: Network[Any], fault: Fault) -> str:
    """A graph that gave output that is not finite, and from when on, as part of a sentence."""
    at = float(fault.frame / {**graph.inputs, **graph.outputs}[fault.port].rate)
    return f"'{graph.name}' gave output that is not finite, '{fault.port}' from {at:.3f} s on"
