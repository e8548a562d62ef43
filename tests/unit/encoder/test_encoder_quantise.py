from __future__ import annotations

import numpy as np
import onnx
import pytest

from shared.encoder import bert_onnx, quantise
from shared.encoder.artifact import load_encoder_info
from shared.encoder.errors import UnsupportedModel
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.encoder.sentences import SENTENCES


@pytest.fixture
def int8(tiny_encoder, tmp_path):
    quantise.quantise(tiny_encoder, tmp_path / "int8", max_error=1.0)
    return tmp_path / "int8"


def test_describes_itself(tiny_encoder, int8):
    before, after = load_encoder_info(tiny_encoder), load_encoder_info(int8)
    assert (after.precision, after.dim) == ("int8", before.dim)
    assert after.digest != before.digest
    assert (after.weights_sha256, after.tokenizer_sha256) == (
        *(before.weights_sha256, before.tokenizer_sha256),
    )


def test_the_same_bytes_twice(tiny_encoder, int8, tmp_path):
    quantise.quantise(tiny_encoder, tmp_path / "again", max_error=1.0)
    assert load_encoder_info(tmp_path / "again") == load_encoder_info(int8)


def test_near_the_float_embeddings(tiny_encoder, int8):
    exact = OnnxEncoder(tiny_encoder, threads=1).encode(SENTENCES)
    found = OnnxEncoder(int8, threads=1).encode(SENTENCES)
    assert (exact * found).sum(axis=1).min() > 0.99


def test_an_embedding_does_not_depend_on_the_batch(int8):
    """What the usual dynamic recipe gets wrong: its scales come from the batch."""
    encoder = OnnxEncoder(int8, threads=1)
    together = encoder.encode(SENTENCES)
    alone = np.vstack([encoder.encode([text]) for text in SENTENCES])
    assert np.abs(together - alone).max() < 1e-6


def test_operators(int8):
    model = onnx.load(int8 / "model.onnx")
    found = {".".join(filter(None, (node.domain, node.op_type))) for node in model.graph.node}
    assert found <= bert_onnx.OPERATORS | quantise.OPERATORS
    assert "Gemm" not in found  # max_error 1.0: all of them
    assert found >= quantise.OPERATORS


def test_layers_that_would_lose_too_much_stay(tiny_encoder, tmp_path):
    quantise.quantise(tiny_encoder, tmp_path / "some", max_error=0.025)
    kinds = [node.op_type for node in onnx.load(tmp_path / "some" / "model.onnx").graph.node]
    assert "Gemm" in kinds
    assert "MatMulIntegerToFloat" in kinds
    with pytest.raises(UnsupportedModel, match="no dense layer"):
        quantise.quantise(tiny_encoder, tmp_path / "none", max_error=0.0)


def test_int8_is_not_quantised_again(int8, tmp_path):
    with pytest.raises(UnsupportedModel, match="int8 already"):
        quantise.quantise(int8, tmp_path / "again")


def test_no_product_can_saturate_16_bits():
    """AVX2 without VNNI adds two 8-bit products in 16 bits: 2 * 255 * limit must fit."""
    assert np.iinfo(np.int16).max >= 2 * 255 * quantise._KERNEL_LIMIT


def test_ranges_side_by_side_sum_up_to_the_value():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 96)).astype(np.float32)
    rows[:, [3, 50]] *= (20, -9)
    ranges = quantise._ranges(rows)
    columns, idle = (ranges.rounded(given)[:, 96:] for given in (rows, np.zeros_like(rows)))
    found = ranges.rounded(rows)[:, :96]
    np.add.at(found, (slice(None), ranges.channels), columns - idle)
    # Half a step for each rounding, and the last digits of sums of float32.
    assert np.abs(found - rows).max() <= 0.51 * ranges.step
    alone = (rows.max() - rows.min()) / 255
    assert ranges.step < alone / 3
    assert len(ranges.channels) <= 96 / quantise._CHANNELS_PER_EXTRA


def test_kernels_make_good_for_what_rounding_loses():
    rng = np.random.default_rng(1)
    rows = (rng.normal(size=(400, 12)) @ rng.normal(size=(12, 64))).astype(np.float32)
    kernel = rng.normal(size=(64, 8)).astype(np.float32)
    step = quantise._kernel_steps(kernel)
    moments = rows.T.astype(np.float64) @ rows
    nearest, found = (
        np.abs(rows @ (integers * step) - rows @ kernel).mean()
        for integers in (
            quantise._integers(kernel, step), quantise._rounded_kernel(kernel, step, moments)
        )
    )  # fmt: skip
    assert found < nearest / 2


@pytest.mark.slow
def test_minilm_keeps_its_meaning(encoder_folder, tmp_path):
    quantise.quantise(encoder_folder, tmp_path / "int8")
    exact = OnnxEncoder(encoder_folder).encode(SENTENCES)
    encoder = OnnxEncoder(tmp_path / "int8")
    cosines = (exact * encoder.encode(SENTENCES)).sum(axis=1)
    assert cosines.min() > 0.993
    assert cosines.mean() > 0.998
