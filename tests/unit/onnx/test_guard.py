"""Graphs that must never reach ONNX Runtime, and that ours all do."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
from horizons import DIM, clusters
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from shared.contracts.manifest import Stage
from shared.core.grouping import group_folds
from shared.core.stages import FOLDS, fit_stages
from shared.fitting.graphs import export_cascade
from shared.onnx import session as session_module
from shared.onnx.guard import MAX_GRAPH_BYTES, check_graph
from shared.onnx.proto import InvalidGraph, read_graph
from shared.onnx.session import InvalidStage, StageSession

K = 4
STAGE = Stage(name="semantic", features="embedding", blob="0" * 64, bytes=1, dim=DIM, threshold=0.5)


@pytest.fixture(scope="module")
def exported() -> list[tuple[Stage, bytes]]:
    rows = clusters(400, tokens=True)
    cascade = fit_stages(rows, group_folds(rows.groups, rows.y, FOLDS, 0), seed=0, jobs=1).cascade()
    stages, blobs = export_cascade(cascade, rows, "embedding", [0.9, 0.5])
    return [(stage, blobs[stage.blob]) for stage in stages]


def tensor(name: str, value: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def model(
    *nodes: onnx.NodeProto, constants: list[onnx.TensorProto] | None = None, dim: Any = DIM,
    domains: dict[str, int] | None = None, **more: Any,
) -> onnx.ModelProto:  # fmt: skip
    """`nodes` make `big`, of which the four outputs of a stage are drawn so that it would load."""
    used = {
        "accept": ("ReduceSum", ["big", "one"], {"keepdims": 0}),
        "novelty": ("ReduceSum", ["big", "one"], {"keepdims": 0}),
        "label": ("ArgMax", ["features"], {"axis": 1, "keepdims": 0}),
        "scores": ("MatMul", ["features", "weights"], {}),
    }
    all_nodes = [*nodes, *(
        helper.make_node(op, inputs, [name], **attributes)
        for name, (op, inputs, attributes) in used.items()
    )]  # fmt: skip
    initialisers = [tensor("one", [1], np.int64), tensor("weights", np.zeros((DIM, K)))]
    outputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if name == "label" else TensorProto.FLOAT, None
        )
        for name in used
    ]
    for output in outputs:
        output.type.tensor_type.shape.CopyFrom(
            helper.make_tensor_type_proto(TensorProto.FLOAT, ["n"]).tensor_type.shape
        )
    graph = helper.make_graph(
        all_nodes, "g", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", dim])],
        outputs, [*initialisers, *(constants or [])],
    )  # fmt: skip
    opsets = [helper.make_opsetid(d, v) for d, v in (domains or {"": 18}).items()]
    made = helper.make_model(graph, opset_imports=opsets, **more)
    made.ir_version = 9
    return made


def node(operator: str, *inputs: str, to: str = "big", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [to], **attributes)


def refused(graph: onnx.ModelProto | bytes, says: str) -> None:
    blob = graph if isinstance(graph, bytes) else graph.SerializeToString()
    with pytest.raises(InvalidGraph, match=says):
        check_graph(blob, STAGE, n_labels=K)
    with pytest.raises(InvalidStage, match=f"semantic is refused: .*{says}"):
        StageSession(blob, STAGE, n_labels=K)


def test_our_own_graphs_pass(exported: list[tuple[Stage, bytes]]) -> None:
    for stage, blob in exported:
        check_graph(blob, stage, n_labels=K)


def test_the_harness_makes_graphs_that_pass() -> None:
    check_graph(model(node("Exp", "features")).SerializeToString(), STAGE, n_labels=K)


def test_the_bomb_of_108_bytes_is_refused() -> None:
    """ConstantOfShape of [20000, 20000]: 1.6 GiB when it is run."""
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [20_000, 20_000])
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["s"], ["y"])], "g", [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])], [shape],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    blob = made.SerializeToString()
    assert len(blob) < 120
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(blob, "it takes|ConstantOfShape|declared shape|both named")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("ConstantOfShape", ["shape"]),
        ("Expand", ["features", "shape"]),
        ("Tile", ["features", "shape"]),
        ("Resize", ["features", "", "", "shape"]),
        ("Range", ["zero", "many", "step"]),
        ("RandomNormalLike", ["features"]),
        ("NonZero", ["features"]),
        ("Reshape", ["features", "shape"]),
        ("Transpose", ["features"]),
        ("Conv", ["features", "features"]),
        ("StringConcat", ["features", "features"]),
    ],
)
def test_operators_that_none_of_ours_uses_are_refused(operator: str, inputs: list[str]) -> None:
    constants = [
        tensor("shape", [1 << 20, 1 << 20], np.int64), tensor("zero", 0), tensor("step", 1),
        tensor("many", 1e12),
    ]  # fmt: skip
    says = "takes '' before" if "" in inputs else f"operator '{operator}' is not allowed"
    refused(model(node(operator, *inputs), constants=constants), says)


def test_operators_of_other_domains_are_refused() -> None:
    custom = node("Exp", "features", domain="evil.example")
    refused(model(custom, domains={"": 18, "evil.example": 1}), "it needs 'evil.example' 1")
    refused(model(custom), "operator 'Exp' of 'evil.example' is not allowed")
    microsoft = node("Inverse", "features", domain="com.microsoft")
    refused(model(microsoft), "of 'com.microsoft' is not allowed")
    refused(model(node("Exp", "features"), domains={"": 99}), "it needs 'ai.onnx' 99")


def test_subgraphs_and_functions_are_refused() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["o"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("o", TensorProto.BOOL, [])],
    )  # fmt: skip
    constants = [tensor("trips", 1 << 40, np.int64), tensor("true", True, np.bool_)]
    refused(model(node("Loop", "trips", "true", body=body), constants=constants), "has field 6")
    refused(
        model(node("If", "true", then_branch=body, else_branch=body), constants=constants),
        "has field 6",
    )
    function = helper.make_function(
        "f", "F", ["x"], ["y"], [helper.make_node("Exp", ["x"], ["y"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    refused(model(node("Exp", "features"), functions=[function]), "has field 25")
    refused(model(node("Constant", value=tensor("v", [1.0]))), "has field 5")


def test_data_outside_of_the_graph_is_refused() -> None:
    outside = tensor("w", np.zeros(4))
    onnx.external_data_helper.set_external_data(outside, location="../../etc/passwd")
    outside.ClearField("raw_data")
    refused(model(node("Add", "features", "w"), constants=[outside]), "has field 1[34]")


def test_sparse_constants_training_and_metadata_are_refused() -> None:
    sparse = model(node("Exp", "features"))
    sparse.graph.sparse_initializer.add()
    refused(sparse, "graph has field 15")
    training = model(node("Exp", "features"))
    training.training_info.add()
    refused(training, "model has field 20")
    noted = model(node("Exp", "features"))
    noted.metadata_props.add(key="a", value="b")
    refused(noted, "model has field 14")


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        # an outer product by broadcasting
        ([node("Add", "row", "column")], {"row": (1, 8_000), "column": (8_000, 1)}),
        ([node("MatMul", "column", "row")], {"row": (1, 8_000), "column": (8_000, 1)}),
        # a row repeated by its index
        ([node("Gather", "wide", "zeros")], {"wide": (1, 10_000), "zeros": (10_000,)}),
        # many values that are each small enough
        (
            [
                node("Add", "row", "column", to="step0"),
                *(node("Exp", f"step{i}", to=f"step{i + 1}") for i in range(40)),
                node("Exp", "step40"),
            ],
            {"row": (1, 1_000), "column": (1_000, 1)},
        ),
        # doubled, and doubled again
        (
            [
                node("Exp", "features", to="double0"),
                *(
                    node("Concat", f"double{i}", f"double{i}", to=f"double{i + 1}", axis=1)
                    for i in range(30)
                ),
                node("Exp", "double30"),
            ],
            {},
        ),
    ],
    ids=["broadcast", "product", "gather", "many", "doubling"],
)
def test_graphs_that_grow_are_refused_whatever_they_are_made_of(
    nodes: list[onnx.NodeProto], constants: dict[str, tuple[int, ...]]
) -> None:
    made = [
        tensor(name, np.zeros(shape), np.int64 if name == "zeros" else np.float32)
        for name, shape in constants.items()
    ]
    refused(model(*nodes, constants=made), "hold more than")


def test_a_constant_that_is_not_what_its_shape_says_is_refused() -> None:
    for change in ("dims", "raw", "type", "both"):
        wrong = tensor("w", np.zeros(4))
        if change == "dims":
            wrong.dims[0] = 1 << 40
        elif change == "raw":
            wrong.raw_data = wrong.raw_data[:-1]
        elif change == "type":
            wrong.data_type = TensorProto.STRING
        else:
            wrong.float_data.extend([1.0] * 4)
        refused(model(node("Exp", "features"), constants=[wrong]), "constant 'w'")
    negative = tensor("w", np.zeros(4))
    negative.dims[0] = -4
    refused(model(node("Exp", "features"), constants=[negative]), "has the shape")


def test_shapes_that_are_not_the_manifests_are_refused() -> None:
    refused(model(node("Exp", "features"), dim=DIM + 1), "its manifest says")
    refused(model(node("Exp", "features"), dim="n"), "its manifest says")
    blob = model(node("Exp", "features")).SerializeToString()
    other = Stage(**(fields(STAGE) | {"scores_of": ("lexical",)}))
    with pytest.raises(InvalidGraph, match="its manifest says"):
        check_graph(blob, other, n_labels=K)


def fields(stage: Stage) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in stage.__struct_fields__}


def test_values_are_made_once_and_before_they_are_taken() -> None:
    refused(model(node("Exp", "later"), node("Exp", "features", to="later")), "before it is made")
    refused(model(node("Exp", "features"), node("Neg", "features")), "is made twice")
    refused(model(node("Exp", "features", to="one")), "is made twice")
    twice = [tensor("w", [1.0]), tensor("w", [2.0])]
    refused(model(node("Exp", "features"), constants=twice), "share a name")
    missing = model(node("Exp", "features"))
    missing.graph.output[0].name = "nobody"
    refused(missing, "never made")


def test_numbers_made_texts_are_refused() -> None:
    text = node("Cast", "features", to="text")
    text.attribute.append(helper.make_attribute("to", TensorProto.STRING))
    refused(model(text, node("Exp", "features")), "Cast to the type 8")


def test_sizes_that_depend_on_data_are_refused() -> None:
    count = node("ArgMax", "features", to="k", axis=1, keepdims=0)
    top = helper.make_node("TopK", ["features", "k"], ["big", "which"], axis=1)
    refused(model(count, top), "takes its input 1 from data")


def test_a_split_into_nothing_is_refused() -> None:
    nothing = helper.make_node("Split", ["features"], [], axis=1, num_outputs=0)
    refused(model(nothing, node("Exp", "features")), "into 0")


def test_a_manifest_of_many_labels_gives_no_room_for_more_than_two_gigabytes() -> None:
    """The room grows with the labels, of which a manifest may name a million."""
    side = 25_000
    graph = model(
        node("Add", "row", "column"),
        constants=[tensor("row", np.zeros((1, side))), tensor("column", np.zeros((side, 1)))],
    ).SerializeToString()
    for n_labels in (1_000, 1_000_000):
        with pytest.raises(InvalidGraph, match="hold more than"):
            check_graph(graph, STAGE, n_labels=n_labels)


def nested(number: int, content: bytes) -> bytes:
    """Field `number` of a message, which holds another one."""
    size, length = len(content), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        # a thousand nodes of ten thousand empty attributes: 20 MB that become gigabytes
        (nested(7, nested(1, nested(5, b"") * 10_000) * 1_000), "more than 200000 fields"),
        # tensors whose lists of numbers are each short enough
        (nested(7, nested(5, nested(7, b"\xff\x7f" * 60_000)) * 100), "more than 524288 numbers"),
    ],
    ids=["fields", "numbers"],
)
def test_small_bytes_that_become_large_in_memory_are_refused(blob: bytes, says: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(blob, says)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


def test_too_many_nodes_or_bytes_are_refused() -> None:
    chain = [node("Exp", "features" if i == 0 else f"v{i - 1}", to=f"v{i}") for i in range(1_001)]
    refused(model(*chain, node("Exp", "v1000")), "1006 nodes")
    refused(b"\0" * (MAX_GRAPH_BYTES + 1), "bytes, more than")


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"", "no graph"),
        (b"not a model", "field|wire|ends"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends too early"),
        (b"\x08" + b"\xff" * 10, "longer than 64 bits"),
        (b"\x3a\x00\x3a\x00", "graph twice"),
        (b"\x39" + b"\0" * 8, "wire type 1"),
        (b"\x12\x02\xff\xfe", "not UTF-8"),
        (b"\x12\x81\x80\x04" + b"a" * 65_537, "more than 4096 bytes"),
    ],
)
def test_bytes_that_are_no_message_are_refused(blob: bytes, says: str) -> None:
    refused(blob, says)


def test_a_graph_that_does_not_end_is_broken_off(
    exported: list[tuple[Stage, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of many nodes, so that there is a moment to break it off between them."""
    chain = [node("Exp", "features", to="v0")]
    chain += [node("Sigmoid", f"v{i}", to=f"v{i + 1}") for i in range(900)]
    monkeypatch.setattr(session_module, "TRIAL_SECONDS", 0.0)

    class Slow(session_module.StageSession):
        def run(self, rows: Any, earlier: Any = None, options: Any = None) -> Any:
            while options is not None and not options.terminate:
                pass
            return super().run(rows, earlier, options)

    with pytest.raises(InvalidStage, match="cannot be run within 0 s"):
        Slow(model(*chain, node("Exp", "v900")).SerializeToString(), STAGE, n_labels=K)


@settings(max_examples=100)
@given(data=st.data())
def test_what_is_read_is_what_onnx_reads(
    exported: list[tuple[Stage, bytes]], data: st.DataObject
) -> None:
    """Of changed bytes: refused with a reason, or understood as the official reader does."""
    stage, blob = data.draw(st.sampled_from(exported))
    interesting = data.draw(st.integers(max(0, len(blob) - 2_000), len(blob) - 1))
    at = data.draw(st.sampled_from([interesting, data.draw(st.integers(0, len(blob) - 1))]))
    piece = data.draw(st.binary(max_size=4))
    changed = blob[:at] + piece + blob[at + data.draw(st.integers(0, 4)) :]
    try:
        found = read_graph(changed)
        check_graph(changed, stage, n_labels=K)
    except InvalidGraph:
        return
    official = onnx.load_from_string(changed)
    assert [n.operator for n in found.nodes] == [n.op_type for n in official.graph.node]
    assert [n.domain for n in found.nodes] == [n.domain for n in official.graph.node]
    assert [n.inputs for n in found.nodes] == [tuple(n.input) for n in official.graph.node]
    assert [t.dims for t in found.tensors] == [tuple(t.dims) for t in official.graph.initializer]
    assert not official.functions
    with suppress(InvalidStage):
        StageSession(changed, stage, n_labels=K)
