"""BERT weights to ONNX without torch: embeddings, layers, masked mean, unit length.

Rows of a batch are filled up to one width for attention only. Everything else, nine tenths of the
work, is done on the tokens there are: `kept` says where they lie, and `place` which of them each
place of the filled batch reads.

Only standard operators (see `OPERATORS`): measured on ONNX Runtime 1.32 they are as fast as the
fused `com.microsoft` ones, because 87% of the time is in `Gemm` either way, and any runtime can
serve them. All dense layers are two-dimensional `Gemm`s, which add their bias for free.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from shared.encoder.artifact import (
    PACKED,
    EncoderFacts,
    EncoderInfo,
    file_sha256,
    plain_tokenizer,
    write_encoder,
)
from shared.encoder.bert_source import (
    BertSource,
    Weights,
    read_bert_source,
    read_bert_weights,
    weight,
)
from shared.encoder.graph import OPSET, GraphWriter

OPERATORS = frozenset(
    {
        *("Add", "Cast", "Concat", "CumSum", "Div", "Exp", "Gather", "Gelu", "Gemm"),
        *("LayerNormalization", "MatMul", "Max", "Mod", "Mul", "NonZero", "ReduceL2", "ReduceMax"),
        *("Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
    }
)
_MASKED = np.float32(-1e9)  # exp() of it is exactly 0, so that padding adds nothing


def export_bert(source_folder: Path, folder: Path, *, name: str) -> EncoderInfo:
    """Write the artifact of the BERT sentence encoder in `source_folder` to `folder`.

    Needs `onnx` and `safetensors`, no torch. Raises UnsupportedModel, or EncoderError as
    `write_encoder` does.
    """
    source = read_bert_source(source_folder)
    model = build_bert(source, read_bert_weights(source))
    facts = EncoderFacts(
        name=name,
        dim=source.hidden,
        max_tokens=source.max_tokens,
        pad_id=source.pad_id,
        pooling="mean",
        normalised=True,
        precision="float32",
        opset=OPSET,
        weights_sha256=file_sha256(source.weights_path),
        made_by={package: version(package) for package in ("onnx", "safetensors")},
    )
    return write_encoder(
        folder,
        model=model.SerializeToString(),
        tokenizer=plain_tokenizer(source.tokenizer_path.read_bytes()),
        facts=facts,
    )


def build_bert(source: BertSource, weights: Weights) -> onnx.ModelProto:
    """The ONNX model: input_ids, attention_mask int64[n, l] -> embedding float32[n, hidden]."""
    return _Bert(source, weights).build()


class _Bert:
    """One graph being written. Rows of 2-d tensors are the batch's tokens, without padding."""

    def __init__(self, source: BertSource, weights: Weights) -> None:
        self._source = source
        self._weights = weights
        self._graph = GraphWriter()

    def build(self) -> onnx.ModelProto:
        self._shapes()
        rows = self._embed()
        self._mask()
        for index in range(self._source.layers):
            rows = self._layer(f"encoder.layer.{index}", rows)
        self._pool(rows)
        return self._graph.model(self._source.hidden, PACKED)

    def _shapes(self) -> None:
        graph, hidden = self._graph, self._source.hidden
        graph.add("Shape", ["input_ids"], "text_token")
        graph.add("Shape", ["input_ids"], "tokens", start=1, end=2)
        whole = graph.integers("hidden", hidden)
        graph.add("Concat", ["text_token", whole], "by_text", axis=0)
        graph.integers("by_row", -1, hidden)
        flat = graph.integers("flat", -1)
        graph.add("Reshape", ["attention_mask", flat], "flat_mask")
        graph.add("NonZero", ["flat_mask"], "kept_row")
        graph.add("Squeeze", ["kept_row", graph.integers("axis_0", 0)], "kept")
        graph.add("Mod", ["kept", "tokens"], "where")
        # Padding reads the token before it, which attention then gives no weight.
        graph.add("CumSum", ["flat_mask", graph.constant("along", np.int64(0))], "count")
        graph.add("Sub", ["count", graph.constant("one_token", np.int64(1))], "place_or_none")
        graph.add("Max", ["place_or_none", graph.constant("first", np.int64(0))], "place")
        self._head_shapes()

    def _head_shapes(self) -> None:
        """`placed`: of each text, head and place the row of [tokens * heads, per head] it reads;
        `back`: of each token and head the row of [texts * heads * places, per head]."""
        graph, heads = self._graph, self._source.heads
        count = graph.integers("heads", heads)
        numbers = np.arange(heads)
        graph.add("Reshape", ["place", "text_token"], "place_2d")
        graph.add("Unsqueeze", ["place_2d", graph.integers("axis_1", 1)], "place_3d")
        graph.add("Mul", ["place_3d", count], "first_head")
        every_head = graph.constant("every_head", numbers.reshape(1, heads, 1))
        graph.add("Add", ["first_head", every_head], "placed")
        graph.add("Sub", ["kept", "where"], "before")  # places of the texts before
        graph.add("Mul", ["before", count], "before_heads")
        graph.add("Add", ["before_heads", "where"], "in_first_head")
        graph.add("Unsqueeze", ["in_first_head", "axis_1"], "in_first_head_2d")
        graph.add("Mul", ["tokens", graph.constant("numbers", numbers)], "head_starts")
        graph.add("Add", ["in_first_head_2d", "head_starts"], "back")
        for width in (self._source.hidden // heads, self._source.hidden // heads + 1):
            graph.integers(f"by_{width}", -1, width)

    def _embed(self) -> str:
        graph, hidden = self._graph, self._source.hidden
        words = weight(self._weights, "embeddings.word_embeddings.weight", None, hidden)
        places = weight(self._weights, "embeddings.position_embeddings.weight", None, hidden)
        types = weight(self._weights, "embeddings.token_type_embeddings.weight", None, hidden)
        # One text at a time has token type 0 throughout.
        positions = graph.constant("positions", (places + types[0])[: self._source.max_tokens])
        graph.add("Reshape", ["input_ids", "flat"], "flat_ids")
        graph.add("Gather", ["flat_ids", "kept"], "ids")
        graph.add("Gather", [graph.constant("words", words), "ids"], "word")
        graph.add("Gather", [positions, "where"], "position")
        graph.add("Add", ["word", "position"], "embedding_rows")
        return self._norm("embeddings.LayerNorm", "embedding_rows")

    def _mask(self) -> None:
        """0 for tokens, -1e9 for padding: float32[texts, 1, 1, tokens]."""
        graph = self._graph
        graph.add("Cast", ["attention_mask"], "mask", to=onnx.TensorProto.FLOAT)
        one = graph.constant("one", np.float32(1))
        graph.add("Sub", [one, "mask"], "padding")
        graph.add("Mul", ["padding", graph.constant("masked", _MASKED)], "penalty_2d")
        graph.add("Unsqueeze", ["penalty_2d", graph.integers("axes_1_2", 1, 2)], "penalty")

    def _layer(self, layer: str, rows: str) -> str:
        context = self._attention(f"{layer}.attention.self", rows)
        attended = self._dense(f"{layer}.attention.output.dense", context)
        rows = self._residual(f"{layer}.attention.output.LayerNorm", attended, rows)
        inner = self._dense(f"{layer}.intermediate.dense", rows, out=None)
        self._graph.add("Gelu", [inner], f"{layer}.gelu")  # approximate="none": exact Erf
        outer = self._dense(f"{layer}.output.dense", f"{layer}.gelu", into=None)
        return self._residual(f"{layer}.output.LayerNorm", outer, rows)

    def _attention(self, block: str, rows: str) -> str:
        """Softmax by hand: a column of ones beside each head's values makes the sum of the weights
        in the same product. A sum of its own would depend, in its last digits, on the width."""
        graph = self._graph
        per_head = self._source.hidden // self._source.heads
        scale = np.float32(per_head**-0.5)  # of the weights, which saves scaling the scores
        query = self._dense(f"{block}.query", rows, factor=scale)
        query = self._heads(query, per_head)
        key = self._heads(self._dense(f"{block}.key", rows), per_head)
        value = self._heads(self._values(block, rows), per_head + 1)
        last = graph.integers("axis_last", -1)
        graph.add("Transpose", [key], f"{block}.key.turned", perm=[0, 1, 3, 2])
        graph.add("MatMul", [query, f"{block}.key.turned"], f"{block}.scores")
        graph.add("Add", [f"{block}.scores", "penalty"], f"{block}.masked")
        graph.add("ReduceMax", [f"{block}.masked", last], f"{block}.largest", keepdims=1)
        graph.add("Sub", [f"{block}.masked", f"{block}.largest"], f"{block}.below")
        graph.add("Exp", [f"{block}.below"], f"{block}.weights")
        graph.add("MatMul", [f"{block}.weights", value], f"{block}.sums")
        begin, middle = graph.integers("begin", 0), graph.integers("middle", per_head)
        end = graph.integers("end", per_head + 1)
        graph.add("Slice", [f"{block}.sums", begin, middle, last], f"{block}.weighted")
        graph.add("Slice", [f"{block}.sums", middle, end, last], f"{block}.weight")
        graph.add("Div", [f"{block}.weighted", f"{block}.weight"], f"{block}.context_heads")
        per_head_rows = [f"{block}.context_heads", f"by_{per_head}"]
        graph.add("Reshape", per_head_rows, f"{block}.context_places")
        graph.add("Gather", [f"{block}.context_places", "back"], f"{block}.context_tokens")
        return graph.add("Reshape", [f"{block}.context_tokens", "by_row"], f"{block}.context")

    def _heads(self, dense: str, width: int) -> str:
        """Of tokens to filled rows of texts, each head by itself: [texts, heads, places, width]."""
        split = self._graph.add("Reshape", [dense, f"by_{width}"], f"{dense}.split")
        return self._graph.add("Gather", [split, "placed"], f"{dense}.heads")

    def _values(self, block: str, rows: str) -> str:
        """Each head's values, and a 1 behind them: float32[tokens, heads * (per head + 1)]."""
        name, heads, hidden = f"{block}.value", self._source.heads, self._source.hidden
        kernel = weight(self._weights, f"{name}.weight", hidden, hidden).T
        bias = weight(self._weights, f"{name}.bias", hidden)
        kernel = np.pad(kernel.reshape(hidden, heads, -1), ((0, 0), (0, 0), (0, 1)))
        bias = np.pad(bias.reshape(heads, -1), ((0, 0), (0, 1)), constant_values=1)
        inputs = [
            rows,
            self._graph.constant(f"{name}.kernel", kernel.reshape(hidden, -1)),
            self._graph.constant(f"{name}.bias", bias.reshape(-1)),
        ]
        return self._graph.add("Gemm", inputs, name)

    def _dense(
        self,
        name: str,
        rows: str,
        *,
        into: int | None = -1,
        out: int | None = -1,
        factor: np.float32 = np.float32(1),  # noqa: B008 (immutable)
    ) -> str:
        """rows @ W.T + b; -1 stands for the hidden size, None for any."""
        shape = [self._source.hidden if size == -1 else size for size in (out, into)]
        kernel = weight(self._weights, f"{name}.weight", *shape)
        bias = weight(self._weights, f"{name}.bias", kernel.shape[0])
        inputs = [
            rows,
            self._graph.constant(f"{name}.kernel", kernel.T * factor),
            self._graph.constant(f"{name}.bias", bias * factor),
        ]
        return self._graph.add("Gemm", inputs, name)

    def _residual(self, name: str, rows: str, before: str) -> str:
        return self._norm(name, self._graph.add("Add", [rows, before], f"{name}.sum"))

    def _norm(self, name: str, rows: str) -> str:
        hidden = self._source.hidden
        gain = weight(self._weights, f"{name}.weight", hidden)
        bias = weight(self._weights, f"{name}.bias", hidden)
        inputs = [
            rows,
            self._graph.constant(f"{name}.gain", gain),
            self._graph.constant(f"{name}.shift", bias),
        ]
        epsilon = self._source.epsilon
        return self._graph.add("LayerNormalization", inputs, name, axis=-1, epsilon=epsilon)

    def _pool(self, rows: str) -> None:
        """The sum over unmasked tokens; its unit vector is the mean's, so no division by n."""
        graph = self._graph
        graph.add("Gather", [rows, "place"], "placed_rows")
        graph.add("Reshape", ["placed_rows", "by_text"], "token_embeddings")
        axis = graph.integers("axis_1", 1)
        graph.add("Unsqueeze", ["mask", axis], "mask_row")
        graph.add("MatMul", ["mask_row", "token_embeddings"], "pooled_row")
        graph.add("Squeeze", ["pooled_row", axis], "pooled")
        last = graph.integers("axis_last", -1)
        graph.add("ReduceL2", ["pooled", last], "length", keepdims=1)
        graph.add("Max", ["length", graph.constant("tiny", np.float32(1e-12))], "safe_length")
        graph.add("Div", ["pooled", "safe_length"], "embedding")
