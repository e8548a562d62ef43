from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from shared.encoder.artifact import (
    EncoderFacts,
    load_encoder_info,
    plain_tokenizer,
    read_encoder,
    write_encoder,
)
from shared.encoder.bert_onnx import export_bert
from shared.encoder.errors import BrokenEncoder, EncoderError
from shared.encoder.onnx_encoder import OnnxEncoder

FACTS = EncoderFacts(
    name="n",
    dim=3,
    max_tokens=8,
    pad_id=0,
    pooling="mean",
    normalised=True,
    precision="float32",
    opset=20,
    weights_sha256="0" * 64,
    made_by={"onnx": "1"},
)


def facts(**changes: object) -> EncoderFacts:
    fields = {name: getattr(FACTS, name) for name in FACTS.__struct_fields__} | changes
    return EncoderFacts(**fields)


def test_round_trip(tmp_path):
    written = write_encoder(tmp_path / "e", model=b"model", tokenizer=b"{}", facts=FACTS)
    files = read_encoder(tmp_path / "e")
    assert (files.info, files.model, files.tokenizer) == (written, b"model", b"{}")
    assert load_encoder_info(tmp_path / "e") == written
    assert {path.name for path in (tmp_path / "e").iterdir()} == {
        *("model.onnx", "tokenizer.json", "encoder.json")
    }
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["e"]


def test_building_twice_gives_the_same_bytes(tmp_path, bert_folder):
    for name in ("a", "b"):
        export_bert(bert_folder, tmp_path / name, name="tiny")
    for file in ("model.onnx", "tokenizer.json", "encoder.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"name": "other"}, True),
        ({"made_by": {"onnx": "2"}}, True),
        ({"weights_sha256": "1" * 64}, True),
        ({"max_tokens": 9}, False),
        ({"pad_id": 1}, False),
        ({"precision": "int8"}, False),
    ],
)
def test_the_digest_covers_what_decides_the_numbers(tmp_path, changes, same):
    files = {"model": b"m", "tokenizer": b"t"}
    before = write_encoder(tmp_path / "a", **files, facts=FACTS)
    after = write_encoder(tmp_path / "b", **files, facts=facts(**changes))
    assert (before.digest == after.digest) is same


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "encoder.json"])
@pytest.mark.parametrize("damage", ["missing", "flipped", "cut"])
@pytest.mark.parametrize("load", [load_encoder_info, read_encoder, OnnxEncoder])
def test_damage_is_named(tiny_encoder: Path, name, damage, load):
    path = tiny_encoder / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(data[:-20])
    with pytest.raises(BrokenEncoder, match=name):
        load(tiny_encoder)


@pytest.mark.parametrize("changes", [{"max_tokens": 4096}, {"digest": "0" * 64}, {"dim": 7}])
def test_an_edited_description_is_refused(tiny_encoder, edit, changes):
    edit(tiny_encoder / "encoder.json", **changes)
    with pytest.raises(BrokenEncoder, match=r"encoder\.json"):
        load_encoder_info(tiny_encoder)


def test_no_folder(tmp_path):
    with pytest.raises(BrokenEncoder, match="missing"):
        OnnxEncoder(tmp_path / "nowhere")


def test_replaces_an_artifact_whole(tmp_path):
    write_encoder(tmp_path / "e", model=b"old", tokenizer=b"{}", facts=FACTS)
    write_encoder(tmp_path / "e", model=b"new", tokenizer=b"{}", facts=FACTS)
    assert read_encoder(tmp_path / "e").model == b"new"


def test_nobodys_files_are_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(EncoderError, match=r"thesis\.txt"):
        write_encoder(tmp_path, model=b"m", tokenizer=b"t", facts=FACTS)
    assert (tmp_path / "thesis.txt").read_text() == "ten years"


def test_the_stored_tokenizer_neither_cuts_nor_pads(bert_folder, tiny_encoder):
    text = "a b c d e f g h i j k l"
    original = Tokenizer.from_file(str(bert_folder / "tokenizer.json"))
    stored = Tokenizer.from_file(str(tiny_encoder / "tokenizer.json"))
    assert [len(original.encode(t).ids) for t in ("a", text)] == [8, 8]
    assert [len(stored.encode(t).ids) for t in ("a", text)] == [3, 14]


def test_plain_tokenizer_keeps_the_rest():
    data = json.dumps({"truncation": {"max_length": 1}, "padding": {}, "model": {"é": 1}}).encode()
    found = json.loads(plain_tokenizer(data))
    assert found == {"truncation": None, "padding": None, "model": {"é": 1}}


def test_a_model_with_other_outputs_is_refused(tiny_encoder, tmp_path):
    import onnx

    files = read_encoder(tiny_encoder)
    model = onnx.load_model_from_string(files.model)
    last = model.graph.node[-1]
    last.output[0] = model.graph.output[0].name = "vector"
    shutil.rmtree(tiny_encoder)
    write_encoder(
        tiny_encoder,
        model=model.SerializeToString(),
        tokenizer=files.tokenizer,
        facts=facts(dim=files.info.dim),
    )
    with pytest.raises(BrokenEncoder, match="vector"):
        OnnxEncoder(tiny_encoder)
