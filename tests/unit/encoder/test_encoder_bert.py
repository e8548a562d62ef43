from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from shared.encoder.bert_onnx import OPERATORS, export_bert
from shared.encoder.errors import UnsupportedModel
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.encoder.sentences import SENTENCES


@pytest.mark.parametrize(
    ("file", "changes", "why"),
    [
        ("config.json", {"model_type": "roberta"}, "roberta"),
        ("config.json", {"hidden_act": "relu"}, "relu"),
        ("config.json", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("config.json", {"is_decoder": True}, "is_decoder"),
        ("config.json", {"hidden_size": None}, "hidden_size"),
        ("config.json", {"num_attention_heads": 5}, "5 heads"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "cls_token"),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "max"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
    ],
)
def test_refuses_what_it_does_not_know(bert_folder, tmp_path, edit, file, changes, why):
    edit(bert_folder / file, **changes)
    with pytest.raises(UnsupportedModel, match=why) as caught:
        export_bert(bert_folder, tmp_path / "out", name="x")
    assert "tracerctl encoder export --model" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_refuses_further_modules(bert_folder, tmp_path):
    path = bert_folder / "modules.json"
    modules = json.loads(path.read_text())
    modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    path.write_text(json.dumps(modules))
    with pytest.raises(UnsupportedModel, match="Dense"):
        export_bert(bert_folder, tmp_path / "out", name="x")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(bert_folder, tmp_path, name):
    (bert_folder / name).unlink()
    with pytest.raises(UnsupportedModel, match=name):
        export_bert(bert_folder, tmp_path / "out", name="x")


def test_weights_of_another_shape_are_named(bert_folder, tmp_path):
    path = bert_folder / "model.safetensors"
    weights = load_file(path)
    name = "encoder.layer.1.attention.self.key.weight"
    for value in (weights[name][:, :16].copy(), None):
        changed = {k: v for k, v in weights.items() if k != name}
        save_file(changed if value is None else changed | {name: value}, path)
        with pytest.raises(UnsupportedModel, match=name):
            export_bert(bert_folder, tmp_path / "out", name="x")


def test_damaged_weights(bert_folder, tmp_path):
    (bert_folder / "model.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        export_bert(bert_folder, tmp_path / "out", name="x")


def test_prefixed_and_half_precision_weights(bert_folder, tiny_encoder, tmp_path):
    """BertForMaskedLM files say `bert.` before every name; many are float16."""
    path = bert_folder / "model.safetensors"
    halves = {f"bert.{k}": v.astype(np.float16) for k, v in load_file(path).items()}
    save_file(halves, path)
    export_bert(bert_folder, tmp_path / "half", name="x")
    a = OnnxEncoder(tiny_encoder, threads=1).encode(SENTENCES[:20])
    b = OnnxEncoder(tmp_path / "half", threads=1).encode(SENTENCES[:20])
    assert (a * b).sum(axis=1).min() > 0.9999


def test_the_normalize_module_may_be_absent(bert_folder, tiny_encoder, tmp_path):
    path = bert_folder / "modules.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))
    info = export_bert(bert_folder, tmp_path / "out", name="x")
    assert info.digest == OnnxEncoder(tiny_encoder).digest


def test_only_the_listed_standard_operators(built_now):
    model = onnx.load(built_now / "model.onnx")
    assert {node.op_type for node in model.graph.node} == OPERATORS
    assert {opset.domain for opset in model.opset_import} == {""}
