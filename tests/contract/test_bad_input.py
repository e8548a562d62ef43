"""Every event type with every kind of bad input: what becomes of it, written down once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.console.announcements import Announcements
from services.console.letters import DeadLetters
from services.console.tallies import Counting, Tally, Topics
from shared.bus.base import Message, TopicPartition
from shared.clock import FakeClock
from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.topics import Topic
from shared.telemetry.health import Health
from tests.contract.schema_tools import KINDS, example_files
from tests.fuzzing.handlers import NOW, Handlers

# What services handle, and whose records become dead letters; and what only the console reads,
# which passes over what it cannot read.
HANDLED = (Topic.TRACES_RAW, Topic.TRACES, Topic.REQUESTS, Topic.DEFERRED)
SHOWN = (Topic.DECISIONS, Topic.MODELS)
# By event: a text of the user's, and a number that is a score or a share.
TEXT = {
    Topic.TRACES_RAW: ("input",), Topic.TRACES: ("input",), Topic.REQUESTS: ("input",),
    Topic.DEFERRED: ("request", "input"), Topic.DECISIONS: ("label",), Topic.MODELS: ("reason",),
}  # fmt: skip
SCORE = {
    Topic.TRACES_RAW: ("observation_probability",), Topic.TRACES: ("observation_probability",),
    Topic.REQUESTS: ("metadata", "score"), Topic.DEFERRED: ("accept_score",),
    Topic.DECISIONS: ("accept_score",), Topic.MODELS: ("figures", "agreement"),
}  # fmt: skip
OPEN = dict.fromkeys(KINDS, ("metadata",)) | {Topic.DEFERRED: ("request", "metadata")}
WITHOUT_METADATA = {Topic.MODELS: ("figures",)}
EVENTS = (*HANDLED, *SHOWN)


def good(topic: Topic) -> dict[str, Any]:
    """An event that is used: of a task there is, with all that the kinds below change."""
    names = {Topic.DEFERRED: "typical", Topic.DECISIONS: "handled", Topic.MODELS: "published"}
    name = names.get(topic, "typical")
    (path,) = [path for path in example_files(topic) if path.stem == name]
    document: dict[str, Any] = json.loads(path.read_bytes())
    document.get("request", document)["task"] = "support"
    return document


def put(document: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    *way, last = path
    inner = document
    for name in way:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return document


def dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def text(said: str) -> Callable[[Topic], bytes]:
    return lambda topic: dump(put(good(topic), TEXT[topic], said))


def raw(said: bytes) -> Callable[[Topic], bytes]:
    """Where the text is, bytes that no JSON encoder writes."""
    return lambda topic: text("@HERE@")(topic).replace(b"@HERE@", said)


def number(said: str) -> Callable[[Topic], bytes]:
    return lambda topic: dump(put(good(topic), SCORE[topic], "@HERE@")).replace(
        b'"@HERE@"', said.encode()
    )


def deep(topic: Topic) -> bytes:
    where = WITHOUT_METADATA.get(topic, OPEN[topic])
    return dump(put(good(topic), where, "@HERE@")).replace(
        b'"@HERE@"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    )


def wrong_task(name: Any) -> Callable[[Topic], bytes]:
    def made(topic: Topic) -> bytes:
        document = good(topic)
        document.get("request", document)["task"] = name
        return dump(document)

    return made


USED, REFUSED = True, False
RTL = "\u202eمرحبا \u2066left\u2069 שלום"
EMOJI = "👩‍👩‍👧‍👦 💩 🏳️‍🌈"

# Kind -> how it is made, whether it is used, and what the reason must name.
TABLE: dict[str, tuple[Callable[[Topic], bytes], bool, str]] = {
    "as it should be": (lambda topic: dump(good(topic)), USED, ""),
    "nothing": (lambda _: b"", REFUSED, ""),
    "null": (lambda _: b"null", REFUSED, "object"),
    "a list": (lambda _: b"[]", REFUSED, "object"),
    "cut off": (lambda topic: dump(good(topic))[:-2], REFUSED, "not valid JSON"),
    "a text of 1 MB": (text("a" * 1_000_000), REFUSED, "limit"),
    "an emoji text of 40,000": (text("💩" * 40_000), REFUSED, ""),
    "a record of 2 MB": (
        lambda topic: dump(good(topic) | {"later": "a" * 2_000_000}), REFUSED, "limit",
    ),
    "deep": (deep, REFUSED, "not valid JSON"),
    "invalid UTF-8": (raw(b"caf\xe9"), REFUSED, "not valid JSON"),
    "overlong UTF-8": (raw(b"\xc0\xaf"), REFUSED, "not valid JSON"),
    "half a surrogate": (raw(b"\\ud83d"), REFUSED, "not valid JSON"),
    "a bare control character": (raw(b"\x07"), REFUSED, "not valid JSON"),
    "NUL": (text("a\0b"), USED, ""),
    "emoji": (text(EMOJI), USED, ""),
    "right to left": (text(RTL), USED, ""),
    "NaN": (number("NaN"), REFUSED, "not valid JSON"),
    "Infinity": (number("-Infinity"), REFUSED, "not valid JSON"),
    "a number beyond doubles": (number("1e999"), REFUSED, ""),
    "a version of tomorrow": (lambda topic: dump(good(topic) | {"v": 2}), REFUSED, "v"),
    "a version that is a text": (lambda topic: dump(good(topic) | {"v": "1"}), REFUSED, "v"),
    "a task with odd letters": (wrong_task("../Support"), REFUSED, "task"),
    "a task that nobody has": (wrong_task("unheard-of"), REFUSED, "unheard-of"),
    "a task that is no text": (wrong_task(7), REFUSED, "task"),
    "a field of tomorrow": (lambda topic: dump(good(topic) | {"later": [1]}), USED, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def handlers() -> Handlers:
    return Handlers()


def reason(handlers: Handlers, topic: Topic, value: bytes) -> str | None:
    """Of the one dead letter; None when it was used."""
    records = handlers.hold(topic, value)
    letters = [record for record in records if record.topic == Topic.DEAD_LETTERS]
    if not letters:
        return None
    (letter,) = letters
    return dict(letter.headers)["__connect.errors.exception.message"].decode()


@pytest.mark.parametrize("kind", TABLE)
@pytest.mark.parametrize("topic", HANDLED)
def test_it_is_used_or_a_dead_letter_says_why(handlers: Handlers, topic: Topic, kind: str) -> None:
    made, used, named = TABLE[kind]
    why = reason(handlers, topic, made(topic))
    assert (why is None) is used, why
    if why is not None:
        assert named in why


@pytest.mark.parametrize("topic", EVENTS)
def test_a_field_of_another_type_is_named(handlers: Handlers, topic: Topic) -> None:
    """Every field there is, one after the other."""
    tried = 0
    for name, value in good(topic).items():
        if value is None:
            continue
        wrong = 7 if isinstance(value, (str, dict)) else "seven"
        document = dump(good(topic) | {name: wrong})
        with pytest.raises(InvalidEvent) as refused:
            decode(document, KINDS[topic])
        assert refused.value.field.partition(".")[0].partition("[")[0] == name
        if topic in HANDLED:
            assert name in (reason(handlers, topic, document) or "")
        tried += 1
    assert tried >= 4


# Decodes, though the table says refused: another deployment's task, and why a version was refused
# in as many words as it takes.
DECODED = {
    (Topic.DECISIONS, "a task that nobody has"), (Topic.MODELS, "a task that nobody has"),
    (Topic.MODELS, "an emoji text of 40,000"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLE)
@pytest.mark.parametrize("topic", SHOWN)
def test_what_the_console_reads_is_shown_or_passed_over(topic: Topic, kind: str) -> None:
    made, used, _ = TABLE[kind]
    value = made(topic)
    if used or (topic, kind) in DECODED:
        decode(value, KINDS[topic])
    else:
        with pytest.raises(InvalidEvent):
            decode(value, KINDS[topic])
    message = Message(topic.value, 0, 3, b"k", value)
    if topic is Topic.MODELS:
        announcements = Announcements()
        announcements.take(message)
        shown = used or kind == "an emoji text of 40,000"
        assert len(announcements.of("support")) == shown
    else:
        assert bool(counted(message)) == used
    dead = DeadLetters()
    dead.take(message)  # no dead letter, and no end of the reader


def counted(*messages: Message) -> list[Tally]:
    """By the console, which goes on to the offset after the last."""
    source, store, stop = _Source(list(messages)), _Store(), threading.Event()
    source.stop = stop
    counting = Counting(
        source=source, store=store, topics=Topics(Topic.DECISIONS, Topic.TRACES),
        zones={"support": ZoneInfo("America/New_York")}, clock=FakeClock(NOW),
        health=Health(FakeClock(NOW)),
    )  # fmt: skip
    counting.run(stop)
    assert source.committed == {TopicPartition(messages[-1].topic, 0): messages[-1].offset + 1}
    return store.tallies


@dataclass
class _Source:
    """Hands the messages out once, then has the reader stop."""

    messages: list[Message]
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        found, self.messages = self.messages, []
        if not found:
            self.stop.set()
        return found

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.committed |= offsets

    def assigned(self) -> list[TopicPartition]:
        return []

    def close(self) -> None: ...


@dataclass
class _Store:
    tallies: list[Tally] = field(default_factory=list)

    def add(self, task: str, source: TopicPartition, tallies: Sequence[Tally]) -> None:
        self.tallies += tallies

    def days(self, tasks: Sequence[str], limit: int) -> dict[str, dict[date, dict[str, int]]]:
        return {}

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("topic", "odd"),
    [
        (Topic.TRACES, {"cost": 1e308}),
        (Topic.TRACES, {"cost": 1.0, "occurred_at": "0001-01-01T00:00:00Z"}),
        (Topic.TRACES, {"cost": 1.0, "occurred_at": "9999-12-31T23:59:59Z"}),
        (Topic.DECISIONS, {"occurred_at": "0001-01-01T00:00:00Z"}),
        (Topic.DECISIONS, {"occurred_at": "9999-12-31T23:59:59Z"}),
    ],
)
def test_the_console_outlives_figures_and_times_at_the_edge(
    topic: Topic, odd: dict[str, Any]
) -> None:
    """Of an event that its contract allows; the next one is counted."""
    edge, next_one = dump(good(topic) | odd), dump(good(topic) | {"cost": 0.001})
    decode(edge, KINDS[topic])
    found = counted(
        Message(topic.value, 0, 3, b"k", edge), Message(topic.value, 0, 4, b"k", next_one)
    )
    assert 4 in {tally.offset for tally in found}


@pytest.mark.parametrize("cost", [1e308, 1_000_001.0])
def test_a_cost_that_would_end_every_sum_is_a_dead_letter(handlers: Handlers, cost: float) -> None:
    value = dump(good(Topic.TRACES_RAW) | {"cost": cost})
    assert "no call costs" in (reason(handlers, Topic.TRACES_RAW, value) or "")
    fine = dump(good(Topic.TRACES_RAW) | {"cost": 1_000_000.0})
    assert reason(handlers, Topic.TRACES_RAW, fine) is None
