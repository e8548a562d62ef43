from __future__ import annotations

import sys

import numpy as np
import pytest

from shared.encoder.errors import MissingPackage, UnsupportedModel
from shared.encoder.sentence_transformers_export import (
    export_sentence_transformer,
    load_model,
    reference_embeddings,
)


def test_without_the_library_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingPackage, match=r"pip install 'tracer-kafka\[encoder\]'"):
        export_sentence_transformer("any-model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_exports_what_the_model_says(tmp_path):
    pytest.importorskip("sentence_transformers")
    from shared.encoder.default import default_model_folder
    from shared.encoder.onnx_encoder import OnnxEncoder

    source = str(default_model_folder())
    export_sentence_transformer(source, tmp_path / "out")
    texts = ["a", "my card has not arrived", "word " * 300]
    found = OnnxEncoder(tmp_path / "out", threads=1).encode(texts)
    expected = reference_embeddings(load_model(source), texts)
    assert (found * expected).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_an_unknown_model(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(UnsupportedModel):
        load_model(str(tmp_path / "nothing here"))
