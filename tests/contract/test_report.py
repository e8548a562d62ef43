"""The report's schema, structs and examples say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from shared.contracts import report_schema
from shared.contracts.report import (
    MAX_REPORT_BYTES,
    InvalidReport,
    decode_report,
    unpublished_key,
)
from tests.contract.schema_tools import SCHEMAS

EXAMPLES = sorted((SCHEMAS / "reports" / "examples").glob("*.json"))
INVALID = sorted((SCHEMAS / "reports" / "examples" / "invalid").glob("*.json"))
AT_FAULT = {"coverage-above-one": "certificate.coverage"}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / report_schema.SCHEMA).read_bytes()))


def test_the_committed_schema_is_the_one_of_the_structs() -> None:
    committed = (SCHEMAS / report_schema.SCHEMA).read_text(encoding="utf-8")
    assert committed == report_schema.render(), "run python -m shared.contracts.report_schema"


def test_check_fails_on_a_changed_schema_and_writing_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_schema, "schemas_folder", lambda: tmp_path)
    assert report_schema.main(["--check"]) == 1
    assert report_schema.main([]) == 0
    assert report_schema.main(["--check"]) == 0


def test_the_schema_is_one(validator: Draft202012Validator) -> None:
    Draft202012Validator.check_schema(validator.schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_survives(path: Path, validator: Draft202012Validator) -> None:
    validator.validate(json.loads(path.read_bytes()))
    report = decode_report(path.read_bytes())
    assert decode_report(report.encode()) == report
    validator.validate(json.loads(report.encode()))
    assert json.loads(report.encode()) == json.loads(path.read_bytes())


def test_the_examples_show_a_version_and_a_refusal() -> None:
    reports = [decode_report(path.read_bytes()) for path in EXAMPLES]
    assert {report.refused for report in reports} == {True, False}
    assert {report.key for report in reports} >= {
        unpublished_key(r.window) for r in reports if r.refused
    }


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_example_is_refused(path: Path, validator: Draft202012Validator) -> None:
    assert not validator.is_valid(json.loads(path.read_bytes()))
    with pytest.raises(InvalidReport, match=AT_FAULT[path.stem]):
        decode_report(path.read_bytes())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b" " * MAX_REPORT_BYTES])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidReport):
        decode_report(data)


def test_more_bytes_than_a_report_may_have_are_not_parsed() -> None:
    with pytest.raises(InvalidReport, match="exceeds"):
        decode_report(EXAMPLES[0].read_bytes() + b" " * MAX_REPORT_BYTES)
