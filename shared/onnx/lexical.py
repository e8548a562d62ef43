"""`shared.core.lexical` as nodes: from word pieces to scores, without any encoder."""

from __future__ import annotations

import numpy as np

from shared.onnx.graph import GraphBuilder
from shared.onnx.weights import LexicalWeights

TOKEN_IDS = "token_ids"  # noqa: S105


def add_lexical(graph: GraphBuilder, weights: LexicalWeights, output: str) -> str:
    """Input `token_ids` int64[n, length], texts filled up with -1. Output float32[n, k]."""
    zero = graph.constant(0, np.int64)
    present = graph.add("GreaterOrEqual", TOKEN_IDS, zero)
    ids = graph.add("Max", TOKEN_IDS, zero)
    found = graph.add(
        "Concat",
        _unigrams(graph, weights, ids, present),
        _bigrams(graph, weights, ids, present),
        axis=1,
    )
    axis = graph.constant([1], np.int64)
    # float16 halves the artifact; sums are float32.
    rows = graph.add("Gather", graph.constant(weights.coefficients, np.float16), found)
    sums = graph.add("ReduceSum", graph.add("Cast", rows, to=1), axis, keepdims=0)
    squares = graph.add(
        "ReduceSum", graph.add("Gather", graph.constant(weights.squares), found), axis, keepdims=1
    )
    nothing = graph.add("LessOrEqual", squares, graph.constant(0.0))
    length = graph.add("Sqrt", graph.add("Where", nothing, graph.constant(1.0), squares))
    scaled = graph.add("Div", sums, length)
    return graph.add("Add", scaled, graph.constant(weights.bias), output=output)


def _unigrams(graph: GraphBuilder, weights: LexicalWeights, ids: str, present: str) -> str:
    feature = graph.add("Gather", graph.constant(weights.unigrams, np.int32), ids)
    return graph.add("Where", present, feature, graph.constant(0, np.int32))


def _bigrams(graph: GraphBuilder, weights: LexicalWeights, ids: str, present: str) -> str:
    one, axis = graph.constant([1], np.int64), graph.constant([1], np.int64)
    start, end = graph.constant([0], np.int64), graph.constant([np.iinfo(np.int64).max], np.int64)
    first = graph.add("Slice", ids, start, graph.constant([-1], np.int64), axis)
    second = graph.add("Slice", ids, one, end, axis)
    both = graph.add("Slice", present, one, end, axis)
    scaled = graph.add("Mul", first, graph.constant(len(weights.unigrams), np.int64))
    codes = graph.add("Add", scaled, second)
    place = graph.add("Mod", codes, graph.constant(len(weights.bigrams), np.int64))
    feature = graph.add("Gather", graph.constant(weights.bigrams, np.int32), place)
    stored = graph.add("Gather", graph.constant(weights.codes, np.int64), feature)
    known = graph.add("And", graph.add("Equal", stored, codes), both)
    return graph.add("Where", known, feature, graph.constant(0, np.int32))
