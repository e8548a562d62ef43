"""What is checked of a stage's graph before ONNX Runtime sees it.

A signature says who made a graph; this says what it may do at worst, so that a trainer gone wrong,
or one whose key was stolen, cannot bring a router down: no file is read, no code of others is
run, and memory is bounded (a graph of 108 bytes can ask for gigabytes).
"""

from __future__ import annotations

from math import prod

from shared.contracts.manifest import Stage
from shared.onnx.proto import FLOAT, INT64, MAX_RANK, Graph, InvalidGraph, Value, read_graph
from shared.onnx.shapes import Shape, shapes_after

MAX_GRAPH_BYTES = 64 * 1024 * 1024
MAX_NODES = 1_000
# Sizes it is measured with: as many rows, and word pieces in them, as a router runs at once.
ROWS, LENGTH = 256, 32
# Numbers that all values together may hold, at those sizes: what any graph may take (128 MiB), and
# what the lexical stage takes for each label, a few times over; however many labels a manifest
# names, no more than 2 GiB.
FREE_NUMBERS = 1 << 25
NUMBERS_PER_LABEL = 8 * ROWS * 2 * LENGTH
MOST_NUMBERS = 1 << 29
_OPSETS = {"": range(13, 25), "ai.onnx.ml": range(1, 6)}
_NAMED = {"n": ROWS, "length": LENGTH}


def check_graph(blob: bytes, stage: Stage, *, n_labels: int) -> None:
    """Raises InvalidGraph, which says what is not allowed."""
    if len(blob) > MAX_GRAPH_BYTES:
        raise InvalidGraph(f"it has {len(blob):,} bytes, more than {MAX_GRAPH_BYTES:,}")
    graph = read_graph(blob)
    for domain, version in graph.opsets.items():
        if version not in _OPSETS.get(domain, ()):
            raise InvalidGraph(f"it needs {domain[:50] or 'ai.onnx'!r} {version}")
    if len(graph.nodes) > MAX_NODES:
        raise InvalidGraph(f"it has {len(graph.nodes)} nodes, more than {MAX_NODES}")
    _measure(graph, _inputs(graph.inputs, stage, n_labels), n_labels)


def _inputs(inputs: tuple[Value, ...], stage: Stage, n_labels: int) -> dict[str, Shape]:
    """Shapes of the inputs, which must be those that the manifest says."""
    expected: dict[str, tuple[int, tuple[int | str, ...]]] = {
        f"{earlier}_scores": (FLOAT, ("n", n_labels)) for earlier in stage.scores_of
    }
    if stage.features == "token_ids":
        expected[stage.input] = (INT64, ("n", "length"))
    else:
        expected[stage.input] = (FLOAT, ("n", stage.dim))
    found = {value.name: (value.kind, value.dims) for value in inputs}
    if found != expected or len(found) < len(inputs):
        raise InvalidGraph(f"it takes {found}, its manifest says {expected}")
    return {
        name: tuple(_NAMED[dim] if isinstance(dim, str) else dim for dim in dims)
        for name, (_, dims) in expected.items()
    }


def _measure(graph: Graph, shapes: dict[str, Shape], n_labels: int) -> None:
    """Every value's size, node after node; raises InvalidGraph when they are too much."""
    most = min(FREE_NUMBERS + NUMBERS_PER_LABEL * n_labels, MOST_NUMBERS)
    constants = {tensor.name: tensor for tensor in graph.tensors}
    names = [*shapes, *(tensor.name for tensor in graph.tensors)]
    if len(set(names)) < len(names) or "" in names:
        raise InvalidGraph("two values share a name")
    known = shapes | {tensor.name: tensor.dims for tensor in graph.tensors}
    total = 0
    for node in graph.nodes:
        missing = next((name for name in node.inputs if name not in known), None)
        if missing is not None:
            raise InvalidGraph(f"{node.operator[:50]} takes {missing[:50]!r} before it is made")
        made = shapes_after(node, [known[name] for name in node.inputs], constants)
        for name, shape in zip(node.outputs, made, strict=True):
            if name in known or not name:
                raise InvalidGraph(f"value {name[:50]!r} is made twice")
            if len(shape) > MAX_RANK:
                raise InvalidGraph(f"value {name[:50]!r} has {len(shape)} dimensions")
            known[name] = shape
            total += prod(shape)
        if total > most:
            raise InvalidGraph(
                f"at {ROWS} rows its values hold more than {most:,} numbers ({node.operator} makes "
                f"{made[0]})"
            )
    for output in graph.outputs:
        if output.name not in known:
            raise InvalidGraph(f"output {output.name[:50]!r} is never made")
