"""Any sentence-transformers model to an encoder artifact, through torch.

The slow, general route: needs the extra `tracer-kafka[encoder]`. What comes out is compared with
the model itself before anything is written.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.encoder.artifact import EncoderFacts, EncoderInfo, plain_tokenizer, write_encoder
from shared.encoder.base import Matrix
from shared.encoder.errors import MissingPackage, UnsupportedModel
from shared.encoder.sentences import SENTENCES

if TYPE_CHECKING:
    import onnx
    from sentence_transformers import SentenceTransformer

OPSET = 20
# torch names values after its operators, so that "embedding" may be taken inside the graph.
_EXPORTED = "tracer_embedding"
MIN_COSINE = 0.9999
_CHECKED = SENTENCES[::8]


def load_model(model: str) -> SentenceTransformer:
    """A sentence-transformers model by folder or name, on the CPU.

    Raises MissingPackage without the library, UnsupportedModel when it cannot load the model.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingPackage(
            "exporting this model needs sentence-transformers: "
            f"pip install 'tracer-kafka[encoder]' ({error})"
        ) from error
    try:
        return SentenceTransformer(model, device="cpu").eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UnsupportedModel(f"sentence-transformers cannot load {model}: {error}") from error


def reference_embeddings(model: SentenceTransformer, sentences: Sequence[str]) -> Matrix:
    """What the model itself says, of unit length: float32[n, dim]."""
    rows = model.encode(list(sentences), normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(rows, np.float32)


def export_sentence_transformer(model_name: str, folder: Path) -> EncoderInfo:
    """Write the artifact of any sentence-transformers model to `folder`.

    `model_name`: a folder, or a name that sentence-transformers resolves. Raises MissingPackage,
    and UnsupportedModel when the model has no fast tokenizer or its export differs from it.
    """
    model = load_model(model_name)
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    dim = int(model.encode(["dimension"]).shape[1])
    max_tokens = model.max_seq_length
    if backend is None or not max_tokens:
        raise UnsupportedModel(f"{model_name} has no fast tokenizer or no maximal length")
    if getattr(model, "default_prompt_name", None):
        raise UnsupportedModel(f"{model_name} puts a prompt before every text")
    exported = _export(model)
    encoded = exported.SerializeToString()
    tokenizer = plain_tokenizer(backend.to_str().encode())
    pad_id = int(model.tokenizer.pad_token_id or 0)
    _check_parity(model, encoded, tokenizer, max_tokens=int(max_tokens), pad_id=pad_id)
    packages = ("torch", "sentence-transformers", "transformers", "onnxscript", "onnx")
    facts = EncoderFacts(
        name=Path(model_name).name,
        dim=dim,
        max_tokens=int(max_tokens),
        pad_id=pad_id,
        pooling=" + ".join(type(module).__name__ for module in list(model)[1:]),
        normalised=True,
        precision="float32",
        opset=OPSET,
        weights_sha256=_weights_sha256(model),
        made_by={package: version(package) for package in packages},
    )
    return write_encoder(folder, model=encoded, tokenizer=tokenizer, facts=facts)


def _export(model: SentenceTransformer) -> onnx.ModelProto:
    """The traced graph, without the paths and stack traces that differ from run to run."""
    import onnx
    import torch

    class Embedding(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            pooled = self.model(features)["sentence_embedding"]
            return torch.nn.functional.normalize(pooled, p=2, dim=1)

    ids = torch.ones((3, 7), dtype=torch.long)
    texts, tokens = torch.export.Dim("texts"), torch.export.Dim("tokens")
    shape = {0: texts, 1: tokens}
    program = torch.onnx.export(
        Embedding().eval(),
        (ids, torch.ones_like(ids)),
        input_names=["input_ids", "attention_mask"],
        output_names=[_EXPORTED],
        dynamic_shapes={"input_ids": shape, "attention_mask": shape},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    buffer = io.BytesIO()
    program.save(buffer)
    proto = onnx.load_model_from_string(buffer.getvalue())
    _rename(proto.graph, {"embedding": "inner_embedding", _EXPORTED: "embedding"})
    return _without_traces(proto)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.metadata_props[:]
    model.doc_string = ""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        graph.doc_string = ""
        del graph.metadata_props[:]
        for part in graph.node:
            part.doc_string = ""
            del part.metadata_props[:]
        for part in getattr(graph, "value_info", ()):
            del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model


def _check_parity(
    model: SentenceTransformer, encoded: bytes, tokenizer: bytes, *, max_tokens: int, pad_id: int
) -> None:
    import onnxruntime
    from tokenizers import Tokenizer

    words = Tokenizer.from_buffer(tokenizer)
    words.enable_truncation(max_tokens)
    words.enable_padding(pad_id=pad_id)
    batch = words.encode_batch(list(_CHECKED))
    inputs = {
        "input_ids": np.array([row.ids for row in batch], np.int64),
        "attention_mask": np.array([row.attention_mask for row in batch], np.int64),
    }
    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    found: Matrix = session.run(["embedding"], inputs)[0]
    cosine = float((found * reference_embeddings(model, _CHECKED)).sum(axis=1).min())
    if not cosine >= MIN_COSINE:
        raise UnsupportedModel(f"the export differs from the model: cosine {cosine:.5f}")


def _weights_sha256(model: SentenceTransformer) -> str:
    """Of the tensors in name order: the same for a folder and a name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
