"""`tracerctl sources check` and `replay --format`: the same adapters as ingest's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.main import app
from shared.bus.kafka import KafkaSource
from shared.contracts.codec import decode
from shared.contracts.events import RawTrace
from shared.contracts.topics import schemas_folder

EXAMPLES = schemas_folder() / "sources"


@pytest.fixture(autouse=True)
def tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tasks.yaml"
    file.write_text(
        "tasks: [{name: support, labels: [delivery_status, refund_request, other],"
        " unknown_labels: dead_letter, sources: [{format: csv,"
        " input: $.record.text, answer: $.record.intent}]}, {name: broken,"
        " sources: [{format: jsonl, input: '$.['}]}]"
    )
    monkeypatch.setenv("TRACER_TASKS", str(file))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def checked(file: str, *arguments: str, task: str = "support") -> Result:
    path = str(EXAMPLES / file)
    return run("sources", "check", path, "--format", file.split("/")[0], "--task", task, *arguments)


def test_check_shows_what_would_become_of_each_call() -> None:
    result = checked("csv/table.csv", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["taken"], found["refused"], found["skipped"]) == (2, 1, 0)
    assert [(row["line"], row["becomes"], row["label"]) for row in found["calls"]] == [
        (2, "trace", "delivery_status"),
        (4, "trace", "refund_request"),
        (5, "refused", ""),
    ]
    assert found["reasons"] == {"input: the text is blank": 1}
    people = checked("csv/table.csv")
    assert "2 traces, 1 refused, 0 skipped" in people.stdout
    assert "1 x input: the text is blank" in people.stdout


def test_check_knows_the_taxonomy_and_says_when_nothing_is_left() -> None:
    found = json.loads(checked("otlp_json/openllmetry.json", "--json").stdout)
    assert [(row["becomes"], row["label"]) for row in found["calls"]] == [
        ("dead letter", "charged_twice")
    ]
    assert checked("otlp_proto/refused.binpb").exit_code == 1
    assert checked("otlp_proto/current-attributes.binpb").exit_code == 0


@pytest.mark.parametrize("indent", [None, 1])
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path, indent: int | None) -> None:
    row = {"input": "Where is my parcel?", "teacher": "delivery_status"}
    file = tmp_path / "powershell.jsonl"
    file.write_text(json.dumps(row, indent=indent), encoding="utf-8-sig")
    result = run("sources", "check", str(file), "--format", "jsonl", "--task", "support", "--json")
    assert json.loads(result.stdout)["taken"] == 1


def test_a_batch_needs_both_its_files() -> None:
    alone = checked("openai_batch/batch-output.jsonl")
    assert alone.exit_code == 1
    assert "needs the batch's input file" in alone.stderr
    inputs = str(EXAMPLES / "openai_batch" / "batch-input.jsonl")
    joined = checked("openai_batch/batch-output.jsonl", "--batch-input", inputs, "--json")
    assert json.loads(joined.stdout)["taken"] == 2


def ids_in(file: Path, format: str) -> list[str]:
    result = run(
        "sources", "check", str(file), "--format", format, "--task", "support", "--json"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return [row["trace"]["id"] for row in json.loads(result.stdout)["calls"]]


@pytest.mark.parametrize(
    ("format", "header", "row"),
    [
        ("csv", "text,intent\n", "{},other\n"),
        ("openai", "", '{{"messages": [{{"role": "user", "content": "{}"}},'
         ' {{"role": "assistant", "content": "other"}}]}}\n'),
    ],
)  # fmt: skip
def test_rows_without_ids_are_repeats_only_of_themselves(
    tmp_path: Path, format: str, header: str, row: str
) -> None:
    """Ingest drops what has the id of another: Tuesday's file must not be taken for Monday's."""
    monday, tuesday = tmp_path / "monday", tmp_path / "tuesday"
    monday.write_text(header + row.format("a") + row.format("a") + row.format("b"))
    tuesday.write_text(header + row.format("c") + row.format("d"))
    first = ids_in(monday, format)
    assert len({*first, *ids_in(tuesday, format)}) == 5
    monday.write_text(monday.read_text() + row.format("e"))
    assert ids_in(monday, format)[:3] == first, "a file that has grown is sent again in vain"


def test_mistakes_name_the_fix() -> None:
    unknown = checked("jsonl/row.json", task="unheard-of")
    assert unknown.exit_code == 2
    assert "it has broken, support" in unknown.stderr
    broken = checked("jsonl/row.json", task="broken")
    assert broken.exit_code == 2
    assert "task 'broken', source 'jsonl': input: '$.[' is not a JSONPath" in broken.stderr
    absent = run("sources", "check", "absent", "--format", "csv", "--task", "support")
    assert absent.exit_code == 1
    assert "absent: no such file" in absent.stderr


def test_replay_publishes_what_a_mapping_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with EmbeddedBroker(tmp_path / "broker") as broker:
        monkeypatch.setenv("TRACER_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
        path = str(EXAMPLES / "csv" / "table.csv")
        result = run("replay", path, "--task", "support", "--format", "csv", "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert (found["published"], found["refused"]) == (2, 1)
        source = KafkaSource(
            bootstrap=broker.bootstrap_servers, group="g", topics=["traces.raw"], client_config={}
        )
        messages = []
        for _ in range(100):
            messages += source.poll(10, 0.2)
            if len(messages) >= 2:
                break
        source.close()
    traces = [decode(message.value, RawTrace) for message in messages]
    assert sorted(trace.teacher for trace in traces) == ["delivery_status", "refund_request"]
    assert all(trace.occurred_at for trace in traces), "undated ones are spread over the days"
    nothing = run(
        "replay", str(EXAMPLES / "langfuse" / "refused.json"), "--task", "support",
        "--format", "langfuse",
    )  # fmt: skip
    assert nothing.exit_code == 1
    assert "the call failed: timeout" in nothing.stderr
