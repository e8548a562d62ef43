"""Encoders for the tests: the real one, built once, and a tiny BERT with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from shared.encoder.bert_onnx import export_bert
from shared.encoder.default import ensure_default_encoder, export_default_encoder
from shared.encoder.sentences import SENTENCES

ROOT = Path(__file__).parents[3]
HIDDEN, INNER, HEADS, LAYERS = 32, 64, 4, 2


@pytest.fixture(scope="session")
def encoder_folder() -> Path:
    """The default encoder, kept between runs and shared with other tests."""
    return ensure_default_encoder(ROOT / ".cache" / "encoder")


@pytest.fixture(scope="session")
def built_now(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default encoder, built by the code under test."""
    folder = tmp_path_factory.mktemp("built") / "encoder"
    export_default_encoder(folder)
    return folder


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    """A tiny BERT as sentence-transformers stores one, with random weights."""
    return write_bert(tmp_path / "bert")


@pytest.fixture
def tiny_encoder(tmp_path: Path, bert_folder: Path) -> Path:
    folder = tmp_path / "tiny"
    export_bert(bert_folder, folder, name="tiny")
    return folder


def write_bert(folder: Path) -> Path:
    tokenizer = _tokenizer()
    (folder / "1_Pooling").mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab_size()
    documents: dict[str, Any] = {
        "config.json": {
            "model_type": "bert",
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
            "max_position_embeddings": 40,
        },
        "modules.json": [
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
        },
        "sentence_bert_config.json": {"max_seq_length": 24, "do_lower_case": False},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    save_file(_weights(vocabulary), folder / "model.safetensors")
    return folder


@pytest.fixture
def edit() -> Callable[..., None]:
    """edit(path, **changes): change fields of a JSON object in place; None deletes."""

    def change(path: Path, **changes: Any) -> None:
        document = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))

    return change


def _tokenizer() -> Tokenizer:
    letters = sorted({character for text in SENTENCES for character in text.lower()} - {" "})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, ends)
    tokenizer.enable_padding(length=8)  # as the published files do; the artifact must drop it
    tokenizer.enable_truncation(8)
    return tokenizer


def _weights(vocabulary: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    def norm(name: str) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        return {f"{name}.weight": 1 + random(HIDDEN), f"{name}.bias": random(HIDDEN)}

    weights = {
        "embeddings.word_embeddings.weight": random(vocabulary, HIDDEN),
        "embeddings.position_embeddings.weight": random(40, HIDDEN),
        "embeddings.token_type_embeddings.weight": random(2, HIDDEN),
        **norm("embeddings.LayerNorm"),
    }
    for index in range(LAYERS):
        layer = f"encoder.layer.{index}"
        dense = {
            "attention.self.query": (HIDDEN, HIDDEN),
            "attention.self.key": (HIDDEN, HIDDEN),
            "attention.self.value": (HIDDEN, HIDDEN),
            "attention.output.dense": (HIDDEN, HIDDEN),
            "intermediate.dense": (INNER, HIDDEN),
            "output.dense": (HIDDEN, INNER),
        }
        for name, (out, into) in dense.items():
            weights[f"{layer}.{name}.weight"] = random(out, into)
            weights[f"{layer}.{name}.bias"] = random(out)
        weights |= norm(f"{layer}.attention.output.LayerNorm")
        weights |= norm(f"{layer}.output.LayerNorm")
    return weights
