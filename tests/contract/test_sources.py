"""Recorded records of every source: which traces they become, and what is refused and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from shared.contracts.events import RawTrace
from shared.contracts.mapping import Format, SourceMapping
from shared.contracts.tasks import Task
from shared.sources.catalogue import ADAPTERS, Sorted, sort
from shared.sources.files import parts
from shared.sources.reading import Reader
from tests.contract.schema_tools import SCHEMAS

FOLDER = SCHEMAS / "sources"
EXPECTED = sorted(FOLDER.glob("*/*.expected.json"))
FILES = {"csv": "table.csv", "openai_batch": "batch-output.jsonl"}


def example_of(path: Path) -> tuple[Sorted, dict[str, Any]]:
    expected = json.loads(path.read_bytes())
    mapping = msgspec.convert(expected["mapping"], SourceMapping)
    reader = Reader(Task(name="support"), mapping)
    if mapping.format.value in FILES:
        inputs = path.parent / "batch-input.jsonl"
        file = path.parent / FILES[mapping.format.value]
        found = [
            sort(part.value, f"row-{part.number}", mapping.format, [reader])
            for part in parts(file, mapping.format, inputs if inputs.exists() else None)
        ]
        result = Sorted(
            [each for one in found for each in one.taken],
            [each for one in found for each in one.lost],
            [each for one in found for each in one.skipped],
        )
    else:
        record = next(iter(path.parent.glob(f"{path.name.removesuffix('.expected.json')}.[jb]*")))
        result = sort(record.read_bytes(), "place-7", mapping.format, [reader])
    return result, expected


@pytest.mark.parametrize("path", EXPECTED, ids=lambda p: f"{p.parent.name}/{p.name.split('.')[0]}")
def test_a_recorded_example_becomes_what_is_written_beside_it(path: Path) -> None:
    result, expected = example_of(path)
    traces = [json.loads(msgspec.json.encode(each.trace)) for each in result.taken]
    wanted = [
        {name: value for name, value in trace.items() if value is not None}
        for trace in expected["traces"]
    ]
    assert traces == wanted
    refused = [(each.error.field, str(each.error)) for each in result.lost]
    assert len(refused) == len(expected["refused"]), refused
    for (field, says), want in zip(refused, expected["refused"], strict=True):
        assert field == want["field"]
        assert want["says"] in says
    assert len(result.skipped) == expected["skipped"], result.skipped


@pytest.mark.parametrize("path", EXPECTED, ids=lambda p: f"{p.parent.name}/{p.name.split('.')[0]}")
def test_a_fragment_alone_meets_the_fate_its_call_met_in_the_record(path: Path) -> None:
    """What a dead letter holds can be redriven to its topic, and is one call."""
    result, expected = example_of(path)
    mapping = msgspec.convert(expected["mapping"], SourceMapping)
    reader = Reader(Task(name="support"), mapping)
    for lost in result.lost:
        again = sort(lost.fragment, "elsewhere", mapping.format, [reader])
        assert [(str(each.error), each.error.field) for each in again.lost] == [
            (str(lost.error), lost.error.field)
        ]
        assert not again.taken
    for taken in result.taken:
        again = sort(taken.fragment, taken.trace.id, mapping.format, [reader])
        assert [each.trace for each in again.taken] == [taken.trace]


def test_every_format_has_an_adapter_an_accepted_and_a_refused_example() -> None:
    assert set(ADAPTERS) == set(Format)
    for format in Format:
        examples = [
            json.loads(path.read_bytes()) for path in EXPECTED if path.parent.name == format
        ]
        assert any(each["traces"] for each in examples), format
        assert any(each["refused"] for each in examples), format


def test_the_otlp_examples_are_the_same_spans_in_both_encodings() -> None:
    for binary in (FOLDER / "otlp_proto").glob("*.binpb"):
        one, _ = example_of(binary.with_suffix(".expected.json"))
        other, _ = example_of(FOLDER / "otlp_json" / f"{binary.stem}.expected.json")
        assert [each.trace for each in one.taken] == [each.trace for each in other.taken]


def test_the_schema_of_a_mapping_is_the_struct_s() -> None:
    committed = json.loads((FOLDER / "mapping.v1.schema.json").read_bytes())
    Draft202012Validator.check_schema(committed)
    generated = json.loads(json.dumps(msgspec.json.schema(SourceMapping)))
    assert {**generated, **{k: committed[k] for k in ("$comment", "$id", "title")}} == committed


def test_traces_of_examples_are_raw_traces() -> None:
    for path in EXPECTED:
        result, _ = example_of(path)
        for taken in result.taken:
            assert msgspec.json.decode(msgspec.json.encode(taken.trace), type=RawTrace)
