"""How large every value of a graph gets, from the sizes of its inputs: one rule per operator that
is allowed. There is none for an operator whose result's size depends on data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shared.onnx.proto import SIZES, InvalidGraph, Node, Tensor

Shape = tuple[int, ...]
Constants = Mapping[str, Tensor]
Rule = Callable[[Node, list[Shape], Constants], list[Shape]]


def _elementwise(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    rank = max(len(shape) for shape in shapes)
    result = [1] * rank
    for shape in shapes:
        for i, dim in enumerate((1,) * (rank - len(shape)) + shape):
            if result[i] == 1:
                result[i] = dim
            elif dim not in (1, result[i]):
                raise InvalidGraph(f"{node.operator} of shapes {shapes}")
    return [tuple(result)]


def _same(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    return [shapes[0]]


def _cast(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    """To a number: a text takes many times the room of one."""
    if node.attributes.get("to") not in SIZES:
        raise InvalidGraph(f"Cast to the type {node.attributes.get('to')}")
    return [shapes[0]]


def _argmax(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    return [_without(shapes[0], [node.attributes.get("axis", 0)], node)]


def _reduce(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    return [_without(shapes[0], _numbers(node, 1, constants), node)]


def _without(shape: Shape, axes: list[int], node: Node) -> Shape:
    gone = {_axis(axis, len(shape), node) for axis in axes}
    if node.attributes.get("keepdims", 1):
        return tuple(1 if i in gone else dim for i, dim in enumerate(shape))
    return tuple(dim for i, dim in enumerate(shape) if i not in gone)


def _squeeze(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    gone = {_axis(axis, len(shapes[0]), node) for axis in _numbers(node, 1, constants)}
    if any(shapes[0][axis] != 1 for axis in gone):
        raise InvalidGraph(f"Squeeze of the shape {shapes[0]}")
    return [tuple(dim for i, dim in enumerate(shapes[0]) if i not in gone)]


def _concat(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    axis = _axis(node.attributes.get("axis", 0), len(shapes[0]), node)
    rest = {(len(s), s[:axis], s[axis + 1 :]) for s in shapes}
    if len(rest) > 1:
        raise InvalidGraph(f"Concat of shapes {shapes}")
    return [(*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])]


def _gather(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    data, indices = shapes
    axis = _axis(node.attributes.get("axis", 0), len(data), node)
    return [(*data[:axis], *indices, *data[axis + 1 :])]


def _gather_elements(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    return [shapes[1]]


def _matmul(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    one, two = shapes
    if len(one) != 2 or len(two) != 2 or one[1] != two[0]:
        raise InvalidGraph(f"MatMul of shapes {shapes}")
    return [(one[0], two[1])]


def _top(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    axis = _axis(node.attributes.get("axis", -1), len(shapes[0]), node)
    most = _numbers(node, 1, constants)
    if len(most) != 1 or not 0 <= most[0] <= shapes[0][axis]:
        raise InvalidGraph(f"TopK of {most} of the shape {shapes[0]}")
    shape = (*shapes[0][:axis], most[0], *shapes[0][axis + 1 :])
    return [shape, shape]


def _split(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    axis = _axis(node.attributes.get("axis", 0), len(shapes[0]), node)
    parts = node.attributes.get("num_outputs", 0)
    if parts < 1 or parts != len(node.outputs) or shapes[0][axis] % parts:
        raise InvalidGraph(f"Split of the shape {shapes[0]} into {parts}")
    part = (*shapes[0][:axis], shapes[0][axis] // parts, *shapes[0][axis + 1 :])
    return [part] * parts


def _slice(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    starts, ends, axes = (_numbers(node, i, constants) for i in (1, 2, 3))
    if len(node.inputs) != 4 or not len(starts) == len(ends) == len(axes) == 1:
        raise InvalidGraph("Slice of anything but one axis in steps of one")
    axis = _axis(axes[0], len(shapes[0]), node)
    taken = len(range(shapes[0][axis])[starts[0] : ends[0]])
    return [(*shapes[0][:axis], taken, *shapes[0][axis + 1 :])]


def _linear(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    classes = node.attributes.get("classlabels_ints", 0)
    if len(shapes[0]) != 2 or node.attributes.get("coefficients", 0) != classes * shapes[0][1]:
        raise InvalidGraph(f"LinearClassifier of {classes} labels on the shape {shapes[0]}")
    return [shapes[0][:1], (shapes[0][0], classes)]


def _axis(axis: int, rank: int, node: Node) -> int:
    if not -rank <= axis < rank:
        raise InvalidGraph(f"{node.operator} along axis {axis} of {rank}")
    return axis % rank


def _numbers(node: Node, place: int, constants: Constants) -> list[int]:
    """An input that must be a small constant, as the size of the result depends on it."""
    name = node.inputs[place] if place < len(node.inputs) else ""
    tensor = constants.get(name)
    if tensor is None or tensor.values is None:
        raise InvalidGraph(f"{node.operator} takes its input {place} from data")
    return list(tensor.values)


# Rule, attributes, numbers of inputs (None: any) and outputs, by domain and operator.
OPERATORS: dict[tuple[str, str], tuple[Rule, frozenset[str], int | None, int | None]] = {
    ("", "ArgMax"): (_argmax, frozenset({"axis", "keepdims"}), 1, 1),
    ("", "Cast"): (_cast, frozenset({"to"}), 1, 1),
    ("", "Concat"): (_concat, frozenset({"axis"}), None, 1),
    ("", "Gather"): (_gather, frozenset({"axis"}), 2, 1),
    ("", "GatherElements"): (_gather_elements, frozenset({"axis"}), 2, 1),
    ("", "LogSoftmax"): (_same, frozenset({"axis"}), 1, 1),
    ("", "MatMul"): (_matmul, frozenset(), 2, 1),
    ("", "Max"): (_elementwise, frozenset(), None, 1),
    ("", "Mod"): (_elementwise, frozenset(), 2, 1),
    ("", "ReduceSum"): (_reduce, frozenset({"keepdims"}), 2, 1),
    ("", "Slice"): (_slice, frozenset(), 4, 1),
    ("", "Split"): (_split, frozenset({"axis", "num_outputs"}), 1, None),
    ("", "Squeeze"): (_squeeze, frozenset(), 2, 1),
    ("", "TopK"): (_top, frozenset({"axis"}), 2, 2),
    ("", "Where"): (_elementwise, frozenset(), 3, 1),
    ("ai.onnx.ml", "LinearClassifier"): (
        _linear,
        frozenset(
            {"classlabels_ints", "coefficients", "intercepts", "multi_class", "post_transform"}
        ),
        1,
        2,
    ),
    **{
        ("", name): (_elementwise, frozenset(), 2, 1)
        for name in ("Add", "And", "Div", "Equal", "GreaterOrEqual", "LessOrEqual", "Mul", "Sub")
    },
    **{
        ("", name): (_same, frozenset(), 1, 1)
        for name in ("Exp", "Identity", "Neg", "Sigmoid", "Sqrt")
    },
}


def shapes_after(node: Node, shapes: list[Shape], constants: Constants) -> list[Shape]:
    """Shapes of its outputs. Raises InvalidGraph, for an operator that is not allowed as well."""
    known = OPERATORS.get((node.domain, node.operator))
    if known is None:
        where = f" of {node.domain[:50]!r}" if node.domain else ""
        raise InvalidGraph(f"operator {node.operator[:50]!r}{where} is not allowed")
    rule, attributes, inputs, outputs = known
    strange = set(node.attributes) - attributes
    if strange:
        raise InvalidGraph(f"{node.operator} has the attribute {min(strange)[:50]!r}")
    if not shapes or inputs not in (None, len(shapes)) or outputs not in (None, len(node.outputs)):
        raise InvalidGraph(
            f"{node.operator} has {len(shapes)} inputs and {len(node.outputs)} outputs"
        )
    return rule(node, shapes, constants)
