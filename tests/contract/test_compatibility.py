"""No schema changes in a way that another release could not live with, unless it is said here.

The schemas of the last release are frozen in tests/fixtures/compat/<commit>/schemas. What a change
must do instead, and how to freeze a release: docs/upgrading.md.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from shared.contracts.codec import decode
from shared.contracts.topics import Topic, load_topics
from tests.contract.compatibility import breaks
from tests.contract.schema_tools import KINDS, example_files, schema_of

LAST_RELEASE = Path(__file__).parents[1] / "fixtures" / "compat" / "2421d2e" / "schemas"

# Breaks accepted since the last release, by topic; see docs/upgrading.md. `{}` when a
# release is frozen.
ACCEPTED: frozenset[tuple[Topic, str]] = frozenset(
    (Topic(topic), line)
    for topic, lines in json.loads((LAST_RELEASE.parent / "accepted.json").read_bytes()).items()
    for line in lines
)


def released(topic: Topic) -> dict[str, Any]:
    name = Path(load_topics()[topic].event).name
    schema: dict[str, Any] = json.loads((LAST_RELEASE / name).read_bytes())
    return schema


def released_topics() -> list[Topic]:
    return [t for t in Topic if (LAST_RELEASE / Path(load_topics()[t].event).name).exists()]


def test_no_event_of_the_last_release_is_gone() -> None:
    events = {Path(spec.event).name for spec in load_topics().values()}
    assert {path.name for path in LAST_RELEASE.iterdir()} <= events


@pytest.mark.parametrize("topic", released_topics())
def test_nothing_breaks_the_last_release(topic: Topic) -> None:
    found = {(topic, line) for line in breaks(released(topic), schema_of(topic))}
    assert not found - ACCEPTED, "see docs/upgrading.md"
    assert not {a for a in ACCEPTED if a[0] is topic} - found, "accepted, but no longer so"


@pytest.mark.parametrize("topic", released_topics())
def test_the_last_release_reads_todays_examples(topic: Topic) -> None:
    """As its schema has it, and with a field that it does not know."""
    reader = Draft202012Validator(released(topic))
    added = {line.split('"')[1] for t, line in ACCEPTED if t is topic and "added; older" in line}
    read = 0
    for path in example_files(topic):
        document = json.loads(path.read_bytes())
        if {document.get("kind"), document.get("reason")} & added:
            continue  # accepted: older readers refuse it
        reader.validate({**document, "added_later": 1})
        decode(json.dumps(document).encode(), KINDS[topic])
        read += 1
    assert read


Change = Callable[[dict[str, Any]], Any]
BREAKING: dict[str, tuple[Topic, Change, str]] = {
    "a field removed": (Topic.DEFERRED, lambda s: s["properties"].pop("label"), "label: removed"),
    "a new required field": (
        Topic.REQUESTS,
        lambda s: (
            s["properties"].update(tenant={"type": "string"}), s["required"].append("tenant"),
        ),
        "tenant: required now",
    ),
    "an optional field required": (
        Topic.TRACES, lambda s: s["required"].append("cost"), "cost: required now",
    ),
    "a required field optional": (
        Topic.TRACES, lambda s: s["required"].remove("teacher"), "teacher: required no more",
    ),
    "a narrower length": (
        Topic.DEFERRED, lambda s: s["$defs"]["text"].update(maxLength=10), "maxLength was",
    ),
    "a wider range": (
        Topic.TRACES,
        lambda s: s["properties"]["observation_probability"].update(maximum=2),
        "maximum was 1",
    ),
    "another type": (
        Topic.DECISIONS,
        lambda s: s["properties"].update(request_id={"type": "integer"}),
        "request_id: type was",
    ),
    "a pattern": (
        Topic.REQUESTS, lambda s: s["$defs"]["task"].update(pattern="^a$"), "pattern was",
    ),
    "a value of an enum removed": (
        Topic.DEFERRED, lambda s: s["$defs"]["reason"]["enum"].pop(0), "removed; it has been",
    ),
    "a value of an enum added": (
        Topic.DEFERRED, lambda s: s["$defs"]["reason"]["enum"].append("mood"), "older readers",
    ),
    "null no longer allowed": (
        Topic.TRACES,
        lambda s: s["properties"]["cost"]["anyOf"].remove({"type": "null"}),
        "removed or changed",
    ),
    "another default": (
        Topic.TRACES, lambda s: s["properties"]["drawn"].update(default=True), "default was",
    ),
    "objects closed": (
        Topic.REQUESTS, lambda s: s.update(additionalProperties=False), "was true, is false",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKING)
def test_a_change_that_would_break_is_seen_and_named(name: str) -> None:
    topic, change, said = BREAKING[name]
    before = schema_of(topic)
    after = copy.deepcopy(before)
    change(after)
    assert after != before
    found = breaks(before, after)
    assert any(said in line for line in found), found


def test_a_new_optional_field_and_other_words_are_safe() -> None:
    for topic in Topic:
        before = schema_of(topic)
        after = copy.deepcopy(before)
        after["properties"]["added"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
        after["description"] = "Other words."
        assert breaks(before, before) == []
        assert breaks(before, after) == []
