"""What flows into the dense layers of an encoder when it reads calibration texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tokenizers import Tokenizer

from shared.encoder.artifact import EncoderFiles
from shared.encoder.onnx_encoder import padded

Floats = NDArray[np.float32]
_MAX_ROWS = 768  # token vectors kept per layer input


@dataclass(frozen=True, slots=True)
class Dense:
    """A constant matrix product: `kernel` is float32[inputs, outputs], `bias` [outputs] or None."""

    node: onnx.NodeProto
    kernel: Floats
    bias: Floats | None


def dense_layers(model: onnx.ModelProto) -> list[Dense]:
    """The `Gemm` and `MatMul` nodes with a constant two-dimensional float32 kernel, in order."""
    constants = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    found = (_dense(node, constants) for node in model.graph.node)
    return [dense for dense in found if dense is not None]


def layer_inputs(
    files: EncoderFiles, names: Sequence[str], texts: Sequence[str]
) -> dict[str, Floats]:
    """The values that flow through each of `names` for `texts`: float32[rows, width].

    One text at a time, hence without padding; evenly thinned to 768 rows.
    """
    model = onnx.load_model_from_string(files.model)
    floats = onnx.TensorProto.FLOAT
    model.graph.output.extend(helper.make_tensor_value_info(name, floats, None) for name in names)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    tokenizer = Tokenizer.from_buffer(files.tokenizer)
    tokenizer.enable_truncation(files.info.max_tokens)
    seen: dict[str, list[Floats]] = {name: [] for name in names}
    for text in texts:
        ids, mask = padded([tokenizer.encode(text).ids], files.info.pad_id)
        values = session.run(list(names), {"input_ids": ids, "attention_mask": mask})
        for name, value in zip(names, values, strict=True):
            seen[name].append(value.reshape(-1, value.shape[-1]))
    return {name: _thinned(np.concatenate(values)) for name, values in seen.items()}


def _dense(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> Dense | None:
    if node.op_type not in ("Gemm", "MatMul") or node.input[1] not in constants:
        return None
    kernel = numpy_helper.to_array(constants[node.input[1]])
    settings = {
        attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute
    }
    if kernel.ndim != 2 or settings.get("transA") or settings.get("alpha", 1.0) != 1.0:
        return None
    if settings.get("transB"):
        kernel = kernel.T
    bias = None
    if len(node.input) == 3:
        if node.input[2] not in constants or settings.get("beta", 1.0) != 1.0:
            return None
        bias = numpy_helper.to_array(constants[node.input[2]])
        if bias.shape != (kernel.shape[1],):
            return None
    return Dense(node, kernel, bias)


def _thinned(rows: Floats) -> Floats:
    return rows[:: max(1, len(rows) // _MAX_ROWS)]
