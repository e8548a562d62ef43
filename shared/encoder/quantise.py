"""The int8 variant of an encoder: dense layers with 8-bit integers where that costs little.

The usual dynamic recipe scales activations by what is in the *batch*, so that a text's embedding
would depend on its neighbours and trainer and router would disagree. Here every scale is fixed:
1. calibration texts show each layer's inputs;
2. outlying channels are scaled down in the input and up in the kernel (SmoothQuant, by the α that
   errs least);
3. kernels get 7 bits per output channel: with 8, AVX2 without VNNI saturates its 16-bit sums;
4. layers whose relative output error exceeds a limit stay in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from shared.encoder.artifact import EncoderFacts, EncoderInfo, read_encoder, write_encoder
from shared.encoder.calibration import Dense, Floats, dense_layers, layer_inputs
from shared.encoder.errors import UnsupportedModel
from shared.encoder.sentences import SENTENCES

OPERATORS = frozenset({"QuantizeLinear", "com.microsoft.MatMulIntegerToFloat"})
MAX_ERROR = 0.04  # on MiniLM: all but the second feed-forward layers
_ALPHAS = (0.4, 0.5, 0.6, 0.7)
_KERNEL_CLIPS = (1.0, 0.9, 0.8, 0.7)  # of the largest weight of an output channel
_HEADROOM = 1.1  # traffic goes a little beyond what calibration saw
_ZERO_POINT = 128
_KERNEL_LIMIT = 63


@dataclass(frozen=True, slots=True)
class Quantised:
    """One layer input with fixed scales, and the kernels that read it."""

    smooth: Floats  # [inputs]: what the input is multiplied by
    scale: np.float32
    kernels: list[NDArray[np.int8]]
    kernel_scales: list[Floats]  # [outputs] each
    error: float  # largest relative error of a layer's output on the calibration texts


def quantise(
    source: Path,
    folder: Path,
    *,
    texts: Sequence[str] = SENTENCES,
    max_error: float = MAX_ERROR,
) -> EncoderInfo:
    """Write the int8 variant of the float32 artifact in `source` to `folder`.

    `texts` calibrate the scales; a task's own traffic does it best. On one machine the same texts
    give the same bytes. Raises UnsupportedModel when no layer stays within `max_error`.
    """
    files = read_encoder(source)
    if files.info.precision != "float32":
        raise UnsupportedModel(f"{source} is {files.info.precision} already")
    model = onnx.load_model_from_string(files.model)
    layers = sorted(dense_layers(model), key=lambda dense: dense.node.input[0])
    groups = {name: list(users) for name, users in groupby(layers, lambda d: d.node.input[0])}
    inputs = layer_inputs(files, list(groups), texts)
    plans = {name: _plan(inputs[name], users) for name, users in groups.items()}
    chosen = {name: plan for name, plan in plans.items() if plan.error <= max_error}
    if not chosen:
        raise UnsupportedModel(f"no dense layer of {source} keeps an error of {max_error}")
    _rewrite(model, chosen, groups)
    packages = ("onnx", "onnxruntime")
    made_by = files.info.made_by | {package: version(package) for package in packages}
    facts = {name: getattr(files.info, name) for name in EncoderFacts.__struct_fields__}
    changed = {"precision": "int8", "made_by": made_by}
    return write_encoder(
        folder,
        model=model.SerializeToString(),
        tokenizer=files.tokenizer,
        facts=msgspec.convert(facts | changed, EncoderFacts),
    )


def _plan(rows: Floats, users: list[Dense]) -> Quantised:
    """The scales with the least error for this input."""
    return min((_with_alpha(rows, users, alpha) for alpha in _ALPHAS), key=lambda p: p.error)


def _with_alpha(rows: Floats, users: list[Dense], alpha: float) -> Quantised:
    tiny = np.float32(1e-5)
    largest = np.maximum(np.abs(rows).max(axis=0), tiny)
    heaviest = np.maximum(np.max([np.abs(d.kernel).max(axis=1) for d in users], axis=0), tiny)
    smooth = (heaviest ** (1 - alpha) / largest**alpha).astype(np.float32)
    scale = np.float32((largest * smooth).max() * _HEADROOM / (255 - _ZERO_POINT))
    rounded = np.clip(np.rint(rows * smooth / scale), -_ZERO_POINT, 255 - _ZERO_POINT) * scale
    kernels, steps, errors = [], [], []
    for dense in users:
        integers, step = _round_kernel(dense.kernel / smooth[:, None])
        errors.append(_relative_error(rounded @ (integers * step), rows @ dense.kernel))
        kernels.append(integers)
        steps.append(step)
    return Quantised(smooth, scale, kernels, steps, max(errors))


def _relative_error(found: Floats, exact: Floats) -> float:
    """Mean over output channels, so that a few outlying ones do not hide what the others lose."""
    spread = np.maximum(exact.std(axis=0), np.float32(1e-12))
    return float((np.sqrt(((found - exact) ** 2).mean(axis=0)) / spread).mean())


def _round_kernel(kernel: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Integers and the step of each output channel, clipped where that lessens its error."""
    largest = np.maximum(np.abs(kernel).max(axis=0), np.float32(1e-12))
    steps = np.stack([largest * np.float32(clip / _KERNEL_LIMIT) for clip in _KERNEL_CLIPS])
    losses = [((_integers(kernel, step) * step - kernel) ** 2).sum(axis=0) for step in steps]
    best = np.take_along_axis(steps, np.argmin(losses, axis=0)[None], axis=0)[0]
    return _integers(kernel, best), best


def _integers(kernel: Floats, step: Floats) -> NDArray[np.int8]:
    rounded: Floats = np.rint(kernel / step)
    return rounded.clip(-_KERNEL_LIMIT, _KERNEL_LIMIT).astype(np.int8)


def _rewrite(
    model: onnx.ModelProto, chosen: dict[str, Quantised], groups: dict[str, list[Dense]]
) -> None:
    """Replace the chosen layers in place; each input is quantised once for all its readers."""
    graph = model.graph
    replaced: dict[str, list[onnx.NodeProto]] = {}
    constants: list[onnx.TensorProto] = []
    for name, plan in chosen.items():
        nodes = _quantise_input(name, plan, constants)
        readers = {dense.node.output[0]: dense for dense in groups[name]}
        first = next(n.output[0] for n in graph.node if n.output[0] in readers)
        for index, (output, dense) in enumerate(readers.items()):
            product = _product(name, plan, index, dense, constants)
            replaced[output] = [product]
        replaced[first] = [*nodes, *replaced[first]]
    fresh = [part for node in graph.node for part in replaced.get(node.output[0], [node])]
    fresh = [onnx.NodeProto.FromString(node.SerializeToString()) for node in fresh]
    del graph.node[:]
    graph.node.extend(fresh)
    used = {name for node in fresh for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *constants])
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _quantise_input(
    name: str, plan: Quantised, constants: list[onnx.TensorProto]
) -> list[onnx.NodeProto]:
    constants += [
        numpy_helper.from_array(plan.smooth, f"{name}/smooth"),
        numpy_helper.from_array(np.array(plan.scale), f"{name}/scale"),
        numpy_helper.from_array(np.array(_ZERO_POINT, np.uint8), f"{name}/zero"),
    ]
    scaled, integers = f"{name}/scaled", f"{name}/integers"
    read = [scaled, f"{name}/scale", f"{name}/zero"]
    return [
        helper.make_node("Mul", [name, f"{name}/smooth"], [scaled], name=scaled),
        helper.make_node("QuantizeLinear", read, [integers], name=integers),
    ]


def _product(
    name: str, plan: Quantised, index: int, dense: Dense, constants: list[onnx.TensorProto]
) -> onnx.NodeProto:
    output = dense.node.output[0]
    kernel, steps, bias = f"{output}/kernel", f"{output}/steps", f"{output}/bias"
    constants += [
        numpy_helper.from_array(plan.kernels[index], kernel),
        numpy_helper.from_array(plan.kernel_scales[index], steps),
    ]
    inputs = [f"{name}/integers", kernel, f"{name}/scale", steps, f"{name}/zero"]
    if dense.bias is not None:
        constants.append(numpy_helper.from_array(dense.bias, bias))
        inputs += ["", bias]  # the kernel's zero point is left out: 0
    return helper.make_node(
        "MatMulIntegerToFloat", inputs, [output], name=output, domain="com.microsoft"
    )
