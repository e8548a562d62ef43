"""One ONNX graph per stage: features in, label index, accept score and probabilities out.

The classifier is converted by skl2onnx; the acceptor's few features are appended to its graph, so
that any language with ONNX Runtime serves exactly what was certified.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

OPSET = {"": 18, "ai.onnx.ml": 3}
IR_VERSION = 9
INPUT = "features"
OUTPUTS = ("label", "accept", "probabilities")


def export_stage(
    classifier: Any,
    coefficients: NDArray[np.float64],
    intercept: float,
    *,
    dim: int,
    floor: float,
) -> bytes:
    """Serialised graph of a fitted scikit-learn classifier and a linear acceptor.

    Input `features` float32[n, dim]. Outputs `label` int64[n] (the classifier's integer classes),
    `accept` float32[n] in [0, 1], `probabilities` float32[n, k]. coefficients: float64[5], in the
    order top1, top2, margin, entropy, log_ratio, of probabilities not below `floor`.
    Equal models give equal bytes.
    """
    model = to_onnx(
        classifier,
        initial_types=[(INPUT, FloatTensorType([None, dim]))],
        options={id(classifier): {"zipmap": False}},
        target_opset=OPSET,
        name="tracer_stage",
    )
    graph = model.graph
    # skl2onnx calls its first two outputs label and probabilities.
    n_labels = len(classifier.classes_)
    graph.node.extend(_acceptor_nodes())
    weights = coefficients.astype(np.float32).reshape(-1, 1)
    constants: dict[str, NDArray[Any]] = {
        "accept_floor": np.asarray(floor, dtype=np.float32),
        "accept_one": np.asarray(1.0, dtype=np.float32),
        "accept_two": np.asarray([2], dtype=np.int64),
        "accept_axis": np.asarray([1], dtype=np.int64),
        "accept_weights": weights,
        "accept_intercept": np.asarray([intercept], dtype=np.float32),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("accept", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", n_labels]),
        ]
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _acceptor_nodes() -> list[onnx.NodeProto]:
    """shared.core.acceptor.accept_features and the sigmoid, as nodes on `probabilities`."""
    node = helper.make_node
    return [
        node("Clip", ["probabilities", "accept_floor", "accept_one"], ["p"]),
        node("TopK", ["p", "accept_two"], ["top", "top_index"], axis=1, largest=1, sorted=1),
        node("Split", ["top"], ["top1", "top2"], axis=1, num_outputs=2),
        node("Sub", ["top1", "top2"], ["margin"]),
        node("Log", ["p"], ["log_p"]),
        node("Mul", ["probabilities", "log_p"], ["p_log_p"]),
        node("ReduceSum", ["p_log_p", "accept_axis"], ["negative_entropy"], keepdims=1),
        node("Neg", ["negative_entropy"], ["entropy"]),
        node("Log", ["top1"], ["log_top1"]),
        node("Log", ["top2"], ["log_top2"]),
        node("Sub", ["log_top1", "log_top2"], ["log_ratio"]),
        node(
            "Concat",
            ["top1", "top2", "margin", "entropy", "log_ratio"],
            ["accept_features"],
            axis=1,
        ),
        node("MatMul", ["accept_features", "accept_weights"], ["accept_product"]),
        node("Add", ["accept_product", "accept_intercept"], ["accept_logit"]),
        node("Sigmoid", ["accept_logit"], ["accept_column"]),
        node("Squeeze", ["accept_column", "accept_axis"], ["accept"]),
    ]
