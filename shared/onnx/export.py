"""One ONNX graph per stage: inputs in, label index, accept score, novelty and scores out.

A scikit-learn classifier is converted by skl2onnx and a lexical scorer drawn by hand; the stage's
head is appended, so that any language with ONNX Runtime serves exactly what was certified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.compose import add_prefix_graph
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

from shared.onnx.graph import OPSET, GraphBuilder, model_bytes
from shared.onnx.head import add_head
from shared.onnx.lexical import TOKEN_IDS, add_lexical
from shared.onnx.weights import HeadWeights, LexicalWeights

FEATURES = "features"
OWN_SCORES = "scores"


def scores_input(stage: str) -> str:
    """What a graph calls the scores of an earlier stage."""
    return f"{stage}_scores"


def export_lexical(weights: LexicalWeights, head: HeadWeights) -> bytes:
    """Serialised graph: `token_ids` int64[n, length] in (filled up with -1)."""
    graph = GraphBuilder()
    add_lexical(graph, weights, OWN_SCORES)
    add_head(graph, [OWN_SCORES], head)
    token_ids = helper.make_tensor_value_info(TOKEN_IDS, TensorProto.INT64, ["n", "length"])
    return _finish(graph, [token_ids], len(weights.bias))


def export_classifier(
    classifier: Any,
    head: HeadWeights,
    *,
    dim: int,
    n_labels: int,
    unseen: float,
    earlier: Sequence[str] = (),
) -> bytes:
    """Serialised graph of a fitted scikit-learn classifier and its head.

    Inputs: `features` float32[n, dim] and `<stage>_scores` float32[n, k] of each of the `earlier`
    stages, which the head mixes in first. `unseen`: the score of labels the classifier never saw.
    Equal models give equal bytes.
    """
    converted = to_onnx(
        classifier,
        initial_types=[(FEATURES, FloatTensorType([None, dim]))],
        options={id(classifier): {"zipmap": False, "raw_scores": True}},
        target_opset=OPSET,
    ).graph
    # Its names must not meet those of the head.
    converted = add_prefix_graph(converted, "classifier_", rename_inputs=False)
    graph = GraphBuilder()
    graph.nodes.extend(converted.node)
    graph.initialisers.extend(converted.initializer)
    decided = converted.output[1].name  # the first is the classifier's own label
    spread = np.zeros((len(classifier.classes_), n_labels))
    spread[np.arange(len(classifier.classes_)), classifier.classes_] = 1.0
    if len(classifier.classes_) == n_labels:
        graph.add("Identity", decided, output=OWN_SCORES)
    else:
        offset = np.where(spread.any(axis=0), 0.0, unseen)
        placed = graph.add("MatMul", decided, graph.constant(spread))
        graph.add("Add", placed, graph.constant(offset), output=OWN_SCORES)
    names = [scores_input(stage) for stage in earlier]
    add_head(graph, [*names, OWN_SCORES], head)
    inputs = [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", dim])]
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", n_labels]) for name in names
    ]
    return _finish(graph, inputs, n_labels)


def _finish(graph: GraphBuilder, inputs: list[onnx.ValueInfoProto], n_labels: int) -> bytes:
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("accept", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info(OWN_SCORES, TensorProto.FLOAT, ["n", n_labels]),
    ]
    return model_bytes(
        helper.make_graph(graph.nodes, "tracer_stage", inputs, outputs, graph.initialisers)
    )
