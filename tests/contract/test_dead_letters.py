"""A dead letter keeps the message as it was, says what went wrong, and can be put back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.base import Headers, Message, Record
from shared.bus.dead_letters import (
    CUT,
    CUT_HEADERS,
    FIRST_TIMESTAMP,
    MAX_LETTER_BYTES,
    dead_letter,
    first_timestamp,
    read_dead_letter,
    redrive,
)
from shared.bus.errors import InvalidMessage
from shared.contracts.codec import InvalidEvent, decode, encode
from shared.contracts.dead_letters import (
    CONTEXT_HEADERS,
    MAX_CONTEXT_CHARS,
    MAX_MESSAGE_CHARS,
    DeadLetter,
    NotADeadLetter,
    bounded,
)
from shared.contracts.events import RawTrace
from shared.contracts.topics import Topic
from tests.contract.schema_tools import invalid_files, validator_of

AT = datetime(2026, 11, 22, 9, 14, 4, 100_000, tzinfo=UTC)
TOPIC = "prod-dead-letters"
TRACEPARENT = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


def message(**changes: object) -> Message:
    fields: dict[str, object] = {
        "topic": "prod-traces.raw",
        "partition": 3,
        "offset": 1041,
        "key": b"t-90",
        "value": b'{"id": "t-90"}',
        "headers": (TRACEPARENT, ("same", b"1"), ("same", b"2")),
    }
    return Message(**{**fields, **changes})  # type: ignore[arg-type]


def letter_of(original: Message, error: BaseException | None = None, topic: str = TOPIC) -> Record:
    error = InvalidMessage("no", field="id") if error is None else error
    return dead_letter(original, service="ingest", error=error, at=AT, topic=topic)


def consumed(record: Record) -> Message:
    return Message(record.topic, 0, 7, record.key, record.value, record.headers)


def context(record: Record) -> dict[str, bytes]:
    return dict(record.headers[-len(CONTEXT_HEADERS) :])


def test_key_and_value_are_unchanged_and_the_headers_say_why() -> None:
    try:
        decode(message().value, RawTrace)
    except InvalidEvent as error:
        record = dead_letter(
            message(), service="ingest", error=error, field=error.field, at=AT, topic=TOPIC
        )
    assert (record.topic, record.key, record.value) == (TOPIC, b"t-90", message().value)
    assert record.headers[:3] == message().headers
    assert context(record) == {
        "__connect.errors.topic": b"prod-traces.raw",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"1041",
        "__connect.errors.connector.name": b"ingest",
        "__connect.errors.stage": b"handle",
        "__connect.errors.class.name": b"shared.contracts.codec.decode",
        "__connect.errors.exception.class.name": b"shared.contracts.codec.InvalidEvent",
        "__connect.errors.exception.message": b"Object missing required field `task`",
        "tracer.errors.field": b"task",
        "tracer.errors.at": b"2026-11-22T09:14:04.100000Z",
    }


def test_field_is_the_errors_own_unless_given() -> None:
    assert context(letter_of(message()))["tracer.errors.field"] == b"id"
    assert context(letter_of(message(), ValueError("no")))["tracer.errors.field"] == b""
    record = dead_letter(
        message(), service="router", error=ValueError(), field="input[1]", at=AT, topic=TOPIC
    )
    assert context(record)["tracer.errors.field"] == b"input[1]"


def test_an_error_never_raised_is_laid_at_the_services_door() -> None:
    headers = context(letter_of(message(), KeyError("label")))
    assert headers["__connect.errors.class.name"] == b"ingest"
    assert headers["__connect.errors.exception.class.name"] == b"KeyError"
    assert headers["__connect.errors.exception.message"] == b"'label'"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("one\ntwo\r\n\tthree\x00", "one\ntwo\r\n\tthree\x00"),
        ("Straße 注文 👋🏽", "Straße 注文 👋🏽"),
        ("half \ud83d of a pair", "half \\ud83d of a pair"),
        ("x" * 2_000, "x" * 2_000),
        ("x" * 2_001, "x" * 1_999 + "…"),
        ("👋" * 50_000, "👋" * 1_999 + "…"),
        ("\ud83d" * 2_000, ("\\ud83d" * 2_000)[:1_999] + "…"),
    ],
)
def test_any_message_of_an_error_fits_a_header(text: str, kept: str) -> None:
    record = letter_of(message(), ValueError(text))
    assert context(record)["__connect.errors.exception.message"].decode() == kept
    assert read_dead_letter(consumed(record)).message == kept


def test_headers_are_bounded_whoever_made_the_letter() -> None:
    long = DeadLetter(
        topic="t",
        partition=0,
        offset=0,
        service="s" * 9_999,
        stage="s" * 9_999,
        component="c" * 9_999,
        error="e" * 9_999,
        message="m" * 9_999,
        field="f" * 9_999,
        at=AT,
        value=b"",
    )
    sizes = {name: len(value.decode()) for name, value in long.to_headers()}
    assert sizes.pop("__connect.errors.exception.message") == MAX_MESSAGE_CHARS
    assert max(sizes.values()) == MAX_CONTEXT_CHARS


def test_time_is_utc_and_must_have_a_zone() -> None:
    east = AT.astimezone(timezone(timedelta(hours=2)))
    record = dead_letter(message(), service="s", error=ValueError(), at=east, topic=TOPIC)
    assert context(record)["tracer.errors.at"] == b"2026-11-22T09:14:04.100000Z"
    with pytest.raises(ValueError, match="time zone"):
        dead_letter(
            message(), service="s", error=ValueError(), at=AT.replace(tzinfo=None), topic=TOPIC
        )


def test_redriving_restores_the_record_for_the_topic_it_came_from() -> None:
    original = message()
    assert redrive(consumed(letter_of(original))) == Record(
        topic="prod-traces.raw", key=b"t-90", value=original.value, headers=original.headers
    )


@pytest.mark.parametrize("key", [None, b"", b"\x00\xff"])
def test_no_key_and_an_empty_key_stay_different(key: bytes | None) -> None:
    record = letter_of(message(key=key, value=b""))
    assert record.key == key
    assert redrive(consumed(record)).key == key


def test_a_message_that_was_a_dead_letter_before_keeps_its_older_context() -> None:
    first = letter_of(message())
    second = letter_of(consumed(first), topic="dead-letters-of-dead-letters")
    assert read_dead_letter(consumed(second)).topic == TOPIC
    back = redrive(consumed(second))
    assert back == first
    assert redrive(consumed(back)) == Record(
        "prod-traces.raw", b"t-90", message().value, message().headers
    )


@pytest.mark.parametrize("outside", [(), ((FIRST_TIMESTAMP, b"yesterday"),)])
def test_when_the_broker_first_got_it_is_kept_however_often_it_dies(outside: Headers) -> None:
    original = message(timestamp_ms=1_000, headers=(TRACEPARENT, *outside))
    for put_back_at in (2_000, 3_000):
        back = redrive(consumed(letter_of(original)))
        assert back.headers == (TRACEPARENT, (FIRST_TIMESTAMP, b"1000"))
        original = message(timestamp_ms=put_back_at, headers=back.headers)
        assert first_timestamp(original) == 1_000
    assert first_timestamp(message(timestamp_ms=5)) == 5


def test_headers_added_on_the_way_are_kept_as_original() -> None:
    """Tracing libraries append to whatever is produced."""
    record = letter_of(message())
    added = Message(TOPIC, 0, 0, record.key, record.value, (*record.headers, ("late", b"1")))
    assert redrive(added).headers == (*message().headers, ("late", b"1"))


@pytest.mark.parametrize("key", [b"k", b"k" * 3_000_000, None])
def test_a_message_that_no_producer_would_write_is_cut_and_not_redriven(key: bytes | None) -> None:
    """Blanks: a broker takes them, as it counts what they were compressed to."""
    message = Message("requests", 3, 17, key, b" " * 3_000_000)
    letter = dead_letter(
        message, service="router", error=InvalidMessage("too large"), at=AT, topic="d"
    )
    assert letter.size <= MAX_LETTER_BYTES + 100
    assert dict(letter.headers)[CUT] == str(3_000_000 + len(key or b"")).encode()
    with pytest.raises(InvalidMessage, match="requests, partition 3, offset 17"):
        redrive(Message("d", 0, 0, letter.key, letter.value, headers=letter.headers))


@pytest.mark.parametrize(
    ("headers", "left_out"),
    [
        ((("a", b"1"), ("blank", b" " * 3_000_000), ("b", b"2")), 1),
        ((("blank" * 600_000, b""), ("a", b"1"), ("b", b"2")), 1),
        ((("a", b"1"), *((("x", b""),) * 1_000_000), ("b", b"2")), None),
    ],
    ids=["large", "long name", "many"],
)
@pytest.mark.parametrize("value", [b"{}", b" " * 3_000_000], ids=["small", "large"])
def test_headers_that_no_producer_would_write_are_left_out(
    headers: Headers, left_out: int | None, value: bytes
) -> None:
    message = Message("requests", 3, 17, b"k", value, headers)
    letter = dead_letter(
        message, service="router", error=InvalidMessage("too large"), at=AT, topic="d"
    )
    assert letter.size <= MAX_LETTER_BYTES + 100
    assert ("a", b"1") in letter.headers
    assert letter.value.startswith(value[:1_000_000])
    said = dict(letter.headers)
    ours = {CUT, CUT_HEADERS, *CONTEXT_HEADERS.values()}
    kept = sum(name not in ours for name, _ in letter.headers)
    assert int(said[CUT_HEADERS]) == len(headers) - kept
    assert left_out in (None, int(said[CUT_HEADERS]))
    with pytest.raises(InvalidMessage, match="requests, partition 3, offset 17"):
        redrive(Message("d", 0, 0, letter.key, letter.value, headers=letter.headers))


def test_a_letter_of_the_dead_letter_topic_itself_is_not_redriven() -> None:
    record = letter_of(message(topic=TOPIC))
    with pytest.raises(InvalidMessage, match="itself") as refusal:
        redrive(consumed(record))
    assert refusal.value.field == "__connect.errors.topic"


@pytest.mark.parametrize("header", CONTEXT_HEADERS.values())
def test_a_missing_header_is_named(header: str) -> None:
    record = letter_of(message())
    kept = tuple(pair for pair in record.headers if pair[0] != header)
    with pytest.raises(InvalidMessage, match="not a dead letter") as refusal:
        redrive(Message(TOPIC, 0, 0, record.key, record.value, kept))
    assert refusal.value.field == header


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("topic", b""),
        ("topic", b"a/b"),
        ("topic", b"a\n"),
        ("topic", b"x" * 250),
        ("topic", b"\xff"),
        ("partition", b"-1"),
        ("partition", b""),
        ("partition", "٣".encode()),
        ("offset", b"1.5"),
        ("offset", b"9" * 5_000),
        ("message", b"\xff"),
        ("at", b"2026-11-22T09:14:04"),
        ("at", b"yesterday"),
    ],
)
def test_a_forged_header_is_refused_by_name(field: str, value: bytes) -> None:
    header = CONTEXT_HEADERS[field]
    forged = tuple((n, value if n == header else v) for n, v in letter_of(message()).headers)
    with pytest.raises(NotADeadLetter) as refusal:
        DeadLetter.from_headers(forged, key=None, value=b"")
    assert refusal.value.field == header


def test_the_json_form_is_lossless_and_follows_the_schema() -> None:
    original = message(key=b"\x00\xff", value=bytes(range(256)))
    letter = read_dead_letter(consumed(letter_of(original)))
    data = encode(letter)
    validator_of(Topic.DEAD_LETTERS).validate(json.loads(data))
    assert decode(data, DeadLetter) == letter


@pytest.mark.parametrize("path", invalid_files(Topic.TRACES_RAW), ids=lambda path: path.stem)
def test_every_invalid_trace_becomes_a_letter_and_comes_back(path) -> None:  # type: ignore[no-untyped-def]
    original = message(value=path.read_bytes())
    with pytest.raises(InvalidEvent) as refusal:
        decode(original.value, RawTrace)
    record = letter_of(original, refusal.value)
    assert read_dead_letter(consumed(record)).field == refusal.value.field != ""
    assert redrive(consumed(record)).value == path.read_bytes()


pairs = st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=20)), max_size=5).map(tuple)


@given(
    key=st.none() | st.binary(max_size=20),
    value=st.binary(max_size=50),
    headers=pairs,
    text=st.text(st.characters(), max_size=3_000),
    at=st.datetimes(min_value=datetime(1900, 1, 1), timezones=st.just(UTC)),
)
def test_whatever_the_message_it_comes_back(
    key: bytes | None,
    value: bytes,
    headers: tuple[tuple[str, bytes], ...],
    text: str,
    at: datetime,
) -> None:
    original = message(key=key, value=value, headers=headers)
    record = dead_letter(original, service="s", error=ValueError(text), at=at, topic=TOPIC)
    letter = read_dead_letter(consumed(record))
    assert (letter.at, letter.message) == (at, bounded(text, MAX_MESSAGE_CHARS))
    assert redrive(consumed(record)) == Record(original.topic, key, value, headers)
