"""skl2onnx's converter of `shared.core.landmark_ridge.LandmarkRidge`."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType


def register_landmark_ridge(estimator: type) -> None:
    """Teach skl2onnx the estimator; its second output are the scores, float32[n, classes]."""
    update_registered_converter(
        estimator, "TracerLandmarkRidge", _shapes, _convert,
        options={"zipmap": [True, False], "raw_scores": [True, False]}, overwrite=True,
    )  # fmt: skip


def _shapes(operator: Any) -> None:
    n_classes = len(operator.raw_operator.classes_)
    operator.outputs[0].type = Int64TensorType([None])
    operator.outputs[1].type = FloatTensorType([None, n_classes])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """exp(-gamma max(|x|² + |c|² - 2 x·c, 0)) · weights, with x·c along the kept directions and
    lengths by what all directions count."""
    model = operator.raw_operator
    rows = operator.inputs[0].full_name

    def constant(value: Any) -> str:
        array = np.asarray(value, dtype=np.float32)
        name = scope.get_unique_variable_name("landmark_constant")
        # As bytes: skl2onnx would make lists of numbers of it, a second for a stage.
        container.add_initializer(name, None, None, numpy_helper.from_array(array))
        return str(name)

    def node(op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or scope.get_unique_variable_name(f"landmark_{op.lower()}")
        operator_name = scope.get_unique_operator_name(f"landmark_{op}")
        container.add_node(op, list(inputs), [name], name=operator_name, **attributes)
        return str(name)

    along = node("MatMul", rows, constant(model.directions_))
    products = node("MatMul", along, constant(-2.0 * model.landmarks_.T))
    axis = scope.get_unique_variable_name("landmark_axis")
    container.add_initializer(axis, TensorProto.INT64, [1], [1])
    left_out = node("ReduceSum", node("Mul", rows, rows), axis, keepdims=1)
    kept = node("MatMul", node("Mul", along, along), constant(model.shares_[:, None]))
    norms = node("Add", kept, node("Mul", left_out, constant(model.rest_)))
    squares = node("Add", node("Add", products, norms), constant(model.squares_))
    positive = node("Max", squares, constant(0.0))
    kernel = node("Exp", node("Mul", positive, constant(-model.gamma)))
    scores = node("MatMul", kernel, constant(model.weights_), output=operator.outputs[1].full_name)
    best = node("ArgMax", scores, axis=1, keepdims=0)
    node("Identity", best, output=operator.outputs[0].full_name)
