"""The JSON Schemas and the msgspec structs say the same, and refuse the same."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.events import MAX_TEXT_CHARS, Request
from shared.contracts.topics import Topic, load_topics
from tests.contract.schema_tools import KINDS, SCHEMAS, example, schema_of, validator_of

TOPICS = list(Topic)
_ANNOTATIONS = {"title", "description", "examples", "$comment", "$id", "$defs"}


# --- the same document, in both directions


def plain(node: Any, root: dict[str, Any]) -> Any:
    """A schema without words, references and spelling differences, to be compared by equality."""
    if isinstance(node, list):
        return [plain(item, root) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        return plain(node, root)
    kept = {key: value for key, value in node.items() if key not in _ANNOTATIONS}
    if "properties" in kept:
        kept["properties"] = {name: plain(s, root) for name, s in kept["properties"].items()}
    for key in ("items", "anyOf", "prefixItems", "additionalProperties"):
        if key in kept:
            kept[key] = plain(kept[key], root)
    if "anyOf" in kept:
        kept["anyOf"] = sorted(kept["anyOf"], key=json.dumps)
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    if "enum" in kept:
        kept["enum"] = sorted(kept["enum"], key=str)
        kept.pop("type", None)
    if "required" in kept:
        kept["required"] = sorted(kept["required"])
    if kept.get("default", 0) is None:
        del kept["default"]
    if kept.get("additionalProperties") is True:
        del kept["additionalProperties"]
    # msgspec has formats and encodings where the schema spells out a pattern as well.
    if "format" in kept or "contentEncoding" in kept:
        kept.pop("pattern", None)
    if "pattern" in kept:
        # Python's $ allows a trailing newline, JSON Schema's does not: \Z is its spelling.
        kept["pattern"] = kept["pattern"].replace(r"\Z", "$")
    return kept


@pytest.mark.parametrize("topic", TOPICS)
def test_struct_and_schema_are_the_same_document(topic: Topic) -> None:
    generated = json.loads(json.dumps(msgspec.json.schema(KINDS[topic])))
    committed = schema_of(topic)
    assert plain(committed, committed) == plain(generated, generated)


def test_the_comparison_sees_a_changed_bound_name_enum_and_requirement() -> None:
    committed = schema_of(Topic.DEFERRED)
    before = plain(committed, committed)
    for change in (
        lambda s: s["$defs"]["text"].update(maxLength=1),
        lambda s: s["$defs"]["reason"]["enum"].pop(),
        lambda s: s["properties"].pop("label"),
        lambda s: s["required"].pop(),
        lambda s: s["$defs"]["task"].update(pattern="^.*$"),
        lambda s: s["properties"]["observation_probability"].update(default=0.5),
    ):
        changed = copy.deepcopy(committed)
        change(changed)
        assert plain(changed, changed) != before


@pytest.mark.parametrize("topic", TOPICS)
def test_schema_is_valid_2020_12_and_says_so(topic: Topic) -> None:
    schema = schema_of(topic)
    Draft202012Validator.check_schema(schema)
    assert "2020-12" in schema["$comment"]
    name = load_topics()[topic].event.removeprefix("events/").removesuffix(".v1.schema.json")
    assert schema["$id"] == f"urn:tracer:event:{name}:v1"
    assert schema["title"] == KINDS[topic].__name__


def test_every_schema_file_belongs_to_a_topic() -> None:
    files = {f"events/{path.name}" for path in (SCHEMAS / "events").iterdir()}
    assert files == {spec.event for spec in load_topics().values()}


@pytest.mark.parametrize("topic", TOPICS)
def test_every_property_is_described_and_every_object_open(topic: Topic) -> None:
    schema = schema_of(topic)
    objects = [schema, *schema.get("$defs", {}).values()]
    for node in objects:
        assert node["description"].endswith(".")
        for name, described in node.get("properties", {}).items():
            assert described.get("description", "").endswith("."), name
        if "properties" in node:
            assert node["additionalProperties"] is True


@pytest.mark.parametrize("topic", TOPICS)
def test_numbers_name_their_unit(topic: Topic) -> None:
    words = ("milliseconds", "dollars", "share", "0 to 1", "up to 1", "0 or more", "probability")
    words += ("No unit", "Tokens", "Traces", "epoch", "Version", "Its offset", "partition")
    schema = schema_of(topic)
    for node in (schema, *schema.get("$defs", {}).values()):
        for name, described in node.get("properties", {}).items():
            text = json.dumps(plain(described, schema))
            if "properties" not in text and ('"number"' in text or '"integer"' in text):
                assert any(word in described["description"] for word in words), name


def test_a_deferral_carries_the_request_event_as_it_is() -> None:
    deferral, request = schema_of(Topic.DEFERRED), schema_of(Topic.REQUESTS)
    assert plain(deferral["$defs"]["request"], deferral) == plain(request, request)


# --- the same refusals

Path = tuple[str | int, ...]
REMOVE = object()


def change(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    node: Any = document
    for step in path[:-1]:
        node = node[step]
    if value is REMOVE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return document


def both(topic: Topic, document: dict[str, Any]) -> tuple[bool, InvalidEvent | None]:
    """Whether the schema accepts it, and the codec's refusal if any."""
    accepted = validator_of(topic).is_valid(document)
    try:
        decode(json.dumps(document).encode(), KINDS[topic])
    except InvalidEvent as error:
        return accepted, error
    return accepted, None


# A full example of each kind, so that every field can be spoilt.
FULL = {
    Topic.TRACES_RAW: "typical",
    Topic.TRACES: "typical",
    Topic.REQUESTS: "typical",
    Topic.DECISIONS: "deferred",
    Topic.DEFERRED: "typical",
    Topic.MODELS: "published",
    Topic.DEAD_LETTERS: "typical",
}

NOT_MOMENTS = (
    "2026-11-22T09:14:03",
    "2026-11-22",
    "09:14:03Z",
    "2026-11-22T09:14Z",
    "2026-02-30T09:14:03Z",
    "2026-11-22T24:00:00Z",
    "2026-11-22T09:14:60Z",
    "2026-11-22T09:14:03+25:00",
    "22/11/2026 09:14:03",
    "yesterday",
    "",
    1795338843,
    None,
)


def required_fields() -> list[tuple[Topic, Path]]:
    fields: list[tuple[Topic, Path]] = []
    for topic in TOPICS:
        fields += [(topic, (name,)) for name in schema_of(topic)["required"]]
    fields += [(Topic.DEFERRED, ("request", name)) for name in ("id", "task", "input")]
    fields += [(Topic.TRACES, ("tokens", name)) for name in ("input", "output")]
    certificate = schema_of(Topic.MODELS)["$defs"]["certificate"]
    fields += [(Topic.MODELS, ("certificate", name)) for name in certificate["required"]]
    return fields


@pytest.mark.parametrize(("topic", "path"), required_fields())
def test_both_miss_a_required_field_and_the_codec_names_it(topic: Topic, path: Path) -> None:
    accepted, refusal = both(topic, change(example(topic, FULL[topic]), path, REMOVE))
    assert not accepted
    assert refusal is not None
    assert refusal.field == ".".join(map(str, path))


def every_field() -> list[tuple[Topic, str]]:
    return [(topic, name) for topic in TOPICS for name in schema_of(topic)["properties"]]


@pytest.mark.parametrize(("topic", "field"), every_field())
@pytest.mark.parametrize("wrong", [True, 7.25, "?!", [7.25], {"?!": []}])
def test_both_judge_a_value_of_another_type_alike(topic: Topic, field: str, wrong: Any) -> None:
    """Each field takes some of these values, and no field takes all of them."""
    document = {**example(topic, FULL[topic]), field: wrong}
    accepted, refusal = both(topic, document)
    assert accepted == (refusal is None)
    if refusal is not None:
        assert refusal.field.split(".")[0].split("[")[0] == field


@pytest.mark.parametrize(("topic", "field"), every_field())
def test_every_field_refuses_something(topic: Topic, field: str) -> None:
    document = example(topic, FULL[topic])
    wrong = [True, 7.25, "?!", [7.25], {"?!": []}]
    assert any(both(topic, {**document, field: value})[1] is not None for value in wrong)


MUTATIONS: list[tuple[Topic, Path, Any]] = [
    *((topic, ("v",), bad) for topic in TOPICS for bad in (0, 2, 99, "1", None, True)),
    *(
        (topic, ("task",), bad)
        for topic in (Topic.TRACES_RAW, Topic.TRACES, Topic.REQUESTS, Topic.DECISIONS, Topic.MODELS)
        for bad in ("", "Support", "a b", "-a", "a/b", "ä", "a.b", "x" * 64, None)
    ),
    *(
        (topic, ("input",), bad)
        for topic in (Topic.TRACES_RAW, Topic.TRACES, Topic.REQUESTS)
        for bad in (
            "",
            "x" * (MAX_TEXT_CHARS + 1),
            [],
            ["one"],
            ["a", ""],
            ["a", "x" * (MAX_TEXT_CHARS + 1)],
            ["a", "b", "c"],
            ["a", 1],
            None,
        )
    ),
    *((Topic.TRACES, ("occurred_at",), bad) for bad in NOT_MOMENTS),
    *((Topic.DECISIONS, ("decided_at",), bad) for bad in NOT_MOMENTS),
    *((Topic.DEFERRED, ("deferred_at",), bad) for bad in NOT_MOMENTS),
    *((Topic.MODELS, ("announced_at",), bad) for bad in NOT_MOMENTS),
    *((Topic.DEAD_LETTERS, ("at",), bad) for bad in NOT_MOMENTS),
    *((Topic.TRACES_RAW, ("occurred_at",), bad) for bad in NOT_MOMENTS if bad is not None),
    *((Topic.REQUESTS, ("occurred_at",), bad) for bad in NOT_MOMENTS if bad is not None),
    *((Topic.TRACES, ("id",), bad) for bad in ("", "x" * 257, 7, None)),
    *((Topic.REQUESTS, ("id",), bad) for bad in ("", "x" * 257, 7, None)),
    *((Topic.DECISIONS, ("request_id",), bad) for bad in ("", "x" * 257, 7, None)),
    *((Topic.TRACES, ("teacher",), bad) for bad in ("", "x" * 257, ["a"], None)),
    *((Topic.TRACES, ("label",), bad) for bad in ("", "x" * 257)),
    *((Topic.TRACES, ("cost",), bad) for bad in (-0.01, "0.1")),
    *((Topic.TRACES, ("tokens", "input"), bad) for bad in (-1, 1.5, "1", None)),
    *((Topic.TRACES, ("source",), bad) for bad in ("", "LOG", "handled", None)),
    *((Topic.TRACES, ("observation_probability",), bad) for bad in (0, -1, 1.0001, "1", None)),
    *((Topic.DEFERRED, ("observation_probability",), bad) for bad in (0, -1, 1.0001, None)),
    *((Topic.TRACES, ("deferral_reason",), bad) for bad in ("", "because")),
    *(
        (topic, (field,), bad)
        for topic in (Topic.TRACES_RAW, Topic.TRACES, Topic.DEFERRED)
        for field, wrong in (
            ("audit_share", (-0.01, 1.01, "1", None)),
            ("drawn", (0, "true", None)),
            ("opinions", ({}, ["v1"], [{"version": "v1", "label": "a"}], None)),
        )
        for bad in wrong
    ),
    *((Topic.TRACES, ("prompt",), bad) for bad in (7, ["a"])),
    *((Topic.MODELS, ("figures",), bad) for bad in ({"e_value": "9"}, [], None)),
    *((Topic.DECISIONS, ("outcome",), bad) for bad in ("", "Handled", "answered", None)),
    *((Topic.DECISIONS, ("reason",), bad) for bad in ("", "because", None)),
    *((Topic.DECISIONS, ("timings",), bad) for bad in ({"total": "1"}, {"total": None}, [], None)),
    *((Topic.DEFERRED, ("outcome",), bad) for bad in ("handled", "", None)),
    *((Topic.DEFERRED, ("request", "task"), bad) for bad in ("Support", "")),
    *((Topic.DEFERRED, ("request", "v"), bad) for bad in (2,)),
    *((Topic.MODELS, ("kind",), bad) for bad in ("activated", "", None)),
    *((Topic.MODELS, ("epoch",), bad) for bad in (-1, 1.5)),
    *((Topic.MODELS, ("certificate", "kind"), bad) for bad in ("guess", None)),
    *((Topic.DEAD_LETTERS, ("value",), bad) for bad in ("?", "YQ", "YQ=", "Y Q=", "_w==", None)),
    *((Topic.DEAD_LETTERS, ("key",), bad) for bad in ("?", "YQ")),
    *((Topic.DEAD_LETTERS, ("message",), bad) for bad in ("x" * 2_001, None)),
    *((Topic.DEAD_LETTERS, ("topic",), bad) for bad in ("", "a b", "x" * 250)),
    *(
        (Topic.DEAD_LETTERS, ("headers",), bad)
        for bad in ([["a"]], [["a", "YQ==", "b"]], [[1, ""]])
    ),
]


@pytest.mark.parametrize(("topic", "path", "value"), MUTATIONS)
def test_both_refuse_and_the_codec_names_the_field(topic: Topic, path: Path, value: Any) -> None:
    accepted, refusal = both(topic, change(example(topic, FULL[topic]), path, value))
    assert not accepted
    assert refusal is not None
    assert refusal.field.startswith(".".join(map(str, path)))


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("document", [[], "text", 7, None])
def test_both_refuse_what_is_no_object(topic: Topic, document: Any) -> None:
    accepted, refusal = both(topic, document)
    assert not accepted
    assert refusal is not None
    assert refusal.field == ""


LIMITS: list[tuple[Topic, Path, Any]] = [
    (Topic.REQUESTS, ("id",), "é" * 256),
    (Topic.REQUESTS, ("task",), "0"),
    (Topic.REQUESTS, ("task",), "a" + "_-9" * 20 + "zz"),
    (Topic.REQUESTS, ("input",), "𝔘" * MAX_TEXT_CHARS),
    (Topic.REQUESTS, ("input",), ["x" * MAX_TEXT_CHARS, "y"]),
    (Topic.REQUESTS, ("occurred_at",), "2024-02-29t23:59:59.123456789z"),
    (Topic.REQUESTS, ("occurred_at",), "2026-11-22T09:14:03-23:59"),
    (Topic.TRACES, ("observation_probability",), 1),
    (Topic.TRACES, ("observation_probability",), 1e-9),
    (Topic.TRACES, ("audit_share",), 1),
    (Topic.DEFERRED, ("audit_share",), 0),
    (Topic.MODELS, ("figures",), {"e_value": 1e300}),
    (Topic.TRACES, ("tokens", "output"), 2**63),
    (Topic.TRACES, ("cost",), 0),
    (Topic.DECISIONS, ("timings",), {"ü": -1, "": 0.5}),
    (Topic.DEAD_LETTERS, ("value",), ""),
    (Topic.DEAD_LETTERS, ("headers",), []),
]


@pytest.mark.parametrize(("topic", "path", "value"), LIMITS)
def test_both_accept_the_last_good_value(topic: Topic, path: Path, value: Any) -> None:
    accepted, refusal = both(topic, change(example(topic, FULL[topic]), path, value))
    assert accepted
    assert refusal is None


@pytest.mark.parametrize("topic", TOPICS)
def test_readers_ignore_fields_they_do_not_know(topic: Topic) -> None:
    known = example(topic, FULL[topic])
    newer = {**known, "added_later": {"by": ["a", "newer", "writer"]}}
    if topic is Topic.DEFERRED:
        newer["request"] = {**newer["request"], "added_later": 1}
    assert both(topic, newer) == (True, None)
    kind = KINDS[topic]
    assert decode(json.dumps(newer).encode(), kind) == decode(json.dumps(known).encode(), kind)


@pytest.mark.parametrize("topic", TOPICS)
def test_optional_fields_may_be_null_or_absent(topic: Topic) -> None:
    document = example(topic, FULL[topic])
    nullable = [
        name
        for name, described in schema_of(topic)["properties"].items()
        if {"type": "null"} in described.get("anyOf", ())
    ]
    absent = {name: value for name, value in document.items() if name not in nullable}
    null = {**document, **dict.fromkeys(nullable)}
    assert both(topic, absent) == (True, None)
    assert both(topic, null) == (True, None)
    kind = KINDS[topic]
    assert decode(json.dumps(absent).encode(), kind) == decode(json.dumps(null).encode(), kind)


def test_a_task_name_cannot_end_in_a_newline() -> None:
    """Only the codec: Python's $ makes the jsonschema library lenient here, unlike the standard."""
    with pytest.raises(InvalidEvent) as refusal:
        decode(b'{"id": "r", "task": "support\\n", "input": "x"}', Request)
    assert refusal.value.field == "task"
