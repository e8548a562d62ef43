"""The topics folder is reviewed data: it agrees with the code, the schemas and itself."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest
import yaml

from shared.contracts import asyncapi
from shared.contracts.codec import MAX_EVENT_BYTES
from shared.contracts.dead_letters import CONTEXT_HEADERS
from shared.contracts.events import MAX_TEXT_CHARS
from shared.contracts.tasks import InvalidTasks, UnknownLabels, load_tasks
from shared.contracts.topics import (
    FOREVER_MS,
    InvalidTopics,
    Topic,
    TopicSpec,
    load_topics,
    schemas_folder,
)
from tests.contract.schema_tools import KINDS, SCHEMAS, schema_of

SPECS = load_topics()
DAY_MS = 86_400_000
TASKS = Path(__file__).parents[2] / "config" / "tasks.yaml"


def test_enum_and_folder_are_the_same() -> None:
    files = {path.name for path in (SCHEMAS / "topics").iterdir()}
    assert files == {f"{topic.value}.yaml" for topic in Topic}
    assert list(SPECS) == list(Topic)


def test_examples_folder_holds_nothing_else() -> None:
    assert {path.name for path in (SCHEMAS / "examples").iterdir()} == {t.value for t in Topic}


@pytest.mark.parametrize("topic", list(Topic))
def test_a_topic_names_files_that_exist(topic: Topic) -> None:
    spec = SPECS[topic]
    assert (SCHEMAS / spec.event).is_file()
    assert spec.examples == f"examples/{topic.value}/1"
    assert (SCHEMAS / spec.examples).is_dir()


@pytest.mark.parametrize("topic", list(Topic))
def test_the_key_is_a_field_that_is_always_there(topic: Topic) -> None:
    if topic is Topic.DEAD_LETTERS:  # a message may have come without a key
        assert SPECS[topic].key == "key"
        return
    node = schema_of(topic)
    for step in SPECS[topic].key.split("."):
        if "$ref" in node:
            node = schema_of(topic)["$defs"][node["$ref"].rsplit("/", 1)[1]]
        assert step in node["required"]
        node = node["properties"][step]


def test_one_requests_events_share_a_key() -> None:
    keys = {topic.value: SPECS[topic].key for topic in Topic}
    assert keys == {
        "traces.raw": "id",
        "traces": "id",
        "requests": "id",
        "decisions": "request_id",
        "deferred": "request.id",
        "models": "task",
        "dead-letters": "key",
    }


def test_every_event_fits_its_topic() -> None:
    """The longest input (two texts, each character escaped in 12 bytes) and the codec's limit."""
    assert 2 * MAX_TEXT_CHARS * 12 < MAX_EVENT_BYTES
    for topic, spec in SPECS.items():
        assert spec.max_message_bytes > MAX_EVENT_BYTES, topic
    others = [spec for topic, spec in SPECS.items() if topic is not Topic.DEAD_LETTERS]
    room = SPECS[Topic.DEAD_LETTERS].max_message_bytes - max(s.max_message_bytes for s in others)
    assert room >= 500_000


def test_a_window_can_be_fitted_again_from_kafka() -> None:
    for task in load_tasks(TASKS).values():
        assert SPECS[Topic.TRACES].retention_ms >= task.horizon_days * DAY_MS


def test_the_history_of_models_is_never_lost() -> None:
    models = SPECS[Topic.MODELS]
    assert models.settings()["cleanup.policy"] == "delete"
    assert models.retention_ms == FOREVER_MS


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("30s", 30_000), ("5m", 300_000), ("12h", 43_200_000), ("7d", 604_800_000), ("forever", -1)],
)
def test_retention_in_words(text: str, milliseconds: int) -> None:
    spec = msgspec.structs.replace(SPECS[Topic.REQUESTS], retention=text, cleanup=("delete",))
    assert spec.retention_ms == milliseconds
    assert spec.settings() == {
        "cleanup.policy": "delete",
        "retention.ms": str(milliseconds),
        "max.message.bytes": "1048576",
    }


def copy_of_schemas(folder: Path) -> Path:
    return Path(shutil.copytree(SCHEMAS, folder / "schemas"))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("partitions: 12", "partitions: 0", "partitions"),
        ("partitions: 12", "partitions: 100001", "partitions"),
        ("retention: 7d", "retention: a week", "retention"),
        ("consumers: [router, console]", "consumers: [nobody]", "consumers"),
        ("cleanup: [delete]", "cleanup: [burn]", "cleanup"),
        ("key: id\n", "", "key"),
        ("key: id\n", "key: id\nretenshun: 7d\n", "retenshun"),
        ("topic: requests", "topic: decisions", "belongs in decisions.yaml"),
        ("topic: requests", "topic: request", "topic"),
        ("topic: requests", "topic: [", "requests.yaml"),
    ],
)
def test_a_bad_topic_file_is_refused_by_name(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    folder = copy_of_schemas(tmp_path)
    path = folder / "topics" / "requests.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InvalidTopics, match=re.escape(complaint)) as refusal:
        load_topics(folder)
    assert "requests.yaml" in str(refusal.value)


def test_a_missing_topic_file_is_named(tmp_path: Path) -> None:
    folder = copy_of_schemas(tmp_path)
    (folder / "topics" / "models.yaml").unlink()
    with pytest.raises(InvalidTopics, match="no file for models"):
        load_topics(folder)


def test_schemas_are_found_beside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel puts `shared` and `schemas` side by side into site-packages, as the checkout has."""
    installed = tmp_path / "site-packages" / "shared" / "contracts" / "topics.py"
    monkeypatch.setattr("shared.contracts.topics.__file__", str(installed))
    with pytest.raises(InvalidTopics, match="incomplete"):
        schemas_folder()
    copied = copy_of_schemas(tmp_path / "site-packages")
    assert schemas_folder() == copied
    assert load_topics() == SPECS


# --- AsyncAPI


def test_the_committed_asyncapi_document_is_up_to_date() -> None:
    committed = (SCHEMAS / asyncapi.DOCUMENT).read_text(encoding="utf-8")
    assert committed == asyncapi.render(SCHEMAS), "run python -m shared.contracts.asyncapi"


def test_asyncapi_check_fails_on_a_changed_topic_and_writing_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of_schemas(tmp_path)
    monkeypatch.setattr(asyncapi, "schemas_folder", lambda: folder)
    assert asyncapi.main(["--check"]) == 0
    path = folder / "topics" / "requests.yaml"
    path.write_text(path.read_text().replace("partitions: 12", "partitions: 24"))
    assert asyncapi.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert asyncapi.main([]) == 0
    assert asyncapi.main(["--check"]) == 0
    assert "partitions: 24" in (folder / asyncapi.DOCUMENT).read_text()


def test_asyncapi_says_what_the_topics_say() -> None:
    document = yaml.safe_load((SCHEMAS / asyncapi.DOCUMENT).read_bytes())
    channels = {channel["address"]: channel for channel in document["channels"].values()}
    assert set(channels) == {topic.value for topic in Topic}
    for topic, spec in SPECS.items():
        channel = channels[topic.value]
        binding = channel["bindings"]["kafka"]
        assert binding["partitions"] == spec.partitions
        assert binding["topicConfiguration"]["retention.ms"] == spec.retention_ms
        (message,) = channel["messages"].values()
        assert message["name"] == KINDS[topic].__name__
        if topic is Topic.DEAD_LETTERS:
            assert set(message["headers"]["required"]) == set(CONTEXT_HEADERS.values())
        else:
            assert (SCHEMAS / message["payload"]["$ref"]).resolve() == SCHEMAS / spec.event


def test_asyncapi_operations_are_producers_and_consumers() -> None:
    document = yaml.safe_load((SCHEMAS / asyncapi.DOCUMENT).read_bytes())
    sends: dict[str, set[str]] = {topic.value: set() for topic in Topic}
    receives: dict[str, set[str]] = {topic.value: set() for topic in Topic}
    for name, operation in document["operations"].items():
        channel = document["channels"][operation["channel"]["$ref"].removeprefix("#/channels/")]
        side = sends if operation["action"] == "send" else receives
        side[channel["address"]].add(name.split("-")[0])
    for topic, spec in SPECS.items():
        assert sends[topic.value] == set(spec.producers)
        assert receives[topic.value] == set(spec.consumers)


# --- the example task file


def test_the_example_task_file_loads() -> None:
    tasks = load_tasks(TASKS)
    support = tasks["support"]
    assert len(support.labels) == 24
    assert support.labels[-1] == support.other_label == "other"
    assert support.unknown_labels is UnknownLabels.OTHER
    assert support.price.per_million_output_tokens > support.price.per_million_input_tokens > 0
    assert 0 < support.delta < support.alpha < 1


def test_specs_cannot_be_changed() -> None:
    spec: TopicSpec = SPECS[Topic.REQUESTS]
    with pytest.raises(AttributeError):
        spec.partitions = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("audit_share", "-0.1"),
        ("audit_share", "1.1"),
        ("rollout", "blue-green"),
        ("canary_share", "0"),
        ("canary_share", "1"),
        ("promote_after", "0"),
        ("horizon_days", "36501"),
        ("fit_budget_s", "0"),
        ("fit_budget_s", ".inf"),
        ("fit_budget_s", "604801"),
    ],
)
def test_a_task_out_of_bounds_is_refused_and_the_field_named(
    field: str, bad: str, tmp_path: Path
) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(f"tasks:\n  - name: support\n    {field}: {bad}\n", encoding="utf-8")
    with pytest.raises(InvalidTasks, match=field):
        load_tasks(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tasks:\n  - name: a\n    labels: [x, y]\n    name: b\n", "'name' is there twice"),
        ("tasks: []\ntasks: [{name: a}]\n", "line 2"),
        ("tasks: [{name: a, timezone: Europe}]\n", "timezone 'Europe'"),
        ("tasks: [{name: a, audit_share: 1.0e-9}]\n", "audit_share must be 0 or at least 1e-06"),
        ("tasks: [{name: a]\n", "tasks.yaml"),
    ],
)
def test_a_tasks_file_is_taken_by_no_half(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    with pytest.raises(InvalidTasks, match=says):
        load_tasks(path)


def test_a_folder_is_no_tasks_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidTasks, match="TRACER_TASKS"):
        load_tasks(tmp_path)
