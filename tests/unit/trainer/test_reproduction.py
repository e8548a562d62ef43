"""Versions made again: the same bytes, or the first difference by name."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_trainer_pipeline import DAY, Bench, traces

from services.ctl.differences import first_difference
from services.ctl.reproduce import Reproduction, Traces, reproduce
from shared.bus.base import Message
from shared.contracts.codec import encode
from shared.contracts.events import Trace
from shared.contracts.fit_settings import FitSettings
from shared.contracts.manifest import Manifest, sha256
from shared.contracts.tasks import Task
from shared.core.window import WindowKey
from shared.registry.base import Artifact

NEXT = DAY + timedelta(days=1)


class Topic:
    """Traces of two partitions, and the trainer's work on them."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.messages: list[Message] = []

    def close(self, day: date, sent: list[Trace]) -> None:
        """The traces arrive and the day's window is stored, in an order of its own."""
        reach: dict[int, int] = {}
        for trace in sent:
            partition = len(self.messages) % 2
            offset = sum(m.partition == partition for m in self.messages)
            self.messages.append(Message("traces", partition, offset, b"k", encode(trace)))
            reach[partition] = offset + 1
        self.bench.store.write("support", day, random.Random(7).sample(sent, len(sent)), reach)

    def fit(self, day: date) -> Artifact:
        version = self.bench.refit(WindowKey("support", day)).version
        assert version is not None
        return self.bench.registry.load("support", version)

    def again(self, artifact: Artifact, *, stored: bool = False) -> Reproduction:
        read = Traces("support")
        read.add(self.messages)
        settings = artifact.manifest.settings or FitSettings.of(self.bench.refit.tasks["support"])
        days = [date.fromisoformat(d) for d in artifact.manifest.source]
        return reproduce(
            artifact, read, settings, self.bench.encoder, jobs=1,
            stored=self.bench.store.read("support", days) if stored else None,
        )  # fmt: skip


@pytest.fixture(scope="module")
def topic(tmp_path_factory: pytest.TempPathFactory) -> Topic:
    """One day closed and fitted, and then a late trace of it and the next day."""
    topic = Topic(tmp_path_factory.mktemp("windows"))
    topic.close(DAY, traces(400))
    topic.fit(DAY)
    topic.close(DAY, traces(3, first=5_000))
    topic.close(NEXT, traces(300, day=NEXT, first=900))
    return topic


@pytest.fixture(scope="module")
def first(topic: Topic) -> Artifact:
    return topic.bench.registry.load("support", topic.bench.registry.versions("support")[0])


def altered(artifact: Artifact, **fields: object) -> Artifact:
    manifest = msgspec.structs.replace(artifact.manifest, **fields)
    return Artifact(manifest.encode(), artifact.blobs)


def test_the_manifest_says_what_it_was_made_of(first: Artifact, topic: Topic) -> None:
    manifest = first.manifest
    assert manifest.source == {"2026-01-01": {"0": 200, "1": 200}}
    assert manifest.settings == FitSettings.of(topic.bench.refit.tasks["support"])
    assert {"python", "numpy", "scikit-learn", "tracer-kafka"} <= set(manifest.libraries)


def test_a_version_is_made_again_without_what_came_late(topic: Topic, first: Artifact) -> None:
    made = topic.again(first)
    assert (made.difference, made.again, made.traces) == (None, first.version, 400)


def test_the_next_day_has_what_came_late(topic: Topic) -> None:
    second = topic.fit(NEXT)
    assert second.manifest.source == {
        "2026-01-01": {"0": 202, "1": 201}, "2026-01-02": {"0": 352, "1": 351},
    }  # fmt: skip
    made = topic.again(second)
    assert (made.difference, made.traces) == (None, 703)


def test_a_trace_that_is_gone_is_named(topic: Topic, first: Artifact) -> None:
    shorter = Topic.__new__(Topic)
    shorter.bench, shorter.messages = topic.bench, topic.messages[:100] + topic.messages[101:]
    assert (shorter.again(first).difference or "").startswith("n_traces: 400 then, 399 now")
    named = shorter.again(first, stored=True).difference or ""
    assert named.startswith("traces, row 100: t-00100 in the store, t-00101 in the topic")


def test_a_trace_that_says_something_else_is_named(topic: Topic, first: Artifact) -> None:
    forged = Topic.__new__(Topic)
    forged.bench, forged.messages = topic.bench, list(topic.messages)
    trace = msgspec.json.decode(forged.messages[40].value, type=Trace)
    lie = msgspec.structs.replace(trace, teacher="account")
    forged.messages[40] = replace(forged.messages[40], value=encode(lie))
    assert "traces_sha256: " in (forged.again(first).difference or "")
    named = forged.again(first, stored=True).difference
    assert named == (
        "traces, row 40 (t-00040), teacher: 'delivery' in the store, 'account' in the topic"
    )


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("libraries", {"numpy": "1.0"}, "libraries.joblib: nothing then"),
        ("encoder", "0" * 64, "encoder: 000000000000 then, eeeeeeeeeeee now"),
        ("n_traces", 401, "n_traces: 401 then, 400 now"),
    ],
)
def test_the_first_field_is_named_causes_first(
    topic: Topic, first: Artifact, field: str, value: object, said: str
) -> None:
    then = altered(first, **{field: value}, deferred_labels=("billing",))
    if field == "encoder":
        assert said in (topic.again(then).difference or "")
    else:
        assert (first_difference(then, first) or "").startswith(said)


def test_other_settings_are_seen_in_the_thresholds(topic: Topic, first: Artifact) -> None:
    """A manifest that lies about what it was fitted for is found out by its own figures."""
    settings = first.manifest.settings
    assert settings is not None
    lied = altered(first, settings=msgspec.structs.replace(settings, delta=0.01))
    assert topic.again(lied).difference is not None


def test_a_number_in_a_graph_is_named_with_its_row(first: Artifact) -> None:
    manifest = first.manifest
    stage = manifest.stages[-1]
    model = onnx.load_from_string(first.blobs[stage.blob])
    tensor = max(model.graph.initializer, key=lambda t: np.prod(t.dims))
    numbers = numpy_helper.to_array(tensor).copy()
    row = (numbers.shape[0] - 1, *(0 for _ in numbers.shape[1:]))
    numbers[row] = numbers[row] + 1
    tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
    blob = model.SerializeToString()
    stages = (*manifest.stages[:-1], msgspec.structs.replace(stage, blob=sha256(blob)))
    forged = Artifact(
        msgspec.structs.replace(manifest, stages=stages).encode(),
        {**first.blobs, sha256(blob): blob},
    )
    said = first_difference(first, forged) or ""
    assert f"stages[{len(stages) - 1}] ({stage.name}), its graph: tensor {tensor.name}" in said
    assert f"row {list(row)}" in said
    assert f"1 of {numbers.size} numbers differ" in said


def test_equal_artifacts_do_not_differ(first: Artifact) -> None:
    assert first_difference(first, Artifact(first.manifest_bytes, dict(first.blobs))) is None


def test_an_older_manifest_is_read_and_made_of_all_there_is(topic: Topic, first: Artifact) -> None:
    older = msgspec.json.decode(first.manifest_bytes)
    del older["source"], older["settings"]
    data = msgspec.json.encode(older)
    assert isinstance(msgspec.json.decode(data, type=Manifest), Manifest)
    made = topic.again(Artifact(data, first.blobs))
    assert (made.difference or "").startswith("settings: nothing then")


def test_only_the_tasks_own_traces_are_kept() -> None:
    read = Traces("support")
    other = msgspec.structs.replace(traces(1)[0], task="other")
    values = [encode(other), b"\xff", encode(traces(1)[0])]
    assert read.add(Message("traces", 0, i, b"k", v) for i, v in enumerate(values)) == 1


def test_texts_are_those_that_the_trainer_kept() -> None:
    """The topic has them unredacted: every version of such a task seemed to differ."""
    read = Traces("support", "builtin")
    sent = msgspec.structs.replace(traces(1)[0], input="my parcel, ann@example.org")
    assert read.add([Message("traces", 0, 0, b"k", encode(sent))]) == 1
    (table,) = read.of(DAY, {}, FitSettings.of(Task(name="support"))).tables.values()
    assert table["input"].to_pylist() == [["my parcel, [EMAIL]"]]


def test_a_trace_that_the_trainer_refused_does_not_end_the_audit() -> None:
    far = msgspec.structs.replace(traces(1)[0], occurred_at=datetime(1, 1, 1, tzinfo=UTC))
    read = Traces("support")
    assert read.add([Message("traces", 0, 0, b"k", encode(far))]) == 0


def test_a_difference_quotes_no_text(topic: Topic) -> None:
    artifact = topic.fit(NEXT)
    first = msgspec.json.decode(topic.messages[0].value, type=Trace)
    changed = msgspec.structs.replace(first, input="ann@example.org wrote this")
    kept = topic.messages[0]
    topic.messages[0] = replace(kept, value=encode(changed))
    try:
        difference = topic.again(artifact, stored=True).difference or ""
    finally:
        topic.messages[0] = kept
    assert "input" in difference
    assert "example.org" not in difference


def test_days_are_those_of_each_version_s_time_zone() -> None:
    read = Traces("support")
    late = msgspec.structs.replace(
        traces(1)[0], occurred_at=datetime(2026, 1, 1, 23, 30, tzinfo=UTC)
    )
    read.add([Message("traces", 0, 0, b"k", encode(late))])
    for zone, day in (("UTC", DAY), ("Europe/Berlin", NEXT)):
        settings = FitSettings.of(Task(name="support", timezone=zone))
        assert list(read.of(NEXT, {}, settings).tables) == [day]
