"""Nesting: `python examples/nesting/run.py` compiles outer.yaml, which uses inner.yaml twice."""

from __future__ import annotations

from pathlib import Path

import torch

import astrape


def main() -> None:
    graph = astrape.load(Path(__file__).with_name("outer.yaml"))
    print(graph.report())
    print("controls:", ", ".join(graph.controls))
    torch.manual_seed(0)
    x = torch.randn(1, 1, 48000) * 0.1
    session = graph.stream()
    pieces = [session.push(piece, amount=0.3, **{"far/level": 1.5}) for piece in x.split(480, dim=-1)]
    whole = graph(x, amount=0.3, **{"far/level": 1.5})
    apart = float((torch.cat(pieces, dim=-1) - whole).abs().max())
    print(f"10 ms at a time against all at once: at most {apart:.1e} apart")
    assert apart < 1e-4


if __name__ == "__main__":
    main()
