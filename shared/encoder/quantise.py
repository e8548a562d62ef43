"""The int8 variant of an encoder: dense layers with 8-bit integers where that costs little.

The usual dynamic recipe scales activations by what is in the *batch*, so that a text's embedding
would depend on its neighbours and trainer and router would disagree. Here every scale is fixed:
1. calibration texts show each layer's inputs;
2. one step of 1/255 of a *range* that nearly all channels keep to serves all of them. A channel
   that goes beyond is cut into further ranges side by side, a column each with the same weights:
   clipped to their ranges, the columns sum up to the value. So a few outlying channels, twenty
   times as wide in a transformer, neither coarsen the step nor are lost;
3. kernels get 7 bits per output channel: with 8, AVX2 without VNNI saturates its 16-bit sums. They
   are rounded one input at a time, and what that loses is made good by the inputs not rounded yet
   (GPTQ, arXiv 2210.17323), biases by what the outputs miss on average;
4. layers whose relative output error exceeds a limit stay in float32;
5. GELU by its approximation with tanh: its error is a thirtieth of a step, and it saves 3% of CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from shared.encoder.artifact import EncoderFacts, EncoderInfo, read_encoder, write_encoder
from shared.encoder.calibration import Dense, Floats, dense_layers, layer_inputs
from shared.encoder.errors import UnsupportedModel
from shared.encoder.sentences import SENTENCES

OPERATORS = frozenset(
    {
        *("Add", "Concat", "Gather", "QuantizeLinear"),
        *("com.microsoft.FastGelu", "com.microsoft.MatMulIntegerToFloat"),
    }
)
MAX_ERROR = 0.05  # MiniLM stays below: 0.02, the first second feed-forward layer 0.04
_CHANNELS_PER_EXTRA = 24  # a column more for so many; twice as many columns gain little
_KERNEL_CLIPS = (1.0, 0.9, 0.8, 0.7)  # of the largest weight of an output channel
_HEADROOM = np.float32(1.1)  # traffic goes a little beyond what calibration saw
_LEVELS = 255
_KERNEL_LIMIT = 63
_DAMPING = 0.05  # of the mean square of an input: calibration shows fewer rows than inputs
_AT_ONCE = 64  # inputs rounded before the others learn of it
_ZEROS = range(0, _LEVELS + 1, 5)  # the integers that may stand for 0.0
_HALVINGS = 24


@dataclass(frozen=True, slots=True)
class Ranges:
    """How one layer input becomes integers.

    Column i of the extras is channel `channels[i]` in the range `places[i]` (1: the one above the
    common range, -1: the one below).
    """

    step: np.float32
    zero: int  # the integer that stands for 0.0
    channels: NDArray[np.int64]  # [extras]
    places: NDArray[np.int64]  # [extras], never 0

    @property
    def shifts(self) -> Floats:
        """What moves each extra column's range onto the common one."""
        shifts: Floats = (-self.places * (_LEVELS * self.step)).astype(np.float32)
        return shifts

    def rounded(self, rows: Floats) -> Floats:
        """The values that the columns stand for, float32[rows, width + extras]."""
        columns = np.concatenate([rows, rows[:, self.channels] + self.shifts], axis=1)
        integers = np.clip(np.rint(columns / self.step) + self.zero, 0, _LEVELS)
        values: Floats = ((integers - self.zero) * self.step).astype(np.float32)
        return values


@dataclass(frozen=True, slots=True)
class Quantised:
    """One layer input's ranges, and the kernels that read it."""

    ranges: Ranges
    kernels: list[NDArray[np.int8]]  # [width + extras, outputs] each
    kernel_steps: list[Floats]  # [outputs] each
    biases: list[Floats]  # [outputs] each
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
    ranges = _ranges(rows)
    columns = ranges.rounded(rows)
    second_moments = rows.T.astype(np.float64) @ rows
    kernels, steps, biases, errors = [], [], [], []
    for dense in users:
        step = _kernel_steps(dense.kernel)
        integers = _rounded_kernel(dense.kernel, step, second_moments)
        integers = np.concatenate([integers, integers[ranges.channels]])
        exact, found = rows @ dense.kernel, columns @ (integers * step)
        bias = (exact - found).mean(axis=0)  # with what the extras say when idle
        errors.append(_relative_error(found + bias, exact))
        kernels.append(integers)
        steps.append(step)
        biases.append(bias if dense.bias is None else bias + dense.bias)
    return Quantised(ranges, kernels, steps, biases, max(errors))


def _ranges(rows: Floats) -> Ranges:
    """The finest step for which the extra columns suffice."""
    lows = np.minimum(rows.min(axis=0), 0) * _HEADROOM
    highs = np.maximum(rows.max(axis=0), 0) * _HEADROOM
    extras = -(-rows.shape[1] // _CHANNELS_PER_EXTRA)
    whole = max(float(highs.max() - lows.min()), 1e-5)
    width, zero = min((_narrowest(lows, highs, whole, extras, zero), zero) for zero in _ZEROS)
    above, below = _further(lows, highs, width, zero)
    numbers = np.arange(len(lows))
    counts = np.concatenate([above, below])
    places = np.concatenate([np.arange(1, count + 1) for count in counts])
    places[above.sum() :] *= -1
    step = np.float32(width / _LEVELS)
    return Ranges(step, zero, np.repeat(np.tile(numbers, 2), counts), places)


def _narrowest(lows: Floats, highs: Floats, whole: float, extras: int, zero: int) -> float:
    """The width of the common range, by bisection of its logarithm."""
    narrow, wide = whole / _LEVELS, whole * 2
    for _ in range(_HALVINGS):
        width = (narrow * wide) ** 0.5
        above, below = _further(lows, highs, width, zero)
        if above.sum() + below.sum() <= extras:
            wide = width
        else:
            narrow = width
    return wide


def _further(
    lows: Floats, highs: Floats, width: float, zero: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many ranges each channel needs above and below the common one."""
    under = width * zero / _LEVELS
    above = np.ceil((highs - (width - under)) / width)
    below = np.ceil((-under - lows) / width)
    return np.maximum(above, 0).astype(np.int64), np.maximum(below, 0).astype(np.int64)


def _relative_error(found: Floats, exact: Floats) -> float:
    """Mean over output channels, so that a few outlying ones do not hide what the others lose."""
    spread = np.maximum(exact.std(axis=0), np.float32(1e-12))
    return float((np.sqrt(((found - exact) ** 2).mean(axis=0)) / spread).mean())


def _kernel_steps(kernel: Floats) -> Floats:
    """The step of each output channel, clipped where that lessens its error."""
    largest = np.maximum(np.abs(kernel).max(axis=0), np.float32(1e-12))
    steps = np.stack([largest * np.float32(clip / _KERNEL_LIMIT) for clip in _KERNEL_CLIPS])
    losses = [((_integers(kernel, step) * step - kernel) ** 2).sum(axis=0) for step in steps]
    best: Floats = np.take_along_axis(steps, np.argmin(losses, axis=0)[None], axis=0)[0]
    return best


def _rounded_kernel(
    kernel: Floats, step: Floats, second_moments: NDArray[np.float64]
) -> NDArray[np.int8]:
    """`kernel` in steps, for inputs with these `second_moments`, float64[inputs, inputs]."""
    order = np.argsort(-second_moments.diagonal(), kind="stable")  # the heaviest inputs first
    left = kernel[order].astype(np.float64)
    moments = second_moments[np.ix_(order, order)]
    moments[np.diag_indices_from(moments)] += moments.diagonal().mean() * _DAMPING + 1e-12
    spread = np.linalg.cholesky(np.linalg.inv(moments)).T  # how a loss is made good further on
    rounded = np.empty_like(kernel, np.int8)
    for begin in range(0, len(left), _AT_ONCE):
        block = range(begin, min(begin + _AT_ONCE, len(left)))
        losses = np.empty((len(block), left.shape[1]))
        for i in block:
            rounded[order[i]] = integers = _integers(left[i], step)
            losses[i - begin] = (left[i] - integers * step) / spread[i, i]
            left[i : block.stop] -= np.outer(spread[i, i : block.stop], losses[i - begin])
        left[block.stop :] -= spread[begin : block.stop, block.stop :].T @ losses
    return rounded


def _integers(kernel: NDArray[Any], step: Floats) -> NDArray[np.int8]:
    return np.rint(kernel / step).clip(-_KERNEL_LIMIT, _KERNEL_LIMIT).astype(np.int8)


def _rewrite(
    model: onnx.ModelProto, chosen: dict[str, Quantised], groups: dict[str, list[Dense]]
) -> None:
    """Replace the chosen layers in place; each input is quantised once for all its readers."""
    graph = model.graph
    replaced: dict[str, list[onnx.NodeProto]] = {}
    constants: list[onnx.TensorProto] = []
    for name, plan in chosen.items():
        nodes = _quantise_input(name, plan.ranges, constants)
        readers = {dense.node.output[0]: dense for dense in groups[name]}
        first = next(n.output[0] for n in graph.node if n.output[0] in readers)
        for index, (output, dense) in enumerate(readers.items()):
            product = _product(name, plan, index, dense, constants)
            replaced[output] = [product]
        replaced[first] = [*nodes, *replaced[first]]
    for node in graph.node:
        if node.op_type == "Gelu" and (output := node.output[0]) in chosen:
            replaced[output] = [_microsoft("FastGelu", list(node.input), output)]
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
    name: str, ranges: Ranges, constants: list[onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """`name` as integers, called `{name}/integers`."""
    common, integers = f"{name}/common", f"{name}/integers"
    scale, zero = f"{name}/scale", f"{name}/zero"
    constants += [
        numpy_helper.from_array(np.array(ranges.step), scale),
        numpy_helper.from_array(np.array(ranges.zero, np.uint8), zero),
        numpy_helper.from_array(ranges.channels, f"{name}/channels"),
        numpy_helper.from_array(ranges.shifts, f"{name}/shifts"),
    ]
    wide, shifted, further = f"{name}/wide", f"{name}/shifted", f"{name}/further"
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("QuantizeLinear", [name, scale, zero], common, {}),
        ("Gather", [name, f"{name}/channels"], wide, {"axis": -1}),
        ("Add", [wide, f"{name}/shifts"], shifted, {}),
        ("QuantizeLinear", [shifted, scale, zero], further, {}),
        ("Concat", [common, further], integers, {"axis": -1}),
    ]
    return [
        helper.make_node(operator, inputs, [output], name=output, **attributes)
        for operator, inputs, output, attributes in nodes
    ]


def _product(
    name: str, plan: Quantised, index: int, dense: Dense, constants: list[onnx.TensorProto]
) -> onnx.NodeProto:
    output = dense.node.output[0]
    kernel, steps, bias = f"{output}/kernel", f"{output}/steps", f"{output}/bias"
    constants += [
        numpy_helper.from_array(plan.kernels[index], kernel),
        numpy_helper.from_array(plan.kernel_steps[index], steps),
        numpy_helper.from_array(plan.biases[index], bias),
    ]
    # The kernel's zero point is left out: 0.
    inputs = [f"{name}/integers", kernel, f"{name}/scale", steps, f"{name}/zero", "", bias]
    return _microsoft("MatMulIntegerToFloat", inputs, output)


def _microsoft(operator: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=output, domain="com.microsoft")
