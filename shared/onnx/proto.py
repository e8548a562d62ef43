"""The part of onnx.proto that our exporter writes. What else there is (subgraphs, functions, sparse
and external tensors, training, metadata) is left out on purpose: see wire.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.onnx.wire import Field, InvalidWire, read_message

FLOAT, INT32, INT64, BOOL, FLOAT16 = 1, 6, 7, 9, 10
SIZES = {FLOAT: 4, INT32: 4, INT64: 8, BOOL: 1, FLOAT16: 2}
MAX_RANK = 4
MAX_KNOWN = 64  # integers of a tensor that are read: axes and such

_ATTRIBUTE = {
    1: Field("name", "text"), 2: Field("f", "float"), 3: Field("i", "int"), 4: Field("s", "bytes"),
    7: Field("floats", "floats"), 8: Field("ints", "ints"), 20: Field("type", "int"),
}  # fmt: skip
_NODE = {
    1: Field("input", "texts"), 2: Field("output", "texts"), 3: Field("name", "text"),
    4: Field("op_type", "text"), 5: Field("attribute", "messages", _ATTRIBUTE),
    6: Field("doc_string", "text"), 7: Field("domain", "text"),
}  # fmt: skip
_TENSOR = {
    1: Field("dims", "ints"), 2: Field("data_type", "int"), 4: Field("float_data", "floats"),
    7: Field("int64_data", "ints"), 8: Field("name", "text"), 9: Field("raw_data", "bytes"),
}  # fmt: skip
_DIM = {1: Field("value", "int"), 2: Field("param", "text")}
_SHAPE = {1: Field("dim", "messages", _DIM)}
_TENSOR_TYPE = {1: Field("elem_type", "int"), 2: Field("shape", "message", _SHAPE)}
_VALUE_INFO = {
    1: Field("name", "text"),
    2: Field("type", "message", {1: Field("tensor_type", "message", _TENSOR_TYPE)}),
}
_GRAPH = {
    1: Field("node", "messages", _NODE), 2: Field("name", "text"),
    5: Field("initializer", "messages", _TENSOR), 11: Field("input", "messages", _VALUE_INFO),
    12: Field("output", "messages", _VALUE_INFO),
}  # fmt: skip
_MODEL = {
    1: Field("ir_version", "int"), 2: Field("producer_name", "text"),
    3: Field("producer_version", "text"), 4: Field("domain", "text"),
    5: Field("model_version", "int"), 7: Field("graph", "message", _GRAPH),
    8: Field("opset_import", "messages", {1: Field("domain", "text"), 2: Field("version", "int")}),
}  # fmt: skip


class InvalidGraph(ValueError):
    """A graph that is not run. The message says why."""


@dataclass(frozen=True)
class Tensor:
    """A constant. `values`: of small integer ones, None for others."""

    name: str
    dims: tuple[int, ...]
    values: tuple[int, ...] | None


@dataclass(frozen=True)
class Node:
    """`attributes`: integers by name; of lists and texts only how many values they have."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """An input or output; a name in `dims` is a size that is known when it runs."""

    name: str
    kind: int
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    opsets: dict[str, int]
    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def read_graph(data: bytes) -> Graph:
    """Raises InvalidGraph for whatever is not a model as the exporter writes them."""
    try:
        model = read_message(memoryview(data), _MODEL, "model")
    except InvalidWire as error:
        raise InvalidGraph(str(error)) from error
    graph = model.get("graph")
    if graph is None:
        raise InvalidGraph("there is no graph")
    opsets = [(o.get("domain", ""), o.get("version", 0)) for o in model["opset_import"]]
    if len(dict(opsets)) < len(opsets):
        raise InvalidGraph("a domain is imported twice")
    return Graph(
        opsets=dict(opsets),
        nodes=tuple(_node(each) for each in graph["node"]),
        tensors=tuple(_tensor(each) for each in graph["initializer"]),
        inputs=tuple(_value(each) for each in graph["input"]),
        outputs=tuple(_value(each) for each in graph["output"]),
    )


def _node(found: dict[str, Any]) -> Node:
    attributes: dict[str, int] = {}
    for each in found["attribute"]:
        name = each.get("name", "")
        if name in attributes:
            raise InvalidGraph(f"attribute {name!r} is given twice")
        attributes[name] = each.get("i", each["floats"] or len(each["ints"]))
    return Node(
        operator=found.get("op_type", ""),
        domain=found.get("domain", ""),
        inputs=tuple(found["input"]),
        outputs=tuple(found["output"]),
        attributes=attributes,
    )


def _tensor(found: dict[str, Any]) -> Tensor:
    """Its data must be as many as its shape says."""
    name, kind, dims = found.get("name", ""), found.get("data_type", 0), tuple(found["dims"])
    if kind not in SIZES:
        raise InvalidGraph(f"constant {name!r} is of type {kind}")
    if len(dims) > MAX_RANK or any(dim < 0 for dim in dims):
        raise InvalidGraph(f"constant {name!r} has the shape {dims}")
    wanted = 1
    for dim in dims:
        wanted *= dim
    raw, ints, floats = found.get("raw_data"), found["int64_data"], found["float_data"]
    forms = [
        len(raw) / SIZES[kind] if raw is not None else None,
        len(ints) if ints and kind == INT64 else None,
        floats if floats and kind == FLOAT else None,
    ]
    sizes = [size for size in forms if size is not None]
    stray = (ints and kind != INT64) or (floats and kind != FLOAT)
    if stray or len(sizes) > 1 or (sizes or [0])[0] != wanted:
        raise InvalidGraph(f"constant {name!r} does not hold the {wanted} values of its shape")
    values = None
    if kind == INT64 and wanted <= MAX_KNOWN:
        values = tuple(ints) if raw is None else tuple(np.frombuffer(raw, "<i8").tolist())
    return Tensor(name, dims, values)


def _value(found: dict[str, Any]) -> Value:
    name, kind = found.get("name", ""), found.get("type", {}).get("tensor_type")
    if kind is None or "shape" not in kind:
        raise InvalidGraph(f"{name!r} is no tensor of a declared shape")
    dims = tuple(dim.get("param") or dim.get("value", 0) for dim in kind["shape"]["dim"])
    if any("param" in dim and "value" in dim for dim in kind["shape"]["dim"]):
        raise InvalidGraph(f"{name!r} has a size that is both named and given")
    if len(dims) > MAX_RANK:
        raise InvalidGraph(f"{name!r} has {len(dims)} dimensions")
    return Value(name, kind.get("elem_type", 0), dims)
