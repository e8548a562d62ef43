from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from services.ctl import encoder_commands
from services.ctl.encoder_commands import app
from services.ctl.encoder_comparison import UnusableData, read_rows
from shared.encoder.artifact import load_encoder_info
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.encoder.quantise import quantise
from shared.encoder.sentences import SENTENCES

runner = CliRunner()


def run(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_export_of_a_bert_folder_needs_no_torch(bert_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    printed = json.loads(run("export", "--model", bert_folder, "--out", tmp_path / "e", "--json"))
    info = load_encoder_info(tmp_path / "e")
    assert (printed["digest"], printed["dim"]) == (info.digest, 32)
    assert printed["folder"] == str(tmp_path / "e")
    assert printed["seconds"] > 0


def test_export_of_the_default(tmp_path, encoder_folder):
    text = run("export", "--out", tmp_path / "e")
    assert load_encoder_info(encoder_folder).digest in text
    assert "\x1b[" not in text


def test_export_int8(bert_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "shared.encoder.quantise.quantise.__kwdefaults__",
        {
            "texts": SENTENCES,
            "max_error": 1.0,
        },
    )
    run("export", "--model", bert_folder, "--out", tmp_path / "e", "--int8")
    assert load_encoder_info(tmp_path / "e").precision == "int8"


def test_a_model_of_another_kind_asks_for_the_extra(bert_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    config = json.loads((bert_folder / "config.json").read_text()) | {"model_type": "mpnet"}
    (bert_folder / "config.json").write_text(json.dumps(config))
    error = run("export", "--model", bert_folder, "--out", tmp_path / "e", code=1)
    assert "mpnet" in error
    assert "tracer-kafka[encoder]" in error


def test_check(tiny_encoder):
    assert json.loads(run("check", tiny_encoder, "--json"))["hashes"] == "match"
    (tiny_encoder / "model.onnx").write_bytes(b"other")
    assert "model.onnx is damaged" in run("check", tiny_encoder, code=1)


@pytest.mark.parametrize(("noise", "code"), [(0.0, 0), (0.05, 1)])
def test_check_against_the_model(tiny_encoder, monkeypatch, noise, code):
    """sentence-transformers is not installed here: its answer is the encoder's own, disturbed."""
    own = OnnxEncoder(tiny_encoder).encode(SENTENCES)
    disturbed = own + noise * np.random.default_rng(0).normal(size=own.shape)
    disturbed /= np.linalg.norm(disturbed, axis=1, keepdims=True)
    route = "shared.encoder.sentence_transformers_export"
    monkeypatch.setattr(f"{route}.load_model", lambda name: name)
    monkeypatch.setattr(f"{route}.reference_embeddings", lambda model, texts: disturbed)
    arguments = ("check", tiny_encoder, "--model", "m", "--against-sentence-transformers")
    text = run(*arguments, code=code)
    assert ("cosine_min" if code == 0 else "is below 0.9999") in text


def test_compare(tiny_encoder, tmp_path):
    quantise(tiny_encoder, tmp_path / "int8", max_error=1.0)
    data = tmp_path / "data.jsonl"
    rows = [
        {"input": f"{word} {number}", "label": "wrong", "teacher": word}
        for number in range(12)
        for word in ("card", "transfer")
    ]
    rows.append({"input": ["a", "pair"], "label": "rare"})
    data.write_text("\n".join(map(json.dumps, rows)))
    found = json.loads(run("compare", tiny_encoder, tmp_path / "int8", "--data", data, "--json"))
    assert (found["rows"], found["labels"]) == (24, 2)  # the rare label cannot be in every fold
    assert (found["a"]["precision"], found["b"]["precision"]) == ("float32", "int8")
    assert found["a"]["agreement"] > 0.9
    assert 0.98 < found["cosine_min"] <= found["cosine_mean"] < 1
    assert found["a"]["texts_per_second"] > 0
    text = run("compare", tiny_encoder, tmp_path / "int8", "--data", data, "--limit", 20)
    assert "b.agreement" in text


@pytest.mark.parametrize("line", ["not json", '{"input": "x"}', "[1]", '{"label": "a"}'])
def test_rows_that_cannot_be_used_are_named(tmp_path, line):
    data = tmp_path / "data.jsonl"
    data.write_text('{"input": "x", "label": "a"}\n' + line)
    with pytest.raises(UnusableData, match=r"data\.jsonl:2"):
        read_rows(data, None)


def test_min_cosine_is_the_exported_one():
    assert encoder_commands.MIN_COSINE == 0.9999
