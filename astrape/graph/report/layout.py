"""Places for the nodes of a picture: layers by longest path, few crossings, long graphs wrapped into bands.

The layered drawing of Sugiyama, Tagawa and Toda (1981, "Methods for visual understanding of hierarchical system
structures", IEEE Trans. SMC 11:2): layers, way points where an edge passes a layer, ordering by barycentres, positions
by least squares that keep the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

__all__ = ["Layout", "Vertex", "arrange"]

Vertex = tuple[str, int]
"""A node's name and its layer; or, at a layer that is not the node's own, a way point of its outgoing edges."""

SWEEPS = 6
MOST_WAY_POINTS = 20_000
WAY_POINT_GAP = 0.55


@dataclass(frozen=True)
class Layout:
    """Where everything goes, in slots: a node is one slot high, and columns and bands count from the top left.

    Attributes:
        layer: of each node.
        place: (band, column, height within the band) of every vertex. Heights grow downwards from 0.
        segments: edges between vertices of neighbouring layers; a node's edges share their way points.
        long: edges drawn without way points, where there would be too many of them.
        heights: of each band, in slots.
        columns: in each band.
    """

    layer: dict[str, int]
    place: dict[Vertex, tuple[int, int, float]]
    segments: list[tuple[Vertex, Vertex]]
    long: list[tuple[Vertex, Vertex]]
    heights: list[float]
    columns: int

    def of(self, name: str) -> tuple[int, int, float]:
        return self.place[name, self.layer[name]]


def arrange(names: Sequence[str], edges: Iterable[tuple[str, str]], late: Iterable[str], columns: int) -> Layout:
    """Lay a graph without cycles out.

    Args:
        names: in an order to keep where nothing speaks against it.
        edges: pairs of names.
        late: nodes to stand directly before their first reader rather than directly after what they read. Nodes that
            read nothing do so anyhow.
        columns: layers in a band.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    layer = _layers(graph, set(late))
    spans = sum(layer[b] - layer[a] for a, b in graph.edges)
    segments: dict[tuple[Vertex, Vertex], None] = {}
    long: list[tuple[Vertex, Vertex]] = []
    for a, b in graph.edges:
        if layer[b] - layer[a] > 1 and spans > MOST_WAY_POINTS:
            long.append(((a, layer[a]), (b, layer[b])))
            continue
        chain: list[Vertex] = [(a, number) for number in range(layer[a], layer[b])] + [(b, layer[b])]
        segments.update(dict.fromkeys(pairwise(chain)))
    rank = {name: index for index, name in enumerate(names)}
    vertices = sorted({v for pair in segments for v in pair} | set(layer.items()), key=lambda v: (v[1], rank[v[0]]))
    rows: list[list[Vertex]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for vertex in vertices:
        rows[vertex[1]].append(vertex)
    before: dict[Vertex, list[Vertex]] = {v: [] for v in vertices}
    after: dict[Vertex, list[Vertex]] = {v: [] for v in vertices}
    for a_vertex, b_vertex in segments:
        after[a_vertex].append(b_vertex)
        before[b_vertex].append(a_vertex)
    _order(rows, before, after)
    place, heights = _positions(rows, before, after, layer, columns)
    return Layout(layer, place, list(segments), long, heights, columns)


def _layers(graph: nx.DiGraph[str], late: set[str]) -> dict[str, int]:
    order = list(nx.topological_sort(graph))
    layer: dict[str, int] = {}
    for name in order:
        layer[name] = max((layer[above] + 1 for above in graph.predecessors(name)), default=0)
    for name in reversed(order):
        below = [layer[reader] for reader in graph.successors(name)]
        if below and (name in late or not graph.in_degree(name)):
            layer[name] = min(below) - 1
    return layer


def _order(rows: list[list[Vertex]], before: dict[Vertex, list[Vertex]], after: dict[Vertex, list[Vertex]]) -> None:
    """Sort every layer by the mean position of its neighbours, forwards and backwards in turn."""
    position = {vertex: float(index) for row in rows for index, vertex in enumerate(row)}
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        neighbours = before if forwards else after
        for row in rows if forwards else reversed(rows):
            aims = {v: _mean([position[n] for n in neighbours[v]], position[v]) for v in row}
            row.sort(key=lambda v: aims[v])
            position.update({vertex: float(index) for index, vertex in enumerate(row)})


def _positions(
    rows: list[list[Vertex]],
    before: dict[Vertex, list[Vertex]],
    after: dict[Vertex, list[Vertex]],
    layer: dict[str, int],
    columns: int,
) -> tuple[dict[Vertex, tuple[int, int, float]], list[float]]:
    height: dict[Vertex, float] = {}
    size = {vertex: 1.0 if layer[vertex[0]] == vertex[1] else WAY_POINT_GAP for row in rows for vertex in row}
    for row in rows:
        total = sum(size[v] for v in row)
        height.update(_spread(row, [0.0] * len(row), size) if total else {})
    for sweep in range(2 * SWEEPS):
        forwards = sweep % 2 == 0
        neighbours = before if forwards else after
        for row in rows if forwards else reversed(rows):
            band = row[0][1] // columns if row else 0
            aims = []
            for vertex in row:
                near = [height[n] for n in neighbours[vertex] if n[1] // columns == band]
                aims.append(_mean(near, height[vertex]))
            height.update(_spread(row, aims, size))
    place: dict[Vertex, tuple[int, int, float]] = {}
    heights: list[float] = []
    for band in range(-(-len(rows) // columns)):
        inside = [vertex for row in rows[band * columns : (band + 1) * columns] for vertex in row]
        top = min((height[v] for v in inside), default=0.0)
        heights.append(max((height[v] for v in inside), default=0.0) - top + 1)
        place.update({v: (band, v[1] % columns, height[v] - top + 0.5) for v in inside})
    return place, heights


def _spread(row: Sequence[Vertex], aims: Sequence[float], size: dict[Vertex, float]) -> dict[Vertex, float]:
    """Positions nearest to ``aims`` in least squares that keep the order and the gaps: pooled adjacent violators."""
    offsets, place = [], 0.0
    for index, vertex in enumerate(row):
        place += (size[row[index - 1]] + size[vertex]) / 2 if index else 0.0
        offsets.append(place)
    pools: list[tuple[float, int]] = []
    for aim, offset in zip(aims, offsets, strict=True):
        mean, count = aim - offset, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        pools.append((mean, count))
    settled = [mean for mean, count in pools for _ in range(count)]
    return {vertex: start + offset for vertex, start, offset in zip(row, settled, offsets, strict=True)}


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
