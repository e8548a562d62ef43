from __future__ import annotations

import pytest

from shared.bus.base import Message, Record
from shared.bus.errors import Fatal, InvalidMessage, Retryable
from shared.bus.fates import DeadLetterLimit, each


def message(offset: int, value: bytes, partition: int = 0) -> Message:
    return Message("in", partition, offset, b"k", value)


def handle(message: Message) -> list[Record]:
    if message.value == b"bad":
        raise InvalidMessage("no task", field="task")
    if message.value == b"later":
        raise Retryable("store away")
    return [Record("out", message.key, message.value)] * (0 if message.value == b"none" else 1)


def bury(message: Message, why: InvalidMessage) -> Record:
    return Record("dead", message.key, f"{message.offset} {why.field}: {why}".encode())


def run(values: list[bytes], limit: DeadLetterLimit, start: int = 0) -> list[tuple[str, bytes]]:
    messages = [message(start + i, value) for i, value in enumerate(values)]
    records = each(messages, handle, dead_letter=bury, limit=limit)
    return [(record.topic, record.value) for record in records]


def test_each_message_meets_its_fate_in_order() -> None:
    assert run([b"a", b"bad", b"none", b"b"], DeadLetterLimit()) == [
        ("out", b"a"),
        ("dead", b"1 task: no task"),
        ("out", b"b"),
    ]


def test_a_retryable_is_the_callers() -> None:
    with pytest.raises(Retryable):
        run([b"a", b"later"], DeadLetterLimit())


def test_too_many_dead_letters_in_a_row_are_fatal_and_named() -> None:
    limit = DeadLetterLimit(3)
    run([b"bad", b"bad"], limit)
    with pytest.raises(Fatal, match=r"more than 3 .* offset 3 of in\[0\]: no task") as raised:
        run([b"bad", b"bad"], limit, start=2)
    assert isinstance(raised.value.__cause__, InvalidMessage)


def test_a_good_message_ends_the_run() -> None:
    limit = DeadLetterLimit(2)
    for start in range(0, 30, 3):
        run([b"bad", b"bad", b"a"], limit, start=start)


def test_a_message_handed_out_again_is_counted_once() -> None:
    limit = DeadLetterLimit(3)
    for _ in range(5):
        run([b"bad", b"bad", b"bad"], limit)
    other = [message(0, b"bad", partition=1)]
    with pytest.raises(Fatal):
        each(other, handle, dead_letter=bury, limit=limit)


def test_a_thousand_in_a_row_are_borne_by_default() -> None:
    limit = DeadLetterLimit()
    run([b"bad"] * 1000, limit)
    with pytest.raises(Fatal):
        run([b"bad"], limit, start=1000)
