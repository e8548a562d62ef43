"""`shared.core.head` as nodes: from scores to label, accept score and novelty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.onnx.graph import GraphBuilder
from shared.onnx.weights import HeadWeights, LinearWeights


def add_head(graph: GraphBuilder, scores: Sequence[str], head: HeadWeights) -> None:
    """`scores`: names of the m scorers' float32[n, k], in the order of the head's mixture.

    Adds the outputs `label`, `accept` and `novelty`.
    """
    mixed = _mixed(graph, scores, head)
    probabilities = graph.add("Exp", mixed)
    label = graph.add("ArgMax", mixed, axis=1, keepdims=1)
    graph.add("Squeeze", label, graph.constant([1], np.int64), output="label")

    first, second = _best_two(graph, mixed)
    top1 = graph.add("Exp", first)
    entropy = graph.add(
        "Neg",
        graph.add(
            "ReduceSum",
            graph.add("Mul", probabilities, mixed),
            graph.constant([1], np.int64),
            keepdims=1,
        ),
    )
    best = [_best_two(graph, s) for s in scores]
    reliability = graph.add("Gather", graph.constant(head.reliability), label)
    _sigmoid(
        graph,
        [
            top1, graph.add("Sub", first, second), best[-1][0], reliability,
        ],
        head.acceptor, "accept",
    )  # fmt: skip
    novelty = [top1, entropy]
    for name, (highest, runner_up) in zip(scores, best, strict=True):
        of_label = graph.add("GatherElements", name, label, axis=1)
        novelty += [of_label, graph.add("Sub", highest, runner_up), highest]
    _sigmoid(graph, novelty, head.novelty, "novelty")


def _mixed(graph: GraphBuilder, scores: Sequence[str], head: HeadWeights) -> str:
    parts = [
        graph.add("Mul", name, graph.constant(weight))
        for name, weight in zip(scores, head.mixture, strict=True)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = graph.add("Add", total, part)
    return graph.add("LogSoftmax", total, axis=1)


def _best_two(graph: GraphBuilder, values: str) -> tuple[str, str]:
    """float32[n, 1] each."""
    top, _ = graph.add_two("TopK", values, graph.constant([2], np.int64), axis=1)
    first, second = graph.add_two("Split", top, axis=1, num_outputs=2)
    return first, second


def _sigmoid(graph: GraphBuilder, columns: list[str], linear: LinearWeights, output: str) -> None:
    features = graph.add("Concat", *columns, axis=1)
    product = graph.add("MatMul", features, graph.constant(linear.coefficients.reshape(-1, 1)))
    logits = graph.add("Add", product, graph.constant([linear.intercept]))
    graph.add("Squeeze", graph.add("Sigmoid", logits), graph.constant([1], np.int64), output=output)
