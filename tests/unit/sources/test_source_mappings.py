"""Adapters and mappings on what nobody recorded: garbage, bounds, mistakes in the tasks file."""

from __future__ import annotations

import csv
import gc
import gzip
import io
import json
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shared.contracts.depth import MAX_DEPTH
from shared.contracts.mapping import Format, SourceMapping
from shared.contracts.tasks import InvalidTasks, Task, load_tasks
from shared.contracts.topics import schemas_folder
from shared.sources.base import Unusable
from shared.sources.catalogue import ADAPTERS, Sorted, default_reader, readers_by_topic, sort
from shared.sources.files import UnreadableFile, parts
from shared.sources.reading import Reader

TASK = Task(name="support")
_WORDS = """
id input teacher label request response messages choices message content role parts type
text tool_calls function arguments body status_code usage data output model startTime
level metadata call_type status attributes span_id input_text events resourceSpans
scopeSpans spans traceId spanId startTimeUnixNano key value stringValue intValue
arrayValue kvlistValue values error refusal finish_reason created
"""
NAMES = st.sampled_from(_WORDS.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=30,
)


def reader(**mapping: Any) -> Reader:
    return Reader(TASK, msgspec.convert({"format": "jsonl", **mapping}, SourceMapping))


def row(document: Any, **mapping: Any) -> Sorted:
    return sort(json.dumps(document).encode(), "here", Format.JSONL, [reader(**mapping)])


def why(result: Sorted) -> tuple[str, str]:
    assert not result.taken
    [lost] = result.lost
    return lost.error.field, str(lost.error)


@pytest.mark.parametrize("format", Format)
@settings(max_examples=60, deadline=None)
@given(document=JSON)
def test_no_json_makes_an_adapter_fail_but_by_saying_why(format: Format, document: Any) -> None:
    result = sort(json.dumps(document).encode(), "here", format, [default_reader(TASK, format)])
    assert all(str(lost.error) for lost in result.lost)


@pytest.mark.parametrize("format", Format)
@settings(max_examples=60, deadline=None)
@given(value=st.binary(max_size=200))
def test_no_bytes_make_an_adapter_fail_but_by_saying_why(format: Format, value: bytes) -> None:
    sort(value, "here", format, [default_reader(TASK, format)])


@settings(max_examples=60, deadline=None)
@given(attributes=st.dictionaries(st.sampled_from(
    ["gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt", "gen_ai.completion",
     "gen_ai.prompt.0.content", "gen_ai.completion.0.content", "gen_ai.response.finish_reasons",
     "gen_ai.system_instructions", "langfuse.observation.input", "gen_ai.usage.input_tokens"]
), JSON | JSON.map(json.dumps)))  # fmt: skip
def test_no_attributes_make_the_conventions_fail(attributes: dict[str, Any]) -> None:
    span = {"trace_id": "a", "span_id": "b", "attributes": {"gen_ai.system": "x", **attributes}}
    sort(json.dumps(span).encode(), "here", Format.PEER, [default_reader(TASK, Format.PEER)])


def test_what_is_nested_too_deep_is_refused() -> None:
    deep = b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)
    with pytest.raises(Unusable, match="deeper"):
        ADAPTERS[Format.LITELLM](deep, "here")
    with pytest.raises(Unusable):
        ADAPTERS[Format.LITELLM](b"[" * 100_000, "here")
    request = ExportTraceServiceRequest()
    value = (
        request.resource_spans.add().scope_spans.add().spans.add().attributes.add(key="gen_ai.x")
    )
    inner = value.value
    for _ in range(90):
        inner = inner.array_value.values.add()
    inner.int_value = 1
    # protobuf's own limit is 100 messages; either says no.
    result = sort(request.SerializeToString(), "here", Format.OTLP_PROTO, [])
    assert len(result.lost) == 1


def test_numbers_out_of_all_bounds_count_as_not_there() -> None:
    huge = int("9" * 400)
    call = {"input": "a", "teacher": "b", "cost": huge, "tokens": {"input": huge, "output": 1}}
    [taken] = row(call).taken
    assert (taken.trace.cost, taken.trace.tokens) == (None, None)
    span = {"spanId": "ab", "traceId": "cd", "startTimeUnixNano": str(huge)}
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    result = sort(json.dumps(request).encode(), "here", Format.OTLP_JSON, [])
    assert why(result)[0] == "startTimeUnixNano"


@pytest.mark.parametrize(
    "written",
    [
        "2026-02-01T10:00:00Z", "2026-02-01T12:00:00+02:00", "2026-02-01 10:00:00",
        "2026-02-01 10:00:00 UTC", "2026-02-01 10:00:00 +0000 UTC", "2026-02-01 10:00 GMT",
        1769940000, 1769940000.0, 1769940000000, 1769940000000000, 1769940000000000000,
        "1769940000", " 1769940000.000 ", "1769940000000", "1769940000000000",
        "1769940000000000000",
    ],
)  # fmt: skip
def test_a_time_is_read_as_logs_and_tables_write_it(written: object) -> None:
    [taken] = row({"input": "a", "teacher": "b", "occurred_at": written}).taken
    assert taken.trace.occurred_at == datetime(2026, 2, 1, 10, tzinfo=UTC)


def test_eight_digits_are_a_day() -> None:
    [taken] = row({"input": "a", "teacher": "b", "occurred_at": "20260201"}).taken
    assert taken.trace.occurred_at == datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize("written", [None, "", "  ", 0, "0"])
def test_no_time_is_none(written: object) -> None:
    [taken] = row({"input": "a", "teacher": "b", "occurred_at": written}).taken
    assert taken.trace.occurred_at is None


@pytest.mark.parametrize(
    "written",
    [
        "01/02/2026 10:00", "yesterday", "2026", "202602011000", "17121212103", "20260201100000",
        -1, True, 10**19, int("9" * 400), {"seconds": 1769940000}, [1], "9" * 5_000,
        "a" + " " * 200_000 + "UTC",
    ],
)  # fmt: skip
def test_a_time_that_cannot_be_read_is_not_dropped(written: object) -> None:
    """The trace would count to the day on which it was published."""
    call = {"input": "a", "teacher": "b", "occurred_at": written}
    field, said = why(row(call))
    assert field == "occurred_at"
    assert "is no time: use ISO 8601 or seconds since 1970" in said
    assert row(call, where=[{"path": "$.attributes.missing"}]).skipped, "it is nobody's"


_OPENLLMETRY = ("gen_ai.prompt.0.content", "gen_ai.completion.0.content")
_CONTENT = ("gen_ai.prompt", "gen_ai.completion")
_OBSERVATION = ("langfuse.observation.input", "langfuse.observation.output")


def span_of(names: tuple[str, str], asked: str, answer: str, **label: str) -> Sorted:
    pairs = [
        {"key": name, "value": {"stringValue": value}}
        for name, value in zip(names, (asked, answer), strict=True)
    ]
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": pairs}]}]}]}
    mapping = msgspec.convert({"format": "otlp_json", "label": label}, SourceMapping)
    readers = [Reader(TASK, mapping)]
    return sort(json.dumps(request).encode(), "here", Format.OTLP_JSON, readers)


@pytest.mark.parametrize("names", [_OPENLLMETRY, _CONTENT, _OBSERVATION])
def test_an_answer_that_is_json_is_the_text_to_read_a_label_from(names: tuple[str, str]) -> None:
    [taken] = span_of(names, "hello", '{"label": "refund"}', read="json").taken
    assert (taken.trace.input, taken.trace.teacher) == ("hello", "refund")
    [taken] = span_of(names, "hello", '["refund", "angry"]', read="json", field="$[0]").taken
    assert taken.trace.teacher == "refund"
    [taken] = span_of(names, "hello", '{"label":  "x"}', read="regex", pattern=':  "(.)').taken
    assert taken.trace.teacher == "x", "as it was written"


@pytest.mark.parametrize("names", [_CONTENT, _OBSERVATION])
def test_an_answer_that_is_a_message_is_one(names: tuple[str, str]) -> None:
    for answer in (
        '{"role": "assistant", "content": "refund"}',
        '[{"role": "assistant", "content": "refund"}]',
        '[{"role": "assistant", "content": "refund"}, {"role": "assistant", "content": "no"}]',
    ):
        [taken] = span_of(names, "hello", answer).taken
        assert taken.trace.teacher == "refund"


def test_a_text_of_a_user_that_is_json_is_a_text() -> None:
    for text in ('{"subject": "charged twice"}', '["charged", "twice"]', "[]"):
        [taken] = span_of(_OPENLLMETRY, text, "refund").taken
        assert taken.trace.input == text
    parts = '[{"type": "text", "text": "charged"}, {"type": "text", "text": "twice"}]'
    [taken] = span_of(_OPENLLMETRY, parts, "refund").taken
    assert taken.trace.input == "charged\ntwice"
    image = '[{"type": "text", "text": "charged"}, {"type": "image_url", "image_url": {}}]'
    assert "part of type 'image_url'" in why(span_of(_OPENLLMETRY, image, "refund"))[1]


def test_of_several_messages_langfuse_says_none_is_the_answer() -> None:
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "refund"}]
    document = {"type": "GENERATION", "input": "hello", "output": said}
    readers = [default_reader(TASK, Format.LANGFUSE)]
    result = sort(json.dumps(document).encode(), "here", Format.LANGFUSE, readers)
    assert "the call has no answer" in why(result)[1]


_TEXT_COMPLETION = {
    "object": "text_completion",
    "choices": [{"text": " charged_twice", "finish_reason": "stop", "index": 0}],
}


@pytest.mark.parametrize(
    ("format", "document"),
    [
        (Format.OPENAI, {"request": {"prompt": "twice!"}, "response": _TEXT_COMPLETION}),
        (Format.LITELLM, {
            "call_type": "atext_completion", "status": "success", "response": _TEXT_COMPLETION,
            "messages": [{"role": "user", "content": "twice!"}],
        }),
    ],
)  # fmt: skip
def test_text_completions_are_read(format: Format, document: dict[str, Any]) -> None:
    readers = [default_reader(TASK, format)]
    [taken] = sort(json.dumps(document).encode(), "here", format, readers).taken
    assert (taken.trace.input, taken.trace.teacher) == ("twice!", "charged_twice")
    empty = json.loads(json.dumps(document).replace('" charged_twice"', "null"))
    assert "no answer" in why(sort(json.dumps(empty).encode(), "here", format, readers))[1]


def test_too_many_calls_in_one_record_are_refused_together() -> None:
    assert "10001 calls" in why(row([{}] * 10_001))[1]


def spans_of_one_resource(spans: int, size: int, format: Format) -> bytes:
    if format is Format.OTLP_JSON:
        attributes = [{"key": "about", "value": {"stringValue": "y" * size}}]
        each = {"attributes": [{"key": "gen_ai.system", "value": {"stringValue": "x"}}]}
        outer = {
            "resource": {"attributes": attributes},
            "scopeSpans": [{"spans": [each] * spans}],
        }
        return msgspec.json.encode({"resourceSpans": [outer]})
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.add(key="about").value.string_value = "y" * size
    scope = resource_spans.scope_spans.add()
    for _ in range(spans):
        scope.spans.add().attributes.add(key="gen_ai.system").value.string_value = "x"
    return request.SerializeToString()


@pytest.mark.parametrize("format", [Format.OTLP_PROTO, Format.OTLP_JSON])
def test_a_resource_is_held_once_however_many_spans_share_it(format: Format) -> None:
    value = spans_of_one_resource(2_000, 100_000, format)
    nobody = Reader(TASK, msgspec.convert(
        {"format": format.value, "where": [{"path": "$.attributes.missing"}]}, SourceMapping
    ))  # fmt: skip
    tracemalloc.start()
    try:
        result = sort(value, "here", format, [nobody])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(result.skipped) == 2_000
    assert peak < 30_000_000, "each with its own would be 200 MB"


@pytest.mark.parametrize("format", [Format.OTLP_PROTO, Format.OTLP_JSON])
def test_a_record_whose_calls_outgrow_memory_is_one_refusal(format: Format) -> None:
    value = spans_of_one_resource(2_000, 100_000, format)
    tracemalloc.start()
    try:
        result = sort(value, "here", format, [default_reader(TASK, format)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150_000_000, "all of them are 200 MB at least"
    assert "export smaller batches" in why(result)[1]
    assert [lost.fragment for lost in result.lost] == [value]
    assert result.unreadable is result.lost[0].error
    fewer = spans_of_one_resource(400, 100_000, format)
    assert len(sort(fewer, "here", format, [default_reader(TASK, format)]).lost) == 400


def test_a_resource_that_cannot_be_read_refuses_each_of_its_spans_alone() -> None:
    bad = {"attributes": [{"key": "n", "value": {"intValue": "many"}}]}
    outers = [
        {"resource": resource, "scopeSpans": [{"spans": [{"name": name}, {"name": name}]}]}
        for name, resource in (("bad", bad), ("good", {}))
    ]
    value = json.dumps({"resourceSpans": outers}).encode()
    result = sort(value, "here", Format.OTLP_JSON, [])
    assert [lost.error.field for lost in result.lost] == ["intValue"] * 2
    assert [lost.fragment.count(b"bad") for lost in result.lost] == [1, 1]
    assert len(result.skipped) == 2


def test_roles_in_other_words_are_the_same_roles() -> None:
    """As OpenTelemetry's instrumentation of LangChain writes them."""
    asked = [{"role": "Human", "parts": [{"content": "hello world", "type": "text"}]}]
    answer = [{"role": "AI", "parts": [{"content": "greeting", "type": "text"}]}]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps(asked),
        "gen_ai.output.messages": json.dumps(answer),
    }
    span = {"trace_id": "a", "span_id": "b", "attributes": attributes}
    readers = [default_reader(TASK, Format.PEER)]
    [taken] = sort(json.dumps(span).encode(), "here", Format.PEER, readers).taken
    assert (taken.trace.input, taken.trace.teacher) == ("hello world", "greeting")


def test_where_decides_and_types_count() -> None:
    call = {"input": "a", "teacher": "b", "metadata": {"n": 1, "on": True, "name": "triage-2"}}
    for path, condition, takes in [
        ("$.attributes.n", {"equals": 1}, True),
        ("$.attributes.n", {"equals": "1"}, False),
        ("$.attributes.on", {"equals": True}, True),
        ("$.attributes.name", {"matches": "^triage"}, True),
        ("$.attributes.name", {"matches": "^riage"}, False),
        ("$.attributes.missing", {}, False),
        ("$.attributes.n", {}, True),
    ]:
        result = row(call, where=[{"path": path, **condition}])
        assert (len(result.taken), len(result.skipped)) == (takes, not takes), (path, condition)


def test_refuse_names_the_condition() -> None:
    call = {"input": "a", "teacher": "b", "metadata": {"cached": True}}
    field, said = why(row(call, refuse=[{"path": "$.attributes.cached", "equals": True}]))
    assert field == "refuse"
    assert "$.attributes.cached is True" in said


def test_pick_among_several_texts() -> None:
    call = {"turns": ["a", "b"], "teacher": "x"}
    texts = {
        pick: row(call, input="$.record.turns[*]", pick=pick).taken[0].trace.input
        for pick in ("first", "last", "join")
    }
    assert texts == {"first": "a", "last": "b", "join": "a\nb"}
    assert "finds 2 values" in why(row(call, input="$.record.turns[*]", pick="only"))[1]


def test_a_pair_by_two_paths() -> None:
    call = {"a": "one", "b": "two", "teacher": "x"}
    assert row(call, input=["$.record.a", "{{ $.record.b }}!"]).taken[0].trace.input == [
        "one",
        "two!",
    ]


def test_a_template_fills_once_and_does_not_read_what_it_filled_in() -> None:
    call = {"a": "{{ $.record.secret }}", "secret": "s", "teacher": "x"}
    taken = row(call, input="<{{ $.record.a }}>").taken
    assert taken[0].trace.input == "<{{ $.record.secret }}>"


def test_labels_read_from_json_and_by_pattern() -> None:
    for answer in (
        '```json\n{"label": "refund"}\n```',
        '\n ```\n\n{"label": "refund"}```  \n',
        '```JSON  \r\n{"label": "refund"}\n\n  ```',
    ):
        fenced = {"input": "a", "teacher": answer}
        assert row(fenced, label={"read": "json"}).taken[0].trace.teacher == "refund"
    two = {"input": "a", "teacher": "maybe <l>x</l>, no: <l>y</l>"}
    rule = {"read": "regex", "pattern": "<l>(.*?)</l>"}
    assert row(two, label=rule).taken[0].trace.teacher == "y"
    for answer, label, says in [
        ("no json", {"read": "json"}, "not JSON"),
        ('{"label": ["a"]}', {"read": "json"}, "no text"),
        ('{"intent": "a"}', {"read": "json"}, "finds 0 values"),
        ('{"label": ""}', {"read": "json"}, "no label"),
        ("nothing", rule, "is not in the answer"),
        ("x" * 300, {"read": "exact"}, "at most 256"),
        ('""', {"read": "exact"}, "holds no label"),
    ]:
        field, said = why(row({"input": "a", "teacher": answer}, label=label))
        assert field == "output"
        assert says in said


def test_two_tasks_read_one_call_each_its_own_label() -> None:
    answer = {"input": "a", "teacher": '{"intent": "refund", "mood": "angry"}'}
    readers = [
        Reader(Task(name=name), msgspec.convert(
            {"format": "jsonl", "label": {"read": "json", "field": f"$.{name}"}}, SourceMapping
        ))
        for name in ("intent", "mood")
    ]  # fmt: skip
    result = sort(json.dumps(answer).encode(), "here", Format.JSONL, readers)
    assert [(t.trace.task, t.trace.teacher) for t in result.taken] == [
        ("intent", "refund"),
        ("mood", "angry"),
    ]


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ("format: nonsense", "Invalid enum value"),
        ("{format: csv, topic: t}", "is for files"),
        ("{format: jsonl, where: [{path: $.a, equals: x, matches: y}]}", "not both"),
        ("{format: jsonl, where: [{path: $.a, matches: '('}]}", "not a regular expression"),
        ("{format: jsonl, label: {read: regex}}", "needs it"),
        ("{format: jsonl, label: {read: regex, pattern: abc}}", "needs a group"),
        ("{format: jsonl, input_pattern: abc}", "needs a group"),
        ("{format: jsonl, inputs: $.a}", "unknown field"),
    ],
)
def test_a_mistake_in_a_mapping_is_named(tmp_path: Path, mapping: str, says: str) -> None:
    file = tmp_path / "tasks.yaml"
    body = mapping if mapping.startswith("{") else "{" + mapping + "}"
    file.write_text(f"tasks: [{{name: a, sources: [{body}]}}]")
    with pytest.raises(InvalidTasks, match=says) as caught:
        load_tasks(file)
    assert "sources" in str(caught.value)


@pytest.mark.parametrize(
    "mapping",
    [{"input": "$.["}, {"input": "text"}, {"answer": "output"}, {"where": [{"path": "$$"}]}],
)
def test_a_path_that_is_none_is_named(mapping: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidTasks, match=f"task 'support', source 'jsonl': {next(iter(mapping))}"
    ):
        reader(**mapping)


def test_a_topic_has_one_format(tmp_path: Path) -> None:
    file = tmp_path / "tasks.yaml"
    file.write_text(
        "tasks: [{name: a, sources: [{format: litellm, topic: logs}]},"
        " {name: b, sources: [{format: openai, topic: logs}]}]"
    )
    with pytest.raises(InvalidTasks, match="a topic has one format"):
        load_tasks(file)
    file.write_text(
        "tasks: [{name: a, sources: [{format: litellm, topic: logs}]},"
        " {name: b, sources: [{format: litellm, topic: logs}, {format: csv}]}]"
    )
    topics = readers_by_topic(load_tasks(file).values())
    assert {topic: (f, [r.task for r in rs]) for topic, (f, rs) in topics.items()} == {
        "logs": (Format.LITELLM, ["a", "b"])
    }


def test_mappings_survive_garbage_collection() -> None:
    """msgspec 0.22 crashes on collection where a union holds a tuple of fixed length."""
    for _ in range(3):
        msgspec.convert({"format": "jsonl", "input": ["$.a", "$.b"]}, SourceMapping)
        gc.collect()


@pytest.mark.parametrize(
    ("name", "format", "content", "says"),
    [
        ("a.csv", Format.CSV, b"a,b\n1\n", r"a.csv:2: a row needs 2 fields"),
        ("a.csv", Format.CSV, b"a,a\n1,2\n", "a different name"),
        ("a.csv", Format.CSV, b"a\n\xff\n", "not CSV in UTF-8"),
        ("a.jsonl", Format.JSONL, b"{\nnot json", "neither JSON lines nor one JSON"),
        ("a.jsonl", Format.OPENAI_BATCH, b"{}", "needs the batch's input file"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(
    tmp_path: Path, name: str, format: Format, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFile, match=says):
        list(parts(tmp_path / name, format))
    with pytest.raises(UnreadableFile, match="no such file"):
        list(parts(tmp_path / "absent", Format.JSONL))


def test_a_json_document_over_many_lines_is_taken_whole(tmp_path: Path) -> None:
    file = tmp_path / "page.json"
    file.write_text(json.dumps([{"a": 1}, {"a": 2}], indent=2))
    assert [(p.number, p.value) for p in parts(file, Format.JSONL)] == [
        (1, b'{"a":1}'),
        (2, b'{"a":2}'),
    ]
    file.write_text('{"a": 1}\n\nbroken\n')
    assert [p.number for p in parts(file, Format.JSONL)] == [1, 3], "a bad line is the adapter's"


@pytest.mark.parametrize(
    "answer",
    ["```" + "\n" * 90_000, "```\n" + "\n" * 90_000 + "x", "```" + " \n" * 45_000 + "```x",
     " " * 90_000 + "```", "`" * 90_000, "<think>" * 12_000, "label" + " " * 90_000],
)  # fmt: skip
def test_an_answer_of_blanks_is_read_at_once(answer: str) -> None:
    """A pattern that tries every way to share them out would hold ingest up for days."""
    began = time.process_time()
    assert not row({"input": "a", "teacher": answer}, label={"read": "json"}).taken
    assert time.process_time() - began < 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_csv_as_spreadsheets_write_it(
    tmp_path: Path, delimiter: str, pack: Callable[[bytes], bytes]
) -> None:
    """A byte order mark, CR LF, quotes in quotes, line breaks and delimiters in a field."""
    rows = [
        ["text", "intent"],
        ['He said "now"; or, else|never', "refund_request"],
        ["two\nlines\tand a tab", "other"],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    file = tmp_path / "tickets.csv"
    file.write_bytes(pack(b"\xef\xbb\xbf" + text.getvalue().encode()))
    found = [json.loads(part.value) for part in parts(file, Format.CSV)]
    assert [[row["text"], row["intent"]] for row in found] == rows[1:]


def test_a_file_packed_by_gzip_is_read_as_what_it_holds(tmp_path: Path) -> None:
    for format, example in [
        (Format.JSONL, "jsonl/row.json"),
        (Format.LANGFUSE, "langfuse/api-page.json"),
        (Format.OTLP_PROTO, "otlp_proto/current-attributes.binpb"),
    ]:
        plain = schemas_folder() / "sources" / example
        packed = tmp_path / "export"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        assert list(parts(packed, format)) == list(parts(plain, format))
    packed.write_bytes(gzip.compress(b'{"a": 1}\n' * 1_000)[:-20])
    with pytest.raises(UnreadableFile, match="export: its gzip is broken or cut short"):
        list(parts(packed, Format.JSONL))


@pytest.mark.parametrize("ended", ["length", "MAX_TOKENS", "content_filter", "SAFETY", "error"])
def test_an_answer_that_did_not_end_by_itself_is_no_label(ended: str) -> None:
    call = {
        "request": {"messages": [{"role": "user", "content": "hello"}]},
        "response": {
            "choices": [{"finish_reason": ended, "message": {"role": "assistant", "content": "a"}}]
        },
    }
    readers = [default_reader(TASK, Format.OPENAI)]
    field, said = why(sort(json.dumps(call).encode(), "here", Format.OPENAI, readers))
    assert field == "output"
    assert f"finish reason {ended}" in said
