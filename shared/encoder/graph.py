"""A small ONNX graph writer: nodes and constants, in order, with the same bytes every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first with Gelu
_IR_VERSION = 10  # read by ONNX Runtime 1.18 and later


class GraphWriter:
    """Collects the nodes of an encoder: two int64[texts, tokens] inputs, one embedding output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add a constant (once) and return its name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, named after it, and return that name."""
        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def model(self, dim: int, metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model, checked; its output is called `embedding`."""
        shape = ["texts", "tokens"]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["texts", dim])
        graph = helper.make_graph(
            self._nodes, "encoder", inputs, [output], list(self._constants.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="tracer-kafka",
        )
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        return model
