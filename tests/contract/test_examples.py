"""Every example is valid, decodes, and loses nothing when it is encoded again.

To feed the examples into a service's handler, parametrize with those of the topics it reads:

    @pytest.mark.parametrize(("topic", "path"), examples_of(Topic.REQUESTS))
    def test_the_router_takes_it(topic, path): ...
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.codec import InvalidEvent, decode, encode
from shared.contracts.events import AnnouncementKind, Outcome, Reason, Source
from shared.contracts.tasks import load_tasks
from shared.contracts.topics import Topic
from tests.contract.schema_tools import (
    KINDS,
    example_files,
    invalid_files,
    schema_of,
    validator_of,
)


def examples_of(*topics: Topic) -> list[Any]:
    """Topic and path of every valid example of `topics`, as pytest parameters."""
    return [
        pytest.param(topic, path, id=f"{topic.value}/{path.stem}")
        for topic in topics
        for path in example_files(topic)
    ]


EXAMPLES = examples_of(*Topic)
INVALID = [
    pytest.param(topic, path, id=f"{topic.value}/{path.stem}")
    for topic in Topic
    for path in invalid_files(topic)
]
# What each invalid example is there to show: the field that is at fault.
AT_FAULT = {
    "missing-teacher": "teacher",
    "naive-time": "occurred_at",
    "empty-input": "input",
    "three-texts": "input",
    "bad-task-name": "task",
    "unknown-version": "v",
}


@pytest.mark.parametrize(("topic", "path"), EXAMPLES)
def test_an_example_is_valid(topic: Topic, path: Path) -> None:
    validator_of(topic).validate(json.loads(path.read_bytes()))


@pytest.mark.parametrize(("topic", "path"), EXAMPLES)
def test_an_example_survives_decoding_and_encoding(topic: Topic, path: Path) -> None:
    kind = KINDS[topic]
    event = decode(path.read_bytes(), kind)
    again = encode(event)
    assert decode(again, kind) == event
    assert encode(decode(again, kind)) == again
    validator_of(topic).validate(json.loads(again))


@pytest.mark.parametrize(("topic", "path"), EXAMPLES)
def test_an_example_loses_nothing_known(topic: Topic, path: Path) -> None:
    event = decode(path.read_bytes(), KINDS[topic])
    schema = schema_of(topic)
    written, encoded = json.loads(path.read_bytes()), json.loads(encode(event))
    assert meaning(encoded, schema, schema) == meaning(written, schema, schema)


def meaning(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """A document without what encoding may drop: unknown fields, defaults, spellings of a time."""
    if "$ref" in schema:
        return meaning(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema:
        for branch in schema["anyOf"]:
            refers = root["$defs"][branch["$ref"].rsplit("/", 1)[1]] if "$ref" in branch else branch
            if refers.get("format") == "date-time" or "properties" in refers:
                return None if value is None else meaning(value, refers, root)
        return value
    if schema.get("format") == "date-time":
        return datetime.fromisoformat(value)
    if "properties" not in schema:
        return value
    kept = {}
    for name, described in schema["properties"].items():
        default = described.get("default")
        if name in value and value[name] != default:
            kept[name] = meaning(value[name], described, root)
    return kept


@pytest.mark.parametrize(("topic", "path"), INVALID)
def test_an_invalid_example_is_refused_and_its_field_named(topic: Topic, path: Path) -> None:
    assert not validator_of(topic).is_valid(json.loads(path.read_bytes()))
    with pytest.raises(InvalidEvent) as refusal:
        decode(path.read_bytes(), KINDS[topic])
    assert refusal.value.field == AT_FAULT[path.stem]


def test_every_folder_shows_the_smallest_a_typical_and_an_edge() -> None:
    for topic in Topic:
        names = [path.stem for path in example_files(topic)]
        assert "smallest" in names
        assert any(name.startswith("edge-") for name in names)
        assert len(names) >= 3
    assert {path.stem for topic in Topic for path in invalid_files(topic)} == set(AT_FAULT)


@pytest.mark.parametrize("topic", list(Topic))
def test_the_smallest_example_has_the_required_fields_only(topic: Topic) -> None:
    (path,) = (path for path in example_files(topic) if path.stem == "smallest")
    assert set(json.loads(path.read_bytes())) == set(schema_of(topic)["required"])


@pytest.mark.parametrize("topic", list(Topic))
def test_together_the_examples_use_every_field(topic: Topic) -> None:
    used = {name for path in example_files(topic) for name in json.loads(path.read_bytes())}
    assert used >= set(schema_of(topic)["properties"]) - {"v"}


def values(topic: Topic, field: str) -> set[str]:
    documents = [json.loads(path.read_bytes()) for path in example_files(topic)]
    return {document[field] for document in documents if field in document}


def test_the_examples_show_every_kind_of_outcome() -> None:
    assert values(Topic.MODELS, "kind") == {kind.value for kind in AnnouncementKind}
    assert values(Topic.DECISIONS, "outcome") == {outcome.value for outcome in Outcome}
    assert values(Topic.TRACES, "source") | {"log"} == {source.value for source in Source}
    shown = values(Topic.DECISIONS, "reason") | values(Topic.DEFERRED, "reason")
    assert shown <= {reason.value for reason in Reason}
    assert len(shown) >= 5


def test_examples_speak_of_the_task_in_the_example_configuration() -> None:
    support = load_tasks(Path(__file__).parents[2] / "config" / "tasks.yaml")["support"]
    for topic in (Topic.TRACES, Topic.DECISIONS):
        for path in example_files(topic):
            document = json.loads(path.read_bytes())
            assert document["task"] == "support"
            label = document.get("teacher", document.get("label"))
            assert label is None or label in support.labels
