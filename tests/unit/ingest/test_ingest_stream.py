"""The pump: offsets never run ahead of what was handled. Security settings, and the watch."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.auth import SASLCredentials, SSLCredentials
from faust.types import TP

from services.ingest import stream as stream_module
from services.ingest.quiet import Sparingly
from services.ingest.security import credentials
from services.ingest.stream import Offsets, Pump, to_message
from services.ingest.watch import Watch
from shared.bus.base import Message
from shared.bus.errors import Fatal, Retryable
from shared.clock import FakeClock
from shared.telemetry.health import Health
from tests.certificates import Authority

RAW = TP("traces.raw", 0)


def event(offset: int, partition: int = 0, **fields: Any) -> Any:
    record: dict[str, Any] = {
        "topic": "traces.raw",
        "partition": partition,
        "offset": offset,
        "key": b"k",
        "value": b"v",
        "headers": [("a", b"1"), ("a", None)],
        "timestamp": 1_700_000_000.123,
    }
    return SimpleNamespace(message=SimpleNamespace(**{**record, **fields}))


@dataclass
class FakeStream:
    """Hands out what Faust's stream would."""

    batches: list[list[Any]]
    enable_acks: bool = True
    acks_while_taking: list[bool] = field(default_factory=list)

    async def noack_take(self, _size: int, within: float) -> AsyncIterator[list[Any]]:
        for batch in self.batches:
            self.acks_while_taking.append(self.enable_acks)
            yield batch


@dataclass
class Committed:
    offsets: list[Offsets] = field(default_factory=list)
    answer: bool = True

    async def __call__(self, offsets: Offsets) -> bool:
        self.offsets.append(dict(offsets))
        return self.answer


def pump(handle: Any, health: Health | None = None) -> Pump:
    return Pump(handle, batch_size=10, batch_seconds=0.1, health=health or Health(FakeClock()))


def test_a_faust_event_becomes_the_message_it_was() -> None:
    assert to_message(event(3)) == Message(
        "traces.raw", 0, 3, b"k", b"v", (("a", b"1"), ("a", b"")), 1_700_000_000_123
    )
    tombstone = to_message(event(0, key=None, value=None, headers=None, timestamp=None))
    assert tombstone == Message("traces.raw", 0, 0, None, b"", (), 0)


def test_offsets_are_committed_after_the_batch_was_handled() -> None:
    happened: list[Any] = []
    committed = Committed()

    async def handle(messages: Sequence[Message]) -> None:
        happened.append((len(messages), len(committed.offsets)))

    async def check() -> None:
        source = FakeStream([[event(0), event(1), event(7, 1)], [event(2)]])
        made = pump(handle)
        await made.run(source, committed)  # type: ignore[arg-type]
        assert happened == [(3, 0), (1, 1)]
        assert committed.offsets == [{RAW: 2, TP("traces.raw", 1): 8}, {RAW: 3}]
        assert made.done == {RAW: 3, TP("traces.raw", 1): 8}
        assert source.acks_while_taking == [False, False], "Faust must not acknowledge anything"
        assert source.enable_acks is False

    asyncio.run(check())


def test_a_failure_commits_nothing_and_reaches_the_caller() -> None:
    committed = Committed()

    async def handle(messages: Sequence[Message]) -> None:
        raise KeyError("a bug")

    async def check() -> None:
        with pytest.raises(KeyError):
            await pump(handle).run(FakeStream([[event(0)], [event(1)]]), committed)  # type: ignore[arg-type]
        assert committed.offsets == []

    asyncio.run(check())


def test_a_passing_fault_is_met_with_patience_before_anything_is_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "_FIRST_BACKOFF_SECONDS", 0.01)
    troubles: list[str | None] = []
    committed = Committed()

    async def handle(messages: Sequence[Message]) -> None:
        troubles.append(made.trouble)
        if len(troubles) < 4:
            raise Retryable("broker away")

    async def check() -> None:
        await made.run(FakeStream([[event(0)]]), committed)  # type: ignore[arg-type]

    made = pump(handle)
    asyncio.run(check())
    assert troubles == [None, "broker away", "broker away", "broker away"]
    assert made.trouble is None
    assert committed.offsets == [{RAW: 1}]


def test_stopping_gives_up_a_batch_that_does_not_get_through() -> None:
    committed = Committed()

    async def handle(messages: Sequence[Message]) -> None:
        raise Retryable("broker away")

    async def check() -> None:
        made = pump(handle)
        running = asyncio.create_task(
            made.run(FakeStream([[event(0)], [event(1)]]), committed)  # type: ignore[arg-type]
        )
        await asyncio.sleep(0.05)
        await asyncio.wait_for(made.stop(), 2)
        await asyncio.wait_for(running, 2)
        assert committed.offsets == []

    asyncio.run(check())


def test_partitions_that_moved_on_are_not_counted_as_done() -> None:
    async def handle(messages: Sequence[Message]) -> None:
        return

    async def check() -> None:
        made = pump(handle)
        await made.run(FakeStream([[event(0)]]), Committed(answer=False))  # type: ignore[arg-type]
        assert made.done == {}

    asyncio.run(check())


@dataclass
class FakeConsumer:
    ends: dict[TP, int]
    positions: dict[TP, int]
    error: Exception | None = None
    read: dict[TP, int] = field(default_factory=dict)

    def assignment(self) -> set[TP]:
        return set(self.ends)

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        if self.error is not None:
            raise self.error
        return self.ends

    async def position(self, tp: TP) -> int | None:
        return self.positions.get(tp)

    def last_read(self, tp: TP) -> int | None:
        return self.read.get(tp)


def test_ready_once_assigned_and_alive_only_with_progress() -> None:
    async def handle(messages: Sequence[Message]) -> None:
        return

    async def check() -> None:
        clock = FakeClock()
        health = Health(clock, stall_seconds=60)
        made = pump(handle, health)
        watch = Watch(made, health)
        consumer = FakeConsumer({RAW: 5}, {RAW: 5})
        await watch.look(consumer)
        assert health.readiness() == (False, "waiting for partitions")
        await watch.assigned([RAW])
        await watch.look(consumer)
        assert health.readiness()[0]
        clock.sleep(61)
        await watch.look(consumer)
        assert health.liveness()[0], "idle is alive"
        consumer.ends = {RAW: 9}
        clock.sleep(61)
        await watch.look(consumer)
        assert not health.liveness()[0], "lag without progress is dead"
        await made.run(FakeStream([[event(8)]]), Committed())  # type: ignore[arg-type]
        await watch.look(consumer)
        assert health.liveness()[0]
        made.trouble = "no broker"
        await watch.look(consumer)
        assert health.readiness() == (False, "no broker")
        made.trouble = None
        consumer.error = OSError("gone")
        await watch.look(consumer)
        assert not health.readiness()[0]
        await watch.revoked()
        await watch.look(consumer)
        assert health.readiness() == (False, "waiting for partitions")
        await watch.assigned([])
        consumer.ends, consumer.error = {}, None
        await watch.look(consumer)
        assert health.readiness()[0], "a standby without partitions is ready"

    asyncio.run(check())


@pytest.mark.parametrize(
    ("position", "read", "alive"),
    [
        (10, 8, True),  # what is behind the newest record is a transaction's marker
        (10, None, True),
        (10, 9, False),  # it was handed out, and is not done
        (9, 8, False),  # not fetched yet: it may be a record
    ],
)
def test_a_transactions_marker_is_no_lag(position: int, read: int | None, alive: bool) -> None:
    async def handle(messages: Sequence[Message]) -> None:
        return

    async def check() -> None:
        clock = FakeClock()
        health = Health(clock, stall_seconds=60)
        made = pump(handle, health)
        watch = Watch(made, health)
        await watch.assigned([RAW])
        await made.run(FakeStream([[event(8)]]), Committed())  # type: ignore[arg-type]
        consumer = FakeConsumer({RAW: 10}, {RAW: position})
        consumer.read = {} if read is None else {RAW: read}
        clock.sleep(61)
        await watch.look(consumer)
        assert health.liveness()[0] is alive

    asyncio.run(check())


def test_plain_text_needs_no_credentials() -> None:
    assert credentials({}) is None
    assert credentials({"security.protocol": "plaintext"}) is None


def test_sasl_in_librdkafkas_names() -> None:
    made = credentials(
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": "me",
            "sasl.password": "secret",
        }
    )
    assert isinstance(made, SASLCredentials)
    assert (made.username, made.password) == ("me", "secret")
    assert made.mechanism.value == "SCRAM-SHA-512"
    assert made.protocol.value == "SASL_SSL"
    assert made.ssl_context is not None
    assert made.ssl_context.verify_mode is ssl.CERT_REQUIRED
    assert made.ssl_context.check_hostname
    assert "secret" not in repr(made)


def test_ssl_verifies_unless_told_otherwise() -> None:
    made = credentials({"security.protocol": "ssl"})
    assert isinstance(made, SSLCredentials)
    assert made.context.verify_mode is ssl.CERT_REQUIRED
    trusting = credentials(
        {"security.protocol": "ssl", "enable.ssl.certificate.verification": "false"}
    )
    assert isinstance(trusting, SSLCredentials)
    assert trusting.context.verify_mode is ssl.CERT_NONE


def test_certificates_may_stand_in_the_settings_themselves(tmp_path: Path) -> None:
    """As librdkafka takes them, where no file can be mounted."""
    authority = Authority(tmp_path)
    client = authority.issue("client")
    made = credentials(
        {
            "security.protocol": "SSL",
            "ssl.ca.pem": authority.file.read_text(),
            "ssl.certificate.pem": client.certificate.read_text(),
            "ssl.key.pem": client.key.read_text(),
        }
    )
    assert isinstance(made, SSLCredentials)
    assert len(made.context.get_ca_certs()) == 1  # and none of the system's


@pytest.mark.parametrize(
    ("kafka", "why"),
    [
        ({"security.protocol": "TLS"}, "security.protocol"),
        ({"security.protocol": "SASL_SSL"}, "sasl.username"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"}, "sasl.mechanism"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/nowhere"}, "certificates"),
        ({"security.protocol": "SSL", "ssl.ca.pem": "no certificate"}, "certificates"),
    ],
)
def test_what_cannot_be_kept_is_refused(kafka: dict[str, str], why: str) -> None:
    with pytest.raises(Fatal, match=why):
        credentials(kafka)


def test_settings_of_librdkafka_are_named_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    credentials({"linger.ms": "17", "sasl.password": "secret"})
    assert "linger.ms" in caplog.text
    assert "17" not in caplog.text
    assert "secret" not in caplog.text


def test_libraries_repeat_themselves_rarely_and_we_always() -> None:
    clock = FakeClock()
    sparingly = Sparingly(("aiokafka",), seconds=30, clock=clock)

    def passes(name: str, text: str, *arguments: object) -> bool:
        record = logging.LogRecord(name, logging.ERROR, "", 0, text, arguments, None)
        return sparingly.filter(record)

    assert passes("aiokafka.consumer", "no node %d", 1)
    assert not passes("aiokafka.consumer", "no node %d", 2)
    assert passes("aiokafka.consumer", "something else")
    assert passes("aiokafka", "no node %d", 1)
    clock.sleep(31)
    assert passes("aiokafka.consumer", "no node %d", 1)
    assert all(passes("services.ingest", "again") for _ in range(3))
