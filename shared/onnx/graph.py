"""A small builder of ONNX graphs: nodes by operator, constants by value, names that are unique."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = {"": 18, "ai.onnx.ml": 3}
IR_VERSION = 9


class GraphBuilder:
    """Nodes and initialisers in the order they were added, so that equal calls give equal bytes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node of one output and return that output's name."""
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def add_two(self, operator: str, *inputs: str, **attributes: Any) -> tuple[str, str]:
        """The same for a node of two outputs."""
        names = (f"{operator.lower()}_{len(self.nodes)}a", f"{operator.lower()}_{len(self.nodes)}b")
        self.nodes.append(helper.make_node(operator, list(inputs), list(names), **attributes))
        return names

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        array: NDArray[Any] = np.asarray(value, dtype=dtype)
        name = f"constant_{len(self.initialisers)}"
        self.initialisers.append(numpy_helper.from_array(array, name))
        return name


def model_bytes(graph: onnx.GraphProto) -> bytes:
    """Serialised, checked model. Raises onnx.checker.ValidationError."""
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(domain, v) for domain, v in OPSET.items()]
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
